"""Report rankings, searches and verifier scores as JSON, Markdown, figures and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sampling.report.collect import Neutral
from sampling.report.section import Uncertainty
from sampling.report.subject import find_subject
from sampling.report.summary import Summary
from sampling.runtime.trained import trained_on
from sampling.search.finished import FinalRule, check_rule, read_pass_at_1, read_shared
from sampling.selection.calibration import Calibration
from sampling.selection.calibration_files import maps_of_values
from stepverify import atomic, trial
from stepverify.records import InputError
from stepverify.training_problems import describe_trained
from stepverify.versions import installed

BROWSER = "browse.html"


def report(
    input: Path | None = None,
    *,
    output: Path,
    scores: Path | None = None,
    threshold_subset: str | None = None,
    neutral: Neutral = "positive",
    num_bootstrap: int = 2000,
    seed: int = 0,
    browse: int = 40_000,
    searches: dict[str, Path] | None = None,
    final_rule: FinalRule = "best_of_n",
    held_out: Path | None = None,
    prediction_samples: int = 4,
    standard_errors: bool = False,
    calibration: Path | None = None,
) -> None:
    """Report the accuracy of rules and searches, and verifiers' quality.

    Writes ``summary.json`` (shares in [0, 1]), ``report.md``, ``report.html`` (one self-contained page), every figure
    as PNG, SVG and PDF (for rankings ``accuracy`` and ``accuracy_dots``, for searches ``budget``, for scores
    ``reliability``), every table as CSV and LaTeX (booktabs) in ``tables/``, and for scores and searches
    ``browse.html``, in which people look at the solutions; each file appears complete or not at all, and files of an
    earlier report that are no part of this one are removed. The title names data set, generator and N as far as ids and
    manifests tell. Prints the accuracies at the largest N, those of searches at their budgets, the quality of step
    values and how well first errors are found.

    Args:
        input: the rankings; None reports the scores or searches alone.
        output: the folder to write to; created if it does not exist.
        scores: scored solutions, for calibration, length preference and, if steps have labels, step accuracy and first
            errors (ProcessBench). They may be of other problems than the rankings.
        threshold_subset: choose a threshold for first errors on the solutions with this ``meta.subset`` (ProcessBench
            takes ``gsm8k``), and apply it to all, in addition to 1/2.
        neutral: what a step rated 0 counts as.
        num_bootstrap: number of bootstrap resamples, of the problems or solutions, for each interval.
        seed: seed of the resamples.
        browse: largest number of solutions in ``browse.html``; 0 writes none. The first problems are embedded, each
            whole; what that leaves out is printed, and said on the page. Search trees are embedded with up to 8
            prefixes for each solution of this number. Values after every token need ``per_token`` in ``sampling
            score``.
        searches: name → output of `sampling search`, for accuracy against budget. Names that are equal before ``@``
            (``beam@4``, ``beam@16``) are one curve. The search by BestOfN with the most samples is the baseline: it
            gives the curve of every smaller number, and the majority vote. Only problems that all searches have count.
        final_rule: how the final answer of every search is chosen in figure, differences and bins: ``best_of_n`` (the
            best score), ``weighted_vote`` or ``majority``. The table has all rules.
        held_out: graded solutions of the problems of the searches, sampled with another seed (`sampling generate`, then
            `sampling label`): results of the searches by difficulty, measured by pass@1 of these.
        prediction_samples: results by difficulty as the verifier predicts it, by the mean score of this many first
            samples of the search by BestOfN.
        standard_errors: print bootstrap standard errors (``± 1.2``) in place of the 95 % intervals; ``summary.json``
            has both.
        calibration: file of ``sampling calibrate`` whose maps are applied to the values of ``scores``, fitted on other
            problems: maps of steps, or of one value of a solution.

    Raises:
        InputError: nothing to report, rankings that do not belong together, ``num_bootstrap`` below 1, ``browse`` below
            0, ``threshold_subset`` or ``calibration`` without scores, a calibration of other verifiers, a subset on
            which no threshold can be chosen, ``held_out`` without searches, a search that has not finished, or searches
            without a common problem.
    """
    if input is None and scores is None and searches is None:
        raise InputError("input, scores, searches: expected rankings, scored solutions or searches")
    if held_out is not None and searches is None:
        raise InputError(f"held_out: {held_out}: expected searches, whose problems it tells the difficulty of")
    if prediction_samples < 1:
        raise InputError(f"prediction_samples: expected 1 or more, got {prediction_samples}")
    check_rule(final_rule)
    atomic.refuse_others(output, folder=True)
    if threshold_subset is not None and scores is None:
        raise InputError(f"threshold_subset: {threshold_subset}: expected scores to choose a threshold on")
    if browse < 0:
        raise InputError(f"browse: expected 0 or more, got {browse}")
    if num_bootstrap < 1:
        raise InputError(f"num_bootstrap: expected 1 or more, got {num_bootstrap}")
    if calibration is not None and scores is None:
        raise InputError(f"calibration: {calibration}: expected scores whose values it maps")
    mapped = ({}, []) if calibration is None or scores is None else maps_of_values(calibration, scores)
    summary = _measure(input, scores, threshold_subset, neutral, num_bootstrap, seed, searches is None, mapped)
    if calibration is not None:
        summary = replace(summary, config=summary.config | {"calibration": str(calibration)})
    if searches is not None:
        asked = final_rule, held_out, prediction_samples, num_bootstrap, seed
        summary = _with_searches(summary, searches, *asked)
    said = None
    if browse:
        said = _browse(output / BROWSER, summary, input, scores, neutral, searches or {}, final_rule, browse, mapped[0])
    from sampling.report.render import to_text
    from sampling.report.writing import write_report

    printed = write_report(output, summary, BROWSER if said else "", Uncertainty(standard_errors))
    print("\n\n".join([*map(to_text, printed), str(output / "report.html")]))
    if said:
        print(said)


def _browse(
    path: Path, summary: Summary, rankings: Path | None, scores: Path | None, neutral: Neutral,
    searches: dict[str, Path], final_rule: FinalRule, limit: int, maps: Mapping[str, Calibration],
) -> str | None:  # fmt: skip
    """Write the solution browser; return what it holds, or None where there is nothing to look at."""
    from sampling.report.browser import EXPANSIONS, Describer, Sources, browse_report
    from sampling.search.finished import read_search

    how = summary.accuracy.aggregation if summary.accuracy else {}
    used = {name: one.how for name, one in how.items() if one.how != "learned"}
    judged = summary.first_errors or {}
    thresholds = {name: one.all.chosen.threshold for name, one in judged.items() if one.all.chosen}
    finished = [read_search(name, folder) for name, folder in searches.items()]
    if scores is None and not any((search.folder / EXPANSIONS).is_dir() for search in finished):
        return None  # of searches, no more than the results may be there
    sources = Sources(scores, rankings, finished, final_rule, maps)
    embedded = browse_report(path, sources, Describer(used, thresholds, neutral), limit)
    return f"{path}: {embedded.describe()}, {path.stat().st_size / 1e6:.1f} MB"


def _measure(
    input: Path | None,
    scores: Path | None,
    threshold_subset: str | None,
    neutral: Neutral,
    num_bootstrap: int,
    seed: int,
    alone: bool,
    mapped: tuple[Mapping[str, Calibration], Sequence[str]],
) -> Summary:
    from sampling.report.accuracy import accuracy_statistics, rank_warnings

    accuracy = steps = solutions = first_errors = None
    maps, warnings = mapped[0], [*mapped[1], *([] if scores is None else describe_trained(trained_on(scores)))]
    if input is not None:
        accuracy = accuracy_statistics(input, num_bootstrap, seed)
        warnings = [*dict.fromkeys([*rank_warnings(input), *warnings])]
    if scores is not None:
        from sampling.report.collect import collect
        from sampling.report.first_errors import first_error_statistics
        from sampling.report.quality import solution_statistics, step_statistics

        collected = collect(scores, neutral, maps)
        used = {name: chosen.how for name, chosen in accuracy.aggregation.items()} if accuracy else {}
        first_errors = first_error_statistics(collected, threshold_subset, num_bootstrap, seed)
        if threshold_subset is not None and not first_errors:
            raise InputError(f"{scores}: no verifier has a value per step for solutions whose first error is known")
        steps = step_statistics(collected, num_bootstrap, seed)
        solutions = solution_statistics(collected, used)
        if alone and input is None and not steps and not solutions:
            raise InputError(
                f"{scores}: no scored solution has step labels or is graded, so there is nothing to report"
            )
    config: dict[str, str | int | None] = {
        "rankings": None if input is None else str(input), "scores": None if scores is None else str(scores),
        "threshold_subset": threshold_subset, **({} if scores is None else {"neutral": neutral}),
        "num_bootstrap": num_bootstrap, "seed": seed, **trial.described(), **installed("stepverify"),
    }  # fmt: skip
    return Summary(
        subject=find_subject(input or scores),
        accuracy=accuracy,
        steps=steps,
        solutions=solutions,
        first_errors=first_errors,
        config=config,
        warnings=warnings,
    )


def _with_searches(
    summary: Summary, folders: dict[str, Path], final_rule: FinalRule, held_out: Path | None, prediction_samples: int,
    num_bootstrap: int, seed: int,
) -> Summary:  # fmt: skip
    from sampling.report.budget import budget_statistics, budget_warnings

    shared = read_shared(folders)
    known = None if held_out is None else read_pass_at_1(held_out)
    asked: dict[str, str | int | None] = {f"searches.{name}": str(folder) for name, folder in folders.items()}
    asked |= {"final_rule": final_rule, "held_out": None if held_out is None else str(held_out)}
    return replace(
        summary,
        subject=summary.subject | find_subject(None, shared.searches),
        searches=budget_statistics(shared, final_rule, prediction_samples, known, num_bootstrap, seed),
        warnings=[*summary.warnings, *budget_warnings(shared, prediction_samples)],
        config=asked | {"prediction_samples": prediction_samples} | summary.config,
    )
