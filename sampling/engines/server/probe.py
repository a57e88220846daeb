"""Find out what a server serves, by its list of models and requests for a few tokens."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sampling.engines.base import Message, Request, SamplingOptions
from sampling.engines.server.address import shortened
from sampling.engines.server.answers import Answer, checked, max_bytes
from sampling.engines.server.faults import Absent, Refusal
from sampling.engines.server.protocol import EXTRAS, STANDARD, Form, Protocol
from stepverify.records import InputError

if TYPE_CHECKING:
    from sampling.engines.server.client import Client

_TOKENS = 8  # of the first request; enough to compare texts with token ids
_TEXT = "Question: What is 12 + 7?\nAnswer:"
_USER = Message("user", "What is 12 + 7?")
_SHOWN = 8  # names of models in a message

_BEGUN = "The sum of the two numbers, twelve and seven, is"

Continued = Literal["no", "rest", "whole"]
"""Tell what a server returns after the beginning of an assistant's turn."""

Attempt = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Repeat a request after temporary faults."""


@dataclass(frozen=True)
class Probe:
    """Ask one server what it takes.

    Args:
        client: its connection.
        attempt: sends a request, with retries.
        model: the server's name of the model.
        options: sampling options of the run.
        extra_body: fields that the user adds to every request.
    """

    client: Client
    attempt: Attempt
    model: str
    options: SamplingOptions
    extra_body: Mapping[str, Any]

    async def context(self) -> int | None:
        """Return the token limit that the list of models gives, and check that the model is in it.

        Raises:
            InputError: the server has other models, or cannot be reached.
        """
        where = self.client.address.shown
        try:
            listed = await self.attempt(lambda: self.client.get("/models"))
        except Absent:
            return None  # some gateways have no list; the first request shows whether the model is there
        cards = listed.get("data") if isinstance(listed, dict) else listed  # some services send the list alone
        if not isinstance(cards, list) or not all(isinstance(c, dict) and isinstance(c.get("id"), str) for c in cards):
            raise InputError(f"{where}: lists no models; the URL of an OpenAI-compatible endpoint usually ends in /v1")
        for card in cards:
            if card["id"] == self.model:
                limit = card.get("max_model_len")  # vLLM's
                return limit if isinstance(limit, int) and 0 < limit < 1 << 31 else None
        names = ", ".join(shortened(repr(card["id"]), 80) for card in cards[:_SHOWN])
        more = f" and {len(cards) - _SHOWN} more" if len(cards) > _SHOWN else ""
        raise InputError(
            f"{where}: serves {self.client.address.scrub(names) or 'no model'}{more}, not {self.model!r}; "
            "served_as is the server's name of the model"
        )

    async def protocol(self, forms: list[Form], context: int | None, tokenizer: Any) -> Protocol:
        """Return how to ask the server: the first of several forms of prompts that it takes.

        Args:
            forms: ``tokens``, ``text`` and ``chat``, the preferred one first. Token ids are sent only to a server that
                returns them too.
            context: token limit, if known.
            tokenizer: the local tokenizer, or None.

        Raises:
            InputError: the server takes none of them, refuses an option, or has another tokenizer.
        """
        reasons: dict[str, str] = {}
        for form in forms:
            asked: Form = "text" if form == "tokens" else form
            try:
                protocol, answer = await self._settled(Protocol(asked, self.model, extra_body=self.extra_body))
            except (Absent, Refusal) as error:
                reasons[asked] = str(error)
                continue
            protocol = replace(
                protocol, returns_ids=answer.token_ids is not None, context=context, prompt_tokens=answer.prompt_tokens
            )
            if form == "tokens":
                if not protocol.returns_ids:
                    continue
                _compare(answer, tokenizer, self.client.address.shown)
                protocol = replace(protocol, form="tokens")
            protocol.check(self.options, self.client.address.shown)
            if self.options.top_k and self.options.temperature and not protocol.returns_ids:
                await self._check_top_k(protocol)
            return protocol
        said = "; ".join(dict.fromkeys(reasons.values()))
        advice = "" if "chat" in forms else "; a server of chats needs template: {chat: true}"
        raise InputError(f"{self.client.address.shown}: refuses a request for {_TOKENS} tokens: {said}{advice}")

    async def _settled(self, protocol: Protocol) -> tuple[Protocol, Answer]:
        """Ask for a few tokens, without the fields that the server refuses."""
        while True:
            try:
                return protocol, await self.ask(protocol, self.options, _TOKENS)
            except Refusal as refusal:
                if (fewer := _without(protocol, str(refusal))) is None:
                    raise
                protocol = fewer

    async def ask(
        self, protocol: Protocol, options: SamplingOptions, max_tokens: int, turns: tuple[Message, ...] = (_USER,),
        seed: int = 1,
    ) -> Answer:  # fmt: skip
        """Return the completion of a short prompt, after retries."""
        answer: Answer = await self.attempt(lambda: self.ask_once(protocol, options, max_tokens, turns, seed))
        return answer

    async def ask_once(
        self, protocol: Protocol, options: SamplingOptions, max_tokens: int = 1, turns: tuple[Message, ...] = (_USER,),
        seed: int = 1,
    ) -> Answer:  # fmt: skip
        """Return the completion of a short prompt."""
        asked = replace(protocol, form="text") if protocol.form == "tokens" else protocol
        body = asked.body(Request("probe", [], 1, seed, prompt=_TEXT, messages=turns), 0, max_tokens, options)
        found = await self.client.post(asked.path, body, max_bytes(max_tokens))
        return checked(found, chat=asked.form == "chat", max_tokens=max_tokens)

    async def _check_top_k(self, protocol: Protocol) -> None:
        """Check that a server without token ids honours top_k: with 1, random numbers decide nothing."""
        options = replace(self.options, temperature=2.0, top_p=1.0, top_k=1, stop=[])
        found = {(await self.ask(protocol, options, _TOKENS, seed=seed)).text for seed in (1, 2, 3)}
        if len(found) > 1 or not found.pop():
            raise InputError(
                f"sampling.top_k: {self.client.address.shown} ignores top_k, as its answers show; set sampling.top_k: 0"
            )

    async def continues(self, protocol: Protocol) -> Continued:
        """Tell whether a final turn of the assistant is continued, by its cost in tokens, and what is returned.

        A prompt ends with the beginning of the assistant's turn. If a turn ``1`` of the assistant is continued, the
        prompt is one token longer; otherwise the turn is closed, and another one begun, which takes more. llama.cpp
        returns the whole turn: a longer text than the one token that is asked for can hold.
        """
        options = replace(self.options, stop=[])
        try:
            plain, one, long = [
                await self.ask(protocol, options, 1, (_USER, *(Message("assistant", text) for text in begun)))
                for begun in ((), ("1",), (_BEGUN,))
            ]
        except Refusal:
            return "no"
        if plain.prompt_tokens is None or one.prompt_tokens != plain.prompt_tokens + 1:
            return "no"
        return "whole" if long.text.startswith(_BEGUN) else "rest"


def _without(protocol: Protocol, message: str) -> Protocol | None:
    """Return the protocol without the fields that an error names; None if there is nothing to leave out.

    An error that names none leaves out all extras, and next the standard fields.
    """
    if protocol.limit_field == "max_tokens" and "max_completion_tokens" in message:
        return replace(protocol, limit_field="max_completion_tokens")
    extras, standard = ([name for name in names if name not in protocol.left_out] for names in (EXTRAS, STANDARD))
    named = [name for name in extras + standard if re.search(rf"\b{name}\b", message)]
    gone = named or extras or standard
    return replace(protocol, left_out=protocol.left_out | {*gone}, refusal=message) if gone else None


def _compare(answer: Answer, tokenizer: Any, where: str) -> None:
    """Compare what the server and the local tokenizer make of the same token ids, except for blank space.

    The server's text may be shorter: it ends before a stop text.
    """
    ours = tokenizer.decode(answer.token_ids, skip_special_tokens=True)
    plain = ["".join(text.replace("�", "").split()) for text in (ours, answer.text)]
    if not plain[0].startswith(plain[1]):
        raise InputError(
            f"{where}: its model has another tokenizer than {tokenizer.name_or_path!r}: token ids that it calls "
            f"{shortened(answer.text, 60)!r} are {shortened(ours, 60)!r} here; set model to the served model"
        )
