"""The label stage: outcomes by grading, steps by rollouts over distinct prefixes, and that a kill changes neither."""

import json
import random
import sys

import pytest

from sampling.__main__ import main
from sampling.labelling import Exhaustive, Rollouts, SampleCounts, SyntheticOracle, VerifierScores
from sampling.stages.label import label
from stepverify.data.targets import StepTargets
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Solutions, Synthetic
from stepverify.records import InputError, Solution, StepLabel
from tests.helpers.kills import run_with_kills, yaml
from tests.helpers.labels import RIGHT, TEMPLATE, WRONG, KnownRollouts, labelled, solution

# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────


def test_outcomes_by_grading(tmp_path):
    found = labelled(
        tmp_path,
        [
            solution(0, ["2 + 3 = 5", "#### 5"]),
            solution(1, ["2 + 3 = 6", "#### 6"]),
            solution(2, ["I do not know"]),
            solution(3, ["2 + 3 = 5", "#### 5"], finish="length"),
            solution(4, []),
            solution(5, ["#### 5.0"]),
            solution(6, ["#### 4", "no:", "#### 5"]),
            solution(7, [r"It is $\boxed{\frac{10}{2}}$"]),
        ],
    )
    assert {s.id[-1]: (s.predicted, s.correct) for s in found.values()} == {
        "0": ("5", True),
        "1": ("6", False),
        "2": (None, False),
        "3": (None, False),  # cut off: what looks like the answer may go on
        "4": (None, False),
        "5": ("5.0", True),
        "6": ("5", True),
        "7": (r"\frac{10}{2}", True),
    }
    assert all(s.step_labels is None for s in found.values())
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    expected = {"solutions": 8, "correct": 4, "without_answer": 3, "cut_off": 1, "labelled_steps": 0}
    assert {key: summary[key] for key in expected} == expected


def test_what_is_counted(tmp_path, capsys):
    """Problem 0: correct, correct again in the same words, incorrect. Problem 1 has no correct one, 2 no incorrect one."""
    rows = [
        solution(0, ["#### 5"], generator="a", correct=True), solution(1, ["#### 5"], generator="b", correct=False),
        solution(2, ["#### 6"], generator="b"),
        solution(0, ["#### 6"], "p/1", generator="b"), solution(0, ["#### 5"], "p/2", generator="a", correct=True),
    ]  # fmt: skip
    labelled(tmp_path, rows)
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    expected = {
        "duplicates": 1, "problems": 3, "problems_without_correct": 1, "problems_without_incorrect": 1,
        "changed_verdicts": ["p/0#1"],
        "by_generator": {"a": {"solutions": 2, "correct": 2}, "b": {"solutions": 3, "correct": 1}},
    }  # fmt: skip
    assert {key: summary[key] for key in expected} == expected
    printed = capsys.readouterr().out
    assert "problems 3, problems without correct 1, problems without incorrect 1" in printed
    assert "b: 1 of 3 correct, 33.33 %" in printed
    assert "verdicts of the input that have changed: 1" in printed


@pytest.mark.parametrize(
    ("answer_fallback", "expected"),
    [("no_answer", [None, "5"]), ("last_number", ["8", "5"]), ("conclusion", ["5", "5"])],
)
def test_answers_that_are_not_stated(tmp_path, answer_fallback, expected):
    rows = [solution(0, ["10 / 2 = $5", "It takes 5 days to save $8."]), solution(1, ["#### 5", "of 9"])]
    write_records(tmp_path / "in.jsonl", rows)
    label(tmp_path / "in.jsonl", tmp_path / "out", answer_fallback=answer_fallback)
    assert [s.predicted for s in read_records(tmp_path / "out", Solution)] == expected


def test_a_reader_in_the_place_of_a_folder(tmp_path):
    """Another content is another input, as it is with folders; so is another reader."""
    write_records(tmp_path / "in.jsonl", [solution(0, ["#### 5"])])
    reader = Solutions(str(tmp_path / "in.jsonl"))
    label(reader, tmp_path / "out")
    assert [s.correct for s in read_records(tmp_path / "out", Solution)] == [True]
    label(reader, tmp_path / "out")
    write_records(tmp_path / "in.jsonl", [solution(0, ["#### 6"])])
    with pytest.raises(InputError, match=r"was made with config\.input\.sha256"):
        label(reader, tmp_path / "out")


