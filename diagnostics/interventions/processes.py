"""Jobs in processes of their own, several at a time, each with its share of the cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

Job = TypeVar("Job", bound=tuple[Any, ...])
Found = TypeVar("Found")


def in_processes(
    work: Callable[..., Found], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Found]]:
    """`work(*job)` for every job, `workers` at a time; yields (job, result) as they come.

    One worker is this process. An exception of a job is raised here; jobs that run are finished.
    """
    if workers == 1:
        for job in jobs:
            yield job, work(*job)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    context = get_context("spawn")  # a fork would copy torch's threads
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (threads,)) as pool:
        running: dict[Future[Found], Job] = {pool.submit(work, *job): job for job in jobs}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def default_workers(device: str) -> int:
    """Jobs at a time: one on an accelerator, one a core on the CPU."""
    return len(os.sched_getaffinity(0)) if device == "cpu" else 1
