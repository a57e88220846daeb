"""MATH and the formats of step-labelled solutions; convert writes two of them, and reads back what it wrote."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.stages.label import label
from stepverify.data.targets import StepTargets
from stepverify.jsonl import write_records
from stepverify.readers import MATH, MathShepherd, OmegaPRM, Problems, ProcessBench, Solutions, Stepwise
from stepverify.readers.base import ReasonCounter
from stepverify.records import Problem, StepLabel
from tests.helpers.readers import said, written


def ratings(solution):
    return [label and label.rating for label in solution.step_labels]


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
