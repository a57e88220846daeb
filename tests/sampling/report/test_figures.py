"""What figures show: by their lines, texts and boxes, not by their pixels."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.report.drawing import DARK, INCHES, LIGHT, darkened, picture, shortened, spread_out
from sampling.report.figures import MOST_LINES, accuracy_figure, dots_figure, reliability_figure
from sampling.report.summary import Accuracy, CurvePoint, Estimate
from stepverify.statistics import Bin

PLAIN = ["pass@1", "majority", "shortest", "oracle"]


def level(mean):
    return {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "standard_error": 0.01}


def accuracy(rules, final=lambda i: 0.5 + 0.04 * i):
    sizes = [1, 2, 4, 8]
    curves = {
        rule: [CurvePoint(n=n, **level(0.4 + (final(i) - 0.4) * s / 3)) for s, n in enumerate(sizes)]
        for i, rule in enumerate(rules)
    }
    return Accuracy(
        num_problems=9, num_samples=8, num_solutions=72, sizes=sizes, auroc_per_problem={}, paired={}, between={},
        every_aggregation={}, curves=curves, accuracy={rule: Estimate(**level(final(i))) for i, rule in enumerate(rules)},
    )  # fmt: skip


def rules(num_verifiers, kinds=("best_of_n", "weighted_vote")):
    return [*PLAIN, *(f"verifier_{v}/{kind}" for v in range(num_verifiers) for kind in kinds)]


def boxes(artists, figure):
    renderer = figure.canvas.get_renderer()
    return [artist.get_window_extent(renderer) for artist in artists]


def apart(found):
    return not any(a.overlaps(b) for a, b in itertools.combinations(found, 2))


def drawn(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("final", [lambda i: 0.5 + 0.04 * i, lambda i: 0.93, lambda i: 0.4, lambda i: 0.9 - 0.001 * i])
def test_labels_cover_neither_curves_nor_each_other(final):
    """Twelve rules on one set of axes, far apart, or all with the same accuracy."""
    found = accuracy(rules(4), final)
    assert len(found.curves) == MOST_LINES == 12
    figure = drawn(accuracy_figure(found))
    (axes,) = figure.axes
    labels = boxes(axes.texts, figure)
    assert sorted(text.get_text() for text in axes.texts)[0] == f"majority vote  {100 * final(1):.1f}"
    assert len(labels) == 12
    assert apart(labels)
    plot = axes.get_window_extent()
    assert min(label.x0 for label in labels) > plot.x1
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in labels), "nothing is cut off"
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in labels)


def test_curves_are_those_of_the_rules():
    found = accuracy(rules(1))
    lines = accuracy_figure(found).axes[0].get_lines()[: len(found.curves)]
    for line, curve in zip(lines, found.curves.values(), strict=True):
        assert list(line.get_xdata()) == [1, 2, 4, 8]
        assert list(line.get_ydata()) == pytest.approx([100 * point.mean for point in curve])


@pytest.mark.parametrize(("width", "columns"), [("wide", 3), ("narrow", 2)])
def test_more_rules_are_panels_on_the_same_axes(width, columns):
    """Fourteen rules: a panel for each of the five verifiers, with the plain rules in each."""
    figure = drawn(accuracy_figure(accuracy(rules(5)), width))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"verifier_{i}" for i in range(5)]
    assert {len(axes.get_lines()) for axes in figure.axes} == {6}
    assert len({axes.get_xlim() for axes in figure.axes}) == len({axes.get_ylim() for axes in figure.axes}) == 1
    labelled = [bool(axes.xaxis.get_majorticklabels()) for axes in figure.axes]
    assert labelled == [False] * (5 - columns) + [True] * columns, "the lowest panel of each column has the sizes"
    legend = figure.legends[0].get_window_extent()
    assert apart([legend, *(axes.get_window_extent() for axes in figure.axes)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "pass@1", "majority vote", "shortest", "oracle (pass@N)", "best of N", "weighted vote",
    ]  # fmt: skip


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_figures_are_drawn_for_their_width(width):
    """Each has the width it is shown at, at least half of which is for the data, and legends cover none of it."""
    bins = [Bin(value=x / 10, correct=x / 10, count=x) for x in range(1, 10)]
    groups = {kind: {f"verifier_{i}": bins for i in range(10)} for kind in ("Scores", "Values")}
    for figure in (accuracy_figure(accuracy(rules(4)), width), reliability_figure(groups, width)):
        drawn(figure)
        assert figure.get_figwidth() == INCHES[width]
        panels = [axes.get_window_extent() for axes in figure.axes]
        columns = len({round(panel.x0) for panel in panels})
        assert sum(panel.width for panel in panels) / (len(panels) / columns) > 0.5 * figure.bbox.width
        legends = [legend.get_window_extent() for legend in figure.legends]
        assert apart([*panels, *legends])
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in legends)


def test_dots_are_zoomed_to_the_data():
    """Accuracies from 50 to 66 %, with intervals 2 points to each side: the axis has no room for 0 or 100."""
    figure = dots_figure(accuracy([*PLAIN, "prm/best_of_n"]))
    (axes,) = figure.axes
    assert 40 < axes.get_xlim()[0] < 48
    assert 68 < axes.get_xlim()[1] < 76
    ends, dots = axes.get_lines()[::2], axes.get_lines()[1::2]
    assert list(ends[0].get_xdata()) == pytest.approx([48, 52])
    assert [line.get_xdata()[0] for line in dots] == pytest.approx([50, 54, 58, 62, 66])
    assert [text.get_text() for text in axes.get_yticklabels()][-1] == "prm, best of N"


def test_a_dark_figure_has_no_colour_of_the_light_one():
    found = picture(lambda width: accuracy_figure(accuracy(rules(1)), width))
    assert found.files.keys() == {"png", "svg", "pdf"}
    assert LIGHT.page.encode() in found.pages["wide", False]
    for theme, other, dark in ((LIGHT, DARK, False), (DARK, LIGHT, True)):
        for width in ("wide", "narrow"):
            svg = found.pages[width, dark]
            assert theme.ink.encode() in svg
            assert theme.series[0].encode() in svg
            for colour in (other.page, other.ink, other.muted, *other.series):
                assert colour.encode() not in svg
    assert darkened(b'fill="#0072b2" id="#0072b2f" x="#123456"') == b'fill="#56b4e9" id="#0072b2f" x="#123456"'


@given(st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=12))
def test_labels_stay_between_borders(heights):
    moved = spread_out(sorted(heights), 0.05, 0.0, 1.0)
    assert moved[0] >= 0
    assert moved[-1] <= 1 + 1e-9
    assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(moved))


def test_long_names_keep_both_ends():
    assert shortened("a" * 40) == "a" * 40
    assert shortened("begin" + "x" * 90 + "end", 12) == "beginx…xxend"
