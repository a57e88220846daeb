"""Complete prompts by a server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from sampling.engines.base import Completion, Engine, Request, SamplingOptions, Usage, begun, completed
from sampling.engines.server.address import Address, check_urls
from sampling.engines.server.answers import Answer, after_turn, checked, cut_at_stop, max_bytes, with_texts
from sampling.engines.server.endpoint import Endpoint, Wanted
from sampling.engines.server.faults import Refusal
from sampling.engines.server.protocol import CONTINUE, EXTRAS, STANDARD, Form, continues
from sampling.engines.server.retries import Patience, Retries
from sampling.engines.server.servers import OneServer, Servers, listed
from sampling.engines.server.several import SeveralServers
from sampling.runtime.dispatch import prefix_keys
from sampling.runtime.scheduler import together
from stepverify.data.encode import load_tokenizer
from stepverify.hub import local_model
from stepverify.records import InputError

if TYPE_CHECKING:
    from sampling.engines.server.client import Client

_UNBOUNDED = 1 << 30  # tokens, if the context length is unknown
Api = Literal["auto", "completions", "chat"]
_OWN = {
    "model", "prompt", "messages", "max_tokens", "max_completion_tokens", "n", "stream", "logprobs", "top_logprobs",
    "return_tokens_as_token_ids", *EXTRAS, *STANDARD, *CONTINUE,
}  # fmt: skip


class ServerEngine(Engine):
    """Sample completions from OpenAI-compatible endpoints.

    What the server takes is found out by a request for a few tokens, and said on stderr. vLLM's completions get prompts
    as token ids and return the sampled ids, so that the server's tokenizer changes nothing. Other servers get the text
    of prompts, or messages, and return texts: records then hold no token ids, their number is the one that the server
    counts, and the calculator cannot work. Each completion is a request of its own with its own seed: the server's
    prefix cache reads their prompt once. The number of cached prompt tokens is known if the server reports it (vLLM:
    ``--enable-prompt-tokens-details``).

    Several endpoints must serve one model in the same way. Each request goes to the one that has its prefix, unless
    that has clearly more to do than the one with the least. One that stops answering is taken out, its requests are
    asked at the others at once, and it is used again when it answers as before; this changes no record where the
    servers are batch-invariant. A request that was lost with three endpoints in turn, the last of which worked on
    nothing else, is treated as refused.

    Args:
        model: local folder or hub id of the served model, whose tokenizer and template are read here, except with
            ``api: chat``. Without a tokenizer there, prompts are sent as text or messages.
        base_url: URL of the endpoint, such as ``http://localhost:8000/v1``, or a list of several. A user and password
            in it are sent as basic authorization to that endpoint, a query with every request; keys and headers are
            for all.
        served_as: the server's name of the model; None if that is ``model`` too.
        api: ``completions``, ``chat``, or ``auto``: token ids where the server takes and returns them, else messages
            where the template is a chat, else text.
        api_key_env: environment variable that holds the key; None if no key is needed.
        headers_env: names of further headers → environment variables that hold their values.
        max_model_len: longest prompt and completion in tokens; None takes the server's own limit, which vLLM reports.
        max_in_flight: completions requested from each endpoint at the same time; others wait. Not many more than the
            server works on at once, since waiting there counts towards ``timeout``. The engine's ``capacity`` is twice
            as many for each endpoint.
        timeout: seconds for one completion, from the request to the final byte of the answer.
        max_retries: further attempts after a temporary fault of a completion (no answer in time, a bad answer, 408,
            409, 429 and 5xx), after pauses that grow, or are as long as the server asks for (Retry-After, at most a
            minute). Of several endpoints, those of which one goes away do not count.
        give_up_after: seconds without any completion, over all requests and endpoints, after which the run ends.
        refused: what to do if the server refuses a prompt for good (400, 413, 422, a content filter): ``error`` ends
            the run; ``skip`` leaves the prompt out, and counts it.
        extra_body: further fields of every request, such as ``{chat_template_kwargs: {enable_thinking: false}}``.
        num_parameters: parameters of the served model, for the FLOPs of a search; None leaves them out.
    """

    def __init__(
        self, model: str, base_url: str | list[str], served_as: str | None = None, api: Api = "auto",
        api_key_env: str | None = None, headers_env: dict[str, str] | None = None, max_model_len: int | None = None,
        max_in_flight: int = 64, timeout: float = 600.0, max_retries: int = 5, give_up_after: float = 300.0,
        refused: Literal["error", "skip"] = "error", extra_body: dict[str, Any] | None = None,
        num_parameters: int | None = None,
    ) -> None:  # fmt: skip
        for key, value, least in (("max_in_flight", max_in_flight, 1), ("max_retries", max_retries, 0)):
            if value < least:
                raise InputError(f"{key}: expected >= {least}, got {value}")
        for key, seconds in (("timeout", timeout), ("give_up_after", give_up_after)):
            if not 0 < seconds < float("inf"):
                raise InputError(f"{key}: expected above 0 seconds, got {seconds}")
        for key, word, words in (
            ("api", api, ("auto", "completions", "chat")), ("refused", refused, ("error", "skip")),
        ):  # fmt: skip
            if word not in words:
                raise InputError(f"{key}: expected one of {', '.join(words)}, got {word!r}")
        if own := sorted(_OWN & (extra_body or {}).keys()):
            raise InputError(f"extra_body.{own[0]}: is set by the engine, by sampling or by the prompt")
        if num_parameters is not None and num_parameters < 1:
            raise InputError(f"num_parameters: expected 1 or more, or null, got {num_parameters}")
        urls = check_urls(base_url)
        self.model, self.served_as, self.api = model, served_as or model, api
        self.max_model_len, self.max_in_flight = max_model_len, max_in_flight
        self.capacity = 2 * max_in_flight * len(urls)
        self.timeout, self.refused, self.extra_body = timeout, refused, extra_body or {}
        self.patience = Patience(max_retries=max_retries, give_up_after=give_up_after)
        self.usage: Usage = Usage()
        self.num_parameters = num_parameters
        self._addresses: Callable[[], list[Address]] = lambda: [
            Address.of(url, api_key_env, headers_env or {}, key) for key, url in urls.items()
        ]
        self._connecting: asyncio.Task[Servers] | None = None

    def identity(self) -> dict[str, Any]:
        """Return engine, model and protocol, without the URLs.

        A resumed run may use other servers, or more of them.
        """
        made = {"engine": "server", "model": self.model, "served_as": self.served_as, "api": self.api}
        return made | ({"extra_body": self.extra_body} if self.extra_body else {})

    @cached_property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer; None with ``api: chat``, or where ``model`` has none."""
        if self.api == "chat":
            return None
        try:
            return load_tokenizer(local_model(self.model, weights=False))
        except InputError as error:
            print(f"{error}; so prompts are sent to the server as text", file=sys.stderr)
            return None

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the completions of a request.

        Raises:
            InputError: the prompt leaves no room; the server cannot be reached, answers nothing any more, does not
                serve the model, refuses the prompt or an option; or the request lacks the form of prompt that it takes.
        """
        servers = await self._servers(request, options)
        protocol = servers.protocol
        if protocol.form == "chat" and options.stop_ids and self.tokenizer is not None:
            # The server's chat template ends with special tokens by itself.
            left = [i for i in options.stop_ids if i not in self.tokenizer.all_special_ids]
            options = replace(options, stop_ids=left)
        protocol.check(options, servers.where)
        await self._check_form(servers, request)
        room = options.max_tokens
        if protocol.form == "tokens":
            known, room = begun(self.tokenizer, request, options, protocol.context or _UNBOUNDED)
            if not room:
                return [known] * request.n
        greedy = options.temperature == 0  # then all n completions are equal
        asked = range(1 if greedy else request.n)
        refusals: list[Refusal] = []
        prefixes = prefix_keys(request)
        completions = await together(
            self._serve(servers, request, i, room, options, prefixes, refusals) for i in asked
        )  # fmt: skip
        return completions * (request.n if greedy else 1)

    def status(self) -> str:
        """Return how many of several servers are used."""
        found = self._connecting
        return found.result().status() if found is not None and found.done() and not _failed(found) else ""

    async def aclose(self) -> None:
        """Close the connections."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None and connecting.get_loop() is asyncio.get_running_loop():
            connecting.cancel()
            for result in await asyncio.gather(connecting, return_exceptions=True):
                if isinstance(result, Servers):
                    await result.aclose()

    async def _servers(self, request: Request, options: SamplingOptions) -> Servers:
        loop = asyncio.get_running_loop()
        connecting = self._connecting
        if connecting is None or connecting.get_loop() is not loop or _failed(connecting):
            connecting = self._connecting = loop.create_task(self._connect(request, options))
        return await asyncio.shield(connecting)

    async def _connect(self, request: Request, options: SamplingOptions) -> Servers:
        from sampling.engines.server.client import Client  # aiohttp takes a while to import

        addresses = self._addresses()
        forms = self._forms(request)
        wanted = Wanted(self.served_as, forms, self.tokenizer, options, self.extra_body, self.max_model_len)
        retries = Retries(listed([address.shown for address in addresses]), self.patience, self._count_retry)
        clients = [Client(address, self.timeout, self.max_in_flight + 2) for address in addresses]
        endpoints = [Endpoint(client, wanted, retries) for client in clients]
        servers = (OneServer if len(endpoints) == 1 else SeveralServers)(endpoints, retries, self.max_in_flight)
        try:
            await servers.start()
        except BaseException:
            await servers.aclose()
            raise
        return servers

    def _forms(self, request: Request) -> list[Form]:
        """Return the forms of prompts to try, in the order of preference."""
        forms: list[Form] = []
        if self.api != "chat" and self.tokenizer is not None and request.prompt_ids:
            forms.append("tokens")
        if self.api != "completions" and request.messages is not None:
            forms.append("chat")
        if self.api != "chat" and request.prompt is not None:
            forms.append("text")
        if not forms and self.api == "chat":
            raise InputError("api: chat takes messages, and this template is plain text; set template: {chat: true}")
        if not forms:
            raise InputError(
                f"{self.model}: has no tokenizer to write the prompt with; set model to the served model's folder or "
                "hub id, or api: chat"
            )
        return forms

    async def _check_form(self, servers: Servers, request: Request) -> None:
        protocol, where = servers.protocol, servers.where
        if request.prefix_ids and protocol.form != "tokens":
            raise InputError(
                f"{request.key}: the prompt continues sampled tokens, and {where} returns no token ids (the calculator "
                "needs vLLM's completions and the model's tokenizer)"
            )
        if protocol.form != "chat" or not continues(request.messages):
            return
        if await servers.continues() == "no":
            raise InputError(
                f"{request.key}: {where} does not continue a turn of the assistant, which prefixes of steps need; set "
                "api: completions, and model to a folder or hub id with the model's tokenizer"
            )

    async def _serve(
        self, servers: Servers, request: Request, i: int, room: int, options: SamplingOptions,
        prefixes: Sequence[Hashable], refusals: list[Refusal],
    ) -> Completion:  # fmt: skip
        protocol = servers.protocol
        vocabulary = len(self.tokenizer) if protocol.form == "tokens" else None
        body = protocol.body(request, i, room, options)
        where = servers.where

        async def send(client: Client) -> Answer:
            nonlocal where
            if refusals:
                raise refusals[0]  # for another completion of this prompt
            where = client.address.shown
            found = await client.post(protocol.path, body, max_bytes(room))
            return checked(
                found, chat=protocol.form == "chat", max_tokens=room, wants_ids=protocol.returns_ids,
                vocabulary=vocabulary,
            )  # fmt: skip

        try:
            answer = await servers.ask(request.key, prefixes, send)
        except Refusal as refusal:
            if self.refused == "error":
                raise InputError(
                    f"{request.key}: {where}: {refusal}; `refused: skip` of the engine leaves such prompts out"
                ) from None
            refusals += [refusal] if refusal.whole else []
            return Completion(None, "", "refused")
        made = self._completion(servers, where, request, answer, options)
        top = with_texts(answer.top_logprobs, self.tokenizer) if request.top_logprobs else None
        request.served[i] = replace(made, top_logprobs=top)
        return request.served[i]

    def _completion(
        self, servers: Servers, where: str, request: Request, answer: Answer, options: SamplingOptions
    ) -> Completion:
        if answer.prompt_tokens is not None:
            self.usage.count(answer.prompt_tokens, answer.cached_tokens)
        if request.prefix_ids:
            # The server only covers the tokens it sampled in its text and its search for stop texts, not the prefix.
            ids = [*request.prefix_ids, *(answer.token_ids or [])]
            return completed(self.tokenizer, ids, answer.finish, options)
        text, finish, stopped_by = answer.text, answer.finish, answer.stopped_by
        if continues(request.messages) and servers.continued == "whole":
            text = after_turn(request.messages, text)
        if (cut := cut_at_stop(text, options)) is not None:
            servers.say(where, "it does not end completions at stop texts, so they are cut here")
            if answer.token_ids is not None and self.tokenizer is not None:
                return completed(self.tokenizer, answer.token_ids, finish, options)
            (text, stopped_by), finish = cut, "stop"
        if answer.num_tokens is None:
            servers.say(where, "it does not say how many tokens it sampled, so none are counted")
        counted = (answer.num_tokens or 0) if answer.token_ids is None else 0
        return Completion(answer.token_ids, text, finish, counted=counted, stopped_by=stopped_by)

    def _count_retry(self) -> None:
        self.usage.retries += 1


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
