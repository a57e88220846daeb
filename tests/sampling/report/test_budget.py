"""Accuracy against budget, by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.report.budget import budget_statistics, budget_warnings
from sampling.search import BeamSearch, BestOfN, Cost, SearchResult
from sampling.search.curves import at_budget, bins_of, quantile_edges
from sampling.search.finished import read_shared
from sampling.stages.rank import rank
from sampling.stages.report import report
from stepverify.jsonl import write_records
from stepverify.records import InputError
from tests.helpers.budgets import best_of_n, flat, result, write_search
from tests.helpers.records import message
from tests.helpers.searches import searched
from tests.helpers.sheets import sample


def statistics(searches, final_rule="best_of_n", held_out=None, num_bootstrap=200):
    return budget_statistics(read_shared(searches), final_rule, 4, held_out, num_bootstrap, 0)


def test_a_search_against_the_curve_at_its_own_cost(tmp_path):
    """Best-of-4 costs 400 tokens, so 100, 200 and 400 at N = 1, 2, 4; means 0.25, 0.5 and 0.75 over two problems.

    Beam search costs 100 and 300, 200 on average, and solves one of two: 0.5 - 0.5, at the same cost. DVTS costs 283 =
    √(200 · 400), halfway between N = 2 and 4 in the logarithm: 1 - 0.625, which best-of-N never reaches.
    """
    folders = {
        "samples": best_of_n(tmp_path / "n", [[0.5, 0.75, 1.0], [0.0, 0.25, 0.5]]),
        "beam@2": flat(tmp_path / "beam", [1, 0], [100, 300]),
        "dvts": flat(tmp_path / "dvts", [1, 1], 283),
    }
    found = statistics(folders)
    assert [(p.samples, p.tokens, p.accuracy["best_of_n"].mean) for p in found.curves["samples"]] == [
        (1, 100, 0.25), (2, 200, 0.5), (4, 400, 0.75),
    ]  # fmt: skip
    (beam,), (dvts,) = found.equal_budget["beam@2"], found.equal_budget["dvts"]
    assert (beam.cost, beam.accuracy, beam.baseline["best_of_n"]) == (200, 0.5, 0.5)
    assert beam.difference["best_of_n"].difference == 0
    assert (beam.factor, dvts.factor) == (1.0, None)
    assert dvts.difference["best_of_n"].difference == pytest.approx(1 - 0.625, abs=1e-3)
    assert found.curves["beam"][0].search == "beam@2"


def test_differences_are_paired_over_problems(tmp_path):
    """Each problem gains exactly 0.25 over best-of-2, whatever its level: no uncertainty about the difference, though
    the levels go from 0 to 0.75."""
    levels = [[0.0, i % 4 / 4, 1.0] for i in range(40)]
    rows = [result(f"p{i}", 200, [level[1] + 0.25]) for i, level in enumerate(levels)]
    found = statistics({"n": best_of_n(tmp_path / "n", levels), "beam": write_search(tmp_path / "beam", rows)})
    difference = found.equal_budget["beam"][0].difference["best_of_n"]
    assert (difference.low, difference.difference, difference.high) == pytest.approx((0.25, 0.25, 0.25))
    point = found.curves["beam"][0].accuracy["best_of_n"]
    assert point.high - point.low > 0.1


def test_in_each_resample_the_budget_is_that_of_the_resample(tmp_path):
    """A search that costs each problem what best-of-2 costs it, and is as accurate, differs in no resample."""
    costs = [100 * (1 + i % 5) for i in range(20)]
    curves = [[0.0, min(1.0, cost / 500), 1.0] for cost in costs]
    rows = [
        result(f"p{i}", 2 * c, curve, sizes=(1, 2, 4)) for i, (c, curve) in enumerate(zip(costs, curves, strict=True))
    ]
    beam = [result(f"p{i}", c, [curve[1]]) for i, (c, curve) in enumerate(zip(costs, curves, strict=True))]
    folders = {"n": write_search(tmp_path / "n", rows, "BestOfN"), "beam": write_search(tmp_path / "beam", beam)}
    difference = statistics(folders).equal_budget["beam"][0].difference["best_of_n"]
    assert (difference.low, difference.high) == pytest.approx((0, 0), abs=1e-12)


def test_flops_of_fewer_samples_read_the_prompt_once(tmp_path):
    """1400 FLOPs, 400 of the verifier, 1000 for 100 prompt and 400 sampled tokens: 200 for the prompt.

    One of four samples costs 200 + (800 + 400) / 4 = 500, all of them 1400; a majority vote 400 and 1000. A beam of 500
    FLOPs is compared with N = 1 of best-of-N, and of the majority with the part log(500 / 400) / log(1000 / 400).
    """
    rows = [result("p0", 400, [0.5, 1.0], [0.5, 0.75], sizes=(1, 4), flops=(100, 1400.0, 400.0))]
    beam = [result("p0", 400, [1.0], flops=(100, 500.0, 10.0))]
    folders = {"n": write_search(tmp_path / "n", rows, "BestOfN"), "beam": write_search(tmp_path / "b", beam)}
    found = statistics(folders, num_bootstrap=10)
    points = found.curves["n"]
    assert [point.flops for point in points] == [500, 1400]
    assert [point.majority_flops for point in points] == [400, 1000]
    tokens, flops = found.equal_budget["beam"]
    assert (tokens.unit, tokens.baseline["best_of_n"]) == ("tokens", 1.0)
    assert (flops.unit, flops.baseline["best_of_n"]) == ("flops", 0.5)
    assert flops.baseline["majority"] == pytest.approx(0.5 + 0.25 * np.log(1.25) / np.log(2.5))


def test_a_smaller_best_of_n_is_one_point_beside_the_baseline(tmp_path):
    """Best-of-2 of other samples, all correct, costs 200: 0.5 above what best-of-4's curve has there."""
    folders = {
        "n@2": best_of_n(tmp_path / "2", [[1.0, 1.0]] * 4, 200, (1, 2)),
        "n@4": best_of_n(tmp_path / "4", [[0.0, 0.5, 1.0]] * 4),
    }
    found = statistics(folders, num_bootstrap=10)
    assert found.best_of_n == "n@4"
    assert [(point.search, point.samples) for point in found.curves["n"]] == [
        ("n@4", 1),
        ("n@2", 2),
        ("n@4", 2),
        ("n@4", 4),
    ]
    assert found.equal_budget["n@2"][0].difference["best_of_n"].difference == 0.5


