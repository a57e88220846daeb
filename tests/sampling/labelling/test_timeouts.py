"""Comparisons that time out: kept with the records, counted over all runs of a stage, and warned of above 1 %."""

import json
from typing import ClassVar

import pytest

from sampling.labelling.answer_fallback import Unstated
from sampling.labelling.outcomes import count_unstated
from sampling.labelling.timeouts import Timeouts, count_rollouts, count_solutions
from sampling.stages import grade as grade_module
from sampling.stages import label as label_module
from sampling.stages.label import label
from stepverify.answers import Extracted, Grader
from stepverify.jsonl import read_records, write_records
from stepverify.manifest import read_manifest
from stepverify.records import Rollout, Solution


class Slow(Grader):
    """Texts with a ``?`` and answers with an ``x`` time out; the third problem ends the run once."""

    ends: ClassVar = [True]

    def extract(self, texts, fallback="no_answer"):
        texts = list(texts)
        found = super().extract(texts, fallback)
        return [Extracted(None, timed_out=True) if "?" in t else f for t, f in zip(texts, found, strict=True)]

    def grade(self, pairs):
        pairs = list(pairs)
        if any(gold == "2" for gold, _ in pairs) and self.ends:
            self.ends.clear()
            raise KeyboardInterrupt
        return [None if "x" in (predicted or "") else gold == predicted for gold, predicted in pairs]


def solution(problem, sample, answer, **known):
    return Solution(
        id=f"p/{problem}#{sample}", problem_id=f"p/{problem}", problem="?", steps=[f"#### {answer}"], answer=str(problem),
        finish="stop", **known,
    )  # fmt: skip


def test_those_of_an_earlier_run_stay_counted(tmp_path, monkeypatch, capsys):
    """The first run labels two problems, with one timeout, and is stopped; the second finds one more."""
    monkeypatch.setattr(label_module, "Grader", Slow)
    monkeypatch.setattr(label_module, "_PROBLEMS", 1)
    answers = [(0, 0, "0"), (0, 1, "x"), (1, 0, "1"), (2, 0, "x + 1"), (2, 1, "2")]
    given = [solution(*a, timed_out=True) for a in answers]  # an earlier grading had less time
    write_records(tmp_path / "in.jsonl", given)
    with pytest.raises(KeyboardInterrupt):
        label(tmp_path / "in.jsonl", tmp_path / "out")
    assert capsys.readouterr().err.count("warning") == 0
    label(tmp_path / "in.jsonl", tmp_path / "out", time_limit=3.0)
    assert read_manifest(tmp_path / "out" / "manifest.json")["summary"]["grading_timeouts"] == 2
    found = {s.id: (s.correct, s.timed_out) for s in read_records(tmp_path / "out", Solution)}
    assert found == {
        "p/0#0": (True, False), "p/0#1": (False, True), "p/1#0": (True, False), "p/2#0": (False, True), "p/2#1": (True, False),
    }  # fmt: skip
    assert (
        "warning: 2 of 5 solutions with an answer (40.0%) were not graded within 3 s of CPU time; they count as incorrect; "
        "a larger `time_limit` grades more. For example p/0#1: x\n"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(("late", "warned"), [(1, False), (2, True)])
def test_more_than_one_in_a_hundred(late, warned, capsys):
    """Of 100 with an answer, beside 50 without one."""
    found = Timeouts("solutions", 0.5)
    solutions = [solution(0, i, i, predicted=str(i) if i < 100 else None, timed_out=i < late) for i in range(150)]
    assert list(count_solutions(solutions, found)) == solutions
    assert (found.count, found.total) == (late, 100)
    found.warn("they have no verdict")
    assert (
        "2 of 100 solutions with an answer (2.0%) were not graded within 0.5 s" in capsys.readouterr().err
    ) is warned


@pytest.mark.parametrize("answer_fallback", ["no_answer", "last_number"])
def test_a_solution_that_is_not_read_in_time(tmp_path, monkeypatch, capsys, answer_fallback):
    """Three of four state an answer, of which one is late to read and one late to compare; the fourth states none."""
    monkeypatch.setattr(label_module, "Grader", Slow)
    answers = [(0, 0, "0"), (0, 1, "?"), (0, 2, "x"), (0, 3, "")]
    write_records(tmp_path / "in.jsonl", [solution(*a) for a in answers])
    label(tmp_path / "in.jsonl", tmp_path / "out", answer_fallback=answer_fallback)
    found = [(s.predicted, s.correct, s.timed_out) for s in read_records(tmp_path / "out", Solution)]
    assert found == [("0", True, False), (None, False, True), ("x", False, True), (None, False, False)]
    summary = read_manifest(tmp_path / "out" / "manifest.json")["summary"]
    assert (summary["grading_timeouts"], summary["without_answer"], summary["unstated"]) == (2, 2, 1)
    said = capsys.readouterr().err
    assert "warning: 2 of 3 solutions with an answer (66.7%) were not graded within 3 s of CPU time" in said
    assert "For example p/0#1: its text was not read\n" in said


def test_records_say_which_state_no_answer(tmp_path):
    """Without a fallback nothing is read again, so no grader is needed."""
    known = [("0", False), (None, True), (None, False), (None, False)]
    solutions = [solution(0, i, i, predicted=p, timed_out=late) for i, (p, late) in enumerate(known)]
    solutions[3].finish = "length"
    found = Unstated("solutions")
    assert list(count_unstated(solutions, found, None)) == solutions
    assert (found.count, found.total) == (1, 4)


def test_lines_that_are_not_read_in_time(tmp_path, monkeypatch, capsys):
    """Of four lines with whole solutions one is not read and one not compared in time: both have no verdict."""
    monkeypatch.setattr(grade_module, "Grader", Slow)
    rows = [{"id": str(i), "gold": "0", "pred": f"#### {answer}"} for i, answer in enumerate(("0", "?", "x", ""))]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grade_module.grade(tmp_path / "in.jsonl", tmp_path / "out.jsonl", solutions=True)
    said = capsys.readouterr()
    assert [json.loads(line)["correct"] for line in (tmp_path / "out.jsonl").open()] == [True, None, None, False]
    assert "4 pairs, 1 correct (25.0%), 1 with no answer, 2 timed out" in said.out
    assert "warning: 1 of 4 solutions (25.0%) state no recognisable answer" in said.err
    assert "warning: 2 of 3 pairs with an answer (66.7%) were not graded" in said.err


def test_completions_of_rollouts():
    rollout = Rollout(
        id="a", problem_id="p", steps=[], seed=1, completions=["1", "2", "3"], finish=["stop"] * 3, answers=["1", None, "y " * 99],
        correct=[True, False, False], tokens=3, timed_out=[2],
    )  # fmt: skip
    found = Timeouts("rollouts", 3.0)
    assert list(count_rollouts([rollout], found)) == [rollout]
    assert (found.count, found.total, found.example) == (1, 2, "a: " + "y " * 40 + "…")
