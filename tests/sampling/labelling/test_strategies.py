"""Which prefixes are completed, how often, and what is concluded: exact laws on trees of known values."""

import copy
import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.labelling.step_tree import build
from sampling.labelling.strategies import (
    BinarySearch,
    EarlyStop,
    Exhaustive,
    Paths,
    confidence_sequence,
    counted,
    informative,
)
from stepverify.records import InputError, StepLabel

HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)


def paths(solutions, passing=False):
    """``{"abc": True}``: a solution of three steps whose answer is correct."""
    root = build((name, list(name)) for name in solutions)
    return Paths(root, [(list(root.follow(name)), correct) for name, correct in solutions.items()], passing)


def node(problem, steps):
    return list(problem.root.follow(steps))[-1]


def asked(strategy, problem):
    return {"".join(n.steps()): number for n, number in strategy.ask(problem)}


def answer(problem, steps, correct, through=""):
    for r in correct:
        node(problem, steps).sampled += 1
        node(problem, steps).count(through, correct=r)


# ── how a tree counts ─────────────────────────────────────────────────────────────────────────────


def test_a_completion_counts_where_it_passes():
    """Of a: one that goes on by b, c and leaves the tree at d. A step further down that is alike is another prefix."""
    problem = paths({"abc": False, "xb": False})
    node(problem, "a").count("bcd", correct=True)
    node(problem, "a").count("xb", correct=False)
    assert {"".join(n.steps()): (n.correct, n.total) for n in problem.root.nodes()} == {
        "a": (1, 2), "ab": (1, 1), "abc": (1, 1), "x": (0, 0), "xb": (0, 0),
    }  # fmt: skip
    assert ["".join(n.steps()) for n in node(problem, "abc").ancestors()] == ["ab", "a"]


# ── exhaustive ────────────────────────────────────────────────────────────────────────────────────


def test_exhaustive_asks_for_everything_at_once():
    problem = paths({"ab": True, "ac": False})
    assert asked(Exhaustive(3), problem) == {"a": 3, "ab": 3, "ac": 3}
    assert next(iter(asked(Exhaustive(3), problem))) == "a"  # two solutions pass through it
    for steps in ("a", "ab", "ac"):
        answer(problem, steps, [True, False, False])
    assert asked(Exhaustive(3), problem) == {}
    assert Exhaustive(3).conclude(problem)(node(problem, "ab")) == StepLabel(num_correct=1, num_rollouts=3)


def test_exhaustive_with_passing_asks_for_what_is_missing_below():
    """Two of the three completions of a pass through b, one of these through c: 1 and then 1 more are missing there."""
    problem = paths({"abc": False}, passing=True)
    strategy = Exhaustive(3)
    assert asked(strategy, problem) == {"a": 3}
    answer(problem, "a", [True], "bc")
    answer(problem, "a", [False], "b")
    answer(problem, "a", [False], "x")
    assert asked(strategy, problem) == {"ab": 1}
    answer(problem, "ab", [True], "c")
    assert asked(strategy, problem) == {"abc": 1}
    answer(problem, "abc", [False])
    assert asked(strategy, problem) == {}
    assert [counted(node(problem, s)) for s in ("a", "ab", "abc")] == [
        StepLabel(num_correct=1, num_rollouts=3), StepLabel(num_correct=2, num_rollouts=3),
        StepLabel(num_correct=2, num_rollouts=3),
    ]  # fmt: skip


# What a completion of a prefix does: probability, the way it goes in the tree, whether it is correct. From a: by b or c
# with 1/2 each; from b correct with 1/2, from c with 1/4. So v(a) = 1/2 * 1/2 + 1/2 * 1/4 = 3/8.
LAW = {
    "a": [(HALF * HALF, "b", True), (HALF * HALF, "b", False), (HALF * QUARTER, "c", True), (HALF * 3 * QUARTER, "c", False)],
    "ab": [(HALF, "", True), (HALF, "", False)],
    "ac": [(QUARTER, "", True), (3 * QUARTER, "", False)],
}  # fmt: skip
VALUES = {"a": Fraction(3, 8), "ab": HALF, "ac": QUARTER}


def expected_shares(strategy, problem, probability=Fraction(1)):
    """Prefix → the expectation of correct / total, over everything that can be sampled."""
    asks = strategy.ask(problem)
    if not asks:
        return {"".join(n.steps()): probability * Fraction(n.correct, n.total) for n in problem.root.nodes()}
    draws = ["".join(n.steps()) for n, number in asks for _ in range(number)]
    total = dict.fromkeys(VALUES, Fraction(0))
    for outcome in product(*(LAW[steps] for steps in draws)):
        after = copy.deepcopy(problem)
        for steps, (_, through, correct) in zip(draws, outcome, strict=True):
            answer(after, steps, [correct], through if problem.passing else "")
        for key, share in expected_shares(strategy, after, probability * math.prod(c for c, *_ in outcome)).items():
            total[key] += share
    return total


