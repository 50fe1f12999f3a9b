"""Two models compared at every position: hidden states of both through both heads, tile by tile.

Logits exist for `CHUNK` positions and `TILE` token ids at one time. A tile's weights are turned to
float32 once for `BLOCK` positions. Token ids that one model alone has (rows that pad its
vocabulary) are left out, the shared range is renormalised, and the mass left out is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from diagnostics.models.heads import Head
from diagnostics.scoring.reduce import CHUNK, TILE, Kernel, add_tile, finish, pair_sums

BLOCK = 4 * CHUNK

# The columns of a teacher's and of a student's score part, by their names in `reduce.finish`.
TEACHER_COLUMNS = {
    "entropy": "teacher_entropy",
    "top_ids": "teacher_ids",
    "top_logprob": "teacher_top_logprob",
    "dropped": "teacher_dropped",
}
STUDENT_COLUMNS = {
    name: name
    for name in (
        "kl",
        "reverse_kl",
        "entropy",
        "top_ids",
        "top_logprob",
        "teacher_logprob",
        "logprob_at_teacher",
        "dropped",
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One model of a pair. Fields: `states` (pos, hidden), all on one device; `head`."""

    states: Tensor
    head: Head

    def block(self, rows: slice) -> Side:
        """Some positions, on the head's device."""
        return Side(states=self.states[rows].to(self.head.weight.device), head=self.head)


@torch.no_grad()
def compare(
    teacher: Side, student: Side, vocabulary: int, k: int, kernel: Kernel
) -> dict[str, NDArray[Any]]:
    """What `reduce.finish` gives, (pos,) and (pos, k), over the first `vocabulary` token ids.

    `teacher_dropped` and `dropped` (pos,) float32 are each model's probability mass on ids beyond.
    Raises ValueError for no positions, or for two numbers of them.
    """
    count = len(teacher.states)
    if count == 0:
        raise ValueError("expected at least one position")
    if len(student.states) != count:
        raise ValueError(f"expected {count} states of the student, got {len(student.states)}")
    pieces: list[Mapping[str, Tensor]] = []
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        pieces += _block(teacher.block(rows), student.block(rows), vocabulary, k, kernel)
    return {name: torch.cat([p[name] for p in pieces]).cpu().numpy() for name in pieces[0]}


def _block(
    teacher: Side, student: Side, vocabulary: int, k: int, kernel: Kernel
) -> list[dict[str, Tensor]]:
    """The columns of each chunk of a block."""
    sides = (teacher, student)
    states = [torch.split(_float_on_cpu(side.states), CHUNK) for side in sides]
    sums = [pair_sums(len(chunk), k, chunk.device, kernel=kernel) for chunk in states[0]]
    buffers: dict[tuple[int, int, int], Tensor] = {}
    for first in range(0, vocabulary, TILE):
        heads = [side.head.rows(first, min(first + TILE, vocabulary)) for side in sides]
        for place, pair in enumerate(zip(*states, strict=True)):
            t, s = (
                head.logits(chunk, _buffer(buffers, which, chunk, head))
                for which, (head, chunk) in enumerate(zip(heads, pair, strict=True))
            )
            add_tile(sums[place], t, s, first)
    columns = []
    for place, (t, s) in enumerate(zip(*states, strict=True)):
        found = dict(finish(sums[place]))
        found["teacher_dropped"] = _dropped(teacher.head, t, vocabulary, found["teacher_log_total"])
        found["dropped"] = _dropped(student.head, s, vocabulary, found["log_total"])
        columns.append(found)
    return columns


def _float_on_cpu(states: Tensor) -> Tensor:
    """Float32 on the CPU, where other products are slow; on a device as the model ran."""
    return states.float() if states.device.type == "cpu" else states


def _buffer(
    buffers: dict[tuple[int, int, int], Tensor], which: int, chunk: Tensor, head: Head
) -> Tensor | None:
    """Memory for a tile's logits on the CPU, used again for every tile of its shape."""
    if chunk.device.type != "cpu":
        return None
    shape = (which, len(chunk), head.vocabulary)
    if shape not in buffers:
        buffers[shape] = torch.empty(len(chunk), head.vocabulary)
    return buffers[shape]


def _dropped(head: Head, states: Tensor, vocabulary: int, log_total: Tensor) -> Tensor:
    """Mass (pos,) float32 on ids from `vocabulary` on, before renormalising.

    `log_total` (pos,) is the log-normaliser of the ids before. Infinite logits of padding are 0.
    """
    if head.vocabulary == vocabulary:
        return torch.zeros(len(states), device=states.device)
    beyond = head.rows(vocabulary, head.vocabulary).logits(states).double().logsumexp(dim=1)
    return torch.sigmoid(beyond - log_total).float()
