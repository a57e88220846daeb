"""Score with a language model that writes critiques and verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

from sampling.engines import Engine, SamplingOptions
from sampling.engines.base import Usage
from sampling.runtime.scheduler import together
from sampling.scorers.asking import Asking, Judged, Readout
from sampling.scorers.base import Scorer
from stepverify.critique import Critique
from stepverify.objectives import Objective
from stepverify.records import Solution
from stepverify.template import Template
from stepverify.verification import Verification

_CALL = 128  # solutions of a call of `sampling score`
_MOST_CALLS = 16
_REMEMBERED = 1 << 14  # solutions whose critiques wait to be taken: more than all calls together have

Key = tuple[str, tuple[str, ...]]
"""Id of a problem, and the steps that are judged."""


class GenerativeScorer(Scorer):
    """Score by the probability of a verdict that an engine writes.

    After each critique the model is asked for one more token. The probability of the word for correct, among those of
    both words, is a verdict, and a value is the mean of the verdicts over the critiques (Zhang et al. 2024, "Generative
    Verifiers", arXiv 2408.15240, section 3.3). With ``verification.target: steps`` each step is judged with those
    before it, so that its value is that of every solution that begins so (a verdict for each step as in ThinkPRM:
    Khalifa et al. 2025, arXiv 2504.16828, where one critique goes through all steps).

    A critique that ends without a verdict is counted and left out; where all critiques of a value do, the solution has
    no score. Critiques are kept with the scores (``critiques`` of the records), except in a search. Equal steps of a
    problem are judged once. Seeds derive from the problem's id and the steps, so values do not depend on what else is
    scored, as far as the engine is batch-invariant. For several replicas give a RayEngine as ``engine``: a RayScorer
    around this scorer has the values alone.

    Args:
        engine: any that goes on after a text that it is given (chat services often do not), and gives
            log-probabilities.
        verification: the question and the words of the verdict, those of the training.
        num_critiques: critiques for each value; 0 reads the verdict's probability without a critique.
        sampling: sampling options of the critiques.
        template: text around the question, which ``{problem}`` stands for; None takes the one that the model was
            exported with, or else the model's chat template.
        readout: ``probability`` of the word; or ``sampled``, the share of positive ones of sampled verdicts, for
            servers without log-probabilities.
        force_verdict: after a critique that ends without a verdict, write the text before it, and ask.
        max_length: longest question in tokens; a solution with a longer one has no score. Needs a tokenizer.
        seed: of the critiques.

    Raises:
        InputError: impossible settings.
    """

    def __init__(
        self, engine: Engine, verification: Verification = Verification(),  # noqa: B008 - frozen
        num_critiques: int = 1,
        sampling: SamplingOptions = SamplingOptions(temperature=0.7, max_tokens=1024),  # noqa: B008 - frozen
        template: Template | None = None, readout: Readout = "probability", force_verdict: bool = False,
        max_length: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.engine, self._by_step = engine, verification.target == "steps"
        self.asking = Asking(
            engine, verification, num_critiques, sampling, template, readout, force_verdict, max_length, seed
        )
        self.objective: Objective = "process" if self._by_step else "outcome"
        self._read = dataclasses.replace(engine.usage or Usage())
        self.usage: Usage | None = None if engine.usage is None else Usage()
        self._counts = Counter[str](critiques=0, without_verdict=0, forced_verdicts=0)
        self._judged: dict[Key, Judged] | None = None  # what a search keeps ...
        self._tokens: dict[Key, int | None] = {}  # ... and what that has cost, in earlier runs too
        self._written = OrderedDict[str, list[Critique]]()

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        """Return the calls whose critiques keep the engine busy."""
        return min(_MOST_CALLS, 1 + math.ceil(self.engine.capacity / (_CALL * max(1, self.asking.num_critiques))))

    @property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the number of parameters of the engine's model."""
        return self.engine.num_parameters

    @property
    def caches_prefixes(self) -> bool:  # type: ignore[override]
        """Tell whether steps that were judged in earlier calls are not judged again."""
        return self._judged is not None

    def identity(self) -> dict[str, Any]:
        """Return engine, question, and how verdicts are sampled.

        Of a local model, digests of its files too.
        """
        return {"scorer": "generative"} | self.asking.identity()

    def keep_prefixes(self) -> None:
        """Keep the verdicts from call to call, and no critiques."""
        self._judged = {} if self._judged is None else self._judged

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions: one value for each step, or one for each solution.

        Raises:
            InputError: a word of the verdict that is not one token; an engine without log-probabilities.
        """
        keys = [self._keys(solution) for solution in solutions]
        known: dict[Key, Judged] = {} if self._judged is None else self._judged
        missing = {
            key: solution.problem
            for solution, own in zip(solutions, keys, strict=True) for key in own if key not in known
        }  # fmt: skip
        found = await together(self._judge(key, problem) for key, problem in missing.items())
        known.update(zip(missing, found, strict=True))
        if self._judged is not None:
            self._tokens.update((key, judged.tokens) for key, judged in zip(missing, found, strict=True))
            known.update((key, dataclasses.replace(known[key], critiques=[])) for key in missing)
        else:
            for solution, own in zip(solutions, keys, strict=True):
                self._written[solution.id] = [one for key in own for one in known[key].critiques]
            while len(self._written) > _REMEMBERED:
                self._written.popitem(last=False)
        values = [[known[key].value for key in own] for own in keys]
        return [[] if None in along else [value for value in along if value is not None] for along in values]

    async def _judge(self, key: Key, problem: str) -> Judged:
        judged = await self.asking.judge(key[0], problem, key[1])
        self._counts.update(
            critiques=len(judged.critiques), without_verdict=sum(one.value is None for one in judged.critiques),
            forced_verdicts=sum(one.forced for one in judged.critiques),
        )  # fmt: skip
        if self.usage is not None and (now := self.engine.usage) is not None:
            self.usage.prompt_tokens = now.prompt_tokens - self._read.prompt_tokens + self.asking.sampled
            self.usage.cached_tokens = now.cached_tokens - self._read.cached_tokens
            self.usage.retries = now.retries - self._read.retries
        return judged

    def _keys(self, solution: Solution) -> list[Key]:
        """Return what is judged of a solution: it, or each of its prefixes."""
        steps = tuple(solution.steps)
        first = 1 if self._by_step else max(1, len(steps))
        return [(solution.problem_id, steps[:end]) for end in range(first, len(steps) + 1)]

    def critiques(self, solution: Solution) -> list[Critique]:
        """Return the critiques of a solution that was scored last, once."""
        return self._written.pop(solution.id, [])

    def count_tokens(self, solution: Solution) -> int | None:
        """Count the tokens that a solution's verdicts have taken in a search.

        None were taken where nothing was asked.
        """
        if not self._tokens:  # another process has scored
            return None
        tokens = [self._tokens[key] for key in self._keys(solution) if key in self._tokens]
        return None if None in tokens else sum(count for count in tokens if count is not None)

    def sampled_tokens(self, solution: Solution) -> list[int]:
        """Return the tokens of each value in a search; empty if they are unknown."""
        tokens = [self._tokens.get(key) for key in self._keys(solution)]
        return [] if None in tokens else [count for count in tokens if count is not None]

    def recall(self, solution: Solution, tokens: Sequence[int]) -> None:
        """Take over the tokens of an earlier run."""
        self._tokens.update(zip(self._keys(solution), tokens, strict=True))

    def status(self) -> str:
        """Return the engine's status, and how many critiques had no verdict."""
        said = [f"{number:,} {key.replace('_', ' ')}" for key, number in self._counts.items() if number]
        return ", ".join(filter(None, [self.engine.status(), *said]))

    def counted(self) -> dict[str, int]:
        """Count the critiques of this run.

        Also those of them without a verdict, and those whose verdict was forced.
        """
        return {f"{key}_this_run": count for key, count in self._counts.items()}

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()
