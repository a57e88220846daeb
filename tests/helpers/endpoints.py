"""A server of completions in this process."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sampling.engines import Request, SamplingOptions, ServerEngine
from tests.helpers.engines import complete_all

MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 200}]}


def choice(text="1", finish="stop", token_ids=None, **more):
    known = {} if token_ids is None else {"token_ids": token_ids}
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None, **known}], **more}


class Endpoint(ThreadingHTTPServer):
    """Answers with what ``draws(body)`` gives: a completion; a status; or what is no JSON. Remembers what it was asked.

    ``most`` is how many it was asked for at the same time, ``broken`` how many connections were gone when it answered.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, draws, models=MODELS):
        super().__init__(("127.0.0.1", 0), Handler)
        self.draws, self.models = draws, models
        self.asked, self.keys, self.now, self.most, self.broken = [], set(), 0, 0, 0
        self.connections, self.lock = set(), threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def engine(self, model, **options):
        return ServerEngine(str(model), self.url, **{"served_as": "m", "max_retries": 1} | options)

    def handle_error(self, request, client_address):
        self.broken += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(self.server.models if self.path == "/v1/models" else 404)

    def do_POST(self):
        assert self.path == "/v1/completions"
        body, server = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.server
        with server.lock:
            server.asked.append(body)
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            answer = server.draws(body)
        finally:
            with server.lock:
                server.now -= 1
        self.answer(answer)

    def answer(self, answer):
        self.server.keys.add(self.headers["Authorization"])
        self.server.connections.add(self.client_address)
        status = answer if isinstance(answer, int) else 200
        sent = {"error": {"message": f"says the\nserver {status}"}} if status != 200 else answer
        data = sent.encode() if isinstance(sent, str) else json.dumps(sent).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def serving(draws, **options):
    endpoint = Endpoint(draws, **options)
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()


def by_number(body):
    """A model of known law: of seed s it draws the ids 20 + s % 10, and 1 (the end)."""
    return choice(str(body["seed"] % 10), "stop", [20 + body["seed"] % 10, 1])


def requests(number, n=1):
    return [Request(str(i), [5, 6], n, 100 * i) for i in range(number)]


def sampled(engine, asked, **options):
    return complete_all(engine, asked, SamplingOptions(**options))
