"""An export that gives other values than the trained model does not take its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import lightning  # noqa: E402

from stepverify.callbacks import files  # noqa: E402
from stepverify.cli import main  # noqa: E402
from stepverify.data.encode import Example  # noqa: E402
from stepverify.models import Backbone, OutcomeModel, ProcessModel, VerifierModel  # noqa: E402
from stepverify.models.export import Head  # noqa: E402
from stepverify.models.reload import check_finite, compare  # noqa: E402
from stepverify.records import InputError, Solution  # noqa: E402
from tests.helpers.fits import fit, write_labelled  # noqa: E402
from tests.helpers.processes import stepverify  # noqa: E402
from tests.helpers.runs import BASE, config, weights  # noqa: E402

SAID = r"as {}, loaded by transformers, it gives other values than the trained model: at token (\d+) of solution (\S+) the logit (\S+), trained (\S+) "


def corrupt(monkeypatch: pytest.MonkeyPatch, form: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Have one form of every export written with other weights."""
    from safetensors.torch import load_file, save_file

    whole = VerifierModel.export

    def export(self: VerifierModel, folder: Path, state: Any, form_: Any = None, *rest: Any) -> None:
        whole(self, folder, state, form_, *rest)
        if form_ == form:
            (path,) = folder.glob("*.safetensors")
            change(stored := load_file(path))
            save_file(stored, path, metadata={"format": "pt"})

    monkeypatch.setattr(VerifierModel, "export", export)


def doubled(stored: dict[str, Any]) -> None:
    stored[next(n for n in stored if n == "model.norm.weight" or "lora_B" in n)] *= 2


def dropped(stored: dict[str, Any]) -> None:
    del stored[next(n for n in stored if "up_proj" in n)]


class Corrupt(lightning.Callback):
    """Has exports written with another weight, in a process of its own."""

    def __init__(self) -> None:
        corrupt(pytest.MonkeyPatch(), "causal", doubled)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("data") / "labelled", 24)


@pytest.mark.parametrize(
    ("form", "kind", "precision"),
    [
        pytest.param("causal", "ProcessRewardModel", "bf16-mixed", marks=pytest.mark.slow),
        ("classifier", "ProcessRewardModel", "32-true"),
        ("adapter", "OutcomeVerifier", "32-true"), ("causal", "GeneratorModule", "bf16-true"),
    ],
)  # fmt: skip
def test_a_form_with_other_weights_is_refused(
    form, kind, precision, one_layer_dir, labelled, tmp_path: Path, monkeypatch, capsys
):
    """With both numbers, which differ; no form of the export is left."""
    corrupt(monkeypatch, form, doubled)
    backbone = {"path": str(one_layer_dir)} | ({"lora": {"rank": 2, "alpha": 8}} if form == "adapter" else {})
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "run", kind, labelled, backbone, precision=precision, adapter=form == "adapter")
    assert stopped.value.code == 2
    said = re.search(SAID.format(form), error := capsys.readouterr().err)
    assert said, error
    assert said[2].startswith("synthetic/train/")
    assert abs(float(said[3]) - float(said[4])) > 1e-2
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.yaml", "manifest.json"}


def test_the_export_before_stays_and_so_do_the_checkpoints(tmp_path: Path, labelled, monkeypatch, capsys):
    """A run that goes on for an epoch, and whose export then lacks a weight; exported again, it is whole."""
    root = tmp_path / "run"

    def run(epochs: int) -> None:
        file = config("ProcessRewardModel", root, labelled, trainer__max_epochs=epochs, trainer__logger=False)
        main(["fit", "--config", file, "--ckpt_path", "last"])

    run(1)
    before = weights(root)
    with monkeypatch.context() as patched:
        corrupt(patched, "causal", dropped)
        with pytest.raises(SystemExit):
            run(2)
    error = capsys.readouterr().err
    assert f"{root}/export: not written: as causal, loaded by transformers, 1 missing keys, model.layers.0.mlp" in error
    assert all(torch.equal(before[k], weight) for k, weight in weights(root).items())
    assert files.last(root) == root / "checkpoints" / "step=4.ckpt"
    run(2)
    saved = torch.load(files.last(root), weights_only=True)["state_dict"]
    after = weights(root)
    assert all(torch.equal(saved[f"model.backbone.{k}"], weight) for k, weight in after.items())
    assert not all(torch.equal(before[k], weight) for k, weight in after.items())


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["ddp", "fsdp2"])
def test_all_ranks_end_where_an_export_is_refused(overlay: str, tmp_path: Path, one_layer_dir, labelled):
    """Adapters, of the best checkpoint: written by one rank, trained by two, which end with one line."""
    root = tmp_path / "run"
    best = {"class_path": "stepverify.callbacks.Checkpoints", "init_args": {"monitor": "val/loss", "mode": "max"}}
    for callbacks in ([best, {"class_path": "tests.stepverify.callbacks.test_reload.Corrupt"}], [best]):
        file = config(
            "ProcessRewardModel", root, labelled, trainer__callbacks=callbacks, data__batch_size=8,
            model__init_args__backbone={"path": str(one_layer_dir), "lora": {"rank": 2, "alpha": 8}},
        )  # fmt: skip
        done = stepverify(
            "fit", "--config", file, "--config", f"lit_configs/overlays/{overlay}.yaml", "--trainer.accelerator", "cpu",
            "--trainer.devices", "2", "--overwrite", "true",
        )  # fmt: skip
        if len(callbacks) > 1:
            assert done.returncode == 2, done.stderr[-2000:]
            (line,) = re.findall(r"^stepverify fit: .*", done.stderr, re.MULTILINE)
            assert re.search(SAID.format("causal"), line)
            assert not (root / "export").exists()
        else:
            assert done.returncode == 0, done.stderr[-2000:]
    assert (root / "checkpoints" / "best.ckpt").resolve() != (root / "checkpoints" / "last.ckpt").resolve()


