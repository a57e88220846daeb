"""The position that is trained is the position that is read; gradients and exports are exact."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from stepverify.data.batch import collate  # noqa: E402
from stepverify.data.encode import SolutionEncoder, load_tokenizer  # noqa: E402
from stepverify.losses import StepCrossEntropy  # noqa: E402
from stepverify.models import Backbone, GeneratorModel, LoRA, OutcomeModel, ProcessModel  # noqa: E402
from stepverify.readers import Synthetic  # noqa: E402
from stepverify.records import InputError, Solution  # noqa: E402
from stepverify.template import Template  # noqa: E402
from tests.helpers.fits import fit, write_labelled  # noqa: E402
from tests.helpers.losses import lost  # noqa: E402
from tests.helpers.modules import BASE, TEMPLATE, backbone  # noqa: E402


@pytest.fixture
def encoder() -> SolutionEncoder:
    return SolutionEncoder(load_tokenizer(BASE), TEMPLATE, max_length=128)


@pytest.fixture
def solutions() -> list[Solution]:
    return list(Synthetic("train", 4, num_steps=4).solutions())


def test_predicted_values_of_tokens_come_with_their_texts(tmp_path: Path, solutions: list[Solution]):
    from stepverify.callbacks import ScoreWriter
    from stepverify.modules import OutcomeVerifier

    for per_token in (True, False):
        module = OutcomeVerifier(Backbone(path=BASE, weights="random"), TEMPLATE, predict_every_token=per_token)
        writer = ScoreWriter(str(tmp_path / str(per_token)), "orm")
        module.configure_model()
        with torch.inference_mode():
            batch = collate([module.encode(s, labelled=False) for s in solutions])
            outputs = list(zip(solutions, batch.split(module.model.score(batch)), strict=True))
        writer.on_predict_batch_end(None, module, outputs, batch, 0)
        for s in writer._scored:
            assert len(s.scores["orm"]) == (len(module.encoder.token_texts(s)) if per_token else 1)
            assert s.token_texts == ({"orm": module.encoder.token_texts(s)} if per_token else {})
            s.token_texts = {}


def test_prm_learns_a_toy_rule_at_the_tag_and_nowhere_else(encoder: SolutionEncoder):
    """Rule: a step is correct if and only if it holds an even number. After a few updates the tag knows it.

    The labels of 40 one-step solutions alternate. At the tags the two classes are told apart without
    error; at the positions one and two before the tag, which a label that is shifted by one would train,
    the same two rows of the output matrix say less.
    """
    model = ProcessModel(backbone(), encoder.label_ids)
    records = [Solution(id=f"p#{i}", problem_id="p", problem="a ?", steps=[f"a = {i % 10}"]) for i in range(40)]
    targets = [[float(i % 2 == 0)] for i in range(40)]
    batch = collate([encoder.process(r, t) for r, t in zip(records, targets, strict=True)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        outputs, _ = model(batch)
        total, count = StepCrossEntropy()(outputs, batch.scored, model)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    with torch.inference_mode():
        assert torch.equal(model.score(batch) > 0.5, batch.scored.targets > 0.5)
        assert total / count < 0.05
        before = collate([encoder.process(r, None) for r in records])
        for shift in (1, 2):
            before.scored.index = batch.scored.index - shift
            hidden = model.score(before)
            assert (hidden - batch.scored.targets).abs().mean() > (
                model.score(batch) - batch.scored.targets
            ).abs().mean() + 0.1


@pytest.mark.parametrize("kind", ["process", "outcome", "generator"])
def test_only_read_positions_have_a_gradient(kind: str, encoder: SolutionEncoder, solutions: list[Solution]):
    """The gradient on the last hidden states is zero wherever nothing is read, and not where it is."""
    if kind == "process":
        # the second and the last of five steps are labelled
        labels = [None, 1.0, None, None, 0.0]
        model, example = ProcessModel(backbone(), encoder.label_ids), encoder.process(solutions[0], labels)
        assert [example.input_ids[p] for p in example.positions] == [encoder.step_tag_id] * 2
    elif kind == "outcome":
        model, example = OutcomeModel(backbone()), encoder.outcome(solutions[0], [1.0] * 5)
        torch.nn.init.normal_(model.value_head.weight)
    else:
        model, example = GeneratorModel(backbone()), encoder.next_token(solutions[0])
    batch = collate([example])
    kept = []

    def keep(module, args, output):
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    model.backbone.get_decoder().register_forward_hook(keep)
    model(batch)[0].sum().backward()
    touched = kept[0].grad[0].abs().sum(-1) > 0
    assert touched.nonzero().flatten().tolist() == example.positions


@pytest.mark.parametrize("chunk", [None, 2])
def test_among_the_whole_vocabulary_the_loss_is_next_token_prediction(chunk, encoder, solutions, monkeypatch):
    """transformers' own cross-entropy of + or - after each tag, on the same ids; the scores do not change."""
    from stepverify import losses
    from stepverify.models import process

    monkeypatch.setattr(process, "log_partition", lambda *a, **k: losses.log_partition(*a, **k, chunk=chunk))
    model = ProcessModel(backbone(), encoder.label_ids, over_vocabulary=True).eval()
    batch = collate([encoder.process(solutions[0], [1.0, 1.0, 0.0, 1.0, 0.0])])
    outputs = model(batch)[0]
    total, count = StepCrossEntropy()(outputs, batch.scored, model)
    logits = model.decode(input_ids=batch.input_ids[None]).logits[0, batch.scored.index]
    labels = torch.tensor(encoder.label_ids)[batch.scored.targets.long()]
    torch.testing.assert_close(total / count, torch.nn.functional.cross_entropy(logits, labels), rtol=1e-4, atol=1e-5)
    (total / count).backward()
    assert model.output_matrix()[0].grad.abs().sum(1).gt(0).all()
    alone = ProcessModel(model.backbone, encoder.label_ids).eval()
    torch.testing.assert_close(model.score(batch), alone.score(batch))


