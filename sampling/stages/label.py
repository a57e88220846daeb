"""Solutions → labelled solutions: outcomes by grading answers, steps by a labeller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from sampling.labelling.answer_fallback import Unstated
from sampling.labelling.base import Stage, StepLabeller
from sampling.labelling.label_statistics import count, describe
from sampling.runtime.progress import Progress
from sampling.runtime.store import Store
from sampling.stages.generate import digest
from stepverify.answers import Grader, concluded_number, extract_answer, last_number
from stepverify.jsonl import read_records
from stepverify.readers import Reader
from stepverify.readers.base import once
from stepverify.records import InputError, Solution

Fallback = Literal["no_answer", "last_number", "conclusion"]
_FALLBACKS: dict[str, Callable[[str], str | None]] = {
    "no_answer": lambda text: None, "last_number": last_number, "conclusion": concluded_number,
}  # fmt: skip


def label(
    input: Path | Reader,
    output: Path,
    steps: StepLabeller | None = None,
    time_limit: float = 3.0,
    unstated: Fallback = "no_answer",
) -> None:
    """Label solutions: ``predicted`` and ``correct`` by grading, and the steps if a labeller is given.

    Args:
        input: folder of solutions, or a reader of solutions that others released. Verdicts that these come with are
            graded anew, and those that change are counted and named in the manifest.
        output: folder for the labelled solutions; a killed run goes on with the problems that are missing.
        steps: how steps are labelled; None leaves them.
        time_limit: seconds that grading one answer may take; one that takes longer is wrong, and counted.
        unstated: what a solution in prose that states no answer means: nothing, its last number, or its last
            result if the last line repeats that (see :func:`stepverify.answers.concluded_number`). Rollouts are not
            judged so. More than 5 % of such solutions are warned of, with the endings of three.

    Raises:
        InputError: a problem without a reference answer; solutions of one problem that do not agree on it.
    """
    groups = _by_problem(input)
    total = sum(map(len, groups))
    given = {s.id: s.correct for group in groups for s in group if s.correct is not None}
    config: dict[str, Any] = {"steps": steps.identity() if steps else None, "time_limit": time_limit}
    inputs = {}
    if unstated != "no_answer":
        config["unstated"] = unstated
    if isinstance(input, Reader):
        config["input"] = {"reader": type(input).__name__, "sha256": digest(s for group in groups for s in group)}
    else:
        inputs["input"] = input
    with Store(output, Solution, stage="label", config=config, inputs=inputs, nested="steps") as store:
        if store.finished:
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        kept = len(store.done)
        with Grader(time_limit=time_limit) as grader, Progress("label", "solutions", total, kept) as progress:
            # A problem of which a kill left some lines is labelled again as a whole; only the others are written.
            missing = (group for group in groups if any(s.id not in store.done for s in group))
            graded = (grade(group, grader, unstated) for group in missing)
            stage = Stage(None if isinstance(input, Reader) else input, output, grader, progress)
            for group in steps.label(graded, stage) if steps else graded:
                new = [s for s in group if s.id not in store.done]
                store.write(new)
                progress.add(len(new), labels=sum(label is not None for s in new for label in s.step_labels or []))
            timeouts = grader.num_timeouts
        found = Unstated("solutions")
        summary = count(_watched(store.records(), found), given) | {"grading_timeouts": timeouts} | progress.summary()
        summary |= {"unstated": found.count}
        if isinstance(input, Reader):
            summary |= input.counted()
        store.finish(summary | (steps.summary() if steps else {}))
    print(f"{output}: {describe(summary)}")
    found.warn(_ADVICE if unstated == "no_answer" else f"`unstated: {unstated}` read a number from each all the same")


_ADVICE = (
    "they count as incorrect; `unstated: last_number` reads the last number of such a solution, `unstated: conclusion` "
    "its last result where the last line repeats it"
)


def _watched(solutions: Iterable[Solution], found: Unstated) -> Iterator[Solution]:
    for s in solutions:
        text = "\n".join(s.steps)
        found.add(text, stated=s.finish == "length" or extract_answer(text) is not None)
        yield s


def _by_problem(source: Path | Reader) -> list[list[Solution]]:
    path = type(source).__name__ if isinstance(source, Reader) else source
    groups: dict[str, list[Solution]] = {}
    solutions = source.solutions() if isinstance(source, Reader) else read_records(source, Solution)
    for solution in once(solutions, str(path)):
        group = groups.setdefault(solution.problem_id, [])
        if not solution.answer:
            raise InputError(
                f"{path}: solution {solution.id}: its problem has no reference answer ('answer'), it cannot be graded"
            )
        if group and group[0].answer != solution.answer:
            raise InputError(
                f"{path}: solution {solution.id}: answer {solution.answer!r}, but {group[0].id} has {group[0].answer!r}"
            )
        group.append(solution)
    return list(groups.values())


def grade(group: list[Solution], grader: Grader, unstated: Fallback = "no_answer") -> list[Solution]:
    """Fill in ``predicted`` and ``correct`` of solutions whose problems have answers; gives them back."""
    for solution in group:
        text = "\n".join(solution.steps)
        # An answer in a solution that was cut off is not its final one.
        solution.predicted = None if solution.finish == "length" else extract_answer(text) or _FALLBACKS[unstated](text)
    for solution, verdict in zip(group, grader.grade((s.answer, s.predicted) for s in group), strict=True):
        solution.correct = verdict is True
    return group
