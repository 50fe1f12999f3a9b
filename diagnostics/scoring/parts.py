"""Which part of a run is not done, and who works on it.

A part that is on disk is done; files are renamed into place when whole. A process takes a part by
an advisory lock that the system lets go when the process dies, so that ranks, or two commands on
one run, share the work without knowing of each other. Locks save work and nothing else: without
them the same parts are scored twice, to the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCKS = ".locks"


def rank_and_world(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process among those that `torchrun` or `accelerate launch` started, else 0 of 1."""
    return int(environ.get("RANK", "0")), int(environ.get("WORLD_SIZE", "1"))


def unfinished(out: Path, name: str, count: int, done: Callable[[int], bool]) -> Generator[int]:
    """Parts 0 to count - 1 of a job that are not done, each held by this process while it is used.

    First those that nobody holds, this rank's share before the others'; then those that another
    process held, as it finishes or dies. When the iterator ends, every part is done. Close it (or
    run it to its end) to let go of the part it holds.
    """
    rank, world = rank_and_world()
    missing = [part for part in range(count) if not done(part)]
    waiting = sorted(missing, key=lambda part: ((part - rank) % world, part))
    for timeout in (0, -1):  # -1: wait for as long as the other process holds it
        for part in list(waiting):
            try:
                with _held(out / LOCKS / f"{name}-{part:05d}", timeout):
                    if not done(part):
                        yield part
            except Timeout:
                continue
            waiting.remove(part)


@contextmanager
def manifest_lock(out: Path) -> Iterator[None]:
    """Alone with a run's manifest, for as long as the block takes."""
    out.mkdir(parents=True, exist_ok=True)
    with _held(out / ".lock", -1):
        yield


def clear_locks(out: Path) -> None:
    """Removes the files of locks; a process that holds one goes on."""
    shutil.rmtree(out / LOCKS, ignore_errors=True)


@contextmanager
def _held(path: Path, timeout: float) -> Iterator[None]:
    """Holds a lock. Raises Timeout when another process has it; file systems without locks pass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except (NotImplementedError, PermissionError):
        yield
        return
    try:
        yield
    finally:
        lock.release()
