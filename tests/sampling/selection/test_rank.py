import itertools
import json
import subprocess
import sys
from math import comb
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.selection.candidates import Candidates, Sample
from sampling.selection.estimators import best_of_n, pass_at_k, top_k_votes, vote
from sampling.selection.pool import largest_size
from sampling.selection.ranking import bind_rules, default_rules, rank_problem
from sampling.selection.rules import BestBy, BestOfN, Majority, Rule, TopKVote, VerifierRule, Vote
from sampling.stages.rank import rank
from sampling.stages.report import report
from stepverify.jsonl import read_located, read_records, write_records
from stepverify.records import InputError, Ranking, Solution

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
@settings(deadline=None, max_examples=40)
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


def ranked(samples, classes, aggregation, sizes, top_k=(), compared=(), rules=None):
    rules = bind_rules(default_rules(top_k) if rules is None else rules, aggregation, compared)
    return rank_problem("x", Candidates(samples=samples, classes=classes, sizes=sizes), rules)


def test_rank_problem_curves_and_choices():
    """Five samples; the cut-off one (e) has no answer, is no vote and is incorrect, but scores best.

    At N = 5: majority 4 (a, b; correct), best of 5 by ``v``: e, incorrect; weighted: 4 has 0.2 + 0.3 against 0.6 for 5.
    The product of ``p``: a 0.45, b 0.48, c 0.25, d 0.1, e 0.01. Fewest steps: b, c and d alike, of which b is correct.
    """
    num_steps = {"a": 3, "b": 2, "c": 2, "d": 2, "e": 4}
    v = {"a": 0.2, "b": 0.3, "c": 0.6, "d": 0.1, "e": 0.9}
    p = {"a": [0.9, 0.5], "b": [0.6, 0.8], "c": [0.5, 0.5], "d": [0.1, 1.0], "e": [0.1, 0.1]}
    samples = [Sample(i, "4", None if i == "e" else "4", i in "ab", num_steps[i], {"v": [v[i]], "p": p[i]}) for i in v]
    ranking = ranked(samples, [0, 0, 1, 2, None], {"v": "last", "p": "prod"}, [1, 5])
    assert {rule: curve[-1] for rule, curve in ranking.curves.items()} == pytest.approx({
        "pass@1": 0.4, "majority": 1, "shortest": 1 / 3, "v/best_of_n": 0, "v/weighted_vote": 0, "p/best_of_n": 1,
        "p/weighted_vote": 1, "oracle": 1,
    })  # fmt: skip
    assert [curve[0] for curve in ranking.curves.values()] == pytest.approx([0.4] * 8), "of one sample none is chosen"
    assert ranking.choices == {
        "pass@1": "a", "majority": "a", "shortest": "b", "v/best_of_n": "e", "v/weighted_vote": "c", "p/best_of_n": "b",
        "p/weighted_vote": "b", "oracle": "a",
    }  # fmt: skip
    # Correct a and b. Votes 2, 2 against 1, 1, 0; steps 3, 2 against 2, 2, 4: 1 and 2 of 3 pairs; v 0.2, 0.3 against 0.1 alone.
    assert ranking.auroc_by_rule == pytest.approx(
        {"majority": 1, "shortest": 0.5, "v/best_of_n": 1 / 3, "p/best_of_n": 1}
    )
    nobody = ranked([Sample("a", "4", None, False, 1, {})], [None], {}, [1])
    assert nobody.choices == {"pass@1": "a", "majority": None, "shortest": "a", "oracle": None}
    assert nobody.auroc_by_rule == {}
    empty, long = (Sample(i, "4", "4", i == "b", n, {}) for i, n in (("a", 0), ("b", 9)))
    assert ranked([empty, long], [0, 0], {}, [2]).choices["shortest"] == "b", "no steps are no solution"