def test_no_extrapolation_beyond_the_curve(tmp_path):
    folders = {"n": best_of_n(tmp_path / "n", [[0.0, 0.5, 1.0]] * 4)}
    folders |= {
        name: flat(tmp_path / name, [1] * 4, cost) for name, cost in (("less", 99), ("more", 401), ("all", 400))
    }
    found = statistics(folders, num_bootstrap=10).equal_budget
    assert [found[name][0].difference["best_of_n"] is None for name in ("less", "more", "all")] == [True, True, False]


def test_only_what_all_searches_share_counts(tmp_path):
    """p2 is missing from the beam, p1 has no reference answer: p0 is left, and the rest is said."""
    rows = [result("p0", 8, [1.0]), result("p1", 8, [0.0], answer=None), result("p3", 8, [1.0])]
    samples = [result(f"p{i}", 16, [0.5, 1.0], sizes=(1, 2), answer=None if i == 1 else "1") for i in range(3)]
    folders = {"n": write_search(tmp_path / "n", samples, "BestOfN"), "beam": write_search(tmp_path / "beam", rows)}
    found = statistics(folders, num_bootstrap=10)
    assert (found.num_problems, found.left_out) == (1, {"n": 2, "beam": 2})
    report(output=tmp_path / "out", searches=folders, num_bootstrap=10)
    assert "left out: n 2, beam 2." in (tmp_path / "out/report.md").read_text()


