"""Searching by a policy: what it samples, and when it refuses to."""

import json

import pytest

from sampling.report.budget import budget_statistics
from sampling.report.budget_sections import budget_sections
from sampling.search import BeamSearch, BestOfN, ComputeOptimal, ParticleFiltering, SearchResult
from sampling.search.finished import read_shared
from stepverify.jsonl import read_records
from stepverify.records import InputError
from tests.helpers.budgets import known_searches, made
from tests.helpers.searches import Lawful, Valued, explored, searched


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
    expected = sum(c.accuracy * c.num_problems for c in found.plans[0].bins if c.search == "beam")
    reached = sum(one.curves["prm/best_of_n"][-1] for one in results.values() if one.strategy == "beam")
    assert expected == pytest.approx(reached)
    spent = sum(one.cost.generated_tokens for one in results.values() if one.strategy == "beam")
    planned = sum(c.cost * c.num_problems for c in found.plans[0].bins if c.search == "beam")
    assert spent > 0
    assert abs(planned - spent) < 0.1 * spent, "the first samples at the mean cost of the problem's samples"
    again = {r.problem_id: r for r in read_records(folders["n"] / "results", SearchResult)}
    assert all(again[p].values[:2] == one.values for p, one in results.items())
    reported = budget_statistics(read_shared(folders | {"out": tmp_path / "out"}), "best_of_n", 2, None, 10, 0)
    assert sum(reported.chosen["out"].values()) == 12
    (section,) = [part for part in budget_sections(reported) if part.title == "What the policy chose"]
    assert section.rows == [["out", *(str(number) for number in reported.chosen["out"].values())]]
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
        (lambda p: p.update(num_samples=0), "num_samples: expected >= 1, got 0"),
        (
            lambda p: (
                p["plans"].append(p["plans"][0] | {"bins": p["plans"][0]["bins"] * 2})
                or p.update(edges=[0.2, 0.1, 0.3])
            ),
            "key 'edges': expected ascending",
        ),
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
