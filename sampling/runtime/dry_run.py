"""Say what a stage would compute, without writing anything: ``sampling STAGE --dry-run``.

Tokens and time are those of a probe: the stage itself, on a few of the missing problems, into a folder that is removed.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampling.runtime.inputs import read_problems
from sampling.runtime.problem_shard import ProblemShard
from sampling.runtime.shards import list_shards
from sampling.runtime.store import Store
from stepverify.jsonl import MANIFEST, read_records, write_records
from stepverify.manifest import read_manifest
from stepverify.readers import Problems, Reader
from stepverify.records import InputError, Problem, Solution

_PROBED = {"generate": 4, "label": 2, "score": 8, "search": 1}  # problems
_CHARACTERS = 4  # of a token, where a solution does not say its tokens
_RESULTS = "results"  # of a search, beside its solutions


@dataclass(frozen=True)
class Forecast:
    """Hold what a stage would compute.

    Attributes:
        problems: that it would work on, finished ones included.
        total: solutions, or problems of a search.
        done: of these, in its folder.
        unit: what is counted.
        tokens: of all that is missing; None if unknown.
        counted: what the tokens are, and by what they are estimated.
        seconds: for all that is missing; None without a probe.
        probed: items of the probe.
    """

    problems: int
    total: int
    done: int
    unit: str
    tokens: int | None = None
    counted: str = ""
    seconds: float | None = None
    probed: int = 0

    def describe(self, output: Path, stage: str) -> str:
        """Describe it in a few lines."""
        left = self.total - self.done
        of = "" if self.unit == "problems" else f"{self.problems:,} problems, "
        lines = [f"{output}: {stage}: {of}{self.total:,} {self.unit}: {self.done:,} done, {left:,} left"]
        if self.tokens is not None:
            lines.append(f"  tokens: about {self.tokens:,} {self.counted}")
        if self.seconds is not None:
            lines.append(
                f"  time: about {_duration(self.seconds)}, at the speed of a probe of {self.probed:,} {self.unit}; "
                "with more in flight it may be less"
            )
        return "\n".join([*lines, "  nothing was written"])


def dry_run(stage: str, run: Callable[..., None], values: Mapping[str, Any]) -> None:
    """Print what a stage would compute.

    Args:
        stage: ``generate``, ``label``, ``score`` or ``search``.
        run: its function.
        values: the function's arguments.

    Raises:
        InputError: another stage; bad input, as in the stage itself.
    """
    if stage not in _PROBED:
        raise InputError(f"--dry-run: is for {', '.join(_PROBED)}; {stage} takes seconds")
    part, output = ProblemShard.parse(values.get("shard")), Path(values["output"])
    if stage in ("generate", "search"):
        forecast = _of_problems(stage, run, values, part, output)
    else:
        forecast = _of_solutions(stage, run, values, part, output)
    print(forecast.describe(output, stage))
    if values.get("reuse_from"):
        print("  what reuse_from holds is not deducted")


def _of_problems(
    stage: str, run: Callable[..., None], values: Mapping[str, Any], part: ProblemShard, output: Path
) -> Forecast:
    problems = [problem for problem in read_problems(values["problems"]) if problem.id in part]
    if stage == "search":
        done = _keys(output / _RESULTS, "problem_id")
        each, unit = 1, "problems"
        missing = [p for p in problems if p.id not in done]
        left = len(missing)
    else:
        done = _keys(output, "id")
        each, unit = int(values["num_samples"]), "solutions"
        absent = {p.id: sum(f"{p.id}#{i}" not in done for i in range(each)) for p in problems}
        missing, left = [p for p in problems if absent[p.id]], sum(absent.values())
    total = each * len(problems)
    forecast = Forecast(len(problems), total, total - left, unit)
    if not missing:
        return forecast

    def probe(folder: Path, some: Iterable[Problem]) -> dict[str, Any]:
        write_records(folder / "problems.jsonl", some)
        return {"problems": Problems(str(folder / "problems.jsonl"))}

    return _probe(stage, run, values, forecast, missing, probe)


def _of_solutions(
    stage: str, run: Callable[..., None], values: Mapping[str, Any], part: ProblemShard, output: Path
) -> Forecast:
    given, done = values["input"], _keys(output, "id")
    solutions = given.solutions() if isinstance(given, Reader) else read_records(given, Solution)
    names, total, left, characters = set[str](), 0, 0, 0
    some: dict[str, list[Solution]] = {}
    for solution in solutions:
        if solution.problem_id not in part:
            continue
        names.add(solution.problem_id)
        total += 1
        if solution.id in done:
            continue
        left += 1
        known = solution.token_ids
        characters += len(solution.text) if known is None else _CHARACTERS * len(known)
        if solution.problem_id in some or len(some) <= _PROBED[stage]:
            some.setdefault(solution.problem_id, []).append(solution)
    forecast = Forecast(len(names), total, total - left, "solutions")
    if not left:
        return forecast

    def probe(folder: Path, chosen: Iterable[list[Solution]]) -> dict[str, Any]:
        return {"input": _written(folder, [s for group in chosen for s in group], given)}

    found = _probe(stage, run, values, forecast, [*some.values()], probe)
    if stage == "score":
        count = characters // _CHARACTERS * len(values["verifiers"])
        return _with(found, count, "of solutions to read, by every verifier, by their tokens or length")
    return found


def _probe(
    stage: str, run: Callable[..., None], values: Mapping[str, Any], forecast: Forecast, missing: list[Any],
    inputs: Callable[[Path, Iterable[Any]], dict[str, Any]],
) -> Forecast:  # fmt: skip
    """Run the stage on few of the missing items, after a first one with which models are loaded."""
    alone: dict[str, Any] = {"reuse_from": [], "complete_shards": False, "shard": None}
    changed = {key: value for key, value in alone.items() if key in values}
    warm, *rest = missing[: _PROBED[stage] + 1]
    seconds, items, tokens = 0.0, 1, 0
    for some in ([warm], rest or [warm]):
        with tempfile.TemporaryDirectory(prefix="stepverify-dry-run-") as name:
            folder, began = Path(name), time.monotonic()
            given = inputs(folder, some)
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                run(**{**values, **changed, **given, "output": folder / "output"})
            seconds = time.monotonic() - began
            items, tokens = _figures(folder / "output")
    left = forecast.total - forecast.done
    timed = Forecast(
        forecast.problems, forecast.total, forecast.done, forecast.unit, None, "", seconds / items * left, items
    )
    return _with(timed, round(tokens / items * left), f"to sample, as a probe of {items:,}") if tokens else timed


def _with(forecast: Forecast, tokens: int, counted: str) -> Forecast:
    return Forecast(**{**vars(forecast), "tokens": tokens, "counted": counted})


def _figures(output: Path) -> tuple[int, int]:
    """Return items and sampled tokens of a finished run."""
    summary = read_manifest(output / MANIFEST)["summary"]
    tokens = summary.get("tokens_this_run", 0) or dict(summary.get("cost", {})).get("generated_tokens", 0)
    return max(1, summary.get("items_this_run", 1)), tokens


def _written(folder: Path, solutions: list[Solution], given: Path | Reader) -> Path:
    """Write solutions as the input of a stage; where they came from is kept, which rollouts ask for."""
    made = None if isinstance(given, Reader) or not (given / MANIFEST).is_file() else read_manifest(given / MANIFEST)
    if made is None:
        write_records(folder / "input.jsonl", solutions)
        return folder / "input.jsonl"
    inputs = {name: Path(str(known["path"])) for name, known in made["inputs"].items()}
    inputs = {name: path for name, path in inputs.items() if path.exists()}
    with Store(folder / "input", Solution, stage=made["stage"], config=made["config"], inputs=inputs) as store:
        store.write(solutions)
        store.finish({})
    return folder / "input"


def _keys(folder: Path, key: str) -> set[str]:
    """Return the keys of the records in a folder of a stage that may be at work; none without one."""
    found = set[str]()
    for shard in list_shards(folder):
        with shard.open("rb") as lines:
            found.update(str(json.loads(line)[key]) for line in lines if line.endswith(b"\n"))
    return found


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"
