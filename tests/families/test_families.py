"""Losses, values, gradients, exports and scores on every architecture, against transformers on rows of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from stepverify.data.batch import collate  # noqa: E402
from stepverify.data.encode import SolutionEncoder  # noqa: E402
from stepverify.losses import OutcomeBCE, StepCrossEntropy, weighted  # noqa: E402
from stepverify.models import (  # noqa: E402
    Backbone,
    GeneratorModel,
    ImplicitModel,
    OutcomeModel,
    ProcessModel,
    load_verifier,
)
from stepverify.models.incremental import why_not_cached  # noqa: E402
from stepverify.models.rows import reset_rope  # noqa: E402
from stepverify.records import InputError, Solution  # noqa: E402
from stepverify.template import Template  # noqa: E402
from stepverify.verifier import Verifier  # noqa: E402
from tests.families.table import FAMILIES, Family  # noqa: E402

TEMPLATE = Template(prompt="Q{problem}\n")
FAST = {"gemma2", "granite", "gpt2", "mamba", "bert"}
# Shared prefixes of several lengths; one solution is the beginning of another, and one has a problem of its own.
SOLUTIONS = [
    Solution(id=f"p#{i}", problem_id=problem[0], problem=problem, steps=steps, correct=i % 2 == 0)
    for i, (problem, steps) in enumerate(
        [
            ("a = 1", ["a", "a + 1 = 2", "2"]), ("a = 1", ["a", "a + 1 = 3"]), ("a = 1", ["b"]),
            ("a = 1", ["a", "a + 1 = 2", "2", "b - 4 = 0"]), ("c", ["2", "1"]),
        ]
    )
]  # fmt: skip


class Plain:
    """Transformers' own forward pass on one row, attention written out, and what its output matrix was given."""

    def __init__(self, folder: Path, attention: str) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()
        self.model.get_output_embeddings().register_forward_pre_hook(lambda module, args: self.given.append(args[0]))
        self.given: list[Any] = []

    def __call__(self, ids: list[int]) -> tuple[Any, Any]:
        """(T, V) logits and (T, D) hidden states."""
        reset_rope(self.model)
        logits = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return logits, self.given[-1][0]


@pytest.fixture
def encoder(characters: Any) -> SolutionEncoder:
    return SolutionEncoder(characters, TEMPLATE, max_length=64)


