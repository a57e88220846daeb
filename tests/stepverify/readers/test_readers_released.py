"""MATH and the formats of step-labelled solutions; convert writes two of them, and reads back what it wrote."""

import json
import pickle
import re
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.runtime.inputs import read_problems
from sampling.stages.convert import convert
from sampling.stages.label import label
from stepverify.answers import boxed_answer
from stepverify.data.targets import StepTargets
from stepverify.jsonl import read_records, write_records
from stepverify.readers import MATH, MathShepherd, OmegaPRM, Problems, ProcessBench, Solutions, Stepwise
from stepverify.readers.base import ReasonCounter
from stepverify.records import InputError, Problem, Solution, StepLabel


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(reader, method="solutions"):
    with pytest.raises(InputError) as caught:
        list(getattr(reader, method)())
    return str(caught.value)


def ratings(solution):
    return [label and label.rating for label in solution.step_labels]


# ── MATH ──────────────────────────────────────────────────────────────────────────────────────────

MATH_ROW = {
    "problem": " What is $1 + 1$?\n", "solution": "First,\n\n1 + 1 = 2.\nSo $\\boxed{2}$.", "level": "Level 5",
    "type": "Algebra", "unique_id": "train/algebra/24.json",
}  # fmt: skip


def test_math_as_it_is(tmp_path):
    """Hendrycks' keys, and those of PRM800K's split; without a unique_id the row says which one it is."""
    newer = {"problem": "?", "solution": "s", "answer": "\\frac{1}{2}", "level": 2, "subject": "Geometry"}
    reader = MATH(written(tmp_path / "m.jsonl", MATH_ROW, newer), split="test")
    assert list(reader.problems()) == [
        Problem(
            id="math/train/algebra/24", problem="What is $1 + 1$?", answer="2",
            steps=["First,", "1 + 1 = 2.", "So $\\boxed{2}$."], meta={"level": 5, "subject": "Algebra"},
        ),
        Problem(id="math/test/1", problem="?", answer="\\frac{1}{2}", steps=["s"], meta={"level": 2, "subject": "Geometry"}),
    ]  # fmt: skip
    assert [p.id for p in MATH(reader.path, start=1).problems()] == ["math/train/1"]
    assert [s.id for s in MATH(reader.path, limit=1).solutions()] == ["math/train/algebra/24#0"]


def test_problems_of_math_that_are_left_out(tmp_path):
    """One boxes nothing, one is excluded; Level ? is no level."""
    rows = [
        MATH_ROW | {"solution": "It is $\\boxed{}$."},
        MATH_ROW | {"level": "Level ?"},
        MATH_ROW | {"problem": "1?"},
    ]
    reader = MATH(written(tmp_path / "m.jsonl", *rows))
    assert [p.meta for p in reader.problems()] == [{"subject": "Algebra"}, {"level": 5, "subject": "Algebra"}]
    assert reader.left_out == {"without an answer": 1}
    write_records(tmp_path / "q.jsonl", [Problem(id="q", problem="1 ?")])
    reader = MATH(reader.path, exclude=[Problems(str(tmp_path / "q.jsonl"))])
    assert [p.meta for p in reader.problems()] == [{"subject": "Algebra"}]
    assert str(reader.left_out) == (
        f"1 without an answer ({tmp_path}/m.jsonl:1), 1 of excluded problems ({tmp_path}/m.jsonl:3)"
    )
    assert reader.counted() == {"left_out": {
        "without an answer": {"count": 1, "first": f"{tmp_path}/m.jsonl:1"},
        "of excluded problems": {"count": 1, "first": f"{tmp_path}/m.jsonl:3"},
    }}  # fmt: skip
    assert len(read_problems(reader)) == 1


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"level": "hard"}, ":1: key 'level': expected 'Level 1' to 'Level 5' or a number, got 'hard'"),
        ({"solution": None}, ":1: key 'solution': expected a string, got None"),
        ({"unique_id": 7}, ":1: key 'unique_id': expected a string, got 7"),
        ({"answer": 2}, ":1: key 'answer': expected a string, got 2"),
    ],
)
def test_bad_rows_of_math_are_named(tmp_path, changed, expected):
    reader = MATH(written(tmp_path / "m.jsonl", MATH_ROW | changed))
    assert said(reader, "problems") == f"{tmp_path}/m.jsonl{expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and \fbox{2.}", "2"),
        (r"\boxed{7}, so the answer is correct.", "7"),
        (r"\boxed{8}, then \boxed{ and \boxed{}", "8"),
        (r"\boxed 9", "9"),
        (r"\boxedfoo{1}. The answer is 3.", None),
        ("", None),
    ],
)
def test_the_last_box(text, expected):
    assert boxed_answer(text) == expected


