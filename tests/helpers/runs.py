"""A small configuration of ``stepverify fit``, and what its run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

BASE = "lit_configs/quickstart/base"
# One layer of the three: most of a step this small is what each layer calls.
BACKBONE: dict[str, Any] = {
    "path": BASE,
    "weights": "random",
    "overrides": {"num_hidden_layers": 1, "layer_types": ["full_attention"]},
}
# Four texts of 128 tokens at each validation would take more time than the eight steps.
SHORT_TEXT = {"class_path": "SolutionText", "init_args": {"num_solutions": 1, "max_tokens": 4}}


def config(kind: str, root: Path, data: Path | None = None, **changes: Any) -> str:
    """A small configuration: 16 problems in batches of 4, four steps an epoch; or solutions that are given, in batches of 16."""
    if data is None:
        train, held_out = (
            {"class_path": "stepverify.readers.Synthetic", "init_args": {"split": split, "num_problems": count}}
            for split, count in (("train", 16), ("validation", 4))
        )
    else:
        train = held_out = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(data)}}
    settings: dict[str, Any] = {
        "seed_everything": 3,
        "model": {
            "class_path": f"stepverify.modules.{kind}",
            "init_args": {
                "backbone": BACKBONE,
                "template": {"prompt": "{problem}\n"},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
                "warmup": 0.0,
                "decay": "constant",
            },
        },
        "data": {"train": train, "validation": held_out, "batch_size": 16 if data else 4},
        "trainer": {
            "default_root_dir": str(root), "max_epochs": 2, "log_every_n_steps": 1,
            "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
        },
    }  # fmt: skip
    for key, value in changes.items():
        node = settings
        *path, last = key.split("__")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    settings["trainer"]["callbacks"] = [*settings["trainer"].get("callbacks", []), SHORT_TEXT]
    file = root.parent / f"{root.name}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def weights(folder: Path) -> dict[str, Any]:
    """Tensors of a run's export by name."""
    from safetensors.torch import load_file

    return load_file(folder / "export" / "model.safetensors")


def scalars(root: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values that a run has logged, by tag; figures and texts are empty lists."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root / "logs"), size_guidance={"scalars": 0})
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return found | {tag: [] for tag in (*events.Tags()["images"], *events.Tags()["tensors"])}


def write_labelled(folder: Path) -> Path:
    """Write 32 graded and step-labelled solutions of five steps: every other one with an incorrect last step."""
    from stepverify.jsonl import write_records
    from stepverify.readers import Synthetic
    from stepverify.records import StepLabel

    records = []
    for i, s in enumerate(Synthetic("train", 32, num_steps=4).solutions()):
        if i % 2:
            s.steps, s.correct = [*s.steps[:-1], "#### 99"], False
        s.step_labels = [StepLabel(num_correct=3, num_rollouts=4)] * 4 + [StepLabel(rating=1 if s.correct else -1)]
        records.append(s)
    write_records(folder / "part-00000.jsonl", records)
    return folder
