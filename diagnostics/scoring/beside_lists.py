"""Scores parts of a run whose teacher is known by its top-k lists alone (`listed.py`).

The lists are written first, as the teacher's part, so that nobody is asked for them twice; a
student's part is its whole distribution beside them (`bounds.py`), one chunk of positions at a
time. There is no noise floor: it belongs to gain, which such a run does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from diagnostics.files import write_parquet
from diagnostics.models.heads import head_of
from diagnostics.progress import Advance
from diagnostics.scoring.bounds import compare_lists
from diagnostics.scoring.divergence import chunked
from diagnostics.scoring.hidden import hidden_states
from diagnostics.scoring.listed import ListedTeacher
from diagnostics.scoring.manifest import still_wanted
from diagnostics.scoring.run import TEACHER, part_columns, part_file, scores_table
from diagnostics.scoring.task import Task
from diagnostics.scoring.worker import Job, places, require_finite, require_numbers


class ListKeeper:
    """Writes a teacher's lists into the run."""

    def __init__(self, task: Task, teacher: ListedTeacher) -> None:
        self.task, self.teacher = task, teacher

    def score(self, part: int, advance: Advance) -> None:
        """Fetches the lists of one part and writes them. Raises InputError as their source does."""
        contexts = self.task.contexts(part, teacher=True)
        lists = self.teacher.lists(self.task.names(part), contexts, advance)
        table = places(contexts, self.task.rows(part)) | {
            "top_ids": np.concatenate([each.ids for each in lists]),
            "top_logprob": np.concatenate([each.logprob for each in lists]),
            "tail_mass": np.concatenate([each.tail_mass for each in lists]),
        }
        write_parquet(part_file(self.task.out, TEACHER, part), scores_table(table))


class ListedWorker:
    """Scores parts of theta_0 or a checkpoint, loaded once, beside the stored lists."""

    def __init__(self, task: Task, job: Job, model: PreTrainedModel) -> None:
        self.task, self.name, self.model = task, job.name, model
        self.head = head_of(model, job.files.spec)

    def score(self, part: int, advance: Advance) -> None:
        """Scores one part and writes its file; raises as `worker.Worker.score` does."""
        contexts = self.task.contexts(part, teacher=False)
        names = self.task.names(part)
        states = hidden_states(self.model, contexts, self.task.settings.batch_tokens, advance)
        require_finite(states, self.name, names)
        found = self._compare(part, states)
        require_numbers(found, states, self.name, names)
        with still_wanted(self.task, self.name):
            write_parquet(part_file(self.task.out, self.name, part), scores_table(found))

    @torch.no_grad()
    def _compare(self, part: int, states: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
        """The columns of `run.ListedStudentScores`."""
        stored = part_columns([part_file(self.task.out, TEACHER, part)], ("top_ids", "top_logprob"))
        head = self.head.rows(0, self.task.vocabulary)
        device = head.weight.device
        ids = torch.tensor(stored["top_ids"]).long()  # what is read is not writable
        logprob = torch.tensor(stored["top_logprob"])
        pieces = [
            compare_lists(
                i.to(device), p.to(device), head.logits(s.to(device)), self.task.settings.top_k
            )
            for i, p, s in zip(
                chunked(ids), chunked(logprob), chunked(torch.cat(list(states))), strict=True
            )
        ]
        return {name: torch.cat([p[name] for p in pieces]).cpu().numpy() for name in pieces[0]}
