"""Whole runs whose teacher is known by its lists, beside runs of the same teacher's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doubles import ROLLOUTS, VOCABULARY, slow_kl, slow_logprobs, slow_model, slow_top
from prompt_server import MODEL, PromptServer, serving

from diagnostics.bank.contexts import Bank, read_bank
from diagnostics.errors import InputError
from diagnostics.files import sha256_file
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import Run
from diagnostics.scoring.server import open_server
from diagnostics.scoring.task import Settings
from diagnostics.statistics.tables.token_files import to_arrow
from diagnostics.statistics.tables.tokens import token_table

FLOAT32 = 2e-6  # hidden states, logits and log-probabilities in float32, a few nats
K = 6


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


@pytest.fixture(scope="module")
def shared(teacher: str) -> Iterator[PromptServer]:
    with serving(teacher) as double:
        yield double


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(shared: PromptServer) -> PromptServer:
    shared.reset()
    return shared


def write_lists(path: Path, model: str, width: int) -> str:
    """The teacher's lists of the bank as a file, each context with the prompt it reads."""
    network, rows = slow_model(model), []
    for name, one in zip(names_of(ROLLOUTS), ROLLOUTS, strict=True):
        prompt = one.teacher_prompt_ids or one.prompt_ids
        truth = slow_logprobs(network, prompt, one.response_ids).tolist()
        for position, valid in enumerate(one.loss_mask):
            if valid:
                ids = slow_top(truth[position], width)
                logprobs = [truth[position][i] for i in ids]
                rows.append((name, position, ids, logprobs))
    columns = ("context_id", "position", "token_ids", "logprobs")
    pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), path)
    return f"topk:{path}"


def names_of(rollouts: Any) -> list[str]:
    from diagnostics.bank.contexts import Rollout, context_id

    return [context_id({n: getattr(r, n) for n in Rollout.__slots__}) for r in rollouts]


