"""Lists from a server that answers as vLLM does, and every way in which one can fail."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import VOCABULARY, slow_logprobs, slow_model, slow_top
from prompt_server import MODEL, Change, PromptServer, serving

from diagnostics.bank.contexts import Bank, read_bank
from diagnostics.errors import InputError
from diagnostics.scoring.hidden import Context
from diagnostics.scoring.listed import is_listed, open_listed
from diagnostics.scoring.lists import ListFile
from diagnostics.scoring.server import Server, open_server

STORED = 2e-6  # a float32 of a few nats
K = 6
LONGER = (
    f"start the server with --max-logprobs {K} or more (vLLM's default is 20), "
    "or rescore with a smaller --top-k"
)


@pytest.fixture(scope="module")
def shared(teacher: str) -> Iterator[PromptServer]:
    with serving(teacher) as double:
        yield double


@pytest.fixture
def server(shared: PromptServer, monkeypatch: pytest.MonkeyPatch) -> PromptServer:
    """The running server as it is at first; no key in the environment, no proxy on the way."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shared.reset()
    return shared


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


def as_teacher_reads(bank: Bank) -> tuple[list[str], list[Context]]:
    """Names and contexts, with the teacher's own prompt where there is one."""
    columns = zip(
        bank.ids("prompt_ids"),
        bank.ids("teacher_prompt_ids"),
        bank.ids("response_ids"),
        bank.masks(),
        strict=True,
    )
    contexts = [
        Context(prompt=own if own.size else prompt, response=response, valid=valid)
        for prompt, own, response, valid in columns
    ]
    return bank.strings("context_id"), contexts


def opened(server: PromptServer, **settings: Any) -> Server:
    options: dict[str, Any] = {"vocabulary": VOCABULARY, "top_k": K, "attempts": 3, "pause": 0.001}
    return open_server(f"{server.address}#{MODEL}", **(options | settings))


def failure(server: PromptServer, bank: Bank, **settings: Any) -> str:
    """The message of asking for the lists of the second context."""
    names, contexts = as_teacher_reads(bank)
    with pytest.raises(InputError) as caught:
        opened(server, **settings).lists(names[1:2], contexts[1:2])
    return str(caught.value)


def where(server: PromptServer, bank: Bank) -> str:
    return f"{server.address}, context {bank.strings('context_id')[1]}"


@pytest.mark.parametrize("in_flight", [1, 4])
def test_lists_are_the_teachers_own_at_every_valid_position(
    server: PromptServer, bank: Bank, teacher: str, in_flight: int
) -> None:
    names, contexts = as_teacher_reads(bank)
    done: list[int] = []
    found = opened(server, in_flight=in_flight).lists(names, contexts, done.append)
    assert sum(done) == len(bank)
    model = slow_model(teacher)
    for context, lists in zip(contexts, found, strict=True):
        rows = slow_logprobs(model, context.prompt.tolist(), context.response.tolist())
        for row, position in enumerate(np.flatnonzero(context.valid)):
            truth = rows[position].tolist()
            assert lists.ids[row].tolist() == slow_top(truth, K)
            expected = [truth[i] for i in lists.ids[row]]
            np.testing.assert_allclose(lists.logprob[row], expected, rtol=0, atol=STORED)


def test_the_server_gets_the_teachers_own_prompt_and_the_response_to_its_last_valid_token(
    server: PromptServer, bank: Bank
) -> None:
    names, contexts = as_teacher_reads(bank)
    contexts[1] = replace(contexts[1], valid=np.array([True, False, True, True, False, False]))
    found = opened(server, in_flight=1).lists(names[:3], contexts[:3])
    assert [request["prompt"] for request in server.requests] == [
        [6, 7, 8, 9, 10, 11],
        [6, 7, 12, 13, 14, 15],
        [40, 41, 42, 30, 31, 32],
    ]
    assert [len(lists.ids) for lists in found] == [4, 3, 3]


