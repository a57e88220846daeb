import itertools
import json
import re
from dataclasses import asdict
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.report.accuracy import Table, read_table, rule_label, split_rule, summarise
from sampling.report.collect import collect
from sampling.report.drawing import spread_out
from sampling.stages.report import report
from stepverify.jsonl import write_records
from stepverify.records import InputError, Ranking
from stepverify.statistics import (
    bootstrap_means,
)
from tests.helpers.rankings import RULES, rankings
from tests.helpers.scored import solution, solution_statistics

SAME = {"difference": 0.0, "low": 0.0, "high": 0.0, "standard_error": 0.0}


def test_bootstrap_means_are_means_of_resamples():
    """With three problems of values 0, 1, 4 a resampled mean is a third of a sum of three of them.

    The mean of the means nears 5/3; their variance is that of the values over 3: 26/9 / 3.
    """
    means = bootstrap_means(np.array([[0.0], [1.0], [4.0]]), 20_000, seed=0)[:, 0]
    sums = {a + b + c for a in (0, 1, 4) for b in (0, 1, 4) for c in (0, 1, 4)}
    assert {round(3 * m) for m in means} == sums
    assert means.mean() == pytest.approx(5 / 3, abs=0.04)
    assert means.var() == pytest.approx(26 / 27, abs=0.05)


def test_bootstrap_columns_share_resamples():
    values = np.random.default_rng(0).random((30, 1))
    means = bootstrap_means(np.hstack([values, values + 1, -values]), 50, seed=3)
    assert means[:, 1] - means[:, 0] == pytest.approx(1)
    assert means[:, 2] == pytest.approx(-means[:, 0])


def test_interval_of_a_proportion():
    """Of 400 problems half are solved: the standard error is sqrt(0.25 / 400) = 0.025, the interval 0.5 ± 1.96 · 0.025 = 0.5 ± 0.049."""
    values = np.repeat([0.0, 1.0], 200)[:, None, None]
    found = asdict(summarise(Table(["majority"], [8], 3200, values), 4000, seed=0))
    assert found["accuracy"]["majority"] == pytest.approx(
        {"mean": 0.5, "low": 0.451, "high": 0.549, "standard_error": 0.025}, abs=0.006
    )


def test_paired_difference_is_narrower_than_two_intervals(tmp_path):
    """The verifier solves problems 6 to 9 on top of majority's: 4 of 20, never fewer. Equal rules differ by 0."""
    found = asdict(summarise(read_table(rankings(tmp_path)), 2000, seed=0))
    paired = found["paired"]["prm/best_of_n"]
    assert (paired["versus"], paired["difference"]) == ("majority", pytest.approx(0.2))
    assert 0 <= paired["low"] < 0.2 < paired["high"] < 0.45
    assert paired["high"] - paired["low"] < found["accuracy"]["majority"]["high"] - found["accuracy"]["majority"]["low"]
    assert found["paired"]["prm/weighted_vote"] == SAME | {"versus": "majority"}
    assert found["paired"]["majority"]["versus"] == "pass@1"
    assert found["paired"]["majority"]["difference"] == pytest.approx(0.5 - 0.475)
    assert found["paired"].keys() == {"majority", "prm/best_of_n", "prm/weighted_vote"}


@pytest.mark.parametrize("change", [{"sizes": [1, 8]}, {"curves": {"majority": [0.0, 0.0]}}])
def test_rankings_that_do_not_belong_together_are_refused(tmp_path, change):
    path = rankings(tmp_path) / "part-00000.jsonl"
    line = json.loads(path.read_text().splitlines()[0]) | {"problem_id": "odd"} | change
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(InputError, match=r"of odd: .*, of p0: "):
        read_table(tmp_path)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
@settings(deadline=None)
def test_labels_are_moved_apart_no_further_than_needed(heights):
    heights = sorted(heights)
    moved = spread_out(heights, 0.05)
    assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights))
    if all(b - a >= 0.05 for a, b in itertools.pairwise(heights)):
        assert moved == pytest.approx(heights)


def test_rule_labels():
    assert [rule_label(r) for r in ("pass@1", "shortest", "majority", "a/b/best_of_n", "prm/weighted_vote", "p/top_3")] == [
        "pass@1", "shortest", "majority vote", "a/b, best of N", "prm, weighted vote", "p, vote of the best 3",
    ]  # fmt: skip
    assert [split_rule(r) for r in ("oracle", "a/b/top_3", "a/b/top_3/min")] == [
        ("", "oracle", ""), ("a/b", "top_3", ""), ("a/b", "top_3", "min"),
    ]  # fmt: skip


