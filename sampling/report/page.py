"""A report's summary → sections → Markdown, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from sampling.report.curves import BASELINE, rule_label

_ORIGINS = {"validation": "validation problems", "configured": "the configuration", "default": "default"}


@dataclass(kw_only=True, slots=True)
class Section:
    """A heading with a table, a figure or both.

    Attributes:
        note: a paragraph above them.
        figure: file name of the figure; HTML embeds what it is given under this name.
        bars: mean, low and high of each row in [0, 1], which HTML draws beside the table.
        strong: the rows to stand out.
    """

    title: str
    note: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figure: str = ""
    bars: Sequence[tuple[float, float, float]] = ()
    strong: frozenset[int] = frozenset()


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """What a report says, in order. Percentages are of problems, steps or solutions; differences are in points."""
    parts = [accuracy_section(summary), _curves_section(summary)]
    if summary["aggregation"]:
        parts.append(_aggregation_section(summary))
    if summary["every_aggregation"]:
        parts.append(_comparison_section(summary))
    if summary.get("solutions"):
        parts.append(_solutions_section(summary["solutions"]))
    if summary.get("steps"):
        parts.append(_steps_section(summary["steps"]))
    if summary.get("solutions") or summary.get("steps"):
        note = (
            "How often a value is right, against the value itself, in 15 bins; on the dotted line a value is a "
            "probability. The area of a point goes with the number of values in the bin."
        )
        parts.append(Section(title="Reliability", note=note, figure="reliability"))
    made = summary["config"]
    rows = [[key, str(value)] for key, value in made.items() if value is not None]
    return [*parts, Section(title="How this was made", header=["", ""], rows=rows)]


def accuracy_section(summary: Mapping[str, Any]) -> Section:
    """Accuracy of every rule at the largest N, and the paired differences."""
    rows: list[list[str]] = []
    bars = []
    for rule, point in summary["accuracy"].items():
        row = [rule_label(rule), _percent(point["mean"]), _span(point)]
        if paired := summary["paired"].get(rule):
            row += [rule_label(paired["versus"]), _points(paired["difference"])]
            row += [f"{_points(paired['low'])} to {_points(paired['high'])}"]
        else:
            row += ["", "", ""]
        rows.append(row)
        bars.append((point["mean"], point["low"], point["high"]))
    note = (
        f"Share of the {summary['num_problems']:,} problems that a rule solves when it may look at "
        f"{summary['sizes'][-1]} samples of each. Oracle is right where any sample is. Intervals (95\u00a0%) and "
        "paired differences, in percentage points, are over the same bootstrap resamples of the problems."
    )
    header = ["rule", "accuracy", "interval", "against", "difference", "interval"]
    return Section(title=f"Accuracy at N = {summary['sizes'][-1]}", note=note, header=header, rows=rows, bars=bars)


def _curves_section(summary: Mapping[str, Any]) -> Section:
    rows = [
        [rule_label(rule), *(_percent(point["mean"]) for point in curve)] for rule, curve in summary["curves"].items()
    ]
    note = "Means over random subsets of N of the samples of each problem, in per cent; bands are 95\u00a0% intervals."
    header = ["rule", *(f"N = {n}" for n in summary["sizes"])]
    return Section(title="Accuracy against N", note=note, header=header, rows=rows, figure="accuracy")


def _aggregation_section(summary: Mapping[str, Any]) -> Section:
    validation = summary["validation"] or {"best_of_n": {}}
    candidates = list(dict.fromkeys(how for table in validation["best_of_n"].values() for how in table))
    rows = []
    for name, entry in summary["aggregation"].items():
        table = validation["best_of_n"].get(name, {})
        found = [_percent(table.get(how)) for how in candidates]
        rows.append([name, entry["how"], _ORIGINS[entry["chosen_on"]], *found])
    note = "How the values along a solution become its score. Nothing is chosen on the problems of this report."
    if candidates:
        note += (
            f" On {validation['num_problems']:,} other problems, best-of-{validation['n']} solved what the last "
            "columns say; the highest was taken where nothing was configured."
        )
    header = ["verifier", "aggregation", "chosen by", *candidates]
    return Section(title="Aggregation", note=note, header=header, rows=rows)


def _comparison_section(summary: Mapping[str, Any]) -> Section:
    compared = summary["every_aggregation"]
    ways = list(next(iter(compared.values())))

    def cell(point: Mapping[str, Any]) -> str:
        better = "paired" in point and point["paired"]["low"] > 0
        return f"{100 * point['mean']:.1f} ({_span(point)})" + ("*" if better else "")

    alone = [rule for rule in ("pass@1", BASELINE, "oracle") if rule in summary["accuracy"]]
    rows = [[rule_label(rule), cell(summary["accuracy"][rule]), *[""] * (len(ways) - 1)] for rule in alone]
    rows += [[rule_label(rule), *map(cell, found.values())] for rule, found in compared.items()]
    note = (
        f"Problems solved at N = {summary['sizes'][-1]}, in per cent, with 95\u00a0% intervals; * where the paired "
        "difference from the majority vote is above zero in 97.5\u00a0% of the resamples. To compare by, not to choose "
        "from: the best of many figures on the same problems is too high."
    )
    return Section(title="Every rule under every aggregation", note=note, header=["rule", *ways], rows=rows)


def _solutions_section(solutions: Mapping[str, Any]) -> Section:
    columns = ("spearman_steps", "pearson_steps", "spearman_tokens", "pearson_tokens")
    rows: list[list[str]] = []
    strong = set()
    for name, found in solutions.items():
        for how, measured in found["aggregations"].items():
            if how == found["used"]:
                strong.add(len(rows))
            rows.append([name, how, *(_decimal(measured[key]) for key in ("auc", "brier", "ece", *columns))])
        rows.append([name, "(right or not)", "", "", "", *(_decimal(found["truth"][key]) for key in columns)])
    minima = "; ".join(
        f"{name}: {_percent(m['mean'])} of the way on average, at the first step in {_percent(m['at_first'])}, "
        f"at the last in {_percent(m['at_last'])} of the solutions"
        for name, found in solutions.items()
        if (m := found["minimum_position"])
    )
    note = (
        "How well a solution's score tells right from wrong, how far it is a probability (Brier score, expected "
        "calibration error), and how it goes with length: Spearman's ρ and Pearson's "
        "r with the number of steps and tokens. The rows “right or not” give what a verifier that knew the truth "
        "would show; a score further from zero than that prefers length for its own sake. Bold: the aggregation in use."
    )
    if minima:
        note += f" The lowest value stands, for {minima}."
    header = ["verifier", "score", "AUC", "Brier", "ECE", "ρ steps", "r steps", "ρ tokens", "r tokens"]
    return Section(title="Scores of solutions", note=note, header=header, rows=rows, strong=frozenset(strong))


def _steps_section(steps: Mapping[str, Any]) -> Section:
    fields = (
        ("steps with a label", "num_steps", _count),
        ("share of right steps", "base_rate", _percent),
        ("accuracy at 0.5", "accuracy", _percent),
        ("AUC", "auc", _decimal),
        ("F1 of the wrong steps", "f1_error", _decimal),
        ("expected calibration error", "ece", _decimal),
        ("solutions", "num_solutions", _count),
        ("first error found", "first_error_accuracy", _percent),
        ("… of solutions with an error", "first_error_accuracy_wrong", _percent),
        ("… of solutions without", "first_error_accuracy_right", _percent),
        ("… harmonic mean (ProcessBench F1)", "first_error_f1", _decimal),
    )
    rows = [[label, *(show(found[key]) for found in steps.values())] for label, key, show in fields]
    note = (
        "A step is right if it was rated right or neutral, or if any rollout from it reached the right answer; it is "
        "judged right at a value of 0.5 or more. A first error is found when the first step below 0.5 is the first "
        "wrong one, or when neither exists."
    )
    return Section(title="Values of steps", note=note, header=["", *steps], rows=rows)


# ── text ──────────────────────────────────────────────────────────────────────────────────────────


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
    if part.bars:
        mean, low, high = (100 * value for value in part.bars[index])
        cells += (
            f'<td class="bar"><div><i style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
            f'<b style="left:{mean:.2f}%"></b></div></td>'
        )
    return f'<tr class="strong">{cells}</tr>' if index in part.strong else f"<tr>{cells}</tr>"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _span(point: Mapping[str, float]) -> str:
    return f"{100 * point['low']:.1f} – {100 * point['high']:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _count(value: int) -> str:
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