def test_every_aggregation_beside_the_one_in_use():
    """An outcome verifier's values of tokens: last 0.1 and 0.8, mean 0.5 and 0.4, min 0.1 and 0.0; the first is correct."""
    samples = [
        Sample("a", "4", "4", True, 1, {"v": [0.9, 0.5, 0.1]}),
        Sample("b", "4", "5", False, 1, {"v": [0.4, 0.0, 0.8]}),
    ]
    ranking = ranked(samples, [0, 1], {"v": "last"}, [2], [1, 2], {"v"})
    last = {rule: curve[0] for rule, curve in ranking.curves.items()}
    assert {rule for rule in last if rule.count("/") == 1} == {"v/best_of_n", "v/weighted_vote", "v/top_1", "v/top_2"}
    assert len(last) == 4 + 4 + 4 * 5
    for how, correct in {"last": 0, "mean": 1, "min": 1, "prod": 1, "max": 1}.items():
        assert last[f"v/best_of_n/{how}"] == last[f"v/top_1/{how}"] == last[f"v/weighted_vote/{how}"] == correct
        assert last[f"v/top_2/{how}"] == 0.5
        assert ranking.choices[f"v/best_of_n/{how}"] == "ba"[correct]
    assert last["v/best_of_n"] == last["v/best_of_n/last"]
    assert ranking.choices["v/top_2"] == "a", "where votes are equal, the first"


# ── rules of one's own ────────────────────────────────────────────────────────────────────────────


class Longest(BestBy):
    """Takes the sample with the most steps."""

    name = "longest"

    def order(self, candidates):
        return [sample.num_steps for sample in candidates.samples]


class SquaredVote(VerifierRule, Vote):
    """A weighted vote with scores to a power."""

    kind = "squared_vote"

    def __init__(self, power=2.0, verifier=None):
        super().__init__(verifier)
        self.power = power

    def weights(self, candidates):
        return [weight**self.power for weight in candidates.weights(self.verifier, self.aggregation)]


class NoChoice(Rule):
    """Has a curve only."""

    name = "none"
    chooses = False

    def curve(self, candidates):
        return np.full(len(candidates.sizes), 0.25)


def test_rules_of_ones_own():
    """Steps 1, 3, 2: the second is the longest, and incorrect. Scores 0.5, 0.5 of the correct answer A against 0.8 of B:
    as they are A wins with 1 against 0.8; squared it is 0.5 against 0.64."""
    found = [("a", True, 1, 0.5), ("b", False, 3, 0.8), ("c", True, 2, 0.5)]
    samples = [
        Sample(i, "1", "1" if correct else "2", correct, steps, {"v": [score]}) for i, correct, steps, score in found
    ]
    rules = [Longest(), SquaredVote(), SquaredVote(power=1.0, verifier="v"), NoChoice()]
    with pytest.raises(InputError, match="rules: two are named 'v/squared_vote'"):
        bind_rules(rules, {"v": "last"})
    ranking = ranked(samples, [0, 1, 0], {"v": "last"}, [3], rules=[Longest(), SquaredVote(), Majority(), NoChoice()])
    assert ranking.curves == {"longest": [0.0], "v/squared_vote": [0.0], "majority": [1.0], "none": [0.25]}
    assert ranking.choices == {"longest": "b", "v/squared_vote": "b", "majority": "a"}
    assert ranking.auroc_by_rule == {"longest": 0.0, "majority": 1.0}
    plain = ranked(samples, [0, 1, 0], {"v": "last"}, [3], rules=[SquaredVote(power=1.0)])
    assert plain.curves == {"v/squared_vote": [1.0]}


def test_rules_are_of_every_verifier_or_of_one():
    aggregation = {"orm": "last", "prm": "prod"}
    rules = [BestOfN("prm"), BestOfN("prm", "min"), TopKVote(3)]
    assert [*bind_rules(rules, aggregation)] == ["orm/top_3", "prm/best_of_n", "prm/top_3", "prm/best_of_n/min"]
    for rules, message in (
        ([], "expected one at least"),
        ([BestOfN("qrm")], "BestOfN.verifier: 'qrm': expected one of orm, prm"),
    ):
        with pytest.raises(InputError, match=message):
            bind_rules(rules, aggregation)
    with pytest.raises(InputError, match=r"TopKVote\.k: expected 1 or more, got 0"):
        TopKVote(0)


