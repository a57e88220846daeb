"""Report rankings and verifier scores as JSON, Markdown, figures and HTML."""

from __future__ import annotations

import json
from pathlib import Path

from sampling.report.collect import Neutral
from sampling.report.summary import Summary
from sampling.runtime.trained import trained_on
from stepverify import atomic
from stepverify.records import InputError
from stepverify.training_problems import describe_trained
from stepverify.versions import installed


def report(
    input: Path | None = None,
    *,
    output: Path,
    scores: Path | None = None,
    threshold_subset: str | None = None,
    neutral: Neutral = "positive",
    num_bootstrap: int = 2000,
    seed: int = 0,
    tokens: int = 0,
) -> None:
    """Report the accuracy of every rule over N and the verifiers' quality.

    Writes ``summary.json`` (shares in [0, 1]), ``report.md``, ``report.html`` (one self-contained page) and, for
    rankings, ``accuracy.png``; each file appears complete or not at all. Prints the accuracies at the largest N, the
    quality of step values and how well first errors are found.

    Args:
        input: the rankings; None reports the scores alone.
        output: the folder to write to; created if it does not exist.
        scores: scored solutions, for calibration, length preference and, if steps have labels, step accuracy and first
            errors (ProcessBench). They may be of other problems than the rankings.
        threshold_subset: choose a threshold for first errors on the solutions with this ``meta.subset`` (ProcessBench
            takes ``gsm8k``), and apply it to all, in addition to 1/2.
        neutral: what a step rated 0 counts as.
        num_bootstrap: number of bootstrap resamples, of the problems or solutions, for each interval.
        seed: seed of the resamples.
        tokens: also write ``tokens.html`` with this many solutions of each kind (the best-scored incorrect and correct
            ones, and those with the largest drops), in which colours show the value after every token or step. Token
            values need ``per_token`` in ``sampling score``.

    Raises:
        InputError: nothing to report, rankings that do not belong together, ``num_bootstrap`` below 1, ``tokens`` or
            ``threshold_subset`` without scores, or a subset on which no threshold can be chosen.
    """
    if input is None and scores is None:
        raise InputError("input, scores: expected rankings, scored solutions or both")
    atomic.refuse_others(output, folder=True)
    if threshold_subset is not None and scores is None:
        raise InputError(f"threshold_subset: {threshold_subset}: expected scores to choose a threshold on")
    if tokens and (tokens < 0 or scores is None):
        raise InputError(f"tokens: expected 0 or more together with scores, got {tokens} with scores: {scores}")
    if num_bootstrap < 1:
        raise InputError(f"num_bootstrap: expected 1 or more, got {num_bootstrap}")
    summary = _measure(input, scores, threshold_subset, neutral, num_bootstrap, seed)
    page = None
    if scores is not None and tokens:
        from sampling.report.viewer import choose, to_page

        used = {name: chosen.how for name, chosen in summary.accuracy.aggregation.items()} if summary.accuracy else {}
        if not (shown := choose(scores, used, tokens)):
            raise InputError(f"tokens: {scores} has no graded solutions with a value per token or step")
        page = to_page(shown)
    _write_all(output, summary)
    if page is not None:
        atomic.write(output / "tokens.html", page)
        print(output / "tokens.html")


def _measure(
    input: Path | None,
    scores: Path | None,
    threshold_subset: str | None,
    neutral: Neutral,
    num_bootstrap: int,
    seed: int,
) -> Summary:
    from sampling.report.accuracy import accuracy_statistics, rank_warnings

    accuracy = steps = solutions = first_errors = None
    warnings = [] if scores is None else describe_trained(trained_on(scores))
    if input is not None:
        accuracy = accuracy_statistics(input, num_bootstrap, seed)
        warnings = [*dict.fromkeys([*rank_warnings(input), *warnings])]
    if scores is not None:
        from sampling.report.collect import collect
        from sampling.report.first_errors import first_error_statistics
        from sampling.report.quality import solution_statistics, step_statistics

        collected = collect(scores, neutral)
        used = {name: chosen.how for name, chosen in accuracy.aggregation.items()} if accuracy else {}
        first_errors = first_error_statistics(collected, threshold_subset, num_bootstrap, seed)
        if threshold_subset is not None and not first_errors:
            raise InputError(f"{scores}: no verifier has a value per step for solutions whose first error is known")
        steps = step_statistics(collected, num_bootstrap, seed)
        solutions = solution_statistics(collected, used)
        if input is None and not steps and not solutions:
            raise InputError(
                f"{scores}: no scored solution has step labels or is graded, so there is nothing to report"
            )
    config: dict[str, str | int | None] = {
        "rankings": None if input is None else str(input), "scores": None if scores is None else str(scores),
        "threshold_subset": threshold_subset, **({} if scores is None else {"neutral": neutral}),
        "num_bootstrap": num_bootstrap, "seed": seed, **installed("stepverify"),
    }  # fmt: skip
    return Summary(
        accuracy=accuracy, steps=steps, solutions=solutions, first_errors=first_errors, config=config, warnings=warnings
    )


def _write_all(output: Path, summary: Summary) -> None:
    from sampling.report.figures import DARK, LIGHT, accuracy_figure, reliability_figure
    from sampling.report.render import to_html, to_markdown, to_text
    from sampling.report.sections import accuracy_section, first_error_section, sections, steps_section

    parts, figures = sections(summary), {}
    title, lead, printed = "What verifiers say of solutions", "", parts[: bool(summary.warnings)]
    if found := summary.accuracy:
        title = "Choosing among sampled solutions"
        lead = (
            f"{found.num_problems:,} problems, {found.num_samples:,} samples of each; "
            f"{found.num_solutions:,} solutions in all."
        )
        figures["accuracy"] = (accuracy_figure(found, LIGHT), accuracy_figure(found, DARK))
        printed.append(accuracy_section(found))
    if summary.steps:
        printed.append(steps_section(summary.steps))
    if summary.first_errors:
        printed.append(first_error_section(summary.first_errors))
    groups = {
        title: {name: one.reliability for name, one in verifiers.items()}
        for title, verifiers in (("Scores of solutions", summary.solutions), ("Values of steps", summary.steps))
        if verifiers
    }
    if groups:
        figures["reliability"] = (reliability_figure(groups, LIGHT), reliability_figure(groups, DARK))
    if "accuracy" in figures:
        atomic.write(output / "accuracy.png", figures["accuracy"][0])
    atomic.write(output / "report.md", to_markdown(title, parts))
    atomic.write(output / "report.html", to_html(title, lead, parts, figures))
    plain = json.dumps(summary.plain(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic.write(output / "summary.json", plain)
    pictures = ("accuracy.png",) if "accuracy" in figures else ()
    atomic.check_written(output, ("report.md", "report.html", "summary.json", *pictures))
    print("\n\n".join([*map(to_text, printed), str(output / "report.html")]))
