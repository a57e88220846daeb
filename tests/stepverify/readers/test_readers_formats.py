"""Formats of step labels that other libraries train from: OpenRLHF, RLHFlow, OpenR; and where a first step begins."""

import json
from collections import Counter

import pytest

from sampling.stages.convert import convert
from stepverify.jsonl import write_records
from stepverify.readers import (
    MathShepherd,
    OmegaPRM,
    OpenR,
    OpenRLHF,
    Problems,
    ProcessBench,
    Reader,
    RLHFlow,
    StrictPRMBench,
)
from stepverify.readers.base import once
from stepverify.readers.borders import Borders, NoBorder
from stepverify.records import InputError, Problem, Solution


def written(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def said(reader):
    with pytest.raises(InputError) as caught:
        list(reader.solutions())
    return str(caught.value)


def labels(solution):
    return [label and (label.rating if label.value is None else label.value) for label in solution.step_labels]


def known(folder, *texts):
    write_records(folder / "known.jsonl", [Problem(id=str(i), problem=text) for i, text in enumerate(texts)])
    return Problems(str(folder / "known.jsonl"))


# ── where the first step begins ───────────────────────────────────────────────────────────────────

RECIPE = "A recipe says: Step 1: mix 2 eggs. Step 2: add 3 more. How many eggs?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How many? Step 1: 2 + 3 = 5.", ("How many?", "2 + 3 = 5.")),
        (f"{RECIPE} Step 1: 2 + 3 = 5.", (RECIPE, "2 + 3 = 5.")),
        ("How many? Step 1: 2, as in Step 2: below.", ("How many?", "2, as in Step 2: below.")),
        ("Do Step 1: mix. How many? Step 1: 2.", "with several places"),
        ("How many? Step 1: by Step 1: it is 2.", "with several places"),
        ("How many? 2 + 3 = 5.", "without a place"),
        ("How many?Step 1: 5", "without a place"),
    ],
)
def test_where_the_first_step_begins(text, expected):
    if isinstance(expected, str):
        with pytest.raises(NoBorder, match=f"^{expected} at which the first step"):
            Borders().split(text)
    else:
        assert Borders().split(text) == expected


def test_known_problems_tell_where_the_first_step_begins(tmp_path):
    """The longest one of which all words stand there; spaces and line ends do not matter, cut words do."""
    borders = Borders([known(tmp_path, "Do Step 1: mix.\nHow many?", "Do Step 1: mix.", "x", "What is 2 + 1")])
    assert borders.split("Do Step 1:  mix. How many? Step 1: 2.") == ("Do Step 1: mix.\nHow many?", "2.")
    assert borders.split("Do Step 1: mix. Now Step 1: 2.") == ("Do Step 1: mix.", "Now Step 1: 2.")
    assert borders.split("What is 2 + 1\n\nThree.\nYes.") == ("What is 2 + 1", "Three.\nYes.")
    with pytest.raises(NoBorder, match="without a place"):
        borders.split("What is 2 + 11\n\nThirteen.")


def shepherd_row(problem):
    text = f"{problem} Step 1: 2 + 3 = 5. ки\nStep 2: So 5. The answer is: 5 ки"
    return {"input": text, "label": text.replace("ки", "+", 1).replace("ки", "-"), "task": "GSM8K"}


def test_math_shepherd_whose_problem_has_steps(tmp_path):
    """Divided at the correct place or left out with a reason, never at the problem's own steps."""
    rows = [shepherd_row(RECIPE), shepherd_row("Do Step 1: mix. How many?"), shepherd_row("How many?")]
    path = written(tmp_path / "s.jsonl", *rows)
    reader = MathShepherd(path)
    found = list(reader.solutions())
    assert [(s.problem, s.steps, labels(s)) for s in found] == [
        (problem, ["2 + 3 = 5.", "So 5. The answer is: 5"], [1, -1]) for problem in (RECIPE, "How many?")
    ]
    assert str(reader.left_out) == f"1 rows with several places at which the first step may begin ({path}:2)"
    assert ":2: key 'input': expected a problem and 'Step 1: … ки', got 'Do Step 1" in said(
        MathShepherd(path, strict=True)
    )
    whole = MathShepherd(path, problems=[known(tmp_path, "Do Step 1: mix. How many?")])
    assert [s.problem for s in whole.solutions()] == [RECIPE, "Do Step 1: mix. How many?", "How many?"]
    convert(reader, tmp_path / "again.jsonl", format="math_shepherd")
    assert [s.steps for s in MathShepherd(str(tmp_path / "again.jsonl")).solutions()] == [s.steps for s in found]


