"""A teacher behind an HTTP server: its top-k lists of each response position.

The server speaks OpenAI's completions API and gives `prompt_logprobs`, vLLM's addition to it: for
every token of the prompt but the first, a mapping of token id to `logprob` of the k most probable
ids and of the token itself. Prompt and response go to it together, as token ids, so one request
lists every position of a context. The token itself is dropped where it is not among the k. Sampling
filters are switched off in the request, though vLLM's default `--logprobs-mode raw_logprobs` heeds
none. Replies are checked token by token: a server that decodes, cuts or wraps the ids is refused.
Not covered: servers with an interface of their own; their lists go through a file (`lists.py`).
"""

from __future__ import annotations

import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.files import sha256_text
from diagnostics.progress import Advance, silent
from diagnostics.scoring.hidden import Context
from diagnostics.scoring.lists import Entries, TopKLists, packed

KEY_VARIABLE = "OPENAI_API_KEY"
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that pass
LONGEST_WAIT = 60.0  # seconds between two attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server and one model that it serves.

    Fields: `spec` as the user wrote it; `base` the address up to `/v1`; `model` its name there;
    `fingerprint` of name and origin as the server states them, not of the weights, and not of the
    address; `vocabulary` ids; `width` tokens asked for at each position; `key` the bearer token,
    from the environment variable `key_variable`; `in_flight` requests at one time; `attempts` of a
    request; `pause` seconds before the second, doubled from then on; `timeout` seconds of each.
    """

    spec: str
    base: str
    model: str
    fingerprint: str
    vocabulary: int
    width: int
    key: str | None = field(repr=False)
    key_variable: str = KEY_VARIABLE
    in_flight: int = 8
    attempts: int = 6
    pause: float = 1.0
    timeout: float = 600.0

    def lists(
        self, names: Sequence[str], contexts: Sequence[Context], advance: Advance = silent
    ) -> list[TopKLists]:
        """The lists of some contexts at their valid positions, in order.

        Raises InputError, naming server and context, when the server cannot be reached after all
        attempts, refuses, or gives something else than the prompt log-probabilities of the tokens
        that were sent.
        """
        found = []
        with ThreadPoolExecutor(max_workers=self.in_flight) as pool:
            for lists in pool.map(self._ask, names, contexts):  # an error cancels what waits
                found.append(lists)
                advance(1)
        return found

    def _ask(self, name: str, context: Context) -> TopKLists:
        """The lists of one context: one request, its reply checked."""
        where = f"{self.base}, context {name}"
        valid = np.flatnonzero(context.valid)
        tokens = [*context.prompt.tolist(), *context.response[: valid[-1] + 1].tolist()]
        body = {
            "model": self.model,
            "prompt": tokens,
            "prompt_logprobs": self.width,
            "max_tokens": 1,  # several versions refuse 0
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "repetition_penalty": 1.0,
        }
        try:
            reply = _call(self, "/completions", body)
        except _Refused as refusal:
            raise _refused(self, where, refusal) from None
        return packed(
            _entries(reply, tokens, len(context.prompt) + valid, self.width, where),
            vocabulary=self.vocabulary,
            least=self.width,
            width=self.width,
            place=lambda row: f"{where}, position {valid[row]}",
            fix=_longer(self.width),
        )


def open_server(
    spec: str,
    *,
    vocabulary: int,
    top_k: int,
    key_variable: str = KEY_VARIABLE,
    known: str | None = None,
    in_flight: int = 8,
    attempts: int = 6,
    pause: float = 1.0,
    timeout: float = 600.0,
) -> Server:
    """Finds the model at `http(s)://host:port/v1#model`; `#model` may be left out where one serves.

    With its fingerprint `known`, from a run that holds all of its lists, nobody is asked.
    Raises InputError when the address is of another form, nobody answers there, the key is refused,
    or the model is not among those that the server names.
    """
    base, _, model = spec.partition("#")
    base = base.rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise InputError(
            where="--teacher",
            expected="a server as http://host:port/v1#model, without a password in it",
            got=repr(spec.replace(parts.netloc, parts.netloc.rpartition("@")[2])),
            fix=f"write the address so, and the server's key into {key_variable}",
        )
    server = Server(
        spec=spec,
        base=base,
        model=model,
        fingerprint=known or "",
        vocabulary=vocabulary,
        width=top_k,
        key=os.environ.get(key_variable) or None,
        key_variable=key_variable,
        in_flight=in_flight,
        attempts=attempts,
        pause=pause,
        timeout=timeout,
    )
    return server if known else _identified(server)


class _Refused(Exception):
    """A status other than 200, after all attempts where it is one that passes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def _call(
    server: Server, path: str, body: dict[str, Any] | None = None, *, attempts: int | None = None
) -> Any:
    """The JSON of a reply to a GET, or to a POST of `body`, tried again while the fault may pass.

    Raises _Refused for a status other than 200, InputError where nobody answers or no JSON comes.
    """
    headers = {"Content-Type": "application/json"}
    if server.key is not None:
        headers["Authorization"] = f"Bearer {server.key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.base + path, data=data, headers=headers)
    left, pause = attempts or server.attempts, server.pause
    while True:
        left -= 1
        try:
            with _OPENER.open(request, timeout=server.timeout) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                refusal = _Refused(error.code, _message(error.read()))
                asked = error.headers.get("Retry-After", "")
            if left == 0 or error.code not in BUSY:
                raise refusal from None
            pause = float(asked) if asked.isdigit() else pause
        except (OSError, http.client.HTTPException) as error:
            if left == 0:
                raise _unreachable(server, error) from error
        except ValueError as error:
            raise _malformed(f"{server.base}{path}", error) from error
        time.sleep(min(pause, LONGEST_WAIT))
        pause *= 2


