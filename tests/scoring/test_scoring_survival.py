"""A run survives kills, a full disk, a lost device and too little memory: nothing whole is lost.

The truth is a run that nothing happened to. Its token table is compared byte by byte. Everything
runs on one thread, since another number of threads adds in another order.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from doubles import random_model
from processes import parts_of, same_table
from torch import Tensor

from diagnostics.bank.contexts import read_bank
from diagnostics.errors import InputError
from diagnostics.scoring.hidden import hidden_states
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import Run, head_file, hidden_file, open_run, part_file
from diagnostics.scoring.task import Settings
from diagnostics.scoring.worker import Worker

SETTINGS = Settings(top_k=4, part_contexts=3)  # three parts, where this process scores
KILLS = 30
GOLDEN = (5**0.5 - 1) / 2  # its multiples, less their whole parts, fill (0, 1) evenly


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def three(task: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to, in three parts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("three") / "run"
    score(task, out)
    torch.set_num_threads(before)
    return out


def score(task: dict[str, Any], out: Path, **changes: Any) -> Run:
    """Scores in this process."""
    options = {**task, "bank": read_bank(Path(task["bank"])), "settings": SETTINGS, **changes}
    return rescore(**options, out=out, name="run")


def killed_after(seconds: float, task: dict[str, Any], out: Path) -> bool:
    """Whether the process was still at work when the signal came."""
    process = processes.begin(task, out)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode != 0


@pytest.mark.slow
def test_kill_at_any_moment_then_the_same_command_gives_the_same_bytes(
    task: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """Moments spread over the whole time that a run takes, which a loaded machine stretches: a kill
    that came too late says that less is enough, and another one is tried."""
    processes.complete(task, tmp_path / "first")  # the forkserver imports torch
    start = time.monotonic()
    processes.complete(task, tmp_path / "timed")
    takes = time.monotonic() - start
    reference, tries, killed, torn = parts_of(whole), 0, 0, 0
    while killed < KILLS:
        out = tmp_path / f"run{tries}"
        tries += 1
        if not killed_after(takes * (tries * GOLDEN % 1), task, out):
            takes *= 0.9
            continue
        killed += 1
        torn += any(out.rglob("*.partial"))
        found = parts_of(out)
        assert all(reference[name] == content for name, content in found.items())
        processes.complete(task, out)
        assert same_table(out, whole, tmp_path)
        assert parts_of(out) == reference
    print(f"\n{killed} of {tries} kills met a process at work, {torn} inside a write")


@pytest.mark.slow
def test_run_that_is_killed_again_and_again_still_ends(
    task: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    out, kills = tmp_path / "run", 0
    while killed_after(0.25 + 0.02 * kills, task, out):
        kills += 1
    print(f"\n{kills} kills of one run")
    assert kills >= 3
    assert same_table(out, whole, tmp_path)
    assert parts_of(out) == parts_of(whole)


@pytest.mark.parametrize("file", ["manifest.json", "contexts.parquet", "checkpoints/step1.json"])
def test_kill_while_the_run_is_made_leaves_a_folder_that_the_same_command_takes(
    task: dict[str, Any], three: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies where `file` would get its name."""
    out, rename = tmp_path / "run", Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target) == out / file:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            score(task, out)
    assert not (out / file).exists()
    score(task, out)
    assert parts_of(out) == parts_of(three)


def fails_to_write(task: dict[str, Any], out: Path, largest: int, said: Path) -> str:
    process = processes.begin(task, out, largest=largest, said=said)
    process.join(300)
    assert process.exitcode == 1
    return said.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["head", "hidden", "scores", "manifest"])
