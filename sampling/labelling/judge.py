"""Labels that a judge confirms: rollouts and a language model have to find the same first incorrect step."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from sampling.engines import Engine, Request, SamplingOptions
from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from sampling.labelling.verdict import DEFAULT, Template, compared, first_incorrect, read_verdict
from sampling.runtime.scheduler import PriorityLimit, together
from sampling.runtime.seeds import derive_seed
from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from stepverify.data.encode import start_ids
from stepverify.records import InputError, Judgement, Solution

_REASONS = (
    "agreed_on_none", "agreed_on_a_step", "error_by_labels_only", "error_by_judge_only", "different_steps",
    "unparsable", "undecided",
)  # fmt: skip


class Consensus(StepLabeller):
    """Keeps the labels of solutions in which a judge finds the same first incorrect step, or none as they do.

    Rollouts measure whether a step can be recovered from, not whether it is correct; where they and a language model
    agree on the place of the error, about 40 % of the data remain, and train a better verifier (Zhang et al. 2025,
    "The Lessons of Developing Process Reward Models in Mathematical Reasoning", section 3).

    Labels are read hard: a step is incorrect if no completion was correct; one without a label is not. A solution on which
    they and the judge differ, or whose judge says nothing that can be read, loses its labels and stays.

    Each distinct solution of a problem is asked about once; one without any label is not. What the judge said is kept
    in ``judge/`` of the stage's folder, one :class:`~stepverify.records.Judgement` each, so that nothing is asked
    twice, and people can read it.

    The judge draws from the solutions as they are labelled. In one process with an engine of rollouts it is given its
    own share of memory; a server (:class:`~sampling.engines.ServerEngine`) works beside them.

    Args:
        labeller: what labels the steps, :class:`~sampling.labelling.Rollouts` as a rule.
        judge: the language model that is asked.
        template: the question, a text file (:class:`~sampling.labelling.verdict.Template`); None takes the one in
            ``sampling/labelling/first_error.txt``.
        sampling: of the judge. An answer that is cut off is none.
        num_votes: answers for each solution; the verdict is what more than half of those say that can be read.
        chat: ask in the judge's chat template; else by the plain text.
        seed: of the judge's answers.
    """

    def __init__(
        self, labeller: StepLabeller, judge: Engine, template: Path | None = None,
        sampling: SamplingOptions = SamplingOptions(temperature=0.0, max_tokens=2048),  # noqa: B008 - frozen
        num_votes: int = 1, chat: bool = True, seed: int = 0,
    ) -> None:  # fmt: skip
        if num_votes < 1:
            raise InputError(f"num_votes: expected >= 1, got {num_votes}")
        if sampling.temperature == 0 and num_votes > 1:
            raise InputError(f"num_votes: {num_votes} greedy answers are the same; set sampling.temperature")
        self.labeller, self.judge, self.template = labeller, judge, Template(template or DEFAULT)
        self.sampling, self.num_votes, self.chat, self.seed = sampling, num_votes, chat, seed
        self._summary: dict[str, Any] = {}

    def identity(self) -> dict[str, Any]:
        """The labeller, and what decides the verdicts on its labels."""
        return {
            "labeller": "consensus", "labels": self.labeller.identity(), "judge": self.judge.identity(),
            "template": self.template.text, "sampling": dataclasses.asdict(self.sampling),
            "num_votes": self.num_votes, "chat": self.chat, "seed": self.seed,
        }  # fmt: skip

    @property
    def max_problems(self) -> int:
        """As many as the labeller wants, and those before the judge."""
        return self.labeller.max_problems + self.judge.capacity

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Label the solutions of a problem, then have those judged that got labels."""
        stage.progress.watch(self.judge)
        with Store(stage.output / "judge", Judgement, stage="judge", config=self.identity(), inputs={}) as store:
            async with self.labeller.labelling(stage) as label, aclosing(self.judge):
                with Writer(store) as writer:
                    yield _JudgeRun(self, label, stage, writer).label
            self._summary = _count(store.records())
            store.finish(self._summary)

    def summary(self) -> dict[str, Any]:
        """The labeller's, and the judgements of this run and those before by what came of them."""
        return self.labeller.summary() | self._summary

    def encode(self, solution: Solution) -> list[int]:
        """The question about a solution, as ids for the judge."""
        text, tokenizer = self.template.render(solution), self.judge.tokenizer
        if not self.chat:
            return start_ids(tokenizer) + tokenizer.encode(text, add_special_tokens=False)
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(f"{self.judge.model}: its tokenizer has no chat template; set chat: false")
        turns = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)  # the template writes BOS itself
        return ids


class _JudgeRun:
    """One run of the judge: what it is asked, and what comes of its answers."""

    def __init__(self, consensus: Consensus, label: LabelProblem, stage: Stage, writer: Writer[Judgement]) -> None:
        self.consensus, self.stage, self.writer, self._label = consensus, stage, writer, label
        self._verdicts = {judgement.id: judgement.verdicts for judgement in writer.store.records()}
        self._in_flight = PriorityLimit(consensus.judge.capacity)

    async def label(self, solutions: list[Solution]) -> None:
        """Label, ask about each distinct solution that is not on record, strike labels out without a consensus."""
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
        request = Request(
            solution.id, consensus.encode(solution), consensus.num_votes, derive_seed(consensus.seed, solution.id)
        )
        async with self._in_flight.hold(request.n, 0):
            answers = await consensus.judge.complete(request, consensus.sampling)
        verdicts = [None if a.finish == "length" else read_verdict(a.text, len(solution.steps)) for a in answers]
        judgement = Judgement(
            id=solution.id, labelled=first_incorrect(solution.step_labels or []), seed=request.seed,
            texts=[a.text for a in answers], finish=[a.finish for a in answers], verdicts=verdicts,
            tokens=sum(len(a.token_ids) for a in answers),
        )  # fmt: skip
        self._verdicts[solution.id] = verdicts
        self.stage.progress.draw(tokens=judgement.tokens)
        await self.writer.write([judgement])


def _text(solution: Solution) -> tuple[str | None, ...]:
    return solution.finish, *solution.steps  # of one that was cut off the last label is of another kind


def _distinct(solutions: Iterable[Solution]) -> dict[tuple[str | None, ...], Solution]:
    """The first of those that are alike, among those that have labels."""
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
    return dict(counts) | {"consensus": dict(reasons)}
