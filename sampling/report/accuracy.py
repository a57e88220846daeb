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
    Estimate,
    PairedDifference,
    Validation,
)
from sampling.runtime.store import read_summary
from sampling.runtime.trained import Trained
from sampling.selection.calibration import LEARNED, describe_shared
from stepverify.aggregate import AGGREGATIONS
from stepverify.jsonl import read_records
from stepverify.records import InputError, Ranking
from stepverify.statistics import bootstrap_means, interval
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
    mean = table.values.mean(axis=0)
    resampled = bootstrap_means(table.values.reshape(num_problems, -1), num_bootstrap, seed)
    resampled = resampled.reshape(num_bootstrap, num_rules, num_sizes)
    low, high = interval(resampled)
    plain = [rule for rule in table.rules if not split_rule(rule)[2]]
    place = {rule: r for r, rule in enumerate(table.rules)}

    def versus(rule: str, baseline: str) -> PairedDifference:
        r, b = place[rule], place[baseline]
        below, above = interval(resampled[:, r, -1] - resampled[:, b, -1])
        difference = float(mean[r, -1] - mean[b, -1])
        return PairedDifference(versus=baseline, difference=difference, low=float(below), high=float(above))

    def at(rule: str, s: int) -> tuple[float, float, float]:
        r = place[rule]
        return float(mean[r, s]), float(low[r, s]), float(high[r, s])

    def estimate(rule: str) -> Estimate:
        value, below, above = at(rule, -1)
        return Estimate(mean=value, low=below, high=above)

    def curve(rule: str) -> list[CurvePoint]:
        points = [(n, *at(rule, s)) for s, n in enumerate(table.sizes)]
        return [CurvePoint(n=n, mean=value, low=below, high=above) for n, value, below, above in points]

    baselines = {rule: {BASELINE: "pass@1"}.get(rule, BASELINE) for rule in plain if rule not in ("pass@1", "oracle")}
    compared: dict[str, dict[str, Compared]] = {}
    for rule in table.rules:
        if how := split_rule(rule)[2]:
            value, below, above = at(rule, -1)
            paired = versus(rule, BASELINE) if BASELINE in place else None
            entry = Compared(mean=value, low=below, high=above, paired=paired)
            compared.setdefault(rule.removesuffix(f"/{how}"), {})[how] = entry
    return Accuracy(
        num_problems=num_problems, num_samples=table.sizes[-1], num_solutions=table.num_solutions, sizes=table.sizes,
        accuracy={rule: estimate(rule) for rule in plain}, auroc_per_problem=table.areas,
        paired={rule: versus(rule, baseline) for rule, baseline in baselines.items() if baseline in place},
        every_aggregation=compared, curves={rule: curve(rule) for rule in plain},
        aggregation=aggregation or {}, validation=validation,
    )  # fmt: skip


def rank_warnings(path: Path) -> list[str]:
    """Return the rank stage's warnings: problems left out, or trained on."""
    summary, said = read_summary(path, _Ranked), []
    if (few := summary.fewer_samples) and summary.sizes:
        said = [f"{len(few)} problems with fewer than {summary.sizes[-1]} samples are left out: {', '.join(few)}"]
    return [*said, *describe_trained(to_builtins(summary.trained_on)), *describe_shared(summary.calibrated_on)]


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
