"""Complete prompts by a server that speaks OpenAI's protocol.

Servers are vLLM's, llama.cpp's and others, on this machine or another. Prompts are sent as token ids to
``/completions``, so that the server's tokenizer changes nothing. Each completion is a request of its own with its own
seed: the server's prefix cache reads their prompt once.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sampling.engines.base import Completion, Engine, Request, SamplingOptions, Usage, begun, completed, seed_after
from sampling.runtime.scheduler import together
from stepverify.data.encode import load_tokenizer
from stepverify.hub import local_model
from stepverify.records import InputError

_UNBOUNDED = 1 << 30  # tokens, if the context length is unknown
# Otherwise a server takes these from the model's generation_config.json or its own defaults.
_NEUTRAL = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


@dataclass(frozen=True)
class _Connection:
    """Hold an event loop's client, its token limit and its request slots.

    ``limit`` is the longest prompt and completion in tokens.
    """

    client: Any
    limit: int
    places: asyncio.Semaphore


class ServerEngine(Engine):
    """Sample completions from an OpenAI-compatible endpoint.

    The token ids of completions are those that the server reports (vLLM's ``return_token_ids``). If it reports none,
    the texts are tokenized instead, with a warning: these ids may differ from the sampled ones, and lack the end of
    sequence. The number of cached prompt tokens is known if the server reports it (vLLM:
    ``--enable-prompt-tokens-details``).

    Args:
        model: local folder or hub id of the served model: its tokenizer and template are read here.
        base_url: URL of the endpoint, such as ``http://localhost:8000/v1``.
        served_as: the server's name of the model; None if that is ``model`` too.
        api_key_env: environment variable that holds the key; None if no key is needed.
        max_model_len: longest prompt and completion in tokens; None takes the server's own limit, which vLLM reports.
        max_in_flight: completions requested from the server at the same time; others wait.
        timeout: seconds for one completion, including its wait in the server's queue.
        max_retries: further attempts after a time-out, a lost connection, or a temporary error (408, 409, 429 and 5xx),
            with growing pauses.
    """

    def __init__(
        self, model: str, base_url: str, served_as: str | None = None, api_key_env: str | None = None,
        max_model_len: int | None = None, max_in_flight: int = 64, timeout: float = 600.0, max_retries: int = 5,
    ) -> None:  # fmt: skip
        for key, value, least in (("max_in_flight", max_in_flight, 1), ("max_retries", max_retries, 0)):
            if value < least:
                raise InputError(f"{key}: expected >= {least}, got {value}")
        if not timeout > 0:
            raise InputError(f"timeout: expected above 0 seconds, got {timeout}")
        self.model, self.base_url, self.served_as = model, base_url, served_as or model
        self.api_key_env, self.max_model_len, self.max_in_flight = api_key_env, max_model_len, max_in_flight
        self.timeout, self.max_retries, self.capacity = timeout, max_retries, 2 * max_in_flight
        self.usage: Usage = Usage()
        self._connecting: asyncio.Task[_Connection] | None = None

    def identity(self) -> dict[str, Any]:
        """Return engine and model, without the URL.

        A resumed run may find the server at another port.
        """
        return {"engine": "server", "model": self.model, "served_as": self.served_as}

    @cached_property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer."""
        return load_tokenizer(local_model(self.model, weights=False))

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the completions of a request.

        Raises:
            InputError: the prompt leaves no room, or the endpoint cannot be reached, does not serve the model or
                refuses the request.
        """
        connection = await self._connection()
        known, room = begun(self.tokenizer, request, options, connection.limit)
        if not room:
            return [known] * request.n
        greedy = options.temperature == 0  # then all n completions are equal
        asked = range(1 if greedy else request.n)
        completions = await together(self._complete_one(connection, request, i, room, options) for i in asked)
        return completions * (request.n if greedy else 1)

    async def aclose(self) -> None:
        """Close the connections."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None and connecting.get_loop() is asyncio.get_running_loop():
            connecting.cancel()
            for result in await asyncio.gather(connecting, return_exceptions=True):
                if isinstance(result, _Connection):
                    await result.client.close()

    async def _connection(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connecting = self._connecting
        if connecting is None or connecting.get_loop() is not loop or _failed(connecting):
            connecting = self._connecting = loop.create_task(self._connect())
        return await asyncio.shield(connecting)

    async def _connect(self) -> _Connection:
        client = self._client()
        try:
            return _Connection(client, await self._limit(client), asyncio.Semaphore(self.max_in_flight))
        except BaseException:
            await client.close()
            raise

    async def _complete_one(
        self, connection: _Connection, request: Request, i: int, room: int, options: SamplingOptions
    ) -> Completion:
        async with connection.places:
            answer = await self._ask(connection.client, request, i, room, options)
        return self._completion(request, answer, options)

    def _client(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise InputError(f"the server engine needs OpenAI's client ({error}); install stepverify[server]") from None
        key = os.environ.get(self.api_key_env) if self.api_key_env else "none"
        if not key:
            raise InputError(f"api_key_env: the environment variable {self.api_key_env} is not set")
        timeout = openai.Timeout(self.timeout, connect=min(self.timeout, 10.0))
        return openai.AsyncOpenAI(base_url=self.base_url, api_key=key, timeout=timeout, max_retries=self.max_retries)

    async def _limit(self, client: Any) -> int:
        """Return the token limit, and check that the server has the model."""
        with _explained(f"{self.base_url}/models", self.timeout):
            answer = await client.get("/models", cast_to=object)
        try:
            cards = {card["id"]: card for card in answer["data"]}
        except (KeyError, TypeError):
            raise InputError(
                f"{self.base_url}: lists no models; the URL of an OpenAI-compatible endpoint usually ends in /v1"
            ) from None
        if self.served_as not in cards:
            raise InputError(
                f"{self.base_url}: serves {', '.join(map(repr, cards)) or 'no model'}, not {self.served_as!r}; "
                "served_as is the server's name of the model"
            )
        return self.max_model_len or cards[self.served_as].get("max_model_len") or _UNBOUNDED

    async def _ask(self, client: Any, request: Request, i: int, left: int, options: SamplingOptions) -> Any:
        body = {
            "model": self.served_as, "prompt": request.prompt_ids + request.prefix_ids, "max_tokens": left,
            "seed": seed_after(request) + i, "temperature": options.temperature, "top_p": options.top_p,
            "top_k": options.top_k, "stop": options.stop, "stop_token_ids": options.stop_ids, "return_token_ids": True,
        }  # fmt: skip
        with _explained(f"{request.key}: {self.base_url}", self.timeout):
            # Plain JSON both ways: the client's types visit every token id, which takes three times as long.
            return await client.post("/completions", body=body | _NEUTRAL, cast_to=object)

    def _completion(self, request: Request, answer: Any, options: SamplingOptions) -> Completion:
        try:
            sampled = answer["choices"][0]
            text, finish, ids = sampled["text"], sampled["finish_reason"], sampled.get("token_ids")
        except (KeyError, IndexError, TypeError):
            raise InputError(f"{request.key}: {self.base_url} returned no completion: {str(answer)[:80]}") from None
        if finish not in ("stop", "length"):
            raise InputError(f"{request.key}: {self.base_url} ended a completion with finish_reason {finish!r}")
        usage = answer.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        self.usage.count(usage.get("prompt_tokens", 0), cached)
        if ids is not None and not request.prefix_ids:
            return Completion(ids, text, finish)
        # The server only covers the tokens it sampled in its text and its search for stop texts, not the prefix.
        ids = [*request.prefix_ids, *(self._tokenized(text, options) if ids is None else ids)]
        return completed(self.tokenizer, ids, finish, options)

    def _tokenized(self, text: str, options: SamplingOptions) -> list[int]:
        if options.stop_ids:
            raise InputError(
                f"sampling.stop_ids: {self.base_url} returns no token ids, so it is unknown whether it stops at them"
            )
        warnings.warn(
            f"{self.base_url} returns no token ids; the texts of completions are tokenized instead", stacklevel=2
        )
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


@contextmanager
def _explained(where: str, timeout: float) -> Iterator[None]:
    """Turn the client's errors into one line with place and cause."""
    import openai

    try:
        yield
    except openai.APITimeoutError:
        raise InputError(f"{where}: no answer within {timeout:g} seconds") from None
    except openai.APIConnectionError as error:
        raise InputError(f"{where}: cannot be reached ({error.__cause__ or error})") from None
    except openai.APIError as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None
    except ValueError:
        raise InputError(f"{where}: the response is no JSON") from None
