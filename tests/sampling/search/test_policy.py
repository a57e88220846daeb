"""The compute-optimal policy: what it chooses, how that is measured, and what applying it does."""

import json

import numpy as np
import pytest

from sampling.search import BeamSearch, BestOfN, ParticleFiltering, SearchResult
from sampling.search.choosing import Candidates, candidates, choose, cross_validate, folds_of
from sampling.search.finished import read_shared
from sampling.search.making import cost_of
from sampling.search.optimal import ComputeOptimal
from sampling.search.policy import read_policy
from sampling.stages.policy import policy
from stepverify.jsonl import read_records, write_records
from stepverify.records import InputError
from tests.helpers.budgets import best_of_n, flat, result, write_search
from tests.helpers.searches import Lawful, Valued, explored, searched
from tests.helpers.sheets import sample

NUMBER = 40


def known_searches(folder, number=NUMBER):
    """Problem i is easy if i is even, and its first two samples have the scores 0.9 then, 0.1 if it is not.

    Best-of-N at 100 tokens a sample solves the easy ones with 2 samples, the others never; the beam, at 200, the others
    only. Best-of-2 and the beam alone are correct for one half of the problems each.
    """
    rows = [
        result(f"p{i}", 400, [0.0, 1.0, 1.0] if i % 2 == 0 else [0.0] * 3, sizes=(1, 2, 4), values=[0.1 + 0.8 * (i % 2 == 0)] * 4)
        for i in range(number)
    ]  # fmt: skip
    samples = write_search(folder / "n", rows, "BestOfN", settings={"num_samples": 4})
    settings = {"num_beams": 4, "width": 2, "merge_duplicates": True}
    return {"n": samples, "beam": flat(folder / "beam", [i % 2 for i in range(number)], 200, settings=settings)}


def made(folder, searches, budgets, **keys):
    settled = {"num_samples": 2, "num_bins": 2, "num_bootstrap": 20} | keys
    policy(searches, budgets, folder / "policy.json", **settled)
    return read_policy(folder / "policy.json")


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
    found = candidates(read_shared(searches), "tokens", "best_of_n", 3)
    assert found.names == ["n, N = 3", "n, N = 4", "beam"]
    assert found.cost.tolist() == [[300, 300], [400, 400], [310, 320]]
    assert found.accuracy[0] == pytest.approx(0.5 + 0.5 * np.log(1.5) / np.log(2))
    alone = candidates(read_shared(searches), "tokens", "best_of_n", 0)
    assert alone.names == ["n, N = 1", "n, N = 2", "n, N = 4", "beam"]
    assert alone.cost[-1].tolist() == [10, 20]


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


def choosing(folder, strategy):
    """A file of a policy that chooses one strategy whatever the prediction."""
    made(folder, known_searches(folder), [400])
    plain = json.loads((folder / "policy.json").read_text())
    for choice in plain["plans"][0]["bins"]:
        choice["strategy"] = strategy
    (folder / "policy.json").write_text(json.dumps(plain))
    return folder / "policy.json"


@pytest.mark.parametrize(
    ("config", "alone"),
    [
        ({"class_path": "BeamSearch", "init_args": {"num_beams": 4, "width": 2}}, BeamSearch(4, 2)),
        ({"class_path": "sampling.search.ParticleFiltering", "init_args": {"num_particles": 4}}, ParticleFiltering(4)),
    ],
)
def test_applying_it_is_the_chosen_search_after_the_first_samples(tmp_path, config, alone):
    """The nodes, and the tokens, are those of best-of-2 and of the strategy by itself, with the same numbers and seeds."""
    found, _ = explored(ComputeOptimal(choosing(tmp_path, config), 400), 6)
    parts = [explored(strategy, 6)[0] for strategy in (BestOfN(2), alone)]
    for (tree, both), (first, samples), (second, rest) in zip(found, *parts, strict=True):
        assert [n.id for n in both.nodes] == [n.id for n in samples.nodes] + [n.id for n in rest.nodes]
        tokens = [t.costs.total().generated_tokens for t in (tree, first, second)]
        assert tokens[0] == tokens[1] + tokens[2]
        assert both.values == samples.values
        assert not both.independent


