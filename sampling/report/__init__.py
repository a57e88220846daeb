"""Rankings and scores → curves with intervals, as JSON, Markdown, a figure and one HTML page."""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sampling.report.curves import read_aggregation, read_table, summarise
from stepverify.records import InputError


def report(
    input: Path,
    output: Path,
    scores: Path | None = None,
    num_bootstrap: int = 2000,
    seed: int = 0,
    tokens: int = 0,
) -> None:
    """Report the accuracy of every rule over N, and how good the verifiers' values are.

    Writes ``summary.json`` (shares in [0, 1]), ``accuracy.png``, ``report.md`` and ``report.html`` (one page that
    needs no other file), each as a whole, and prints the accuracies at the largest N.

    Args:
        input: the rankings.
        output: the folder to write to; made where there is none.
        scores: scored solutions, for calibration, length preference and, where steps carry labels, step accuracy.
            They may be of other problems than the rankings.
        num_bootstrap: resamples of the problems behind every interval.
        seed: of the resamples.
        tokens: write ``tokens.html`` too: so many solutions of each kind (the best-scored wrong and right ones, the
            deepest falls) with the value behind every token, or every step, as a colour. Values of tokens are there
            after ``sampling score`` with ``every_token``.

    Raises:
        InputError: rankings that do not belong together, num_bootstrap below 1, or tokens without scores.
    """
    if tokens and (tokens < 0 or scores is None):
        raise InputError(f"tokens: expected 0 or more, and scores to show, got {tokens} with scores {scores}")
    if num_bootstrap < 1:
        raise InputError(f"num_bootstrap: expected 1 or more, got {num_bootstrap}")
    aggregation, validation = read_aggregation(input)
    used = {name: entry["how"] for name, entry in aggregation.items()}
    summary: dict[str, Any] = summarise(read_table(input), num_bootstrap, seed)
    summary |= {"aggregation": aggregation, "validation": validation}
    if scores is not None:
        from sampling.report.steps import score_statistics

        summary["steps"], summary["solutions"] = score_statistics(scores, used)
    summary["config"] = {
        "rankings": str(input), "scores": None if scores is None else str(scores),
        "num_bootstrap": num_bootstrap, "seed": seed, "stepverify": _version(),
    }  # fmt: skip
    _write_all(output, summary)
    if scores is not None and tokens:
        from sampling.report.tokens import choose, to_page

        chosen = choose(scores, used, tokens)
        if not chosen:
            raise InputError(f"tokens: {scores} has no verifier with a value a token or a step, and grades")
        _write(output / "tokens.html", to_page(chosen).encode())
        print(output / "tokens.html")


def _write_all(output: Path, summary: dict[str, Any]) -> None:
    from sampling.report.figures import DARK, LIGHT, accuracy_figure, reliability_figure
    from sampling.report.page import accuracy_section, sections, to_html, to_markdown, to_text

    parts = sections(summary)
    figures = {"accuracy": (accuracy_figure(summary, LIGHT), accuracy_figure(summary, DARK))}
    groups = {
        title: {name: found["reliability"] for name, found in summary[key].items()}
        for key, title in (("solutions", "Scores of solutions"), ("steps", "Values of steps"))
        if summary.get(key)
    }
    if groups:
        figures["reliability"] = (reliability_figure(groups, LIGHT), reliability_figure(groups, DARK))
    title = "Choosing among sampled solutions"
    lead = (
        f"{summary['num_problems']:,} problems, {summary['num_samples']:,} samples of each; "
        f"{summary['num_solutions']:,} solutions in all."
    )
    output.mkdir(parents=True, exist_ok=True)
    _write(output / "accuracy.png", figures["accuracy"][0])
    _write(output / "report.md", to_markdown(title, parts).encode())
    _write(output / "report.html", to_html(title, lead, parts, figures).encode())
    plain = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write(output / "summary.json", plain.encode())
    print(f"{to_text(accuracy_section(summary))}\n\n{output / 'report.html'}")


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _version() -> str | None:
    try:
        return version("stepverify")
    except PackageNotFoundError:
        return None
