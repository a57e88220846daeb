"""Rankings → accuracy over N, with bootstrap intervals over problems. Needs numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sampling.runtime.store import read_summary
from stepverify.aggregate import AGGREGATIONS
from stepverify.jsonl import read_records
from stepverify.records import InputError, Ranking
from stepverify.training_problems import describe_trained

BASELINE = "majority"
_CHUNK = 1 << 24  # weights of resampled problems held at a time


@dataclass(slots=True)
class Table:
    """All rankings of a folder.

    Attributes:
        rules: in the order of the file.
        num_solutions: of all problems together.
        values: (problems, rules, sizes), the chance to be right.
        areas: rule → mean area under the ROC curve of the problems that have one.
    """

    rules: list[str]
    sizes: list[int]
    num_solutions: int
    values: np.ndarray
    areas: dict[str, float] = field(default_factory=dict)


def read_table(path: Path) -> Table:
    """Read rankings.

    Raises:
        InputError: problems that differ in their sizes or rules.
    """
    first: Ranking | None = None
    rows, num_solutions = [], 0
    areas: dict[str, list[float]] = {}
    for ranking in read_records(path, Ranking):
        first = first or ranking
        for key, here, there in (("sizes", ranking.sizes, first.sizes), ("rules", [*ranking.curves], [*first.curves])):
            if here != there:
                raise InputError(f"{path}: {key} of {ranking.problem_id}: {here}, of {first.problem_id}: {there}")
        rows.append([ranking.curves[rule] for rule in first.curves])
        for rule, area in ranking.areas.items():
            areas.setdefault(rule, []).append(area)
        num_solutions += ranking.num_samples
    assert first is not None  # read_records refuses an empty folder
    means = {rule: sum(found) / len(found) for rule, found in areas.items()}
    return Table([*first.curves], first.sizes, num_solutions, np.array(rows), means)


def summarise(table: Table, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """The curves, the accuracies at the largest N, and the paired differences, in shares of the problems.

    Every interval is the 2.5th to the 97.5th percentile over the same resamples of the problems, so that a
    difference between two rules is taken within each resample (Efron and Tibshirani 1993, section 13.3).
    """
    num_problems, num_rules, num_sizes = table.values.shape
    mean = table.values.mean(axis=0)
    resampled = bootstrap_means(table.values.reshape(num_problems, -1), num_bootstrap, seed)
    resampled = resampled.reshape(num_bootstrap, num_rules, num_sizes)
    low, high = interval(resampled)
    plain = [rule for rule in table.rules if not split_rule(rule)[2]]
    place = {rule: r for r, rule in enumerate(table.rules)}

    def versus(rule: str, baseline: str) -> dict[str, Any]:
        r, b = place[rule], place[baseline]
        below, above = interval(resampled[:, r, -1] - resampled[:, b, -1])
        difference = float(mean[r, -1] - mean[b, -1])
        return {"versus": baseline, "difference": difference, "low": float(below), "high": float(above)}

    def point(rule: str, s: int) -> dict[str, float]:
        return {key: float(found[place[rule], s]) for key, found in (("mean", mean), ("low", low), ("high", high))}

    curves = {rule: [{"n": n} | point(rule, s) for s, n in enumerate(table.sizes)] for rule in plain}
    baselines = {rule: {BASELINE: "pass@1"}.get(rule, BASELINE) for rule in plain if rule not in ("pass@1", "oracle")}
    paired = {rule: versus(rule, baseline) for rule, baseline in baselines.items() if baseline in place}
    compared: dict[str, dict[str, Any]] = {}
    for rule in table.rules:
        if how := split_rule(rule)[2]:
            entry = point(rule, -1) | ({"paired": versus(rule, BASELINE)} if BASELINE in place else {})
            compared.setdefault(rule.removesuffix(f"/{how}"), {})[how] = entry
    return {
        "num_problems": num_problems,
        "num_samples": table.sizes[-1],
        "num_solutions": table.num_solutions,
        "sizes": table.sizes,
        "accuracy": {rule: point(rule, -1) for rule in plain},
        "auc_within": table.areas,
        "paired": paired,
        "every_aggregation": compared,
        "curves": curves,
    }


def bootstrap_means(values: np.ndarray, num_bootstrap: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Means over problems (or solutions) drawn with replacement: (problems, columns) → (num_bootstrap, columns).

    All columns share the resamples.
    """
    total = len(values)
    return np.concatenate([counts @ values / total for counts in resamples(total, num_bootstrap, seed)])


def resamples(total: int, num: int, seed: int | tuple[int, ...], width: int = 0) -> Iterator[np.ndarray]:
    """How often each of ``total`` is drawn with replacement: arrays (some, total) of ``num`` rows in all.

    Args:
        total: problems, or solutions.
        num: resamples.
        seed: of the draws.
        width: numbers that a row takes where it is used, if more than ``total``: pieces are made to fit memory.
    """
    rng, step = np.random.default_rng(seed), max(1, _CHUNK // max(total, width))
    for start in range(0, num, step):
        rows = min(step, num - start)
        drawn = rng.integers(total, size=(rows, total)) + total * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * total).reshape(rows, total)


def read_aggregation(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """What the rank stage wrote down: verifier → aggregation and where it was chosen; the table of validation."""
    summary = read_summary(path)
    return summary.get("aggregation") or {}, summary.get("validation")


def rank_warnings(path: Path) -> list[str]:
    """Read what the rank stage warned of: problems left out, or trained on."""
    summary, said = read_summary(path), []
    if few := summary.get("fewer_samples"):
        said = [f"{len(few)} problems with fewer than {summary['sizes'][-1]} samples are left out: {', '.join(few)}"]
    return [*said, *describe_trained(summary.get("trained_on") or {})]


def split_rule(rule: str) -> tuple[str, str, str]:
    """Verifier, rule and aggregation of ``prm/best_of_n/min``; empty where there is none."""
    rest, _, how = rule.rpartition("/")
    if not rest or how not in AGGREGATIONS:
        rest, how = rule, ""
    verifier, _, kind = rest.rpartition("/")
    return verifier, kind, how


def kind_label(kind: str) -> str:
    """How a rule is named in figures and tables: ``top_3`` → ``vote of the best 3``."""
    if kind.startswith("top_"):
        return f"vote of the best {kind.removeprefix('top_')}"
    names = {"best_of_n": "best of N", "weighted": "weighted vote", "majority": "majority vote"}
    return (names | {"fewest_steps": "fewest steps", "oracle": "oracle (pass@N)"}).get(kind, kind)


def rule_label(rule: str) -> str:
    """The same with its verifier: ``prm/weighted`` → ``prm, weighted vote``."""
    verifier, kind, _ = split_rule(rule)
    return f"{verifier}, {kind_label(kind)}" if verifier else kind_label(kind)


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and the 97.5th percentile over the first axis."""
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return low, high


def low_high(values: np.ndarray) -> dict[str, float]:
    """The interval of the resamples that stand behind the value of the sample itself; those that are NaN are left out.

    A resample may lack one kind of steps or solutions, and where all of them do the interval is the value alone.
    """
    resampled = values[1:][~np.isnan(values[1:])]
    low, high = interval(resampled if len(resampled) else values[:1])
    return {"low": float(low), "high": float(high)}
