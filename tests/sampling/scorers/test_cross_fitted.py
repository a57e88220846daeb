"""Verifiers that were trained on parts of the problems: which of them scores what."""

import asyncio

import pytest

from sampling.engines.base import Usage
from sampling.scorers import CrossFitted, Scorer
from sampling.scorers.trained import say_trained
from stepverify.readers.released import digest
from stepverify.records import InputError
from stepverify.training_problems import write_training_problems


class Constant(Scorer):
    """Gives every step its value, and nothing to solutions of more than three steps."""

    def __init__(self, export, value, objective="process"):
        self.export, self.value, self.objective, self.usage = export, value, objective, Usage()
        self.asked = []

    def identity(self):
        return {"value": self.value}

    async def score(self, solutions):
        self.asked.append([s.id for s in solutions])
        for _ in solutions:
            self.usage.count(10, 4)
        return [[self.value] * len(s.steps) if len(s.steps) <= 3 else [] for s in solutions]


@pytest.fixture
def trained(tmp_path):
    """A verifier of a value that was trained on problems by their texts."""

    def make(value, texts, **more):
        folder = tmp_path / f"{value}"
        folder.mkdir()
        write_training_problems(folder, [digest(text) for text in texts])
        return Constant(str(folder), value, **more)

    return make


def test_a_problem_is_scored_by_those_it_is_new_to(trained, make_solution):
    """Trained on a and b, on b and c: c by the first, a by the second, d by both: the mean of 0.2 and 0.6."""
    first, second = trained(0.2, "ab"), trained(0.6, "bc")
    scorer = CrossFitted([first, second])
    given = [make_solution(number=i, problem=text, steps=["x", "y"]) for i, text in enumerate("acd")]
    given.append(make_solution(number=3, problem="d", steps=["x"] * 4))
    found = asyncio.run(scorer.score(given))
    assert found[:2] == [[0.6, 0.6], [0.2, 0.2]]
    assert found[2] == pytest.approx([0.4, 0.4])
    assert found[3] == []
    assert first.asked == [["p/1#0", "p/2#0", "p/3#0"]]
    assert second.asked == [["p/0#0", "p/2#0", "p/3#0"]]
    assert (scorer.usage.prompt_tokens, scorer.usage.cached_tokens) == (60, 24)
    assert (scorer.objective, scorer.export) == ("process", first.export)
    assert scorer.identity() == {"scorer": "cross_fitted", "verifiers": [{"value": 0.2}, {"value": 0.6}]}


def test_a_problem_that_all_were_trained_on_is_refused_before_anything_is_scored(trained, make_solution, capsys):
    scorer = CrossFitted([trained(0.2, "ab"), trained(0.6, "bc")])
    expected = "^problem p/7: every one of the verifiers was trained on it$"
    with pytest.raises(InputError, match=expected):
        asyncio.run(scorer.score([make_solution(number=7, problem="b")]))
    with pytest.raises(InputError, match=expected):
        say_trained({"prm": scorer}, {digest("a"): "p/0", digest("b"): "p/7"})
    assert say_trained({"prm": scorer}, {digest("a"): "p/0"}) == {"prm": {"problems": 0, "of": 1, "first": None}}
    assert capsys.readouterr().out == ""


def test_verifiers_that_do_not_fit_together(trained, tmp_path):
    with pytest.raises(InputError, match=r"^verifiers: expected two or more that were trained on parts, got 1$"):
        CrossFitted([trained(0.2, "a")])
    with pytest.raises(InputError, match=r"^verifiers: expected verifiers of one kind, got outcome, process$"):
        CrossFitted([trained(0.3, "a"), trained(0.4, "b", objective="outcome")])
    with pytest.raises(InputError, match="none does not say which problems it was trained on"):
        CrossFitted([trained(0.5, "a"), Constant(str(tmp_path / "none"), 0.1)])
