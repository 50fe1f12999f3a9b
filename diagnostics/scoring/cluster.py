"""A rescoring as Ray Data jobs: the same parts, on as many actors as the user asks for.

Ray starts the actors, hands them parts, and starts them again when they or their machine die. Which
part is not done is decided as everywhere, by the run's folder (`parts`), which every machine must
see under the same path, as it must the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.scoring.ray_start import import_ray, start_ray
from diagnostics.scoring.rescore import Scorer
from diagnostics.scoring.task import Task
from diagnostics.scoring.worker import Job

Batch = dict[str, NDArray[Any]]


class OnRay:
    """A `rescore.Runner`: each job is a Ray Data job over its parts.

    Args: `workers` actors, one GPU each where the task's device is one; `address` of a cluster,
    default a Ray of this machine, or the one that $RAY_ADDRESS names. Raises InputError when Ray is
    not installed or not found.
    """

    def __init__(self, task: Task, workers: int, address: str | None = None) -> None:
        self.task, self.workers = task, workers
        self._ray = import_ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            start_ray(self._ray, workers, address)

    def run(self, job: Job, parts: Sequence[int]) -> None:
        """Scores these parts of a job on the actors. Raises the first InputError of any."""
        if not parts:
            return
        needs_gpu = self.task.settings.device.startswith("cuda")
        done = self._ray.data.from_items(
            [{"part": part} for part in parts], override_num_blocks=len(parts)
        ).map_batches(
            Actor,
            fn_constructor_args=(self.task, job),
            batch_size=1,
            compute=self._ray.data.ActorPoolStrategy(size=min(self.workers, len(parts))),
            num_cpus=1,
            num_gpus=1 if needs_gpu else 0,
        )
        for row in done.take_all():
            if row["where"]:
                raise InputError(**row)

    def close(self) -> None:
        """Ends a Ray that this object began."""
        if self._started:
            self._ray.shutdown()


class Actor:
    """Scores parts of one job in a process of Ray's; its model is loaded once."""

    def __init__(self, task: Task, job: Job) -> None:
        self.scorer, self.job = Scorer(task), job

    def __call__(self, batch: Batch) -> Batch:
        """Scores `part` (parts,) and gives the words of an InputError, empty where there is none.

        The error is a row and not raised, so that Ray neither tries again nor stops other parts.
        """
        words = {"where": "", "expected": "", "got": "", "fix": ""}
        try:
            self.scorer.run(self.job, [int(part) for part in batch["part"]])
        except InputError as error:
            words = {name: getattr(error, name) for name in words}
        return {name: np.array([text]) for name, text in words.items()}
