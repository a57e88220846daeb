"""Label solutions: outcomes by grading answers, steps by a labeller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sampling.labelling.answer_fallback import Unstated
from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from sampling.labelling.label_statistics import count, describe
from sampling.labelling.outcomes import Survey, count_unstated, grade_solutions
from sampling.labelling.timeouts import Timeouts, count_solutions
from sampling.runtime.batched import Batched
from sampling.runtime.merging import find_shards
from sampling.runtime.problem_shard import ProblemShard
from sampling.runtime.progress import Progress
from sampling.runtime.scheduler import run, run_all
from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from stepverify.answers import Fallback, Grader
from stepverify.jsonl import dump_line
from stepverify.readers import Reader
from stepverify.records import Solution

_PROBLEMS = 64  # problems at the same time if steps are not labelled


def label(
    input: Path | Reader,
    output: Path,
    steps: StepLabeller | None = None,
    time_limit: float = 3.0,
    answer_fallback: Fallback = "no_answer",
    shard: str | None = None,
    reuse_from: Sequence[Path] = (),
    complete_shards: bool = False,
) -> None:
    """Label solutions by grading their answers, and label their steps.

    Sets ``predicted`` and ``correct``, and the step labels if a labeller is given.

    Args:
        input: folder of solutions, or a reader of released solutions. Verdicts that come with them are graded again;
            those that change are counted and listed in the manifest.
        output: folder for the labelled solutions, in any order; a killed run continues with the missing problems.
        steps: the labeller of steps; None leaves step labels as they are.
        time_limit: seconds of CPU time that reading one solution, or comparing its answer, may take; a solution that
            takes longer is incorrect, has ``timed_out`` set, and is counted. A warning is printed if these are more
            than 1 % of the answers.
        answer_fallback: the answer of a solution in prose that states none: none at all, its last number, or its last
            result if the last line has or repeats it. Does not apply to rollouts. A warning with three example endings
            is printed if more than 5 % of the solutions state no answer.
        shard: ``i/n``: label the problems of job i of n alone, by a hash of their ids; each job has its own output.
        reuse_from: all shards of this run, by name or as ``folder/*``. This run then writes what it would have written
            without shards, rollouts and judgements included. (``reuse_from`` of Rollouts takes completions alone, of
            any run.)
        complete_shards: label here what missing and unfinished shards in ``reuse_from`` lack, in place of refusing.

    Raises:
        InputError: a problem without a reference answer, or solutions of one problem with different reference answers;
            shards that are missing, unfinished or of another run.
    """
    part = ProblemShard.parse(shard)
    survey = Survey(input, part)
    config: dict[str, Any] = {"steps": steps.identity() if steps else None, "time_limit": time_limit}
    inputs = {}
    if answer_fallback != "no_answer":
        config["answer_fallback"] = answer_fallback
    if isinstance(input, Reader):
        config["input"] = {"reader": type(input).__name__, "sha256": survey.digest}
    else:
        inputs["input"] = input
    described: dict[str, Any] = {"stage": "label", "config": config | part.config(), "inputs": inputs}
    with Store(output, Solution, **described, nested="steps", may_be_empty=part.divides) as store:
        if store.finished:
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        merged = find_shards(reuse_from, "label", config, part, complete=complete_shards, alone=True)
        if not isinstance(input, Reader):
            merged.check_contents(input, partial(_unlabelled, steps=steps is not None))
        merged.copy(store)
        found, late = Unstated("solutions"), Timeouts("solutions", time_limit)
        with Grader(time_limit=time_limit) as grader:
            with (
                ThreadPoolExecutor(1, "grading") as pool,
                Progress("label", "solutions", survey.total, len(store.done)) as progress,
            ):
                # A problem that a kill left incomplete is labelled again as a whole; only its missing lines are
                # written.
                groups = survey.groups(lambda problem_id: problem_id in part and not merged.holds(problem_id))
                missing = (group for group in groups if any(s.id not in store.done for s in group))
                stage = Stage(None if isinstance(input, Reader) else input, output, grader, pool, progress, merged)
                run(_label_all(missing, steps, answer_fallback, stage, store))
            records = count_unstated(store.records(), found, grader, answer_fallback)
            summary = count(count_solutions(records, late), survey)
        summary |= {"grading_timeouts": late.count}
        figures = progress.summary()
        summary |= merged.add(figures) | {"unstated": found.count}
        if isinstance(input, Reader):
            summary |= input.counted()
        store.finish(summary | (steps.summary() if steps else {}))
    merged.say(output, figures["items_this_run"], "solutions")
    print(f"{output}: {describe(summary)}")
    read = f"`answer_fallback: {answer_fallback}` still read a number from each"
    found.warn(_ADVICE if answer_fallback == "no_answer" else read)
    late.warn("they count as incorrect")


_ADVICE = (
    "they count as incorrect; `answer_fallback: conclusion` reads the last result of such a solution "
    "where its last line has or repeats it, `answer_fallback: last_number` its last number"
)


def _unlabelled(solution: Solution, *, steps: bool) -> str:
    """Describe a solution without what the stage sets; ``steps``: step labels too."""
    known = None if steps else solution.step_labels
    return dump_line(replace(solution, predicted=None, correct=None, timed_out=False, step_labels=known))


async def _label_all(
    groups: Iterable[list[Solution]],
    steps: StepLabeller | None,
    answer_fallback: Fallback,
    stage: Stage,
    store: Store[Solution],
) -> None:
    graded = Batched(partial(grade_solutions, grader=stage.grader, answer_fallback=answer_fallback), stage.pool)
    with Writer(store) as writer:
        async with steps.labelling(stage) if steps else _outcomes_alone() as label_steps:

            async def label_problem(group: list[Solution]) -> None:
                await graded(group)
                await label_steps(group)
                new = [s for s in group if s.id not in store.done]
                await writer.write(new)
                labels = sum(label is not None for s in new for label in s.step_labels or [])
                stage.progress.add(len(new), labels=labels)

            await run_all(groups, label_problem, max_in_work=steps.max_problems if steps else _PROBLEMS)


@asynccontextmanager
async def _outcomes_alone() -> AsyncIterator[LabelProblem]:
    async def leave(solutions: list[Solution]) -> None:
        pass

    yield leave