def test_results_by_difficulty(tmp_path):
    """Ten problems with pass@1 of 0, 0.1 … 0.9 are five bins of two; the beam solves those of 0.3 and more, best-of-2,
    at equal tokens, those of 0.5 and more."""
    ease = {f"p{i}": i / 10 for i in range(10)}
    values = [[i / 10] * 4 for i in reversed(range(10))]  # the verifier predicts the reverse
    rows = [
        result(f"p{i}", 400, [0.0, float(i >= 5), 1.0], sizes=(1, 2, 4), values=values[i]) for i in range(10)
    ]  # fmt: skip
    folders = {
        "n": write_search(tmp_path / "n", rows, "BestOfN"),
        "beam": flat(tmp_path / "beam", [i >= 3 for i in range(10)], 200),
    }
    held_out, predicted = statistics(folders, held_out=ease).difficulty
    assert (held_out.by, held_out.num_problems, held_out.edges) == ("held_out", [2] * 5, [0.2, 0.4, 0.6, 0.8])
    beam = held_out.searches["beam"]
    assert [one.accuracy.mean for one in beam] == [0, 0.5, 1, 1, 1]
    assert [one.difference.difference for one in beam] == [0, 0.5, 0.5, 0, 0]
    assert [one.accuracy.mean for one in predicted.searches["beam"]] == [1, 1, 1, 0.5, 0]


def test_fewer_samples_of_some_problems_are_said(tmp_path):
    """A server refused two of four samples of p1: it counts with two, at half their cost each, and the mean at N = 4 is
    that of 1.0 and 0.5."""
    rows = [
        result("p0", 400, [0.0, 0.5, 1.0], sizes=(1, 2, 4)), result("p1", 200, [0.0, 0.5], sizes=(1, 2)),
    ]  # fmt: skip
    folders = {
        "n": write_search(tmp_path / "n", rows, "BestOfN"),
        "beam": flat(tmp_path / "b", [1, 1], 200, few_shot="x"),
    }
    found = statistics(folders, num_bootstrap=10)
    assert [(p.tokens, p.accuracy["best_of_n"].mean) for p in found.curves["n"]] == [(100, 0), (200, 0.5), (300, 0.75)]
    said = budget_warnings(read_shared(folders), 4)
    assert "few_shot is 'x' in searches.beam, 'none' in searches.n" in said[0]
    assert "1 problems have fewer than 4 samples" in said[1]
    assert "scores of 0 samples" in said[2]


def test_report_of_real_searches(tmp_path, capsys):
    """Every file; a curve of two budgets; the page names costs and differences; rankings are reported beside it."""
    folders = {"n": tmp_path / "n", "beam@4": tmp_path / "b4", "beam@8": tmp_path / "b8"}
    for folder, strategy in zip(folders.values(), (BestOfN(16), BeamSearch(4, 2), BeamSearch(8, 4)), strict=True):
        searched(folder, strategy, 8)
    write_records(tmp_path / "held.jsonl", [sample(f"p/{i}", j, 0.5, j < i % 4) for i in range(8) for j in range(3)])
    rank(tmp_path / "n", tmp_path / "ranked")
    report(
        tmp_path / "ranked", output=tmp_path / "out", searches=folders, held_out=tmp_path / "held.jsonl", num_bootstrap=50
    )  # fmt: skip
    out = tmp_path / "out"
    pages = {"report.md", "report.html", "browse.html"}
    figures = {f"{name}.{end}" for name in ("accuracy", "accuracy_dots", "budget") for end in ("png", "svg", "pdf")}
    assert {p.name for p in out.iterdir()} == {"summary.json", "tables", *figures, *pages}
    summary = json.loads((out / "summary.json").read_text())["searches"]
    assert [len(curve) for curve in summary["curves"].values()] == [5, 2]
    assert summary["equal_budget"]["beam@8"][0]["difference"]["majority"]["high"] > 0
    assert [one["by"] for one in summary["difficulty"]] == ["held_out", "predicted"]
    assert {point["flops"] is None for curve in summary["curves"].values() for point in curve} == {False}
    html = (out / "report.html").read_text()
    assert html.count("data:image/svg+xml;base64,") == 8, "two figures, wide and narrow, light and dark"
    assert "BeamSearch(num_beams=8, width=4, merge_duplicates=True)" in html
    assert "At equal budgets" in capsys.readouterr().out
    # Solutions of a search are no samples; those of best-of-N are.
    assert "BeamSearch searched are no independent samples" in message(rank, tmp_path / "b4", tmp_path / "x")


def test_without_a_baseline_there_is_the_table_alone(tmp_path):
    report(output=tmp_path / "out", searches={"beam": flat(tmp_path / "b", [1, 0], 7)}, num_bootstrap=10)
    text = (tmp_path / "out/report.md").read_text()
    assert "nothing to compare at equal budgets" in text
    assert "FLOPs are unknown" in text
    assert "At equal budgets" not in text