# ── OpenRLHF ──────────────────────────────────────────────────────────────────────────────────────

OPENRLHF = shepherd_row("How many?") | {"value": ["+", "-"]}


def test_openrlhf_as_it_is(tmp_path):
    """A row of zhuzilin/Math-Shepherd; one with probabilities, whose second step has no number; a tail."""
    soft = {"input": "How many? Step 1: 1 ки\nthen 2 ки\nStep 3: 3 ки tail", "value": [1, 0.25, 0.0]}
    reader = OpenRLHF(written(tmp_path / "o.jsonl", OPENRLHF, soft))
    first, second = reader.solutions()
    assert (first.problem, first.steps) == ("How many?", ["2 + 3 = 5.", "So 5. The answer is: 5"])
    assert (labels(first), second.steps, labels(second)) == ([1, -1], ["1", "then 2", "3"], [1.0, 0.25, 0.0])
    assert (first.problem_id, second.id) == (second.problem_id, f"{first.problem_id}#1")
    assert first.id.startswith("openrlhf/")
    assert reader.noted == {"texts after the last placeholder, not read": 1}


def test_openrlhf_with_names_of_its_own(tmp_path):
    row = {"text": "What is 2 + 1 Two and one <extra_0> Three <extra_0>", "labels": ["yes", "no"]}
    options = {
        "input_key": "text",
        "label_key": "labels",
        "placeholder": "<extra_0>",
        "positive": "yes",
        "negative": "no",
    }
    path = written(tmp_path / "o.jsonl", row)
    (found,) = OpenRLHF(path, **options, problems=[known(tmp_path, "What is 2 + 1")]).solutions()
    assert (found.problem, found.steps, labels(found)) == ("What is 2 + 1", ["Two and one", "Three"], [1, -1])
    without = OpenRLHF(path, **options)
    assert (list(without.solutions()), dict(without.left_out)) == (
        [], {"rows without a place at which the first step begins": 1},
    )  # fmt: skip
    assert "key 'text': 'What is 2 + 1 Two and one '" in said(OpenRLHF(path, **options, strict=True))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"value": ["+"]}, "key 'value': expected 2 labels, one for each placeholder 'ки' in 'input', got 1"),
        ({"value": ["+", "?"]}, "key 'value[1]': expected one of ['+', '-'] or a probability, got '?'"),
        ({"value": [1.5, 0]}, "key 'value[0]': expected a number from 0 to 1, got 1.5"),
        ({"value": None}, "key 'value': expected a list, got None"),
        ({"input": 3}, "key 'input': expected a string, got 3"),
        ({"input": "no tag", "value": []}, "key 'value': expected 0 labels, one for each placeholder"),
    ],
)
def test_bad_rows_of_openrlhf_are_named(tmp_path, changed, expected):
    path = written(tmp_path / "o.jsonl", OPENRLHF, OPENRLHF | changed)
    assert said(OpenRLHF(path)).startswith(f"{path}:2: {expected}")


# ── RLHFlow ───────────────────────────────────────────────────────────────────────────────────────


def turns(*pairs):
    said = [turn for step, label in pairs for turn in (("user", step), ("assistant", label))]
    return {"conversations": [{"content": content, "role": role} for role, content in said]}


MISTRAL = turns(("How many? Step 1: 2 + 3 = 5.", "+"), ("Step 2: So 5. The answer is: 5 ки", "-"))
DEEPSEEK = turns(("What is $2 + 1$?\n\nAdd $2$ and $1$.\n\n", "+"), ("So $\\boxed{3}$.\n\n", "+"))


def test_rlhflow_as_it_is(tmp_path):
    """Mistral's rows tell where the problem ends; Deepseek's only with the problems, and are counted without."""
    path = written(tmp_path / "r.jsonl", MISTRAL, DEEPSEEK)
    reader = RLHFlow(path)
    (first,) = reader.solutions()
    assert (first.problem, first.steps, labels(first)) == (
        "How many?",
        ["2 + 3 = 5.", "So 5. The answer is: 5"],
        [1, -1],
    )
    assert str(reader.left_out) == (
        f"1 rows without a place at which the first step begins (give `problems`) ({path}:2)"
    )
    assert "conversations[0].content': 'What is" in said(RLHFlow(path, strict=True))
    _, second = RLHFlow(path, problems=[known(tmp_path, "What is $2 + 1$?")]).solutions()
    assert (second.problem, second.steps) == ("What is $2 + 1$?", ["Add $2$ and $1$.", "So $\\boxed{3}$."])
    assert (labels(second), second.id[:8], second.id[-2:]) == ([1, 1], "rlhflow/", "#0")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": []}, "key 'conversations': expected pairs of user and assistant, got 0 turns"),
        ({"conversations": MISTRAL["conversations"][:3]}, "key 'conversations': expected pairs"),
        (turns(("a Step 1: b", "good")), "key 'conversations[1].content': expected '+' or '-', got 'good'"),
        ({"conversations": MISTRAL["conversations"][::-1]}, "conversations[0]: key 'role': expected 'user', got 'ass"),
        ({"conversations": [{"role": "user"}] * 2}, "conversations[0]: missing key 'content'"),
        ({"messages": []}, "missing key 'conversations'; found ['messages']"),
    ],
)
def test_bad_rows_of_rlhflow_are_named(tmp_path, row, expected):
    path = written(tmp_path / "r.jsonl", MISTRAL, row)
    assert said(RLHFlow(path)).startswith(f"{path}:2: {expected}")


