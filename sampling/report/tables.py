"""Write the tables of a report as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from sampling.report.section import Section
from stepverify.faults import printable

_NUMBER = re.compile(r"[+−]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( %)?")
_RANGE = re.compile(r"([+−]?[\d.]+) (?:–|to) ([+−]?[\d.]+)")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "→": r"$\to$", "±": r"$\pm$",
    "×": r"$\times$", "ρ": r"$\rho$", "…": r"\dots{}", "·": r"$\cdot$", "÷": r"$\div$", "\u00a0": "~",
    "“": "``", "”": "''", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def to_csv(section: Section) -> str:
    """Write a table as CSV, with numbers that programs read.

    A column of shares is in per cent, as its header says; there are no separators of thousands, minus is a hyphen. An
    interval is two columns, named after the column before it. A dash, which stands for an unknown value, is an empty
    cell.
    """
    columns: list[list[str]] = []
    before = ""
    for name, *cells in zip(section.header, *section.rows, strict=True):
        known = [cell for cell in cells if cell not in ("", "–")]
        if known and all(map(_RANGE.fullmatch, known)):
            ends = [found.groups() if (found := _RANGE.fullmatch(cell)) else ("", "") for cell in cells]
            columns += [
                [f"{before} {end}", *(_plain(pair[i]) for pair in ends)] for i, end in enumerate(("low", "high"))
            ]
        elif name == "stderr":
            columns.append([f"{before} stderr", *(cell.removeprefix("± ") for cell in cells)])
        else:
            shares = bool(known) and all(_NUMBER.fullmatch(cell) and cell.endswith(" %") for cell in known)
            columns.append(
                [f"{name} (%)" if shares else name, *(_plain(c.removesuffix(" %") if shares else c) for c in cells)]
            )
            before = name
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    return text.getvalue()


def _plain(cell: str) -> str:
    if cell == "–":
        return ""
    if _NUMBER.fullmatch(cell):
        return cell.replace(",", "").replace("−", "-")
    return printable(cell)


def to_latex(section: Section, title: str) -> str:
    r"""Write a table as a LaTeX ``tabular`` with the rules of booktabs, for ``\input`` in a table.

    Args:
        section: the table.
        title: of the report; with the section's it is a comment in the first line.
    """
    said = printable(" ".join(f"{title}: {section.title}".split()))
    rows = [_latex_row(row, i in section.strong) for i, row in enumerate(section.rows)]
    header = [_latex_row(section.header), r"\midrule"] if any(section.header) else []
    lines = [
        f"% {said}. Needs \\usepackage{{booktabs}}.", f"\\begin{{tabular}}{{l{'r' * (len(section.header) - 1)}}}",
        r"\toprule", *header, *rows, r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str], strong: bool = False) -> str:
    texts = ["".join(_LATEX.get(letter, letter) for letter in printable(" ".join(cell.split()))) for cell in cells]
    return " & ".join(f"\\textbf{{{text}}}" if strong and text else text for text in texts) + r" \\"