def test_rows_of_the_hub(monkeypatch):
    """The arguments that ``datasets`` gets, and what a row is called in errors."""
    asked = []

    def load_dataset(path, name, *, split, revision):
        assert revision is None
        asked.append((path, name, split))
        return [MATH_ROW, MATH_ROW | {"level": "x"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert said(MATH("me/math", split="test", name="algebra"), "problems").startswith("me/math[test][1]: key 'level'")
    assert asked == [("me/math", "algebra", "test")]
    assert said(MATH("./none"), "problems") == "./none: no such file"


# ── Math-Shepherd ─────────────────────────────────────────────────────────────────────────────────

INPUT = "How many? Step 1: 2 * 9 = 18 ки\nStep 2: So\n18. The answer is: 18 ки"
SHEPHERD = {"input": INPUT, "label": INPUT.replace("ки", "+", 1).replace("ки", "-"), "task": "GSM8K"}


def shepherd(folder, *rows, **options):
    return MathShepherd(written(folder / "s.jsonl", *rows), **options)


def test_math_shepherd_as_it_is(tmp_path):
    reader = shepherd(tmp_path, SHEPHERD, SHEPHERD | {"task": "MATH"})
    first, second = reader.solutions()
    assert (first.problem, first.steps, ratings(first)) == (
        "How many?",
        ["2 * 9 = 18", "So\n18. The answer is: 18"],
        [1, -1],
    )
    assert (first.problem_id, first.meta) == (second.problem_id, {"task": "GSM8K"})
    assert [first.id[-2:], second.id[-2:]] == ["#0", "#1"]
    assert reader.noted == {"steps of several lines": 2}
    assert [p.problem for p in reader.problems()] == ["How many?"]
    (split,) = shepherd(tmp_path, SHEPHERD, multiline="split").solutions()
    assert (split.steps[1:], ratings(split)) == (["So", "18. The answer is: 18"], [1, None, -1])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"input": "How many?", "label": "How many?"}, "key 'input': expected a problem and 'Step 1: … ки', got 'How"),
        ({"input": INPUT + " more", "label": INPUT}, "key 'input': expected a problem and 'Step 1: … ки', got "),
        ({"input": "a ки", "label": "a +"}, "key 'input': expected a problem and 'Step 1: … ки', got 'a ки'"),
        ({"input": INPUT, "label": INPUT}, "key 'label': expected the input with + or - for ки, got 'How"),
        ({"input": INPUT, "label": SHEPHERD["label"].replace("9", "8")}, "key 'label': expected the input with + or -"),
    ],
)
def test_rows_of_another_format_are_counted_or_refused(tmp_path, row, expected):
    reader = shepherd(tmp_path, SHEPHERD, row)
    assert len(list(reader.solutions())) == 1
    no_place = row["input"] == "a ки"
    assert reader.left_out == {
        "rows without a place at which the first step begins" if no_place else "rows of another format": 1
    }
    assert said(shepherd(tmp_path, row, strict=True)).startswith(f"{tmp_path}/s.jsonl:1: {expected}")
    assert said(shepherd(tmp_path, {"input": 3, "label": ""})) == (
        f"{tmp_path}/s.jsonl:1: key 'input': expected a string, got 3"
    )


# ── TRL's stepwise supervision ────────────────────────────────────────────────────────────────────

STEPWISE = {"prompt": "How many?", "completions": ["2 * 9 = 18", "So 18."], "labels": [True, False]}


def test_stepwise_as_it_is(tmp_path):
    soft = STEPWISE | {"labels": [0.25, 1]}
    reader = Stepwise(written(tmp_path / "t.jsonl", STEPWISE, soft))
    first, second = reader.solutions()
    assert (first.problem, first.steps, ratings(first)) == ("How many?", ["2 * 9 = 18", "So 18."], [1, -1])
    assert second.step_labels == [StepLabel(value=0.25), StepLabel(value=1.0)]
    assert StepTargets(monte_carlo="soft").of(second) == [0.25, 1]
    assert first.problem_id == second.problem_id


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"labels": [True]}, "key 'labels': expected 2 values, one per step, got 1"),
        ({"labels": [True, 1.5]}, "key 'labels[1]': expected a number from 0 to 1, got 1.5"),
        ({"labels": [True, "no"]}, "key 'labels[1]': expected a number from 0 to 1, got 'no'"),
        ({"completions": [1, 2]}, "key 'completions[0]': expected a string, got 1"),
        ({"prompt": None}, "key 'prompt': expected a string, got None"),
    ],
)
def test_bad_rows_of_stepwise_are_named(tmp_path, changed, expected):
    assert said(Stepwise(written(tmp_path / "t.jsonl", STEPWISE | changed))) == f"{tmp_path}/t.jsonl:1: {expected}"


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12))
def test_folds_divide_problems(tmp_path_factory, problems):
    """Each solution is in one fold, with all others of its problem, and has the id that it has without folds."""
    path = written(tmp_path_factory.mktemp("folds") / "t.jsonl", *(STEPWISE | {"prompt": p} for p in problems))
    ids = {
        fold: [s.id for s in Stepwise(path, fold=fold, validation_fraction=0.4).solutions()]
        for fold in ("all", "train", "validation")
    }
    assert sorted(ids["train"] + ids["validation"]) == sorted(ids["all"])
    assert not {i.split("#")[0] for i in ids["train"]} & {i.split("#")[0] for i in ids["validation"]}