# ── OpenR ─────────────────────────────────────────────────────────────────────────────────────────

TAG = "\n\n\n\n\n"
APS = {"question": "How many?", "process": f"First,\n\n2 + 3 = 5. So {TAG}", "label": ["-"]}
WHOLE = {"question": "How many?", "process": f"2 + 3 = 5. {TAG} So 5. {TAG}", "label": ["+", "-"]}
KI = {"question": "How many?", "process": "Step: 1: 2 ки\nStep: 2: 3 ки", "labels": [1, 0]}
LATER = {"q": "How many?", "process": "Step: 2: 3 ки", "label": 1}
PREFIXED = {"q": "How many?", "process": "How many? Step 1: 2 ки", "label": 0.25}


def test_openr_as_it_is(tmp_path):
    """A prefix of MATH-APS, whole solutions with either tag, PRM800K's steps alone, a probability."""
    path = written(tmp_path / "a.jsonl", APS, WHOLE, KI, LATER, PREFIXED)
    reader = OpenR(path)
    found = list(reader.solutions())
    assert [(s.steps, labels(s)) for s in found] == [
        (["First,\n\n2 + 3 = 5. So"], [-1]), (["2 + 3 = 5.", "So 5."], [1, -1]), (["2", "3"], [1, -1]), (["2"], [0.25]),
    ]  # fmt: skip
    assert str(reader.left_out) == f"1 rows that begin with a later step ({path}:4)"
    assert {s.problem for s in found} == {"How many?"}
    assert len({s.id for s in found}) == 4
    split = next(iter(OpenR(path, multiline="split").solutions()))
    assert (split.steps, labels(split)) == (["First,", "2 + 3 = 5. So"], [None, -1])


def test_openr_as_a_json_array_and_with_a_tag_of_its_own(tmp_path):
    """As ``math_aps.json`` lies there, a byte order mark in front; lines under the same name are read as lines."""
    path = tmp_path / "math_aps.json"
    path.write_text("\ufeff" + json.dumps([WHOLE | {"process": "2 <s> 3 <s>"}], indent=2))
    (found,) = OpenR(str(path), step_tag="<s>").solutions()
    assert found.steps == ["2", "3"]
    assert said(OpenR(str(path))).startswith(f"{path}[0]: key 'label': expected 1 labels, one per step, got 2")
    written(path, WHOLE, KI)
    assert len(list(OpenR(str(path)).solutions())) == 2
    path.write_text("[{")
    assert said(OpenR(str(path))).startswith(f"{path}: not JSON (")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"label": ["+"]}, "key 'label': expected 2 labels, one per step, got 1"),
        ({"label": ["+", "?"]}, "key 'label[1]': expected '+', '-' or a number from 0 to 1, got '?'"),
        ({"label": ["+", 2]}, "key 'label[1]': expected a number from 0 to 1, got 2"),
        ({"process": 1}, "key 'process': expected a string, got 1"),
        ({"question": None}, "key 'question': expected a string, got None"),
    ],
)
def test_bad_rows_of_openr_are_named(tmp_path, changed, expected):
    path = written(tmp_path / "a.jsonl", WHOLE, WHOLE | changed)
    assert said(OpenR(path)) == f"{path}:2: {expected}"


# ── whole families of files ───────────────────────────────────────────────────────────────────────


