"""Every part is done once, by whoever is free: order, locks, death of a holder, no locks at all."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from diagnostics.scoring import parts
from diagnostics.scoring.parts import (
    LOCKS,
    clear_locks,
    manifest_lock,
    rank_and_world,
    unfinished,
)


class Disk:
    """Parts that are done, and in which order they were."""

    def __init__(self, *done: int) -> None:
        self.done = list(done)

    def __contains__(self, part: int) -> bool:
        return part in self.done

    def finish(self, out: Path, count: int, name: str = "job") -> list[int]:
        """Does what `unfinished` gives, and says what that was."""
        mine = []
        for part in unfinished(out, name, range(count), self.__contains__):
            mine.append(part)
            self.done.append(part)
        return mine


@pytest.fixture
def ranked(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes this process rank `rank` of `world`."""

    def become(rank: int, world: int) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))

    return become


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def held(out: Path, part: int, name: str = "job") -> int:
    """A part as another process holds it; closing the handle lets it go, as death does."""
    handle = parts._lock(out / LOCKS / f"{name}-{part:05d}", False)
    assert handle is not None
    return handle


def test_process_of_its_own_is_rank_0_of_1() -> None:
    assert rank_and_world({}) == (0, 1)
    assert rank_and_world({"RANK": "2", "WORLD_SIZE": "4"}) == (2, 4)


@pytest.mark.parametrize(("count", "world"), [(1, 1), (7, 2), (8, 3), (3, 5), (50, 8)])
def test_one_rank_alone_does_every_part_once_its_own_share_first(
    count: int, world: int, tmp_path: Path, ranked: Callable[[int, int], None]
) -> None:
    shares = []
    for rank in range(world):
        ranked(rank, world)
        order = Disk().finish(tmp_path, count)
        assert sorted(order) == list(range(count))
        share = list(range(rank, count, world))
        assert order[: len(share)] == share
        shares.append(share)
    assert sorted(part for share in shares for part in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_parts_on_disk_are_not_given(tmp_path: Path) -> None:
    assert Disk(0, 2, 5).finish(tmp_path, 7) == [1, 3, 4, 6]


def test_held_part_is_passed_over_and_taken_when_its_holder_dies(tmp_path: Path) -> None:
    disk, other, start = Disk(), held(tmp_path, 0), time.monotonic()
    threading.Timer(0.3, os.close, [other]).start()
    assert disk.finish(tmp_path, 3) == [1, 2, 0]
    assert 0.3 <= time.monotonic() - start < 5.0


def test_held_part_that_its_holder_finishes_is_not_given(tmp_path: Path) -> None:
    disk, other = Disk(), held(tmp_path, 0)

    def finish() -> None:
        disk.done.append(0)
        os.close(other)

    threading.Timer(0.3, finish).start()
    assert disk.finish(tmp_path, 3) == [1, 2]
    assert sorted(disk.done) == [0, 1, 2]


def test_dead_holders_part_is_taken_while_another_holder_lives(tmp_path: Path) -> None:
    disk, alive, dead = Disk(), held(tmp_path, 0), held(tmp_path, 1)
    todo = unfinished(tmp_path, "job", range(2), disk.__contains__)
    with closing(todo):
        threading.Timer(0.2, os.close, [dead]).start()
        assert next(todo) == 1
    os.close(alive)


def test_process_that_fails_lets_go_of_its_part(tmp_path: Path) -> None:
    def fail(part: int) -> None:
        with pytest.raises(BlockingIOError):
            held(tmp_path, part)
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        closing(unfinished(tmp_path, "job", range(3), lambda part: False)) as todo,
    ):
        fail(next(todo))
    os.close(held(tmp_path, 0))


def test_jobs_do_not_lock_each_other_out(tmp_path: Path) -> None:
    other = held(tmp_path, 0, "part-step1")
    assert Disk().finish(tmp_path, 1, "part-step2") == [0]
    assert Disk().finish(tmp_path, 1, "noise-step1") == [0]
    os.close(other)


@pytest.mark.parametrize("workers", [2, 5])
def test_many_at_once_end_and_do_nothing_twice(workers: int, tmp_path: Path) -> None:
    disk, done = Disk(), []

    def work() -> None:
        done.extend(disk.finish(tmp_path, 40))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(done) == list(range(40))


@pytest.mark.usefixtures("no_locks")
def test_without_locks_every_part_is_given(tmp_path: Path) -> None:
    assert Disk(1).finish(tmp_path, 3) == [0, 2]
    with manifest_lock(tmp_path), manifest_lock(tmp_path):
        clear_locks(tmp_path)
    assert list((tmp_path / LOCKS).iterdir()) == []


def test_folder_that_cannot_be_made_has_no_locks(tmp_path: Path) -> None:
    """A file is in the way; the write that follows says so in its own words."""
    (tmp_path / "run").write_text("a file")
    assert Disk().finish(tmp_path / "run", 2) == [0, 1]


def test_manifest_lock_waits_for_its_holder(tmp_path: Path) -> None:
    handle = parts._lock(tmp_path / LOCKS / "manifest", False)
    assert handle is not None
    start = time.monotonic()
    threading.Timer(0.2, os.close, [handle]).start()
    with manifest_lock(tmp_path):
        assert time.monotonic() - start >= 0.2


def test_clearing_removes_the_locks_that_nobody_holds(tmp_path: Path) -> None:
    other = held(tmp_path, 3)
    Disk(3).finish(tmp_path, 5)
    clear_locks(tmp_path)
    assert [path.name for path in (tmp_path / LOCKS).iterdir()] == ["job-00003"]
    os.close(other)


def test_lock_whose_file_was_cleared_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking another process ends and clears: two would be alone."""
    path, calls = tmp_path / LOCKS / "job-00000", []
    original = fcntl.flock

    def cleared(handle: int, operation: int) -> None:
        if not calls:
            path.unlink()
        calls.append(handle)
        original(handle, operation)

    monkeypatch.setattr(fcntl, "flock", cleared)
    mine = held(tmp_path, 0)
    assert len(calls) == 2
    with pytest.raises(BlockingIOError):
        held(tmp_path, 0)
    os.close(mine)