# ── the stage ─────────────────────────────────────────────────────────────────────────────────────


def solution(problem, index, predicted="1", *, prefix="p", **known):
    known = {"correct": predicted == "1", "finish": "stop", "scores": {"orm": [0.5], "prm": [0.5, 0.5]}} | known
    return Solution(
        id=f"{prefix}{problem}#{index}", problem_id=f"{prefix}{problem}", problem=f"Question {problem}", answer="1",
        steps=["a", "b"], predicted=predicted, **known,
    )  # fmt: skip


def scored(folder, solutions):
    write_records(folder / "part-00000.jsonl", solutions)
    return folder


def summary_of(folder):
    return json.loads((folder / "manifest.json").read_text())["summary"]


def test_stage(tmp_path, capsys):
    """Problem 0, interleaved with 1: answers 1, 1.0, 2, so two of one class. Problem 1: 3, 3 and a cut-off 1."""
    zero = [solution(0, i, a, correct=a != "2") for i, a in enumerate(("2", "1", "1.0"))]
    one = [solution(1, i, a, finish=f) for i, (a, f) in enumerate((("3", "stop"), ("3", "stop"), ("1", "length")))]
    data = scored(tmp_path / "in", [s for pair in zip(zero, one, strict=True) for s in pair])
    rank(data, tmp_path / "out")
    rankings = list(read_records(tmp_path / "out", Ranking))
    assert [r.problem_id for r in rankings] == ["p0", "p1"]
    assert "  aggregation: orm last (default), prm prod (default)\n" in capsys.readouterr().out
    assert rankings[0].sizes == [1, 2, 3]
    assert [r.curves["majority"][-1] for r in rankings] == [1.0, 0.0]
    assert [r.curves["oracle"][-1] for r in rankings] == [1.0, 0.0], "a cut-off solution is never correct"
    assert rankings[0].choices["majority"] == "p0#1"
    assert summary_of(tmp_path / "out")["aggregation"] == {
        "orm": {"how": "last", "chosen_on": "default"}, "prm": {"how": "prod", "chosen_on": "default"},
    }  # fmt: skip
    before = (tmp_path / "out/part-00000.jsonl").read_bytes()
    rank(data, tmp_path / "out")
    assert "already ranked" in capsys.readouterr().out
    assert (tmp_path / "out/part-00000.jsonl").read_bytes() == before


def test_the_stage_counts_what_no_rule_can_change_and_ranks_as_asked(tmp_path, capsys):
    """Problem 0 has no correct sample, 1 no incorrect one, 2 both; two samples have no answer."""
    answers = [["2", None], ["1", "1.0"], ["1", None]]
    rows = [
        solution(p, i, a, correct=a in ("1", "1.0")) for p, group in enumerate(answers) for i, a in enumerate(group)
    ]
    data = scored(tmp_path / "in", rows)
    rank(data, tmp_path / "out", top_k=[2], every_aggregation=True)
    counts = {"without_answer": 2, "problems_without_correct": 1, "problems_without_incorrect": 1}
    assert summary_of(tmp_path / "out").items() >= counts.items()
    assert "without answer 2, problems without correct 1, problems without incorrect 1" in capsys.readouterr().out
    rules = next(read_records(tmp_path / "out", Ranking)).curves.keys()
    assert {"orm/top_2", "prm/top_2", "prm/top_2/min", "prm/weighted_vote/max"} <= rules
    assert "orm/best_of_n/last" not in rules, "one value has no aggregation"
    with pytest.raises(InputError, match=r"was made with config\.top_k"):
        rank(data, tmp_path / "out", every_aggregation=True)