def test_omegaprm_as_a_tree(tmp_path):
    """Two leaves after one step, whose value is in the first solution only; and a leaf of its own."""
    leaf = {"children": []}
    tree = {"text": "How many?", "mc_value": 0.5, "children": [
        {"text": "2 + 3", "mc_value": 0.75, "children": [
            {"text": "= 5", "mc_value": 1.0} | leaf, {"text": "= 6", "mc_value": 0.0} | leaf]},
        {"text": "So 7.", "mc_value": 0.25} | leaf]}  # fmt: skip
    row = {"question": "How many?", "final_answer": "5", "reasoning_steps": tree}
    path = written(tmp_path / "t.jsonl", row)
    found = list(OmegaPRM(path).solutions())
    assert [(s.steps, labels(s)) for s in found] == [
        (["2 + 3", "= 5"], [0.75, 1.0]), (["2 + 3", "= 6"], [None, 0.0]), (["So 7."], [0.25]),
    ]  # fmt: skip
    bad = json.loads(json.dumps(row))
    bad["reasoning_steps"]["children"][0]["children"][1]["mc_value"] = 2
    path = written(tmp_path / "t.jsonl", bad)
    assert said(OmegaPRM(path)) == (
        f"{path}:1: reasoning_steps.children[0].children[1]: key 'mc_value': expected a number from 0 to 1, got 2"
    )


@pytest.mark.parametrize("subset", ["gsm8k", "math", "olympiadbench", "omnimath"])
def test_the_four_subsets_of_processbench(tmp_path, subset):
    row = {
        "id": f"{subset}-12", "generator": "g", "problem": "?", "steps": ["a", "b"], "final_answer_correct": False,
        "label": 1,
    }  # fmt: skip
    (found,) = ProcessBench(written(tmp_path / "p.jsonl", row)).solutions()
    assert (found.problem_id, found.meta) == (f"processbench/{subset}-12", {"subset": subset, "row": f"{subset}-12"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gsm8k_007", "gsm8k/test/7"), ("math500_013", "math500/test/13"), ("aime24_3", "aime24/test/3")],
)
def test_the_subsets_of_strictprmbench(tmp_path, name, expected):
    candidate = {"answer": "5", "is_correct": True, "steps": ["a"], "step_scores": {"prm": [0.5]}}
    scores = written(
        tmp_path / "s.jsonl", {"problem_id": name, "question": "?", "ground_truth": "5", "candidates": [candidate]}
    )
    texts = written(tmp_path / "t.jsonl", {"problem_id": name, "candidates": [candidate]})
    (found,) = StrictPRMBench(texts, scores).solutions()
    assert (found.problem_id, found.scores) == (expected, {"prm": [0.5]})


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.5, "expected a probability from 0 to 1, got 1.5"), ("x", "expected a number, got 'x'")],
)
def test_scores_of_strictprmbench_that_are_none(tmp_path, value, expected):
    candidate = {"answer": "5", "is_correct": True, "steps": ["a"], "step_scores": {"prm": [value]}}
    row = {"problem_id": "gsm8k_1", "question": "?", "ground_truth": "5", "candidates": [candidate]}
    path = written(tmp_path / "s.jsonl", row)
    assert said(StrictPRMBench(path, path)).startswith(f"{path}:1: candidate 0: key 'step_scores.prm[0]': {expected}")


class Twice(Reader):
    """A reader of one's own that gives an id twice."""

    def problems(self):
        """None."""
        return iter(())

    def solutions(self):
        """Two of one id."""
        yield from [Solution(id="p#0", problem_id="p", problem="?", steps=["a"], answer="1")] * 2


def test_readers_that_give_an_id_twice_are_refused(tmp_path):
    with pytest.raises(InputError, match="Twice: solution id 'p#0' occurs twice"):
        convert(Twice(), tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="train: Twice: solution id 'p#0' occurs twice"):
        list(once(Twice().solutions(), "train: Twice"))


# ── real files ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_phase_1_of_prm800k_as_openr_has_it(data_folder):
    """All of MATH-500; single steps are left out but those that begin a solution."""
    whole = OpenR(str(data_folder / "prm800k/phase1_test_openr_multi-step.jsonl.gz"), math500="keep")
    solutions = list(whole.solutions())
    assert (len(solutions), dict(whole.left_out)) == (310, {})
    assert {rating for s in solutions for rating in labels(s)} == {1, -1}
    assert not any(step.startswith("Step") for s in solutions for step in s.steps)
    single = OpenR(str(data_folder / "prm800k/phase1_test_openr_single-step.jsonl.gz"), math500="keep")
    counts = Counter(len(s.steps) for s in single.solutions())
    assert counts.total() + single.left_out["rows that begin with a later step"] == 4441
    assert counts.keys() == {1}
    dropped = OpenR(whole.path)
    assert (list(dropped.solutions()), dict(dropped.left_out)) == ([], {"of MATH-500 problems": 310})
