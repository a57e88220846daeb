"""Read questions and answers of generative verifiers, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator

from stepverify.critique import Critique
from stepverify.data.targets import StepTargets
from stepverify.jsonl import read_records
from stepverify.readers.base import Reader, distinct
from stepverify.records import InputError, Judgement, Problem, Solution
from stepverify.verification import Verification

_PLAIN = Critique(text="")  # no critique is needed


class Critiques(Reader):
    """Read questions about labelled solutions, with critiques and verdicts as answers.

    Each is about a solution, or one of its steps, and its verdict is the label. A critique is kept if its own verdict
    agrees with the label (rejection sampling: Zhang et al. 2024, "Generative Verifiers", section 3.3); the others are
    counted by reason. A record's ``problem`` is the question, and its one step is the answer, so that a
    :class:`~stepverify.modules.GeneratorModule` learns to write it.

    Args:
        solutions: reader of labelled solutions: of outcomes, or with step labels for ``verification.target: steps``.
            Its ``balance`` gives as many correct solutions as incorrect ones.
        verifier: name of the scores whose critiques are read, those of a
            :class:`~sampling.scorers.GenerativeScorer`; None, without ``judgements`` too, makes verdicts without
            critiques.
        judgements: ``judge`` folder of :class:`~sampling.labelling.Consensus`, in place of ``verifier``: answers that
            name the first incorrect step of the labels. For solutions, not steps.
        verification: question and words of the verdict; those of the scorer that asks the trained model.
        max_critiques: largest number of critiques for each question, the first ones left; None takes all.
        targets: how step labels are read; a step is correct above 1/2.

    Raises:
        InputError: both ``verifier`` and ``judgements``, or judgements for steps.
    """

    def __init__(
        self, solutions: Reader, verifier: str | None = None, judgements: str | None = None,
        verification: Verification = Verification(),  # noqa: B008 - frozen
        max_critiques: int | None = None, targets: StepTargets = StepTargets(),  # noqa: B008 - frozen
    ) -> None:  # fmt: skip
        if verifier is not None and judgements is not None:
            raise InputError(f"judgements: {judgements}: expected none beside verifier {verifier!r}")
        self.by_step = verification.target == "steps"
        if judgements is not None and self.by_step:
            raise InputError(f"judgements: {judgements}: are of whole solutions; set verification.target: solutions")
        if max_critiques is not None and max_critiques < 1:
            raise InputError(f"max_critiques: expected >= 1 or null, got {max_critiques}")
        self.source, self.verifier, self.judgements = solutions, verifier, judgements
        self.verification, self.max_critiques, self.targets = verification, max_critiques, targets

    def problems(self) -> Iterator[Problem]:
        """Yield the first question about each problem."""
        yield from distinct(self.solutions())

    def solutions(self) -> Iterator[Solution]:
        """Yield the questions in the order of the solutions, each as often as it has critiques that agree."""
        self.left_out.clear()
        judged = {} if self.judgements is None else {j.id: j for j in read_records(self.judgements, Judgement)}
        for solution in self.source.solutions():
            written = self._written(solution, judged)
            for number, label in self._labels(solution).items():
                name = f"{solution.id}/{number}" if self.by_step else solution.id
                if label is None:
                    self.left_out.note("without a label", name)
                    continue
                own = [one for one in written if one.step == number or one is _PLAIN]
                if not own:
                    self.left_out.note("without a critique", name)
                agreeing = [one for one in own if self._agrees(one, label, name)][: self.max_critiques]
                for i, one in enumerate(agreeing):
                    yield self._record(f"{name}/{i}", solution, number, one, label)

    def _labels(self, solution: Solution) -> dict[int, bool | None]:
        """Return what is asked about, the whole solution (0) or each step, with its label."""
        if not solution.steps:
            return {}
        if not self.by_step:
            return {0: solution.correct}
        if solution.step_labels is None:
            return {0: None}
        found = self.targets(solution.step_labels)
        return {i: None if target is None else target > 0.5 for i, target in enumerate(found, start=1)}

    def _written(self, solution: Solution, judged: dict[str, Judgement]) -> list[Critique]:
        if self.verifier is not None:
            return solution.critiques.get(self.verifier, [])
        if self.judgements is None:
            return [_PLAIN]
        if (judgement := judged.get(solution.id)) is None:
            return []
        answers = zip(judgement.texts, judgement.verdicts, strict=True)
        return [
            Critique(text=text, value=None if verdict is None else float(verdict == 0))
            for text, verdict in answers if verdict is None or self._named(verdict, judgement, solution)
        ]  # fmt: skip

    def _named(self, verdict: int, judgement: Judgement, solution: Solution) -> bool:
        """Tell whether an answer names the labels' first incorrect step, where it names one."""
        if verdict and judgement.labelled and verdict != judgement.labelled:
            self.left_out.note("critiques that name another step than the labels", solution.id)
            return False
        return True

    def _agrees(self, critique: Critique, label: bool, name: str) -> bool:
        if critique is _PLAIN:
            return True
        if critique.value is None or critique.forced:
            self.left_out.note("critiques that ended without a verdict", name)
        elif critique.value == 0.5 or (critique.value > 0.5) != label:
            self.left_out.note("critiques whose verdict is not the label", name)
        else:
            return True
        return False

    def _record(self, name: str, solution: Solution, number: int, critique: Critique, label: bool) -> Solution:
        steps = solution.steps[:number] if self.by_step else solution.steps
        question = self.verification.question(solution.problem, steps, critique=critique is not _PLAIN)
        return Solution(
            id=name, problem_id=solution.problem_id, problem=question, finish="stop", correct=label,
            steps=[self.verification.response(critique.text, label)], generator=self.verifier,
        )  # fmt: skip
