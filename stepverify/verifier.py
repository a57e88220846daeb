"""Score solutions with an exported verifier, from Python."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import torch

from stepverify.aggregate import Aggregation, aggregate
from stepverify.data.batch import Batch, collate
from stepverify.data.encode import Example, LeftOut, SolutionEncoder
from stepverify.data.packing import to_score
from stepverify.hub import local_export
from stepverify.memory import describe_use, is_out_of_memory
from stepverify.models import VerifierModel, load_verifier
from stepverify.models.heads import Neutral
from stepverify.records import InputError, Solution
from stepverify.template import Template

Steps = Sequence[str]


class BestOf(NamedTuple):
    """Hold the outcome of :meth:`Verifier.best_of`.

    Attributes:
        index: of the candidate with the highest score, the first of equals.
        scores: one for each candidate; ``-inf`` for one that could not be scored.
    """

    index: int  # type: ignore[assignment]  # it hides a method of tuples that nobody asks of two fields
    scores: list[float]


class Verifier:
    r"""Score solutions with an outcome verifier or a process reward model.

    ::

        from stepverify import Verifier

        verifier = Verifier.from_pretrained("runs/quickstart/prm/export")
        verifier.score("What is 2 + 3?", ["2 + 3 = 5", "#### 5"])  # a value in [0, 1] for each step
        verifier.best_of("What is 2 + 3?", ["2 + 3 = 6\n#### 6", "2 + 3 = 5\n#### 5"]).index

    A process reward model gives the probability that each step is correct; an outcome verifier the probability that the
    final answer will be, read at the last token or at every one. Values have six decimals, and are those of ``sampling
    score``, which runs this class. Solutions that are scored together share the computation of common prefixes.

    Args:
        model: in evaluation mode, on its device.
        encoder: with the export's tokenizer and template.
        facts: what the export says of itself.
        path: shown in messages.
        pack_tokens: tokens read at the same time, shared prefixes counted once.

    Attributes:
        objective: ``process`` or ``outcome``.
        max_length: longest problem and solution in tokens; a longer one has no score.
    """

    def __init__(
        self, model: VerifierModel, encoder: SolutionEncoder, facts: dict[str, Any], path: str, pack_tokens: int = 8192
    ) -> None:
        if pack_tokens < 1:
            raise InputError(f"pack_tokens: expected 1 or more, got {pack_tokens}")
        self.model, self.encoder, self.path, self.pack_tokens = model, encoder, path, pack_tokens
        self.objective: str = facts["objective"]
        self.max_length = encoder.max_length
        # An older export that does not say it was trained as most are.
        self._trained_on_prefixes = self.objective == "process" or bool(facts.get("per_token", True))

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str = "auto",
        neutral: Neutral | None = None,
        pack_tokens: int = 8192,
        revision: str | None = None,
    ) -> Self:
        """Load an exported verifier.

        Args:
            path: folder of the export, or id of a hub repository.
            device: None takes a GPU where there is one.
            dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is the number format of the training.
            neutral: what P(neutral) counts as in the values of a process reward model with a neutral label; None takes
                what the export says.
            pack_tokens: tokens read at the same time, shared prefixes counted once: lower it where memory is short.
            revision: branch, tag or commit of the hub repository.

        Raises:
            InputError: not an exported verifier, or one whose tokenizer gives other ids than in training.
        """
        model, encoder, facts = load_verifier(local_export(str(path), revision), dtype, neutral)
        try:
            model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device: {device}: {str(error).splitlines()[0]}") from None
        return cls(model, encoder, facts, str(path), pack_tokens)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def template(self) -> Template:
        """Text around problems and steps; ``template.split(text)`` gives the steps of a text."""
        return self.encoder.template

    def __repr__(self) -> str:
        parameters = list(self.model.parameters())
        size = sum(p.numel() for p in parameters) / 1e6
        dtype = str(parameters[0].dtype).removeprefix("torch.")
        return f"Verifier({self.path!r}, objective={self.objective!r}, {size:,.1f}M parameters, {dtype}, {self.device})"

    @overload
    def score(  # type: ignore[overload-overlap]  # a text is a sequence of texts
        self, problem: str, steps: Steps, *, per_token: bool = ..., complete: bool = ...
    ) -> list[float]: ...

    @overload
    def score(
        self, problem: Sequence[str], steps: Sequence[Steps], *, per_token: bool = ..., complete: bool = ...
    ) -> list[list[float]]: ...

    def score(
        self, problem: str | Sequence[str], steps: Steps | Sequence[Steps], *, per_token: bool = False,
        complete: bool = True,
    ) -> list[float] | list[list[float]]:  # fmt: skip
        """Score one solution, or one for each of several problems.

        Args:
            problem: its text, or a list of texts.
            steps: of the solution, without step separators; with several problems, a list of such lists.
            per_token: give an outcome verifier's value at every solution token instead of the last one alone.
            complete: the solution is at its end. A prefix (False) has the values of its steps so far, which are those
                of every solution that begins with it; an outcome verifier reads it at its last token, without the end
                of the text: how likely it leads to a correct answer.

        Returns:
            Values in [0, 1] along the solution: one a step (process reward model), or the last one or one a token
            (outcome verifier); or a list of them. Empty, with a warning, without a step or longer than ``max_length``.
        """
        if isinstance(problem, str):
            return self._scored([problem], [steps], per_token, complete)[0]  # type: ignore[list-item]
        if len(problem) != len(steps):
            raise InputError(f"steps: expected a list for each of {len(problem)} problems, got {len(steps)}")
        return self._scored(problem, steps, per_token, complete)

    @overload
    def best_of(  # type: ignore[overload-overlap]
        self, problem: str, candidates: Sequence[str | Steps], *, aggregation: Aggregation | None = ...
    ) -> BestOf: ...

    @overload
    def best_of(
        self, problem: Sequence[str], candidates: Sequence[Sequence[str | Steps]], *,
        aggregation: Aggregation | None = ...,
    ) -> list[BestOf]: ...  # fmt: skip

    def best_of(
        self, problem: str | Sequence[str], candidates: Sequence[Any], *, aggregation: Aggregation | None = None
    ) -> BestOf | list[BestOf]:
        """Choose the candidate with the highest score (best-of-N), of one problem or of each of several.

        Args:
            problem: its text, or a list of texts.
            candidates: complete solutions, each a text, whose lines are its steps, or a list of steps; with several
                problems, a list of such lists.
            aggregation: how the values along a solution become its score, see :func:`stepverify.aggregate.aggregate`.
                None is what ``sampling rank`` takes: ``last`` for an outcome verifier, for a process reward model
                ``prod`` (Lightman et al. 2023, section 2.6), whose scores are logarithms.

        Raises:
            InputError: a problem none of whose candidates could be scored.
        """
        if isinstance(problem, str):
            return self.best_of([problem], [candidates], aggregation=aggregation)[0]
        if len(problem) != len(candidates):
            raise InputError(f"candidates: expected a list for each of {len(problem)} problems, got {len(candidates)}")
        how: Aggregation = aggregation or ("prod" if self.objective == "process" else "last")
        texts = [text for text, group in zip(problem, candidates, strict=True) for _ in group]
        steps = [self.template.split(c) if isinstance(c, str) else c for group in candidates for c in group]
        values = self._scored(texts, steps, per_token=False, complete=True)
        best = []
        for (start, end), text in zip(pairwise(accumulate(map(len, candidates), initial=0)), problem, strict=True):
            if not any(own := values[start:end]):
                raise InputError(f"candidates: none of {len(own)} has a score, of the problem {text.strip()[:60]!r}")
            scores = [aggregate(along, how) for along in own]
            best.append(BestOf(scores.index(max(scores)), scores))
        return best

    def score_solutions(self, solutions: Sequence[Solution], *, per_token: bool = False) -> list[list[float]]:
        """Score records, in the order given.

        One that was cut off (``finish: length``) is a prefix.

        Returns:
            Values along each solution; none where it has no step or is longer than ``max_length``.
        """
        values: list[list[float]] = [[] for _ in solutions]
        for i, along in self.stream(solutions, per_token=per_token):
            values[i] = along
        return values

    def stream(self, solutions: Sequence[Solution], *, per_token: bool = False) -> Iterator[tuple[int, list[float]]]:
        """Yield the index and the values of each solution that can be scored, pack by pack.

        What is read together depends on the solutions and ``pack_tokens`` alone.

        Raises:
            InputError: the device's memory does not suffice.
        """
        examples: dict[int, Example] = {}
        for i, solution in enumerate(solutions):
            with suppress(LeftOut):
                examples[i] = self._encode(solution, per_token)
        if not examples:
            return
        numbers, sequences = list(examples), [e.input_ids for e in examples.values()]
        groups = [solutions[i].problem_id for i in numbers]
        shared = self.model.packs(max(map(len, sequences)))
        running: tuple[list[int], Batch, torch.Tensor] | None = None
        try:
            for pack in to_score(sequences, groups, self.pack_tokens, shared):
                rows = [numbers[i] for i in pack]
                batch = collate([examples[i] for i in rows], shared=shared).to(self.device)
                with torch.inference_mode():
                    outputs = self.model.score(batch)
                # A GPU computes meanwhile: values of the pack before are read only once the next one is on its way.
                if running is not None:
                    yield from _values(*running)
                running = rows, batch, outputs
            assert running is not None
            yield from _values(*running)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"{self.path}: out of memory on {describe_use(self.device)}; lower pack_tokens ({self.pack_tokens} "
                "now), then set dtype: bfloat16"
            ) from None

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the text of each token that an outcome verifier is read at with ``per_token``."""
        return self.encoder.token_texts(solution)

    def _encode(self, solution: Solution, per_token: bool) -> Example:
        if self.objective == "process":
            return self.encoder.process(solution, None)
        return self.encoder.outcome(solution, None, last_only=not per_token)

    def _scored(
        self, problems: Sequence[str], steps: Sequence[Steps], per_token: bool, complete: bool
    ) -> list[list[float]]:
        if any(isinstance(one, str) for one in steps):
            raise InputError("steps: expected lists of steps, got a text; template.split(text) gives its steps")
        if not complete and not self._trained_on_prefixes:
            warnings.warn(
                f"{self.path} was trained at the last token of solutions alone (per_token: false): it has not "
                "learned to judge prefixes", stacklevel=3,
            )  # fmt: skip
        solutions = [
            Solution(id=str(i), problem_id=text, problem=text, steps=[*own], finish="stop" if complete else "length")
            for i, (text, own) in enumerate(zip(problems, steps, strict=True))
        ]
        values = self.score_solutions(solutions, per_token=per_token)
        for reason, count in Counter(self._reason(s) for s, v in zip(solutions, values, strict=True) if not v).items():
            warnings.warn(f"{count} of {len(solutions)} solutions have no score: {reason}", stacklevel=3)
        return values

    def _reason(self, solution: Solution) -> str:
        try:
            self._encode(solution, per_token=False)
        except LeftOut as reason:
            return str(reason)
        raise AssertionError(f"{solution.id} can be scored")


def _values(rows: list[int], batch: Batch, outputs: torch.Tensor) -> Iterator[tuple[int, list[float]]]:
    for i, along in zip(rows, batch.split(outputs), strict=True):
        yield i, [round(value, 6) for value in along]