def test_labelling_keeps_everything_else(tmp_path):
    given_record = solution(0, ["#### 5"], token_ids=[1, 2], seed=9, generator="g", meta={"a": 1}, scores={"x": [0.5]})
    (found,) = labelled(tmp_path, [given_record]).values()
    given_record.predicted, given_record.correct = "5", True
    assert found == given_record


@pytest.mark.parametrize(
    ("solutions", "message"),
    [
        ([solution(0, ["#### 5"]), solution(1, ["x"], answer=None)], "p/0#1: its problem has no reference answer"),
        ([solution(0, ["#### 5"]), solution(0, ["x"])], "in.jsonl:2: id 'p/0#0' occurs in .*in.jsonl:1 already"),
        ([solution(0, ["#### 5"]), solution(1, ["x"], answer="6")], "p/0#1: answer '6', but p/0#0 has '5'"),
    ],
)
def test_answers_that_cannot_be_graded(tmp_path, solutions, message):
    with pytest.raises(InputError, match=message):
        labelled(tmp_path, solutions)
    assert not (tmp_path / "out").exists()


# ── the oracle ────────────────────────────────────────────────────────────────────────────────────


def test_oracle_judges_every_step(tmp_path):
    """The worked solution is correct throughout; with its first step changed, that step alone is incorrect."""
    (problem,) = Synthetic("test", 1).problems()
    incorrect = ["b = 1 + 1 = 3", *problem.steps[1:]]
    solutions = [Solution.of(problem, i, steps, finish="stop") for i, steps in enumerate((problem.steps, incorrect))]
    found = labelled(tmp_path, solutions, SyntheticOracle())
    n = len(problem.steps)
    assert [s.step_labels for s in found.values()] == [[RIGHT] * n, [WRONG, *[RIGHT] * (n - 1)]]
    assert [s.correct for s in found.values()] == [True, True]


def test_oracle_refuses_other_problems(tmp_path):
    with pytest.raises(InputError, match="solution p/0#0: its problem is not synthetic"):
        labelled(tmp_path, [solution(0, ["#### 5"])], SyntheticOracle())


# ── samples as completions of their own prefixes ──────────────────────────────────────────────────


def test_steps_are_labelled_by_the_samples_that_begin_with_them(tmp_path):
    """Of three samples that begin with a one is correct, of two that go on with b one; d is of another problem."""
    rows = [
        solution(0, ["a", "b", "#### 5"]), solution(1, ["a", "c", "#### 6"]), solution(2, ["a", "b", "#### 6"]),
        solution(3, ["b", "#### 5"]), solution(0, ["a", "#### 6"], "p/1"), solution(4, []),
    ]  # fmt: skip
    found = labelled(tmp_path, rows, SampleCounts())
    counts = {s.id: [(x.num_correct, x.num_rollouts) for x in s.step_labels] for s in found.values()}
    assert counts == {
        "p/0#0": [(1, 3), (1, 2), (1, 1)], "p/0#1": [(1, 3), (0, 1), (0, 1)], "p/0#2": [(1, 3), (1, 2), (0, 1)],
        "p/0#3": [(1, 1), (1, 1)], "p/1#0": [(0, 1), (0, 1)], "p/0#4": [],
    }  # fmt: skip


# ── a verifier's values as labels ─────────────────────────────────────────────────────────────────


def test_the_values_of_a_verifier_are_labels(tmp_path):
    """The first two of three are labelled; the second was too long to be scored. At 0.8 a value of 0.8 is incorrect."""
    values = {0: [0.9, 0.8], 1: [], 2: [0.1, 0.2]}
    rows = [solution(i, ["a", "#### 5"], scores={"prm": v, "orm": [0.5]}) for i, v in values.items()]
    found = labelled(tmp_path, rows, VerifierScores("prm", max_solutions=2))
    assert [s.step_labels for s in found.values()] == [[StepLabel(value=0.9), StepLabel(value=0.8)], None, None]
    assert StepTargets(monte_carlo="threshold", threshold=0.8).of(found["p/0#0"]) == [1.0, 0.0]
    assert StepTargets(monte_carlo="soft").of(found["p/0#0"]) == [0.9, 0.8]


