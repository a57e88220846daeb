"""Rewards of an implicit reward model: log-ratios along the paths of a tree, exact in values and gradients."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from stepverify.data.batch import collate  # noqa: E402
from stepverify.data.encode import SolutionEncoder, load_tokenizer  # noqa: E402
from stepverify.data.tree import apart, share  # noqa: E402
from stepverify.losses import OutcomeBCE, OutcomeRanking  # noqa: E402
from stepverify.models import ImplicitModel, LoRA  # noqa: E402
from stepverify.models.implicit import along_paths  # noqa: E402
from stepverify.objectives import Reading  # noqa: E402
from stepverify.records import InputError  # noqa: E402
from stepverify.verifier import Verifier  # noqa: E402
from tests.helpers.exports import SOLUTIONS, solution  # noqa: E402
from tests.helpers.implicit import (  # noqa: E402
    BETA,
    SCALING,
    log_probs,
    other_weights,
    pairs,
    rewards_by_hand,
    write_implicit,
)
from tests.helpers.modules import BASE, TEMPLATE, backbone  # noqa: E402


@pytest.fixture
def encoder() -> SolutionEncoder:
    return SolutionEncoder(load_tokenizer(BASE), TEMPLATE, max_length=128)


@pytest.fixture(scope="module")
def reference_dir(tiny_model_dir, tmp_path_factory) -> Path:
    return other_weights(tiny_model_dir, tmp_path_factory.mktemp("models") / "reference")


@pytest.fixture(scope="module")
def export(tiny_model_dir, reference_dir, tmp_path_factory) -> str:
    return write_implicit(tiny_model_dir, reference_dir, tmp_path_factory.mktemp("exports") / "implicit")


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6), st.booleans())
def test_sums_along_paths_are_those_of_each_sequence(sequences, shared):
    """Values of tokens are arbitrary, and large ones beside small ones cancel exactly."""
    forest = (share if shared else apart)(sequences)
    values = torch.tensor([(-1) ** i * 10.0 ** (i % 7) for i in range(len(forest.ids))])
    found = along_paths(values, torch.arange(len(values)), torch.from_numpy(forest.end))
    for path in forest.paths:
        expected = values[torch.from_numpy(path)].double().cumsum(0)
        torch.testing.assert_close(found[torch.from_numpy(path)], expected, rtol=0, atol=1e-8)


def test_only_the_given_tokens_count():
    """Of a b c and a d, with values at b = 2, c = 3, d = 5: 0, 2, 5 and 0, 5."""
    forest = share([[1, 2, 3], [1, 4]])
    sums = along_paths(torch.tensor([2.0, 3.0, 5.0]), torch.tensor([1, 2, 3]), torch.from_numpy(forest.end))
    assert sums.tolist() == [0.0, 2.0, 5.0, 5.0]


def examples_of(encoder, records):
    found = []
    for record in records:
        example = encoder.outcome(record, [float(record.correct)] * len(record.steps))
        example.weights = [0.0] * (len(example.positions) - 1) + [1.0]
        found.append(example)
    return found


@pytest.mark.parametrize("loss", [OutcomeBCE(), OutcomeRanking(), OutcomeRanking("listwise")])
@pytest.mark.parametrize("shared", [True, False])
def test_loss_and_gradients_are_those_of_plain_sequences(loss, shared, encoder, tiny_model_dir):
    """8 pairs with common steps in a pack, against transformers' full logits of each sequence alone, summed by hand.

    Pairs: -log σ(r_correct - r_incorrect) of 7 problems; of all 16 solutions the binary cross-entropy of σ(r).
    """
    from transformers import AutoModelForCausalLM

    model = ImplicitModel(backbone(), 0.5)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    records = pairs()
    examples = examples_of(encoder, records)
    with torch.no_grad():
        for example in examples:
            example.reference = log_probs(plain, example.input_ids, example.positions[0]).tolist()
    batch = collate(examples, shared=shared)
    total, count = loss(model(batch)[0], batch.scored, model)
    total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    rewards = torch.stack([
        0.5 * (log_probs(model.decode, e.input_ids, e.positions[0]) - torch.tensor(e.reference)).sum()
        for e in examples
    ])  # fmt: skip
    if isinstance(loss, OutcomeBCE):
        correct = torch.tensor([float(r.correct) for r in records])
        expected, number = torch.nn.functional.binary_cross_entropy_with_logits(rewards, correct, reduction="sum"), 16
    else:  # with one pair a problem both forms are -log σ of the difference
        expected, number = -torch.nn.functional.logsigmoid(rewards[2::2] - rewards[3::2]).sum(), 7
    expected.backward()
    assert count.item() == number
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_a_policy_that_is_its_reference_knows_nothing(lora, encoder):
    """Adapters, also trained ones, are off in the reference. Every reward is 0: values 1/2, loss ln 2 for each solution."""
    model = ImplicitModel(backbone(lora=lora)).eval()
    examples = examples_of(encoder, pairs())
    batch = collate(examples)
    with torch.no_grad(), model.as_reference():
        found = batch.split(model.log_probs(batch))
    for example, own in zip(examples, found, strict=True):
        example.reference = own
    batch = collate(examples)
    outputs, nothing = model(batch)
    assert nothing is None
    assert outputs.abs().max() < 1e-6
    total, count = OutcomeBCE()(outputs, batch.scored, model)
    assert (total / count).item() == pytest.approx(math.log(2), abs=1e-6)
    assert model.values(outputs).sub(0.5).abs().max() < 1e-6
    if lora is not None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
            assert model(batch)[0].abs().max() > 1e-2
            with model.as_reference():
                assert model(batch)[0].abs().max() < 1e-6


def test_step_rewards_sum_to_the_solutions(export, tiny_model_dir, reference_dir):
    """By transformers alone: β times the log-ratios of each step's tokens; values are σ(2 q - 1/4) and σ(2 r)."""
    cumulative = Verifier.from_pretrained(export, device="cpu")
    steps = Verifier.from_pretrained(export, device="cpu", rewards="step")
    for s, along, own, tokens in zip(
        SOLUTIONS, cumulative.score_solutions(SOLUTIONS), steps.score_solutions(SOLUTIONS),
        cumulative.score_solutions(SOLUTIONS, per_token=True), strict=True,
    ):  # fmt: skip
        rewards = torch.tensor(rewards_by_hand(tiny_model_dir, reference_dir, s, BETA, s.problem + "\n"))
        gain, bias = SCALING
        assert along == pytest.approx((gain * rewards.cumsum(0) + bias).sigmoid().tolist(), abs=2e-5)
        assert own == pytest.approx((gain * rewards).sigmoid().tolist(), abs=2e-5)
        assert sum(map(logit, own)) == pytest.approx(logit(along[-1]) - bias, abs=1e-2)  # of six decimals
        assert (tokens[-1], len(tokens)) == (along[-1], len(cumulative.token_texts(s)))