def test_a_chosen_best_of_n_goes_on_from_the_first_samples(tmp_path):
    path = choosing(tmp_path, {"class_path": "BestOfN", "init_args": {"num_samples": 5}})
    found, _ = explored(ComputeOptimal(path, 400), 4)
    whole, _ = explored(BestOfN(5), 4)
    assert [[n.id for n in f.nodes] for _, f in found] == [[n.id for n in f.nodes] for _, f in whole]


def test_a_policy_from_searches_to_their_results(tmp_path):
    """Searches of validation problems, a policy of them, and its search of them again: results name what was chosen, by
    the bin of the samples' mean score, and reuse what the searches have sampled."""
    folders = {"n": tmp_path / "n", "beam": tmp_path / "beam"}
    searched(folders["n"], BestOfN(8), 12)
    searched(folders["beam"], BeamSearch(4, 2), 12)
    found = made(tmp_path, folders, [90], num_bins=2)
    engine = Lawful()
    results, _ = searched(
        tmp_path / "out", None, 12, engine, policy=tmp_path / "policy.json", budget=90, reuse_from=[*folders.values()]
    )  # fmt: skip
    assert engine.asked == []
    bins = [choice.search for choice in found.plans[0].bins]
    for one in results.values():
        assert one.strategy == bins[sum(one.values[:2]) / 2 >= found.edges[0]]
        assert len(one.values) == 2
    again = {r.problem_id: r for r in read_records(folders["n"] / "results", SearchResult)}
    assert all(again[p].values[:2] == one.values for p, one in results.items())
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["config"]["strategy"]["strategy"] == "ComputeOptimal"
    assert manifest["config"]["strategy"]["policy"]["edges"] == found.edges
    with pytest.raises(InputError, match=r"searches.out: was searched by a policy itself"):
        made(tmp_path, folders | {"out": tmp_path / "out"}, [90])


def test_a_policy_that_is_not_for_this_search(tmp_path):
    """One line each, before anything is sampled."""
    searched(tmp_path / "n", BestOfN(4), 8)
    made(tmp_path, {"n": tmp_path / "n"}, [50])
    path, engine = tmp_path / "policy.json", Lawful()
    for keys, said in (
        ({"policy": path, "budget": 60}, "budget: 60: .*policy.json has choices for 50 tokens"),
        ({"policy": path}, "policy: .*expected one of its budgets"),
        ({"policy": path, "budget": 50, "strategy": BeamSearch(4, 2)}, "expected no strategy with it"),
        ({"budget": 50}, "budget: 50: expected a policy"),
        ({"policy": path, "budget": 50, "max_depth": 7}, "was made with max_depth = 40, now it is 7"),
        ({"policy": path, "budget": 50, "aggregation": "min"}, "was made with aggregation = 'last', now it is 'min'"),
    ):
        with pytest.raises(InputError, match=said):
            searched(tmp_path / "out", keys.pop("strategy", None), 8, engine, **keys)
    scorer = Valued()
    scorer.identity = lambda: {"scorer": "another"}
    with pytest.raises(InputError, match=r"was made with verifier.scorer = 'valued', now it is 'another'"):
        searched(tmp_path / "out", None, 8, engine, scorer, policy=path, budget=50)
    assert engine.asked == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.update(version=2), "not a policy of version 1 .*2"),
        (lambda p: p.update(edges=[0.1, 0.2]), "plan of budget 400: 2 bins, but 2 edges divide 3"),
        (lambda p: p.update(unit="seconds"), "unit"),
        (
            lambda p: p["plans"][0]["bins"][0]["strategy"].update(class_path="Node"),
            "Node with .*: not a class of search",
        ),
        (lambda p: p["plans"][0]["bins"][0]["strategy"].update(class_path="nowhere.X"), "nowhere.X with .*No module"),
        (lambda p: p["plans"][0]["bins"][0]["strategy"].update(init_args={"beams": 3}), "unexpected keyword argument"),
        (lambda p: p["plans"][0]["bins"][0]["strategy"].update(init_args={"num_beams": 0}), "strategy.num_beams"),
    ],
)
def test_a_policy_that_was_changed_by_hand(tmp_path, change, said):
    made(tmp_path, known_searches(tmp_path), [400])
    plain = json.loads((tmp_path / "policy.json").read_text())
    change(plain)
    (tmp_path / "policy.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=said):
        ComputeOptimal(tmp_path / "policy.json", 400)


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
