"""Every objective's training step on the card: float32 as on a CPU, bfloat16 as float32; compiled, and recomputed.

Bounds: float32 on two devices differs by the order of sums, 1e-4 of the gradient's norm. In bfloat16 hidden states are
off by ``bf16_bound`` (0.02 for three layers: eight rounded tensors each), so is a logit relative to the size of all; the
loss is a mean over hundreds of positions, whose errors partly cancel, so it is within that bound. The gradient passes
the same layers back: twice as many rounded tensors, of which each layer's gradient sees both ways; 4 times the bound.

Budget: 80 s, 40 of it for compiling.
"""

from __future__ import annotations

import time

import pytest
import torch
from msgspec.structs import replace

from stepverify.data.datamodule import SolutionData
from stepverify.models.incremental import open_cache, score_examples
from tests.gpu.work import OBJECTIVES, batch_of, bf16_bound, built, distance, solutions, step, tiny_llama

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bfloat16_trains_as_float32(objective, shared, model, device, record):
    """Loss and gradient of one batch in float32 on the card, against the CPU's; then under autocast against float32."""
    module = built(objective, model, device)
    batch = batch_of(objective, module, shared=shared)
    loss, gradient = step(module, batch)
    if device != "cpu":
        wanted_loss, wanted = step(built(objective, model, "cpu"), batch)
        assert loss == pytest.approx(wanted_loss, rel=1e-5, abs=1e-6)
        assert distance(gradient, wanted) < 1e-4
    half_loss, half = step(module, batch, autocast=True)
    off = distance(half, gradient)
    record(f"bfloat16, {objective}, {'shared' if shared else 'apart'}", loss=loss, of_bf16=half_loss, gradient_off=off)
    assert half_loss != loss
    assert abs(half_loss - loss) <= bf16_bound() * max(1.0, abs(loss))
    assert off <= 4 * bf16_bound()


@pytest.mark.parametrize("objective", ["generator", "orm, linear, bce", "prm, labels", "prm, vocabulary"])
def test_shared_prefixes_train_as_sequences_apart(objective, model, device):
    """One batch, packed and unpacked, in float32: the same loss and gradient."""
    module = built(objective, model, device)
    packed, apart = (batch_of(objective, module, shared=shared) for shared in (True, False))
    assert len(packed.input_ids) < 0.8 * len(apart.input_ids)
    (loss, gradient), (wanted_loss, wanted) = step(module, packed), step(module, apart)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert distance(gradient, wanted) < 1e-4


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_other_attentions_train_alike(attention, model, device):
    (loss, gradient), (wanted_loss, wanted) = (
        step(module := built("prm, labels", model, device, attention=how), batch_of("prm, labels", module))
        for how in (attention, "paths")
    )
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert distance(gradient, wanted) < 1e-4


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_recomputed_activations_change_nothing(autocast, model, device, record):
    """Gradient checkpointing repeats the forward pass, kernel by kernel: 1e-5 in float32, 2^-8 in bfloat16.

    Kernels of the backward pass add in an order that may differ from run to run.
    """
    results, peaks = [], []
    for recompute in (False, True):
        module = built("prm, labels", model, device, gradient_checkpointing=recompute)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        results.append(step(module, batch_of("prm, labels", module, problems=64), autocast=autocast))
        peaks.append(torch.cuda.max_memory_allocated() if device == "cuda" else 0)
        del module
    (loss, gradient), (wanted_loss, wanted) = results[1], results[0]
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    assert distance(gradient, wanted) < (2**-8 if autocast else 1e-5)
    if device == "cuda":
        record("gradient checkpointing", mib=peaks[1] / 2**20, mib_without=peaks[0] / 2**20)
        assert peaks[1] < peaks[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("objective", ["orm, linear, bce", "prm, labels"])
def test_growing_prefixes_score_as_without_a_cache(objective, dtype, model, device, record):
    """Steps one by one with a prefix cache: float32 to 1e-5. In bfloat16 each way is off by ``bf16_bound`` of its logits,
    of at most 5 here, and a value by a quarter of that."""
    module = built(objective, model, device)
    scored, encoder = module.model.eval().to(dtype), module.encoder
    encode = encoder.process if objective.startswith("prm") else encoder.outcome
    cache, counts, off = open_cache(scored, 0.1, "tiny"), [0, 0], 0.0

    def count(tokens, cached):
        counts[:] = counts[0] + tokens, counts[1] + cached

    for end in range(1, 6):
        grown = [encode(replace(s, steps=s.steps[:end], step_labels=None, finish="length"), None) for s in solutions()]
        wanted = dict(score_examples(scored, grown, 8192, None, None))
        found = dict(score_examples(scored, grown, 8192, cache, count))
        off = max(off, *(abs(a - b) for i in wanted for a, b in zip(found[i], wanted[i], strict=True)))
    record(f"prefix cache, {objective}, {dtype}", tokens=counts[0], not_computed=counts[1], largest_difference=off)
    assert cache.num_tokens == counts[0] - counts[1]
    assert counts[1] > 0.8 * counts[0]
    assert off <= (1e-5 if dtype == torch.float32 else 2 * bf16_bound() * 5 / 4)


@pytest.mark.seconds(150)
def test_compiled_layers_train_alike(model, device, record):
    """torch.compile, three batches of other sizes: float32 as without; compiled for one size and for all, not for each."""
    module, plain = built("prm, labels", model, device, compile=True), built("prm, labels", model, device)
    torch._dynamo.utils.counters.clear()
    start = time.perf_counter()
    for problems in (8, 5, 11):
        (loss, gradient), (wanted_loss, wanted) = (
            step(each, batch_of("prm, labels", module, problems=problems)) for each in (module, plain)
        )
        assert loss == pytest.approx(wanted_loss, rel=1e-5)
        assert distance(gradient, wanted) < 1e-4
    counters = torch._dynamo.utils.counters
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    record("torch.compile", seconds=time.perf_counter() - start, graphs=graphs, graph_breaks=breaks)
    assert 0 < graphs <= 6
    torch._dynamo.reset()


@pytest.mark.cuda("a CPU is never waited for")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_waits_for_nothing(objective, model):
    """A pinned batch, forward, backward, optimizer under autocast: torch raises at whatever waits for the card."""
    module = built(objective, model, "cuda")
    optimizer = torch.optim.AdamW(module.model.parameters(), lr=1e-5, fused=True)
    pinned = batch_of(objective, module).pin_memory()
    assert pinned.input_ids.is_pinned()
    for mode in ("default", "error"):  # the first step makes handles and states
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            batch = SolutionData().transfer_batch_to_device(pinned, torch.device("cuda"), 0)
            with torch.autocast("cuda", torch.bfloat16):
                outputs, nll = module.model(batch)
                total, _ = module.loss(outputs, batch.scored, module.model)
                loss = total / batch.loss_denominators[0] + (
                    0.0 if nll is None else nll.sum() / batch.loss_denominators[1]
                )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(batch.input_ids.cpu(), pinned.input_ids)
