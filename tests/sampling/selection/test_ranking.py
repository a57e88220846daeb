import numpy as np
import pytest

from sampling.selection.candidates import Candidates, Sample
from sampling.selection.ranking import bind_rules, default_rules, rank_problem
from sampling.selection.rules import BestOfN, Majority, Rule, TopKVote
from stepverify.records import InputError
from tests.helpers.rules import Longest, SquaredVote


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