def test_a_calibration_that_is_not_exported_is_found(tmp_path: Path, one_layer_dir, monkeypatch, capsys):
    def plain(self: OutcomeModel, state: dict[str, Any]) -> Head:
        return Head(state["value_head.weight"], state["value_head.bias"], self.labels)

    data = write_labelled(tmp_path / "data")  # of fewer it learns nothing that could be calibrated
    monkeypatch.setattr(OutcomeModel, "classifier_head", plain)
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", "OutcomeVerifier", data, {"path": str(one_layer_dir)}, {"head": "linear"})
    assert re.search(SAID.format("classifier"), capsys.readouterr().err)


def test_without_the_comparison_it_is_said(tmp_path: Path, one_layer_dir, labelled, monkeypatch, capsys):
    corrupt(monkeypatch, "causal", doubled)
    folder = fit(tmp_path / "run", "GeneratorModule", labelled, {"path": str(one_layer_dir)}, check=False)
    assert (folder / "model.safetensors").is_file()
    assert f"{folder}: written without a comparison with the trained model (check: false)" in capsys.readouterr().err


def test_both_numbers_where_they_differ_most():
    """Of 2 and 1 positions: differences 0, 0.25 and 0.125, 0.161 RMS."""
    examples = [
        Example([0] * 9, at, None, Solution(id=i, problem_id="p", problem="p", steps=["1"]))
        for i, at in (("p#1", [4, 8]), ("p#2", [5]))
    ]
    trained = [torch.tensor([[0.5], [0.5]]), torch.tensor([[0.25]])]
    exported = [torch.tensor([[0.5], [0.75]]), torch.tensor([[0.375]])]
    with pytest.raises(InputError) as refused:
        compare(trained, exported, examples, torch.float32)
    assert str(refused.value) == (
        "it gives other values than the trained model: at token 8 of solution p#1 the logit 0.75, trained 0.5 "
        "(difference of all 0.16 RMS, at most 0.001)"
    )
    near = [torch.tensor([[0.5], [0.5005]]), torch.tensor([[0.25]])]
    compare(trained, near, examples, torch.float32)
    compare(trained, [x + 0.08 for x in trained], examples, torch.bfloat16)
    with pytest.raises(InputError, match=r"at most 0\.1"):
        compare(trained, exported, examples, torch.bfloat16)
    with pytest.raises(InputError, match="the exported model's scores are not finite"):
        compare(trained, [trained[0] / 0, trained[1]], examples, torch.float32)
    with pytest.raises(InputError, match=r"1 of 2 weights are not finite \(NaN or infinite\), b among them"):
        check_finite({"a": torch.ones(2), "b": torch.tensor([1.0, torch.inf])})


def test_rotary_frequencies_keep_their_number_format():
    """As transformers keeps them: rounded to bfloat16, a model would turn other angles than its export."""
    model = ProcessModel(Backbone(path=BASE, weights="random").load(), (1, 2))
    wanted = {n: b.clone() for n, b in model.named_buffers() if "inv_freq" in n}
    found = {n: b for n, b in model.to(torch.bfloat16).named_buffers() if "inv_freq" in n}
    assert wanted
    assert all(torch.equal(found[n], b) for n, b in wanted.items())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.label_ids, torch.tensor([1, 2]))
