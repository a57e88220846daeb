"""Searches of a generator with known step probabilities are as accurate as enumeration says."""

import math
from collections import Counter
from functools import cache
from itertools import pairwise, product

import pytest

from sampling.search import DVTS, MCTS, REBASE, BeamSearch, BestOfN, Lookahead, ParticleFiltering
from tests.helpers.searches import Valued, answers, explored, first_best, law, solved, value

NUMBER, FEWER = 400, 120
EVERY = [
    BestOfN(4), BeamSearch(4, 2), Lookahead(1, 4, 2), DVTS(4, 2), REBASE(4), ParticleFiltering(4), MCTS(20, 2),
    MCTS(20, 2, "rollout", "uniform", "value"),
]  # fmt: skip


def ended(steps):
    return bool(steps) and steps[-1].startswith("####")


def draws(steps, number):
    """All ordered draws of next prefixes, with their probabilities."""
    for drawn in product(law(steps).items(), repeat=number):
        yield [(*steps, step) for step, _ in drawn], math.prod(p for _, p in drawn)


@cache
def dvts(steps):
    """Probability that a subtree of width 2 ends with the correct answer."""
    return value(steps) if ended(steps) else sum(p * dvts(max(found, key=value)) for found, p in draws(steps, 2))


@cache
def beam(kept):
    """Probability that a beam of width 2, of which two are kept, ends with the correct answer."""
    going = [steps for steps in kept if not ended(steps)]
    if not going:
        return float(any(value(steps) == 1.0 for steps in kept))
    over = [steps for steps in kept if ended(steps)]
    total = 0.0
    for chosen in product(*(draws(steps, 2) for steps in going)):
        pool = over + [steps for found, _ in chosen for steps in found]
        total += math.prod(p for _, p in chosen) * beam(tuple(sorted(pool, key=lambda steps: -value(steps))[:2]))
    return total


def first_beam():
    return sum(p * beam(tuple(sorted(found, key=lambda s: -value(s))[:2])) for found, p in draws((), 4))


EXPECTED = {
    "best-of-4": (BestOfN(4), 1 - (1 - value(())) ** 4),
    "DVTS": (DVTS(4, 2), 1 - (1 - dvts(())) ** 2),
    "beam": (BeamSearch(4, 2, merge_duplicates=False), first_beam()),
}


def test_the_laws_differ():
    """0.267, 0.712, 0.847 and 0.874: plain sampling, best-of-4, DVTS and beam search can be told apart."""
    assert value(()) == pytest.approx(0.3**2 * 0.8 + 2 * 0.3 * 0.5 * 0.4 + 0.5**2 * 0.1)
    assert sum(answers().values()) == pytest.approx(1)
    expected = [value(()), *(accuracy for _, accuracy in EXPECTED.values())]
    assert expected == sorted(expected)
    assert min(b - a for a, b in pairwise(expected)) > 0.02


@pytest.mark.parametrize("name", EXPECTED)
def test_accuracy_with_an_oracle_is_that_of_enumeration(name):
    """Within 4 standard errors over 400 problems: 4 · √(p (1 - p) / 400) is at most 0.1."""
    strategy, expected = EXPECTED[name]
    found, _ = explored(strategy, NUMBER)
    share = sum(any(map(solved, f.nodes)) for _, f in found) / NUMBER
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / NUMBER)


@pytest.mark.parametrize("strategy", EVERY, ids=lambda s: type(s).__name__)
def test_a_constant_verifier_leaves_the_law_of_plain_sampling(strategy):
    """The first of equally good solutions, in the order of the tree, was chosen by no value: its law is the generator's.

    χ² over the 11 solutions, with 10 degrees of freedom, is above 29.6 with probability 0.001.
    """
    found, _ = explored(strategy, FEWER, scorer=Valued(lambda steps: 0.5))
    counts = Counter(first_best(f).steps for _, f in found)
    expected = answers()
    assert set(counts) <= set(expected)
    assert len(expected) == 11
    assert sum((counts[steps] - FEWER * p) ** 2 / (FEWER * p) for steps, p in expected.items()) < 29.6


def test_mcts_with_enough_simulations_finds_what_its_tree_holds():
    """Every branch is closed in the end, so the simulations stop by themselves, and none was spent twice on a leaf."""
    (tree, found), *_ = explored(MCTS(1000, 2))[0]
    assert tree.num_expansions < 100
    assert len({node.id for node in found.nodes}) == len(found.nodes)
    assert all(not node.is_open for node in found.nodes)
