"""Sections → text, Markdown, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(kw_only=True, slots=True)
class Section:
    """A heading with a table, a figure or both.

    Attributes:
        note: a paragraph above them.
        figure: file name of the figure; HTML embeds what it is given under this name.
        bars: mean, low and high of each row in [0, 1], which HTML draws beside the table; None draws none.
        strong: the rows to stand out.
    """

    title: str
    note: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figure: str = ""
    bars: Sequence[tuple[float, float, float] | None] = ()
    strong: frozenset[int] = frozenset()


def to_text(section: Section) -> str:
    """The table for a terminal."""
    table = [section.header, *section.rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(section.header))]
    lines = [section.title]
    for name, *cells in table:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join(["", name.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)


def to_markdown(title: str, parts: Sequence[Section]) -> str:
    """The report as Markdown; ``accuracy.png`` stands beside it, other figures are in the page only."""
    lines = [f"# {title}"]
    for part in parts:
        if not part.rows and part.figure != "accuracy":
            continue
        lines += ["", f"## {part.title}"]
        if part.note:
            lines += ["", part.note]
        if part.figure:
            lines += ["", f"![{part.title}]({part.figure}.png)"]
        if part.rows:
            marked = [[f"**{c}**" if c and i in part.strong else c for c in row] for i, row in enumerate(part.rows)]
            table = [part.header, ["---", *["---:"] * (len(part.header) - 1)], *marked]
            lines += ["", *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table)]
    return "\n".join(lines) + "\n"


def to_html(title: str, lead: str, parts: Sequence[Section], figures: Mapping[str, tuple[bytes, bytes]]) -> str:
    """One page. ``figures``: name → PNG for a light and for a dark page."""
    body = "".join(_html_section(part, figures) for part in parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><main><header><h1>{escape(title)}</h1><p>{escape(lead)}</p></header>\n{body}</main></body></html>\n"
    )


def _html_section(part: Section, figures: Mapping[str, tuple[bytes, bytes]]) -> str:
    html = f"<section><h2>{escape(part.title)}</h2>"
    if part.note:
        html += f"<p>{escape(part.note)}</p>"
    if part.figure:
        light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in figures[part.figure])
        html += (
            f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
            f'<img src="{light}" alt="{escape(part.title)}"></picture>'
        )
    if part.rows:
        head = "".join(f"<th>{escape(name)}</th>" for name in part.header)
        rows = "".join(_html_row(part, i, row) for i, row in enumerate(part.rows))
        scale = "<th class=bar><span>0</span><span>50</span><span>100 %</span></th>" if part.bars else ""
        head = f"<thead><tr>{head}{scale}</tr></thead>" if any(part.header) else ""
        html += f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'
    return html + "</section>\n"


def _html_row(part: Section, index: int, row: Sequence[str]) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
    if part.bars and (bar := part.bars[index]) is not None:
        mean, low, high = (100 * value for value in bar)
        cells += (
            f'<td class="bar"><div><i style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
            f'<b style="left:{mean:.2f}%"></b></div></td>'
        )
    elif part.bars:
        cells += "<td></td>"
    return f'<tr class="strong">{cells}</tr>' if index in part.strong else f"<tr>{cells}</tr>"


def percent(value: float | None) -> str:
    """``12.3 %``; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def span(point: Mapping[str, float]) -> str:
    """An interval in per cent."""
    return f"{100 * point['low']:.1f} – {100 * point['high']:.1f}"


def points(value: float) -> str:
    """A difference in percentage points."""
    return f"{100 * value:+.1f}".replace("-", "−")


def decimal(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def count(value: int) -> str:
    """A whole number."""
    return f"{value:,}"


STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c2024;--muted:#59626c;--line:#e4e7eb;--tint:#f5f7f9;--mark:#0072b2}
@media(prefers-color-scheme:dark){:root{--page:#15191e;--ink:#e8eaed;--muted:#98a1ab;--line:#2c333b;--tint:#1c2127;
--mark:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:64rem;margin:0 auto;padding:3rem 1.25rem 4rem}
header{border-bottom:1px solid var(--line);padding-bottom:1rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.02em}
h2{font-size:1.2rem;margin:0 0 .4rem}
section{margin-top:2.75rem}
p{margin:0 0 1rem;max-width:46rem;color:var(--muted)}
img{display:block;max-width:100%;height:auto;margin:0 0 1rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums;white-space:nowrap}
th{font-weight:500;color:var(--muted);text-align:right;padding:.35rem .8rem;border-bottom:1px solid var(--line)}
td{text-align:right;padding:.38rem .8rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:.3rem}
tbody tr:hover{background:var(--tint)}
.strong td{font-weight:650}
.bar{width:15rem;min-width:11rem}
th.bar{display:flex;justify-content:space-between}
td.bar div{position:relative;height:.9rem;border-radius:2px;
background:linear-gradient(90deg,transparent calc(50% - .5px),var(--line) 0 calc(50% + .5px),transparent 0),var(--tint)}
td.bar i{position:absolute;top:.25rem;height:.4rem;background:var(--mark);opacity:.4;border-radius:2px}
td.bar b{position:absolute;top:0;width:3px;height:.9rem;margin-left:-1.5px;background:var(--mark);border-radius:1px}
@media print{main{padding:0}.scroll{overflow:visible}}
"""