def base_of(family: Family, folder: Path) -> Path:
    """Random weights, none of them zero or one: biases, sinks and loss_denominators count."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.kind, **family.config()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def export(model: Any, encoder: SolutionEncoder, folder: Path, form: Any = None) -> Verifier:
    model.export(folder, model.state_dict(), form)
    encoder.tokenizer.save_pretrained(str(folder))
    ids = {"ids": encoder.judging_ids()} if model.objective == "process" else {}
    TEMPLATE.save(folder, objective=model.objective, form=form or model.form, max_length=64, **ids)
    return Verifier.from_pretrained(folder, device="cpu", pack_tokens=60)


def same_gradients(model: Any, loss: Any, plain: Plain, wanted: Any) -> None:
    model.zero_grad()
    plain.model.zero_grad()
    loss.backward()
    wanted.backward()
    found = {n: p.grad for n, p in model.backbone.named_parameters()}
    expected = {n: p.grad for n, p in plain.model.named_parameters()}
    assert found.keys() == expected.keys()
    largest = max(g.abs().max().item() for g in expected.values() if g is not None)
    assert largest > 0
    for name, value in expected.items():
        one, other = (torch.zeros(()) if g is None else g for g in (found[name], value))
        torch.testing.assert_close(
            *torch.broadcast_tensors(one, other), rtol=2e-3, atol=2e-4 * largest, msg=lambda m, n=name: f"{n}: {m}"
        )


def together(model: Any, examples: list[Any]) -> Any:
    return collate(examples, shared=model.packs(max(len(e.input_ids) for e in examples)))


def close(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(wanted), rtol=2e-4, atol=5e-5)


def marks(family: Family) -> list[Any]:
    return [] if family.name in FAST else [pytest.mark.slow]


@pytest.mark.parametrize("family", [pytest.param(f, id=f.name, marks=marks(f)) for f in FAMILIES])
@pytest.mark.usefixtures("single_thread")
def test_a_family(family: Family, encoder: SolutionEncoder, tmp_path: Path) -> None:
    base = base_of(family, tmp_path / "base")
    if family.reads.startswith("refused: "):
        with pytest.raises(InputError, match=family.reads.removeprefix("refused: ")):
            Backbone(path=str(base)).load()
        return
    plain = Plain(base, family.plain)
    check_generator(family, base, plain, encoder)
    check_process(family, base, plain, encoder, tmp_path)
    check_outcome(family, base, plain, encoder, tmp_path)
    check_implicit(base, plain, encoder)


def check_generator(family: Family, base: Path, plain: Plain, encoder: SolutionEncoder) -> None:
    """Token losses, their sum and its gradients."""
    model = GeneratorModel(Backbone(path=str(base)).load()).eval()
    assert model.packed == (family.reads == "packed"), model.reading
    examples = [encoder.next_token(s) for s in SOLUTIONS]
    batch = together(model, examples)
    losses, _ = model(batch)
    wanted = []
    for example in examples:
        logits = plain(example.input_ids)[0][example.positions].float()
        wanted.append(F.cross_entropy(logits, torch.tensor(example.targets).long(), reduction="none"))
    for found, expected in zip(batch.split(losses), wanted, strict=True):
        close(found, expected.detach())
    same_gradients(model, weighted(losses, batch.scored.weights)[0], plain, torch.cat(wanted).sum())


def check_process(family: Family, base: Path, plain: Plain, encoder: SolutionEncoder, folder: Path) -> None:
    """Values and losses among labels and the vocabulary, gradients, and scores of both forms of the export."""
    model = ProcessModel(Backbone(path=str(base)).load(), encoder.label_ids).eval()
    assert (why_not_cached(model) == "") == (family.reads == "packed")
    examples = [encoder.process(s, [1.0] * (len(s.steps) - 1) + [0.0]) for s in SOLUTIONS]
    batch = together(model, examples)
    labels = list(encoder.label_ids)
    full = [plain(e.input_ids)[0][e.positions].float() for e in examples]
    correct = [torch.tensor(e.targets).long() for e in examples]
    values = [logits[:, labels].softmax(-1)[:, 1].detach() for logits in full]
    for found, expected in zip(batch.split(model.score(batch).detach()), values, strict=True):
        close(found, expected)
    for over_vocabulary in (False, True):
        model.over_vocabulary = over_vocabulary
        loss = StepCrossEntropy()(model(batch)[0], batch.scored, model)[0]
        wanted = [
            F.nll_loss((logits if over_vocabulary else logits[:, labels]).log_softmax(-1)[:, labels if over_vocabulary else [0, 1]], y, reduction="sum")
            for logits, y in zip(full, correct, strict=True)
        ]  # fmt: skip
        torch.testing.assert_close(loss, torch.stack(wanted).sum(), rtol=2e-4, atol=1e-4)
    same_gradients(model, loss, plain, torch.stack(wanted).sum())
    forms = ["causal"]
    try:
        model.check_classifier()
        forms.append("classifier")
    except InputError:
        pass
    for form in forms:
        scores = export(model, encoder, folder / f"prm-{form}", form).score_solutions(SOLUTIONS)
        for found, expected in zip(scores, values, strict=True):
            close(found, expected)


def check_implicit(base: Path, plain: Plain, encoder: SolutionEncoder) -> None:
    """Rewards along solutions against a reference that gives every token e^-3, loss at the final token, and gradients."""
    model = ImplicitModel(Backbone(path=str(base)).load(), 0.5).eval()
    examples = [encoder.outcome(s, [float(s.correct)] * len(s.steps)) for s in SOLUTIONS]
    wanted = []
    for example in examples:
        tokens = example.positions
        example.reference, example.weights = [-3.0] * len(tokens), [0.0] * (len(tokens) - 1) + [1.0]
        logits = plain(example.input_ids)[0][[p - 1 for p in tokens]].float().log_softmax(-1)
        own = logits.gather(-1, torch.tensor([example.input_ids[p] for p in tokens])[:, None])[:, 0]
        wanted.append((0.5 * (own + 3.0)).cumsum(0))
    batch = together(model, examples)
    outputs = model(batch)[0]
    for found, expected in zip(batch.split(outputs.detach()), wanted, strict=True):
        close(found, expected.detach())
    loss = OutcomeBCE()(outputs, batch.scored, model)[0]
    y = torch.tensor([float(bool(s.correct)) for s in SOLUTIONS])
    last = torch.stack([along[-1] for along in wanted])
    same_gradients(model, loss, plain, F.binary_cross_entropy_with_logits(last, y, reduction="sum"))


def check_outcome(family: Family, base: Path, plain: Plain, encoder: SolutionEncoder, folder: Path) -> None:
    """A linear head and a reserved logit: values, loss, gradients and the export's scores."""
    examples = [encoder.outcome(s, [float(s.correct)] * len(s.steps)) for s in SOLUTIONS]
    last = [encoder.outcome(s, None, last_only=True) for s in SOLUTIONS]
    for reserved in (None, encoder.step_tag_id):
        model = OutcomeModel(Backbone(path=str(base)).load(), reserved).eval()
        assert model.form == family.orm
        batch = together(model, examples)
        if reserved is None:
            torch.nn.init.normal_(model.value_head.weight, std=0.3)
            torch.nn.init.normal_(model.value_head.bias)
        else:
            model.start_undecided(encoder.probe())
            if model.softcap is not None:  # the value's logit is not bounded: no logit of transformers to compare with
                continue
        wanted = []
        for example in examples:
            logits, hidden = plain(example.input_ids)
            if reserved is None:
                head = model.value_head
                logit = F.linear(hidden * hidden_scale(family), head.weight.detach(), head.bias.detach())[:, 0]
            else:
                bias = plain.model.get_output_embeddings().bias
                raw = logits[:, reserved] - (0 if bias is None else bias[reserved])
                logit = model.value_head.gain.detach() * raw + model.value_head.bias.detach()
            wanted.append(logit[example.positions])
        for found, expected in zip(batch.split(model.score(batch).detach()), wanted, strict=True):
            close(found, expected.detach().sigmoid())
        loss = OutcomeBCE()(model(batch)[0], batch.scored, model)[0]
        y = torch.tensor([t for e in examples for t in e.targets])
        reference = F.binary_cross_entropy_with_logits(torch.cat(wanted), y, reduction="sum")
        torch.testing.assert_close(loss, reference, rtol=2e-4, atol=1e-4)
        same_gradients(model, loss, plain, reference)
        same_language(model, plain, examples, encoder)
        place = folder / f"orm-{reserved}"
        scores = export(model, encoder, place).score_solutions(SOLUTIONS)
        for found, expected in zip(scores, wanted, strict=True):
            close(found, expected[-1:].detach().sigmoid())
        again = load_verifier(str(place))[0]
        assert again.packed == (family.reads == "packed")
        assert (place / "value_head.safetensors").is_file() == (family.orm == "value_head")
        close(again.score(together(again, last)).detach(), model.score(together(model, last)).detach())


def same_language(model: Any, plain: Plain, examples: list[Any], encoder: SolutionEncoder) -> None:
    """Token losses of a solution that is learned by the LM loss beside the judged ones."""
    reference = encoder.lm(SOLUTIONS[3])
    batch = together(model, [*examples, reference])
    logits = plain(reference.input_ids)[0][reference.lm_positions].float()
    wanted = F.cross_entropy(logits, torch.tensor(reference.lm_targets()), reduction="none")
    close(model(batch)[1][batch.lm.entries].detach(), wanted.detach())


def hidden_scale(family: Family) -> float:
    """MiniCPM3 divides hidden states in front of the output matrix, where the hook reads them."""
    return 4.0 if family.kind == "minicpm3" else 1.0
