"""One small run of every stage, with engines and scorers that need no model: the same records whenever it runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.labelling import Consensus, Exhaustive, Rollouts
from sampling.runtime import store
from sampling.scorers import Scorer
from sampling.scorers import run as scorers_run
from sampling.search import BeamSearch
from sampling.stages import (
    calibrate,
    compare,
    convert,
    generate,
    grade,
    label,
    policy,
    rank,
    report,
    score,
    search,
    select,
)  # fmt: skip
from stepverify.jsonl import write_lines, write_records
from stepverify.readers import Problems
from stepverify.records import Problem, Ranking, Solution, StepLabel
from stepverify.template import Template
from tests.helpers.budgets import found, known_searches

NUM_PROBLEMS, NUM_SAMPLES = 6, 3


class CodePoints:
    """A tokenizer with a token for each character: its code point."""

    eos_token_id, bos_token_id, name_or_path, chat_template = 0, None, "code points", None

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=self.encode(text))

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(c) for c in text]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(map(chr, ids))


class HashEngine(Engine):
    """Completions that the seed and the prompt decide: a step or two, and an answer that is correct now and then."""

    model, tokenizer, capacity = "hash", CodePoints(), 4

    def __init__(self, style: str = "solve") -> None:
        self.style = style

    def identity(self) -> dict[str, Any]:
        return {"engine": "hash", "style": self.style}

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        await asyncio.sleep(0)
        prompt = hashlib.sha256(repr(request.prompt_ids).encode()).digest()[0]
        return [self._completion(request.seed + i, prompt) for i in range(request.n)]

    def _completion(self, seed: int, prompt: int) -> Completion:
        value = hashlib.sha256(f"{seed}".encode()).digest()[0]
        if self.style == "judge":
            return Completion([1, 0], f"The first incorrect step is \\boxed{{{value % 3}}}.", "stop")
        text = f"step {value % 3}\nthen {value % 2}\n#### {value % 4}"
        return Completion([value, 0], text, "length" if value % 11 == 0 else "stop")


class HashSteps(HashEngine):
    """Continues with a step, or with an answer after two of them."""

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        await asyncio.sleep(0)
        steps = "".join(map(chr, request.prompt_ids)).count("step")
        texts = [
            f"step {(request.seed + i) % 5}\n" if steps < 2 else f"#### {(request.seed + i) % 4}"
            for i in range(request.n)
        ]
        return [Completion([ord(c) for c in text], text.removesuffix("\n"), "stop") for text in texts]


class HashScorer(Scorer):
    """Values that the steps decide."""

    objective = "process"

    def __init__(self, name: str) -> None:
        self.name = name

    def identity(self) -> dict[str, Any]:
        return {"scorer": self.name}

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        return [
            [hashlib.sha256(f"{self.name}{s.steps[: i + 1]}".encode()).digest()[0] / 255 for i in range(len(s.steps))]
            for s in solutions
        ]


def small() -> None:
    """Make shards and batches small, so that their borders are met."""
    store.SHARD_BYTES = 400
    scorers_run.CHUNK, scorers_run.LONGEST = 2, 4
    rank._BATCH, select._BATCH, generate._COPIED, label._PROBLEMS = 2, 2, 2, 2  # type: ignore[attr-defined]


def problems() -> list[Problem]:
    """The problems that every run is about."""
    return [Problem(id=f"p/{i}", problem=f"What is {i}?", answer=str(i % 4)) for i in range(NUM_PROBLEMS)]


def solutions() -> list[Solution]:
    """Graded, labelled and scored solutions of them."""
    made = []
    for p in problems():
        for i in range(NUM_SAMPLES):
            value = hashlib.sha256(f"{p.id}{i}".encode()).digest()[0]
            answer = p.answer if value % 2 or not i else str(value % 7 + 4)
            steps = [f"a {value}", f"b {value % 5}", f"#### {answer}"]
            labels = [
                StepLabel(rating=1),
                StepLabel(num_correct=value % 4, num_rollouts=4),
                StepLabel(rating=1 if answer == p.answer else -1),
            ]
            made.append(Solution.of(
                p, i, steps, finish="stop", predicted=answer, correct=answer == p.answer, step_labels=labels,
                scores={"prm": [0.9, value / 255, value / 255], "orm": [value / 255]}, token_ids=[1, 2, value], seed=i, generator="g",
                meta={"subset": ("gsm8k", "math")[value % 2]},
            ))  # fmt: skip
    return made


def rankings() -> list[Ranking]:
    """Rankings of them."""
    return [
        Ranking(
            problem_id=p.id, num_samples=3, sizes=[1, 2, 3], answer=p.answer,
            curves={rule: [0.3, 0.5, i % 2] for rule in ("pass@1", "majority", "prm/best_of_n", "prm/weighted_vote", "oracle")},
            choices={"prm/best_of_n": f"{p.id}#0"}, auroc_by_rule={"prm/best_of_n": 0.7},
        )
        for i, p in enumerate(problems())
    ]  # fmt: skip


def prepare(folder: Path) -> Path:
    """Write the inputs of all stages, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / "problems.jsonl", problems())
    write_records(folder / "scored.jsonl", solutions())
    plain = [
        Solution(id=s.id, problem_id=s.problem_id, problem=s.problem, steps=s.steps, answer=s.answer, finish=s.finish)
        for s in solutions()
    ]
    write_records(folder / "solutions.jsonl", plain)
    write_records(folder / "rankings.jsonl", rankings())
    write_lines(folder / "pairs.jsonl", (
        json.dumps({"id": f"{i}", "gold": f"{i}", "pred": f"{i % 5}"}) + "\n" for i in range(20)
    ))  # fmt: skip
    known_searches(folder / "searches", 8)
    write_records(folder / "held.jsonl", [s for i in range(8) for s in found(f"p{i}", (i % 2 == 0, 0.5))])
    return folder


