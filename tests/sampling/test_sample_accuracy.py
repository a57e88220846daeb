"""A generator in training, validated by the problems that it solves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from sampling.engines import Completion, Engine, Request, SamplingOptions  # noqa: E402
from stepverify.cli import main  # noqa: E402
from stepverify.readers import Synthetic  # noqa: E402
from tests.helpers.runs import BACKBONE, config, scalars, weights  # noqa: E402
from tests.helpers.sample_accuracy import SAMPLED, accuracy, sampled  # noqa: E402


def fit(root: Path, *callbacks: dict[str, Any], kind: str = "GeneratorModule", **changes: Any) -> None:
    main(["fit", "--config", config(kind, root, **changes, trainer__callbacks=[*callbacks])])


class Forgetful(Engine):
    """Draws as another engine does, but says something else."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.model = engine, engine.model

    def identity(self) -> dict[str, Any]:
        return self.engine.identity()

    @property
    def tokenizer(self) -> Any:
        return self.engine.tokenizer

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        completions = await self.engine.complete(request, options)
        return [Completion(c.token_ids, "#### 1", "stop") for c in completions]


def test_it_is_what_the_export_solves_and_disturbs_nothing(tmp_path: Path):
    """With dropout and gradient checkpointing: bit-equal training, and the shares that the exported model has."""
    changes = {
        "model__init_args__backbone": BACKBONE | {"attention_dropout": 0.1, "gradient_checkpointing": True},
        "model__init_args__optimizer__init_args__lr": 1e-2,
        "data__train__init_args__num_problems": 64,
        "data__batch_size": 16,
    }
    watched, plain = tmp_path / "watched", tmp_path / "plain"
    fit(watched, accuracy(num_samples=2, sampling=SAMPLED | {"temperature": 0.5}, every_n_epochs=2), **changes)
    fit(plain, **changes, trainer__logger=False)
    one, other = weights(watched), weights(plain)
    assert all(torch.equal(one[k], other[k]) for k in one)
    seen, solutions = scalars(watched), sampled(watched / "export", 0.5, n=2)
    unfinished = sum(s.predicted is None for s in solutions)
    assert 0 < unfinished < 22
    assert seen["val/sample_unfinished"] == [(7, pytest.approx(unfinished / 22))]
    assert seen["val/sample_accuracy"] == [(7, pytest.approx(sum(bool(s.correct) for s in solutions) / 22))]
    assert "sample/0/text_summary" in seen


@pytest.mark.slow  # a longer form of the test above, with adapters
def test_the_best_by_accuracy_with_adapters(tmp_path: Path, tiny_model_dir: Path, monkeypatch):
    """In any order of callbacks; the calculator, here one that writes it all, is around the engine that draws."""
    monkeypatch.setattr("sampling.sample_accuracy.CalculatorEngine", Forgetful)
    best = {
        "class_path": "stepverify.callbacks.Checkpoints",
        "init_args": {"monitor": "val/sample_accuracy", "mode": "max"},
    }
    fit(
        tmp_path / "run", best, accuracy(calculator=True), trainer__logger=False,
        model__init_args__backbone={"path": str(tiny_model_dir), "lora": {"rank": 2}},
    )  # fmt: skip
    share = sum(p.answer == "1" for p in Synthetic("test", 11).problems()) / 11
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert f"These weights are of step 4, with {share:.4g} the highest val/sample_accuracy." in card
    assert "| sample_unfinished | 0 |" in card


def test_rows_of_different_length_are_drawn_as_alone(tiny_model_dir: Path):
    """The model in training masks padding when it decodes, as transformers' own attention does."""
    from stepverify.models import Backbone, GeneratorModel

    model = GeneratorModel(Backbone(path=str(tiny_model_dir), lora=None).load()).eval()
    ids, mask = torch.randint(5, 30, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    with torch.inference_mode():
        rows = model.decode(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        alone = model.decode(input_ids=ids[:1, 4:]).logits
    torch.testing.assert_close(rows[0, 4:], alone[0], atol=1e-5, rtol=1e-5)
    assert model.backbone.config._attn_implementation == "stepverify_paths"


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("OutcomeVerifier", {}, "SampleAccuracy: a OutcomeVerifier samples no solutions; use the callback with a generator"),
        ("GeneratorModule", {"num_samples": 4}, "4 greedy samples are the same; set sampling.temperature"),
        ("GeneratorModule", {"every_n_epochs": 0}, "SampleAccuracy.every_n_epochs: expected >= 1, got 0"),
        ("GeneratorModule", {"problems": {"class_path": "stepverify.readers.GSM8K", "init_args": {"path": "/nowhere"}}}, "/nowhere"),
    ],
)  # fmt: skip
def test_bad_input(kind: str, changes: dict, message: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "run", accuracy(**changes), kind=kind)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
