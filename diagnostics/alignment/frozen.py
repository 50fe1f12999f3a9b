"""The bank as derivatives need it: batches of contexts with the teacher's states beside them.

The teacher's hidden states are read from the run that scored the bank, part by part, so no pass
loads the teacher. A batch holds rollouts of like length of one part, at most `batch_tokens` tokens
with padding. A single position is a batch too: its context cut off after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diagnostics.scoring.hidden import Context, length_buckets
from diagnostics.scoring.task import Task
from diagnostics.scoring.worker import teacher_states


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Contexts that run together.

    Fields: `rows` of the bank, one a context; `names` their context ids; `contexts`; `teacher`
    (pos, hidden), the teacher's states at their valid positions, context after context.
    """

    rows: tuple[int, ...]
    names: tuple[str, ...]
    contexts: tuple[Context, ...]
    teacher: Tensor

    @property
    def counts(self) -> list[int]:
        """Valid positions of each context."""
        return [int(context.valid.sum()) for context in self.contexts]

    def owner(self, place: int) -> tuple[int, int]:
        """The context (its place in the batch) of position `place`, and which of its positions."""
        ends = np.cumsum(self.counts)
        context = int(np.searchsorted(ends, place, side="right"))
        return context, place - int(ends[context] - self.counts[context])

    def alone(self, place: int) -> Batch:
        """Position `place` as a batch of its own: its context up to it, nothing else valid."""
        index, within = self.owner(place)
        context = self.contexts[index]
        position = int(np.flatnonzero(context.valid)[within])
        cut = Context(
            prompt=context.prompt,
            response=context.response[: position + 1],
            valid=np.arange(position + 1) == position,
        )
        return Batch(
            rows=self.rows[index : index + 1],
            names=self.names[index : index + 1],
            contexts=(cut,),
            teacher=self.teacher[place : place + 1],
        )


def batches(task: Task, rows: Collection[int] | None = None) -> Iterator[Batch]:
    """The bank, or some of its contexts, each once.

    Raises InputError where the teacher's states are damaged or missing.
    """
    for part in range(task.parts):
        places = [p for p, row in enumerate(task.rows(part)) if rows is None or row in rows]
        if not places:
            continue
        contexts = task.contexts(part, teacher=False)
        states = teacher_states(task.out, part, contexts)
        ends = np.cumsum([0, *(int(c.valid.sum()) for c in contexts)])
        names, first = task.names(part), task.rows(part).start
        lengths = [contexts[place].length for place in places]
        for bucket in length_buckets(lengths, task.settings.batch_tokens):
            chosen = [places[index] for index in bucket]
            yield Batch(
                rows=tuple(first + place for place in chosen),
                names=tuple(names[place] for place in chosen),
                contexts=tuple(contexts[place] for place in chosen),
                teacher=torch.cat([states[ends[place] : ends[place + 1]] for place in chosen]),
            )
