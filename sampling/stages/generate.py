"""Problems → solutions: the first stage."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.runtime.progress import Progress
from sampling.runtime.reuse import check_drawn, read_drawn
from sampling.runtime.store import Store
from stepverify.data.encode import SolutionEncoder
from stepverify.jsonl import dump_line
from stepverify.layout import Layout, load_export
from stepverify.readers import Reader
from stepverify.records import InputError, Problem, Solution

_COPIED = 512  # solutions that are written and synced together


def generate(
    engine: Engine,
    problems: Reader,
    output: Path,
    num_samples: int = 8,
    sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
    layout: Layout | None = None,
    few_shot: Reader | None = None,
    drawn_before: Sequence[Path] = (),
    seed: int = 0,
) -> None:
    """Draw solutions of problems.

    Args:
        engine: what draws them.
        problems: the problems.
        output: folder for the solutions; a killed run goes on where it was.
        num_samples: solutions a problem.
        sampling: temperature, length, stop texts.
        layout: text around problems and steps; None takes the one that the model was exported with.
        few_shot: worked problems in front of every prompt, for models that were not trained on the layout.
        drawn_before: outputs of other runs of this stage, of fewer samples or other problems, finished or not: what
            they drew is not drawn again, but copied. They must have drawn with this engine, these options, examples and
            seed.
        seed: of the run. Sample i of a problem is drawn with a seed made from this, the problem's id and i.
    """
    if num_samples < 1:
        raise InputError(f"num_samples: expected >= 1, got {num_samples}")
    layout = layout or exported_layout(engine.model)
    todo = read_problems(problems)
    examples = list(few_shot.problems()) if few_shot else []
    if shared := {e.id for e in examples} & {p.id for p in todo}:
        raise InputError(f"few_shot: example {min(shared)} is one of the problems to be solved")
    config = {
        "engine": engine.identity(), "num_samples": num_samples, "sampling": dataclasses.asdict(sampling),
        "layout": dataclasses.asdict(layout), "seed": seed, "problems": digest(todo), "few_shot": digest(examples),
    }  # fmt: skip
    check_drawn(drawn_before, "generate", config)
    with Store(output, Solution, stage="generate", config=config, inputs={}) as store:
        if store.finished:
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        encoder = SolutionEncoder(engine.tokenizer, layout)
        by_id = {p.id: p for p in todo}
        copied = _copy(read_drawn(drawn_before, Solution), by_id, num_samples, store)
        prefix = layout.render_examples(examples)
        name = Path(engine.model).name
        with Progress("generate", "solutions", total=len(todo) * num_samples, done=len(store.done)) as progress:
            progress.watch(engine)
            requests = _missing(todo, num_samples, seed, store.done, encoder, prefix)
            some = next(requests, None)  # where all is there, no model is loaded
            for request, completions in engine.generate(chain([some], requests), sampling) if some else ():
                problem_id, _, first = request.key.rpartition("#")
                store.write(
                    _solution(by_id[problem_id], int(first) + i, request.seed + i, c, layout, name)
                    for i, c in enumerate(completions)
                )
                progress.add(len(completions), tokens=sum(len(c.token_ids) for c in completions))
        summary = {"problems": len(todo), "solutions": len(store.done)} | problems.counted()
        summary |= {"drawn_before": copied} if drawn_before else {}
        store.finish(summary | progress.summary())
    left_out = f"; left out: {problems.left_out}" if problems.left_out else ""
    print(f"{output}: {len(store.done)} solutions of {len(todo)} problems{left_out}")


def _copy(drawn: Iterable[Solution], problems: dict[str, Problem], num_samples: int, store: Store[Solution]) -> int:
    """Write what is wanted of the solutions and is not there; gives how many are of another run."""
    copied, batch = set[str](), list[Solution]()
    for solution in drawn:
        problem, number = problems.get(solution.problem_id), int(solution.id.rpartition("#")[2])
        if problem is None or number >= num_samples or solution.id in copied:
            continue
        if (problem.problem, problem.answer) != (solution.problem, solution.answer):
            continue  # the problem was edited since
        copied.add(solution.id)
        if solution.id not in store.done:
            batch.append(solution)
        if len(batch) == _COPIED:
            store.write(batch)
            batch.clear()
    store.write(batch)
    return len(copied)


def _missing(
    problems: list[Problem], num_samples: int, seed: int, done: set[str], encoder: SolutionEncoder, prefix: str,
) -> Iterator[Request]:  # fmt: skip
    for problem in problems:
        # A kill between two lines leaves the first samples of a problem: they stay, the rest is drawn.
        # Lines that were taken out by hand leave gaps: one request fills one gap.
        absent = [i for i in range(num_samples) if f"{problem.id}#{i}" not in done]
        for _, gap in groupby(enumerate(absent), key=lambda pair: pair[1] - pair[0]):
            indices = [i for _, i in gap]
            yield Request(
                f"{problem.id}#{indices[0]}", encoder.prompt(problem.problem, prefix), len(indices),
                derive_seed(seed, problem.id) + indices[0],
            )  # fmt: skip


def _solution(problem: Problem, index: int, seed: int, drawn: Completion, layout: Layout, generator: str) -> Solution:
    return Solution.of(
        problem, index, layout.split(drawn.text),
        token_ids=drawn.token_ids, finish=drawn.finish, seed=seed, generator=generator,
        forced=drawn.forced,
    )  # fmt: skip


def read_problems(reader: Reader) -> list[Problem]:
    """All problems of a reader.

    Raises:
        InputError: none there, or an id twice.
    """
    problems, seen = [], set()
    for problem in reader.problems():
        if problem.id in seen:
            raise InputError(f"{type(reader).__name__}: problem id {problem.id!r} occurs twice")
        seen.add(problem.id)
        problems.append(problem)
    if not problems:
        raise InputError(f"{type(reader).__name__}: no problem was read")
    return problems


def exported_layout(model: str) -> Layout:
    """The layout that a model carries, or the default one for a model from elsewhere."""
    export = load_export(model)
    return export[0] if export else Layout()


def derive_seed(*parts: str | int) -> int:
    """A seed below 2^62 from the run's seed and whatever names the draw: the same in every process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def digest(items: Iterable[Problem | Solution]) -> str:
    """SHA-256 of the contents of problems or solutions."""
    sha = hashlib.sha256()
    for item in items:
        sha.update(dump_line(item).encode())
    return sha.hexdigest()
