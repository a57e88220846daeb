"""Best-of-N, votes and pass@k by hand, by laws, and as means over all subsets."""

import itertools
from math import comb
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.selection.estimators import best_of_n, pass_at_k, top_k_votes, vote

SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.1, 0.5, 0.5, 0.9]), st.sampled_from([None, 0, 1, 2]), st.booleans()),
    min_size=1, max_size=7,
)  # fmt: skip


def test_best_of_n_by_hand():
    """Scores 3, 2, 1, of which only the middle one is correct.

    N = 1: 1/3. N = 2: of {3,2}, {3,1}, {2,1} only the last one picks it: 1/3. N = 3: 0.
    """
    assert best_of_n([3, 2, 1], [False, True, False], [1, 2, 3]) == pytest.approx([1 / 3, 1 / 3, 0])


def test_best_of_n_picks_among_equals_with_equal_probability():
    """Two best of equal score, one correct, before an incorrect one: at N = 3 the probability is 1/2.

    N = 2: {correct, equal} 1/2, {correct, low} 1, {equal, low} 0: a mean of 1/2. Without scores all are equal.
    """
    assert best_of_n([2, 2, 1], [True, False, False], [2, 3]) == pytest.approx([0.5, 0.5])
    assert best_of_n([float("-inf")] * 4, [True, False, False, False], [1, 3, 4]) == pytest.approx([0.25] * 3)


@given(SAMPLES)
@settings(deadline=None)
def test_best_of_n_is_the_mean_over_all_subsets(samples):
    sizes = range(1, len(samples) + 1)
    expected = []
    for n in sizes:
        probabilities = []
        for subset in itertools.combinations(samples, n):
            top = max(score for score, _, _ in subset)
            probabilities.append(mean(float(correct) for score, _, correct in subset if score == top))
        expected.append(mean(probabilities))
    assert best_of_n([s[0] for s in samples], [s[2] for s in samples], sizes) == pytest.approx(expected)


def test_best_of_n_is_stable_for_many_samples():
    """2,000 samples, correct but for the best one: it is in a subset with probability N / M, so 1 - N / 2000 is left.

    C(2000, 1000) has 601 digits; no double holds it.
    """
    curve = best_of_n(range(2000), [True] * 1999 + [False], [1, 10, 1000, 2000])
    assert curve == pytest.approx([1 - 1 / 2000, 1 - 10 / 2000, 0.5, 0.0], abs=1e-9)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
@settings(deadline=None)
def test_pass_at_k_is_the_ratio_of_binomials(counts):
    n, c, k = counts
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
@settings(deadline=None)
def test_the_oracle_is_best_of_n_by_the_truth(correct):
    """Scores that put correct above incorrect find a correct one wherever there is one."""
    sizes = range(1, len(correct) + 1)
    oracle = [pass_at_k(len(correct), sum(correct), n) for n in sizes]
    assert best_of_n(correct, correct, sizes) == pytest.approx(oracle)


def test_votes_by_hand():
    """Answers A, A, B, none; A is correct. N = 1: 2 of 4. N = 4: A has 2 votes of 3.

    N = 2, of six pairs: AA 1, AB 1/2 (twice), A- 1 (twice), B- 0: (1 + 1 + 2) / 6 = 2/3.
    With weights 1, 1, 3: B wins at N = 4 with 3 against 2.
    """
    classes, correct = [0, 0, 1, None], [True, True, False, False]
    curve = vote(classes, correct, [1, 2, 4], num_subsets=20_000, seed=1)
    assert curve[[0, 2]].tolist() == [0.5, 1.0]
    assert curve[1] == pytest.approx(2 / 3, abs=0.02)  # six standard errors
    assert vote(classes, correct, [4], [1, 1, 3, 9]).tolist() == [0.0]


def test_vote_splits_ties_and_needs_a_voter():
    """Three classes of one vote each, one correct: 1/3. Sums 0.1 + 0.2 and 0.3 differ in the last bit only."""
    assert vote([0, 1, 2], [True, False, False], [3]) == pytest.approx([1 / 3])
    assert vote([0, 0, 1], [True, True, False], [3], [0.1, 0.2, 0.3]) == pytest.approx([0.5])
    assert vote([None, None], [True, True], [1, 2]).tolist() == [0.0, 0.0]
    assert vote([0, 0, 1], [True, True, False], [3], [0.0, 0.0, 0.0]) == pytest.approx([0.5]), "no weight is a vote"


@given(SAMPLES, st.booleans())
@settings(deadline=None)
def test_vote_nears_the_mean_over_all_subsets(samples, weighted):
    """With 4,000 subsets a standard error is at most 0.008; exact at N = 1 and N = M."""
    correct_class = 1
    classes, correct = [s[1] for s in samples], [s[1] == correct_class for s in samples]
    weights = [s[0] if weighted else 1.0 for s in samples]
    sizes = list(range(1, len(samples) + 1))
    expected = []
    for n in sizes:
        probabilities = []
        for subset in itertools.combinations(range(len(samples)), n):
            sums = {}
            for i in subset:
                if classes[i] is not None:
                    sums[classes[i]] = sums.get(classes[i], 0.0) + weights[i]
            winners = [c for c, total in sums.items() if total > max(sums.values()) - 1e-9]
            probabilities.append(mean(c == correct_class for c in winners) if winners else 0.0)
        expected.append(mean(probabilities))
    curve = vote(classes, correct, sizes, weights if weighted else None, num_subsets=4000)
    assert curve == pytest.approx(expected, abs=0.05)
    assert curve[[0, -1]] == pytest.approx([expected[0], expected[-1]])


