"""Render sections as text, Markdown and one self-contained HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sampling.report.drawing import Picture
from sampling.report.section import Section, figure_files
from stepverify.faults import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_MARKUP = re.compile(r"[|<>`*\[\]$~\\&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def to_text(section: Section) -> str:
    """Render the table of a section for a terminal."""
    table = [[printable(" ".join(cell.split("\n"))) for cell in row] for row in (section.header, *section.rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(section.header))]
    lines = [printable(section.title)]
    for name, *cells in table:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join(["", name.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join(lines)


def to_markdown(title: str, parts: Sequence[Section], lead: str = "") -> str:
    """Render the report as Markdown.

    It refers to figures in the same folder, and to tables in the folder ``tables``.
    """
    lines = [f"# {_literal(title)}", *(["", _literal(lead)] if lead else [])]
    for part in parts:
        lines += ["", f"## {_literal(part.title)}"]
        if part.note:
            lines += ["", _literal(part.note)]
        for figure in filter(None, (part.figure, part.dots_figure)):
            lines += ["", f"![{_literal(part.title)}]({figure}.png)", "", _links(figure_files(figure))]
        if part.rows:
            cells = [[*map(_literal, row)] for row in part.rows]
            marked = [[f"**{c}**" if c and i in part.strong else c for c in row] for i, row in enumerate(cells)]
            table = [[*map(_literal, part.header)], ["---", *["---:"] * (len(part.header) - 1)], *marked]
            lines += ["", *("| " + " | ".join(row) + " |" for row in table)]
        if part.table_files:
            lines += ["", _links(part.table_files)]
    return "\n".join(lines) + "\n"


def _links(files: Mapping[str, str]) -> str:
    return " · ".join(f"[{name}]({path})" for name, path in files.items())


def _literal(text: str) -> str:
    """Escape what Markdown would read as markup in names and texts of the data: tables, HTML, links, mathematics."""
    return _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split("\n"))))


def to_html(
    title: str, lead: str, parts: Sequence[Section], figures: Mapping[str, Picture], browser: str = ""
) -> str:  # fmt: skip
    """Render the report as one self-contained HTML page.

    Args:
        title: title of the page.
        lead: line below the title.
        parts: the sections.
        figures: name → figure, which is embedded for pages of both widths, light and dark.
        browser: name of the page with the solutions, in the same folder; empty for none.
    """
    return render("report.html", title=title, lead=lead, parts=parts, figures=figures, browser=browser)


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package.

    Every value is escaped, and a missing one is an error.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("sampling.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters["figure_files"] = figure_files
    made.filters["data_url"] = lambda svg: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return made
