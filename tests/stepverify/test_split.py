"""However a step's solutions are split over processes and micro-batches, the update is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepverify.cli import main
from stepverify.jsonl import read_records, write_records
from stepverify.records import Solution, StepLabel
from tests.helpers.processes import stepverify
from tests.helpers.runs import BACKBONE

# One optimizer step sees all 21 solutions; the last split packs them, shared prefixes once.
SPLITS = {
    "whole": ["--data.batch_size", "21"],
    "micro-batches": ["--data.batch_size", "6", "--trainer.accumulate_grad_batches", "4"],
    "fsdp2": ["--data.pack_tokens", "256", "--trainer.accumulate_grad_batches", "9", "--config", "lit_configs/overlays/fsdp2.yaml", "--trainer.devices", "2"],
    "ddp-lora": ["--data.pack_tokens", "256", "--trainer.accumulate_grad_batches", "9", "--config", "lit_configs/overlays/ddp.yaml", "--trainer.devices", "2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def solutions(tmp_path_factory):
    """7 problems with 3 solutions that part at their third step; between one and all of their steps are labelled."""
    from stepverify.readers import Synthetic

    records = []
    for number, s in enumerate(Synthetic("train", 7).solutions()):
        for sample in range(3):
            steps = [*s.steps[:2], *(f"{step} + {sample}" for step in s.steps[2:])]
            labels = [StepLabel(rating=1 - (number + sample + i) % 2 * 2) for i in range(len(steps))]
            labels[1 + number % 3 :] = [None] * (len(steps) - 1 - number % 3)
            records.append(
                type(s)(
                    id=f"{s.problem_id}#{sample}",
                    problem_id=s.problem_id,
                    problem=s.problem,
                    steps=steps,
                    step_labels=labels,
                )
            )
    folder = tmp_path_factory.mktemp("solutions")
    write_records(folder / "part-00000.jsonl", records)
    return folder


def fit(root: Path, solutions: Path, *arguments: str, lora: bool = False):
    """Three steps of plain gradient descent: what differs in a gradient differs in the weights by as much."""
    command = [
        "fit", "--config", "lit_configs/quickstart/07_prm.yaml",
        "--model.init_args.backbone", json.dumps(BACKBONE | {"lora": {"rank": 4} if lora else None}),
        "--model.init_args.template", "{prompt: \"{problem}\\n\"}",
        "--model.init_args.optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 0.5}}",
        "--model.init_args.warmup", "0", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu",
        "--data.train.init_args", f"{{path: {solutions}}}", "--data.validation", "null",
        "--trainer.default_root_dir", str(root), "--trainer.gradient_clip_val", "null", "--trainer.logger", "false",
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", *arguments,
    ]  # fmt: skip
    if "--config" in arguments:
        done = stepverify(*command)
        assert done.returncode == 0, done.stderr[-3000:]
    else:
        main(command)
    from safetensors.torch import load_file

    return load_file(root / "export" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(solutions, tmp_path_factory):
    return {
        lora: fit(tmp_path_factory.mktemp("whole") / "run", solutions, *SPLITS["whole"], lora=lora)
        for lora in (False, True)
    }


@pytest.mark.slow
def test_prediction_on_two_ranks_writes_every_record_once(solutions, tmp_path):
    """21 solutions in packs over two processes: the scores of one process, each record once."""
    fit(tmp_path / "run", solutions, *SPLITS["whole"])
    found = {}
    for ranks in (1, 2):
        folder = tmp_path / f"on-{ranks}"
        (tmp_path / "predict.yaml").write_text(
            f"model: {{class_path: stepverify.modules.ProcessRewardModel, init_args: {{backbone: {{path: {tmp_path / 'run' / 'export'}}}}}}}\n"
            f"data: {{predict: {{class_path: stepverify.readers.Solutions, init_args: {{path: {solutions}}}}}, eval_pack_tokens: 256}}\n"
            f"trainer: {{accelerator: cpu, logger: false, enable_progress_bar: false, callbacks: [{{class_path: stepverify.callbacks.ScoreWriter, init_args: {{folder: {folder}, name: prm}}}}]}}\n"
        )
        command = ["predict", "--config", str(tmp_path / "predict.yaml"), "--config", "lit_configs/overlays/ddp.yaml", "--trainer.devices", str(ranks)]  # fmt: skip
        done = stepverify(*command)
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(list(folder.glob("part-*.jsonl"))) == ranks
        records = list(read_records(folder, Solution))
        assert len(records) == len({r.id for r in records}) == 21
        found[ranks] = {r.id: r.scores["prm"] for r in records}
    for key, values in found[1].items():
        assert found[2][key] == pytest.approx(values, abs=2e-6)


@pytest.mark.parametrize(
    "split",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("fsdp2", "ddp-lora")))
        for name in SPLITS
        if name != "whole"
    ],
)
def test_the_update_does_not_depend_on_the_split(split, solutions, whole, tmp_path):
    """Weights after three steps agree to 1e-4, and have moved by more than a hundred times that."""
    lora = split.endswith("lora")
    weights, expected = fit(tmp_path / "run", solutions, *SPLITS[split], lora=lora), whole[lora]
    assert weights.keys() == expected.keys()
    assert max((weights[k] - expected[k]).abs().max().item() for k in weights) < 1e-4
    moved = max((whole[True][k] - whole[False][k]).abs().max().item() for k in weights)
    assert moved > 1e-2
