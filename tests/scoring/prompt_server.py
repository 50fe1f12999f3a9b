"""A server that answers as vLLM does, from one model's true probabilities, in a thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from doubles import slow_logprobs, slow_model, slow_top

MODEL = "org/teacher"
Reply = tuple[int, Any]
Change = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


class PromptServer:
    """What tests set and look at.

    `first` holds replies (status, body) that are given once each before the true ones; `change`
    rewrites a true reply, given the request; `requests` are the bodies that came; `key` the bearer
    token that is asked for; `models` the reply to /models; `most` the --max-logprobs.
    """

    def __init__(self, model: str) -> None:
        self.model = slow_model(model)
        self.lock = threading.Lock()
        self.address = ""
        self.reset()

    def reset(self) -> None:
        """As it is at first."""
        self.first: list[Reply] = []
        self.change: Change = lambda request, reply: reply
        self.requests: list[dict[str, Any]] = []
        self.key: str | None = None
        self.models: Reply = (200, {"data": [{"id": MODEL, "root": "/weights/teacher"}]})
        self.most = 20
        self.headers: dict[str, str] = {}

    def answer(self, path: str, body: dict[str, Any] | None, key: str | None) -> Reply:
        if self.key is not None and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if path == "/v1/models":
            return self.models
        if path != "/v1/completions" or body is None:
            return 404, {"detail": "Not Found"}
        with self.lock:
            self.requests.append(body)
            if self.first:
                return self.first.pop(0)
        if body["model"] != MODEL:
            return 404, _error(f"The model `{body['model']}` does not exist.", 404)
        if body["prompt_logprobs"] > self.most:
            asked = body["prompt_logprobs"]
            text = f"Requested prompt logprobs of {asked}, which is greater than max allowed: "
            return 400, _error(text + str(self.most), 400)
        if body["max_tokens"] < 1:
            return 400, _error("max_tokens must be at least 1, got 0.", 400)
        return 200, self.change(body, self.completion(body["prompt"], body["prompt_logprobs"]))

    def completion(self, prompt: list[int], k: int) -> dict[str, Any]:
        """vLLM's reply: null for the first token, then the k best and the token itself."""
        entries: list[dict[str, Any] | None] = [None]
        for token, row in zip(
            prompt[1:], slow_logprobs(self.model, prompt[:1], prompt[1:]).tolist(), strict=True
        ):
            ranked = slow_top(row, len(row))
            ids = dict.fromkeys([token, *ranked[:k]])  # vLLM puts the token itself first
            entries.append(
                {
                    str(i): {
                        "logprob": row[i],
                        "rank": ranked.index(i) + 1,
                        "decoded_token": f"<{i}>",
                    }
                    for i in ids
                }
            )
        choice = {"index": 0, "text": " w0", "finish_reason": "length", "prompt_logprobs": entries}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 1}
        return {"object": "text_completion", "model": MODEL, "choices": [choice], "usage": usage}


def _error(message: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}}


@contextmanager
def serving(model: str) -> Iterator[PromptServer]:
    """Serves a saved model at `address` until the block ends."""
    double = PromptServer(model)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any] | None) -> None:
            status, value = double.answer(self.path, body, self.headers.get("Authorization"))
            if status == 0:  # hangs up
                self.close_connection = True
                return
            with suppress(ConnectionError):  # the client stopped waiting
                self._send(status, value)

        def _send(self, status: int, value: Any) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in double.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    double.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