def test_the_means_of_several_verifiers_are_labels(tmp_path):
    """(0.9 + 0.5) / 2 = 0.7 and (0.2 + 0.4) / 2 = 0.3; the second solution was too long for one of them."""
    values = [{"a": [0.9, 0.2], "b": [0.5, 0.4]}, {"a": [0.9, 0.2], "b": []}]
    rows = [solution(i, ["a", "#### 5"], scores=scores) for i, scores in enumerate(values)]
    found = [s.step_labels for s in labelled(tmp_path, rows, VerifierScores(["a", "b"])).values()]
    assert [label.value for label in found[0]] == pytest.approx([0.7, 0.3])
    assert found[1] is None
    with pytest.raises(InputError, match="verifier: expected a name or several"):
        VerifierScores([])


@pytest.mark.parametrize("scores", [{}, {"prm": [0.5]}, {"orm": [0.5, 0.5]}])
def test_a_verifier_that_does_not_judge_steps_labels_none(tmp_path, scores):
    with pytest.raises(InputError, match="solution p/0#0: no score by 'prm' with a value for each step"):
        labelled(tmp_path, [solution(0, ["a", "#### 5"], scores=scores)], VerifierScores("prm"))
    with pytest.raises(InputError, match="max_solutions: expected >= 1 or null, got 0"):
        VerifierScores("prm", max_solutions=0)


# ── killed ────────────────────────────────────────────────────────────────────────────────────────

CHILD = """
import sys, time
from pathlib import Path
from sampling.labelling import Exhaustive, Rollouts
from sampling.stages.label import label
from tests.helpers.labels import TEMPLATE, KnownRollouts
class Slow(KnownRollouts):
    capacity = 4
    async def complete(self, request, options):
        time.sleep(0.005)
        return await super().complete(request, options)
engine = Slow({"A": ["#### 5"], "B": ["#### 5", "#### 4"]})
label(Path(sys.argv[1]), Path(sys.argv[2]), Rollouts(engine, strategy=Exhaustive(4), template=TEMPLATE))
"""


def test_sigkill_at_random_moments_loses_and_doubles_nothing(tmp_path):
    solutions = [
        solution(i, [*step, "#### 5"], f"p/{p}") for p in range(50) for i, step in enumerate(("A", "AB", "B", ""))
    ]
    known = KnownRollouts({"A": ["#### 5"], "B": ["#### 5", "#### 4"]})
    whole = labelled(tmp_path, solutions, Rollouts(known, strategy=Exhaustive(4), template=TEMPLATE))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "in.jsonl"), str(tmp_path / "killed")]
    assert run_with_kills(command, tmp_path / "killed", len(solutions), kills=3, rng=random.Random(3)) >= 2
    found = list(read_records(tmp_path / "killed", Solution))
    assert len(found) == 200
    assert {s.id: s for s in found} == whole


@pytest.mark.slow
def test_sigkill_of_the_program_with_a_real_network(tiny_model_dir, tmp_path):
    """A batch is the rollouts of one prefix, so an interrupted run computes the very same batches."""
    main(["generate", "--config", yaml(tmp_path / "g.yaml", tiny_model_dir, tmp_path / "sampled", num_problems=24)])
    sampled = list(read_records(tmp_path / "sampled", Solution))
    for s in sampled:  # random text is one line: make steps of it
        words = s.steps[0].split(" ") if s.steps else []
        s.steps = [" ".join(words[at : at + 4]) for at in range(0, len(words), 4)]
    write_records(tmp_path / "in.jsonl", sampled)
    config = tmp_path / "l.yaml"
    config.write_text(f"""
input: {tmp_path / "in.jsonl"}
steps:
  class_path: sampling.labelling.Rollouts
  init_args:
    engine:
      class_path: sampling.engines.TransformersEngine
      init_args: {{ model: {tiny_model_dir}, device: cpu, batch_size: 2 }}
    strategy: {{ class_path: sampling.labelling.Exhaustive, init_args: {{ num_rollouts: 2 }} }}
    sampling: {{ temperature: 1.0, max_tokens: 12 }}
""")
    arguments = ["label", "--config", str(config), "--output"]
    main([*arguments, str(tmp_path / "whole")])
    command = [sys.executable, "-m", "sampling", *arguments, str(tmp_path / "killed")]
    assert run_with_kills(command, tmp_path / "killed", len(sampled), kills=3, rng=random.Random(4)) >= 2
    expected = {s.id: s for s in read_records(tmp_path / "whole", Solution)}
    found = list(read_records(tmp_path / "killed", Solution))
    assert len(found) == len(expected) == 72
    assert {s.id: s for s in found} == expected
    assert any(x and x.num_rollouts for s in found for x in s.step_labels)
