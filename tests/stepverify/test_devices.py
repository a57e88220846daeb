"""Training that is correct on any number of devices: processes on the CPU, with gloo."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from stepverify.callbacks import files
from stepverify.cli import main
from stepverify.jsonl import read_records
from stepverify.records import Solution
from tests.helpers.devices import FSDP2, IDS, UNTIED, frozen_head, joint, judged, reader, seen
from tests.helpers.interruptions import every
from tests.helpers.processes import stepverify
from tests.helpers.runs import config, weights


@pytest.mark.slow
def test_a_checkpoint_goes_on_under_another_strategy(tmp_path: Path, tiny_model_dir: Path):
    """Steps 1 to 3 plain, to 6 by FSDP2, to 8 plain again: the weights of 8 steps at once, moments of Adam included."""
    data = judged(tmp_path / "data")
    for name, limits in (("whole", (8,)), ("parts", (3, 6, 8))):
        for steps in limits:
            file = config(
                root=tmp_path / name, data=data, **frozen_head(tiny_model_dir), data__batch_size=3, trainer__max_steps=steps,
                trainer__max_epochs=None, trainer__callbacks=[every(1)],
            )  # fmt: skip
            words = ["fit", "--config", file, "--ckpt_path", "last"]
            if steps == 6:
                done = stepverify(*words, *FSDP2, "--trainer.devices", "1")
                assert done.returncode == 0, done.stderr[-2000:]
                assert (tmp_path / name / "checkpoints" / "step=6.ckpt").is_dir()
                main(["validate", *words[1:]])
            else:
                main(words)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one["score.weight"].abs().max() > 1e-3
    assert max((one[k] - other[k]).abs().max().item() for k in one) < 1e-6


@pytest.mark.parametrize("steps", [3, 5])
def test_devices_change_between_epochs_only(steps: int, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Of 5 steps an epoch: what 2 processes left after 3 of them is refused, after all 5 one goes on; and SGD has no moments."""
    root, data = tmp_path / "run", judged(tmp_path / "data")
    notes = {"class_path": "tests.helpers.devices.Seen", "init_args": {"folder": str(root / "seen")}}

    def fit(epochs: int, *callbacks: dict[str, Any], **limits: Any) -> None:
        file = config(
            "OutcomeVerifier", root, data, model__init_args__backbone=UNTIED, data__batch_size=3, trainer__max_epochs=epochs,
            trainer__callbacks=[every(1), *callbacks], model__init_args__optimizer={"class_path": "torch.optim.SGD"},
            trainer__logger=False, **limits,
        )  # fmt: skip
        main(["fit", "--config", file, "--ckpt_path", "last"])

    fit(1, trainer__max_steps=steps if steps == 3 else -1)
    newest = files.last(root)
    checkpoint = torch.load(newest, weights_only=True)
    assert checkpoint["stepverify"] == {"num_ranks": 1, "accumulate": 1}
    torch.save(checkpoint | {"stepverify": {"num_ranks": 2, "accumulate": 1}}, newest)
    if steps == 5:
        with pytest.warns(UserWarning, match="an optimizer step has 1 batches from here on, 2 before"):
            fit(2, notes)
        assert seen(root, "train", 1) == {1: IDS}
        return
    with pytest.raises(SystemExit) as ended:
        fit(2)
    assert ended.value.code == 2
    assert "saved within an epoch on 2 devices" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_moves_between_two_devices_and_one(tmp_path: Path):
    """An epoch each by DDP and FSDP2 on two processes, on one, and by FSDP2 again: each reads every example once."""
    plan = [(2, DDP), (2, FSDP2), (1, ()), (2, FSDP2), (2, DDP)]
    for epochs, (num_ranks, words) in enumerate(plan, 1):
        root = fit_joint(tmp_path, num_ranks, "--ckpt_path", "last", *words, trainer__max_epochs=epochs)
        assert (root / "checkpoints" / "last.ckpt").is_dir() == ("fsdp2" in str(words))
    lines = [json.loads(line) for file in (root / "seen").glob("train-*") for line in file.read_text().splitlines()]
    for epoch in range(len(plan)):
        ids = Counter(i for line in lines if line["epoch"] == epoch for i in line["ids"])
        assert ids == IDS + Counter(list(IDS)[:2])


def fit_joint(tmp_path: Path, num_ranks: int, *words: str, name: str = "run", **changes: Any) -> Path:
    """Fit :func:`joint` by so many processes."""
    root = tmp_path / name
    done = stepverify("fit", "--config", joint(root, **changes), *words, "--trainer.devices", str(num_ranks))
    assert done.returncode == 0, done.stderr[-3000:]
    return root


DDP = ("--config", "lit_configs/overlays/ddp.yaml")
RANKS = [
    pytest.param(2, ("--trainer.use_distributed_sampler", "true"), id="two"),
    pytest.param(1, (), id="one"),
    pytest.param(3, (), id="three"),
    pytest.param(2, DDP, id="ddp"),
    pytest.param(3, DDP, id="three_ddp"),
    pytest.param(2, FSDP2, id="fsdp2"),
    pytest.param(3, FSDP2, id="three_fsdp2"),
]


