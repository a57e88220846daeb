"""Growing prefixes with a prefix cache: values of plain scoring, whatever is cached or dropped, and exact counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stepverify.data.encode import SolutionEncoder  # noqa: E402
from stepverify.models import OutcomeModel, ProcessModel  # noqa: E402
from stepverify.models.incremental import why_not_cached  # noqa: E402
from stepverify.records import InputError, Solution  # noqa: E402
from stepverify.template import Template  # noqa: E402
from stepverify.verifier import Verifier  # noqa: E402
from tests.families.table import FAMILIES  # noqa: E402
from tests.helpers.exports import solution  # noqa: E402

STEPS = ["b = 1 + 1 = 2", "b = 1 + 1 = 3", "c = 3", "c = 4", "#### 3"]
CALLS = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.lists(st.sampled_from(STEPS), max_size=4), st.booleans()), max_size=5),
    min_size=1, max_size=5,
)  # fmt: skip
CACHED = ["llama", "gpt2", "gemma2", "gemma3_text", "deepseek_v2"]


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return SolutionEncoder(tokenizer, Template(prompt="{problem}\n", neutral="*"), max_length=50)


def tiny(name: str, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    family = next(f for f in FAMILIES if f.name == name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family.kind, **family.config() | changes))


def both(model, encoder, gib=1.0, **options):
    """One verifier with a cache and one without, of the same weights."""
    return [Verifier(model.eval(), encoder, {"objective": model.objective}, "m", prefix_cache_gib=g, **options) for g in (gib, None)]  # fmt: skip


def outcome_model(backbone):
    model = OutcomeModel(backbone)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.nn.init.normal_(model.value_head.weight)
    return model


def process_model(backbone, encoder, neutral="positive"):
    return ProcessModel(backbone, encoder.label_ids, neutral=neutral)


def asked(call):
    return [solution(number, steps, "stop" if ended else "length", i) for i, (number, steps, ended) in enumerate(call)]


def assert_equal(found, wanted):
    assert [len(values) for values in found] == [len(values) for values in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.fixture(scope="module", params=CACHED)
def verifiers(request, encoder):
    """(with a cache, without) for an outcome verifier and a process reward model with a neutral label."""
    backbone = tiny(request.param)
    return [both(outcome_model(backbone), encoder), both(process_model(backbone, encoder), encoder)]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS, per_token=st.booleans(), room=st.sampled_from([1 << 30, 40, 15]), pack=st.sampled_from([8192, 30]))
def test_any_calls_give_the_values_of_plain_scoring(verifiers, calls, per_token, room, pack):
    """Prefixes, whole solutions and both again, in any order; with room for all tokens, some, or not even a prompt's 13.

    In float32, to the 1e-5 of plain scoring in packs and rows.
    """
    for cached, plain in verifiers:
        cache = cached.prefix_cache
        cache.clear()
        assert cache.num_bytes == cache.num_tokens == 0
        cache.max_bytes = room * _bytes(cached)
        cached.pack_tokens = pack
        for call in calls:
            given = asked(call)
            assert_equal(
                cached.score_solutions(given, per_token=per_token), plain.score_solutions(given, per_token=per_token)
            )
            assert cache.num_bytes <= cache.max_bytes


def _bytes(verifier):
    """Of a token's keys, values and score, from one that is scored."""
    cache = verifier.prefix_cache
    if not hasattr(verifier, "token_bytes"):
        cache.max_bytes = 1 << 30
        verifier.score_solutions([solution(9, ["c = 3"])])
        verifier.token_bytes = cache.num_bytes // cache.num_tokens
        cache.clear()
    return verifier.token_bytes


def counted(verifier, solutions):
    total = [0, 0]

    def count(tokens, cached):
        total[0] += tokens
        total[1] += cached

    values = {i: along for i, along in verifier.stream(solutions, count)}
    return values, tuple(total)


def test_counts_of_a_beam_search_by_hand(encoder):
    """A prompt of 13 tokens; ``b = 1 + 1 = 2`` is 8 with its line end and 9 with its tag, ``c = 3`` 5, ``#### 3`` 4.

    Round 1 scores the prefixes b and c: 22 + 18 tokens, of which the prompt is read once: 13 cached, 27 computed.
    Round 2 scores b c, b # and c #, whole: 27 + 26 + 22 = 75 tokens; 22, 22 and 18 are known, so that 13 are computed.
    Round 3 scores them again: nothing is computed. Without a cache round 2 computes a tree of 13 + 9 + 5 + 4 + 5 + 4.
    """
    cached, plain = both(process_model(tiny("llama"), encoder), encoder)
    b, c, end = STEPS[0], STEPS[2], STEPS[4]
    first = asked([(1, [b], False), (1, [c], False)])
    second = asked([(1, [b, c], True), (1, [b, end], True), (1, [c, end], True)])
    values = []
    for call, counts in ((first, (40, 13)), (second, (75, 62)), (second, (75, 75))):
        found, read = counted(cached, call)
        assert read == counts
        values.append(found)
    assert cached.prefix_cache.num_tokens == 27 + 13
    assert cached.prefix_cache.evicted_tokens == 0
    assert values[1] == values[2], "to the bit"
    wanted, read = counted(plain, second)
    assert read == (75, 75 - 40)
    assert_equal([*(values[1][i] for i in range(3))], [*(wanted[i] for i in range(3))])


