"""Signals of a batch from top-k lists of both models: what a teacher behind a server can give.

Exact C needs the teacher's probabilities at the student's tokens (`teacher_at_student`). A teacher
that gives its own list alone has a lower bound of C, the mass it lists on the student's tokens (Eq.
17), and D with its unlisted tokens counted as nothing, as for `topk:` teachers offline; both only
when they are asked for.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.selection.signals import TokenSignals
from diagnostics.statistics.tables.support import TopLists, support_features

Compatibility = Literal["exact", "lower"]


@torch.no_grad()
def signals_from_top_k(
    student_ids: Tensor,
    student_logprob: Tensor,
    teacher_ids: Tensor,
    teacher_logprob: Tensor,
    *,
    teacher_at_student: Tensor | None = None,
    student_at_teacher: Tensor | None = None,
    entropy: Tensor | None = None,
    kl: Tensor | None = None,
    reverse_kl: Tensor | None = None,
    vocabulary: int | None = None,
    compatibility: Compatibility = "exact",
) -> TokenSignals:
    """Signals from lists (batch, time, k), most probable first, log-probabilities in nats.

    `teacher_at_student` and `student_at_teacher` (batch, time, k) are each model's
    log-probabilities at the other's tokens; without the student's, D is not known. `compatibility`
    "lower" does without the teacher's: C is then its lower bound, sum of p_T over tokens in both
    lists (Eq. 17). `entropy`, `kl` and `reverse_kl` (batch, time) are over the whole vocabulary and
    pass through; what is not given stays None. Ids -1 with -inf end a shorter list.

    Raises InputError for lists whose shapes differ, and where `teacher_at_student` is missing.
    """
    _require_shapes(student_ids, teacher_ids, student_logprob=student_logprob)
    _require_shapes(student_ids, teacher_ids, teacher_logprob=teacher_logprob)
    for name, given in (("entropy", entropy), ("kl", kl), ("reverse_kl", reverse_kl)):
        if given is not None and given.shape != student_ids.shape[:2]:
            raise _unlike(name, student_ids.shape[:2], given)
    if teacher_at_student is None and compatibility == "lower":
        teacher_at_student = listed(student_ids, teacher_ids, teacher_logprob)
    if teacher_at_student is None:
        raise InputError(
            where="signals_from_top_k",
            expected="`teacher_at_student`, the teacher's numbers at the student's tokens",
            got="none",
            fix='ask the teacher for them, or give compatibility="lower" for the bound of Eq. 17',
        )
    at = student_logprob if student_at_teacher is None else student_at_teacher
    _require_shapes(student_ids, teacher_ids, teacher_at_student=teacher_at_student)
    _require_shapes(student_ids, teacher_ids, student_at_teacher=at)
    lists = (student_ids, student_logprob, teacher_at_student, teacher_ids, teacher_logprob, at)
    features = _features(*lists)

    def placed(values: Tensor) -> Tensor:
        return values.reshape(student_ids.shape[:2])

    of_c = features.compatibility if compatibility == "exact" else features.compatibility_lower
    return TokenSignals(
        entropy=None if entropy is None else entropy.double(),
        disagreement=None if student_at_teacher is None else placed(features.disagreement),
        compatibility=placed(of_c),
        kl=None if kl is None else kl.double(),
        reverse_kl=None if reverse_kl is None else reverse_kl.double(),
        vocabulary=vocabulary,
    )


def listed(ids: Tensor, teacher_ids: Tensor, teacher_logprob: Tensor) -> Tensor:
    """What the teacher lists at `ids` (…, k), log-probabilities (…, k); -inf where it does not."""
    same = (ids[..., :, None] == teacher_ids[..., None, :]) & (ids[..., :, None] >= 0)
    return torch.where(same, teacher_logprob[..., None, :], -torch.inf).amax(dim=-1)


def _features(*lists: Tensor) -> Any:
    """`SupportFeatures` of tensors, (pos,) each."""
    flat: list[Any] = [tensor.reshape(-1, tensor.shape[-1]) for tensor in lists]
    ids_s, log_s, t_at_s, ids_t, log_t, s_at_t = flat
    found = TopLists(
        student_ids=ids_s,
        student_logprob=log_s.double(),
        teacher_at_student=t_at_s.double(),
        teacher_ids=ids_t,
        teacher_logprob=log_t.double(),
        student_at_teacher=s_at_t.double(),
    )
    return support_features(found, ids_s.shape[1])


def _require_shapes(student_ids: Tensor, teacher_ids: Tensor, **given: Tensor) -> None:
    """Refuses lists that are no (batch, time, k) of one k."""
    shape = student_ids.shape
    for name, tensor in {"teacher_ids": teacher_ids, **given}.items():
        if len(shape) != 3 or tensor.shape != shape:
            raise _unlike(name, shape, tensor)


def _unlike(name: str, shape: torch.Size, got: Tensor) -> InputError:
    axes = ", ".join(("batch", "time", "k")[: len(shape)])
    return InputError(
        where=name,
        expected=f"the shape of `student_ids`, ({axes}): {tuple(shape)}",
        got=str(tuple(got.shape)),
        fix="cut both models' lists to one length, and give the same positions",
    )
