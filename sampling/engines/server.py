"""Completions by a server that speaks OpenAI's protocol: vLLM's, llama.cpp's and others, on this machine or another.

Prompts go as token ids to ``/completions``, so that the server's tokenizer changes nothing. Each completion is a
request of its own with its own seed: the prefix cache of the server reads their prompt once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sampling.engines.base import Completion, Request, SamplingOptions, Usage, begun, completed, seed_behind
from stepverify.data.encode import load_tokenizer
from stepverify.records import InputError

_UNBOUNDED = 1 << 30  # tokens, of a context of which nothing is known
# What a server would else take from the model's generation_config.json or from its own defaults.
_NEUTRAL = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


@dataclass(slots=True)
class _Drawing:
    """A request whose completions are on their way."""

    request: Request
    completions: list[Completion | None]


class ServerEngine:
    """An OpenAI-compatible endpoint, kept full by a stream of requests.

    The token ids of completions are those that the server says it drew (vLLM's ``return_token_ids``). One that does
    not say is taken by its texts, with a warning: their ids are those that the tokenizer writes them in, which need
    not be the drawn ones, and lack the end of sequence. How many tokens of a prompt were cached is known where the
    server tells (vLLM: ``--enable-prompt-tokens-details``).

    Args:
        model: local folder or hub id of the served model: its tokenizer and layout are read here.
        base_url: of the endpoint, as ``http://localhost:8000/v1``.
        served_as: what the server calls the model; None if that is ``model`` too.
        api_key_env: the environment variable that holds the key; None where none is needed.
        max_model_len: longest prompt and completion in tokens; None takes what the server says, as vLLM does.
        max_in_flight: completions that the server is asked for at once; those beyond wait in the stream.
        timeout: seconds for one completion, waiting in the server's queue included.
        max_retries: further attempts after a time-out, a lost connection, or an error that may pass (408, 409, 429
            and 5xx), with growing pauses.
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
        self.timeout, self.max_retries, self.usage = timeout, max_retries, Usage()

    def identity(self) -> dict[str, Any]:
        """Engine and model, not the place: a resumed run may find it at another port."""
        return {"engine": "server", "model": self.model, "served_as": self.served_as}

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.model)

    def generate(
        self, requests: Iterable[Request], options: SamplingOptions
    ) -> Iterator[tuple[Request, list[Completion]]]:
        """Yield each request with its completions as they finish.

        Raises:
            InputError: besides what the protocol says, an endpoint that cannot be reached or does not serve the model,
                and what it refuses.
        """
        client = self._client()
        from anyio.from_thread import start_blocking_portal  # openai has it

        # Connections live in a thread: they are read while whoever asked is busy with other things.
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):
            limit = portal.call(self._limit, client)
            in_flight: dict[Future[Any], tuple[_Drawing, int]] = {}
            try:
                yield from self._stream(portal, client, in_flight, iter(requests), options, limit)
            finally:
                # Whoever stops in the middle leaves nothing with the server: it hears the connections close.
                for future in in_flight:
                    future.cancel()

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
        """Longest prompt and completion; and that the model is there."""
        with _explained(f"{self.base_url}/models", self.timeout):
            answer = await client.get("/models", cast_to=object)
        try:
            cards = {card["id"]: card for card in answer["data"]}
        except (KeyError, TypeError):
            raise InputError(
                f"{self.base_url}: lists no models; an OpenAI-compatible endpoint ends in /v1 as a rule"
            ) from None
        if self.served_as not in cards:
            raise InputError(
                f"{self.base_url}: serves {', '.join(map(repr, cards)) or 'no model'}, not {self.served_as!r}; "
                "served_as is the server's name of the model"
            )
        return self.max_model_len or cards[self.served_as].get("max_model_len") or _UNBOUNDED

    def _stream(
        self, portal: Any, client: Any, in_flight: dict[Future[Any], tuple[_Drawing, int]],
        source: Iterator[Request], options: SamplingOptions, limit: int,
    ) -> Iterator[tuple[Request, list[Completion]]]:  # fmt: skip
        greedy = options.temperature == 0  # of n completions all are the same
        while True:
            while len(in_flight) < self.max_in_flight and (request := next(source, None)) is not None:
                known, left = begun(self.tokenizer, request, options, limit)
                if not left:
                    yield request, [known] * request.n
                    continue
                drawing = _Drawing(request, [None] * (1 if greedy else request.n))
                for i in range(len(drawing.completions)):
                    in_flight[portal.start_task_soon(self._ask, client, request, i, left, options)] = drawing, i
            if not in_flight:
                return
            for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                drawing, i = in_flight.pop(future)
                request = drawing.request
                drawing.completions[i] = self._completion(request, future.result(), options)
                if all(drawing.completions):
                    yield request, [c for c in drawing.completions if c] * (request.n if greedy else 1)

    async def _ask(self, client: Any, request: Request, i: int, left: int, options: SamplingOptions) -> Any:
        body = {
            "model": self.served_as, "prompt": request.prompt_ids + request.prefix_ids, "max_tokens": left,
            "seed": seed_behind(request) + i, "temperature": options.temperature, "top_p": options.top_p,
            "top_k": options.top_k, "stop": options.stop, "stop_token_ids": options.stop_ids, "return_token_ids": True,
        }  # fmt: skip
        with _explained(f"{request.key}: {self.base_url}", self.timeout):
            # Plain JSON both ways: the client's types would walk through every token id, three times the work.
            return await client.post("/completions", body=body | _NEUTRAL, cast_to=object)

    def _completion(self, request: Request, answer: Any, options: SamplingOptions) -> Completion:
        try:
            drawn = answer["choices"][0]
            text, finish, ids = drawn["text"], drawn["finish_reason"], drawn.get("token_ids")
        except (KeyError, IndexError, TypeError):
            raise InputError(f"{request.key}: {self.base_url} answers with no completion: {str(answer)[:80]}") from None
        if finish not in ("stop", "length"):
            raise InputError(f"{request.key}: {self.base_url} ended a completion by {finish!r}")
        usage = answer.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        self.usage.count(usage.get("prompt_tokens", 0), cached)
        if ids is not None and not request.prefix_ids:
            return Completion(ids, text, finish)
        # The server looks for stop texts and writes the text of what it drew alone.
        ids = [*request.prefix_ids, *(self._tokenized(text, options) if ids is None else ids)]
        return completed(self.tokenizer, ids, finish, options)

    def _tokenized(self, text: str, options: SamplingOptions) -> list[int]:
        if options.stop_ids:
            raise InputError(
                f"sampling.stop_ids: {self.base_url} gives no token ids, so it is not known whether it stops at some"
            )
        warnings.warn(f"{self.base_url} gives no token ids: they are made from the texts of completions", stacklevel=2)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


@contextmanager
def _explained(where: str, timeout: float) -> Iterator[None]:
    """Turn what the client raises into one line that says where and what."""
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
        raise InputError(f"{where}: answers with no JSON") from None
