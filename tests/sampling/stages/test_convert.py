"""The convert stage: what is converted reads the same, and what a format cannot say is counted."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.stages.convert import convert
from stepverify.data.targets import StepTargets
from stepverify.jsonl import read_records, write_records
from stepverify.readers import MathShepherd, Stepwise
from stepverify.records import InputError, Problem, Solution, StepLabel
from tests.helpers.readers import written

READERS = {"stepwise": Stepwise, "math_shepherd": MathShepherd}


words = st.text('ab1+ \n"\\é', min_size=1, max_size=8).map(str.strip).filter(bool)


labelled = st.lists(
    st.tuples(words, st.lists(st.tuples(words, st.sampled_from([-1, 1])), min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("format", READERS)
@given(problems=labelled)
@settings(max_examples=20)
def test_what_is_converted_reads_the_same(format, problems, tmp_path_factory):
    """Our records → another format → our records: the same problem, steps and hard labels."""
    folder = tmp_path_factory.mktemp("c")
    ours = [
        Solution(
            id=f"p/{i}#0", problem_id=f"p/{i}", problem=problem, steps=[text for text, _ in steps],
            step_labels=[StepLabel(rating=rating) for _, rating in steps],
        )
        for i, (problem, steps) in enumerate(problems)
    ]  # fmt: skip
    write_records(folder / "in.jsonl", ours)
    convert(folder / "in.jsonl", folder / "out.jsonl", format)
    back = READERS[format](str(folder / "out.jsonl")).solutions()
    assert [(s.problem, s.steps, s.step_labels) for s in back] == [(s.problem, s.steps, s.step_labels) for s in ours]
    convert(READERS[format](str(folder / "out.jsonl")), folder / "records.jsonl")
    again = list(read_records(folder / "records.jsonl", Solution))
    assert [(s.problem, s.steps, s.step_labels) for s in again] == [(s.problem, s.steps, s.step_labels) for s in ours]


marks = st.lists(st.sampled_from(["Step 1: ", "Step 2:", "ки", "+", "a", "\n"]), min_size=1, max_size=4).map("".join)


@given(marks, st.lists(marks, min_size=1, max_size=3))
@settings(max_examples=25)
def test_texts_with_the_marks_of_a_format_are_kept_or_left_out(tmp_path_factory, problem, steps):
    """Never changed: what is written beside a plain solution reads the same; a blank first step cannot be written."""
    folder = tmp_path_factory.mktemp("c")
    ours = [
        Solution(id=f"{i}#0", problem_id=i, problem=text, steps=inner, step_labels=[StepLabel(rating=1)] * len(inner))
        for i, text, inner in (("p", "a", ["b"]), ("q", problem, steps))
    ]
    write_records(folder / "in.jsonl", ours)
    convert(folder / "in.jsonl", folder / "out.jsonl", "math_shepherd")
    found = [(s.problem, s.steps) for s in MathShepherd(str(folder / "out.jsonl")).solutions()]
    expected = [("a", ["b"]), (problem.strip(), [step.strip() for step in steps if step.strip()])]
    assert found in (expected, expected[:1])
    if steps[0].strip() and not re.search(r"Step \d+:|ки", "".join([problem, *steps])):
        assert found == expected


def test_what_a_format_cannot_say_is_counted(tmp_path, make_solution, capsys):
    """Cut before the first step without a target; left out where that is the first step, or a text holds the tag."""
    r = {rating: StepLabel(rating=rating) for rating in (-1, 0, 1)}
    counted = StepLabel(num_correct=1, num_rollouts=4)
    records = [
        make_solution(["a", "b", "c"], 0, step_labels=[r[1], None, r[1]]),
        make_solution(["a", "b"], 1, step_labels=[None, r[1]]),
        make_solution(["a"], 2),
        make_solution(["a ки"], 3, step_labels=[r[1]]),
        make_solution(["a", "b"], 4, step_labels=[counted, r[0]]),
    ]
    write_records(tmp_path / "in.jsonl", records)

    def rows(format, **targets):
        convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", format, StepTargets(**targets))
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    assert rows("stepwise") == [
        {"prompt": "a = 0", "completions": ["a"], "labels": [True]},
        {"prompt": "a = 3", "completions": ["a ки"], "labels": [True]},
        {"prompt": "a = 4", "completions": ["a", "b"], "labels": [True, True]},
    ]
    assert rows("stepwise", monte_carlo="threshold", neutral="ignore")[-1]["labels"] == [False]
    capsys.readouterr()
    assert rows("math_shepherd", neutral="negative")[-1] == {
        "input": "a = 4 Step 1: a ки\nStep 2: b ки", "label": "a = 4 Step 1: a +\nStep 2: b -",
    }  # fmt: skip
    assert capsys.readouterr().out == (
        f"{tmp_path}/out.jsonl: 2 solutions\n"
        "  left out: 2 without a label at the first step (p/1#0), 1 with texts that math_shepherd cannot hold (p/3#0)\n"
        "  noted: 1 cut before a step without a label (p/0#0)\n"
    )
    convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "in.jsonl").read_bytes()


def test_convert_is_a_stage_that_takes_readers(tmp_path, capsys):
    """Readers within a reader, as a YAML has them; the choices of targets too."""
    write_records(tmp_path / "q.jsonl", [Problem(id=f"q{i}", problem=f"1 + {i}?") for i in range(3)])
    write_records(tmp_path / "x.jsonl", [Problem(id="x", problem="1+2?")])
    flat = written(tmp_path / "r.jsonl", *({"problem_id": f"q{i}", "steps": ["a"], "ratings": [0]} for i in range(4)))

    def problems(name):
        return {"class_path": "stepverify.readers.Problems", "init_args": {"path": str(tmp_path / name)}}

    reader = {"path": flat, "problems": problems("q.jsonl"), "exclude": [problems("x.jsonl")]}
    values = {
        "input": {"class_path": "stepverify.readers.RatedSolutions", "init_args": reader},
        "output": str(tmp_path / "out.jsonl"), "format": "stepwise", "targets": {"neutral": "negative"},
    }  # fmt: skip
    main(["convert", "--config", written(tmp_path / "c.yaml", values)])
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        {"prompt": f"1 + {i}?", "completions": ["a"], "labels": [False]} for i in (0, 1)
    ]
    assert capsys.readouterr().out == (
        f"{tmp_path}/out.jsonl: 2 solutions\n"
        f"  left out: 1 of excluded problems ({flat}:3), 1 of problems without a text ({flat}:4)\n"
    )


def test_nothing_is_written_where_nothing_can_be(tmp_path, make_solution):
    write_records(tmp_path / "in.jsonl", [make_solution(["a"])])
    for arguments, expected in (
        (
            ("stepwise", StepTargets(monte_carlo="soft")),
            "targets.monte_carlo: soft, but stepwise has only correct and incorrect",
        ),
        (
            ("stepwise",),
            f"Solutions of {tmp_path}/in.jsonl: no solution to write; left out: 1 without a label at the first step .p/0#0.",
        ),
    ):
        with pytest.raises(InputError, match=expected):
            convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", *arguments)
    with pytest.raises(InputError, match="a folder, where a file is to be written; choose another output"):
        convert(tmp_path / "in.jsonl", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]