def test_one_table_of_every_rule_under_every_aggregation(tmp_path, capsys):
    """Four verifiers: each has a panel. ``last`` solves all 20 problems and majority none: marked; ``min`` a tenth more."""
    curves = {"pass@1": [0.1], "majority": [0.0]}
    curves |= {f"v{i}/{kind}": [0.5] for i in range(4) for kind in ("best_of_n", "top_3")} | {"oracle": [1.0]}
    rows = []
    for p in range(20):
        compared = {
            f"v{i}/best_of_n/{how}": [x] for i in range(4) for how, x in (("min", float(p == 0)), ("last", 1.0))
        }
        rows.append(Ranking(problem_id=f"p{p}", num_samples=4, sizes=[4], curves=curves | compared))
    write_records(tmp_path / "in" / "part-00000.jsonl", rows)
    report(tmp_path / "in", output=tmp_path / "out", num_bootstrap=200)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["accuracy"].keys() == curves.keys() == summary["curves"].keys()
    found = summary["every_aggregation"]["v3/best_of_n"]
    assert found["last"]["paired"] == SAME | {"versus": "majority", "difference": 1.0, "low": 1.0, "high": 1.0}
    assert found["min"]["mean"] == pytest.approx(0.05)
    markdown = (tmp_path / "out/report.md").read_text()
    assert "| v3, best of N | 5.0 (0.0 – 15.0) | 100.0 (100.0 – 100.0)\\* |" in markdown
    assert "Every rule under every aggregation" not in capsys.readouterr().out
    assert (tmp_path / "out/accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_report(tmp_path, capsys):
    """All files; names are escaped; the page asks for nothing over the network."""
    data = rankings(tmp_path / "in")
    aggregation = {"prm": {"how": "min", "chosen_on": "validation"}}
    validation = {"num_problems": 3, "n": 4, "best_of_n": {"prm": {"prod": 0.25, "min": 0.5}}}
    summary = {"aggregation": aggregation, "validation": validation}
    manifest = {"stage": "rank", "config": {}, "inputs": {}, "finished": True, "summary": summary}
    (data / "manifest.json").write_text(json.dumps(manifest))
    rows = [
        solution(i, {"prm": [0.1 * i, 0.9], "<b>orm": [0.08 * i]}, correct=i > 4, labels=[1, 1 if i > 4 else -1])
        for i in range(10)
    ]
    write_records(tmp_path / "scored.jsonl", rows)
    report(data, output=tmp_path / "out", scores=tmp_path / "scored.jsonl", num_bootstrap=100)
    out = tmp_path / "out"
    figures = {
        f"{name}.{end}" for name in ("accuracy", "accuracy_dots", "reliability") for end in ("png", "svg", "pdf")
    }
    pages = {"summary.json", "report.md", "report.html", "browse.html"}
    assert {p.name for p in out.iterdir()} == figures | pages | {"tables"}
    tables = ("accuracy", "curves", "first_errors", "lowest_values", "aggregation", "solutions", "steps")
    assert {p.name for p in (out / "tables").iterdir()} == {
        f"{name}.{end}" for name in tables for end in ("csv", "tex")
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["accuracy"].keys() == set(RULES)
    assert summary["accuracy"]["prm/best_of_n"]["mean"] == pytest.approx(0.7)
    assert [point["n"] for point in summary["curves"]["majority"]] == [1, 4]
    assert [summary[key] for key in ("num_problems", "num_samples", "num_solutions")] == [20, 4, 80]
    assert summary["aggregation"] == aggregation
    assert summary["solutions"]["prm"]["used"] == "min"
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    html, markdown = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert not re.search(r"https?://|<script|url\(", html)
    assert html.count("data:image/svg+xml;base64,") == 8, "two figures, wide and narrow, light and dark"
    links = {name for _, name in re.findall(r'(href=|\]\()"?([\w/]+\.(?:png|svg|pdf|csv|tex|html))', html + markdown)}
    assert links == {str(p.relative_to(out)) for p in out.rglob("*.*")} - {"summary.json", "report.md", "report.html"}
    assert "&lt;b&gt;orm" in html
    assert "<b>orm" not in html
    for text in (markdown, html):
        assert "70.0 %" in text
        assert "validation problems" in text
    assert "70.0 %" in capsys.readouterr().out
    # Both verifiers scored the same solutions: what needs no verifier stands once.
    assert [markdown.count(f"| ({row}) |") for row in ("shortest", "correct or not")] == [1, 1]
    # Without scores once more: what only they gave goes, what is not the report's stays.
    (out / "tables" / "mine.csv").write_text("1\n")
    report(data, output=out, num_bootstrap=100)
    written = {name for name in {p.name for p in out.rglob("*.*")} if not name.startswith(("accuracy", "curves"))}
    assert written == {"summary.json", "report.md", "report.html", "aggregation.csv", "aggregation.tex", "mine.csv"}


def test_report_needs_neither_scores_nor_a_manifest(tmp_path):
    report(rankings(tmp_path / "in", num_problems=1, sizes=(4,)), output=tmp_path / "out", num_bootstrap=10)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["aggregation"] == {}
    assert "steps" not in summary
    assert not (tmp_path / "out/browse.html").exists(), "there is nothing to look at"
    assert summary["accuracy"]["oracle"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "standard_error": 0.0}
    with pytest.raises(InputError, match="num_bootstrap"):
        report(tmp_path / "in", output=tmp_path / "out", num_bootstrap=0)


def test_a_solution_score_may_be_a_tiny_product(tmp_path):
    """0.1 to the 400th is 0.0 in double precision; its logarithm still ranks, and nothing becomes NaN."""
    rows = [solution(i, {"prm": [0.1] * (400 + i)}, correct=i == 0, num_steps=400 + i) for i in range(2)]
    write_records(tmp_path / "s.jsonl", rows)
    product = solution_statistics(collect(tmp_path / "s.jsonl"), {"prm": "prod"})["prm"]["aggregations"]["prod"]
    assert exp(400 * log(0.1)) == 0.0
    assert product["auroc"] == 1.0
    assert product["brier"] == pytest.approx(0.5)
    json.dumps(product, allow_nan=False)
