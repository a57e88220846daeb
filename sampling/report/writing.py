"""Write a report: tables, figures, Markdown and HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sampling.report.drawing import Picture, Width, picture
from sampling.report.figures import accuracy_figure, dots_figure, reliability_figure
from sampling.report.first_error_sections import first_error_section
from sampling.report.render import to_html, to_markdown
from sampling.report.section import Section, Uncertainty
from sampling.report.sections import accuracy_section, sections, steps_section
from sampling.report.subject import title
from sampling.report.summary import Summary
from sampling.report.tables import to_csv, to_latex
from stepverify import atomic
from stepverify.decoding import read_json
from stepverify.records import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY = "summary.json"
Draw = Callable[[Width], "Figure"]


def write_report(output: Path, summary: Summary, browser: str, shown: Uncertainty) -> list[Section]:
    """Write ``summary.json``, ``report.md``, ``report.html``, the figures and ``tables/``.

    Files of an earlier report that this one does not have are removed.

    Args:
        output: the folder.
        summary: what to report.
        browser: name of the page with the solutions, in the same folder; empty for none.
        shown: how uncertainty is printed.

    Returns:
        The sections to print.
    """
    parts, heading, lead = sections(summary, shown), title(summary), _lead(summary)
    figures: dict[str, Picture] = {name: picture(draw) for name, draw in _figures(summary).items()}
    files: dict[str, str | bytes] = {
        f"{name}.{ending}": data for name, one in figures.items() for ending, data in one.files.items()
    }
    for part in parts:
        if part.name:
            files |= zip(part.table_files.values(), (to_csv(part), to_latex(part, heading)), strict=True)
    files["report.md"] = to_markdown(heading, parts, lead)
    files["report.html"] = to_html(heading, lead, parts, figures, browser)
    names = sorted([*files, *([browser] if browser else [])])
    plain = summary.plain() | {"files": names}
    files[SUMMARY] = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    before = _files_of(output / SUMMARY)
    for name, content in files.items():
        atomic.write(output / name, content)
    atomic.check_written(output, files)
    for name in before - {*names}:
        atomic.remove(output / name)
    return _printed(summary, parts, shown)


def _files_of(path: Path) -> set[str]:
    """Return the files that an earlier report in this folder has written."""
    try:
        listed = read_json(path).get("files", [])
    except (InputError, AttributeError):  # none, or no report's
        return set()
    return {name for name in listed if isinstance(name, str) and re.fullmatch(r"(tables/)?\w+\.\w+", name)}


def _lead(summary: Summary) -> str:
    said = []
    if found := summary.accuracy:
        said.append(
            f"{found.num_problems:,} problems, {found.num_samples:,} samples of each; "
            f"{found.num_solutions:,} solutions in all."
        )
    if searches := summary.searches:
        said.append(f"{searches.num_problems:,} problems, {len(searches.strategies):,} searches.")
    return " ".join(said)


def _figures(summary: Summary) -> dict[str, Draw]:
    """Return how each figure is drawn at a width."""
    drawn: dict[str, Draw] = {}
    if accuracy := summary.accuracy:
        drawn["accuracy"] = lambda width: accuracy_figure(accuracy, width)
        drawn["accuracy_dots"] = lambda width: dots_figure(accuracy, width)
    if searches := summary.searches:
        from sampling.report.budget_figure import budget_figure

        drawn["budget"] = lambda width: budget_figure(searches, width)
    groups = {
        kind: {name: one.reliability for name, one in verifiers.items()}
        for kind, verifiers in (("Scores of solutions", summary.solutions), ("Values of steps", summary.steps))
        if verifiers
    }
    if groups:
        drawn["reliability"] = lambda width: reliability_figure(groups, width)
    return drawn


def _printed(summary: Summary, parts: list[Section], shown: Uncertainty) -> list[Section]:
    """Return the sections that are printed: warnings and main tables."""
    printed = parts[: bool(summary.warnings)]
    if summary.accuracy:
        printed.append(accuracy_section(summary.accuracy, shown))
    if summary.searches:
        from sampling.report.budget_sections import budget_section, equal_budget_section

        printed.append(budget_section(summary.searches, shown))
        printed += [equal_budget_section(summary.searches, shown)] if summary.searches.equal_budget else []
    if summary.steps:
        printed.append(steps_section(summary.steps, shown))
    if summary.first_errors:
        printed.append(first_error_section(summary.first_errors, shown))
    return printed
