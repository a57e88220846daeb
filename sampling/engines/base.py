"""The engine contract: an engine completes prompts, and thousands of calls may wait at the same time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from stepverify.records import InputError

GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment (Steele et al. 2014): seeds so far apart have nothing in common


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How completions are sampled.

    Attributes:
        temperature: 0 takes the most likely token; GSM8K verifiers drew at 0.7 (Cobbe et al. 2021, section 4.2).
        top_p: nucleus: the smallest set of tokens with this much probability (1 = all), among those of ``top_k``.
        top_k: the so many most likely tokens (0 = all).
        max_tokens: longest completion in tokens.
        stop: texts that end a completion; neither the text nor what follows becomes part of it.
        stop_ids: token ids that end a completion besides the model's own end-of-sequence ids; no part of its text.
    """

    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    stop: list[str] = field(default_factory=list)
    stop_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"sampling.temperature: expected >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"sampling.top_p: expected 0 < top_p <= 1, got {self.top_p}")
        if self.top_k < 0:
            raise InputError(f"sampling.top_k: expected >= 0, got {self.top_k}")
        if self.max_tokens < 1:
            raise InputError(f"sampling.max_tokens: expected >= 1, got {self.max_tokens}")
        if "" in self.stop:
            raise InputError("sampling.stop: an empty text stops everything")


@dataclass(slots=True)
class Request:
    """``n`` completions of one prompt. Completion i is sampled with ``seed + i``. ``key`` names it in error messages.

    ``prefix_ids`` are there already: every completion begins with them, and they count as if sampled (``max_tokens``,
    stop texts). What follows is sampled with other random numbers than a shorter prefix's next ``len(prefix_ids)``
    tokens at the same seed: to drop tokens and draw on after others leaves no trace of what was dropped.
    """

    key: str
    prompt_ids: list[int]
    n: int
    seed: int
    prefix_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Completion:
    """One sampled completion: its token ids as sampled, its text up to the stop text, why it ended.

    ``num_calculator_edits`` counts the values in it that are the calculator's.
    """

    token_ids: list[int]
    text: str
    finish: str
    num_calculator_edits: int = 0


@dataclass(slots=True)
class Usage:
    """What an engine has read: the tokens of prompts, and how many of them its prefix cache had.

    Engines that know it have one as ``usage``; prompts of which they do not know are left out.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0

    def count(self, prompt_tokens: int, cached_tokens: int | None) -> None:
        """Add a prompt; None where it is not known what the cache had of it."""
        if cached_tokens is not None:
            self.prompt_tokens += prompt_tokens
            self.cached_tokens += cached_tokens


def begun(tokenizer: Any, request: Request, options: SamplingOptions, limit: int) -> tuple[Completion, int]:
    """What the prefix of a request is as a completion, and how many tokens are to be sampled after it: 0 if it is all.

    Args:
        tokenizer: the model's.
        request: what is asked for.
        options: token limit and stop texts.
        limit: longest prompt and completion that the model takes, in tokens.

    Raises:
        InputError: the prompt leaves no room for a completion.
    """
    room = min(options.max_tokens, limit - len(request.prompt_ids))
    if room < 1:
        raise InputError(f"{request.key}: the prompt has {len(request.prompt_ids)} tokens, the engine takes {limit}")
    known = completed(tokenizer, request.prefix_ids[:room], "length", options)
    return known, 0 if known.finish == "stop" else room - len(known.token_ids)


def seed_after(request: Request) -> int:
    """The seed for an engine whose random numbers begin after the prefix: there others than at a shorter one."""
    return (request.seed + GOLDEN * len(request.prefix_ids)) % (1 << 62)


def completed(
    tokenizer: Any, ids: list[int], finish: str, options: SamplingOptions, end_ids: Collection[int] = ()
) -> Completion:
    """The completion that ``ids`` are, ended after the first token that completes a stop text.

    Args:
        tokenizer: the model's.
        ids: token ids as sampled.
        finish: why they end, unless by a stop text.
        options: stop texts and ids.
        end_ids: further ids that end a completion; one that did is no text of it.
    """

    def decode(count: int) -> str:
        return tokenizer.decode(ids[:count], skip_special_tokens=True)

    def stopped(count: int) -> bool:
        text = decode(count)
        return any(stop in text for stop in options.stop)

    ended = finish == "stop" and bool(ids) and (ids[-1] in end_ids or ids[-1] in options.stop_ids)
    length = len(ids) - ended
    if not options.stop or not stopped(length):
        return Completion(ids, decode(length), finish)
    length = bisect_left(range(length), True, key=stopped)
    text = decode(length)
    return Completion(ids[:length], text[: min(at for s in options.stop if (at := text.find(s)) >= 0)], "stop")


class Engine(ABC):
    """Completes prompts. An object is cheap until :meth:`complete` or :attr:`tokenizer` is used.

    An engine batches what waits; whoever calls starts as many calls as there is work, up to :attr:`capacity`
    completions, and awaits them. One engine serves one event loop at a time, several one after the other.

    Attributes:
        model: local folder or hub id.
        capacity: completions that may usefully be asked for at the same time, those that wait included.
        usage: what was read of prompts; None for engines that do not know.
    """

    model: str
    capacity: int = 512
    usage: Usage | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides the completions, for the stage's manifest; nothing that decides only speed."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The model's Hugging Face tokenizer."""

    @abstractmethod
    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the ``n`` completions of a request, in order. A cancelled call leaves nothing in the engine.

        Raises:
            InputError: a prompt that leaves no room for a completion in the model's context.
        """

    async def aclose(self) -> None:  # noqa: B027 - some have nothing to close
        """Drop what is in flight, end threads and connections. The model stays loaded; the next call goes on."""
