"""Rankings → accuracy over N, with bootstrap intervals over problems. Needs numpy only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepverify.records import MANIFEST, InputError, Ranking, read_records

BASELINE = "majority"
_CHUNK = 1 << 24  # weights of resampled problems held at a time


@dataclass(slots=True)
class Table:
    """All rankings of a folder.

    Attributes:
        rules: in the order of the file.
        num_solutions: of all problems together.
        values: (problems, rules, sizes), the chance to be right.
    """

    rules: list[str]
    sizes: list[int]
    num_solutions: int
    values: np.ndarray


def read_table(path: Path) -> Table:
    """Read rankings.

    Raises:
        InputError: problems that differ in their sizes or rules.
    """
    first: Ranking | None = None
    rows, num_solutions = [], 0
    for ranking in read_records(path, Ranking):
        first = first or ranking
        for key, here, there in (("sizes", ranking.sizes, first.sizes), ("rules", [*ranking.curves], [*first.curves])):
            if here != there:
                raise InputError(f"{path}: {key} of {ranking.problem_id}: {here}, of {first.problem_id}: {there}")
        rows.append([ranking.curves[rule] for rule in first.curves])
        num_solutions += ranking.num_samples
    assert first is not None  # read_records refuses an empty folder
    return Table([*first.curves], first.sizes, num_solutions, np.array(rows))


def summarise(table: Table, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """The curves, the accuracies at the largest N, and the paired differences, in shares of the problems.

    Every interval is the 2.5th to the 97.5th percentile over the same resamples of the problems, so that a
    difference between two rules is taken within each resample (Efron and Tibshirani 1993, section 13.3).
    """
    num_problems, num_rules, num_sizes = table.values.shape
    mean = table.values.mean(axis=0)
    resampled = bootstrap_means(table.values.reshape(num_problems, -1), num_bootstrap, seed)
    resampled = resampled.reshape(num_bootstrap, num_rules, num_sizes)
    low, high = _interval(resampled)
    curves = {
        rule: [
            {"n": n, "mean": float(mean[r, s]), "low": float(low[r, s]), "high": float(high[r, s])}
            for s, n in enumerate(table.sizes)
        ]
        for r, rule in enumerate(table.rules)
    }
    paired = {}
    for rule in table.rules:
        versus = {"pass@1": None, "oracle": None, BASELINE: "pass@1"}.get(rule, BASELINE)
        if versus is None or versus not in table.rules:
            continue
        r, b = table.rules.index(rule), table.rules.index(versus)
        below, above = _interval(resampled[:, r, -1] - resampled[:, b, -1])
        paired[rule] = {
            "versus": versus, "difference": float(mean[r, -1] - mean[b, -1]), "low": float(below), "high": float(above),
        }  # fmt: skip
    return {
        "num_problems": num_problems,
        "num_samples": table.sizes[-1],
        "num_solutions": table.num_solutions,
        "sizes": table.sizes,
        "accuracy": {rule: {key: curve[-1][key] for key in ("mean", "low", "high")} for rule, curve in curves.items()},
        "paired": paired,
        "curves": curves,
    }


def bootstrap_means(values: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Means over problems drawn with replacement: (problems, columns) → (num_bootstrap, columns).

    All columns share the resamples.
    """
    rng, total = np.random.default_rng(seed), len(values)
    step, means = max(1, _CHUNK // total), []
    for start in range(0, num_bootstrap, step):
        rows = min(step, num_bootstrap - start)
        drawn = rng.integers(total, size=(rows, total)) + total * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * total).reshape(rows, total)
        means.append(counts @ values / total)
    return np.concatenate(means)


def read_aggregation(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, Any] | None]:
    """What the rank stage wrote down: verifier → aggregation and where it was chosen; the table of validation."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        return {}, None
    summary = json.loads(manifest.read_text()).get("summary") or {}
    return summary.get("aggregation") or {}, summary.get("validation")


def rule_label(rule: str, others: Sequence[str] = ("best_of_n", "weighted")) -> str:
    """How a rule is named in figures and tables: ``prm/weighted`` → ``prm, weighted vote``."""
    verifier, _, kind = rule.rpartition("/")
    if not verifier or kind not in others:
        return {"majority": "majority vote", "oracle": "oracle (pass@N)"}.get(rule, rule)
    return f"{verifier}, {'best of N' if kind == 'best_of_n' else 'weighted vote'}"


def _interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return low, high