def test_missing_samples_count_as_misses(tmp_path, capsys):
    """Problem 0 has three samples, problem 1 a single correct one, to which two that are missing are added.

    Of N of three it is among them with probability N / 3, and then every rule picks it. A sample without values that is there
    is ranked last, too: the second one of problem 2 is picked among its missing third with probability 1/2 at N = 2, where
    both are sampled (1/3), but the first one, incorrect, is not; with the first it is never picked: 1/6, and 0 at N = 3.
    """
    rows = [solution(0, i, a) for i, a in enumerate(("1", "2", "2"))] + [solution(1, 0, "1")]
    rows += [solution(2, 0, "2"), solution(2, 1, "1", scores={"orm": [], "prm": []})]
    data = scored(tmp_path / "in", rows)
    with pytest.raises(
        InputError, match="sizes: 3 samples requested, but 2 of 3 problems have fewer; problem p1 has 1"
    ):
        rank(data, tmp_path / "out", sizes=[3])
    rank(data, tmp_path / "out", count_missing=True)
    _, one, two = read_records(tmp_path / "out", Ranking)
    assert (one.sizes, one.num_samples, two.num_samples) == ([1, 2, 3], 1, 2)
    for rule in ("majority", "shortest", "orm/best_of_n", "prm/weighted_vote", "oracle"):
        assert one.curves[rule] == pytest.approx(
            [1 / 3, 2 / 3, 1], abs=0.1 * (rule in ("majority", "prm/weighted_vote")) + 1e-9
        )
        assert one.choices[rule] == "p1#0"
    assert one.curves["pass@1"] == pytest.approx([1 / 3] * 3)
    assert one.auroc_by_rule == {}, "only samples that are there are ordered"
    assert two.curves["prm/best_of_n"] == pytest.approx([1 / 3, 1 / 6, 0])
    assert two.choices["prm/best_of_n"] == "p2#0"
    found = summary_of(tmp_path / "out")
    assert [found[key] for key in ("missing", "num_solutions", "num_samples", "without_answer")] == [3, 6, 3, 0]
    assert found["aggregation"]["prm"]["how"] == "prod"
    assert "missing 3" in capsys.readouterr().out


def test_the_configuration_names_rules(tmp_path, capsys):
    """Short names for ours, a dotted path for others; each is part of what the folder was made with."""
    data = scored(tmp_path / "in", [solution(0, i, a) for i, a in enumerate("122")])
    (tmp_path / "rank.yaml").write_text(
        f"input: {data}\noutput: {tmp_path / 'out'}\nrules:\n"
        "- class_path: SampleAccuracy\n- class_path: Majority\n- class_path: tests.sampling.selection.test_rank.Longest\n"
        "- class_path: tests.sampling.selection.test_rank.SquaredVote\n  init_args: {power: 3.0, verifier: prm}\n"
        "- class_path: Simulated\n  init_args: {area: 0.75, rule: {class_path: BestOfN}}\n"
    )
    main(["rank", "--config", str(tmp_path / "rank.yaml")])
    (found,) = read_records(tmp_path / "out", Ranking)
    rules = ["pass@1", "majority", "longest", "prm/squared_vote", "simulated_0.75/best_of_n"]
    assert [*found.curves] == rules
    config = json.loads((tmp_path / "out/manifest.json").read_text())["config"]
    assert config["rules"][3]["init_args"] == {"verifier": "prm", "power": 3.0}
    report(tmp_path / "out", output=tmp_path / "report", num_bootstrap=10)
    assert "| longest | " in (tmp_path / "report/report.md").read_text()
    with pytest.raises(InputError, match=r"was made with config\.rules"):
        rank(data, tmp_path / "out")
    with pytest.raises(InputError, match="add TopKVote and Simulated to rules"):
        rank(data, tmp_path / "other", rules=[Majority()], top_k=[2])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([4, 4, 4], 4),
        ([16, 16, 16, 1], 16),  # 16 x 3 samples against 1 x 4
        ([16] * 51 + [15] * 49, 15),  # 15 x 100 against 16 x 51
        ([16] * 5 + [8] * 5, 8),  # 8 x 10 = 16 x 5: of equals the one that keeps more problems
        ([16] * 6 + [8] * 4, 16),  # 16 x 6 against 8 x 10
        ([100, 1, 1], 1),  # less than half have 100
        ([4, 1], 4),
        ([2], 2),
    ],
)
def test_the_largest_size_keeps_the_most_samples_of_half_the_problems(counts, expected):
    assert largest_size(counts) == expected