@pytest.mark.slow  # test_distributed.py has two ranks
@pytest.mark.parametrize(("num_ranks", "words"), RANKS)
def test_every_example_is_trained_once_an_epoch(num_ranks: int, words: tuple[str, ...], tmp_path: Path):
    """13 solutions and the first two once more for the LM loss: in most steps no rank or only one has a LM positions.

    A linear value head does without the output matrix, which the language-model loss alone trains.
    """
    root = fit_joint(tmp_path, num_ranks, *words)
    lm = Counter(list(IDS)[:2])
    assert seen(root, "train", num_ranks) == {0: IDS + lm, 1: IDS + lm}
    assert seen(root, "val", num_ranks) == {0: IDS, 1: IDS}


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), FSDP2], ids=["ddp", "fsdp2"])
def test_losses_of_two_processes_are_those_of_one(words: tuple[str, ...], tmp_path: Path):
    """One step an epoch holds all examples, on one process in one batch or on two in a half each: the same three updates."""
    found = {}
    for num_ranks, more in ((1, ()), (2, words)):
        batch = {"data__batch_size": 16 // num_ranks, "trainer__max_epochs": 3}
        root = fit_joint(tmp_path, num_ranks, *more, name=str(num_ranks), **batch)
        lines = [json.loads(line) for file in (root / "seen").glob("train-*") for line in file.read_text().splitlines()]
        found[num_ranks] = [sum(line["loss"] for line in lines if line["epoch"] == e) / num_ranks for e in range(3)]
    assert found[1] == pytest.approx(found[2], rel=1e-5)
    assert found[1][2] < found[1][0]


@pytest.mark.slow
def test_rows_with_padding_on_two_processes_train_as_on_one(tmp_path: Path):
    """BLOOM cannot read trees. Each step holds all 13 solutions, in one batch or two: the same ids, losses and weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from stepverify.data.encode import load_tokenizer

    torch.manual_seed(0)
    settings = AutoConfig.for_model("bloom", vocab_size=70, hidden_size=32, n_head=4, n_layer=2, eos_token_id=1)
    AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path / "bloom")
    load_tokenizer("lit_configs/quickstart/base").save_pretrained(tmp_path / "bloom")
    found: dict[int, list[float]] = {}
    for count in (1, 2):
        root = tmp_path / str(count)
        notes = {"class_path": "tests.helpers.devices.Seen", "init_args": {"folder": str(root / "seen")}}
        file = config(
            "OutcomeVerifier", root, judged(tmp_path / "data"), data__batch_size=16 // count, trainer__max_epochs=2,
            model__init_args__backbone={"path": str(tmp_path / "bloom")}, trainer__callbacks=[notes],
        )  # fmt: skip
        devices = ["--trainer.devices", str(count)]
        if count == 1:
            main(["fit", "--config", file, *devices])
        else:
            done = stepverify("fit", "--config", file, *DDP, *devices)
            assert done.returncode == 0, done.stderr[-2000:]
            assert done.stderr.count("bloom: shared prefixes are computed for each solution") == 1
        assert seen(root, "train", count) == {0: IDS, 1: IDS}
        lines = [json.loads(line) for f in (root / "seen").glob("train-*") for line in f.read_text().splitlines()]
        found[count] = [sum(line["loss"] for line in lines if line["epoch"] == e) / count for e in range(2)]
    assert found[1] == pytest.approx(found[2], rel=1e-5)
    one, other = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert max((one[k] - other[k]).abs().max().item() for k in one) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("num_ranks", "words"), [RANKS[0], RANKS[-1]])
def test_every_record_is_predicted_and_tested_once(num_ranks: int, words: tuple[str, ...], tmp_path: Path):
    writer = {
        "class_path": "stepverify.callbacks.ScoreWriter",
        "init_args": {"folder": str(tmp_path / "out"), "name": "v"},
    }
    notes = {
        "class_path": "tests.helpers.devices.Seen",
        "init_args": {"folder": str(tmp_path / "run" / "seen")},
    }
    data = judged(tmp_path / "data")
    for command, key in (("predict", "predict"), ("test", "test"), ("validate", "validation")):
        file = config(
            "OutcomeVerifier", tmp_path / "run", data, model__init_args__backbone=UNTIED, data__eval_pack_tokens=64,
            **{f"data__{key}": reader(data)}, trainer__callbacks=[writer if command == "predict" else notes],
        )  # fmt: skip
        done = stepverify(command, "--config", file, *words, "--trainer.devices", str(num_ranks))
        assert done.returncode == 0, done.stderr[-3000:]
    records = list(read_records(tmp_path / "out", Solution))
    assert Counter(r.id for r in records) == IDS
    assert all(len(r.scores["v"]) == 1 for r in records)
    for stage in ("val", "test"):
        assert seen(tmp_path / "run", stage, num_ranks) == {0: IDS}
