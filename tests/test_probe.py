"""Linear probes of a frozen model's states, as `tests/benchmarks/bench_probe.py` fits them."""

import numpy as np
import pytest

pytest.importorskip("torch")

from stepverify.records import Solution
from stepverify.statistics import auroc_per_problem
from tests.benchmarks.bench_probe import probe


def solutions(rng, problems: int, each: int) -> list[Solution]:
    return [
        Solution(
            id=f"{p}#{i}", problem_id=str(p), problem="?", steps=["4"], correct=bool(rng.random() < 0.5),
        )
        for p in range(problems)
        for i in range(each)
    ]  # fmt: skip


def test_probes_find_a_direction_that_says_correct_on_problems_they_have_not_seen():
    """Coordinate 3 is four times the outcome and a level of the problem; the other eleven are noise."""
    rng = np.random.default_rng(0)
    known = solutions(rng, 60, 8)
    correct = np.array([s.correct for s in known])
    ids = np.array([int(s.problem_id) for s in known])
    states = rng.normal(size=(len(known), 12)).astype(np.float32)
    states[:, 3] = 4 * correct + rng.normal(size=60)[ids]
    scores = probe(states, known, [], [0.5])
    assert scores.keys() == {"outcomes", "pairs", "outcomes_50"}
    for name, values in scores.items():
        assert auroc_per_problem(values, correct, ids) > 0.97, name
        assert ((values >= 0) & (values <= 1)).all()


def test_probes_are_never_judged_on_what_they_learned_from():
    """One coordinate a problem, whose sign is the outcome by chance: within the half that learned it says all, outside nothing."""
    rng = np.random.default_rng(1)
    known = solutions(rng, 40, 6)
    correct = np.array([s.correct for s in known])
    ids = np.array([int(s.problem_id) for s in known])
    states = np.zeros((len(known), 40), np.float32)
    states[np.arange(len(known)), ids] = 2 * correct - 1
    scores = probe(states, known, [], [])
    for values in scores.values():  # other problems' coordinates were constant, and have no weight
        assert auroc_per_problem(values, correct, ids) == pytest.approx(0.5)
