"""The compute-optimal policy: what it chooses, and how that is measured."""

import numpy as np
import pytest

from sampling.search.choosing import Candidates, candidates, choose, cross_validate
from sampling.search.curves import cost_of
from sampling.search.finished import read_shared
from sampling.search.joining import join_first_samples
from sampling.selection.folds import folds_of
from stepverify.jsonl import write_records
from stepverify.records import InputError
from tests.helpers.budgets import NUMBER, best_of_n, flat, found, known_searches, made, result, write_search
from tests.helpers.sheets import sample


def test_the_policy_of_known_searches(tmp_path, capsys):
    """At 400 tokens: two samples first, 200 tokens; then the easy ones are done, and the others get the beam, 400.

    Mean 300, all solved, in each half of the validation problems. A fixed search solves one half only, and so does best-
    of-N at 300 tokens, and at any cost, so that it has no cost at which it is as accurate. At 200 tokens there are the
    two samples, and nothing more; oracle bins, which need no samples, choose the beam.
    """
    found = made(tmp_path, known_searches(tmp_path), [400, 200])
    assert [plan.budget for plan in found.plans] == [200, 400]
    small, large = found.plans
    assert [choice.search for choice in small.bins] == ["n, N = 2", "n, N = 2"]
    assert [choice.search for choice in large.bins] == ["beam", "n, N = 2"], "the most difficult first"
    assert large.bins[0].strategy == {
        "class_path": "BeamSearch", "init_args": {"num_beams": 4, "width": 2, "merge_duplicates": True},
    }  # fmt: skip
    assert [(c.accuracy, c.cost, c.num_problems) for c in large.bins] == [(1, 400, 20), (1, 200, 20)]
    assert {name: m.accuracy for name, m in large.measured.items()} == pytest.approx(
        {"compute_optimal": 1.0, "fixed": 0.5, "oracle": 0.5, "best_of_n": 0.5}, abs=0.1
    )
    assert large.measured["compute_optimal"].cost == 300
    assert (large.best_of_n_factor, small.best_of_n_factor) == (None, 1.0)
    assert found.edges == [0.9]
    text = capsys.readouterr().out
    assert "beam" in text
    assert "compute-optimal" in text


def test_oracle_bins_are_those_of_held_out_samples(tmp_path):
    """Pass@1 of held-out samples tells the two kinds apart, and bins by it need no samples first: at 200 tokens all are
    solved, where the policy has to spend them on its first samples."""
    write_records(tmp_path / "held.jsonl", [sample(f"p{i}", 0, 0.5, i % 2 == 0) for i in range(NUMBER)])
    found = made(tmp_path, known_searches(tmp_path), [200], held_out=tmp_path / "held.jsonl")
    measured = found.plans[0].measured
    assert measured["oracle"].accuracy == 1
    assert measured["oracle"].cost == 200
    assert measured["compute_optimal"].accuracy == 0.5
    assert measured["oracle"].gain[0] == -0.5


def test_the_first_samples_cost(tmp_path):
    """Of four samples of 400 tokens three cost 300: every search costs so much more, best-of-N begins with them."""
    searches = {
        "n": best_of_n(tmp_path / "n", [[0.0, 0.5, 1.0]] * 2), "beam": flat(tmp_path / "b", [1, 0], [10, 20]),
    }  # fmt: skip
    found = candidates(read_shared(searches), "tokens", "best_of_n", 3, {"beam": np.array([0.25, 0.75])})
    assert found.names == ["n, N = 3", "n, N = 4", "beam"]
    assert found.cost.tolist() == [[300, 300], [400, 400], [310, 320]]
    assert found.accuracy[0] == pytest.approx(0.5 + 0.5 * np.log(1.5) / np.log(2))
    assert found.accuracy[2].tolist() == [0.25, 0.75]
    alone = candidates(read_shared(searches), "tokens", "best_of_n", 0, {})
    assert alone.names == ["n, N = 1", "n, N = 2", "n, N = 4", "beam"]
    assert alone.cost[-1].tolist() == [10, 20]
    assert alone.accuracy[-1].tolist() == [1, 0]


def test_first_samples_are_among_the_solutions(tmp_path):
    """The first two of three samples, and two solutions of the beam, with their scores.

    Best score: the beam's correct 0.6 above 0.5; then the sample's 0.9, which is not; then the third sample would be,
    with 0.9, but is not among the first. Majority: one of four; two of four, a tie; three of four. Weighted: 0.6 of 1.6;
    0.7 of 2.1; 1.1 of 1.2.
    """
    rows = [
        (found("a", (0, 0.5), (0, 0.1), (0, 0.9)), found("a", (1, 0.6), (0, 0.4))),
        (found("b", (0, 0.9), (1, 0.2), (0, 0.1)), found("b", (1, 0.5), (0, 0.5))),
        (found("c", (1, 0.3), (1, 0.3), (0, 0.9)), found("c", (1, 0.5), (0, 0.1))),
    ]
    samples = [result(row[0].problem_id, 300, [0.0], sizes=(3,), values=[0.5] * 3) for row, _ in rows]
    beams = [result(row[0].problem_id, 300, [0.0], sizes=(2,)) for row, _ in rows]
    folders = {
        "n": write_search(tmp_path / "n", samples, "BestOfN", solutions=[s for first, _ in rows for s in first]),
        "beam": write_search(tmp_path / "b", beams, solutions=[s for _, second in rows for s in second]),
    }
    shared = read_shared(folders)
    for rule, expected in (("best_of_n", [1, 0, 1]), ("majority", [0, 0.5, 1]), ("weighted_vote", [0, 0, 1])):
        assert join_first_samples(shared, 2, rule)["beam"].tolist() == expected, rule
    write_records(folders["beam"] / "part-00000.jsonl", [s for _, second in rows for s in second[:1]])
    with pytest.raises(InputError, match=r"searches.beam: .*lacks solutions of a; search again"):
        join_first_samples(shared, 2, "best_of_n")


