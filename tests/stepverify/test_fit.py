"""``stepverify fit`` and ``predict`` through the command line, on the embedded problems."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from stepverify.cli import main  # noqa: E402
from stepverify.jsonl import read_records, write_records  # noqa: E402
from stepverify.records import Solution  # noqa: E402
from tests.helpers.runs import BACKBONE, config, scalars, weights, write_labelled  # noqa: E402


@pytest.fixture(autouse=True)
def lightning_logs_to_a_closed_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning keeps the stderr of the test that imported it; what it says there later is lost, not an error."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("labelled"))


class Fitted(dict):
    """kind → folder of a run of eight epochs, validated after the last; trained when it is first asked for."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data

    def __missing__(self, kind: str) -> Path:
        root = self[kind] = self.folder / kind
        changes: dict[str, Any] = {"trainer__max_epochs": 8, "trainer__check_val_every_n_epoch": 8}
        # At three times this rate the values of an outcome verifier this small run into 0 or 1, and stay there.
        changes["model__init_args__optimizer"] = {"class_path": "AdamW", "init_args": {"lr": 1e-3}}
        if kind == "ProcessRewardModel":
            changes["model__init_args__template"] = {"prompt": "{problem}\n", "positive": "*"}
        main(["fit", "--config", config(kind, root, None if kind == "GeneratorModule" else self.data, **changes)])
        return root


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> Fitted:
    return Fitted(tmp_path_factory.mktemp("fitted"), labelled)


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("GeneratorModule", {"solution/0/text_summary"}),
        (
            "OutcomeVerifier",
            {"val/solution_auroc", "val/solution_accuracy", "calibration", "solution/0/text_summary", "solution/0"},
        ),
        (
            "ProcessRewardModel",
            {
                "val/step_auroc",
                "val/step_accuracy",
                "val/error_f1",
                "val/ece",
                "val/first_error_accuracy",
                "calibration",
                "precision_recall_curve",
            },
        ),
    ],
)
def test_fit_ends_in_an_export_and_is_watched(kind: str, metrics: set[str], fitted: Fitted):
    root = fitted[kind]
    seen = scalars(root)
    expected = {"train/loss", "train/grad_norm", "val/loss", "throughput/tokens_per_second", "lr-AdamW/pg1"} | metrics
    assert expected <= seen.keys()
    losses = [value for _, value in seen["train/loss"]]
    assert len(losses) == (32 if kind == "GeneratorModule" else 16)
    assert sum(losses[-4:]) < sum(losses[:4])
    for name in ("config.json", "model.safetensors", "tokenizer.json", "stepverify.json"):
        assert (root / "export" / name).is_file()
    assert (root / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "packs", [pytest.param({}, marks=pytest.mark.slow), {"data__pack_tokens": 512, "data__prefix_weighting": "once"}]
)
def test_a_verifier_learns_language_beside_its_labels(packs, tmp_path: Path, labelled: Path):
    """Reference solutions are mixed in, correct and incorrect labels weigh the same, packed or not."""
    reference = {
        "class_path": "stepverify.readers.Synthetic",
        "init_args": {"split": "train", "num_problems": 8, "num_steps": 4},
    }
    changes = {
        "data__lm": reference,
        "data__class_weights": "balanced",
        "model__init_args__lm_weight": 0.5,
        "trainer__max_epochs": 8,
        "trainer__check_val_every_n_epoch": 8,
    }
    changes |= {
        "model__init_args__loss": "bce",
        "model__init_args__label_smoothing": 0.1,
        "model__init_args__backbone": BACKBONE | {"dropout": 0.1},
    }
    root = tmp_path / "run"
    main(["fit", "--config", config("OutcomeVerifier", root, labelled, **changes, **packs)])
    seen = scalars(root)
    losses = [value for _, value in seen["train/lm_loss"]]
    assert sum(losses[-4:]) < sum(losses[:4])
    assert torch.isfinite(torch.tensor(seen["train/loss"])).all()


@pytest.mark.slow  # with Lightning's own checkpoints; test_interrupt.py compares with ours
def test_resumed_in_the_middle_of_an_epoch_equals_uninterrupted(tmp_path: Path):
    """8 steps at once, and 3 + 5 steps over a checkpoint inside the first epoch: the same weights and losses, bit for bit."""
    every_step = [
        {"class_path": "ModelCheckpoint", "init_args": {"save_last": True, "every_n_train_steps": 1, "dirpath": None}}
    ]
    roots = {name: tmp_path / name for name in ("whole", "parts")}
    for name, root in roots.items():
        every_step[0]["init_args"]["dirpath"] = str(root / "checkpoints")
        stops = (8,) if name == "whole" else (3, 8)
        for stop in stops:
            changes = {"trainer__max_steps": stop, "trainer__max_epochs": None, "trainer__callbacks": every_step}
            main(["fit", "--config", config("GeneratorModule", root, **changes), "--ckpt_path", "last"])
    whole, parts = weights(roots["whole"]), weights(roots["parts"])
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    losses = [dict(scalars(root)["train/loss"]) for root in roots.values()]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 8