def test_outcome_verifier_starts_undecided(encoder, solutions):
    """The value head begins at zero: every value is 1/2."""
    model = OutcomeModel(backbone())
    values = model.score(collate([encoder.outcome(s, None) for s in solutions]))
    assert torch.equal(values, torch.full_like(values, 0.5))


def test_company_changes_nothing(encoder, solutions):
    """A solution alone, and beside one that is three times as long: the same values."""
    model = ProcessModel(backbone(), encoder.label_ids).eval()
    short = Solution(id="s#0", problem_id="s", problem="a = 3 ; a ?", steps=["#### 3"])
    with torch.inference_mode():
        alone = model.score(collate([encoder.process(short, None)]))
        batch = collate([encoder.process(s, None) for s in (*solutions, short)])
        beside = batch.split(model.score(batch))[-1]
    assert beside == pytest.approx(alone.tolist(), abs=1e-6)


def test_joint_language_loss_is_the_generators_own(encoder, solutions):
    """A reference beside two judged samples: their values are as without it, its token losses those of a generator."""
    reference, *samples = solutions[:3]
    judged = [encoder.outcome(s, [1.0] * len(s.steps)) for s in samples]
    model = OutcomeModel(backbone(), encoder.step_tag_id).eval()
    alone, nothing = model(collate(judged))
    outputs, nll = model(batch := collate([*judged, encoder.lm(reference)]))
    assert nothing is None
    torch.testing.assert_close(
        outputs[batch.scored.entries], alone[collate(judged).scored.entries], rtol=1e-4, atol=1e-5
    )
    own = collate([encoder.next_token(reference)])
    torch.testing.assert_close(batch.split(outputs)[-1], [])
    expected = GeneratorModel(model.backbone)(own)[0][own.scored.entries]
    torch.testing.assert_close(nll[batch.lm.entries], expected, rtol=1e-4, atol=1e-5)


def test_a_duplicate_is_computed_once_and_counts_twice(encoder, solutions):
    """Same tokens, same row of the attention; each of its positions weighs 2."""
    example = encoder.outcome(solutions[0], [1.0] * len(solutions[0].steps))
    once, twice = collate([example]), collate([example, example])
    assert twice.input_ids.tolist() == once.input_ids.tolist()
    assert twice.tree.rows.tolist() == once.tree.rows.tolist()
    assert twice.scored.weights.tolist() == [2.0] * len(once.scored.weights)


def test_a_reserved_row_of_zeros_starts_at_one_half(encoder, solutions):
    model = OutcomeModel(backbone(), encoder.step_tag_id).eval()
    with torch.no_grad():
        model.output_matrix()[0][encoder.step_tag_id] = 0.0
    model.start_undecided(encoder.probe())
    assert set(model.score(collate([encoder.outcome(s, None) for s in solutions])).tolist()) == {0.5}


