"""Step labels as RLHFlow and OpenR publish them."""

import json
from collections import Counter

import pytest

from stepverify.readers import (
    OpenR,
    RLHFlow,
)
from tests.helpers.readers import known, labels, said, written

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