def test_several_requests_are_in_flight(server: PromptServer, bank: Bank) -> None:
    together = threading.Barrier(3, timeout=10)

    def wait(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        together.wait()
        return reply

    server.change = wait
    names, contexts = as_teacher_reads(bank)
    assert len(opened(server, in_flight=3).lists(names[:3], contexts[:3])) == 3
    assert not together.broken


def test_the_most_probable_are_kept_and_equal_ones_by_lower_id(
    server: PromptServer, bank: Bank
) -> None:
    # K + 2 entries at place 4 (response position 2), three of them equal at the cut.
    values = {14: -3.0, 30: -3.0, 50: -1.0, 51: -2.0, 52: -2.5, 7: -2.75, 8: -1.75, 12: -3.0}
    server.change = edit(with_entry(4, {str(i): {"logprob": x} for i, x in values.items()}))
    names, contexts = as_teacher_reads(bank)
    (lists,) = opened(server).lists(names[1:2], contexts[1:2])
    assert lists.ids[1].tolist() == [50, 8, 51, 52, 7, 12]


def test_a_request_asks_for_the_plain_distribution(server: PromptServer, bank: Bank) -> None:
    names, contexts = as_teacher_reads(bank)
    opened(server).lists(names[3:4], contexts[3:4])
    (request,) = server.requests
    assert request == {
        "model": MODEL,
        "prompt": [50, 51],
        "prompt_logprobs": K,
        "max_tokens": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "repetition_penalty": 1.0,
    }


def test_a_file_of_the_same_lists_gives_the_same(
    server: PromptServer, bank: Bank, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, contexts = as_teacher_reads(bank)
    found = opened(server).lists(names, contexts)
    rows = [
        {"context_id": name, "position": int(t), "token_ids": ids, "logprobs": logprobs}
        for name, context, lists in zip(names, contexts, found, strict=True)
        for t, ids, logprobs in zip(
            np.flatnonzero(context.valid), lists.ids.tolist(), lists.logprob.tolist(), strict=True
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "lists.parquet")
    spec = f"topk:{tmp_path / 'lists.parquet'}"
    file = open_listed(spec, bank, vocabulary=VOCABULARY, top_k=K)
    assert isinstance(file, ListFile)
    for one, other in zip(found, file.lists(names, contexts), strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.logprob.tolist() == other.logprob.tolist()


def test_the_forms_of_a_listed_teacher(server: PromptServer, bank: Bank) -> None:
    assert is_listed("topk:lists.parquet")
    assert is_listed("http://localhost:8000/v1#m")
    assert is_listed("https://host/v1#m")
    assert not is_listed("models/teacher")
    assert not is_listed("owner/topk")
    found = open_listed(f"{server.address}#{MODEL}", bank, vocabulary=VOCABULARY, top_k=K)
    assert isinstance(found, Server)
    assert (found.base, found.model, found.width) == (server.address, MODEL, K)


def test_the_model_may_be_left_out_where_one_is_served(server: PromptServer) -> None:
    for spec in (server.address, f"{server.address}/", f"{server.address}#"):
        found = open_server(spec, vocabulary=VOCABULARY, top_k=K)
        assert (found.base, found.model) == (server.address, MODEL)


def test_fingerprint_knows_the_model_and_not_the_address(
    server: PromptServer, teacher: str
) -> None:
    with serving(teacher) as other:
        assert opened(server).fingerprint == opened(other).fingerprint
        other.models = (200, {"data": [{"id": MODEL, "root": "/weights/another"}]})
        assert opened(server).fingerprint != opened(other).fingerprint


def test_a_server_that_names_no_models_is_taken_at_the_users_word(
    server: PromptServer, bank: Bank
) -> None:
    server.models = (404, {"detail": "Not Found"})
    names, contexts = as_teacher_reads(bank)
    assert opened(server).lists(names[:1], contexts[:1])[0].ids.shape == (4, K)


def test_the_key_goes_along_and_stays_out_of_sight(
    server: PromptServer, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    monkeypatch.setenv("MY_KEY", "secret")
    names, contexts = as_teacher_reads(bank)
    found = opened(server, key_variable="MY_KEY")
    assert len(found.lists(names[:2], contexts[:2])) == 2
    assert "secret" not in repr(found)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(server: PromptServer, bank: Bank, status: int) -> None:
    server.first = [(status, b"busy")] * 2
    names, contexts = as_teacher_reads(bank)
    assert len(opened(server).lists(names[:1], contexts[:1])) == 1
    assert len(server.requests) == 3


def test_a_lost_connection_is_tried_again(server: PromptServer, bank: Bank) -> None:
    server.first = [(0, None)] * 2
    names, contexts = as_teacher_reads(bank)
    assert len(opened(server).lists(names[:1], contexts[:1])) == 1


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({}, [0.5, 1.0, 2.0]),
        ({"Retry-After": "7"}, [7.0, 7.0, 7.0]),
        ({"Retry-After": "900"}, [60.0, 60.0, 60.0]),
    ],
)
def test_pauses_double_unless_the_server_names_one(
    server: PromptServer,
    bank: Bank,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    waits: list[float],
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("diagnostics.scoring.server.time.sleep", waited.append)
    server.first, server.headers = [(503, b"busy")] * 3, headers
    names, contexts = as_teacher_reads(bank)
    opened(server, attempts=4, pause=0.5).lists(names[:1], contexts[:1])
    assert waited == waits


def test_a_server_that_stays_busy_is_an_error(server: PromptServer, bank: Bank) -> None:
    server.first = [(503, b"loading")] * 9
    assert failure(server, bank) == (
        f"{where(server, bank)}: expected an answer, got 503: loading; "
        "see the server's log, then run the same command again"
    )
    assert len(server.requests) == 3


def test_a_server_that_does_not_answer_in_time_is_an_error(
    server: PromptServer, bank: Bank
) -> None:
    release = threading.Event()

    def late(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        release.wait(5)
        return reply

    found = opened(server, timeout=0.05, attempts=2)
    server.change = late
    names, contexts = as_teacher_reads(bank)
    with pytest.raises(InputError) as caught:
        found.lists(names[:1], contexts[:1])
    release.set()
    assert str(caught.value) == (
        f"{server.address}: expected a server that answers, got timed out; "
        "start it or check the address, then run the same command again"
    )


def test_nobody_at_the_address_is_said_at_once(
    server: PromptServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diagnostics.scoring.server.time.sleep", pytest.fail)
    with pytest.raises(InputError) as caught:
        open_server("http://127.0.0.1:9/v1#m", vocabulary=VOCABULARY, top_k=K)
    text = str(caught.value)
    assert text.startswith("http://127.0.0.1:9/v1: expected a server that answers, got ")
    assert text.endswith(
        "Connection refused; start it or check the address, then run the same command again"
    )


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("ftp://host/v1#m", "'ftp://host/v1#m'"),
        ("http://#m", "'http://#m'"),
        ("http://me:secret@host/v1#m", "'http://host/v1#m'"),
    ],
)
def test_another_form_of_address_is_refused(spec: str, shown: str) -> None:
    with pytest.raises(InputError) as caught:
        open_server(spec, vocabulary=VOCABULARY, top_k=K)
    assert str(caught.value) == (
        "--teacher: expected a server as http://host:port/v1#model, without a password in it, "
        f"got {shown}; write the address so, and the server's key into OPENAI_API_KEY"
    )


def test_unknown_model_is_refused(server: PromptServer) -> None:
    with pytest.raises(InputError) as caught:
        open_server(f"{server.address}#mistyped", vocabulary=VOCABULARY, top_k=K)
    assert str(caught.value) == (
        f"{server.address}: expected a model after #, among {MODEL}, got 'mistyped'; "
        "write --teacher http://host:port/v1#model"
    )


def test_a_model_must_be_chosen_where_several_are_served(server: PromptServer) -> None:
    server.models = (200, {"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(InputError) as caught:
        open_server(server.address, vocabulary=VOCABULARY, top_k=K)
    assert str(caught.value) == (
        f"{server.address}: expected a model after #, among a, b, got none; "
        "write --teacher http://host:port/v1#model"
    )


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_refused_key_names_its_variable(
    server: PromptServer, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    server.key = "secret"
    if key is not None:
        monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(InputError) as caught:
        opened(server, key_variable="MY_KEY")
    assert str(caught.value) == (
        f"{server.address}: expected a key that the server takes, got 401: Unauthorized; "
        "put it into the environment variable MY_KEY"
    )


def test_the_key_follows_no_redirect(server: PromptServer, teacher: str) -> None:
    with serving(teacher) as elsewhere:
        server.models = (307, b"")
        server.headers = {"Location": f"{elsewhere.address}/models"}
        with pytest.raises(InputError) as caught:
            opened(server)
    assert str(caught.value) == (
        f"{server.address}: expected an answer, got 307: no message; "
        "see the server's log, then run the same command again"
    )


def test_the_servers_ceiling_names_the_flag(server: PromptServer, bank: Bank) -> None:
    server.most = K - 1
    assert failure(server, bank) == (
        f"{where(server, bank)}: expected lists of {K} tokens, got 400: Requested prompt logprobs "
        f"of {K}, which is greater than max allowed: {K - 1}; {LONGER}"
    )


def test_another_refusal_gives_the_servers_words(server: PromptServer, bank: Bank) -> None:
    text = "maximum\ncontext length is 5 " + "and so on " * 50
    server.first = [(400, {"object": "error", "message": text})]
    short = ("maximum context length is 5 " + "and so on " * 50)[:200]
    assert failure(server, bank) == (
        f"{where(server, bank)}: expected an answer, got 400: {short}; "
        "see the server's log, then run the same command again"
    )


def test_an_address_without_completions_is_refused(server: PromptServer, bank: Bank) -> None:
    server.first = [(404, {"detail": "Not Found"})]
    assert failure(server, bank) == (
        f"{where(server, bank)}: expected an address that takes POST /completions, "
        "got 404: Not Found; write the address up to /v1, as http://host:port/v1#model"
    )


def edit(change: Any) -> Change:
    """Rewrites the list of prompt log-probabilities in a reply."""

    def rewritten(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        choice = reply["choices"][0]
        choice["prompt_logprobs"] = change(choice["prompt_logprobs"])
        return reply

    return rewritten


def without(entries: list[Any], place: int, token: int) -> list[Any]:
    del entries[place][str(token)]
    return entries


def with_entry(place: int, entry: Any) -> Any:
    return lambda entries: [*entries[:place], entry, *entries[place + 1 :]]


# The second context: prompt 6, 7; response 12 to 16 and 1; valid positions 0, 2, 3, 5.
ONE = {str(i): {"logprob": -1.5 - i / 10} for i in (14, 1, 2, 3, 4, 5)}
REPLIES = [
    (
        lambda entries: None,
        "prompt_logprobs in the reply to /completions, got none; use a server that gives them "
        "(vLLM does; OpenAI's, SGLang's and llama.cpp's do not), "
        "or write the lists to a file and give --teacher topk:FILE.parquet",
    ),
    (
        lambda entries: entries[:-1],
        "prompt_logprobs of the 8 tokens that were sent, got of 7; "
        "use a server that takes token ids as they are and cuts none",
    ),
    (
        lambda entries: [None, *entries],
        "prompt_logprobs of the 8 tokens that were sent, got of 9; "
        "use a server that takes token ids as they are and cuts none",
    ),
    (
        lambda entries: without(entries, 3, 13),
        "prompt_logprobs of token 13, sent at place 3, got a list without it; "
        "use a server that takes token ids as they are, with the student's tokenizer",
    ),
    (
        with_entry(4, None),
        "prompt_logprobs at token 4 of the prompt, got null; "
        "start the server with --no-enable-prefix-caching",
    ),
    (
        with_entry(4, [1, 2]),
        "prompt_logprobs of token 14, sent at place 4, got a list without it; "
        "use a server that takes token ids as they are, with the student's tokenizer",
    ),
    (
        with_entry(4, ONE | {"14": {"rank": 1}}),
        "a reply of OpenAI's completions API, with vLLM's prompt_logprobs, "
        "got another form (KeyError); check the address and the server's version",
    ),
    (
        with_entry(4, ONE | {"x": {"logprob": -1.0}}),
        "a reply of OpenAI's completions API, with vLLM's prompt_logprobs, "
        "got another form (ValueError); check the address and the server's version",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), REPLIES, ids=range(len(REPLIES)))
def test_a_reply_that_cannot_be_trusted_is_refused(
    server: PromptServer, bank: Bank, change: Any, text: str
) -> None:
    server.change = edit(change)
    assert failure(server, bank) == f"{where(server, bank)}: expected {text}"


# Place 4 is the token of response position 2.
LISTS = [
    (
        {i: x for i, x in ONE.items() if i != "5"},
        f"a list of at least {K} tokens (--top-k), got {K - 1}; {LONGER}",
    ),
    (
        ONE | {"64": {"logprob": -0.5}},
        "token ids from 0 to 63, got 64; use a teacher of the student's tokenizer",
    ),
    (
        ONE | {"40": {"logprob": math.nan}, "41": {"logprob": -0.125}},
        "log-probabilities of at most 0, got nan; write natural logarithms of probabilities",
    ),
    (
        ONE | {"40": {"logprob": 2.5}},
        "log-probabilities of at most 0, got 2.5; write natural logarithms of probabilities",
    ),
]


@pytest.mark.parametrize(("entry", "text"), LISTS, ids=range(len(LISTS)))
def test_a_list_that_is_none_is_refused_with_its_position(
    server: PromptServer, bank: Bank, entry: dict[str, Any], text: str
) -> None:
    server.change = edit(with_entry(4, entry))
    assert failure(server, bank) == f"{where(server, bank)}, position 2: expected {text}"


@pytest.mark.parametrize("reply", [b"<html>", b"\xff\xfe", [], {"choices": []}, {"choices": [1]}])
def test_another_kind_of_reply_is_refused(server: PromptServer, bank: Bank, reply: Any) -> None:
    server.first = [(200, reply)]
    text = failure(server, bank)
    assert text.startswith(server.address)
    assert ": expected a reply of OpenAI's completions API, with vLLM's prompt_logprobs, " in text
    assert text.endswith("; check the address and the server's version")


@pytest.mark.parametrize("reply", [[], {"models": []}, {"data": [{"name": "m"}]}, {"data": 3}])
def test_another_kind_of_model_list_is_refused(server: PromptServer, reply: Any) -> None:
    server.models = (200, reply)
    with pytest.raises(InputError) as caught:
        opened(server)
    assert str(caught.value) == (
        f"{server.address}/models: expected a reply of OpenAI's completions API, with vLLM's "
        f"prompt_logprobs, got another form ({type(caught.value.__cause__).__name__}); "
        "check the address and the server's version"
    )


def test_a_failure_leaves_the_waiting_requests_unasked(server: PromptServer, bank: Bank) -> None:
    server.first = [(400, {"message": "no"})]
    names, contexts = as_teacher_reads(bank)
    with pytest.raises(InputError):
        opened(server, in_flight=1).lists(names, contexts)
    assert len(server.requests) < len(bank)
