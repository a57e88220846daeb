"""Generators that are validated by the problems that they solve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sampling.engines import Request, SamplingOptions, TransformersEngine
from sampling.labelling.outcomes import grade_solutions
from sampling.runtime.inputs import read_problems
from sampling.runtime.seeds import derive_seed
from stepverify.answers import Grader
from stepverify.data.encode import SolutionEncoder
from stepverify.readers import Synthetic
from stepverify.records import Solution
from stepverify.template import load_export
from tests.helpers.engines import complete_all

PROBLEMS = {"class_path": "stepverify.readers.Synthetic", "init_args": {"split": "test", "num_problems": 11}}
SAMPLED = {"max_tokens": 40}


def accuracy(**more: Any) -> dict[str, Any]:
    arguments = {"problems": PROBLEMS, "sampling": SAMPLED} | more
    return {"class_path": "sampling.sample_accuracy.SampleAccuracy", "init_args": arguments}


def sampled(export: Path, temperature: float = 0.0, n: int = 1) -> list[Solution]:
    """What the engine draws from an export, graded."""
    engine, problems = TransformersEngine(str(export), device="cpu"), read_problems(Synthetic("test", 11))
    template, _ = load_export(export)
    encoder = SolutionEncoder(engine.tokenizer, template)
    requests = [Request(p.id, encoder.prompt(p.problem), n, derive_seed(0, p.id)) for p in problems]
    found = complete_all(engine, requests, SamplingOptions(temperature=temperature, **SAMPLED))
    solutions = [Solution.of(p, i, template.split(c.text), finish=c.finish) for p in problems for i, c in enumerate(found[p.id])]  # fmt: skip
    with Grader(num_workers=1) as grader:
        return grade_solutions(solutions, grader)
