"""Which part of a run is not done, and who works on it.

A part that is on disk is done; files are renamed into place when whole. A process takes a part by
an advisory lock that the system lets go when the process dies, so that ranks, or two commands on
one run, share the work without knowing of each other. Locks save work and nothing else: where a
file system has none, the same parts are scored twice, to the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

LOCKS = ".locks"
POLL = 0.1  # seconds between two looks at the parts that other processes hold


def rank_and_world(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process among those that `torchrun` or `accelerate launch` started, else 0 of 1."""
    return int(environ.get("RANK", "0")), int(environ.get("WORLD_SIZE", "1"))


def unfinished(
    out: Path, name: str, parts: Iterable[int], done: Callable[[int], bool]
) -> Generator[int]:
    """Parts of a job that are not done, each held by this process while it is used.

    This rank's share comes before the others'. Parts that another process holds are passed over and
    looked at again, until they are done or their process died. No process waits while it holds a
    part, so none can wait for each other. When the iterator ends, every part is done. Close it (or
    run it to its end) to let go of the part it holds.
    """
    rank, world = rank_and_world()
    waiting = sorted(parts, key=lambda part: ((part - rank) % world, part))
    while waiting:
        before = len(waiting)
        for part in list(waiting):
            if not done(part):
                with _alone(out / LOCKS / f"{name}-{part:05d}", wait=False) as alone:
                    if not alone:
                        continue
                    if not done(part):
                        yield part
            waiting.remove(part)
        if len(waiting) == before:
            time.sleep(POLL)


@contextmanager
def manifest_lock(out: Path) -> Iterator[None]:
    """Alone with a run's manifest, for as long as the block takes."""
    with _alone(out / LOCKS / "manifest", wait=True):
        yield


def clear_locks(out: Path) -> None:
    """Removes the files of locks that nobody holds."""
    for path in (out / LOCKS).glob("*"):
        with _alone(path, wait=False) as alone, suppress(OSError):  # another user's file may stay
            if alone:
                path.unlink()


@contextmanager
def _alone(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process may go on alone: False where another has the lock and `wait` is not set.

    File systems without locks let everybody pass.
    """
    try:
        handle = _lock(path, wait)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        if handle is not None:
            os.close(handle)  # lets go of the lock


def _lock(path: Path, wait: bool) -> int | None:
    """The open file of a lock; None where there are no locks. BlockingIOError: another has it.

    `flock` and not a file that exists while it is held: such a file outlives a killed process.
    """
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError:
                os.close(handle)
                raise
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)  # `clear_locks` removed the file before we had it
    except BlockingIOError:
        raise
    except (ImportError, OSError):  # Windows; or a disk that is full, read-only or without locks
        return None
