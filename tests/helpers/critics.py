"""A language model whose critiques and verdicts are written down."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.engines.base import Usage
from stepverify.data.encode import load_tokenizer
from stepverify.template import Template

PLAIN = Template(prompt="{problem}\n")
Top = dict[str, float]


class Vocabulary:
    """A tokenizer with a token for each word, with the space before it, and for each other character."""

    eos_token_id, bos_token_id, unk_token_id, name_or_path = 0, None, None, "vocabulary"

    def __init__(self) -> None:
        self.texts: list[str] = [""]

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=self.encode(text))

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        pieces = re.findall(r" ?\w+|\s|[^\w\s]", text)
        self.texts += [piece for piece in dict.fromkeys(pieces) if piece not in self.texts]
        return [self.texts.index(piece) for piece in pieces]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(self.texts[i] for i in ids)


def probabilities(yes: float, no: float) -> Top:
    """Log-probabilities of the two words with a space before them."""
    return {" Yes": math.log(yes), " No": math.log(no)}


class Critic(Engine):
    """Writes the critiques that a function gives for a question, and knows what stands at the verdict.

    Args:
        says: question → critiques, the first one with the request's seed; ``…`` at the end is cut off. What follows a
            stop text is not sampled.
        top: prompt of a verdict → text and log-probability of tokens; None gives no log-probabilities, but the text
            ``sampled``.
        stop_after: requests after which it is interrupted.
        tokenizer: None answers messages or text.

    Attributes:
        asked: prompt, number and seed of each request for critiques ...
        verdicts: ... and the prompt of each one for a verdict.
        verdict_ids: token ids of the last of these.
    """

    model, capacity, num_parameters, caches_prefixes = "critic", 64, 10, True

    def __init__(
        self, says: Callable[[str], Sequence[str]] = lambda question: ["Fine.\nVerdict: Yes"],
        top: Callable[[str], Top | None] = lambda prompt: probabilities(0.6, 0.2), sampled: str = " Yes",
        stop_after: int | None = None, tokenizer: Any = Vocabulary,
    ) -> None:  # fmt: skip
        self.says, self.top, self.sampled, self.stop_after = says, top, sampled, stop_after
        self._tokenizer = tokenizer and tokenizer()
        self.asked: list[tuple[str, int, int]] = []
        self.verdicts: list[str] = []
        self.verdict_ids: list[int] = []
        self.usage = Usage()

    def identity(self) -> dict[str, Any]:
        return {"engine": "critic"}

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        if self.stop_after is not None and len(self.asked) + len(self.verdicts) >= self.stop_after:
            raise KeyboardInterrupt
        read = request.prompt_ids if self._tokenizer else []
        prompt = self._tokenizer.decode(read) if self._tokenizer else "".join(m.content for m in request.messages or ())
        self.usage.count(request.n * len(read), (request.n - 1) * len(read))
        if options.max_tokens <= 4:  # of a word
            self.verdicts.append(prompt)
            self.verdict_ids = read
            top, word = self.top(prompt) if request.top_logprobs else None, self.word()
            ids = self._tokenizer.encode(word, add_special_tokens=False) if self._tokenizer else None
            return [Completion(ids, word, "length", counted=1, top_logprobs=top and [*top.items()])]
        self.asked.append((prompt, request.n, request.seed))
        return [self._completion(text, options.stop) for text in self.says(prompt)[: request.n]]

    def word(self) -> str:
        """The word that is sampled as a verdict."""
        return self.sampled

    def _completion(self, text: str, stops: Sequence[str]) -> Completion:
        cut, finish = text.endswith("…"), "length" if text.endswith("…") else "stop"
        text = text.removesuffix("…")
        at, stop = min(((text.find(stop), stop) for stop in stops if stop in text), default=(len(text), ""))
        if self._tokenizer is None:
            return Completion(None, text[:at], finish, counted=len(text), stopped_by=stop)
        ids = self._tokenizer.encode(text[:at] + stop, add_special_tokens=False) + [0] * (not cut and not stop)
        return Completion(ids, text[:at], finish)


class Adder(Engine):
    """Knows whether ``Step 1: 2 + 1 = 3`` is correct; reads with the tokenizer of a model's folder."""

    def __init__(self, model: str) -> None:
        self.model = model

    def identity(self) -> dict[str, Any]:
        return {"engine": "adder", "model": self.model}

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        tokenizer = self.tokenizer
        prompt = tokenizer.decode(request.prompt_ids, skip_special_tokens=True)
        (first,) = re.findall(r"^Step 1: (\d+) \+ 1 = (\d+)$", prompt, re.MULTILINE)
        correct = int(first[0]) + 1 == int(first[1])
        if request.top_logprobs:
            likely, other = ("Y", "N") if correct else ("N", "Y")
            top = [(likely, math.log(0.9)), (other, math.log(0.1))]
            return [Completion(tokenizer.encode(likely), likely, "length", top_logprobs=top)]
        text = "I add.\nVerdict:"
        return [Completion(tokenizer.encode(text), text.removesuffix("Verdict:"), "stop")] * request.n
