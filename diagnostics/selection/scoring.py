"""Signals of a batch from both models' logits or final hidden states, without gradient.

What is measured at a position is the offline scoring's own (`scoring.reduce`), and so are the
support features (`statistics.tables.support`). Logits exist for one chunk of valid positions at a
time. Axes: `batch` rollouts, `time` positions with padding, `pos` valid positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.models.heads import Head
from diagnostics.scoring.reduce import CHUNK, add_tile, finish, pair_sums
from diagnostics.selection.signals import TokenSignals, check_signals
from diagnostics.statistics.tables.support import TopLists, support_features

Logits = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def signals_from_logprobs(
    student: Tensor, teacher: Tensor, mask: Tensor, *, k: int = 16
) -> TokenSignals:
    """Signals from log-probabilities or logits (batch, time, vocab) of both models.

    `mask` (batch, time) bool says which positions are valid. Raises InputError for shapes that
    differ, a support size `k` that the vocabulary lacks, and scores that are not finite.
    """
    _require_shapes(student, teacher, mask)
    _require_one_vocabulary(teacher.shape[2], student.shape[2])

    def logits(row: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return teacher[row, time].float(), student[row, time].float()

    return _signals(logits, mask, k, student.shape[2])


@torch.no_grad()
def signals_from_states(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: Head,
    teacher_head: Head,
    mask: Tensor,
    *,
    k: int = 16,
    vocabulary: int | None = None,
) -> TokenSignals:
    """Signals from final hidden states (batch, time, hidden) of both models and their heads.

    `vocabulary` is how many token ids, the first ones, both models share; the rest are left out and
    the others renormalised. Without it both heads must have as many. Raises InputError as
    `signals_from_logprobs`.
    """
    _require_shapes(student_hidden, teacher_hidden, mask)
    if vocabulary is None:
        _require_one_vocabulary(teacher_head.vocabulary, student_head.vocabulary)
        vocabulary = student_head.vocabulary
    heads = [head.rows(0, vocabulary) for head in (teacher_head, student_head)]
    for head in heads:
        _require_one_vocabulary(head.vocabulary, vocabulary)

    def logits(row: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        teacher, student = teacher_hidden[row, time], student_hidden[row, time]
        return heads[0].logits(teacher), heads[1].logits(student)

    return _signals(logits, mask, k, vocabulary)


def _signals(logits: Logits, mask: Tensor, k: int, vocabulary: int) -> TokenSignals:
    """Signals of the valid positions, whose logits of teacher and student `logits` gives."""
    if not 1 <= k <= vocabulary:
        raise InputError(
            where="k",
            expected=f"a support size from 1 to {vocabulary}",
            got=str(k),
            fix="choose a smaller one",
        )
    mask = mask.bool()
    row, time = mask.nonzero(as_tuple=True)
    pieces = [
        _measured(*logits(r, t), k)
        for r, t in zip(torch.split(row, CHUNK), torch.split(time, CHUNK), strict=True)
        if len(r)
    ]

    def placed(name: str) -> Tensor:
        whole = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
        if pieces:
            whole[row, time] = torch.cat([piece[name] for piece in pieces]).to(mask.device)
        return whole

    names = ("entropy", "disagreement", "compatibility", "kl", "reverse_kl")
    found = TokenSignals(**{name: placed(name) for name in names}, vocabulary=vocabulary)
    check_signals(found, mask)
    return found


def _measured(teacher: Tensor, student: Tensor, k: int) -> dict[str, Tensor]:
    """Signals (pos,) from logits (pos, vocab) float32."""
    sums = pair_sums(len(student), k, student.device)
    add_tile(sums, teacher, student, 0)
    found = finish(sums)
    features: Any = support_features(lists_of(found), k)
    return {
        "entropy": found["entropy"],
        "kl": found["kl"],
        "reverse_kl": found["reverse_kl"],
        "disagreement": features.disagreement,
        "compatibility": features.compatibility,
    }


def lists_of(found: Mapping[str, Any]) -> TopLists:
    """Top-k lists of tensors from what `reduce.finish` gives."""
    return TopLists(
        student_ids=found["top_ids"],
        student_logprob=found["top_logprob"].double(),
        teacher_at_student=found["teacher_logprob"].double(),
        teacher_ids=found["teacher_ids"],
        teacher_logprob=found["teacher_top_logprob"].double(),
        student_at_teacher=found["logprob_at_teacher"].double(),
    )


def _require_shapes(student: Tensor, teacher: Tensor, mask: Tensor) -> None:
    for name, tensor in (("student", student), ("teacher", teacher)):
        if tensor.ndim != 3 or tensor.shape[:2] != mask.shape:
            raise InputError(
                where=name,
                expected=f"a tensor of 3 axes that begins as the mask does, {tuple(mask.shape)}",
                got=str(tuple(tensor.shape)),
                fix="give the same positions of both models, padding included",
            )


def _require_one_vocabulary(teacher: int, student: int) -> None:
    if teacher != student:
        raise InputError(
            where="vocabularies",
            expected=f"{student} token ids of the teacher, as the student has",
            got=str(teacher),
            fix="use models of one tokenizer, and give the ids that they share",
        )
