"""Natural mistakes with ``stepverify fit``: one line each, word for word, exit code 2, and no run folder."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from stepverify.cli import main
from stepverify.records import InputError

CONFIG = {
    "trainer": {"max_epochs": 1, "default_root_dir": "run", "accelerator": "cpu"},
    "model": {"class_path": "ProcessRewardModel", "init_args": {"backbone": {"path": "/nowhere/model"}}},
    "data": {"train": {"class_path": "Solutions", "init_args": {"path": "x.jsonl"}}, "batch_size": 8},
}


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert error.count("\n") == 1
        assert not Path("run").exists()
        return error.removeprefix(f"stepverify {words[0]}: ").rstrip("\n")

    return run


def write(path: str, value: object) -> None:
    """``my.yaml``, with one value set at a dotted key."""
    tree = copy.deepcopy(CONFIG)
    *parents, last = path.split(".")
    node = tree
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    Path("my.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.pack_token", 1, "16: data.pack_token: 1: no such key of SolutionData; did you mean pack_tokens?"),
        ("data.prefix_weighting", "onc", "16: data.prefix_weighting: 'onc': did you mean once?"),
        ("data.train.init_args.pth", "y", "15: data.train.init_args.pth: 'y': no such key of Solutions; did you mean path?"),
        ("model.class_path", "ProcessRewardModl", "6: model.class_path: no class 'ProcessRewardModl'; did you mean ProcessRewardModel?"),
        ("model.init_args.backbone.pat", "y", "10: model.init_args.backbone.pat: 'y': no such key of Backbone; did you mean path?"),
        ("trainer.max_epochs", "many", "2: trainer.max_epochs: 'many': expected an integer or null"),
        ("trainer.precision", "bf16-mixd", "5: trainer.precision: 'bf16-mixd': did you mean bf16-mixed?"),
        ("trainer.callbacks", [{"class_path": "EarlyStoping"}], "6: trainer.callbacks[0].class_path: no class 'EarlyStoping'; did you mean EarlyStopping?"),
        ("modle", {}, "16: modle: {}: no such key; did you mean model?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_yaml_is_named_with_its_line(key, value, message, said):
    write(key, value)
    assert said("fit", "--config", "my.yaml") == f"my.yaml:{message}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["my.yaml"], "my.yaml: --config is missing: stepverify fit --config my.yaml"),
        (["--config", "my.yaml", "--data.pack_token", "3"], "--data.pack_token: no such option; did you mean --data.pack_tokens?"),
        (["--config", "my.yaml", "--trainer.max_epoch", "3"], "--trainer.max_epoch: no such option; did you mean --trainer.max_epochs?"),
        (["--config", "my.yaml", "--trainer.max_epochs", "x"], "--trainer.max_epochs: 'x': expected an integer or null"),
        (["--config", "my.yaml", "--model.init_args.bakbone", "3"], "--model.init_args.bakbone: no such key of ProcessRewardModel; did you mean backbone?"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_line(words, message, said):
    write("data.batch_size", 8)
    assert said("fit", *words) == message


@pytest.mark.parametrize(
    ("accelerator", "message"),
    [
        ("gpu", "trainer.accelerator: gpu: PyTorch finds no GPU on this machine; set it to cpu, or to auto, which takes a GPU where there is one"),
        ("gup", "trainer.accelerator: 'gup': no such accelerator; did you mean gpu?"),
    ],
)  # fmt: skip
def test_an_accelerator_that_is_not_there(accelerator, message):
    import torch

    from stepverify.trainer_settings import choose_accelerator

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError) as refused:
        choose_accelerator(SimpleNamespace(accelerator=accelerator))
    assert str(refused.value) == message


def test_an_unknown_command_is_refused(said):
    assert said("tset", "--config", "x") == "no such command; did you mean test?"
    assert said("train", "--config", "x") == "no such command; expected adopt, fit, init, predict, test or validate"