@pytest.fixture(scope="module")
def lists(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    folder = tmp_path_factory.mktemp("lists")

    def written(width: int) -> str:
        path = folder / f"{width}.parquet"
        return f"topk:{path}" if path.is_file() else write_lists(path, teacher, width)

    return written


@pytest.fixture(scope="module")
def score(bank: Bank, student: str, checkpoint: str) -> Callable[..., Run]:
    def scored(out: Path, teacher: str, k: int = K, **changes: Any) -> Run:
        options = {"checkpoints": {"step1": checkpoint}, "name": "run"} | changes
        settings = Settings(top_k=k, part_contexts=3, **options.pop("settings", {}))
        return rescore(bank, teacher, student, out=out, settings=settings, **options)

    return scored


@pytest.fixture(scope="module")
def known(score: Callable[..., Run], teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same teacher by its weights."""
    return score(tmp_path_factory.mktemp("known") / "run", teacher)


@pytest.fixture(scope="module")
def listed(
    score: Callable[..., Run],
    lists: Callable[[int], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """The teacher by lists of 10 tokens, in a run of K = 6."""
    return score(tmp_path_factory.mktemp("listed") / "run", lists(10))


def table(run: Run, k: int) -> pd.DataFrame:
    return token_table(run, k)


def scores(folder: Path) -> dict[str, str]:
    files = sorted((folder / "scores").rglob("*.parquet"))
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def true_kl(teacher: str, student: str) -> list[float]:
    """KL(p_T || p) at every valid position, the teacher with its own prompt."""
    t, s = slow_model(teacher), slow_model(student)
    found = []
    for one in ROLLOUTS:
        wide = slow_logprobs(t, one.teacher_prompt_ids or one.prompt_ids, one.response_ids)
        own = slow_logprobs(s, one.prompt_ids, one.response_ids)
        found += [slow_kl(wide[i], own[i]) for i, valid in enumerate(one.loss_mask) if valid]
    return found


def test_true_kl_lies_between_the_bounds_before_and_after(
    listed: Run, teacher: str, student: str, checkpoint: str
) -> None:
    found = table(listed, K)
    for model, low, high in (
        (student, "kl_0_lower", "kl_0_upper"),
        (checkpoint, "kl_lower", "kl_upper"),
    ):
        truth = np.array(true_kl(teacher, model))
        assert (found[low] <= truth + FLOAT32).all()
        assert (truth <= found[high] + FLOAT32).all()
        assert (found[high] - found[low]).mean() < truth.mean()


@pytest.mark.parametrize("column", ["kl_0", "kl"])
def test_lists_of_the_whole_vocabulary_give_kl_and_c_themselves(
    score: Callable[..., Run],
    lists: Callable[[int], str],
    known: Run,
    tmp_path: Path,
    column: str,
) -> None:
    whole = table(score(tmp_path / "whole", lists(VOCABULARY)), K)
    expected = table(known, K)
    for name in (f"{column}_lower", f"{column}_upper"):
        np.testing.assert_allclose(whole[name], expected[column], rtol=0, atol=FLOAT32)
    upper = whole["compatibility_upper"]
    np.testing.assert_allclose(upper, expected["compatibility"], rtol=0, atol=FLOAT32)
    for name in ("disagreement", "bc_union"):
        np.testing.assert_allclose(whole[name], expected[name], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("k", [1, 4, K])
def test_what_lists_tell_equals_the_run_of_the_weights(listed: Run, known: Run, k: int) -> None:
    found, expected = table(listed, k), table(known, k)
    same = ("context_id", "prompt_id", "position", "token_id", "relative_position")
    for name in same:
        assert found[name].tolist() == expected[name].tolist(), name
    near = ("entropy", "compatibility_lower", "overlap", "jaccard", "shared_teacher_mass")
    for name in (*near, "entropy_norm"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5, err_msg=name)
    truth = expected["compatibility"]
    assert (found["compatibility_lower"] <= truth + FLOAT32).all()
    assert (truth <= found["compatibility_upper"] + FLOAT32).all()


def test_a_server_gives_the_run_that_a_file_gives(
    score: Callable[..., Run], lists: Callable[[int], str], server: PromptServer, tmp_path: Path
) -> None:
    asked = score(tmp_path / "asked", f"{server.address}#{MODEL}")
    read = score(tmp_path / "read", lists(K))
    files = []
    for run in (asked, read):
        pq.write_table(to_arrow(table(run, K), run, K), run.folder / "tokens.parquet")
        files.append((run.folder / "tokens.parquet").read_bytes())
    assert files[0] == files[1]
    assert scores(asked.folder) == scores(read.folder)


def test_the_manifest_says_what_kind_of_teacher_it_is(listed: Run, lists: Any, known: Run) -> None:
    path = Path(lists(10).removeprefix("topk:"))
    assert listed.manifest["teacher"] == {
        "model": f"topk:{path}",
        "fingerprint": sha256_file(path),
        "kind": "top_k",
    }
    assert listed.manifest["settings"]["kernel"] == "plain"  # the only one beside lists
    assert listed.listed
    assert not known.listed
    assert listed.manifest["parts_done"] == {"teacher": 3, "theta_0": 3, "step1": 3}


def test_such_a_run_has_no_kl_no_hidden_states_and_no_noise(listed: Run) -> None:
    assert not (listed.folder / "hidden").exists()
    assert listed.noise_kinds == []
    for name in ("theta_0", "step1"):
        (first, *_) = sorted((listed.folder / "scores" / name).glob("*.parquet"))
        columns = set(pq.read_schema(first).names)
        assert not columns & {"kl", "reverse_kl", "gain"}


def test_nothing_is_asked_twice(
    score: Callable[..., Run],
    bank: Bank,
    server: PromptServer,
    student: str,
    tmp_path: Path,
) -> None:
    address = f"{server.address}#{MODEL}"
    score(tmp_path / "run", address, checkpoints={})
    assert len(server.requests) == len(bank)
    server.models = (503, b"gone")  # a checkpoint added later needs no server
    run = score(tmp_path / "run", address)
    assert len(server.requests) == len(bank)
    assert run.checkpoints == ["step1"]
    with pytest.raises(InputError) as caught:
        score(tmp_path / "run", "http://127.0.0.1:9/v1#another")
    assert str(caught.value).startswith("http://127.0.0.1:9/v1: expected a server that answers, ")


def test_the_address_may_change_and_the_model_may_not(
    score: Callable[..., Run], server: PromptServer, teacher: str, tmp_path: Path
) -> None:
    score(tmp_path / "run", f"{server.address}#{MODEL}", checkpoints={})
    (tmp_path / "run" / "scores" / "teacher" / "00001.parquet").unlink()
    with serving(teacher) as other:
        score(tmp_path / "run", f"{other.address}#{MODEL}")
        assert len(other.requests) == 3
        (tmp_path / "run" / "scores" / "teacher" / "00001.parquet").unlink()
        other.models = (200, {"data": [{"id": MODEL, "root": "/weights/another"}]})
        with pytest.raises(InputError) as caught:
            score(tmp_path / "run", f"{other.address}#{MODEL}")
        here, there = (
            open_server(one.address, vocabulary=VOCABULARY, top_k=K).fingerprint[:12]
            for one in (other, server)
        )
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: expected a run of the same teacher.fingerprint ({here}), "
        f"got a run of {there}; choose another --out (or another checkpoint name)"
    )


def test_lists_that_came_are_kept_when_the_server_fails(
    score: Callable[..., Run], bank: Bank, server: PromptServer, tmp_path: Path
) -> None:
    address, whole = f"{server.address}#{MODEL}", score(tmp_path / "whole", f"{server.address}")
    server.reset()

    def failing(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        if len(server.requests) > 4:
            reply["choices"][0]["prompt_logprobs"] = None
        return reply

    server.change = failing
    with pytest.raises(InputError) as caught:
        score(tmp_path / "run", address)
    first = bank.strings("context_id")[3:6]  # of the second part, whichever came too late
    assert str(caught.value) in [
        f"{server.address}, context {name}: expected prompt_logprobs in the reply to /completions, "
        "got none; use a server that gives them (vLLM does; OpenAI's, SGLang's and llama.cpp's do "
        "not), or write the lists to a file and give --teacher topk:FILE.parquet"
        for name in first
    ]
    kept = sorted((tmp_path / "run" / "scores" / "teacher").iterdir())
    assert [path.name for path in kept] == ["00000.parquet"]
    server.reset()
    run = score(tmp_path / "run", address)
    assert len(server.requests) == len(bank) - 3
    assert scores(run.folder) == scores(whole.folder)


def test_another_list_file_is_another_run(
    score: Callable[..., Run], lists: Callable[[int], str], tmp_path: Path
) -> None:
    score(tmp_path / "run", lists(7))
    with pytest.raises(InputError) as caught:
        score(tmp_path / "run", lists(8))
    here, there = (sha256_file(Path(lists(w).removeprefix("topk:")))[:12] for w in (8, 7))
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: expected a run of the same teacher.fingerprint ({here}), "
        f"got a run of {there}; choose another --out (or another checkpoint name)"
    )


def test_support_beyond_the_lists_is_refused_before_scoring(
    score: Callable[..., Run], lists: Callable[[int], str], bank: Bank, tmp_path: Path
) -> None:
    spec = lists(7)
    with pytest.raises(InputError) as caught:
        score(tmp_path / "run", spec, k=8)
    name = bank.strings("context_id")[0]
    assert str(caught.value) == (
        f"{spec.removeprefix('topk:')}, context {name}, position 0: expected a list of at least 8 "
        "tokens (--top-k), got 7; rescore with a smaller --top-k, or write longer lists"
    )
    assert not (tmp_path / "run").exists()


def test_a_noise_floor_in_another_dtype_is_refused(
    score: Callable[..., Run], lists: Callable[[int], str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        score(tmp_path / "run", lists(7), settings={"noise_dtypes": ("bfloat16",)})
    assert str(caught.value) == (
        "--noise-dtype: expected a teacher whose whole distribution is known: the noise floor is "
        f"of gain, got {lists(7)}; leave the option out"
    )


def test_a_student_that_gives_nan_is_named_with_its_context(
    score: Callable[..., Run],
    lists: Callable[[int], str],
    bank: Bank,
    broken: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError) as caught:
        score(tmp_path / "run", lists(7), checkpoints={"bad": broken})
    assert str(caught.value) == (
        f"bad, context {bank.strings('context_id')[4]}: expected finite model output, got NaN or "
        "infinity; score in float32 (--dtype float32), or check the checkpoint's weights"
    )


def test_the_commands_take_lists_and_the_report_names_what_to_do(
    command: Callable[..., Any],
    lists: Callable[[int], str],
    bank_file: Path,
    student: str,
    checkpoint: str,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    words = ("rescore", bank_file, "--teacher", lists(7), "--student", student, "--out", out)
    rest = ("--checkpoint", f"step1={checkpoint}", "--top-k", 5, "--api-key-env", "NO_KEY")
    status, _, errors = command(*words, *rest)
    assert (status, errors) == (0, "")
    status, _, errors = command("tokens", out, "--top-k", 4, "--out", tmp_path / "t.parquet")
    assert (status, errors) == (0, "")
    assert pq.read_table(tmp_path / "t.parquet")["gain"].null_count == 31  # every position
    status, _, errors = command("report", out, "--top-k", 4, "--out", tmp_path / "report")
    assert status == 1
    assert errors == (
        f"diagnostics: {out}: expected a teacher whose whole distribution is known: gain needs "
        f"KL, got one known by its top-k lists alone ({lists(7)}); score the bank with the "
        "teacher's weights; `diagnostics tokens` gives D, C-hat and the bounds of this run\n"
    )


def test_the_command_sends_the_key_of_the_variable_that_it_is_given(
    command: Callable[..., Any],
    server: PromptServer,
    bank_file: Path,
    student: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.key = "secret"
    monkeypatch.setenv("MY_KEY", "secret")
    words = ("rescore", bank_file, "--teacher", server.address, "--student", student, "--top-k", 5)
    status, _, errors = command(*words, "--out", tmp_path / "run", "--api-key-env", "MY_KEY")
    assert (status, errors) == (0, "")
    written = "".join(p.read_text() for p in (tmp_path / "run").rglob("*.json"))
    assert "secret" not in written


def test_a_server_that_is_not_there_is_one_line(
    command: Callable[..., Any], bank_file: Path, student: str, tmp_path: Path
) -> None:
    words = ("--student", student, "--out", tmp_path / "run", "--top-k", 5)
    status, _, errors = command(
        "rescore", bank_file, "--teacher", "http://127.0.0.1:9/v1#m", *words
    )
    assert status == 1
    assert errors.startswith("diagnostics: http://127.0.0.1:9/v1: expected a server that answers, ")
    assert errors.count("\n") == 1
