"""Confirm step labels with a judge, a language model.

The labels of a solution are kept if both find the same first incorrect step.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sampling.engines import Engine, SamplingOptions
from sampling.engines.prompts import Prompts, template_of
from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from sampling.labelling.verdict import DEFAULT, JudgePrompt, compared, first_incorrect, read_verdict
from sampling.runtime.scheduler import PriorityLimit, together
from sampling.runtime.seeds import derive_seed
from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from stepverify.records import InputError, Judgement, Solution
from stepverify.template import Template

_REASONS = (
    "agreed_on_none", "agreed_on_a_step", "error_by_labels_only", "error_by_judge_only", "different_steps",
    "unparsable", "undecided",
)  # fmt: skip


class Consensus(StepLabeller):
    """Keep the labels of solutions on which a judge agrees.

    They agree if both find the same first incorrect step, or both find none. Rollouts measure whether a solution can
    recover from a step, not whether the step is correct; where they and a language model agree on the place of the
    error, about 40 % of the data remain, and train a better verifier (Zhang et al. 2025,
    "The Lessons of Developing Process Reward Models in Mathematical Reasoning", section 3).

    Labels are read as hard labels: a step is incorrect if no completion of it was correct; a step without a label is
    not. If labels and judge disagree, or no verdict of the judge can be read, the solution stays but loses its labels.

    Each distinct solution of a problem is judged once; a solution without any label is not judged. The judge's answers
    are kept in ``judge/`` of the stage's folder, one :class:`~stepverify.records.Judgement` each, so that nothing is
    asked twice and people can read them.

    The judge starts as soon as the first solutions are labelled. In one process with an engine of rollouts it needs its
    own share of memory; a server (:class:`~sampling.engines.ServerEngine`) works next to them.

    Args:
        labeller: labels the steps, usually :class:`~sampling.labelling.Rollouts`.
        judge: engine of the language model that judges.
        prompt: text file with the question (:class:`~sampling.labelling.verdict.JudgePrompt`); None takes
            ``sampling/labelling/first_error.txt``.
        sampling: sampling options of the judge. An answer that is cut off, or refused, counts as unreadable.
        num_votes: answers per solution; the verdict is that of more than half of the readable ones.
        template: text around the question, which ``{problem}`` stands for; None is the judge's chat template with the
            question alone.
        seed: seed of the judge's answers.
    """

    def __init__(
        self, labeller: StepLabeller, judge: Engine, prompt: Path | None = None,
        sampling: SamplingOptions = SamplingOptions(temperature=0.0, max_tokens=2048),  # noqa: B008 - frozen
        num_votes: int = 1, template: Template | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        if num_votes < 1:
            raise InputError(f"num_votes: expected >= 1, got {num_votes}")
        if sampling.temperature == 0 and num_votes > 1:
            raise InputError(f"num_votes: {num_votes} greedy answers are the same; set sampling.temperature")
        self.labeller, self.judge, self.prompt = labeller, judge, JudgePrompt(prompt or DEFAULT)
        self.sampling, self.num_votes, self.template, self.seed = (
            sampling,
            num_votes,
            template_of(judge, template or Template(chat=True)),
            seed,
        )
        self._summary: dict[str, Any] = {}

    def identity(self) -> dict[str, Any]:
        """Return the labeller's identity, and what decides the verdicts."""
        return {
            "labeller": "consensus", "labels": self.labeller.identity(), "judge": self.judge.identity(),
            "prompt": self.prompt.text, "sampling": dataclasses.asdict(self.sampling),
            "num_votes": self.num_votes, "template": dataclasses.asdict(self.template), "seed": self.seed,
        }  # fmt: skip

    @property
    def max_problems(self) -> int:
        """Return the labeller's number of problems plus those with the judge."""
        return self.labeller.max_problems + self.judge.capacity

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Label the solutions of a problem, then judge those with labels."""
        stage.progress.watch(self.judge)
        folder, config = stage.output / "judge", self.identity()
        with Store(folder, Judgement, stage="judge", config=config, inputs={}, may_be_empty=True) as store:
            stage.merged.copy(store, "judge")
            async with self.labeller.labelling(stage) as label, aclosing(self.judge):
                with Writer(store) as writer:
                    yield _JudgeRun(self, label, stage, writer).label
            self._summary = _count(store.records())
            store.finish(self._summary)

    def summary(self) -> dict[str, Any]:
        """Return the labeller's counts, and the judgements by result.

        Judgements of earlier runs are included.
        """
        return self.labeller.summary() | self._summary


class _JudgeRun:
    """Ask the judge about solutions, and remove labels without consensus."""

    def __init__(self, consensus: Consensus, label: LabelProblem, stage: Stage, writer: Writer[Judgement]) -> None:
        self.consensus, self.stage, self.writer, self._label = consensus, stage, writer, label
        self._verdicts = {judgement.id: judgement.verdicts for judgement in writer.store.records()}
        self._in_flight = PriorityLimit(consensus.judge.capacity)

    @cached_property
    def _prompts(self) -> Prompts:  # no tokenizer is loaded where nothing is missing
        return Prompts(self.consensus.judge, self.consensus.template)

    @cached_property
    def _sampling(self) -> SamplingOptions:
        return self._prompts.options(self.consensus.sampling)

    async def label(self, solutions: list[Solution]) -> None:
        """Label a problem's solutions, and remove labels without consensus.

        Each distinct solution that is not on record is judged.
        """
        await self._label(solutions)
        distinct = _distinct(solutions)
        await together(self._ask(s) for s in distinct.values() if s.id not in self._verdicts)
        for s in solutions:
            if any(s.step_labels or []):
                verdicts = self._verdicts[distinct[_text(s)].id]
                if not compared(first_incorrect(s.step_labels or []), verdicts).startswith("agreed"):
                    s.step_labels = None

    async def _ask(self, solution: Solution) -> None:
        consensus = self.consensus
        question, seed = consensus.prompt.render(solution), derive_seed(consensus.seed, solution.id)
        request = self._prompts.request(solution.id, question, consensus.num_votes, seed)
        async with self._in_flight.hold(request.n, 0):
            answers = await consensus.judge.complete(request, self._sampling)
        verdicts = [
            None if a.finish != "stop" else read_verdict(consensus.template.strip(a.text), len(solution.steps))
            for a in answers
        ]
        judgement = Judgement(
            id=solution.id, labelled=first_incorrect(solution.step_labels or []), seed=request.seed,
            texts=[a.text for a in answers], finish=[a.finish for a in answers], verdicts=verdicts,
            tokens=sum(a.num_tokens for a in answers),
        )  # fmt: skip
        self._verdicts[solution.id] = verdicts
        self.stage.progress.count(tokens=judgement.tokens)
        await self.writer.write([judgement])


def _text(solution: Solution) -> tuple[str | None, ...]:
    # The finish too: the final label of a solution that was cut off comes from rollouts, not from grading.
    return solution.finish, *solution.steps


def _distinct(solutions: Iterable[Solution]) -> dict[tuple[str | None, ...], Solution]:
    """Return the first of identical solutions, among those with labels."""
    first: dict[tuple[str | None, ...], Solution] = {}
    for s in solutions:
        if any(s.step_labels or []):
            first.setdefault(_text(s), s)
    return first


def _count(judgements: Iterable[Judgement]) -> dict[str, Any]:
    reasons, counts = Counter[str](dict.fromkeys(_REASONS, 0)), Counter[str]()
    for j in judgements:
        reasons[compared(j.labelled, j.verdicts)] += 1
        counts.update(judged=1, unparsable_verdicts=j.verdicts.count(None), judge_tokens=j.tokens)
        if refused := j.finish.count("refused"):
            counts.update(refused_verdicts=refused)
    return dict(counts) | {"consensus": dict(reasons)}
