"""All that the GPU tests know of the sampling package, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sampling.engines import Request, SamplingOptions, TransformersEngine
from sampling.stages.score import ExportedVerifier
from sampling.stages.score import score as score_stage
from stepverify.jsonl import read_records
from stepverify.records import Solution


def completions(
    model: str, prompts: Sequence[str], device: str, *, n: int = 1, batch_size: int = 64, dtype: str = "float32",
    **options: Any,
) -> list[list[list[int]]]:  # fmt: skip
    """Token ids of ``n`` completions of each prompt by the transformers engine."""
    engine = TransformersEngine(model, dtype=dtype, device=device, batch_size=batch_size)  # type: ignore[arg-type]
    requests = [Request(str(i), engine.tokenizer.encode(p), n, 1000 * i) for i, p in enumerate(prompts)]
    done = {request.key: found for request, found in engine.generate(requests, SamplingOptions(**options))}
    return [[c.token_ids for c in done[request.key]] for request in requests]


def scores(export: str, solutions: Sequence[Solution], device: str | None, dtype: str = "float32") -> list[list[float]]:
    """Values along each solution, rounded to six places by the scorer."""
    return ExportedVerifier(export, dtype, device).score(solutions)


def scored_by_stage(export: str, data: str, output: Path) -> list[list[float]]:
    """The same by ``sampling score``, which chooses the device itself."""
    score_stage(input=Path(data), output=output, verifiers={"v": export}, dtype="float32")
    written = {s.id: s.scores["v"] for s in read_records(output, Solution)}
    return [written[s.id] for s in read_records(Path(data), Solution)]
