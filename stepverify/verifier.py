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
from stepverify.data.encode import Example, LeftOut, SolutionEncoder
from stepverify.device import choose_device
from stepverify.hub import local_export
from stepverify.memory import describe_use, is_out_of_memory
from stepverify.models import VerifierModel, load_verifier
from stepverify.models.incremental import Count, open_cache, score_examples
from stepverify.models.process import Neutral
from stepverify.objectives import Reading, Rewards
from stepverify.records import InputError, Solution
from stepverify.template import Template

Steps = Sequence[str]


class BestOf(NamedTuple):
    """Hold the result of :meth:`Verifier.best_of`.

    Attributes:
        index: index of the candidate with the highest score, the first of equals.
        scores: one for each candidate; ``-inf`` for a candidate that could not be scored.
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

    A process reward model gives the probability that each step is correct; an outcome verifier that the final answer is
    correct, at the final token or at every token; an implicit reward model the same after each step. Values have six
    decimals, and equal those of ``sampling score``, which uses this class. Solutions that are scored together share the
    computation of common prefixes.

    Args:
        model: in evaluation mode, on its device.
        encoder: with the export's tokenizer and template.
        facts: metadata of the export.
        path: shown in error messages.
        pack_tokens: tokens computed at the same time, with shared prefixes counted once.
        prefix_cache_gib: keep up to this many GiB of keys and values, so that prefixes scored in earlier calls are not
            computed again, as in a search; it is said of a model that does not support this. 0 or None keeps nothing.
        rewards: the values of an implicit reward model, see :func:`stepverify.objectives.Reading`.

    Attributes:
        objective: ``process``, ``outcome`` or ``implicit``.
        prefix_cache: the kept prefixes; None without.
        calibration: that the export has adopted (``stepverify adopt``), with which values are mapped; None without.
        max_length: longest problem and solution in tokens; a longer solution has no score.
    """

    def __init__(
        self, model: VerifierModel, encoder: SolutionEncoder, facts: dict[str, Any], path: str,
        pack_tokens: int = 8192, prefix_cache_gib: float | None = None, rewards: Rewards = "cumulative",
    ) -> None:  # fmt: skip
        if pack_tokens < 1:
            raise InputError(f"pack_tokens: expected 1 or more, got {pack_tokens}")
        self.model, self.encoder, self.path, self.pack_tokens = model, encoder, path, pack_tokens
        self.reading = Reading.of(facts, path, rewards)
        self.objective: str = self.reading.objective
        self.max_length, self.calibration = encoder.max_length, facts.get("calibration")
        self.prefix_cache = open_cache(model, prefix_cache_gib, path)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str = "auto",
        neutral: Neutral | None = None,
        pack_tokens: int = 8192,
        prefix_cache_gib: float | None = None,
        revision: str | None = None,
        raw: bool = False,
        rewards: Rewards = "cumulative",
        reference: str | None = None,
    ) -> Self:
        """Load an exported verifier.

        Args:
            path: folder of the export, or id of a Hub repository.
            device: None takes a GPU if there is one.
            dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` takes the dtype of the training.
            neutral: how the values of a process reward model with a neutral label count P(neutral), ``positive`` or
                ``negative``; None takes the export's choice.
            pack_tokens: tokens computed at the same time, with shared prefixes counted once: lower it if memory is
                short.
            prefix_cache_gib: size of the prefix cache in GiB, see the class; 0 or None for none.
            revision: branch, tag or commit of the Hub repository.
            raw: give the values of the training, without a calibration that the export has adopted.
            rewards: ``cumulative`` or ``step``, for an implicit reward model.
            reference: where its reference is; None takes the place that the export names.

        Raises:
            InputError: not an exported verifier, one whose tokenizer gives other ids than in training, or a reference
                that is missing or has other weights.
        """
        model, encoder, facts = load_verifier(local_export(str(path), revision), dtype, neutral, reference, raw=raw)
        try:
            model.to(choose_device(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device: {device}: {str(error).splitlines()[0]}") from None
        return cls(model, encoder, facts, str(path), pack_tokens, prefix_cache_gib, rewards)

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return next(self.model.parameters()).device

    @property
    def template(self) -> Template:
        """Return the template; its ``split`` divides a text into steps."""
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
            steps: steps of the solution, without step separators; with several problems, a list of such lists.
            per_token: return the value at every solution token, of an outcome verifier or implicit reward model.
            complete: whether the solution is complete. A prefix (False) has the values of its steps so far, which are
                those of every solution that begins with it. An outcome verifier scores its final token, without the end
                of the sequence: the probability that it leads to a correct answer.

        Returns:
            Values in [0, 1] along the solution: one per step (process and implicit reward models), or the final one
                or one per token (outcome verifier); or a list of them. Empty, with a warning, for a solution without
                steps or longer than ``max_length``.
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
        """Select the candidate with the highest score (best-of-N).

        Args:
            problem: its text, or a list of texts.
            candidates: complete solutions, each a text, which the template splits into steps, or a list of steps; with
                several problems, a list of such lists.
            aggregation: rule that aggregates the values along a solution into its score, see
                :func:`stepverify.aggregate.aggregate`. None is the default of ``sampling rank``, see
                :func:`stepverify.objectives.Reading.aggregation`; scores of ``prod`` are logarithms.

        Raises:
            InputError: a problem without any candidate that could be scored.
        """
        if isinstance(problem, str):
            return self.best_of([problem], [candidates], aggregation=aggregation)[0]
        if len(problem) != len(candidates):
            raise InputError(f"candidates: expected a list for each of {len(problem)} problems, got {len(candidates)}")
        how: Aggregation = aggregation or self.reading.aggregation
        texts = [text for text, group in zip(problem, candidates, strict=True) for _ in group]
        split = self.template.split
        steps = [split(c, continued=True) if isinstance(c, str) else c for group in candidates for c in group]
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

        A solution that was cut off (``finish: length``) is scored as a prefix.

        Returns:
            Values along each solution; empty for a solution without steps or longer than ``max_length``.
        """
        values: list[list[float]] = [[] for _ in solutions]
        for i, along in self.stream(solutions, per_token=per_token):
            values[i] = along
        return values

    def stream(
        self, solutions: Sequence[Solution], count: Count | None = None, *, per_token: bool = False
    ) -> Iterator[tuple[int, list[float]]]:
        """Yield index and values of each scored solution, pack by pack.

        The packs depend on the solutions and ``pack_tokens`` only; with a prefix cache, on earlier calls too.

        Args:
            solutions: of any problems.
            count: called for each pack with the number of tokens along its solutions, and how many of these are not
                computed: they are shared within the pack, or in the prefix cache.
            per_token: as in :meth:`score`.

        Raises:
            InputError: the device is out of memory.
        """
        examples: dict[int, Example] = {}
        for i, solution in enumerate(solutions):
            with suppress(LeftOut):
                examples[i] = self.reading.encode(self.encoder, solution, per_token)
        if not examples:
            return
        numbers, encoded, maps = list(examples), [*examples.values()], self.calibration
        try:
            for i, along in score_examples(self.model, encoded, self.pack_tokens, self.prefix_cache, count):
                values = self.reading.values(along, self.encoder, solutions[numbers[i]], per_token)
                yield numbers[i], [round(value, 6) for value in (maps.map_values(values) if maps else values)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"{self.path}: out of memory on {describe_use(self.device)}; lower pack_tokens ({self.pack_tokens} "
                f"now){' or prefix_cache_gib' if self.prefix_cache else ''}, then set dtype: bfloat16"
            ) from None

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the texts of the tokens that are scored with ``per_token``."""
        return self.encoder.token_texts(solution)

    def _scored(
        self, problems: Sequence[str], steps: Sequence[Steps], per_token: bool, complete: bool
    ) -> list[list[float]]:
        if any(isinstance(one, str) for one in steps):
            raise InputError("steps: expected lists of steps, got a text; template.split(text) gives its steps")
        if not complete and not self.reading.takes_prefixes:
            warnings.warn(
                f"{self.path} was trained on the final token of solutions only (per_token: false): its values "
                "of prefixes mean nothing", stacklevel=3,
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
            self.reading.encode(self.encoder, solution)
        except LeftOut as reason:
            return str(reason)
        raise AssertionError(f"{solution.id} can be scored")
