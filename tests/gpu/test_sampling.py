"""The transformers engine and the scorer on the card. Budget: 20 s."""

from __future__ import annotations

import time

import pytest

from stepverify.readers import Synthetic
from tests.gpu import sampling_side
from tests.gpu.work import solutions

pytestmark = pytest.mark.gpu

PROMPTS = [f"{p.problem}\n" for p in Synthetic("test", 12, worked=False).problems()]


def test_greedy_completions_are_those_of_a_cpu(model, device):
    """Float32, TF32 off: 12 prompts of other lengths, 40 tokens each; and in batches of 5 as in one."""
    wanted = sampling_side.completions(model, PROMPTS, "cpu", temperature=0, max_tokens=40)
    assert len({tuple(c[0]) for c in wanted}) > 6
    assert sampling_side.completions(model, PROMPTS, device, temperature=0, max_tokens=40) == wanted
    assert sampling_side.completions(model, PROMPTS, device, batch_size=5, temperature=0, max_tokens=40) == wanted


def test_samples_are_those_of_a_cpu(model, device, record):
    """A token is sampled by a hash of seed and position: the same on every device, but where a border of the cumulative
    distribution lies within rounding: 48 samples of 24 tokens, all but two at most."""
    found, wanted = (
        sampling_side.completions(model, PROMPTS, where, n=4, temperature=1.0, max_tokens=24)
        for where in (device, "cpu")
    )
    pairs = [(a, b) for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True)]
    different = sum(a != b for a, b in pairs)
    record("samples", different_from_cpu=different, of=len(pairs))
    assert len({tuple(b) for _, b in pairs}) > 30
    assert different <= 2


@pytest.mark.seconds(60)
def test_speed_of_sampling(model, device, record):
    """Output tokens a second of a tiny model: the engine's own cost, of which the card's share is small."""
    sampling_side.completions(model, PROMPTS, device, n=4, temperature=1.0, max_tokens=8, dtype="bfloat16")
    start = time.perf_counter()
    n, length = (64, 96) if device == "cuda" else (4, 16)
    found = sampling_side.completions(model, PROMPTS, device, n=n, batch_size=256, max_tokens=length, dtype="bfloat16")
    tokens = sum(len(c) for some in found for c in some)
    record("transformers engine", tokens=tokens, tokens_per_second=tokens / (time.perf_counter() - start))
    assert tokens > len(PROMPTS) * n


@pytest.mark.parametrize("kind", ["OutcomeVerifier", "ProcessRewardModel"])
def test_the_score_stage_takes_the_card_and_gives_the_scores_of_a_cpu(kind, trained, data, device, tmp_path):
    """``sampling score`` in float32, chosen device, against the scorer on a CPU: to 1e-4."""
    export = str(trained[kind][0] / "export")
    found = sampling_side.scored_by_stage(export, data, tmp_path / "scores")
    wanted = sampling_side.scores(export, solutions(), "cpu")
    assert len(found) == len(wanted) == 32
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
