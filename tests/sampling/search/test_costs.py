"""Every token of a search is counted once, by hand."""

import pytest

from sampling.search import DVTS, MCTS, REBASE, BeamSearch, BestOfN, Cost, Lookahead, ParticleFiltering
from sampling.search.costs import added
from tests.helpers.searches import Lawful, Valued, explored, searched

PROMPT = len("Q000\n")
SURE = {"known": lambda steps: {"ab": 1.0} if len(steps) < 2 else {"#### 1": 1.0}}


def cost(strategy, caches, **options):
    engine, scorer = Lawful(caches=caches, **SURE), Valued(lambda s: 0.5, caches=caches)
    ((tree, _),), store = explored(strategy, engine=engine, scorer=scorer, **options)
    total = tree.costs.total()
    assert total.generated_tokens == sum(record.tokens for record in store.kept)
    return total


def test_best_of_two():
    """The prompt has 5 tokens, a solution ``ab⏎ab⏎#### 1`` has 12. One request reads the prompt once for both.

    The verifier reads 3 characters of the problem, and 3, 3 and 7 of the steps with their tags: 16, once of 32, since
    both solutions are equal. 2 · (10 · (24 + 5) + 1000 · 16) operations.
    """
    for caches in (False, True):
        assert cost(BestOfN(2), caches) == Cost(
            generated_tokens=24, prompt_tokens=5, cached_prompt_tokens=5, verifier_tokens=16, cached_verifier_tokens=16,
            engine_calls=1, verifier_calls=1, flops=2.0 * (10 * 29 + 1000 * 16),
            verifier_flops=2.0 * 1000 * 16,
        )  # fmt: skip


def test_a_beam_of_two_without_caches():
    """Three rounds of two equal children of one beam, of which one is kept: 3, 3 and 6 tokens each are sampled.

    The engine reads 5, 8 and 11 tokens, and would read as many again for the second child. The verifier reads prefixes
    of 6, 9 and 16 tokens, once for both children, but from the beginning in every round.
    """
    assert cost(BeamSearch(2, 2), caches=False) == Cost(
        generated_tokens=2 * (3 + 3 + 6), prompt_tokens=5 + 8 + 11, cached_prompt_tokens=5 + 8 + 11,
        verifier_tokens=6 + 9 + 16, cached_verifier_tokens=6 + 9 + 16, engine_calls=3, verifier_calls=3,
        flops=2.0 * (10 * (24 + 24) + 1000 * 31), verifier_flops=2.0 * 1000 * 31,
    )  # fmt: skip


def test_a_beam_of_two_with_caches():
    """The engine reads the prompt alone, the verifier 16 tokens: each token once."""
    found = cost(BeamSearch(2, 2), caches=True)
    assert (found.prompt_tokens, found.cached_prompt_tokens) == (5, 2 * (5 + 8 + 11) - 5)
    assert (found.verifier_tokens, found.cached_verifier_tokens) == (16, 2 * (6 + 9 + 16) - 16)
    assert found.flops == 2.0 * (10 * (24 + 5) + 1000 * 16)


def test_lookahead_costs_its_steps():
    """Two children, merged into one, which looks ahead one step: a third of 3, of 6 and of none in the three rounds.

    The values that count are those of its ends, so the verifier reads both the children and the ends.
    """
    plain, ahead = cost(BeamSearch(2, 2), caches=False), cost(Lookahead(1, 2, 2), caches=False)
    assert ahead.generated_tokens == plain.generated_tokens + 3 + 6
    assert ahead.engine_calls == plain.engine_calls + 2
    assert ahead.verifier_tokens == plain.verifier_tokens + 9 + 16


@pytest.mark.parametrize(
    "strategy",
    [BestOfN(8), BeamSearch(8, 4), Lookahead(1, 8, 4), DVTS(8, 4), REBASE(8), ParticleFiltering(8), MCTS(8), MCTS(8, evaluation="rollout")],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
def test_no_sampled_token_is_left_out(strategy):
    """Pruned, merged and rolled out ones included; and what the engine was asked for is what was counted."""
    engine = Lawful()
    found, store = explored(strategy, 5, engine=engine)
    for tree, _ in found:
        mine = [record for record in store.kept if record.problem_id == tree.problem.id]
        assert tree.costs.total().generated_tokens == sum(len(record.token_ids) for record in mine)
        assert tree.num_expansions == len(mine)
    assert sum(tree.costs.total().engine_calls for tree, _ in found) == len(engine.asked)
    assert sum(len(r.prompt_ids) * r.n for r in engine.asked) == sum(
        c.prompt_tokens + c.cached_prompt_tokens for c in (tree.costs.total() for tree, _ in found)
    )


def test_operations_are_unknown_without_the_number_of_parameters(tmp_path):
    engine = Lawful()
    engine.num_parameters = None
    results, _ = searched(tmp_path / "out", BestOfN(2), 2, engine=engine)
    assert {result.cost.flops for result in results.values()} == {None}


def test_costs_add_up():
    one = Cost(generated_tokens=1, flops=2.0, verifier_flops=1.0)
    two = Cost(generated_tokens=3, verifier_calls=1, flops=5.0, verifier_flops=4.0)
    assert added([one, two]) == Cost(generated_tokens=4, verifier_calls=1, flops=7.0, verifier_flops=5.0)
    assert added([one, Cost()]).flops is None
