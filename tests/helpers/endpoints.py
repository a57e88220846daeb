"""A scripted server on loopback that speaks OpenAI's protocol, or whatever it is told to answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sampling.engines import Completion, Message, Request, SamplingOptions, ServerEngine
from sampling.engines.server.probe import _TEXT

Served = TypeVar("Served")
MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 200}]}


@dataclass(frozen=True)
class Reply:
    """What the server sends.

    Attributes:
        body: JSON, or bytes as they are.
        status: of HTTP.
        headers: further ones.
        wait: seconds before the first byte.
        drip: seconds between two bytes of the body.
        raw: everything that is sent, in place of an HTTP answer.
        length: the Content-Length that is claimed; None is the true one.
        close: close the connection after it.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0
    raw: bytes | None = None
    length: int | None = None
    close: bool = False


def choice(text: Any = "1", finish: Any = "stop", ids: Any = (21,), **more: Any) -> dict[str, Any]:
    """A completion as vLLM answers it; without token ids for ``ids=None``."""
    known = {} if ids is None else {"token_ids": list(ids) if isinstance(ids, tuple) else ids}
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish, **known}]} | more


def turn(content: Any = "1", finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """A completion of a chat."""
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]} | more


def error(status: int, message: Any = "says the\nserver", **more: Any) -> Reply:
    """An error in OpenAI's form."""
    return Reply({"error": {"message": message, **more}}, status)


Answering = Callable[[dict[str, Any]], Any]


class Endpoint:
    """Answers ``/models`` with ``models``, and requests with what ``answers`` returns for their body.

    Args:
        answers: body → :class:`Reply`, or JSON.
        probe: the same for the first requests of an engine, by which it finds out what the server takes.
        models: answer to ``/models``.

    Attributes:
        asked: bodies of the requests, without the first ones of the engine ...
        probed: ... and these.
        heads: head of every request: its line and headers.
    """

    def __init__(self, answers: Answering, probe: Answering | None = None, models: Any = MODELS) -> None:
        self.answers, self.models = answers, models
        self.probe = probe or (lambda body: turn(ids) if "messages" in body else choice(ids))
        ids = "1"
        self.asked: list[dict[str, Any]] = []
        self.probed: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.now = self.most = 0

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        """Listen on a port, or a free one, in the caller's event loop; the URL of the endpoint."""
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
            tasks.discard(task)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 22)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        length = next((int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0)
        data = await reader.readexactly(length)
        if head.startswith("GET"):
            return await _send(writer, self.models)
        body = json.loads(data)
        probing = _TEXT in (body.get("prompt"), *(m["content"] for m in body.get("messages", [])))
        probing = probing or (body.get("messages") or [{}])[0].get("content") == "What is 12 + 7?"
        (self.probed if probing else self.asked).append(body)
        self.now += not probing
        self.most = max(self.most, self.now)
        try:
            return await _send(writer, (self.probe if probing else self.answers)(body))
        finally:
            self.now -= not probing

    def listening(self) -> contextlib.AbstractContextManager[str]:
        """Listen in a thread of its own, for stages that run an event loop themselves."""
        return in_thread(self.serving())


@contextlib.contextmanager
def in_thread(serving: contextlib.AbstractAsyncContextManager[Served]) -> Iterator[Served]:
    """What servers give when they listen, while they do so in a thread of its own."""
    found: Future[Served] = Future()
    ended = threading.Event()

    async def main() -> None:
        async with serving as given:
            found.set_result(given)
            while not ended.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        yield found.result(30)
    finally:
        ended.set()
        thread.join()


async def _send(writer: asyncio.StreamWriter, reply: Any) -> bool:
    if asyncio.iscoroutine(reply):
        reply = await reply
    if not isinstance(reply, Reply):
        reply = Reply(reply)
    await asyncio.sleep(reply.wait)
    if reply.raw is not None:
        writer.write(reply.raw)
        await writer.drain()
        return False
    data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    length = len(data) if reply.length is None else reply.length
    headers = {"Content-Type": "application/json", "Content-Length": str(length)} | reply.headers
    lines = [f"HTTP/1.1 {reply.status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    for piece in [data[i : i + 1] for i in range(len(data))] if reply.drip else [data]:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(reply.drip)
    return not reply.close and reply.length is None


class Words:
    """A tokenizer of digits: id 20 + d is the digit d, 1 the end."""

    name_or_path = "words"

    def __len__(self) -> int:
        return 30

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(str(i - 20) for i in ids if i >= 20)


def engine_at(url: str | list[str], form: str = "tokens", **options: Any) -> ServerEngine:
    """An engine that loads no tokenizer, and whose pauses take milliseconds."""
    api = {"tokens": "auto", "text": "completions", "chat": "chat"}[form]
    given = {"timeout": 10.0, "max_retries": 2, "give_up_after": 1.2, "served_as": "m", "api": api} | options
    engine = ServerEngine("words", url, **given)
    engine.patience = replace(engine.patience, first_pause=0.002, longest_pause=0.01)
    engine.__dict__["tokenizer"] = Words() if form == "tokens" else None
    return engine


def question(form: str = "tokens", n: int = 1, key: str = "p#0", seed: int = 0) -> Request:
    """A request with the form of prompt."""
    if form == "tokens":
        return Request(key, [25, 26], n, seed, prompt="56")
    if form == "text":
        return Request(key, [], n, seed, prompt="56")
    return Request(key, [], n, seed, messages=(Message("user", "56"),))


async def served_by(
    engine: ServerEngine,
    request: Request,
    options: SamplingOptions = SamplingOptions(max_tokens=8),  # noqa: B008
) -> list[Completion]:
    """The completions of one request, after which the engine is closed."""
    async with aclosing(engine):
        return await engine.complete(request, options)


def by_number(body: dict[str, Any]) -> dict[str, Any]:
    """A model of known law: of seed s it samples the ids 20 + s % 10, and 1 (the end)."""
    return choice(str(body["seed"] % 10), "stop", (20 + body["seed"] % 10, 1))


def number(i: int) -> Completion:
    """What :func:`by_number` samples with a seed of this final digit."""
    return Completion([20 + i, 1], str(i), "stop")


def run(endpoint: Endpoint, work: Callable[[str], Any]) -> Any:
    """What ``work(url)`` returns, with the endpoint listening."""

    async def main() -> Any:
        async with endpoint.serving() as url:
            return await work(url)

    return asyncio.run(asyncio.wait_for(main(), 60))


def sampled(
    endpoint: Endpoint, request: Request, form: str = "tokens", engine: dict[str, Any] | None = None, **sampling: Any
) -> list[Completion]:  # fmt: skip
    """The completions of one request by an engine of its own."""
    options = SamplingOptions(**{"max_tokens": 8} | sampling)
    return run(endpoint, lambda url: served_by(engine_at(url, form, **(engine or {})), request, options))
