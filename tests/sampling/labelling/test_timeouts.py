"""Comparisons that time out: kept with the records, counted over all runs of a stage, and warned of above 1 %."""

from typing import ClassVar

import pytest

from sampling.labelling.timeouts import Timeouts, count_rollouts, count_solutions
from sampling.stages import label as label_module
from sampling.stages.label import label
from stepverify.answers import Grader
from stepverify.jsonl import read_records, write_records
from stepverify.manifest import read_manifest
from stepverify.records import Rollout, Solution


class Slow(Grader):
    """Answers with an ``x`` time out; the third problem ends the run once."""

    ends: ClassVar = [True]

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


def test_completions_of_rollouts():
    rollout = Rollout(
        id="a", problem_id="p", steps=[], seed=1, completions=["1", "2", "3"], finish=["stop"] * 3, answers=["1", None, "y " * 99],
        correct=[True, False, False], tokens=3, timed_out=[2],
    )  # fmt: skip
    found = Timeouts("rollouts", 3.0)
    assert list(count_rollouts([rollout], found)) == [rollout]
    assert (found.count, found.total, found.example) == (1, 2, "a: " + "y " * 40 + "…")