@given(SAMPLES, st.floats(0.1, 100), st.integers(0, 9))
@settings(deadline=None)
def test_vote_depends_on_ratios_of_weights_only(samples, factor, seed):
    classes, correct, weights = [s[1] for s in samples], [s[2] for s in samples], [s[0] for s in samples]
    sizes = range(1, len(samples) + 1)
    curve = vote(classes, correct, sizes, weights, num_subsets=20, seed=seed)
    scaled = vote(classes, correct, sizes, [w * factor for w in weights], num_subsets=20, seed=seed)
    equal = vote(classes, correct, sizes, [factor] * len(samples), num_subsets=20, seed=seed)
    assert curve == pytest.approx(scaled)
    assert equal == pytest.approx(vote(classes, correct, sizes, num_subsets=20, seed=seed))


def test_top_k_votes_by_hand():
    """Scores 5 to 1 of answers A, B, B, none, A, of which A is correct; all five are looked at.

    k = 1: A. k = 2: A, B equal: 1/2. k = 3: B of A, B, B. k = 4: the fourth is no vote. k = 5: two votes each, 1/2.
    """
    classes, correct = [0, 1, 1, None, 0], [True, False, False, False, True]
    curves = top_k_votes([5, 4, 3, 2, 1], classes, correct, [1, 5], [1, 2, 3, 4, 5])
    assert curves[:, 1].tolist() == [1.0, 0.5, 0.0, 0.0, 0.5]
    assert curves[:, 0] == pytest.approx([0.4] * 5), "of one sample none is chosen"
    assert top_k_votes([2, 1], [None, None], [False, False], [1, 2], [3]).tolist() == [[0.0, 0.0]]
    only_best = top_k_votes([2, 1], [None, 0], [False, True], [2], [1, 2])
    assert only_best.tolist() == [[0.0], [1.0]], "without an answer a sample takes its place all the same"


@given(SAMPLES, st.integers(0, 9))
@settings(deadline=None)
def test_top_k_votes_meet_best_of_n_and_majority(samples, seed):
    """k = 1 is best-of-N; a k that no subset exceeds is the majority vote, on the very same subsets."""
    scores, classes = [s[0] for s in samples], [s[1] for s in samples]
    correct = [s[2] and s[1] is not None for s in samples]
    sizes = list(range(1, len(samples) + 1))
    draw = {"num_subsets": 20, "seed": seed}
    curves = top_k_votes(scores, classes, correct, sizes, [1, *sizes, 100], **draw)
    majority = vote(classes, correct, sizes, **draw)
    best = best_of_n(scores, correct, sizes)
    assert curves[0] == pytest.approx(best if any(c is not None for c in classes) else 0)
    assert curves[-1] == pytest.approx(majority)
    for k, curve in zip(sizes[1:], curves[2:-1], strict=True):
        assert curve[:k] == pytest.approx(majority[:k])
    assert ((curves >= 0) & (curves <= 1)).all()


@given(SAMPLES, st.integers(2, 4))
@settings(deadline=None, max_examples=25)
def test_top_k_votes_near_the_mean_over_all_subsets(samples, k):
    """Equal scores are made different: the order among equals is by chance, and enumerated here it need not be."""
    scores = [s[0] + i / 1000 for i, s in enumerate(samples)]
    classes, correct = [s[1] for s in samples], [s[1] == 1 for s in samples]
    sizes = list(range(1, len(samples) + 1))
    expected = []
    for n in sizes:
        probabilities = []
        for subset in itertools.combinations(range(len(samples)), n):
            best = sorted(subset, key=scores.__getitem__)[-k:]
            votes = [classes[i] for i in best if classes[i] is not None]
            winners = {c for c in votes if votes.count(c) == max(map(votes.count, votes))}
            probabilities.append((1 in winners) / len(winners) if winners else 0.0)
        expected.append(mean(probabilities))
    curve = top_k_votes(scores, classes, correct, sizes, [k], num_subsets=4000)[0]
    assert curve == pytest.approx(expected, abs=0.05)
    assert curve[[0, -1]] == pytest.approx([expected[0], expected[-1]])


def test_equal_scores_vote_by_chance():
    """Three samples of equal score, A, B, B with A correct: of the three pairs AB, AB, BB a third is A's: 1/2 · 2/3."""
    curve = top_k_votes([1, 1, 1], [0, 1, 1], [True, False, False], [3], [2], num_subsets=20_000)
    assert curve[0, 0] == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("size", [0, 4])
def test_sizes_beyond_the_samples_are_refused(size):
    for call in (
        lambda: best_of_n([1, 2, 3], [True] * 3, [size]),
        lambda: vote([0, 0, 0], [True] * 3, [size]),
        lambda: top_k_votes([1, 2, 3], [0, 0, 0], [True] * 3, [size], [2]),
        lambda: pass_at_k(3, 1, size),
    ):
        with pytest.raises(ValueError, match="1 to 3"):
            call()
