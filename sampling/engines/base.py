"""Define the contract of engines, which complete prompts.

Thousands of calls may wait at the same time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stepverify.records import InputError

GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment (Steele et al. 2014): seeds this far apart are independent


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Describe how completions are sampled.

    Attributes:
        temperature: 0 takes the most likely token; GSM8K verifiers sampled at 0.7 (Cobbe et al. 2021, section 4.2).
        top_p: nucleus sampling: keep the smallest set of tokens with at least this probability (1 = all), among those
            of ``top_k``.
        top_k: keep only this many most likely tokens (0 = all).
        max_tokens: length limit of a completion in tokens.
        stop: texts that end a completion; neither the stop text nor anything after it becomes part of the completion.
        stop_ids: token ids that end a completion, in addition to the model's own end-of-sequence ids; not part of its
            text.
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
            raise InputError("sampling.stop: an empty text would end every completion")


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one turn of a conversation.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: its text.
    """

    role: str
    content: str


@dataclass(slots=True)
class Request:
    """Ask for ``n`` completions of one prompt.

    A prompt is given in up to three forms, which must say the same. Engines with a tokenizer read ``prompt_ids``, and
    only those. Engines without one (:attr:`Engine.tokenizer` is None) read ``messages`` or ``prompt``, whichever their
    server takes, so callers give every form that they have. If the final message is an assistant's, its text is
    continued: completions hold only what follows it.

    ``served`` is filled in by engines whose completions end one by one: index → completion. If the call fails or is
    cancelled, these are not lost.

    Completion i is sampled with ``seed + i``. ``key`` names the request in error messages. Every completion begins with
    ``prefix_ids``, which count as sampled tokens (for ``max_tokens`` and stop texts). The tokens after a prefix are
    sampled with random numbers that depend on its length: they differ from those that the same seed gives with a
    shorter prefix. So dropping tokens and sampling again after others does not depend on the dropped tokens.

    ``top_logprobs`` asks for the log-probabilities of so many most likely first tokens
    (:attr:`Completion.top_logprobs`): 20 is the most that servers usually give.
    """

    key: str
    prompt_ids: list[int]
    n: int
    seed: int
    prefix_ids: list[int] = field(default_factory=list)
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    served: dict[int, Completion] = field(default_factory=dict)
    top_logprobs: int = 0


@dataclass(slots=True)
class Completion:
    """Hold one completion: sampled token ids, text and finish reason.

    Attributes:
        token_ids: as sampled; None where a server does not say them.
        text: ends before the stop text.
        finish: ``stop`` (ended by itself), ``length`` (cut off at the token limit), or ``refused``: a server refused
            the prompt for good, and its engine skips such prompts. That is no completion, and makes no record.
        num_calculator_edits: values that the calculator wrote.
        counted: number of sampled tokens, where ``token_ids`` is None.
        stopped_by: where ``token_ids`` is None: the stop text that ended it, empty if none did; None if a server does
            not say that.
        top_logprobs: text and log-probability of the most likely tokens in the place of the first sampled one, at
            temperature 1, in any order; None if they were not asked for, or a server does not give them.
    """

    token_ids: list[int] | None
    text: str
    finish: str
    num_calculator_edits: int = 0
    counted: int = 0
    stopped_by: str | None = None
    top_logprobs: list[tuple[str, float]] | None = None

    @property
    def num_tokens(self) -> int:
        """Return the number of sampled tokens."""
        return self.counted if self.token_ids is None else len(self.token_ids)


