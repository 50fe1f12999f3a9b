"""Rescorings in processes of their own that cost 0.1 s to begin: for killing, and side by side.

A forkserver imports torch once and forks from there. The doubles are those of the whole suite.
"""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

import diagnostics
from diagnostics.bank.contexts import Rollout, read_bank
from diagnostics.errors import InputError
from diagnostics.files import write_parquet
from diagnostics.scoring import worker
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import open_run
from diagnostics.scoring.task import Settings
from diagnostics.statistics.tables.token_files import to_arrow
from diagnostics.statistics.tables.tokens import token_table

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["diagnostics.scoring.rescore", "diagnostics.statistics.tables.tokens"]
)
SETTINGS = {"top_k": 4, "part_contexts": 1}  # seven contexts: seven parts of each model


def begin(task: Mapping[str, Any], out: Path, **options: Any) -> BaseProcess:
    """A process that scores `task` (bank, teacher, student, checkpoints) into `out`.

    Options: see `work`.
    """
    process = FORKS.Process(target=work, args=(dict(task), out, options), daemon=True)
    process.start()
    return process


def complete(task: Mapping[str, Any], out: Path, **options: Any) -> None:
    """Scores in a process that must end well."""
    process = begin(task, out, **options)
    process.join(300)
    assert process.exitcode == 0


def tokens(out: Path, file: Path) -> bytes:
    """The token table of a run as `diagnostics tokens` writes it."""
    run = open_run(out)
    write_parquet(file, to_arrow(token_table(run, 4), run, 4))
    return file.read_bytes()


def same_table(out: Path, whole: Path, folder: Path) -> bool:
    """Whether two runs give the same token table, byte by byte."""
    return tokens(out, folder / "mine.parquet") == tokens(whole, folder / "whole.parquet")


def parts_of(out: Path) -> dict[str, bytes]:
    """Every whole file of a run but the manifest, by its place."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and path.name != "manifest.json"
        and ".locks" not in path.parts
        and not path.name.endswith(".partial")
        and not path.name.startswith(".tmp")  # what safetensors was writing when it was killed
    }


def scored_twice(log: Path) -> list[str]:
    """Parts of models that more than one call scored, by the log of `begin(..., log=)`."""
    scored = [line.rsplit(" ", 1)[0] for line in log.read_text().splitlines()]
    return sorted({part for part in scored if scored.count(part) > 1})


def shares(log: Path) -> dict[str, int]:
    """How many parts each rank scored."""
    return dict(Counter(line.rsplit(" ", 1)[1] for line in log.read_text().splitlines()))


def work(task: dict[str, Any], out: Path, options: dict[str, Any]) -> None:
    """Scores. Exit status 0, or 1 with the InputError's message in `said`.

    `environ` sets variables; `dies` is killed when it is about to score its part of that number;
    `log` is a file that gets `model part rank` for each part scored; `slow` seconds are added to
    each part; `locks` False has a file system without locks; `largest` is the longest file in bytes
    that may be written; `settings` change those above.
    """
    torch.set_num_threads(1)
    os.environ.update(options.get("environ", {}))
    if not options.get("locks", True):
        _without_locks()
    if "largest" in options:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["largest"], resource.RLIM_INFINITY))
    if "dies" in options:
        before_part(options["dies"], lambda: os.kill(os.getpid(), signal.SIGKILL))
    _watch(options.get("log"), options.get("slow", 0.0))
    settings = Settings(**(SETTINGS | options.get("settings", {})))
    task["bank"] = read_bank(Path(task["bank"]))
    try:
        rescore(**task, out=out, settings=settings, name="run")
    except InputError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        options["said"].write_text(str(error))
        sys.exit(1)


def environment() -> dict[str, str]:
    """This process's, with this checkout and the doubles on the path."""
    paths = [str(Path(diagnostics.__file__).parents[1]), *map(str, Path(__file__).parents[:2])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def renamed(one: Rollout, prompt_id: str) -> Rollout:
    """The same rollout of another prompt."""
    return replace(one, prompt_id=prompt_id)


def before_part(number: int, act: Callable[[], None]) -> None:
    """Does something when this process is about to score its part of that number, from 1."""
    original, calls = worker.Worker.score, []

    def counted(self: worker.Worker, *options: Any) -> None:
        calls.append(self)
        if len(calls) == number:
            act()
        original(self, *options)

    worker.Worker.score = counted


def _without_locks() -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = refuse


def _watch(log: Path | None, slow: float) -> None:
    original = worker.Worker.score

    def noted(self: worker.Worker, part: int, *options: Any) -> None:
        original(self, part, *options)
        if log is not None:
            with log.open("a") as stream:
                stream.write(f"{self.job.name} {part} {os.environ.get('RANK', '0')}\n")
        time.sleep(slow)

    worker.Worker.score = noted
