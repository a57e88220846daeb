"""Solutions are read twice, problem by problem: only problems that have begun are held."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.labelling.label_statistics import count
from sampling.labelling.outcomes import Survey
from sampling.runtime.problem_shard import ProblemShard
from stepverify.jsonl import write_records
from stepverify.readers import Reader
from stepverify.records import InputError, StepLabel
from tests.helpers.labels import solution

WHOLE = ProblemShard()


class Read(Reader):
    """A reader of solutions in memory; remembers how many were read."""

    def __init__(self, solutions):
        self.given, self.read = solutions, 0

    def problems(self):
        raise NotImplementedError

    def solutions(self):
        for s in self.given:
            self.read += 1
            yield s


def made(*problems):
    """A solution of each problem in turn."""
    return [solution(i, [f"step {i % 2}"], f"p/{number}") for i, number in enumerate(problems)]


@given(problems=st.lists(st.integers(0, 5), min_size=1), of=st.integers(1, 3))
@settings(deadline=None)
def test_groups_hold_all_solutions_of_a_problem_in_any_order(problems, of):
    source, shard = Read(made(*problems)), ProblemShard(1, of)
    survey = Survey(source, shard)
    wanted = [s for s in source.given if s.problem_id in shard]
    assert survey.total == len(wanted)
    groups = {group[0].problem_id: group for group in survey.groups(lambda problem_id: problem_id in shard)}
    assert groups == {
        problem: [s for s in wanted if s.problem_id == problem] for problem in {s.problem_id for s in wanted}
    }
    assert survey.size("p/9") == 0


def test_nothing_is_read_ahead():
    """A problem of two solutions is there once these are read, and no third."""
    source = Read(made(0, 0, 1, 1, 2, 2))
    survey = Survey(source, WHOLE)
    source.read = 0
    groups = survey.groups(lambda _: True)
    for number in (1, 2, 3):
        assert len(next(groups)) == 2
        assert source.read == 2 * number


def test_a_source_that_changes_in_between_is_refused():
    source = Read(made(0, 0, 1))
    survey = Survey(source, WHOLE)
    source.given = made(0, 1, 1)
    with pytest.raises(InputError, match=r"^Read: was changed while it was read; run the stage again$"):
        list(survey.groups(lambda _: True))


def test_two_answers_of_a_problem_are_named(tmp_path):
    write_records(tmp_path / "s.jsonl", [solution(0, ["x"]), solution(1, ["x"], "p/1"), solution(2, ["x"], answer="6")])
    with pytest.raises(InputError) as caught:
        Survey(tmp_path / "s.jsonl", WHOLE)
    assert str(caught.value) == f"{tmp_path / 's.jsonl'}: solution p/0#2: answer '6', but p/0#0 has '5'"


@given(order=st.permutations(range(6)))
@settings(deadline=None)
def test_counts_do_not_depend_on_the_order(order):
    """Problem 0: two correct of two, twice the same step. Problem 1: none of three. Problem 2: one, with a verdict that
    has changed, and labels of 3 of 4 rollouts."""
    solutions = [
        solution(0, ["a"]), solution(1, ["a "]), solution(0, ["a"], "p/1"), solution(1, ["b"], "p/1"),
        solution(2, ["c"], "p/1"), solution(0, ["a"], "p/2", correct=False),
    ]  # fmt: skip
    survey = Survey(Read([solutions[i] for i in order]), WHOLE)
    for s, correct in zip(solutions, (True, True, False, False, False, True), strict=True):
        s.correct, s.predicted = correct, "5"
    solutions[5].step_labels = [StepLabel(num_correct=3, num_rollouts=4)]
    assert count((solutions[i] for i in order), survey) == {
        "solutions": 6, "correct": 3, "without_answer": 0, "cut_off": 0, "duplicates": 1, "labelled_steps": 1,
        "rollouts": 4, "correct_rollouts": 3, "problems": 3, "problems_without_correct": 1,
        "problems_without_incorrect": 2, "changed_verdicts": ["p/2#0"],
    }  # fmt: skip