@dataclass(slots=True)
class Usage:
    """Count the prompt tokens of an engine or scorer, those its prefix cache held, and retries.

    Those that know these numbers have them as ``usage``; prompts for which they are unknown are left out. A scorer's
    prompts are whole solutions, and tokens that solutions of a call share count as cached but once: computed are
    ``prompt_tokens - cached_tokens``.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    retries: int = 0

    def count(self, prompt_tokens: int, cached_tokens: int | None) -> None:
        """Add a prompt; ``cached_tokens`` is None if it is unknown."""
        if cached_tokens is not None:
            self.prompt_tokens += prompt_tokens
            self.cached_tokens += cached_tokens


class SummedUsage:
    """Sum what replicas have read, in one object that others watch.

    Attributes:
        total: of all replicas, those that died included.
    """

    def __init__(self) -> None:
        self.total = Usage()
        self._of: dict[str, Usage] = {}

    def update(self, replica: str, now: Usage | None) -> None:
        """Take over what a replica has read so far; answers may come in another order than they were given."""
        before = self._of.get(replica, Usage())
        if now is None or now.prompt_tokens < before.prompt_tokens:
            return
        self._of[replica] = now
        self.total.prompt_tokens += now.prompt_tokens - before.prompt_tokens
        self.total.cached_tokens += now.cached_tokens - before.cached_tokens
        self.total.retries += now.retries - before.retries


def begun(tokenizer: Any, request: Request, options: SamplingOptions, limit: int) -> tuple[Completion, int]:
    """Return the completion made by a prefix, and the tokens left.

    The tokens left to sample are 0 if the prefix is already a complete completion.

    Args:
        tokenizer: the model's tokenizer.
        request: the request.
        options: token limit and stop texts.
        limit: longest prompt and completion that the model takes, in tokens.

    Raises:
        InputError: the prompt leaves no room for a completion.
    """
    room = min(options.max_tokens, limit - len(request.prompt_ids))
    if room < 1:
        raise InputError(f"{request.key}: the prompt has {len(request.prompt_ids)} tokens, the engine takes {limit}")
    known = completed(tokenizer, request.prefix_ids[:room], "length", options)
    return known, 0 if known.finish == "stop" else room - known.num_tokens


def seed_after(request: Request) -> int:
    """Return a seed for engines whose random numbers begin after the prefix.

    It differs between prefix lengths.
    """
    return (request.seed + GOLDEN * len(request.prefix_ids)) % (1 << 62)


def completed(
    tokenizer: Any, ids: list[int], finish: str, options: SamplingOptions, end_ids: Collection[int] = ()
) -> Completion:
    """Make a completion of token ids, cut after the first stop text.

    The ids end with the first token that completes a stop text; the text ends before it.

    Args:
        tokenizer: the model's tokenizer.
        ids: token ids as sampled.
        finish: finish reason, unless a stop text is found.
        options: stop texts and ids.
        end_ids: further ids that end a completion; a final one is not part of the text.
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


def unloaded(owner: object) -> dict[str, Any]:
    """Return an object's attributes without its cached properties, such as models and tokenizers."""
    return {k: v for k, v in vars(owner).items() if not isinstance(getattr(type(owner), k, None), cached_property)}


class Engine(ABC):
    """Complete prompts with a language model.

    An object is cheap until :meth:`complete` or :attr:`tokenizer` is used. An engine batches the calls that wait;
    callers start as many calls as there is work, up to :attr:`capacity` completions, and await them. An engine serves
    one event loop at a time, but may serve several one after the other.

    Attributes:
        model: local folder or hub id.
        capacity: completions that may usefully be requested at the same time, waiting ones included.
        usage: prompt tokens read so far; None for engines that do not know.
        caches_prefixes: tokens that it has read or sampled are not read again as the beginning of another prompt, as
            far as there is room.
        num_parameters: parameters of the model; None if unknown. A token costs about twice as many FLOPs, without
            attention (Kaplan et al. 2020, section 2.1).
    """

    model: str
    capacity: int = 512
    usage: Usage | None = None
    caches_prefixes: bool = False
    num_parameters: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs: the arguments, and nothing that was loaded."""
        return unloaded(self)

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides the completions, for the stage's manifest.

        Nothing that only changes the speed is included.
        """

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """Return the model's Hugging Face tokenizer; None for an engine that reads text or messages instead."""

    @abstractmethod
    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the ``n`` completions of a request, in order.

        A cancelled call leaves nothing in the engine.

        Raises:
            InputError: the prompt leaves no room for a completion in the model's context.
        """

    def status(self) -> str:
        """Return what a progress line says of the engine besides what it has read; empty for nothing."""
        return ""

    async def aclose(self) -> None:  # noqa: B027 - an engine may have nothing to close
        """Drop calls in flight, and end threads and connections.

        The model stays loaded; the next call starts again.
        """
