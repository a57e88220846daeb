"""Calibrate verifiers on scored problems: values become probabilities of being correct."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sampling.runtime.provenance import check_independent, scored_by
from sampling.selection.aggregation import default_aggregation
from sampling.selection.calibration import VERSION, Calibration, Calibrations, Target
from sampling.selection.calibration_files import read_calibrations
from sampling.selection.crossfit import Asked, calibrate_verifier
from sampling.selection.folds import folds_of
from sampling.selection.judged import Judged, Votes, judge
from sampling.selection.pool import Pool, largest_size, read_pool
from stepverify import atomic, trial
from stepverify.aggregate import AGGREGATIONS, Aggregation
from stepverify.calibration import METHODS, Method
from stepverify.jsonl import read_located
from stepverify.records import InputError, Solution


def calibrate(
    input: Path,
    output: Path,
    *,
    method: Method = "platt",
    target: dict[str, Target] | Target | None = None,
    aggregation: dict[str, Aggregation] | None = None,
    per_step: bool = False,
    num_folds: int = 5,
    size: int | None = None,
    num_subsets: int = 200,
    seed: int = 0,
) -> None:
    """Fit maps from verifiers' values to probabilities, and say what they change.

    Writes a JSON file for the key ``calibration`` of ``sampling rank``, ``score`` and ``search``. Every figure is
    cross-fitted: the problems of a fold are measured with maps that the others have fitted; the maps of the file are
    fitted on all problems. For verifiers with several values per solution, a logistic combination of minimum, mean,
    last value, logarithm of the product and number of values is fitted to the outcomes too, and compared with each
    fixed aggregation (``aggregation: {prm: learned}`` of ``sampling rank``).

    Args:
        input: graded and scored solutions of held-out problems, neither those that the verifiers were trained on nor
            those that are to be ranked. For maps of steps labels of steps do, as people's ratings are; votes and the
            combination are then left out.
        output: file to write, such as ``calibration.json``; an earlier calibration is replaced.
        method: ``temperature`` (divides logits: Guo et al. 2017), ``platt`` (gain and bias of logits: Platt 1999) or
            ``isotonic`` (any ascending steps: Zadrozny and Elkan 2002; needs a thousand labels or more).
        target: for all verifiers, or verifier → ``steps``, a map of each value, fitted on step labels; or
            ``solutions``, a map of the aggregated score, fitted on outcomes. Default: ``steps`` where every value is of
            a step and labels of steps are there, otherwise ``solutions``.
        aggregation: verifier → how its values become the score that a map of solutions takes. Default: ``prod`` for
            several values of steps, ``last`` otherwise and of implicit reward models, as in ``sampling rank``.
        per_step: a map for each step position with at least 50 correct and 50 incorrect steps; the others share one
            with their neighbours. For maps of steps alone.
        num_folds: folds of the cross-fitting, by a hash of the problem's id.
        size: number of samples N of the votes that are measured. Default: as the largest of ``sampling rank``.
        num_subsets: random subsets over which the votes of problems with more than N samples are averaged.
        seed: of folds, subsets and bootstrap resamples.

    Raises:
        InputError: solutions without scores, or without grades that a map needs, or of a search; fewer problems than
            folds; or no verifier to which a map can be fitted: one kind of label alone, equal values, or values of
            which higher ones are not more often correct, in all or without one fold. Others are fitted, and a warning
            names the one that is not.
    """
    if method not in METHODS:
        raise InputError(f"method: {method!r}: expected one of {', '.join(METHODS)}")
    atomic.refuse_others(output, folder=False)
    if output.exists():
        _check_replaceable(output)
    check_independent({"input": input})
    pool = read_pool(input, ungraded=True)
    if not 2 <= num_folds <= len(pool):
        raise InputError(f"num_folds: {num_folds}: expected 2 to {len(pool)}, the number of problems in {input}")
    names = sorted(next(iter(pool.values()))[0].scores)
    if not names:
        raise InputError(f"{input}: no solution has scores; run `sampling score` first")
    targets = dict.fromkeys(names, target) if isinstance(target, str) else target or {}
    for key, given in (("target", targets), ("aggregation", aggregation or {})):
        if unknown := given.keys() - {*names}:
            raise InputError(f"{key}.{min(unknown)}: expected one of {', '.join(names)}")
    (truths, ungraded), folds = _truths(input, names), folds_of([*pool], seed, num_folds)
    judged = {name: judge(pool, name, truths[name], folds, graded=not ungraded) for name in names}
    identities = scored_by(input)
    samples = [sample for group in pool.values() for sample in group]
    asked = {
        name: _asked(
            one, default_aggregation(samples, name, identities.get(name)), method, targets.get(name),
            (aggregation or {}).get(name), per_step,
        )
        for name, one in judged.items()
    }  # fmt: skip
    if per_step and not any(one.per_step for one in asked.values()):
        raise InputError("per_step: no map is of steps; it needs step labels and target: steps")
    if ungraded and (size is not None or any(one.target == "solutions" for one in asked.values())):
        raise InputError(
            f"{ungraded[0]} is not graded ('correct' is missing), one of {len(ungraded):,}; run `sampling label` "
            "first, or calibrate with target: steps, which needs labels of steps alone"
        )
    votes, timed_out = (None, 0) if ungraded else _votes(pool, size, num_subsets, seed)
    verifiers, without = dict[str, Calibration](), dict[str, InputError]()
    for name in names:
        try:
            verifiers[name] = calibrate_verifier(judged[name], asked[name], votes, seed)
            verifiers[name].identity = identities.get(name)
        except InputError as error:
            without[name] = error
    if not verifiers:
        raise next(iter(without.values()))
    made = Calibrations(
        version=VERSION, method=method, num_samples=votes.size if votes else 0,
        majority=float(votes.accuracy(None).mean()) if votes else None, num_folds=num_folds, seed=seed,
        problems=sorted(pool), verifiers=verifiers, **trial.described(),
    )  # fmt: skip
    import msgspec

    atomic.write(output, json.dumps(msgspec.to_builtins(made), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _say(output, made, judged, (len(samples), len(ungraded)), votes, timed_out)
    for name, reason in without.items():
        print(f"warning: {reason}; {output} has no map of {name}, whose values stay as they are", file=sys.stderr)


def _check_replaceable(output: Path) -> None:
    try:
        read_calibrations(output)
    except InputError:
        raise InputError(f"{output}: is there, and is not a calibration; choose another output") from None


def _truths(path: Path, names: Sequence[str]) -> tuple[dict[str, dict[str, list[float]] | None], list[str]]:
    """Return the truths of steps, and where the solutions stand that are not graded.

    Truths are verifier → solution → truth of each step, NaN if unknown; None where values are not of labelled steps.
    """
    from sampling.report.collect import step_truth

    found, of_others, ungraded = dict[str, list[float]](), set[str](), list[str]()
    for where, solution in read_located(path, Solution):
        if solution.correct is None:
            ungraded.append(f"{where}: solution {solution.id}")
        of_others |= {name for name in names if len(solution.scores[name]) not in (0, len(solution.steps))}
        truths = [step_truth(label) for label in solution.step_labels or [None] * len(solution.steps)]
        found[solution.id] = [np.nan if truth is None else float(truth) for truth in truths]
    labelled = any(not math.isnan(truth) for truths in found.values() for truth in truths)
    return {name: found if labelled and name not in of_others else None for name in names}, ungraded


def _asked(
    judged: Judged, default: Aggregation, method: Method, target: Target | None, aggregation: Aggregation | None,
    per_step: bool,
) -> Asked:  # fmt: skip
    name, many = judged.name, bool((judged.counts > 1).any())
    if target == "steps" and judged.truths is None:
        raise InputError(f"target.{name}: steps: its values are not of labelled steps; take solutions, or label steps")
    target = target or ("solutions" if judged.truths is None else "steps")
    if aggregation is not None and (aggregation not in AGGREGATIONS or target == "steps"):
        reason = "a map of steps comes before any aggregation" if target == "steps" else f"one of {AGGREGATIONS}"
        raise InputError(f"aggregation.{name}: {aggregation}: expected none, {reason}")
    how = (aggregation or default) if many else "last"
    return Asked(method=method, target=target, aggregation=how, per_step=per_step and target == "steps")


def _votes(pool: Pool, size: int | None, num_subsets: int, seed: int) -> tuple[Votes, int]:
    """Compare the answers of each problem; also return how many comparisons took too long."""
    from stepverify.answers import Grader

    most = max(map(len, pool.values()))
    size = largest_size([*map(len, pool.values())]) if size is None else size
    if not 1 <= size <= most:
        raise InputError(f"size: {size}: expected 1 to {most}, the most samples of a problem")
    classes: list[int | None] = []
    groups: list[np.ndarray] = []
    with Grader() as grader:
        for samples in pool.values():
            if len(samples) >= size:
                groups.append(np.arange(len(classes), len(classes) + len(samples)))
                classes += grader.classes([sample.predicted for sample in samples])
            else:
                classes += [None] * len(samples)
        timed_out = grader.num_timeouts
    correct = np.array([sample.correct for samples in pool.values() for sample in samples], bool)
    votes = Votes(
        size=size, groups=groups, classes=classes, correct=correct, num_subsets=num_subsets, seed=seed % (1 << 32)
    )
    return votes, timed_out


def _say(
    output: Path, made: Calibrations, judged: dict[str, Judged], counts: tuple[int, int], votes: Votes | None,
    timed_out: int,
) -> None:  # fmt: skip
    from sampling.report.calibration_section import calibration_section
    from sampling.report.render import to_text

    total, (num_solutions, num_ungraded) = len(made.problems), counts
    said = f"{output}: {total:,} problems; every figure is cross-fitted over {made.num_folds} folds of them; "
    if votes is None or made.majority is None:
        print(
            f"{said}{num_ungraded:,} of {num_solutions:,} solutions are not graded, so no vote is measured, and no "
            "combination of values learned"
        )
    else:
        print(
            f"{said}accuracies at N = {votes.size} of {len(votes.groups):,} problems, where the majority vote has "
            f"{100 * made.majority:.1f} %"
        )
        print("\n\n".join(to_text(calibration_section(name, made)) for name in made.verifiers))
    for name, found in made.verifiers.items():
        if found.step_quality:
            (ece, brier), (ece_after, brier_after) = found.step_quality["before"], found.step_quality["after"]
            labels = "" if votes else f" of {found.num_labels:,} labels"
            print(
                f"{name}: steps{labels}: ECE {ece:.3f} → {ece_after:.3f}, Brier score {brier:.3f} → {brier_after:.3f}"
            )
        for reason in found.unfitted.values():
            print(f"  not compared: {reason}")
        if len(found.maps) > 1:
            print(f"{name}: maps of their own begin at steps {', '.join(map(str, found.first_steps))}")
        if found.learned is not None:
            print(f"{name}: learned: " + ", ".join(f"{key} {weight:+.3g}" for key, weight in found.learned.items()))
        if found.identity is None:
            print(f"{name}: no manifest says which verifier gave these scores; the map is applied by name")
    for name, one in judged.items():
        if without := num_solutions - len(one.counts):
            print(f"{name}: {without:,} solutions without a value are not fitted, and weigh nothing in votes")
    if votes is not None and total > len(votes.groups):
        print(f"{total - len(votes.groups):,} problems with fewer than {votes.size} samples do not vote")
    if timed_out:
        print(f"{timed_out:,} comparisons of answers took too long; they count as not equal")
