"""Devices and settings that are chosen or refused before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch

from stepverify.cli import main
from stepverify.models import Backbone
from stepverify.records import InputError
from tests.helpers.devices import FSDP2, judged, reader
from tests.helpers.runs import config, scalars


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.overfit_batches", "2"], "trainer.overfit_batches: 2"),
        (["--trainer.accelerator", "quantum"], "trainer.accelerator: 'quantum': no such accelerator"),
        (["--trainer.accelerator", "gpu"], "trainer.accelerator: gpu: PyTorch finds no GPU"),
        (["--trainer.max_epochs", "-1", "--model.init_args.decay", "linear"], "trainer.max_epochs: without a number of"),
        (["--model.init_args.optimizer", "LBFGS"], "model.init_args.optimizer: LBFGS computes the loss several times"),
        ([*FSDP2, "--trainer.strategy.init_args.data_parallel_size", "3", "--trainer.devices", "2"], "data_parallel_size: 3 and tensor_parallel_size: 1 on 2 devices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_before_a_model_is_loaded(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(Backbone, "load", lambda self: pytest.fail("loaded"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    file = config("GeneratorModule", tmp_path / "run", trainer__logger=False)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", file, *words])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stepverify fit: ")]
    assert (ended.value.code, message in line) == (2, True), line
    assert not (tmp_path / "run").exists()


def test_a_constant_rate_needs_no_end(tmp_path: Path):
    """Half a second, or one step if that takes longer, without a number of epochs or steps."""
    limits = {"trainer__max_epochs": -1, "trainer__max_time": {"milliseconds": 500}}
    main(["fit", "--config", config("GeneratorModule", tmp_path / "run", **limits)])
    assert [rate for _, rate in scalars(tmp_path / "run")["lr-AdamW/pg1"]][-1] == pytest.approx(3e-3)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_fewer_solutions_than_devices_are_refused(name: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(Backbone, "load", lambda self: pytest.fail("loaded"))
    monkeypatch.setattr(lightning.Trainer, "world_size", 14)
    many = {"class_path": "stepverify.readers.Synthetic", "init_args": {"split": "train", "num_problems": 14}}
    few = reader(judged(tmp_path / "few"))
    file = config(
        "GeneratorModule",
        tmp_path / "run",
        data__train=few if name == "train" else many,
        data__validation=few if name == "validation" else many,
    )
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", file])
    assert ended.value.code == 2
    assert f"data.{name}: 13 solutions cannot be divided among 14 devices" in capsys.readouterr().err


class _Entry:
    """The configuration's entry of a trainer."""

    def __init__(self, accelerator: str) -> None:
        self.accelerator = accelerator


@pytest.mark.parametrize(("given", "taken"), [("auto", "cpu"), ("cpu", "cpu"), ("mps", None), ("gpu", None)])
def test_an_apple_gpu_is_never_taken(given, taken, monkeypatch):
    """Lightning's ``auto`` would: ``auto`` is the CPU there, said in the log, and who asks for the GPU is told why not."""
    from stepverify import trainer_settings

    said: list[str] = []
    monkeypatch.setattr(trainer_settings.MPSAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(trainer_settings.CUDAAccelerator, "is_available", staticmethod(lambda: False))
    monkeypatch.setattr(trainer_settings, "rank_zero_info", said.append)
    entry = _Entry(given)
    if taken is None:
        with pytest.raises(
            InputError, match=f"^trainer.accelerator: {given}: Apple GPUs have no 64-bit floats.*use cpu$"
        ):
            trainer_settings.choose_accelerator(entry)
        return
    trainer_settings.choose_accelerator(entry)
    assert entry.accelerator == taken
    assert len(said) == (given == "auto")


def test_accelerators_are_left_alone_elsewhere(monkeypatch):
    from stepverify import trainer_settings

    for mps, cuda in ((False, False), (False, True), (True, True)):
        monkeypatch.setattr(trainer_settings.MPSAccelerator, "is_available", staticmethod(lambda mps=mps: mps))
        monkeypatch.setattr(trainer_settings.CUDAAccelerator, "is_available", staticmethod(lambda cuda=cuda: cuda))
        trainer_settings.choose_accelerator(entry := _Entry("auto"))
        assert entry.accelerator == "auto"


def test_models_are_not_put_on_an_apple_gpu(monkeypatch):
    from stepverify.device import choose_device

    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match=r"^device: mps:0: Apple GPUs have no 64-bit floats.*use cpu$"):
        choose_device("mps:0")
    with pytest.raises(InputError, match=r"^device: gpu: "):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cuda:1") == torch.device("cuda:1")


def test_a_word_that_is_no_command_is_answered_with_all_commands(capsys: pytest.CaptureFixture):
    """Nothing of Lightning is loaded for it."""
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 2
    assert "train: no such command" in (error := capsys.readouterr().err)
    assert all(command in error for command in ("fit", "validate", "test", "predict"))
