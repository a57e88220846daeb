"""Labels that a judge confirms: rollouts and a language model have to find the same first wrong step."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.labelling.base import Stage, StepLabeller
from sampling.labelling.verdict import DEFAULT, Template, compared, first_wrong, read_verdict
from sampling.runtime.store import Store
from sampling.stages.generate import derive_seed
from stepverify.data.encode import start_ids
from stepverify.records import InputError, Judgement, Solution

_REASONS = (
    "agreed_on_none", "agreed_on_a_step", "error_by_labels_only", "error_by_judge_only", "different_steps",
    "unparsable", "undecided",
)  # fmt: skip


class Consensus(StepLabeller):
    """Keeps the labels of solutions in which a judge finds the same first wrong step, or none as they do.

    Rollouts measure whether a step can be recovered from, not whether it is right; where they and a language model
    agree on the place of the error, about 40 % of the data remain, and train a better verifier (Zhang et al. 2025,
    "The Lessons of Developing Process Reward Models in Mathematical Reasoning", section 3).

    Labels are read hard: a step is wrong if no completion was right; one without a label is not. A solution on which
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

    def label(self, groups: Iterable[list[Solution]], stage: Stage) -> Iterator[list[Solution]]:
        """Stream the labelled solutions through the judge; a problem is done when the last of them is judged."""
        stage.progress.watch(self.judge)
        with Store(stage.output / "judge", Judgement, stage="judge", config=self.identity(), inputs={}) as store:
            hearing = _Hearing(self, store)
            requests = hearing.requests(self.labeller.label(groups, stage))
            for request, answers in self.judge.generate(requests, self.sampling):
                stage.progress.draw(tokens=hearing.take(request, answers).tokens)
                yield from hearing.finished()
            yield from hearing.finished()
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


@dataclass(slots=True)
class _Case:
    """The solutions of one problem, and how many of them are still before the judge."""

    solutions: list[Solution]
    pending: int = 0


class _Hearing:
    """One run of the judge: what it is asked, and what comes of its answers."""

    def __init__(self, consensus: Consensus, store: Store[Judgement]) -> None:
        self.consensus, self.store = consensus, store
        self._verdicts = {judgement.id: judgement.verdicts for judgement in store.records()}
        self._asked: dict[str, tuple[_Case, Solution]] = {}
        self._ready: list[_Case] = []

    def requests(self, groups: Iterable[list[Solution]]) -> Iterator[Request]:
        """A question for each distinct solution that has labels and is not on record."""
        for solutions in groups:
            case = _Case(solutions)
            unknown = [s for s in _distinct(solutions).values() if s.id not in self._verdicts]
            case.pending = len(unknown)
            if not unknown:
                self._ready.append(case)
            for s in unknown:
                self._asked[s.id] = case, s
                seed = derive_seed(self.consensus.seed, s.id)
                yield Request(s.id, self.consensus.encode(s), self.consensus.num_votes, seed)

    def take(self, request: Request, answers: list[Completion]) -> Judgement:
        """Keep what the judge said."""
        case, solution = self._asked.pop(request.key)
        verdicts = [None if a.finish == "length" else read_verdict(a.text, len(solution.steps)) for a in answers]
        judgement = Judgement(
            id=solution.id, labelled=first_wrong(solution.step_labels or []), seed=request.seed,
            texts=[a.text for a in answers], finish=[a.finish for a in answers], verdicts=verdicts,
            tokens=sum(len(a.token_ids) for a in answers),
        )  # fmt: skip
        self.store.write([judgement])
        self._verdicts[solution.id] = verdicts
        case.pending -= 1
        if not case.pending:
            self._ready.append(case)
        return judgement

    def finished(self) -> Iterator[list[Solution]]:
        """Yield the problems of which all is known, without the labels on which there is no consensus."""
        while self._ready:
            solutions = self._ready.pop().solutions
            distinct = _distinct(solutions)
            for s in solutions:
                if any(s.step_labels or []):
                    verdicts = self._verdicts[distinct[_text(s)].id]
                    if not compared(first_wrong(s.step_labels or []), verdicts).startswith("agreed"):
                        s.step_labels = None
            yield solutions


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
