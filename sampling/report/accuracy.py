"""Compute accuracy over N from rankings, with bootstrap intervals over problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins

from sampling.report.summary import (
    Accuracy,
    ChosenAggregation,
    Compared,
    CurvePoint,
    Difference,
    Estimate,
    PairedDifference,
    Validation,
)
from sampling.runtime.store import read_summary
from sampling.runtime.trained import Trained
from sampling.selection.calibration import LEARNED, describe_shared
from sampling.selection.length import LengthBias, describe_length_bias
from stepverify.aggregate import AGGREGATIONS
from stepverify.jsonl import read_records
from stepverify.records import InputError, Ranking
from stepverify.statistics import means_and_bootstrap, spread
from stepverify.training_problems import describe_trained

BASELINE = "majority"


class _Ranked(Struct):
    """Hold what a report reads of the rank stage's summary."""

    aggregation: dict[str, ChosenAggregation] | None = None
    validation: Validation | None = None
    sizes: list[int] = []
    fewer_samples: dict[str, int] = {}
    trained_on: dict[str, Trained | None] = {}
    calibrated_on: dict[str, Any] = {}
    length_bias: dict[str, LengthBias] = {}


@dataclass(slots=True)
class Table:
    """Hold all rankings of a folder.

    Attributes:
        rules: names of the rules, in the order of the file.
        sizes: the numbers of samples N.
        num_solutions: number of solutions of all problems together.
        values: (problems, rules, sizes), the probability to be correct.
        areas: rule → mean AUROC over the problems that have one.
    """

    rules: list[str]
    sizes: list[int]
    num_solutions: int
    values: np.ndarray
    areas: dict[str, float] = field(default_factory=dict)


def read_table(path: Path) -> Table:
    """Read the rankings of a folder.

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
        for rule, area in ranking.auroc_by_rule.items():
            areas.setdefault(rule, []).append(area)
        num_solutions += ranking.num_samples
    assert first is not None  # read_records refuses an empty folder
    means = {rule: sum(found) / len(found) for rule, found in areas.items()}
    return Table([*first.curves], first.sizes, num_solutions, np.array(rows), means)


def accuracy_statistics(path: Path, num_bootstrap: int, seed: int) -> Accuracy:
    """Compute accuracies from rankings and the rank stage's summary.

    The summary holds the aggregations and the table of validation.
    """
    stage = read_summary(path, _Ranked)
    return summarise(read_table(path), num_bootstrap, seed, stage.aggregation, stage.validation)


def summarise(
    table: Table,
    num_bootstrap: int,
    seed: int,
    aggregation: dict[str, ChosenAggregation] | None = None,
    validation: Validation | None = None,
) -> Accuracy:
    """Compute curves, accuracies at the largest N and paired differences.

    All are shares of the problems. Every interval is the 2.5th to the 97.5th percentile over the same resamples of the
    problems, so that a difference between two rules is taken within each resample (Efron and Tibshirani 1993, section
    13.3).
    """
    num_problems, num_rules, num_sizes = table.values.shape
    rows = means_and_bootstrap(table.values.reshape(num_problems, -1), num_bootstrap, seed)
    rows = rows.reshape(1 + num_bootstrap, num_rules, num_sizes)
    plain = [rule for rule in table.rules if not split_rule(rule)[2]]
    place = {rule: r for r, rule in enumerate(table.rules)}

    def difference(rule: str, other: str) -> dict[str, float]:
        resampled = rows[:, place[rule], -1] - rows[:, place[other], -1]
        return {"difference": float(resampled[0]), **spread(resampled)}

    def versus(rule: str, baseline: str) -> PairedDifference:
        return PairedDifference(versus=baseline, **difference(rule, baseline))

    def estimate(rule: str, s: int = -1) -> dict[str, float]:
        resampled = rows[:, place[rule], s]
        return {"mean": float(resampled[0]), **spread(resampled)}

    def curve(rule: str) -> list[CurvePoint]:
        return [CurvePoint(n=n, **estimate(rule, s)) for s, n in enumerate(table.sizes)]

    baselines = {rule: {BASELINE: "pass@1"}.get(rule, BASELINE) for rule in plain if rule not in ("pass@1", "oracle")}
    compared: dict[str, dict[str, Compared]] = {}
    for rule in table.rules:
        if how := split_rule(rule)[2]:
            paired = versus(rule, BASELINE) if BASELINE in place else None
            compared.setdefault(rule.removesuffix(f"/{how}"), {})[how] = Compared(**estimate(rule), paired=paired)
    judged = [rule for rule in plain if split_rule(rule)[0]]
    several = len({split_rule(rule)[0] for rule in judged}) > 1
    between = {
        rule: {other: Difference(**difference(rule, other)) for other in judged[i + 1 :]}
        for i, rule in enumerate(judged[:-1])
    }
    return Accuracy(
        num_problems=num_problems, num_samples=table.sizes[-1], num_solutions=table.num_solutions, sizes=table.sizes,
        accuracy={rule: Estimate(**estimate(rule)) for rule in plain}, auroc_per_problem=table.areas,
        paired={rule: versus(rule, baseline) for rule, baseline in baselines.items() if baseline in place},
        between=between if several else {}, every_aggregation=compared, curves={rule: curve(rule) for rule in plain},
        aggregation=aggregation or {}, validation=validation,
    )  # fmt: skip


def rank_warnings(path: Path) -> list[str]:
    """Return the rank stage's warnings: problems left out or trained on, and scores that count steps."""
    summary, said = read_summary(path, _Ranked), []
    if (few := summary.fewer_samples) and summary.sizes:
        said = [f"{len(few)} problems with fewer than {summary.sizes[-1]} samples are left out: {', '.join(few)}"]
    said += [*describe_trained(to_builtins(summary.trained_on)), *describe_shared(summary.calibrated_on)]
    return [*said, *describe_length_bias(summary.length_bias)]


def split_rule(rule: str) -> tuple[str, str, str]:
    """Split ``prm/best_of_n/min`` into verifier, rule and aggregation.

    Parts that are missing are empty.
    """
    rest, _, how = rule.rpartition("/")
    if not rest or how not in (*AGGREGATIONS, LEARNED):
        rest, how = rule, ""
    verifier, _, kind = rest.rpartition("/")
    return verifier, kind, how


def kind_label(kind: str) -> str:
    """Return a rule's label: ``top_3`` → ``vote of the best 3``."""
    if kind.startswith("top_"):
        return f"vote of the best {kind.removeprefix('top_')}"
    names = {"best_of_n": "best of N", "weighted_vote": "weighted vote", "majority": "majority vote"}
    return (names | {"shortest": "shortest", "oracle": "oracle (pass@N)"}).get(kind, kind)


def rule_label(rule: str) -> str:
    """Return the label with the verifier: ``prm/weighted_vote`` → ``prm, weighted vote``."""
    verifier, kind, _ = split_rule(rule)
    return f"{verifier}, {kind_label(kind)}" if verifier else kind_label(kind)