def test_choices_fit_the_budget_of_each_bin():
    """The second search is best everywhere, but costs 30 in the second bin; of equals the cheaper; none fits: cheapest."""
    accuracy = np.array([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    cost = np.array([[9, 9, 9, 9], [10, 10, 10, 50], [8, 8, 8, 8]])
    bins = np.array([0, 0, 1, 1])
    assert choose(accuracy, cost, bins, 2, 10) == [1, 2]
    assert choose(accuracy, cost, bins, 2, 30) == [1, 1]
    assert choose(accuracy, cost, bins, 2, 1) == [2, 2]
    assert choose(accuracy, cost, bins, 3, 20)[2] == 1, "a bin without problems: as for all"


@pytest.mark.parametrize("seed", range(5))
def test_cross_validation_has_no_leak(seed):
    """Whatever the answers of one half are, what is chosen on the other half stays: its own choice costs the same.

    Costs tell candidates apart. The choice on which the answers do bear, that for the other half, changes.
    """
    rng = np.random.default_rng(seed)
    accuracy = rng.random((6, 40))
    found = Candidates([""] * 6, [{}] * 6, accuracy, np.tile(np.arange(1.0, 7)[:, None], 40))
    difficulty, folds = rng.random(40), folds_of([f"p{i}" for i in range(40)], seed)
    _, before = cross_validate(found, difficulty, 3, 6, folds)
    first = folds == 0
    accuracy[:, first] = rng.permuted(accuracy[:, first], axis=1)[::-1]
    _, after = cross_validate(found, difficulty, 3, 6, folds)
    assert (before[first] == after[first]).all(), "chosen on the other half"
    assert (before[~first] != after[~first]).any(), "chosen on this half"
    assert first.sum() == 20


def test_on_noise_cross_validation_promises_nothing():
    """All searches are equally good: chosen and measured on the same problems the best of them looks better by far."""
    rng = np.random.default_rng(0)
    accuracy = (rng.random((20, 400)) < 0.5).astype(float)
    found = Candidates([""] * 20, [{}] * 20, accuracy, np.ones((20, 400)))
    difficulty, folds = rng.random(400), folds_of([str(i) for i in range(400)], 0)
    measured = cross_validate(found, difficulty, 5, 1, folds)[0].mean()
    bins = np.minimum((5 * difficulty).astype(int), 4)
    biased = np.mean(
        [accuracy[choice, bins == b].mean() for b, choice in enumerate(choose(accuracy, found.cost, bins, 5, 1))]
    )
    assert abs(measured - 0.5) < 4 * 0.025
    assert biased > 0.57


def test_the_cost_at_which_a_curve_is_as_accurate():
    """Halfway between 100 and 400 in the logarithm is 200."""
    cost, accuracy = np.array([100.0, 400.0, 800.0]), np.array([0.0, 1.0, 0.5])
    assert [cost_of(level, cost, accuracy) for level in (0.0, 0.5, 1.0)] == pytest.approx([100, 200, 400])
    assert cost_of(1.1, cost, accuracy) is cost_of(-0.1, cost, accuracy) is None


def test_bad_searches_and_keys(tmp_path):
    searches = known_searches(tmp_path)
    few = {name: folder for name, folder in known_searches(tmp_path / "few", 7).items()}
    cut = write_search(tmp_path / "cut", [result("p0", 1, [1.0])], finished=False)
    other = flat(tmp_path / "other", [1] * NUMBER, 200, engine={"engine": "another"})
    elsewhere = write_search(tmp_path / "elsewhere", [result("q", 1, [1.0])])
    for given, budgets, keys, said in (
        (searches | {"cut": cut}, [400], {}, "searches.cut: .*has not finished"),
        (searches | {"x": elsewhere}, [400], {}, "no problem in common"),
        (searches | {"x": other}, [400], {}, "engine.engine is 'another' in searches.x, 'known' in searches.n"),
        ({"beam": searches["beam"]}, [400], {}, "searches: expected one by BestOfN"),
        (searches, [199, 400], {}, "budgets: 199 tokens: below 200.0, the mean cost of the first 2 samples"),
        (searches, [], {}, "budgets: expected numbers above 0"),
        (searches, [400], {"num_samples": 5}, "num_samples: 5: searches.n has 4 samples"),
        (searches, [400], {"unit": "flops"}, "unit: flops: unknown for searches.n"),
        (searches, [400], {"final_rule": "oracle"}, "final_rule: 'oracle'"),
        (few, [400], {}, "num_bins: 2: expected 8 problems at least .*there are 7"),
    ):
        with pytest.raises(InputError, match=said):
            made(tmp_path, given, budgets, **keys)
    assert not (tmp_path / "policy.json").exists()


def test_an_earlier_policy_is_replaced_and_nothing_else(tmp_path):
    searches = known_searches(tmp_path)
    made(tmp_path, searches, [400])
    assert [plan.budget for plan in made(tmp_path, searches, [500]).plans] == [500]
    (tmp_path / "policy.json").write_text("thesis")
    with pytest.raises(InputError, match=r"policy.json: is there, and is not a policy"):
        made(tmp_path, searches, [400])
    assert (tmp_path / "policy.json").read_text() == "thesis"
