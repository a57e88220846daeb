"""Solutions → labelled solutions: outcomes by grading answers, steps by rollouts or by an oracle."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from sampling.counts import count, describe
from sampling.engine import Completion, Engine, Request, SamplingOptions
from sampling.generate import derive_seed, digest, exported_layout
from sampling.progress import Progress
from sampling.store import Store
from sampling.tree import build, prefixes
from stepverify.answers import Grader, concluded_number, extract_answer, last_number
from stepverify.data.encode import SolutionEncoder
from stepverify.layout import Layout
from stepverify.readers import Reader, synthetic
from stepverify.records import InputError, Solution, StepLabel, read_records

Prefix = tuple[str, ...]
Unstated = Literal["no_answer", "last_number", "conclusion"]
_UNSTATED: dict[str, Callable[[str], str | None]] = {
    "no_answer": lambda text: None, "last_number": last_number, "conclusion": concluded_number,
}  # fmt: skip
_WINDOW = 64  # problems whose prefixes are sent in turns


class StepLabeller(ABC):
    """Knows how to label the steps of solutions."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the labels, for the manifest."""

    @abstractmethod
    def label(self, groups: Iterable[list[Solution]], grader: Grader) -> Iterator[tuple[list[Solution], int]]:
        """Set ``step_labels`` of graded solutions, one problem a group.

        Yields each group when it is done, with the tokens that were drawn for it.
        """


class Rollouts(StepLabeller):
    """Math-Shepherd's labels (Wang et al. 2023, section 3.3): n completions from every distinct step prefix.

    The step that states the final answer is labelled by grading that answer, not by rollouts.

    Args:
        engine: what completes; usually the generator itself.
        num_rollouts: completions a prefix (the paper draws 8).
        sampling: temperature, length, stop texts.
        layout: text around problems and steps; None takes the one that the model was exported with.
        few_shot: worked problems in front of every prompt: the same ones that the solutions were drawn with.
        max_solutions: step labels for the first so many solutions of each problem; None labels all.
        seed: of the run. A prefix is completed with seeds made from this, the problem's id and the prefix.
    """

    def __init__(
        self,
        engine: Engine,
        num_rollouts: int = 8,
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
        layout: Layout | None = None,
        few_shot: Reader | None = None,
        max_solutions: int | None = None,
        seed: int = 0,
    ) -> None:
        if num_rollouts < 1:
            raise InputError(f"num_rollouts: expected >= 1, got {num_rollouts}")
        if max_solutions is not None and max_solutions < 1:
            raise InputError(f"max_solutions: expected >= 1 or null, got {max_solutions}")
        self.engine, self.num_rollouts, self.sampling = engine, num_rollouts, sampling
        self.layout, self.max_solutions, self.seed = layout or exported_layout(engine.model), max_solutions, seed
        self.few_shot = self.layout.render_examples(list(few_shot.problems())) if few_shot else ""

    def identity(self) -> dict[str, Any]:
        """Engine and counts."""
        return {
            "labeller": "rollouts", "engine": self.engine.identity(), "num_rollouts": self.num_rollouts,
            "sampling": dataclasses.asdict(self.sampling), "layout": dataclasses.asdict(self.layout),
            "few_shot": self.few_shot, "max_solutions": self.max_solutions, "seed": self.seed,
        }  # fmt: skip

    def label(self, groups: Iterable[list[Solution]], grader: Grader) -> Iterator[tuple[list[Solution], int]]:
        """Stream the prefixes of all problems through the engine as one sequence of requests."""
        encoder = SolutionEncoder(self.engine.tokenizer, self.layout)
        open_groups: dict[str, _OpenGroup] = {}
        ready: list[_OpenGroup] = []  # problems without a prefix to complete

        def opened() -> Iterator[Iterator[Request]]:
            for solutions in groups:
                group = _OpenGroup(solutions, solutions[: self.max_solutions])
                if group.pending:
                    open_groups[solutions[0].problem_id] = group
                    yield self._requests(solutions[0], group.order, encoder)
                else:
                    ready.append(group)

        for request, completions in self.engine.generate(_in_turns(opened()), self.sampling):
            problem_id, _, number = request.key.rpartition("\x1f")
            group = open_groups[problem_id]
            group.complete(int(number), completions, grader)
            group.tokens += sum(len(c.token_ids) for c in completions)
            if not group.pending:
                ready.append(open_groups.pop(problem_id))
            while ready:
                yield ready[-1].finish(), ready.pop().tokens
        while ready:
            yield ready[-1].finish(), ready.pop().tokens

    def _requests(self, problem: Solution, order: list[Prefix], encoder: SolutionEncoder) -> Iterator[Request]:
        for number, prefix in enumerate(order):
            ids = encoder.path(problem.problem, prefix, self.few_shot)
            seed = derive_seed(self.seed, problem.problem_id, *prefix)
            yield Request(f"{problem.problem_id}\x1f{number}", ids, self.num_rollouts, seed)


