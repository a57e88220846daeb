"""Say what to run after a fit: the commands that use its export, or the recipe's next stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from stepverify.pipelines import OVERLAYS, PIPELINE, read_pipeline
from stepverify.records import InputError

IN_PIPELINE = "STEPVERIFY_IN_PIPELINE"  # set for the stages that `sampling pipeline` runs, which goes on by itself


def next_commands(objective: str, export: str, folder: str, reader: Mapping[str, Any]) -> list[list[str]]:
    """Return the command lines that use an export.

    Args:
        objective: ``prm``, ``orm``, ``implicit`` or ``generator``.
        export: its folder.
        folder: where outputs go.
        reader: ``class_path`` and ``init_args`` of the held-out problems or solutions.
    """
    held_out = json.dumps(reader, ensure_ascii=False)
    if objective == "generator":
        engine = json.dumps({"class_path": "TransformersEngine", "init_args": {"model": export}})
        samples = ["--engine", engine, "--problems", held_out, "--output", f"{folder}/samples"]
        return [["sampling", "generate", *samples]]
    return [
        ["sampling", "convert", "--input", held_out, "--output", f"{folder}/held_out.jsonl"],
        ["sampling", "score", "--input", f"{folder}/held_out.jsonl", "--verifiers", f"{{{objective}: {export}}}",
         "--output", f"{folder}/scores"],
        ["sampling", "report", "--scores", f"{folder}/scores", "--output", f"{folder}/report"],
    ]  # fmt: skip


def next_stage(configs: Sequence[str], given: Mapping[str, str]) -> list[str] | None:
    """Return the command line that goes on with the pipeline of a fit; None if it has none, or was its last stage.

    Args:
        configs: configuration files of the fit, the pipeline's ``pipeline.yaml`` beside one of them.
        given: its variables.
    """
    places = {Path(config).resolve(): config for config in configs}
    found: tuple[int, list[str]] | None = None
    for folder in dict.fromkeys(Path(config).parent for config in configs):
        try:
            stages, _ = read_pipeline(folder / PIPELINE)
        except InputError:  # none, or one that the fit did not need
            continue
        for stage, following in pairwise(stages):
            files = {Path(config).resolve() for config in stage.configs if config != OVERLAYS}
            own = stage.variables
            if not files <= places.keys() or any(given.get(key) != value for key, value in own.items()):
                continue
            if found is None or len(files) > found[0]:  # the stage with most of the files
                command = ["sampling", "pipeline", str(folder), "--from", following.name]
                for path in places.keys() - files:
                    command += ["--overlay", places[path]]
                for key, value in given.items():
                    command += ["--set", f"{key}={value}"] if key not in own else []
                found = len(files), command
    return found[1] if found else None