def logit(value: float) -> float:
    return math.log(value / (1 - value))


def test_a_prefix_has_the_values_of_its_solution(export):
    verifier = Verifier.from_pretrained(export, device="cpu")
    steps = SOLUTIONS[1].steps
    whole = verifier.score(SOLUTIONS[1].problem, steps)
    assert verifier.score(SOLUTIONS[1].problem, steps[:2], complete=False) == pytest.approx(whole[:2], abs=2e-6)


def test_reading_by_hand():
    """Rewards 1, 2, 4, 3 of tokens; the first step has two, the last one the end too. Gain 2, bias 1."""

    class Words:
        def step(self, step):
            return step.split()

    reading = Reading("implicit", scaling=(2.0, 1.0))
    s = solution(0, ["a b", "c"])
    sigma = [1 / (1 + math.exp(-x)) for x in (2 * 2 + 1, 2 * 3 + 1, 2 * 2, 2 * (3 - 2))]
    assert reading.values([1, 2, 4, 3], Words(), s) == pytest.approx(sigma[:2])
    assert Reading("implicit", "step", (2.0, 1.0)).values([1, 2, 4, 3], Words(), s) == pytest.approx(sigma[2:])
    assert reading.values([-1e4, 1e4], Words(), s, per_token=True) == [0.0, 1.0]
    assert (reading.aggregation, Reading("implicit", "step").aggregation) == ("last", "min")


def test_best_of_takes_the_value_of_the_whole_solution(export):
    verifier = Verifier.from_pretrained(export, device="cpu")
    candidates = [["b = 1", "#### 1"], ["b = 2", "#### 2"]]
    last = [values[-1] for values in verifier.score(["a"] * 2, candidates)]
    assert verifier.best_of("a", candidates).scores == last


def test_a_wrong_or_missing_reference_is_refused(export, reference_dir, tiny_model_dir, tmp_path):
    """One with other weights, none, one for a verifier without; and one that has moved is found where it is now."""
    with pytest.raises(InputError, match=r"reference: .*tiny: has other weights than in training \(digest \w{12}, the"):
        Verifier.from_pretrained(export, reference=str(tiny_model_dir))
    with pytest.raises(InputError, match=r"its reference cannot be read: .*nowhere: no model with weights"):
        Verifier.from_pretrained(export, reference=str(tmp_path / "nowhere"))
    moved = tmp_path / "moved"
    moved.symlink_to(reference_dir)
    there = Verifier.from_pretrained(export, reference=str(moved), device="cpu")
    assert there.score("a", ["b = 1"]) == Verifier.from_pretrained(export, device="cpu").score("a", ["b = 1"])


def test_other_verifiers_have_neither_rewards_nor_a_reference(process, tiny_model_dir):
    with pytest.raises(InputError, match="rewards: step: it is no implicit reward model"):
        Verifier.from_pretrained(process, rewards="step")
    with pytest.raises(InputError, match=r"reference: .*: it is no implicit reward model"):
        Verifier.from_pretrained(process, reference=str(tiny_model_dir))


def test_without_a_prefix_cache_it_is_said(export, caplog):
    with caplog.at_level("INFO"):
        verifier = Verifier.from_pretrained(export, device="cpu", prefix_cache_gib=1)
    assert verifier.prefix_cache is None
    assert "prefix_cache_gib: 1: not used, prefixes are read again in every call (slower): an implicit" in caplog.text