def test_full_disk_is_one_line_and_the_same_command_completes(
    task: dict[str, Any], whole: Path, kind: str, tmp_path: Path
) -> None:
    """The largest file that may be written is one byte smaller than the file of `kind`."""
    file = {
        "head": head_file(whole),
        "hidden": max((whole / "hidden").glob("0*"), key=lambda path: path.stat().st_size),
        "scores": max((whole / "scores").rglob("*.parquet"), key=lambda p: p.stat().st_size),
        "manifest": whole / "manifest.json",
    }[kind]
    out = tmp_path / "run"
    made = ["manifest.json", "contexts.parquet", "vocabulary.parquet"]
    there = {  # what is larger is there already
        "manifest": made,
        "hidden": [*made, "hidden/head.safetensors"],
        "scores": [*made, "hidden"],
    }
    for name in there.get(kind, []):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (whole / name).is_dir() else shutil.copyfile
        copy(whole / name, out / name)
    said = fails_to_write(task, out, file.stat().st_size - 1, tmp_path / "said")
    where, _, rest = said.partition(": expected a folder that can be written and has room, got ")
    assert Path(where).suffix == file.suffix
    assert "File too large" in rest
    assert rest.endswith(
        "; free some space or choose another folder; what was written whole stays valid"
    )
    assert "\n" not in said
    assert not list(out.rglob("*.partial"))
    reference = parts_of(whole)
    assert all(reference[name] == content for name, content in parts_of(out).items())
    processes.complete(task, out)
    assert parts_of(out) == reference


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure\nDetails follow."),
        RuntimeError("CUDA error: unspecified launch failure\nDetails follow."),
    ],
)
def test_lost_device_is_one_line_and_keeps_every_part(
    task: dict[str, Any],
    three: Path,
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device goes at the third part of theta_0: the teacher's three and two are kept."""
    out, calls = tmp_path / "run", []
    scored = Worker._compare

    def lost(self: Worker, *options: Any) -> Any:
        calls.append(self.job.name)
        if len(calls) == 3:
            raise error
        return scored(self, *options)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "_compare", lost)
        with pytest.raises(InputError) as caught:
            score(task, out)
    assert str(caught.value) == (
        "cpu: expected a device that works, got CUDA error: unspecified launch failure Details "
        "follow.; run the same command again when it does: every part scored so far is kept"
    )
    kept = parts_of(out)
    assert [hidden_file(out, part).is_file() for part in range(3)] == [True, True, True]
    assert [part_file(out, "theta_0", part).is_file() for part in range(3)] == [True, True, False]
    score(task, out)
    assert kept.items() <= parts_of(out).items()
    assert parts_of(out) == parts_of(three)


def test_too_little_memory_for_a_model_is_one_line(
    task: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")

    monkeypatch.setattr("diagnostics.scoring.rescore.Loader.load", full)
    with pytest.raises(InputError) as caught:
        score(task, tmp_path / "run")
    assert str(caught.value) == (
        "cpu: expected memory for a model, its head and one block of logits, got CUDA out of "
        "memory. Tried to allocate 8.00 GiB.; use a device with more memory, --dtype bfloat16, or "
        "--device-map auto"
    )


def test_other_errors_of_a_model_keep_their_traceback(
    task: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*options: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("diagnostics.scoring.rescore.Loader.load", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        score(task, tmp_path / "run")


def small_memory(monkeypatch: pytest.MonkeyPatch, tokens: int, error: Exception) -> None:
    """Every forward pass over more than so many tokens fails."""
    forward = torch.nn.Embedding.forward

    def limited(self: torch.nn.Embedding, ids: Tensor) -> Tensor:
        if ids.numel() > tokens:
            raise error
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", limited)


MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
)


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_batches_that_do_not_fit_are_halved_and_the_numbers_stay(
    task: dict[str, Any],
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = Settings(top_k=4, part_contexts=7)
    wanted = score(task, tmp_path / "roomy", settings=settings).student("step1")
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patch:
        small_memory(patch, 31, error)
        found = score(task, tmp_path / "tight", settings=settings).student("step1")
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(
        line.endswith("(a smaller --batch-tokens avoids this)") and "do not fit" in line
        for line in lines
    )
    # Another batch shape: float32 rounding of states of size 10 through one or two layers.
    assert np.allclose(found.kl, wanted.kl, rtol=1e-4, atol=2e-6)
    assert np.array_equal(found.top_ids, wanted.top_ids)


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_rollout_that_never_fits_is_refused_with_its_length(
    task: dict[str, Any], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diagnostics.scoring.task import Context

    context = Context(
        prompt=np.arange(6, 12, dtype=np.int32),
        response=np.arange(6, 11, dtype=np.int32),
        valid=np.ones(5, dtype=bool),
    )
    small_memory(monkeypatch, 9, error)
    with pytest.raises(InputError) as caught:
        hidden_states(random_model(2), [context], 8192)
    assert str(caught.value) == (  # 6 tokens of prompt and 4 of response are fed
        "a rollout of 10 tokens: expected memory for one forward pass on cpu, got "
        f"{str(error) or 'MemoryError'}; use a device with more memory, --dtype bfloat16, or "
        "--device-map auto"
    )


def test_other_part_size_is_refused_even_where_the_number_of_parts_is_the_same(
    task: dict[str, Any], tmp_path: Path
) -> None:
    """Seven contexts make two parts of 4 and 3, or of 5 and 2."""
    out = tmp_path / "run"
    score(task, out, settings=Settings(top_k=4, part_contexts=4), checkpoints={})
    with pytest.raises(InputError) as caught:
        score(task, out, settings=Settings(top_k=4, part_contexts=5))
    kernel = open_run(out).manifest["settings"]["kernel"]
    shared = f"'top_k': 4, 'dtype': 'float32', 'kernel': '{kernel}', 'part_contexts'"
    assert str(caught.value) == (
        f"{out}: expected a run of the same settings ({{{shared}: 5}}), got a run of "
        f"{{{shared}: 4}}; choose another --out (or another checkpoint name)"
    )