def test_a_problem_with_one_sample_does_not_shrink_the_curves(tmp_path, capsys):
    """Three of four problems have four samples: curves up to 4 over those three, the same as without the fourth."""
    whole = [solution(p, i, a) for p in range(3) for i, a in enumerate("1221")]
    rank(scored(tmp_path / "whole", whole), tmp_path / "a")
    capsys.readouterr()
    rank(scored(tmp_path / "in", [whole[0], solution(9, 0, "1"), *whole[1:]]), tmp_path / "b")
    assert [*read_records(tmp_path / "b", Ranking)] == [*read_records(tmp_path / "a", Ranking)]
    found = summary_of(tmp_path / "b")
    assert [found[key] for key in ("sizes", "num_problems", "num_solutions")] == [[1, 2, 4], 3, 12]
    assert found["fewer_samples"] == {"p9": 1}
    assert "fewer_samples" not in summary_of(tmp_path / "a")
    said = "left out: 1 problems with fewer than 4 samples: p9 (1)"
    assert said in capsys.readouterr().out
    report(tmp_path / "b", output=tmp_path / "report", num_bootstrap=10)
    assert "1 problems with fewer than 4 samples are left out: p9" in capsys.readouterr().out
    assert "fewer than 4 samples are left out: p9" in (tmp_path / "report/report.md").read_text()
    assert (
        "Warnings" not in [report(tmp_path / "a", output=tmp_path / "r", num_bootstrap=10), capsys.readouterr().out][1]
    )
    rank(tmp_path / "in", tmp_path / "c", sizes=[1])
    assert len([*read_records(tmp_path / "c", Ranking)]) == 4, "sizes that all have leave none out"


def test_a_validation_problem_with_one_sample_does_not_decide_the_aggregation(tmp_path, capsys):
    """At N = 1 every aggregation solves as much; over the two problems with two samples `last` is the best."""
    scores = {"1": [0.1, 0.9], "2": [0.8, 0.7]}
    other = [solution(p, i, a, prefix="v", scores={"prm": scores[a]}) for p in range(2) for i, a in enumerate("12")]
    other.append(solution(2, 0, "2", prefix="v", scores={"prm": [0.5, 0.5]}))
    data = scored(tmp_path / "in", [solution(9, i, a, scores={"prm": scores["12"[i]]}) for i, a in enumerate("22")])
    rank(data, tmp_path / "out", validation=scored(tmp_path / "other", other))
    found = summary_of(tmp_path / "out")
    assert found["aggregation"]["prm"] == {"how": "last", "chosen_on": "validation"}
    assert [found["validation"][key] for key in ("num_problems", "n", "fewer_samples")] == [2, 2, {"v2": 1}]
    assert "validation: left out: 1 problems with fewer than 2 samples: v2 (1)" in capsys.readouterr().out


def test_an_interrupted_stage_ends_as_a_whole_one(tmp_path):
    data = scored(tmp_path / "in", [solution(p, i, str((p + i) % 3)) for p in range(5) for i in range(6)])
    rank(data, tmp_path / "whole", num_subsets=7)
    rank(data, tmp_path / "torn", num_subsets=7)
    part, manifest = tmp_path / "torn/part-00000.jsonl", tmp_path / "torn/manifest.json"
    part.write_bytes(part.read_bytes()[:-500])
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False}))
    rank(data, tmp_path / "torn", num_subsets=7)
    assert part.read_bytes() == (tmp_path / "whole/part-00000.jsonl").read_bytes()