def _in_turns(sources: Iterable[Iterator[Request]]) -> Iterator[Request]:
    """One request of each problem in turn: when a longer prefix comes, the engine has cached the shorter one."""
    waiting = iter(sources)
    while window := deque(islice(waiting, _WINDOW)):
        while window:
            source = window.popleft()
            if (request := next(source, None)) is not None:
                yield request
                window.append(source)


class _OpenGroup:
    """The solutions of one problem while their prefixes are being completed."""

    def __init__(self, solutions: list[Solution], chosen: list[Solution]) -> None:
        self.solutions, self.chosen, self.tokens = solutions, chosen, 0
        self.order = list(prefixes(build((s.id, s.steps[: _num_rolled(s)]) for s in chosen)))
        self.pending = dict.fromkeys(self.order)
        self.labels: dict[Prefix, StepLabel] = {}

    def complete(self, number: int, completions: list[Completion], grader: Grader) -> None:
        prefix, answer = self.order[number], self.solutions[0].answer
        # Judged as solutions are: as a whole, for the prefix may state the answer; and not where it was cut off.
        found = [None if c.finish == "length" else extract_answer("\n".join((*prefix, c.text))) for c in completions]
        verdicts = grader.grade((answer, predicted) for predicted in found)
        self.labels[prefix] = StepLabel(num_right=sum(v is True for v in verdicts), num_rollouts=len(completions))
        self.pending.pop(prefix)

    def finish(self) -> list[Solution]:
        for solution in self.chosen:
            steps = tuple(solution.steps)
            labels: list[StepLabel | None] = [self.labels[steps[: i + 1]] for i in range(_num_rolled(solution))]
            solution.step_labels = labels + _final_labels(solution)
        return self.solutions


def _num_rolled(solution: Solution) -> int:
    """Steps that are labelled by rollouts: all but the final-answer step of a solution that ended by itself."""
    return len(solution.steps) - (solution.finish != "length" and bool(solution.steps))


def _final_labels(solution: Solution) -> list[StepLabel | None]:
    if _num_rolled(solution) == len(solution.steps):
        return []
    return [StepLabel(rating=1 if solution.correct else -1)]


class SyntheticOracle(StepLabeller):
    """Exact verdicts on the steps of synthetic problems, to measure other labels and verifiers against."""

    def identity(self) -> dict[str, Any]:
        """The oracle has no settings."""
        return {"labeller": "synthetic_oracle"}

    def label(self, groups: Iterable[list[Solution]], grader: Grader) -> Iterator[tuple[list[Solution], int]]:
        """Judge every step."""
        for solutions in groups:
            for s in solutions:
                if "modulus" not in s.meta:
                    raise InputError(
                        f"solution {s.id}: not of a synthetic problem (no meta.modulus), the oracle cannot judge it"
                    )
                right = synthetic.verdicts(s.problem, s.steps, s.meta["modulus"])
                s.step_labels = [StepLabel(rating=1 if r else -1) for r in right]
            yield solutions, 0


def label(
    input: Path | Reader,
    output: Path,
    steps: StepLabeller | None = None,
    time_limit: float = 3.0,
    unstated: Unstated = "no_answer",
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
            judged so.

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
    with Store(output, Solution, stage="label", config=config, inputs=inputs) as store:
        if store.finished:
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        kept = len(store.done)
        with Grader(time_limit=time_limit) as grader, Progress("label", "solutions", total, kept) as progress:
            # A problem of which a kill left some lines is labelled again as a whole; only the others are written.
            missing = (group for group in groups if any(s.id not in store.done for s in group))
            graded = (grade(group, grader, unstated) for group in missing)
            labelled = steps.label(graded, grader) if steps else ((group, 0) for group in graded)
            for group, tokens in labelled:
                new = [s for s in group if s.id not in store.done]
                store.write(new)
                progress.add(len(new), tokens)
            timeouts = grader.num_timeouts
        summary = count(read_records_unfinished(store), given) | {"grading_timeouts": timeouts} | progress.summary()
        store.finish(summary)
    print(f"{output}: {describe(summary)}")


def read_records_unfinished(store: Store[Solution]) -> Iterator[Solution]:
    """Everything in a store that is about to be finished."""
    for shard in sorted(store.folder.glob("part-*.jsonl")):
        yield from read_records(shard, Solution)


def _by_problem(source: Path | Reader) -> list[list[Solution]]:
    path = type(source).__name__ if isinstance(source, Reader) else source
    groups: dict[str, list[Solution]] = {}
    seen = set()
    for solution in source.solutions() if isinstance(source, Reader) else read_records(source, Solution):
        if solution.id in seen:
            raise InputError(f"{path}: solution id {solution.id!r} occurs twice")
        seen.add(solution.id)
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


def grade(group: list[Solution], grader: Grader, unstated: Unstated = "no_answer") -> list[Solution]:
    """Fill in ``predicted`` and ``correct`` of solutions whose problems have answers; gives them back."""
    for solution in group:
        text = "\n".join(solution.steps)
        # An answer in a solution that was cut off is not its final one.
        solution.predicted = None if solution.finish == "length" else extract_answer(text) or _UNSTATED[unstated](text)
    for solution, verdict in zip(group, grader.grade((s.answer, s.predicted) for s in group), strict=True):
        solution.correct = verdict is True
    return group