@pytest.mark.parametrize("passing", [False, True])
def test_exhaustive_is_unbiased_with_and_without_passing_completions(passing):
    """The numbers sampled depend on where completions went, never on whether they were correct."""
    assert expected_shares(Exhaustive(2), paths({"ab": True, "ac": False}, passing)) == VALUES


def test_samples_count_without_bias_if_all_of_them_do():
    """Each of two samples of a, as sampled by the law, counts in the tree of both; one completion more a prefix.

    Only ``incorrect`` samples counted, v(a) would come out as 1/2 * 0 + 1/2 * 3/8 = 3/16, half the truth.
    """
    kept_all, kept_incorrect = dict.fromkeys(VALUES, Fraction(0)), Fraction(0)
    for (p, one, correct), (q, other, also) in product(LAW["a"], repeat=2):
        problem = paths({"ab": True, "ac": False})
        for way, outcome in ((one, correct), (other, also)):
            for n in problem.root.follow("a" + way):
                n.total, n.correct = n.total + 1, n.correct + outcome
        for key, share in expected_shares(Exhaustive(3), problem, p * q).items():
            kept_all[key] += share
    assert kept_all == VALUES
    for p, way, correct in LAW["a"]:
        problem = paths({"ab": True, "ac": False})
        if not correct:
            for n in problem.root.follow("a" + way):
                n.total += 1
            kept_incorrect += expected_shares(Exhaustive(2), problem, p / (1 - VALUES["a"]))["a"]
    assert kept_incorrect == VALUES["a"] / 2


def test_stopping_at_a_correct_one_is_biased_as_documented():
    """v = 1/2, two at most: correct at once 1/2 * 1, then 1/4 * 1/2, else 0: 5/8 instead of 1/2."""
    found = expected_shares(EarlyStop(max_rollouts=2, round_size=1), paths({"ab": True, "ac": False}))
    assert found["ab"] == Fraction(5, 8)


