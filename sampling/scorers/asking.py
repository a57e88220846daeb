"""Ask an engine for critiques of steps, and for the verdict after each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.engines.base import unloaded
from sampling.engines.prompts import Prompts, template_of
from sampling.runtime.scheduler import PriorityLimit, together
from sampling.runtime.seeds import derive_seed
from stepverify.critique import Critique
from stepverify.digests import DECIDING, digest_model
from stepverify.hub import local_model
from stepverify.records import InputError
from stepverify.template import Template, load_export
from stepverify.verification import Verification

Readout = Literal["probability", "sampled"]
_TOP = 20  # most likely tokens in which the two words are looked for: the most that servers give by default
_WORD = 4  # tokens of a sampled verdict


@dataclass(slots=True)
class Judged:
    """Hold the verdicts on some steps.

    Attributes:
        value: mean of the verdicts; None without any.
        tokens: read and sampled for them; None if unknown.
        critiques: one for each verdict.
    """

    value: float | None
    tokens: int | None
    critiques: list[Critique]


@dataclass(eq=False)
class Asking:
    """Ask an engine about steps.

    The fields are those of :class:`~sampling.scorers.GenerativeScorer`.

    Attributes:
        sampled: tokens that were sampled so far.

    Raises:
        InputError: impossible settings.
    """

    engine: Engine
    verification: Verification
    num_critiques: int
    sampling: SamplingOptions
    given: Template | None
    readout: Readout
    force_verdict: bool
    max_length: int | None
    seed: int
    sampled: int = field(default=0, init=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs."""
        return unloaded(self)

    def __post_init__(self) -> None:
        number = self.num_critiques
        if number < 0:
            raise InputError(f"num_critiques: expected >= 0, got {number}")
        if self.sampling.temperature == 0 and number > 1:
            raise InputError(f"num_critiques: {number} greedy critiques are the same; set sampling.temperature")
        if number and not self.verification.verdict:
            raise InputError("verification.verdict: empty, so that no critique could end with it; set num_critiques: 0")
        if self.readout not in ("probability", "sampled"):
            raise InputError(f"readout: expected probability or sampled, got {self.readout!r}")
        if self.readout == "sampled" and not number:
            raise InputError("readout: sampled: is a share of critiques; set num_critiques")
        if self.max_length is not None and self.max_length < 1:
            raise InputError(f"max_length: expected >= 1 or null, got {self.max_length}")

    @cached_property
    def template(self) -> Template:
        """Return the template around the question."""
        export = None if self.given else load_export(local_model(self.engine.model, weights=False))
        return template_of(self.engine, self.given or (export[0] if export else Template(chat=True)))

    def identity(self) -> dict[str, Any]:
        """Return engine, question, and how verdicts are sampled.

        Of a local model, digests of its files too.
        """
        folder, asked = Path(self.engine.model), self.verification
        files = digest_model(folder, DECIDING) if folder.is_dir() else None
        text = asked.text(critique=self.num_critiques > 0)
        return {
            "engine": self.engine.identity(), "model": files, "target": asked.target,
            "question": {"text": text, "correct": asked.said(True), "incorrect": asked.said(False)},
            "num_critiques": self.num_critiques,
            "sampling": dataclasses.asdict(self.sampling) if self.num_critiques else None,
            "template": dataclasses.asdict(self.template), "readout": self.readout,
            "force_verdict": self.force_verdict, "max_length": self.max_length, "seed": self.seed,
        }  # fmt: skip

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self.engine, self.template)

    @cached_property
    def _limit(self) -> PriorityLimit:
        return PriorityLimit(self.engine.capacity)

    @cached_property
    def _options(self) -> SamplingOptions:
        """Return the options of critiques: they end where the verdict begins."""
        options = self._prompts.options(self.sampling)
        stop = [self.verification.verdict] if self.num_critiques else []
        return dataclasses.replace(options, stop=[*options.stop, *stop])

    @cached_property
    def _before(self) -> tuple[str, list[int]]:
        """Return the text before a verdict that no critique has begun, and its tokens."""
        text = ("\n" if self.num_critiques else self.template.thought) + self.verification.verdict
        tokenizer = self.engine.tokenizer
        return text, [] if tokenizer is None else tokenizer.encode(text, add_special_tokens=False)

    @cached_property
    def _spacing(self) -> list[int]:
        """Return the tokens between the text before a verdict and its word."""
        return [] if self.engine.tokenizer is None else self.verification.spacing(self.engine.tokenizer)

    async def judge(self, problem_id: str, problem: str, steps: Sequence[str]) -> Judged:
        """Ask for critiques of steps, and for the verdict after each."""
        _ = self._spacing  # a word that is not one token is said before anything is sampled
        question = self.verification.question(problem, steps, critique=self.num_critiques > 0)
        seed = derive_seed(self.seed, problem_id, *steps)
        request = self._prompts.request(f"{problem_id}@{seed:x}", question, max(1, self.num_critiques), seed)
        if self.max_length is not None and len(request.prompt_ids) > self.max_length:
            return Judged(None, 0, [])
        async with self._limit.hold(request.n, 0):
            if self.num_critiques:
                written = await self.engine.complete(request, self._options)
                if len(written) != request.n:
                    raise InputError(
                        f"{self.engine.model}: {request.key}: {request.n} critiques were asked for, the engine "
                        f"returned {len(written)}"
                    )
                self.sampled += sum(one.num_tokens for one in written)
                found = await together(self._after(request, i, one) for i, one in enumerate(written))
            else:
                text, ids = self._before
                found = [await self._verdict(request, 0, ids, text)]
        values, counts = [one.value for one, _ in found if one.value is not None], [count for _, count in found]
        known = [count for count in counts if count is not None]
        tokens = len(request.prompt_ids) + sum(known) if request.prompt_ids and len(known) == len(counts) else None
        number = len(steps) if self.verification.target == "steps" else 0
        for one, _ in found:
            one.step = number
        return Judged(round(fmean(values), 6) if values else None, tokens, [one for one, _ in found])

    async def _after(self, request: Request, index: int, written: Completion) -> tuple[Critique, int | None]:
        """Ask for the verdict after a critique; also return the tokens beyond those of the question."""
        if written.finish == "refused":
            return Critique(text=""), 0
        text, ids = written.text, written.token_ids
        if reached := self._reached(written):
            told = text + self.verification.verdict
        elif self.force_verdict:
            told = text.rstrip() + self._before[0]
            ids = None if ids is None else [*self._without_end(ids), *self._before[1]]
        else:
            return Critique(text=text.strip()), written.num_tokens
        found, tokens = await self._verdict(request, index, ids, told)
        found.text, found.forced = text.strip(), not reached
        again = 0 if self.engine.caches_prefixes else len(request.prompt_ids) + written.num_tokens
        return found, None if tokens is None else tokens + again

    def _reached(self, written: Completion) -> bool:
        """Tell whether a critique ended where the verdict begins; a server that does not say why it ended counts so."""
        if written.finish != "stop":
            return False
        tokenizer, verdict = self.engine.tokenizer, self.verification.verdict
        if written.token_ids is not None and tokenizer is not None:
            return verdict in tokenizer.decode(written.token_ids, skip_special_tokens=True)
        return written.stopped_by in (verdict, None)

    def _without_end(self, ids: Sequence[int]) -> Sequence[int]:
        tokenizer = self.engine.tokenizer
        ends = {*self._options.stop_ids, tokenizer.eos_token_id if tokenizer is not None else None}
        return ids[:-1] if ids and ids[-1] in ends else ids

    async def _verdict(
        self, request: Request, index: int, ids: Sequence[int] | None, told: str
    ) -> tuple[Critique, int | None]:
        """Ask for the word after what was told; also return the tokens beyond those of the question."""
        probable = self.readout == "probability"
        asked = dataclasses.replace(
            request, key=f"{request.key}+{index}", n=1, seed=request.seed + index, top_logprobs=_TOP if probable else 0
        )
        asked = self._prompts.continued(asked, None if ids is None else [*ids, *self._spacing], told)
        # All but the length stays, so that engines sample verdicts and critiques in one batch.
        options = dataclasses.replace(self._options, max_tokens=1 if probable else _WORD)
        (answer,) = await self.engine.complete(asked, options)
        self.sampled += answer.num_tokens
        if answer.finish == "refused":
            value = None
        elif not probable:
            value = self.verification.word(answer.text)
        elif answer.top_logprobs is None:
            raise InputError(
                f"{self.engine.model}: gives no log-probabilities of tokens; set readout: sampled, with several "
                "critiques"
            )
        else:
            value = self.verification.value(answer.top_logprobs)
        tokens = None if ids is None else len(asked.prompt_ids) - len(request.prompt_ids) + answer.num_tokens
        return Critique(text="", value=None if value is None else round(value, 6)), tokens