# ── ProcessBench ──────────────────────────────────────────────────────────────────────────────────

BENCH = {
    "id": "olympiad-bench-4", "generator": "Qwen2-7B", "problem": "How many?", "steps": ["a", "b ", "c"],
    "final_answer_correct": True, "label": 1,
}  # fmt: skip


def test_processbench_as_it_is(tmp_path):
    """Correct before the first incorrect step, unknown after it; the same problem has one id."""
    rows = [BENCH, BENCH | {"id": "olympiad-bench-5", "label": -1, "problem": "how  many?"}, BENCH | {"label": 0}]
    reader = ProcessBench(written(tmp_path / "b.jsonl", *rows))
    found = list(reader.solutions())
    assert [ratings(s) for s in found] == [[1, -1, None], [1, 1, 1], [-1, None, None]]
    assert [s.id for s in found] == [f"processbench/olympiad-bench-4#{i}" for i in range(3)]
    assert (found[1].generator, found[1].correct, found[1].steps) == ("Qwen2-7B", True, ["a", "b", "c"])
    assert found[1].meta == {"subset": "olympiad-bench", "row": "olympiad-bench-5"}
    assert [p.id for p in reader.problems()] == ["processbench/olympiad-bench-4"]
    assert len(list(ProcessBench(reader.path, limit=1).solutions())) == 1


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"label": 3}, "key 'label': expected -1 or one of 3 steps, got 3"),
        ({"label": -2}, "key 'label': expected -1 or one of 3 steps, got -2"),
        ({"label": True}, "key 'label': expected an integer, got True"),
        ({"final_answer_correct": 1}, "key 'final_answer_correct': expected true or false, got 1"),
    ],
)
def test_bad_rows_of_processbench_are_named(tmp_path, changed, expected):
    assert said(ProcessBench(written(tmp_path / "b.jsonl", BENCH | changed))) == f"{tmp_path}/b.jsonl:1: {expected}"


# ── OmegaPRM ──────────────────────────────────────────────────────────────────────────────────────


def omega(**prefixes):
    nodes = [{"solution_prefix": f"Q?{text}", "mc_value": value} for text, value in prefixes.items()]
    return {"question": "Q?", "final_answer": "2", "reasoning_steps": nodes}


def test_omegaprm_as_it_is(tmp_path):
    r"""A tree: a → b → c, a → d; e alone. "a 1" does not go on to "a 12", though the letters do."""
    row = omega(
        **{"": 0.5, "\n\na": 0.75, "\na\n\n c": 0.0, "\na\nb": 1, "\na\nb\nc": 0.5, "\ne": 0.0, "\na 1": 1, "\na 12": 0}
    )
    reader = OmegaPRM(written(tmp_path / "o.jsonl", row))
    assert [(s.steps, [x and x.value for x in s.step_labels]) for s in reader.solutions()] == [
        (["a", "c"], [0.75, 0.0]), (["a", "b", "c"], [None, 1.0, 0.5]), (["a", "1"], [None, 1.0]), (["a", "12"], [None, 0.0]),
        (["e"], [0.0]),
    ]  # fmt: skip
    first = next(reader.solutions())
    assert (first.problem, first.answer) == ("Q?", "2")


@given(
    st.dictionaries(st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("\n".join), st.floats(0, 1), max_size=9)
)
def test_every_value_of_a_search_counts_once(tmp_path_factory, values):
    row = omega(**{f"\n{text}": value for text, value in values.items()})
    found = list(OmegaPRM(written(tmp_path_factory.mktemp("o") / "o.jsonl", row)).solutions())
    labelled = [
        ("\n".join(s.steps[: i + 1]), x.value) for s in found for i, x in enumerate(s.step_labels) if x
    ]  # fmt: skip
    assert sorted(labelled) == sorted(values.items())


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"solution_prefix": "P?\na", "mc_value": 1}, "key 'solution_prefix': expected the question first, got 'P?"),
        ({"solution_prefix": "Q?\na", "mc_value": 2}, "key 'mc_value': expected a number from 0 to 1, got 2"),
        ({"solution_prefix": "Q?\na"}, "key 'mc_value': expected a number from 0 to 1, got None"),
    ],
)
def test_bad_rows_of_omegaprm_are_named(tmp_path, node, expected):
    reader = OmegaPRM(written(tmp_path / "o.jsonl", omega() | {"reasoning_steps": [node]}))
    assert said(reader).startswith(f"{tmp_path}/o.jsonl:1: reasoning_steps[0]: {expected}")


