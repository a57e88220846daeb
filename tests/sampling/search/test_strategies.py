"""What each strategy samples, keeps and returns, with the faults of public implementations as examples."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.search import DVTS, MCTS, REBASE, BeamSearch, BestOfN, Lookahead, Node, ParticleFiltering
from sampling.search.mcts import Branch
from sampling.search.particles import resample
from sampling.search.rebase import balanced
from stepverify.records import InputError
from tests.helpers.searches import Lawful, Valued, explored, value

ENDS = {"#### 1": 0.5, "#### 2": 0.5}


def long_or_short(steps):
    """The answer at once, or three steps before it."""
    return {"#### 1": 0.5, "x": 0.5} if not steps else ENDS if len(steps) == 3 else {"x": 0.5, "y": 0.5}


def one(strategy, **options):
    ((tree, found),), store = explored(strategy, **options)
    return tree, found, store


def depths(tree):
    """Numbers of nodes by depth, and which of them have children."""
    counts, nodes = Counter(), [tree.root]
    while nodes:
        node = nodes.pop()
        counts[node.depth] += 1
        nodes += node.children
    return dict(counts)


def test_beam_search_keeps_a_quarter_and_continues_each_four_times():
    """8 beams, width 4: 8 first steps, then 2 · 4 in every round; all end at depth 3 unless a c ends a path before."""
    tree, found, _ = one(BeamSearch(8, 4, merge_duplicates=False), scorer=Valued(lambda s: 1.0 - 0.5 * ("c" in s)))
    assert depths(tree) == {0: 1, 1: 8, 2: 8, 3: 8}
    assert sum(bool(node.children) for node in tree.root.children) == 2
    assert all(node.finish == "stop" for node in found.nodes)


def test_a_finished_beam_takes_one_place_and_is_never_copied():
    """Of 4 beams 2 stay. The short solutions are best: once two of them are found nothing is left to continue, so the
    search ends with distinct solutions, not with 4 copies of one."""
    scorer = Valued(lambda steps: 1.0 if steps[0].startswith("####") else 0.1)
    (found,), _ = explored(BeamSearch(4, 2, merge_duplicates=False), engine=Lawful(known=long_or_short), scorer=scorer)
    ids = [node.id for node in found[1].nodes]
    assert len(set(ids)) == len(ids)
    short = [node for node in found[1].nodes if len(node.steps) == 1]
    assert len(short) == sum(node.finish == "stop" for node in found[0].root.children) >= 2


def test_equal_beams_compete_once():
    """One step is sure, so 4 equal first steps are one beam with ``merge_duplicates``, and four without."""
    engine = {"known": lambda steps: {"x": 1.0} if not steps else ENDS}
    merged, *_ = one(BeamSearch(8, 2), engine=Lawful(**engine))
    apart, *_ = one(BeamSearch(8, 2, merge_duplicates=False), engine=Lawful(**engine))
    assert [sum(bool(n.children) for n in tree.root.children) for tree in (merged, apart)] == [1, 4]


def test_lookahead_is_greedy_and_values_what_follows():
    """A first step of value 0 that leads to the best end is kept over one of value 0.9 that leads to the worst."""

    def known(steps):
        return {"good": 0.5, "bad": 0.5} if not steps else {f"{steps[0]} end": 1.0} if len(steps) == 1 else ENDS

    known_values = {"good": 0.0, "bad": 0.9, "good end": 1.0, "bad end": 0.0}
    scorer = Valued(lambda s: known_values.get(s[-1], 0.5))
    engine = Lawful(known=known)
    tree, *_ = one(Lookahead(1, 8, 8), engine=engine, scorer=scorer)
    assert {n.steps for n in tree.root.children if any("g+" not in c.id for c in n.children)} == {("good",)}
    plain, *_ = one(BeamSearch(8, 8), engine=Lawful(known=known), scorer=scorer)
    assert {n.steps for n in plain.root.children if n.children} == {("bad",)}
    greedy = [o for o in engine.options if o.temperature == 0]
    assert sum(any("g+" in c.id for c in node.children) for node in tree.root.children) == 2
    assert all(o.top_p == 1 and o.top_k == 0 for o in greedy)


def test_lookahead_of_nothing_is_beam_search():
    trees = [one(s)[0] for s in (Lookahead(0, 8, 4), BeamSearch(8, 4))]
    assert depths(trees[0]) == depths(trees[1])
    assert trees[0].costs.total() == trees[1].costs.total()


def test_subtrees_of_dvts_never_compete():
    """Four subtrees of width 2 each: 8 first steps, and the better one of each pair goes on even if another pair has
    two better ones."""
    tree, _, _ = one(DVTS(8, 2), scorer=Valued(lambda s: 0.9 if s[0] == "a" else 0.5))
    pairs = [tree.root.children[i : i + 2] for i in range(0, 8, 2)]
    for pair in pairs:
        best = max(pair, key=lambda node: node.score)
        assert bool(best.children) == best.is_open
        assert not any(node.children for node in pair if node is not best)


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(1, 40), st.floats(0.01, 10)
)  # fmt: skip
def test_balanced_expansion_uses_its_budget_and_prefers_high_values(weights, budget, temperature):
    nodes = [Node(weight=w / 100) for w in weights]
    found = balanced(nodes, budget, temperature)
    numbers = dict(found)
    assert sum(numbers.values()) <= budget
    assert sum(numbers.values()) == budget or len(numbers) == len(nodes)
    ordered = sorted(nodes, key=lambda node: -node.weight)
    given_out = [numbers.get(node, 0) for node in ordered]
    assert all(a >= b for a, b in itertools.pairwise(given_out))


def test_balanced_expansion_by_hand():
    """exp(0), exp(-1) and exp(-2) of 1.5032 are 66.5, 24.5 and 9.0 %: of 8 continuations ⌈5.3⌉, and the rest of 2."""
    nodes = [Node(weight=w) for w in (0.5, 0.9, 0.7)]
    assert balanced(nodes, 8, 0.2) == [(nodes[1], 6), (nodes[2], 2)]
    assert balanced(nodes, 0, 0.2) == []


def test_rebase_finishes_as_many_solutions_as_it_has_samples():
    """With ceilings in descending order the N continuations of a round go down by one for every solution that ended."""
    _, found, _ = one(REBASE(8, 5.0), engine=Lawful(known=long_or_short), scorer=Valued(lambda s: 0.5))
    assert len(found.nodes) == 8


@pytest.mark.parametrize("how", ["systematic", "multinomial", "residual"])
def test_resampling_is_unbiased(how):
    """Of 10 particles with weights 0.55, 0.25, 0.2: 5.5, 2.5 and 2 on average; 2,000 rounds are within 0.15."""
    weights = np.array([0.55, 0.25, 0.2])
    counts = np.zeros(3)
    for seed in range(2000):
        chosen = resample(weights, 10, np.random.default_rng(seed), how)
        assert len(chosen) == 10
        counts += np.bincount(chosen, minlength=3)
    assert counts / 2000 == pytest.approx(10 * weights, abs=0.15)


def test_the_methods_of_resampling_differ():
    """Systematic and residual resampling give equal weights once each; multinomial seldom does (10! / 10^10)."""
    equal = np.full(10, 0.1)
    for how, kept in (("systematic", True), ("residual", True), ("multinomial", False)):
        found = [resample(equal, 10, np.random.default_rng(seed), how) == [*range(10)] for seed in range(20)]
        assert all(found) if kept else not any(found)


def test_particles_are_weighted_by_odds():
    """Values 0.8 and 0.5 have odds 4 and 1, at temperature 2 their roots 2 and 1."""
    nodes = [Node(weight=0.8), Node(weight=0.5)]
    assert ParticleFiltering(2).weights(nodes) == pytest.approx([0.8, 0.2])
    assert ParticleFiltering(2, 2.0).weights(nodes) == pytest.approx([2 / 3, 1 / 3])
    assert ParticleFiltering(2).weights([Node(weight=1.0), Node(weight=0.0)]) == pytest.approx([1, 0], abs=1e-5)


def test_copies_of_a_particle_diverge_and_a_finished_one_counts_once():
    """One first step is far better, so all particles become it; their next steps have seeds of their own."""
    tree, found, _ = one(ParticleFiltering(16), scorer=Valued(lambda s: 0.999 if s[0] == "a" else 0.001))
    chosen = [node for node in tree.root.children if node.children]
    assert {node.steps for node in chosen} == {("a",)}
    assert sum(len(node.children) for node in chosen) == 16
    assert len({child.steps for node in chosen for child in node.children}) > 1
    assert len({node.id for node in found.nodes}) == len(found.nodes)


def test_puct_by_hand():
    """With init 1 and base 10^9 the factor of a parent of 4 visits is 2. Values 0.5 and 0.2, priors 0.5, visits 3, 0:
    0.5 + 2 · 0.5 / 4 = 0.75 against 0.2 + 2 · 0.5 = 1.2, so the child that was not visited is next; after visits of
    3 and 3 it is 0.75 against 0.45."""
    search = MCTS(exploration_init=1.0, exploration_base=1e9)
    first, second = Branch(Node(weight=0.5), 0.5, 3, 1.5), Branch(Node(weight=0.2), 0.5)
    parent = Branch(Node(), visits=4, branches=[first, second])
    assert search._selected(parent) is second
    second.visits, second.total = 3, 0.6
    assert search._selected(parent) is first
    first.exhausted = True
    assert search._selected(parent) is second


def test_a_bonus_is_there_before_the_first_visit_of_the_parent():
    search = MCTS(exploration_init=1.0, exploration_base=1e9)
    likely, unlikely = Branch(Node(weight=0.5), 0.9), Branch(Node(weight=0.5), 0.1)
    assert search._selected(Branch(Node(), branches=[unlikely, likely])) is likely


@pytest.mark.parametrize("evaluation", ["value", "rollout"])
def test_mcts_expands_the_root_once_and_counts_every_token(evaluation):
    tree, found, store = one(MCTS(12, 2, evaluation))
    sampled = [n for n in tree.root.children if n.finish != "stop" or len(n.steps) == 1]
    assert sum("w+" not in node.id for node in sampled) == 2
    assert tree.costs.total().generated_tokens == sum(record.tokens for record in store.kept)
    assert found.choice is None or found.choice in found.nodes


def test_mcts_chooses_by_visits_or_value():
    good = Valued(value)
    for choice in ("visits", "value"):
        _, found, _ = one(MCTS(40, 3, choice=choice), scorer=good)
        assert found.choice is not None
        assert found.choice.finish == "stop"


@pytest.mark.parametrize(
    "strategy", [BeamSearch(8, 4), DVTS(8, 4), REBASE(8), ParticleFiltering(8), MCTS(8), Lookahead(2, 8, 4)]
)
def test_what_is_cut_off_is_not_finished(strategy):
    """Solutions have two or three steps; at a depth of one all but those of one step are cut off, and nothing loops."""
    _, found, _ = one(strategy, max_depth=1)
    assert {node.finish for node in found.nodes} == {"length"}
    assert all(node.depth == 1 for node in found.nodes)


@pytest.mark.parametrize("strategy", [BeamSearch(8, 4), DVTS(8, 4), REBASE(8), ParticleFiltering(8), MCTS(8)])
def test_a_budget_of_tokens_ends_after_the_round_that_uses_it_up(strategy):
    tree, *_ = one(strategy, max_tokens=1)
    assert depths(tree) == {0: 1, 1: strategy.concurrency}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BeamSearch(4, 8), "strategy.width: 8: expected a divisor of num_beams, which is 4"),
        (lambda: BeamSearch(16, 3), "strategy.width: 3: expected a divisor of num_beams, which is 16"),
        (lambda: DVTS(4, 0), "strategy.width: expected >= 1, got 0"),
        (lambda: BestOfN(0), "strategy.num_samples: expected >= 1, got 0"),
        (lambda: Lookahead(-1), "strategy.num_steps: expected >= 0, got -1"),
        (lambda: REBASE(4, 0.0), "strategy.temperature: expected above 0, got 0.0"),
        (lambda: ParticleFiltering(4, -1.0), "strategy.temperature: expected above 0, got -1.0"),
        (lambda: MCTS(0), "strategy.num_simulations: expected >= 1, got 0"),
        (lambda: MCTS(exploration_init=float("nan")), "strategy.exploration_init: expected >= 0, got nan"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