def test_dropout_is_of_both_branches_in_training_only(encoder, solutions):
    batch = collate([encoder.outcome(s, None) for s in solutions])
    plain, dropping = (
        OutcomeModel(backbone(), encoder.step_tag_id),
        OutcomeModel(backbone(dropout=0.5), encoder.step_tag_id),
    )
    with torch.no_grad():
        assert not torch.allclose(dropping(batch)[0], plain(batch)[0])
        torch.testing.assert_close(dropping.eval()(batch)[0], plain.eval()(batch)[0])
    ones = torch.ones(1, 1000, 1)
    layer = dropping.train().backbone.get_decoder().layers[0]
    for hook in (*layer.self_attn._forward_hooks.values(), *layer.mlp._forward_hooks.values()):
        dropped = hook(dropping, (), (ones, None))[0]
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
    with pytest.raises(InputError, match=r"backbone.dropout: expected 0 <= share < 1, got 1.0"):
        Backbone(path=BASE, dropout=1.0).check()


def test_lora_trains_adapters_only(encoder, solutions):
    """Two updates: every frozen parameter is bit for bit what it was, every adapter's B has moved."""
    model = ProcessModel(backbone(lora=LoRA(rank=2)), encoder.label_ids)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batch = collate([encoder.process(s, [1.0, 0.0, 1.0, 0.0, 1.0]) for s in solutions])
    for _ in range(2):
        total, count = StepCrossEntropy()(model(batch)[0], batch.scored, model)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            assert not torch.equal(parameter, before[name]), name
        elif "lora_" not in name:
            assert torch.equal(parameter, before[name]), name


def test_what_an_attention_cannot_do_is_said_before_the_first_step():
    with pytest.raises(InputError, match=r"flex has no dropout, attention_dropout is 0\.1; choose paths"):
        backbone(attention="flex", attention_dropout=0.1)


def test_flex_does_not_train_on_a_cpu(tiny_model_dir: Path, tmp_path: Path, capsys):
    flex = {"path": str(tiny_model_dir), "attention": "flex"}
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", "GeneratorModule", write_labelled(tmp_path / "data"), flex)
    assert "flex has no backward pass on a CPU; choose paths" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "lora"), [("qwen2", None), ("gpt2", None), ("qwen2", LoRA(rank=2))])
def test_weight_decay_is_of_matrices_only(kind, lora, tmp_path: Path, encoder):
    """Embeddings of tokens and places (whatever they are called, tied or not), norms and biases are left out; adapters not."""
    from types import SimpleNamespace

    from stepverify.modules import ProcessRewardModel
    from tests.helpers.tiny import model_folder

    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2} if kind == "gpt2" else {}
    folder = model_folder(kind, tmp_path / "base", encoder.tokenizer, **sizes)
    module = ProcessRewardModel(
        Backbone(path=str(folder), lora=lora),
        TEMPLATE,
        optimizer=lambda groups: torch.optim.AdamW(groups, weight_decay=0.1),
    )
    module.model = module.build()
    module.trainer = SimpleNamespace(estimated_stepping_batches=1)
    groups = module.configure_optimizers()["optimizer"].param_groups
    names = {parameter: name for name, parameter in module.named_parameters()}
    decay = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == sum(p.requires_grad for p in names)
    for name, weight in decay.items():
        plain = any(part in name for part in ("embed", "wte", "wpe", "norm", "ln_", "bias"))
        assert weight == (0.0 if plain else 0.1), name
    assert set(decay.values()) == ({0.1} if lora else {0.0, 0.1})


def test_regression_on_the_value_has_no_classes():
    import math
    from types import SimpleNamespace

    from stepverify.modules import ProcessRewardModel

    base = Backbone(path="lit_configs/quickstart/base", weights="random")
    with pytest.raises(InputError, match="loss: StepMSE does not support loss_over: vocabulary"):
        ProcessRewardModel(base, Template(), loss="mse", loss_over="vocabulary")
    module = ProcessRewardModel(base, Template(), loss="mse")
    model = SimpleNamespace(values=lambda outputs: outputs.softmax(-1)[:, 1])
    logits = torch.tensor([[0.0, math.log(3)]], requires_grad=True)
    total, _ = lost(module.loss, logits, torch.tensor([0.5]), model=model)
    total.backward()
    assert total.item() == pytest.approx((3 / 4 - 1 / 2) ** 2)
    # Of the second logit: 2 (3/4 - 1/2) times 3/4 (1 - 3/4).
    assert logits.grad[0].tolist() == pytest.approx([-3 / 32, 3 / 32])