def _labeller() -> Rollouts:
    return Rollouts(HashEngine(), strategy=Exhaustive(2), reuse_rollouts=True)


def _generate(inputs: Path, out: Path) -> None:
    generate.generate(HashEngine(), Problems(str(inputs / "problems.jsonl")), out, num_samples=NUM_SAMPLES)


def _outcomes(inputs: Path, out: Path) -> None:
    label.label(inputs / "solutions.jsonl", out)


def _rollouts(inputs: Path, out: Path) -> None:
    label.label(inputs / "solutions.jsonl", out, _labeller())


def _consensus(inputs: Path, out: Path) -> None:
    label.label(
        inputs / "solutions.jsonl",
        out,
        Consensus(_labeller(), HashEngine("judge"), template=Template(prompt="{problem}")),
    )


def _score(inputs: Path, out: Path) -> None:
    score.score(inputs / "solutions.jsonl", out, {"a": HashScorer("a"), "b": HashScorer("b")})


def _search(inputs: Path, out: Path) -> None:
    search.search(
        HashSteps(), Problems(str(inputs / "problems.jsonl")), HashScorer("a"), out, BeamSearch(4, 2),
        template=Template(prompt="{problem}\n"), max_problems=2,
    )  # fmt: skip


def _policy(inputs: Path, out: Path) -> None:
    folders = {name: inputs / "searches" / name for name in ("n", "beam")}
    policy.policy(folders, [400], out, num_samples=2, num_bins=2, held_out=inputs / "held.jsonl", num_bootstrap=5)


def _report(inputs: Path, out: Path) -> None:
    report.report(inputs / "rankings.jsonl", output=out, scores=inputs / "scored.jsonl", num_bootstrap=20, tokens=1)


def _compare(inputs: Path, out: Path) -> None:
    compare.compare({"a": inputs / "scored.jsonl", "b": inputs / "scored.jsonl"}, "a", out, num_bootstrap=20)


STAGES: dict[str, Callable[[Path, Path], None]] = {
    "generate": _generate, "label": _outcomes, "label, rollouts": _rollouts, "label, judge": _consensus,
    "score": _score, "search": _search, "policy": _policy, "report": _report, "compare": _compare,
    "convert": lambda inputs, out: convert.convert(inputs / "scored.jsonl", out, format="stepwise"),
    "select": lambda inputs, out: select.select(inputs / "scored.jsonl", out, per_problem=2, verifier="prm"),
    "rank": lambda inputs, out: rank.rank(inputs / "scored.jsonl", out, num_subsets=5, top_k=[2]),
    "grade": lambda inputs, out: grade.grade(inputs / "pairs.jsonl", out),
    "calibrate": lambda inputs, out: calibrate.calibrate(inputs / "scored.jsonl", out, num_folds=2, num_subsets=5),
}  # fmt: skip
"""Stage → a run of it from the folder of :func:`prepare` to a file or folder."""


def content(out: Path) -> dict[str, Any]:
    """What a run has left, comparable between runs: records by key without their order, other files without times.

    Raises:
        AssertionError: a record is there twice.
    """
    found: dict[str, Any] = {}
    for path in [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(path.relative_to(out)) if path != out else "."
        if path.name == ".lock":  # of a run that was killed after it had finished
            continue
        if path.name.startswith("part-") and path.suffix == ".jsonl":
            records = found.setdefault(f"{path.parent.relative_to(out)}", {})
            for line in path.read_bytes().splitlines():
                data = json.loads(line)
                data.pop("seconds", None)
                key = data.get("id", data.get("problem_id"))
                assert key not in records, f"doubled: {key} in {path.name}"
                records[key] = data
        elif path.name == "manifest.json":
            manifest = json.loads(path.read_text())
            found[name] = (
                manifest["stage"],
                manifest["finished"],
                _lasting(manifest["summary"]),
                manifest["records"]["count"],
            )
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _lasting(summary: dict[str, Any]) -> dict[str, Any]:
    """Leave out what belongs to one run: seconds, and what was made in it."""
    return {
        key: value for key, value in summary.items() if "this_run" not in key and key not in ("seconds", "trained_on")
    }


def clear(folder: Path) -> None:
    """Remove a folder or file."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def warm_up(folder: Path) -> None:
    """Run every stage once in this process, so that forked ones find all modules and fonts loaded."""
    tqdm.monitor_interval = 0  # no thread beside the forks
    # Its own lock is one of all forked processes, and one that is killed would keep it for ever.
    tqdm.set_lock(threading.RLock())
    inputs = prepare(folder / "warm" / "inputs")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name, run in STAGES.items():
            run(inputs, folder / "warm" / name.replace(", ", "-"))
    clear(folder / "warm")