def _identified(server: Server) -> Server:
    """The server with its model's name and fingerprint, from the models that it says it serves.

    A server that names none is taken at the user's word.
    """
    served: dict[str, str] = {}
    try:
        reply = _call(server, "/models", attempts=1)
    except _Refused as refusal:
        if refusal.status not in (404, 405, 501):
            raise _refused(server, server.base, refusal) from None
    else:
        try:
            served = {str(item["id"]): str(item.get("root", "")) for item in reply["data"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise _malformed(f"{server.base}/models", error) from error
    model = server.model or (next(iter(served)) if len(served) == 1 else "")
    if not model or (served and model not in served):
        raise InputError(
            where=server.base,
            expected=f"a model after #, among {', '.join(served)}" if served else "a model after #",
            got=repr(model) if model else "none",
            fix="write --teacher http://host:port/v1#model",
        )
    fingerprint = sha256_text(json.dumps(["server", model, served.get(model, "")]))
    return replace(server, model=model, fingerprint=fingerprint)


def _entries(
    reply: Any, tokens: Sequence[int], places: NDArray[np.int64], width: int, where: str
) -> Entries:
    """The lists at some places of the tokens that were sent, cut to the `width` most probable.

    Raises InputError for a reply that has none, or has them of other tokens.
    """
    try:
        found = reply["choices"][0].get("prompt_logprobs")
        if found is None:
            raise _none_given(where)
        _require_same_tokens(found, tokens, where)
        rows = [_row(found[place], int(place), width, where) for place in places]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(where, error) from error
    return Entries(
        ids=np.array([i for row in rows for i, _ in row], dtype=np.int64),
        logprob=np.array([value for row in rows for _, value in row], dtype=np.float64),
        sizes=np.array([len(row) for row in rows], dtype=np.int64),
    )


def _row(entry: Any, place: int, width: int, where: str) -> list[tuple[int, float]]:
    """(id, log-probability) of the most probable; what is none comes first, to be refused later."""
    if entry is None:
        raise InputError(
            where=where,
            expected=f"prompt_logprobs at token {place} of the prompt",
            got="null",
            fix="start the server with --no-enable-prefix-caching",
        )
    pairs = [(int(token), float(item["logprob"])) for token, item in entry.items()]
    return sorted(pairs, key=lambda p: (-p[1] if p[1] <= 0 else -math.inf, p[0]))[:width]


def _require_same_tokens(found: Any, tokens: Sequence[int], where: str) -> None:
    """Every list but the first, which is null, holds the token that was sent."""
    if len(found) != len(tokens):
        raise InputError(
            where=where,
            expected=f"prompt_logprobs of the {len(tokens)} tokens that were sent",
            got=f"of {len(found)}",
            fix="use a server that takes token ids as they are and cuts none",
        )
    for place, (entry, token) in enumerate(zip(found, tokens, strict=True)):
        if entry is not None and str(token) not in entry:
            raise InputError(
                where=where,
                expected=f"prompt_logprobs of token {token}, sent at place {place}",
                got="a list without it",
                fix="use a server that takes token ids as they are, with the student's tokenizer",
            )


def _message(body: bytes) -> str:
    """What a server says of a refusal, in one line of at most 200 characters."""
    text = body.decode(errors="replace")
    try:
        value = json.loads(text)
        value = value.get("error", value)
        found = value if isinstance(value, str) else value.get("message") or value["detail"]
    except (ValueError, KeyError, AttributeError):  # no JSON, or another form: as it came
        found = text
    return " ".join(str(found).split())[:200] or "no message"


def _longer(width: int) -> str:
    return (
        f"start the server with --max-logprobs {width} or more (vLLM's default is 20), "
        "or rescore with a smaller --top-k"
    )


def _refused(server: Server, where: str, refusal: _Refused) -> InputError:
    """A refusal as an InputError that says what to do about it."""
    expected, fix = "an answer", "see the server's log, then run the same command again"
    if refusal.status in (401, 403):
        expected = "a key that the server takes"
        fix = f"put it into the environment variable {server.key_variable}"
    elif refusal.status in (400, 422) and "logprobs" in str(refusal):
        expected, fix = f"lists of {server.width} tokens", _longer(server.width)
    elif refusal.status == 404:
        expected = "an address that takes POST /completions"
        fix = "write the address up to /v1, as http://host:port/v1#model"
    return InputError(where=where, expected=expected, got=str(refusal), fix=fix)


def _unreachable(server: Server, error: Exception) -> InputError:
    reason = getattr(error, "reason", None) or error
    return InputError(
        where=server.base,
        expected="a server that answers",
        got=" ".join(str(reason).split()) or type(reason).__name__,
        fix="start it or check the address, then run the same command again",
    )


def _none_given(where: str) -> InputError:
    return InputError(
        where=where,
        expected="prompt_logprobs in the reply to /completions",
        got="none",
        fix="use a server that gives them (vLLM does; OpenAI's, SGLang's and llama.cpp's do not), "
        "or write the lists to a file and give --teacher topk:FILE.parquet",
    )


def _malformed(where: str, error: Exception) -> InputError:
    return InputError(
        where=where,
        expected="a reply of OpenAI's completions API, with vLLM's prompt_logprobs",
        got=f"another form ({type(error).__name__})",
        fix="check the address and the server's version",
    )