def edited(folder, key):
    """The folder of a search whose manifest lacks a key."""
    manifest = json.loads((folder / "results/manifest.json").read_text())
    del manifest["config"][key]
    (folder / "results/manifest.json").write_text(json.dumps(manifest))
    return folder


def test_sizes_of_a_result():
    for sizes in ([], [0, 1], [2, 1], [1, 1]):
        curves = {"majority": [0.0] * len(sizes)}
        with pytest.raises(InputError, match="key 'sizes': expected ascending numbers of 1 or more"):
            SearchResult(problem_id="p", cost=Cost(), num_expansions=0, num_finished=0, sizes=sizes, curves=curves)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: {"a": write_search(f, [result("p0", 1, [1.0])], finished=False)}, "searches.a: .*has not finished"),
        (lambda f: {"a": flat(f, [1], 1) and edited(f, "aggregation")},
         "manifest.json: key 'config' lacks aggregation"),
        (lambda f: {"a": f / "nowhere"}, "searches.a: .*not the output of `sampling search`"),
        (lambda f: {"a": flat(f / "a", [1], 1), "b": write_search(f / "b", [result("q", 1, [1.0])])}, "no problem in common"),
        (lambda f: {"a": flat(f / "a", [1], 1), "b": write_search(f / "b", [result("p0", 1, [1.0], answer="2")])},
         "searches.b: problem p0 has the reference answer '2', in searches.a '1'"),
        (lambda f: {"a": write_search(f, [result("p0", 1, [1.0], answer=None)])}, "no problem has a reference answer"),
        (lambda f: {"a": flat(f, [1], 0)}, "no token was sampled"),
        (lambda f: {}, "searches: expected one search at least"),
    ],
)  # fmt: skip
def test_bad_searches(tmp_path, make, said):
    with pytest.raises(InputError, match=said):
        report(output=tmp_path / "out", searches=make(tmp_path))
    assert not (tmp_path / "out").exists()


def test_bad_keys(tmp_path):
    folders = {"a": flat(tmp_path / "a", [1], 1)}
    for keys, said in (
        ({}, "input, scores, searches: expected"),
        ({"scores": tmp_path, "held_out": tmp_path}, "held_out: .*expected searches"),
        ({"searches": folders, "final_rule": "shortest"}, "final_rule: 'shortest': expected one of best_of_n"),
        ({"searches": folders, "prediction_samples": 0}, "prediction_samples: expected 1 or more"),
    ):
        with pytest.raises(InputError, match=said):
            report(output=tmp_path / "out", **keys)
    write_records(tmp_path / "held.jsonl", [sample("elsewhere", 0, 0.5, True)])
    with pytest.raises(InputError, match="held_out: has no sample of any problem"):
        report(output=tmp_path / "out", searches=folders, held_out=tmp_path / "held.jsonl")


CURVE = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1)), min_size=1, max_size=6)


@given(CURVE, st.floats(0, 1))
def test_an_interpolated_curve_goes_through_its_points(steps, between):
    """It meets every point, stays between neighbours, and is constant beyond the ends."""
    cost, accuracy = np.cumsum([step for step, _ in steps])[None], np.array([[level for _, level in steps]])
    for i in range(len(steps)):
        assert at_budget(cost[:, i], cost, accuracy)[0] == pytest.approx(accuracy[0, i])
    for i in range(len(steps) - 1):
        budget = cost[:, i] * (cost[:, i + 1] / cost[:, i]) ** between
        expected = accuracy[0, i] + between * (accuracy[0, i + 1] - accuracy[0, i])
        assert at_budget(budget, cost, accuracy)[0] == pytest.approx(expected)
    assert at_budget(cost[:, 0] / 2, cost, accuracy)[0] == accuracy[0, 0]
    assert at_budget(cost[:, -1] * 2, cost, accuracy)[0] == accuracy[0, -1]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 6))
def test_bins_are_never_empty_and_keep_equals_together(values, num_bins):
    values = np.array(values, float)
    bins = bins_of(values, edges := quantile_edges(values, num_bins))
    assert sorted(set(bins)) == list(range(len(edges) + 1))
    assert len(edges) < num_bins
    assert all(len({*bins[values == value]}) == 1 for value in values)
