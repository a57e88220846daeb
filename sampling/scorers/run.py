"""Score all solutions of a stage, one verifier after the other."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sampling.runtime.progress import Progress
from sampling.runtime.store import Store
from sampling.scorers.base import Scorer
from stepverify.critique import Critique
from stepverify.jsonl import read_records
from stepverify.keys import KeySet
from stepverify.records import InputError, Solution

CHUNK = 128  # smallest number of solutions scored and written together; a kill loses at most a chunk
LONGEST = 4 * CHUNK  # largest number, for a problem with many solutions
UNMERGED = "unmerged"  # folder for the scores of all verifiers but the final one


@dataclass(frozen=True)
class Work:
    """Describe the solutions that are to be scored.

    Attributes:
        input: file or folder of solutions.
        wanted: tells by the id of a problem whether its solutions are among them.
        total: number of them.
    """

    input: Path
    wanted: Callable[[str], bool]
    total: int


def score_all(work: Work, store: Store[Solution], scorers: Mapping[str, Scorer], held: int) -> dict[str, Any]:
    """Score the solutions that a store lacks.

    One model is loaded at a time, and only once. The values of all verifiers but the final one are kept in a subfolder
    first, and merged while the final one scores.

    Args:
        work: the solutions.
        store: store of the scored solutions, in input order.
        scorers: name in the scores → scorer.
        held: number of records in the store of solutions that are not to be scored.

    Returns:
        For the summary: ``without_scores``, verifier → number of solutions without a value; ``critiques``, verifier →
        number of critiques, of those without a verdict, and of those whose verdict was forced, if there are some; and
        the figures of this run.
    """
    *before, last = scorers
    done = len(store.done) - held == work.total
    parts = {name: _part(store, work, name, scorers[name]) for name in before if not done}
    read = {name: part.records() for name, part in parts.items()}
    without, verdicts = dict.fromkeys(scorers, 0), dict[str, Counter[str]]()

    def merge(solution: Solution) -> None:
        for name, records in read.items():
            known = next((r for r in records if r.id == solution.id), None)
            if known is None or name not in known.scores:
                raise InputError(
                    f"{parts[name].folder}: solution {solution.id} is missing or out of order; remove the folder"
                )
            _put(solution, name, known.scores[name], known.token_texts.get(name), known.critiques.get(name))
        _count(solution, without, verdicts)

    for solution in store.records() if store.done else ():  # scored by an earlier, killed run
        if lacking := scorers.keys() - solution.scores.keys():
            raise InputError(
                f"{store.folder}: solution {solution.id} lacks scores by {min(lacking)!r}; its shard was edited"
            )
        _count(solution, without, verdicts)
    figures = _pass(work, store, last, scorers[last], held, merge)
    figures["seconds"] = round(figures["seconds"] + sum(part.summary["seconds"] for part in parts.values()), 2)
    written = {"critiques": {name: dict(counts) for name, counts in verdicts.items()}} if verdicts else {}
    return {"without_scores": without} | written | figures


def remove_parts(store: Store[Solution]) -> None:
    """Remove the subfolder of scores that have been merged."""
    shutil.rmtree(store.folder / UNMERGED, ignore_errors=True)


def _part(store: Store[Solution], work: Work, name: str, scorer: Scorer) -> Store[Solution]:
    """Score with one verifier into a subfolder of ids and values."""
    folder = store.folder / UNMERGED / quote(name, safe="")
    config = {"verifiers": {name: scorer.identity()}, "solutions": work.total}
    with Store(folder, Solution, stage="score", config=config, inputs={"input": work.input}) as part:
        if not part.finished:
            part.finish(_pass(work, part, name, scorer))
    return part


def _pass(
    work: Work, store: Store[Solution], name: str, scorer: Scorer, held: int = 0,
    merge: Callable[[Solution], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score the solutions that a store lacks with one verifier.

    Writes the solutions with all scores if ``merge`` is given, otherwise only ids and values.
    """

    async def run() -> None:
        async with scorer, aclosing(_in_order(scorer, _chunks(work, store.done))) as scored:
            async for chunk, values in scored:
                missing = [pair for pair in zip(chunk, values, strict=True) if pair[0].id not in store.done]
                for solution, along in missing:
                    texts = scorer.token_texts(solution) if along else None
                    _put(solution, name, along, texts, scorer.critiques(solution))
                    if merge is not None:
                        merge(solution)
                store.write(s if merge is not None else _alone(s, name) for s, _ in missing)
                progress.add(len(missing))

    total = held + work.total
    with Progress(f"score {name}", "solutions", total, len(store.done)) as progress:
        progress.watch(scorer)
        if len(store.done) < total:  # else nothing is loaded
            asyncio.run(run())
        return progress.summary()


async def _in_order(
    scorer: Scorer, chunks: Iterator[list[Solution]]
) -> AsyncGenerator[tuple[list[Solution], list[list[float]]], None]:
    """Keep a scorer busy; yield chunks with their values in input order."""
    waiting = deque[tuple[list[Solution], asyncio.Task[list[list[float]]]]]()
    try:
        for chunk in chunks:
            waiting.append((chunk, asyncio.create_task(scorer.score(chunk))))
            await asyncio.sleep(0)
            if len(waiting) >= scorer.concurrency:
                first, task = waiting.popleft()
                yield first, await task
        while waiting:
            first, task = waiting.popleft()
            yield first, await task
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


def _chunks(work: Work, done: KeySet) -> Iterator[list[Solution]]:
    """Yield chunks of whole problems, without those that are done.

    A problem with very many solutions is divided. Chunks are the same in a run that continues as in one that was not
    killed, and so are the values.
    """
    chunk: list[Solution] = []
    for solution in read_records(work.input, Solution):
        if not work.wanted(solution.problem_id):
            continue
        if len(chunk) == LONGEST or (len(chunk) >= CHUNK and solution.problem_id != chunk[-1].problem_id):
            if any(s.id not in done for s in chunk):
                yield chunk
            chunk = []
        chunk.append(solution)
    if any(s.id not in done for s in chunk):
        yield chunk


def _put(
    solution: Solution, name: str, values: list[float], texts: list[str] | None, critiques: list[Critique] | None
) -> None:
    solution.scores = solution.scores | {name: values}
    others = {key: known for key, known in solution.token_texts.items() if key != name}
    solution.token_texts = others | ({name: texts} if texts else {})
    written = {key: known for key, known in solution.critiques.items() if key != name}
    solution.critiques = written | ({name: critiques} if critiques else {})


def _alone(solution: Solution, name: str) -> Solution:
    of_one: dict[str, Any] = {
        field: {name: known[name]}
        for field in ("scores", "token_texts", "critiques") if name in (known := getattr(solution, field))
    }  # fmt: skip
    return Solution(id=solution.id, problem_id=solution.problem_id, problem="", steps=[], **of_one)


def _count(solution: Solution, without: dict[str, int], verdicts: dict[str, Counter[str]]) -> None:
    for name in without:
        without[name] += not solution.scores[name]
        if critiques := solution.critiques.get(name):
            verdicts.setdefault(name, Counter(critiques=0, without_verdict=0, forced_verdicts=0)).update(
                critiques=len(critiques), without_verdict=sum(one.value is None for one in critiques),
                forced_verdicts=sum(one.forced for one in critiques),
            )  # fmt: skip