# ── convert ───────────────────────────────────────────────────────────────────────────────────────

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
@settings(max_examples=40)
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
        (("stepwise",), "Solutions: no solution to write; left out: 1 without a label at the first step .p/0#0."),
    ):
        with pytest.raises(InputError, match=expected):
            convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", *arguments)
    with pytest.raises(InputError, match="is a folder, expected the name of a file"):
        convert(tmp_path / "in.jsonl", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


# ── counts ────────────────────────────────────────────────────────────────────────────────────────


def test_tallies_keep_the_first_example():
    one, other = ReasonCounter(), ReasonCounter()
    for tally, reason, where in (
        (one, "a", "1"),
        (one, "b", "2"),
        (other, "a", "3"),
        (other, "c", "4"),
        (other, "c", "5"),
    ):
        tally.note(reason, where)
    one.add(other)
    assert str(one) == str(pickle.loads(pickle.dumps(one))) == "2 a (1), 2 c (4), 1 b (2)"
    one.clear()
    assert (str(one), one.first) == ("", {})


def test_what_was_left_out_is_in_the_manifest(tmp_path, capsys):
    """A reader's counts stand in the manifest of the stage that read it, and in what it prints."""
    rows = [{"problem": "1 + 1?", "solution": "\\boxed{2}"}, {"problem": "?", "solution": "none"}]
    label(MATH(written(tmp_path / "m.jsonl", *rows)), tmp_path / "out")
    summary = json.loads((tmp_path / "out/manifest.json").read_text())["summary"]
    assert summary["left_out"] == {"without an answer": {"count": 1, "first": f"{tmp_path}/m.jsonl:2"}}
    assert "noted" not in summary
    assert f"left out: 1 without an answer ({tmp_path}/m.jsonl:2)" in capsys.readouterr().out


def test_own_solutions_of_excluded_problems(tmp_path, make_solution):
    write_records(
        tmp_path / "s.jsonl", [make_solution(number=i, sample=j, correct=j == 0) for i in (0, 1) for j in (0, 1)]
    )
    write_records(tmp_path / "q.jsonl", [Problem(id="q", problem="A=1")])
    reader = Solutions(str(tmp_path / "s.jsonl"), exclude=[Problems(str(tmp_path / "q.jsonl"))], balance="mixed_only")
    assert [s.id for s in reader.solutions()] == ["p/0#0", "p/0#1"]
    assert reader.left_out == {"of excluded problems": 2}


# ── real data ─────────────────────────────────────────────────────────────────────────────────────


def test_math_whole(data_folder):
    """7,500 problems, two of which box nothing; of MATH-500 each box is the given answer."""
    reader = MATH(str(data_folder / "math/math_train.jsonl.gz"))
    assert sum(1 for _ in reader.problems()) == 7498
    assert reader.left_out == {"without an answer": 2}
    problems = list(MATH(str(data_folder / "math/math500_prm800k_test.jsonl.gz"), split="test").problems())
    assert len(problems) == 500
    assert all(boxed_answer("\n".join(p.steps)) == p.answer for p in problems)


def test_released_samples(data_folder):
    found = list(MathShepherd(str(data_folder / "math_shepherd/samples_7.jsonl.gz"), strict=True).solutions())
    assert (len(found), [sum(ratings(s)) for s in found]) == (7, [3, -3, -2, -5, -3, -2, -3])
    reader = OmegaPRM(str(data_folder / "math_aps/samples_math-aps.jsonl.gz"))
    found = list(reader.solutions())
    assert (len(found), sum(x is not None for s in found for x in s.step_labels)) == (124, 132)
    assert reader.noted["repeated prefixes"] == 10


@pytest.mark.parametrize(("subset", "counts"), [("math", (1000, 955, 3772, 594)), ("gsm8k", (400, 375, 1361, 207))])
def test_processbench_whole(data_folder, subset, counts):
    found = list(ProcessBench(str(data_folder / f"processbench/{subset}.jsonl.gz")).solutions())
    known = [rating for s in found for rating in ratings(s)]
    assert (len(found), len({s.problem_id for s in found}), known.count(1), known.count(-1)) == counts
    assert {s.meta["subset"] for s in found} == {subset}
