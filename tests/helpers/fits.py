"""Short fits through the program, for the tests of what they leave after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from stepverify.jsonl import write_records
from stepverify.readers import Synthetic
from stepverify.records import Solution, StepLabel


def write_labelled(folder: Path, count: int = 48) -> Path:
    """Graded and step-labelled solutions: half of them with an incorrect last step."""
    records = []
    for i, s in enumerate(Synthetic("train", count, num_steps=3).solutions()):
        if i % 2:
            s.steps, s.correct = [*s.steps[:-1], "#### 99"], False
        s.step_labels = [StepLabel(rating=1)] * (len(s.steps) - 1) + [StepLabel(rating=1 if s.correct else -1)]
        records.append(s)
    write_records(folder / "part-00000.jsonl", records)
    return folder


def fit(
    root: Path, kind: str, data: Path, backbone: dict[str, Any], model: dict[str, Any] | None = None,
    precision: str = "32-true", validation: Path | None = None, **export: Any,
) -> Path:  # fmt: skip
    """Two epochs of a verifier or generator; ``export`` goes to the callback. Gives the folder of the export.

    Where ``validation`` is not given, it is the first twelve solutions of ``data``.
    """
    from stepverify.cli import main

    held = {"path": str(validation)} if validation else {"path": str(data), "limit": 12}
    reader, held_out = (
        {"class_path": "stepverify.readers.Solutions", "init_args": arguments}
        for arguments in ({"path": str(data)}, held)
    )
    settings = {
        "seed_everything": 3,
        "model": {
            "class_path": f"stepverify.modules.{kind}",
            "init_args": {
                "backbone": backbone, "template": {"prompt": "{problem}\n"}, "warmup": 0.0,
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-2}}, **(model or {}),
            },
        },
        "data": {"train": reader, "validation": held_out, "batch_size": 16},
        "trainer": {
            "default_root_dir": str(root), "max_epochs": 2, "precision": precision, "accelerator": "cpu", "logger": False,
            "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
            "callbacks": [{"class_path": "HuggingFaceExport", "init_args": export}],
        },
    }  # fmt: skip
    root.mkdir(parents=True)
    (root / "config.yaml").write_text(yaml.safe_dump(settings))
    main(["fit", "--config", str(root / "config.yaml")])
    return root / "export"


def thirteen(labels: Callable[[int], dict]) -> list[Solution]:
    """13 solutions of 4 problems, of 1 to 4 steps; ``labels`` gives the further fields of the i-th."""
    return [
        Solution(
            id=f"p{i % 4}#{i}", problem_id=f"p{i % 4}", problem=f"a = {i % 4}", steps=[f"b = {j * i % 7}" for j in range(1 + i % 4)],
            **labels(i),
        ) for i in range(13)
    ]  # fmt: skip