def test_an_outcome_verifiers_counts(encoder):
    """13 + 8 tokens of a prefix; then with ``#### 3`` and the end, 3 + 1 more; then per token, nothing more."""
    cached, plain = both(outcome_model(tiny("llama")), encoder)
    assert counted(cached, asked([(1, STEPS[:1], False)]))[1] == (21, 0)
    whole = asked([(1, [STEPS[0], STEPS[4]], True)])
    assert counted(cached, whole)[1] == (25, 21)
    along = cached.score_solutions(whole, per_token=True)
    assert_equal(along, plain.score_solutions(whole, per_token=True))
    assert len(along[0]) == 12


def test_neutral_counts_either_way(encoder):
    backbone = tiny("llama")
    given = [asked([(1, STEPS[:n], False)]) for n in (1, 2, 3)]
    found = []
    for neutral in ("positive", "negative"):
        cached, plain = both(process_model(backbone, encoder, neutral), encoder)
        for call in given:
            assert_equal(cached.score_solutions(call), plain.score_solutions(call))
        found.append(cached.score_solutions(given[-1])[0])
    assert all(one > other for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["phi3 (longrope)", "llama (dynamic rope)"])
def test_rows_that_change_their_positions_are_computed_whole(name, encoder, caplog):
    """Beyond 30 tokens all positions of a solution change, cached ones too: such calls are plain ones, to the bit."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    limit = {"original_max_position_embeddings": 30}
    changes = {
        "phi3 (longrope)": limit | {"rope_parameters": rope | limit},
        "llama (dynamic rope)": {"max_position_embeddings": 30},
    }
    with caplog.at_level("INFO"):
        cached, plain = both(process_model(tiny(name, **changes[name]), encoder), encoder)
    (said,) = [r.message for r in caplog.records if "prefix_cache_gib" in r.message]
    assert "not used in calls with a solution of more than 30 tokens" in said
    short, long, longer = (asked([(1, STEPS[:1] * n, False)]) for n in (1, 2, 3))
    assert counted(cached, short)[1] == (22, 0)
    assert counted(cached, short)[1] == (22, 22)
    for call in (long, longer, short, long):
        assert_equal(cached.score_solutions(call), plain.score_solutions(call))
    assert counted(cached, long)[1] == (31, 0)
    assert cached.score_solutions(longer) == plain.score_solutions(longer)
    assert cached.prefix_cache.num_tokens == 22


@pytest.mark.parametrize("name", ["mamba", "jamba", "gptj"])
def test_models_without_a_cache_say_so_once_and_score_all_the_same(name, encoder, caplog):
    with caplog.at_level("INFO"):
        cached, plain = both(outcome_model(tiny(name)), encoder)
    (said,) = [r.message for r in caplog.records if "prefix_cache_gib" in r.message]
    assert said.startswith("m: prefix_cache_gib: 1.0: not used, prefixes are read again in every call (slower): ")
    assert cached.prefix_cache is None
    given = asked([(1, STEPS[:2], False), (1, STEPS[:1], False)])
    assert cached.score_solutions(given) == plain.score_solutions(given)
    assert counted(cached, given)[1][1] == 0


def test_keys_that_depend_on_the_call_are_found_out(encoder):
    """A Llama whose layers scale keys by the number of tokens that are read together, which a tree alone does not show."""
    model = process_model(tiny("llama"), encoder).eval()
    assert why_not_cached(model) == ""
    for layer in model.backbone.model.layers:
        layer.self_attn.k_proj.register_forward_hook(lambda module, args, out: out * (1 + out.shape[1] / 100))
    assert why_not_cached(model).startswith("hidden states after a cached prefix differ by ")
    model = process_model(tiny("llama"), encoder).eval()
    model.backbone.model.layers[1].mlp.register_forward_pre_hook(_fail_on_few)
    assert why_not_cached(model) == "ValueError: fewer queries than keys"


def _fail_on_few(module, args):
    if args[0].shape[1] < 7:
        raise ValueError("fewer queries than keys\nby some")


@pytest.mark.parametrize("gib", [-1.0, math.inf, math.nan])
def test_impossible_sizes(gib, process):
    with pytest.raises(InputError, match=r"^prefix_cache_gib: expected 0 or more, or null, got "):
        Verifier.from_pretrained(process, device="cpu", prefix_cache_gib=gib)


def test_an_export_with_a_cache(process, outcome):
    """Prefixes through the Python API; bfloat16 keys are kept in bfloat16."""
    for path in (process, outcome):
        plain = Verifier.from_pretrained(path, device="cpu")
        cached = Verifier.from_pretrained(path, device="cpu", prefix_cache_gib=0.001)
        half = Verifier.from_pretrained(path, device="cpu", prefix_cache_gib=0.001, dtype="bfloat16")
        problem = "a = 1 ; b = a + 1 ; b ?"
        for end in range(1, 4):
            wanted = plain.score(problem, STEPS[:end], complete=False)
            assert cached.score(problem, STEPS[:end], complete=False) == pytest.approx(wanted, abs=1e-5)
            assert half.score(problem, STEPS[:end], complete=False) == pytest.approx(wanted, abs=0.05)
        assert cached.score(problem, STEPS[:3]) == pytest.approx(plain.score(problem, STEPS[:3]), abs=1e-5)
        for (node, _), (other, _) in zip(
            half.prefix_cache.find(_ids(half)), cached.prefix_cache.find(_ids(half)), strict=True
        ):
            assert (node.states.dtype, other.states.dtype) == (torch.bfloat16, torch.float32)
        assert Verifier.from_pretrained(path, device="cpu", prefix_cache_gib=0).prefix_cache is None


def _ids(verifier):
    record = Solution(id="", problem_id="", problem="a = 1 ; b = a + 1 ; b ?", steps=STEPS[:3], finish="length")
    return verifier.reading.encode(verifier.encoder, record).input_ids
