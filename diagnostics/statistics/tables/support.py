"""Local-support features of a position from two top-k lists (paper, section 3.2, appendix D).

The lists are most probable first and hold log-probabilities of both models, so the features of any
smaller support come from their first `k` columns. A teacher known by its lists alone has -inf where
it lists no probability: that token counts as 0, and C has bounds only (`compatibility_upper`).
Features are of numpy arrays, as typed here, or of torch tensors (`diagnostics.selection`).
Axes: `pos` positions, `k` support.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from diagnostics.errors import InputError

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]

BLOCK = 4096  # positions compared at one time: (BLOCK, k, k) booleans


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLists:
    """Top-k lists of student and teacher, each (pos, k), most probable first, nats.

    Fields: `student_ids`; `student_logprob` the student's there; `teacher_at_student` the
    teacher's there; `teacher_ids`; `teacher_logprob`; `student_at_teacher`. The teacher's three may
    be wider than the student's; lists shorter than that end in id -1, log-probability -inf.
    """

    student_ids: Ids
    student_logprob: Floats
    teacher_at_student: Floats
    teacher_ids: Ids
    teacher_logprob: Floats
    student_at_teacher: Floats

    def block(self, rows: slice, k: int) -> TopLists:
        """Some positions, cut to the first `k` columns."""
        return TopLists(**{name: getattr(self, name)[rows, :k] for name in TopLists.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportFeatures:
    """Features at one K, each (pos,) float64.

    Fields: `disagreement` D = KL(p_T || p_0), both renormalised on the union U, nats (Eq. 9);
    `compatibility` C, teacher mass on the student's top-K (Eq. 10); `compatibility_lower` C-hat,
    teacher mass on the intersection (Eq. 17), C-hat <= C; `overlap` |intersection| / K; `jaccard`
    |intersection| / |union|; `shared_teacher_mass` teacher mass on the intersection; `bc_union`
    Bhattacharyya coefficient of the two renormalised distributions on U, 1 when they agree.
    For a teacher of known lists `compatibility` is the part of C that is listed.
    """

    disagreement: Floats
    compatibility: Floats
    compatibility_lower: Floats
    overlap: Floats
    jaccard: Floats
    shared_teacher_mass: Floats
    bc_union: Floats


def support_features(lists: TopLists, k: int) -> SupportFeatures:
    """Features of every position at support size `k`.

    Raises InputError for a `k` beyond the lists.
    """
    stored = min(lists.student_ids.shape[1], lists.teacher_ids.shape[1])
    if not 1 <= k <= stored:
        raise InputError(
            where="--top-k",
            expected=f"a support size from 1 to {stored}, the run's --top-k",
            got=str(k),
            fix="choose a smaller one, or rescore with a larger --top-k",
        )
    xp = array_namespace(lists.student_ids)
    count = len(lists.student_ids)
    blocks = [
        _features(lists.block(slice(start, start + BLOCK), k), k)
        for start in range(0, count, BLOCK)
    ]
    return SupportFeatures(
        **{
            name: xp.concat([getattr(block, name) for block in blocks])
            for name in SupportFeatures.__slots__
        }
    )


def compatibility_upper(lists: TopLists, tail_mass: Floats, k: int) -> Floats:
    """The largest C, (pos,), that a teacher of known lists can have at support size `k`.

    It is the listed mass on S^S(k), plus at most the smallest listed probability for each unlisted
    token there, and for all of them together at most `tail_mass` (pos,).
    """
    found = lists.teacher_at_student[:, :k]
    smallest = np.exp(np.where(lists.teacher_ids < 0, np.inf, lists.teacher_logprob).min(axis=1))
    unlisted = np.isneginf(found).sum(axis=1)
    return np.asarray(np.exp(found).sum(axis=1) + np.minimum(tail_mass, unlisted * smallest))


def _features(lists: TopLists, k: int) -> SupportFeatures:
    xp = array_namespace(lists.student_ids)
    same = lists.student_ids[:, :, None] == lists.teacher_ids[:, None, :]  # (pos, k, k)
    student_shared = xp.any(same, axis=2)  # (pos, k): which of the student's the teacher has too
    teacher_new = ~xp.any(same, axis=1)  # (pos, k): which of the teacher's the student lacks
    shared = xp.astype(xp.sum(student_shared, axis=1), xp.float64)
    in_union = xp.concat([xp.ones_like(student_shared), teacher_new], axis=1)  # (pos, 2k)
    log_t = xp.concat([lists.teacher_at_student, lists.teacher_logprob], axis=1)
    log_s = xp.concat([lists.student_logprob, lists.student_at_teacher], axis=1)
    p_t, log_p_t = _renormalized(log_t, in_union)
    p_s, log_p_s = _renormalized(log_s, in_union)
    ratio = xp.where(p_t > 0, log_p_t - log_p_s, 0.0)  # p log p = 0 where p = 0
    mass = xp.exp(lists.teacher_at_student)
    shared_mass = xp.sum(xp.where(student_shared, mass, 0.0), axis=1)
    return SupportFeatures(
        disagreement=xp.sum(p_t * ratio, axis=1),
        compatibility=xp.sum(mass, axis=1),
        compatibility_lower=shared_mass,
        overlap=shared / k,
        jaccard=shared / (2 * k - shared),
        shared_teacher_mass=shared_mass,
        bc_union=xp.sum(xp.sqrt(p_t * p_s), axis=1),
    )


def _renormalized(logprob: Any, members: Any) -> tuple[Any, Any]:
    """Probabilities and log-probabilities (pos, 2k) that sum to one over `members`."""
    xp = array_namespace(logprob)
    masked = xp.where(members, logprob, -xp.inf)
    top = xp.max(masked, axis=1, keepdims=True)
    weight = xp.exp(masked - top)
    total = xp.sum(weight, axis=1, keepdims=True)
    return weight / total, logprob - top - xp.log(total)