# ── early stop ────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(1, 8))
def test_early_stop_has_the_hard_labels_of_exhaustive(outcomes, round_size):
    """Drawing the same completions one after the other, it stops in the round that has the first correct one."""
    strategy, problem = EarlyStop(max_rollouts=8, round_size=round_size), paths({"a": False})
    a = node(problem, "a")
    while wanted := asked(strategy, problem).get("a"):
        answer(problem, "a", outcomes[a.sampled : a.sampled + wanted])
    assert (a.correct > 0) == any(outcomes)
    first = outcomes.index(True) + 1 if True in outcomes else 8
    assert a.sampled == min(8, -(-first // round_size) * round_size)


def test_early_stop_at_a_threshold():
    """Density 9 p^8 under 8 of 8 correct: at 1/2 it is 0.035, below 0.05, so the value is above 1/2; 7 of 7: 0.0625."""
    strategy, problem = EarlyStop(max_rollouts=40, threshold=0.5), paths({"a": False})
    answer(problem, "a", [True] * 7)
    assert not strategy.settled(node(problem, "a"))
    answer(problem, "a", [True])
    assert strategy.settled(node(problem, "a"))
    other = paths({"a": False})
    answer(other, "a", [False] * 8)
    assert strategy.settled(node(other, "a"))


def test_early_stop_at_a_width():
    strategy, problem = EarlyStop(max_rollouts=1000, width=0.5), paths({"a": False})
    while wanted := asked(strategy, problem).get("a"):
        answer(problem, "a", [True] * wanted)
    low, high = confidence_sequence(node(problem, "a").correct, node(problem, "a").total, 0.05)
    assert high - low <= 0.5
    assert node(problem, "a").total == 8  # 1 - 0.522; after 6 it is 1 - (0.05 / 7) ** (1 / 6) = 0.561


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_confidence_sequence_is_where_the_density_exceeds_the_error(correct, incorrect, error):
    low, high = confidence_sequence(correct, correct + incorrect, error)
    assert 0 <= low <= (correct / (correct + incorrect) if correct + incorrect else 0.5) <= high <= 1
    total = correct + incorrect

    def density(p):
        return (total + 1) * math.comb(total, correct) * p**correct * (1 - p) ** incorrect

    assert low == 0 or density(low) == pytest.approx(error, rel=1e-6)
    assert high == 1 or density(high) == pytest.approx(error, rel=1e-6)
    swapped = confidence_sequence(incorrect, total, error)
    assert swapped == pytest.approx((1 - high, 1 - low))


def test_the_confidence_sequence_holds_whenever_one_stops():
    """The probability that any of the first 40 intervals misses the true value, summed over all paths: at most the error."""
    for value in (0.1, 0.5, 0.8):
        alive, missed = {0: 1.0}, 0.0
        for total in range(1, 41):
            after: dict[int, float] = {}
            for correct, probability in alive.items():
                for more, p in ((1, value), (0, 1 - value)):
                    after[correct + more] = after.get(correct + more, 0.0) + probability * p
            alive = {}
            for correct, probability in after.items():
                low, high = confidence_sequence(correct, total, 0.1)
                if low <= value <= high:
                    alive[correct] = probability
                else:
                    missed += probability
        assert 0 < missed <= 0.1


# ── binary search ─────────────────────────────────────────────────────────────────────────────────


def search(strategy, problem, possible):
    """Answers every ask: correct if the prefix is among the ``possible`` ones. Gives the prefixes tried, in order."""
    tried = []
    while wanted := asked(strategy, problem):
        for steps, number in wanted.items():
            tried.append(steps)
            answer(problem, steps, [steps in possible] * number)
    return tried


def ratings(strategy, problem, steps):
    conclude = strategy.conclude(problem)
    labels = [conclude(n) for n in problem.root.follow(steps)]
    return [label and (label.rating or (1 if label.num_correct else -1)) for label in labels]


def test_binary_search_by_hand():
    """Seven steps, the fifth is the first incorrect one: d (possible), f (not), e (not): 3 prefixes of 7."""
    problem, strategy = paths({"abcdefg": False}), BinarySearch(num_rollouts=2, round_size=2)
    assert search(strategy, problem, {"a", "ab", "abc", "abcd"}) == ["abcd", "abcdef", "abcde"]
    assert ratings(strategy, problem, "abcdefg") == [1, 1, 1, 1, -1, -1, -1]
    conclude = strategy.conclude(problem)
    assert [conclude(node(problem, "abcdefg"[:end])) for end in (1, 4, 5, 7)] == [
        StepLabel(rating=1), StepLabel(num_correct=2, num_rollouts=2), StepLabel(num_correct=0, num_rollouts=2),
        StepLabel(rating=-1),
    ]  # fmt: skip


def test_a_correct_solution_needs_no_completion_and_proves_what_it_shares():
    problem, strategy = paths({"abc": True, "abd": False}), BinarySearch(num_rollouts=2)
    assert search(strategy, problem, {"a", "ab", "abc"}) == ["abd"]
    assert ratings(strategy, problem, "abc") == [1, 1, 1]
    assert ratings(strategy, problem, "abd") == [1, 1, -1]


@given(st.lists(st.text("ab", min_size=1, max_size=7), min_size=1, max_size=6, unique=True), st.data())
def test_binary_search_finds_every_first_error(solutions, data):
    """Where what can be completed is closed under shortening, as it is in truth, the verdicts are the truth."""
    problem = paths(dict.fromkeys(solutions, False))
    reach = data.draw(st.lists(st.sampled_from(solutions), max_size=3))
    possible = {s[:end] for s in reach for end in range(1, data.draw(st.integers(0, len(s))) + 1)}
    strategy = BinarySearch(num_rollouts=3, round_size=2)
    tried = search(strategy, problem, possible)
    for steps in solutions:
        assert ratings(strategy, problem, steps) == [1 if steps[: i + 1] in possible else -1 for i in range(len(steps))]
    # Never more prefixes than bisecting every solution alone; an incorrect one is tried in two rounds.
    assert len(set(tried)) <= sum(math.floor(math.log2(len(s))) + 1 for s in solutions)


# ── what is informative, and bad input ────────────────────────────────────────────────────────────


def test_what_is_shared_and_unknown_comes_first():
    """Variance of Beta(1, 1) is 1/12, of Beta(2, 2) 1/20; two solutions pass through a."""
    problem = paths({"ab": True, "ac": False})
    answer(problem, "ab", [True, False])
    assert [informative(node(problem, s)) for s in ("a", "ab", "ac")] == pytest.approx([2 / 12, 1 / 20, 1 / 12])
    assert list(asked(EarlyStop(threshold=0.5), problem)) == ["a", "ac", "ab"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exhaustive(0), "num_rollouts: expected >= 1, got 0"),
        (lambda: EarlyStop(round_size=0), "round_size: expected >= 1"),
        (lambda: EarlyStop(threshold=1.0), "threshold: expected a share"),
        (lambda: EarlyStop(width=0.2, threshold=0.5), "width: expected .* without a threshold"),
        (lambda: EarlyStop(error=0.0), "error: expected above 0"),
        (lambda: BinarySearch(num_rollouts=-1), "num_rollouts: expected >= 1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()