def test_predict_equals_the_exports_scores(tmp_path: Path, labelled: Path, fitted: Fitted):
    """Trained, exported, predicted through Lightning; and scored by the sampling side: the same numbers, every record once."""
    from sampling.stages.score import score

    root = fitted["ProcessRewardModel"]
    predicting = config(
        "ProcessRewardModel", tmp_path / "predict",
        model__init_args__backbone={"path": str(root / "export")}, model__init_args__template=None,
        data__train=None, data__validation=None, data__eval_pack_tokens=300,
        data__predict={"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(labelled)}},
        trainer__logger=False,
        trainer__callbacks=[{"class_path": "stepverify.callbacks.ScoreWriter", "init_args": {"folder": str(tmp_path / "a"), "name": "prm"}}],
    )  # fmt: skip
    main(["predict", "--config", predicting])
    score(input=labelled, output=tmp_path / "b", verifiers={"prm": str(root / "export")}, pack_tokens=500)
    one = {s.id: s.scores["prm"] for s in read_records(tmp_path / "a", Solution)}
    two = {s.id: s.scores["prm"] for s in read_records(tmp_path / "b", Solution)}
    assert one.keys() == two.keys()
    assert len(one) == 32
    for key, values in one.items():
        assert values == pytest.approx(two[key], abs=2e-6)
        assert len(values) == 5
    with pytest.raises(SystemExit):
        main(["predict", "--config", predicting])


def test_a_second_stage_goes_on_from_the_first(tmp_path: Path, labelled: Path, fitted: Fitted):
    """``backbone.path`` is the first stage's export, nothing else: template, label rows and all weights are its own.

    At a learning rate of 0 the second stage exports what the first one has, weight by weight.
    """
    first, second = fitted["ProcessRewardModel"], tmp_path / "second"
    still = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    main([
        "fit", "--config", config(
            "ProcessRewardModel", second, labelled, model__init_args__backbone={"path": str(first / "export")},
            model__init_args__template=None, model__init_args__optimizer=still, trainer__max_steps=1,
        ),
    ])  # fmt: skip
    before, after = weights(first), weights(second)
    assert all(torch.equal(before[k], after[k]) for k in before)
    one, two = ((root / "export" / "stepverify.json").read_text() for root in (first, second))
    assert one == two
    assert '"positive": "*"' in one


@pytest.mark.slow  # test_split compares the weights
def test_losses_do_not_depend_on_the_split(tmp_path: Path, labelled: Path):
    """Incorrect steps weigh five times: all 32 solutions at once, and four batches of 8 accumulated, end in the same weights.

    So do weights of the same proportion, and a loss of pairs that a user brings; without weights others come out, and
    the name of a class says the same as the short name.
    """
    split = {"data__batch_size": 8, "trainer__accumulate_grad_batches": 4}
    heavy, pairs = (
        {"data__class_weights": {"incorrect": 5.0}},
        {"model__init_args__loss": "tests.helpers.losses.PairwiseSteps"},
    )
    found = {}
    for name, changes in {
        "whole": heavy,
        "split": heavy | split,
        "scaled": {"data__class_weights": {"incorrect": 10.0, "correct": 2.0}},
        "plain": {},
        "named": {"model__init_args__loss": "StepCrossEntropy"},
        "pairs": pairs,
        "pairs split": pairs | split,
    }.items():
        sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
        step = {"data__batch_size": 32, "trainer__max_steps": 2, "model__init_args__optimizer": sgd} | changes
        main(["fit", "--config", config("ProcessRewardModel", tmp_path / name, labelled, **step)])
        found[name] = weights(tmp_path / name)

    def gap(one: str, other: str) -> float:
        return max((found[one][k] - found[other][k]).abs().max().item() for k in found[one])

    assert gap("whole", "split") < 1e-6
    assert gap("whole", "scaled") < 1e-6
    assert gap("whole", "plain") > 1e-4
    assert gap("plain", "named") == 0
    assert gap("pairs", "pairs split") < 1e-6
    assert gap("pairs", "plain") > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__init_args__backbone": {"path": "/nowhere/model"}}, "/nowhere/model: no such model folder"),
        ({"model__init_args__template": {"prompt": "{problem}\n", "step_tag": "<step> <step>"}}, "template.step_tag: '<step> <step>' is 2 tokens"),
        ({"model__init_args__template": {"prompt": "no problem"}}, "expected exactly one {problem}"),
        ({"model__init_args__max_length": 10}, "none of 32 solutions of Solutions can be used: 32 longer than max_length = 10 tokens ("),
        ({"data__train": None}, "data.train: no reader is given"),
        ({"data__class_weights": {"incorrect": 0.0}}, "data.class_weights.incorrect: expected a weight above 0, got 0.0"),
        ({"model__init_args__targets": {"neutral": "class"}}, "targets.neutral: class, but template.neutral defines no token"),
        ({"model__init_args__lm_weight": 1.0}, "model.lm_weight is 1.0, but data.lm names no solutions"),
        ({"data__lm_ratio": 0.0}, "data.lm_ratio: expected more than 0, got 0.0"),
        ({"model__init_args__backbone": BACKBONE | {"dropout": 1.5}}, "backbone.dropout: expected 0 <= share < 1, got 1.5"),
        ({"data__train__init_args": {"path": "/nowhere/data"}}, "/nowhere/data: no such file or folder"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(changes, message, tmp_path: Path, labelled: Path, capsys):
    root = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", config("ProcessRewardModel", root, labelled, **changes)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (root / "export").exists()


def test_unlabelled_solutions_are_refused(tmp_path: Path, capsys):
    from stepverify.readers import Synthetic

    records = list(Synthetic("train", 4).solutions())
    for record in records:
        record.correct = None
    write_records(tmp_path / "data" / "part-00000.jsonl", records)
    for kind, message in (("OutcomeVerifier", "no outcome label"), ("ProcessRewardModel", "no step labels")):
        with pytest.raises(SystemExit):
            main(["fit", "--config", config(kind, tmp_path / kind, tmp_path / "data")])
        assert message in capsys.readouterr().err