def test_the_aggregation_is_chosen_on_other_problems(tmp_path):
    """On validation the correct one has the better last value and the worse of all others: ``last`` solves all.

    Correct: 0.1, 0.9 (prod 0.09, min 0.1, mean 0.5). Incorrect: 0.8, 0.7 (0.56, 0.7, 0.75).
    """
    scores = {"1": [0.1, 0.9], "2": [0.8, 0.7]}
    other = [solution(p, i, a, prefix="v", scores={"prm": scores[a]}) for p in range(2) for i, a in enumerate("12")]
    data = scored(tmp_path / "in", [solution(9, i, a, scores={"prm": scores["12"[i]]}) for i, a in enumerate("22")])
    rank(data, tmp_path / "out", validation=scored(tmp_path / "other", other))
    found = summary_of(tmp_path / "out")
    assert found["aggregation"] == {"prm": {"how": "last", "chosen_on": "validation"}}
    table = {"prod": 0.0, "min": 0.0, "last": 1.0, "mean": 0.0}
    assert found["validation"] == {"num_problems": 2, "n": 2, "best_of_n": {"prm": table}}
    rank(data, tmp_path / "fixed", validation=tmp_path / "other", aggregation={"prm": "min"})
    assert summary_of(tmp_path / "fixed")["aggregation"]["prm"] == {"how": "min", "chosen_on": "configured"}


@pytest.mark.parametrize(
    ("solutions", "options", "message"),
    [
        ([solution(0, 0, correct=None)], {}, "p0#0 is not graded.*sampling label"),
        ([solution(0, 0), solution(0, 1, scores={"orm": [0.5]})], {}, "p0#1 has no score by 'prm'"),
        ([solution(0, 0, scores={"orm": [0.5]}), solution(0, 1)], {}, "p0#0 has no score by 'prm'"),
        (
            [solution(0, i) for i in range(3)] + [solution(1, 0)],
            {"sizes": [4]},
            "4 samples.* 2 of 2 .* problem p0 has 3",
        ),
        ([solution(0, 0)], {"sizes": []}, "sizes: expected numbers of 1 or more"),
        ([solution(0, 0)], {"aggregation": {"qrm": "min"}}, "aggregation.qrm"),
        ([solution(0, 0)], {"aggregation": {"prm": "median"}}, "aggregation.prm"),
        ([solution(0, 0)], {"num_subsets": 0}, "num_subsets"),
        ([solution(0, 0)], {"top_k": [3, 0]}, "top_k: expected different numbers of 1 or more"),
        ([solution(0, 0)], {"validation": "in"}, "1 problems are also in the input, for example p0"),
    ],
)
def test_bad_input_is_refused_and_claims_no_folder(tmp_path, solutions, options, message):
    data = scored(tmp_path / "in", solutions)
    if "validation" in options:
        options = {"validation": data}
    with pytest.raises(InputError, match=message):
        rank(data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": "yes"}, "key 'correct': expected true or false"),
        ({"scores": {"orm": ["0.5"]}}, r"key 'scores.orm\[0\]': expected a number"),
        ({"scores": {"orm": 0.5}}, "key 'scores.orm': expected a list"),
        ({"steps": "a"}, "key 'steps': expected a list"),
        ({"finish": "eos"}, "finish: expected 'stop' or 'length'"),
        ({"token_ids": 3}, "key 'token_ids': expected a list"),
        ({"score": 1}, "unknown key 'score'"),
    ],
)
def test_reading_names_line_and_key(tmp_path, change, message):
    path = tmp_path / "a.jsonl"
    write_records(path, [solution(0, 0)])
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(InputError, match=f"a.jsonl:2: {message}"):
        list(read_located(path, Solution))


@pytest.mark.parametrize(("value", "got"), [("1e999", "Infinity"), ("NaN", "NaN"), ("-Infinity", "-Infinity")])
def test_reading_refuses_what_is_no_finite_number(tmp_path, value, got):
    path = tmp_path / "a.jsonl"
    write_records(path, [solution(0, 0, scores={"orm": [0.5]})])
    path.write_text(path.read_text() + path.read_text().replace("[0.5]", f"[{value}]").replace("p0#0", "p0#1"))
    with pytest.raises(InputError, match=rf"a.jsonl:2: key 'scores.orm\[0\]': expected .*, got {got}"):
        list(read_located(path, Solution))


def test_importing_is_light():
    heavy = {"torch", "lightning", "vllm", "matplotlib"}
    code = f"import sys, sampling.stages.rank, sampling.stages.report; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[3]
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert found.stdout.strip() == "set()"
