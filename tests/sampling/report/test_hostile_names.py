"""Names of verifiers that figures, Markdown, HTML and terminals would read as something else."""

import warnings

import pytest

from sampling.report.drawing import picture
from sampling.report.figures import accuracy_figure, dots_figure, reliability_figure
from sampling.report.render import to_html, to_markdown, to_text
from sampling.report.section import Section
from sampling.report.summary import Accuracy, CurvePoint, Estimate
from stepverify.statistics import Bin

NAMES = [
    "$x_{$",
    "$\\frac{$",
    "a$b",
    "_lead_",
    "x^2_1",
    "%d",
    "\\",
    "prm/x",
    "💡",
    "a\x1b[31m\nb|c",
    "</td><script>alert(1)</script>",
]


def accuracy(names):
    level = {"mean": 0.5, "low": 0.4, "high": 0.6, "standard_error": 0.05}
    rules = ["majority", *(f"{name}/best_of_n" for name in names)]
    return Accuracy(
        num_problems=2, num_samples=1, num_solutions=2, sizes=[1], accuracy={r: Estimate(**level) for r in rules},
        auroc_per_problem={}, paired={}, between={}, every_aggregation={},
        curves={r: [CurvePoint(n=1, **level)] for r in rules},
    )  # fmt: skip


@pytest.mark.slow
def test_figures_draw_any_name():
    """At the ends of lines, beside dots and in a legend: one that matplotlib cannot read as text is in its message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the font lacks
        found = accuracy(NAMES)  # twelve rules, on one set of axes
        bins = {"Values": {name: [Bin(value=0.5, correct=0.5, count=2)] for name in NAMES}}
        for draw in (
            lambda width: accuracy_figure(found, width),
            lambda width: dots_figure(found, width),
            lambda width: reliability_figure(bins, width),
        ):
            assert picture(draw).files["png"].startswith(b"\x89PNG")


def test_tables_stay_tables():
    part = Section(
        title="Rules of $a$",
        note="of <b>x</b>",
        header=["", "n"],
        rows=[[NAMES[-2], "1"], [NAMES[-1], "_2_"], ["best_of_n *x*", "[y](z)"]],
        strong=frozenset({0}),
    )
    assert to_markdown("Report", [part]) == (
        "# Report\n\n## Rules of \\$a\\$\n\nof \\<b\\>x\\</b\\>\n\n|  | n |\n| --- | ---: |\n"
        "| **a\\\\x1b\\[31m b\\|c** | **1** |\n"
        "| \\</td\\>\\<script\\>alert(1)\\</script\\> | \\_2\\_ |\n"
        "| best_of_n \\*x\\* | \\[y\\](z) |\n"
    )
    assert to_text(part).splitlines()[2].split() == ["a\\x1b[31m", "b|c", "1"]
    page = to_html("Report", "lead", [part], {})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
