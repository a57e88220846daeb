"""What a report shows: differences between verifiers, standard errors, titles, axes."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.report.accuracy import Table, read_table, summarise
from sampling.report.section import INTERVALS, Section, Uncertainty, zoomed
from sampling.report.sections import accuracy_section, between_sections
from sampling.report.subject import find_subject, model_name, title
from sampling.report.summary import Difference, Estimate, Subject, Summary
from sampling.report.tables import to_csv, to_latex
from sampling.stages.report import report
from stepverify.jsonl import write_records
from tests.helpers.rankings import rankings
from tests.helpers.scored import solution


def estimate(mean, low, high):
    return Estimate(mean=mean, low=low, high=high, standard_error=0.01)


def accuracy(verifiers, kinds=("best_of_n",), num_bootstrap=400):
    """Ten problems; verifier i solves the first i of them by every rule, the majority vote none."""
    rules = ["majority", *(f"v{i}/{kind}" for i in verifiers for kind in kinds)]
    solved = [0, *(i for i in verifiers for _ in kinds)]
    values = np.array([[float(p < number) for number in solved] for p in range(10)])[:, :, None]
    return summarise(Table(rules, [4], 40, values), num_bootstrap, seed=0)


def test_verifiers_are_compared_in_pairs():
    """Verifiers that solve 9 and 4 of ten problems: half of the problems are solved by the first alone.

    The difference is 0.5; its standard error that of a share of a half of ten problems, sqrt(0.25 / 10) = 0.158.
    """
    found = accuracy([9, 4]).between
    assert found.keys() == {"v9/best_of_n"}
    (one,) = found["v9/best_of_n"].values()
    assert one.difference == pytest.approx(0.5)
    assert one.standard_error == pytest.approx(0.158, abs=0.02)
    assert one.low == pytest.approx(0.2, abs=0.11)
    assert one.low > 0


def test_the_table_of_differences_is_antisymmetric():
    """Row minus column: what the one has above the other, the other has below it."""
    (part,) = between_sections(accuracy([9, 4, 8]))
    assert part.header == ["rule", "v9, best of N", "v4, best of N", "v8, best of N"]
    assert [row[0] for row in part.rows] == part.header[1:]
    assert [part.rows[i][i + 1] for i in range(3)] == ["", "", ""]
    assert part.rows[0][2].startswith("+50.0 (+20.0 to +80.0)*")
    assert part.rows[1][1] == "−50.0 (−80.0 to −20.0)*"
    assert part.rows[0][3] == "+10.0 (+0.0 to +30.0)", "of ten problems one: the interval reaches zero, no mark"
    assert "They are 3 comparisons" in part.note


def test_one_verifier_is_compared_with_none_and_many_by_kind():
    """Five verifiers of two rules are ten rules: one table for each kind of rule, five by five."""
    assert between_sections(accuracy([9])) == []
    parts = between_sections(accuracy([1, 2, 3, 4, 5], ("best_of_n", "weighted_vote"), 10))
    assert [part.title for part in parts] == ["Verifiers compared: best of N", "Verifiers compared: weighted vote"]
    assert [part.name for part in parts] == ["verifiers_compared_best_of_n", "verifiers_compared_weighted_vote"]
    assert parts[0].header == ["verifier", "v1", "v2", "v3", "v4", "v5"]


def test_standard_errors_in_place_of_intervals(tmp_path, capsys):
    """Columns are called stderr, cells are ``± 11.2``: 10 of 20 problems, sqrt(0.25 / 20) = 11.2 points."""
    report(rankings(tmp_path / "in"), output=tmp_path / "out", num_bootstrap=2000, standard_errors=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["rule", "accuracy", "stderr", "difference", "stderr", "AUROC"]
    majority = next(line for line in lines if "majority" in line).split()
    assert majority[:5] == ["majority", "vote", "50.0", "%", "±"]
    stored = json.loads((tmp_path / "out/summary.json").read_text())["accuracy"]["majority"]
    assert majority[5] == f"{100 * stored['standard_error']:.1f}"
    assert stored["standard_error"] == pytest.approx(0.112, abs=0.006)
    assert "all standard errors (±) are over the same bootstrap resamples" in (tmp_path / "out/report.md").read_text()
    table = (tmp_path / "out/tables/accuracy.csv").read_text().splitlines()
    assert table[0] == "rule,accuracy (%),accuracy stderr,difference,difference stderr,AUROC"
    assert table[2].startswith(f"majority vote,50.0,{majority[5]},+2.5,")


def test_uncertainty():
    one = Difference(difference=0.1234, low=-0.01, high=0.25, standard_error=0.0612)
    shown = Uncertainty(standard_errors=True)
    assert [INTERVALS.share(one), shown.share(one)] == ["-1.0 – 25.0", "± 6.1"]
    assert [INTERVALS.difference(one), shown.difference(one)] == ["−1.0 to +25.0", "± 6.1"]
    assert [INTERVALS.area(one), shown.area(one)] == ["-0.010 – 0.250", "± 0.061"]
    assert INTERVALS.area_difference(one) == "+0.123 (-0.010 to +0.250)"
    assert shown.area_difference(one) == "+0.123 ± 0.061"


def test_an_axis_is_zoomed_to_the_data():
    """From 82.6 to 93.0, 2 points a step would be six steps from 82 to 94; 5 points a step are three."""
    assert zoomed([estimate(0.875, 0.826, 0.93)]) == pytest.approx([0.8, 0.85, 0.9, 0.95])
    assert zoomed([estimate(0.5, 0.0, 1.0)]) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert zoomed([estimate(1.0, 1.0, 1.0)]) == pytest.approx([0.999, 1])
    assert zoomed([]) == Section(title="").axis == []


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_every_interval_is_on_the_axis(ends):
    axis = zoomed([estimate(0, *sorted(pair)) for pair in ends])
    assert axis[0] - 1e-9 <= min(min(pair) for pair in ends)
    assert axis[-1] + 1e-9 >= max(max(pair) for pair in ends)
    assert 2 <= len(axis) <= 6
    assert 0 <= axis[0] < axis[-1] <= 1


def test_titles_name_data_generator_and_n(tmp_path):
    """The model is in the manifest of the generate stage, two folders back; the data set is in the problems' ids."""
    generated, scored, ranked = (tmp_path / name for name in ("generated", "scored", "ranked"))
    chain = ((generated, "generate", None), (scored, "score", generated), (ranked, "rank", scored))
    for folder, stage, source in chain:
        folder.mkdir()
        config = {"engine": {"model": "runs/small/generator/export"}} if stage == "generate" else {}
        inputs = {} if source is None else {"input": {"path": str(source), "sha256": ""}}
        manifest = {"stage": stage, "config": config, "inputs": inputs, "finished": True, "summary": {}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    row = '{"problem_id": "gsm8k/test/%d", "num_samples": 4, "sizes": [4], "curves": {"pass@1": [0.5]}}\n'
    (ranked / "part-00000.jsonl").write_text("".join(row % i for i in range(3)))
    assert find_subject(ranked) == Subject(data=("gsm8k/test",), generators=("small/generator",))
    report(ranked, output=tmp_path / "out", num_bootstrap=10)
    assert (tmp_path / "out/report.md").read_text().startswith(
        "# Best-of-N on gsm8k/test with small/generator, N = 4\n\n3 problems, 4 samples of each; 12 solutions in all.\n"
    )  # fmt: skip


def test_a_generator_that_no_manifest_names_is_that_of_the_solutions(tmp_path):
    rows = [solution(i, {"prm": [0.5, 0.5]}, labels=[1, -1]) for i in range(2)]
    write_records(tmp_path / "s.jsonl", rows)
    path = tmp_path / "s.jsonl"
    path.write_text(path.read_text().replace('"id"', '"generator":"gpt-4","id"', 1))
    assert find_subject(path).generators == ("gpt-4",)
    four = Subject(data=("a", "b", "c", "d")) | Subject(data=("a",), generators=("m", "n"))
    assert title(Summary(subject=four)) == "Verifiers on 4 data sets with m, n"
    assert [*map(model_name, ("Qwen/Qwen2.5-0.5B", "/a/b/c/export/", "export"))] == [
        "Qwen/Qwen2.5-0.5B",
        "b/c",
        "export",
    ]


TABLE = Section(
    title="A & B", name="t", header=["rule", "share", "interval", "n", "difference", "interval", "ρ"],
    rows=[["a_b, 5 %", "12.5 %", "10.0 – 15.0", "1,234", "−1.5", "−3.0 to +0.5", "–"],
          ["=x", "–", "–", "5", "", "", "−0.250"]],
    strong=frozenset({1}),
)  # fmt: skip


def test_csv_has_numbers_that_programs_read():
    assert to_csv(TABLE) == (
        "rule,share (%),share low,share high,n,difference,difference low,difference high,ρ\n"
        '"a_b, 5 %",12.5,10.0,15.0,1234,-1.5,-3.0,+0.5,\n'
        "=x,,,,5,,,,-0.250\n"
    )


def test_latex_is_a_tabular_with_booktabs():
    assert to_latex(TABLE, "On x").splitlines() == [
        "% On x: A & B. Needs \\usepackage{booktabs}.",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"rule & share & interval & n & difference & interval & $\rho$ \\",
        r"\midrule",
        r"a\_b, 5 \% & 12.5 \% & 10.0 -- 15.0 & 1,234 & $-$1.5 & $-$3.0 to +0.5 & -- \\",
        r"\textbf{=x} & \textbf{--} & \textbf{--} & \textbf{5} &  &  & \textbf{$-$0.250} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.slow
def test_the_same_report_is_the_same_files(tmp_path):
    """Byte for byte, figures too: no dates, no random identifiers."""
    data = rankings(tmp_path / "in")
    for name in ("a", "b"):
        report(data, output=tmp_path / name, num_bootstrap=20)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_tables_show_points_on_a_zoomed_axis(tmp_path):
    """The ticks are those of the section's axis: a point for each rule, no bar from 0 to 100."""
    report(rankings(tmp_path / "in"), output=tmp_path / "out", num_bootstrap=50)
    part = accuracy_section(summarise(read_table(tmp_path / "in"), 50, 0))
    html = (tmp_path / "out/report.html").read_text()
    assert html.count('<td class="dots">') == len(part.rows)
    shown = [float(tick) for tick in re.findall(r">([\d.]+)(?:&nbsp;%)?</span>", html)]
    assert shown == pytest.approx([100 * tick for tick in part.axis])
    assert 'class="scroll" tabindex="0" role="region"' in html
