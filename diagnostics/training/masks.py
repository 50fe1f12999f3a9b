"""Which positions of a rollout batch carry loss: the seam between training and selection.

A mask is made from numbers of the current student and the teacher on its own fresh rollouts, by the
same selectors that the analysis uses, normalised over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.models.heads import Head
from diagnostics.scoring.divergence import chunked, compare, top_k
from diagnostics.statistics.selection.selectors import Selection, Selector, check_budget, select
from diagnostics.statistics.selection.signals import Signals, identities
from diagnostics.statistics.tables.support import TopLists, support_features
from diagnostics.statistics.tables.tokens import quadrants

UNSCORED: tuple[Selector, ...] = ("full", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStates:
    """Final hidden states of a rollout batch at its valid positions, with both heads.

    Fields: `student` and `teacher` (pos, hidden); their heads; `context` and `position`, one entry
    a position, name it for tie-breaks.
    """

    student: Tensor
    teacher: Tensor
    student_head: Head
    teacher_head: Head
    context: Sequence[str]
    position: Sequence[int]


def batch_mask(
    states: BatchStates,
    selector: Selector,
    budget: float,
    k: int,
    seed: int,
    *,
    one_per_rollout: bool = False,
) -> Selection:
    """The positions of a batch that a selector keeps, mask (pos,).

    `one_per_rollout` keeps at least one position of each rollout besides (set `released`). Logits
    exist for one chunk of positions at a time; `full` and `random` look at none. Raises InputError
    for a budget outside (0, 1] or one that keeps nothing of this batch.
    """
    check_budget(budget)
    signals = blank_signals(states) if selector in UNSCORED else batch_signals(states, k)
    owners = np.asarray(states.context, dtype=object) if one_per_rollout else None
    return select(selector, budget, signals, seed, at_least_one_of=owners)


def blank_signals(states: BatchStates) -> Signals:
    """Signals (pos,) that hold the identity of each position and nothing of the models."""
    blank = np.zeros(len(states.position))
    return Signals(
        entropy=blank, disagreement=blank, compatibility=blank, identity=_identity(states)
    )


@torch.no_grad()
def batch_signals(states: BatchStates, k: int) -> Signals:
    """All signals (pos,) of a batch at support size `k`, the current student as theta_0.

    Quadrants are of the batch: the median of its entropies and of its KL. Raises InputError for
    scores that are not finite, naming the rollout.
    """
    whole = _scored(states, k)
    lists = TopLists(
        student_ids=whole["top_ids"],
        student_logprob=whole["top_logprob"].astype(np.float64),
        teacher_at_student=whole["teacher_logprob"].astype(np.float64),
        teacher_ids=whole["teacher_ids"],
        teacher_logprob=whole["teacher_top"],
        student_at_teacher=whole["logprob_at_teacher"].astype(np.float64),
    )
    features = support_features(lists, k)
    return Signals(
        entropy=whole["entropy"],
        disagreement=features.disagreement,
        compatibility=features.compatibility,
        identity=_identity(states),
        kl_0=whole["kl"],
        reverse_kl_0=whole["reverse_kl"],
        q3=quadrants(whole["entropy"], whole["kl"]) == 3,
        vocabulary=states.student_head.vocabulary,
    )


def _scored(states: BatchStates, k: int) -> dict[str, NDArray[Any]]:
    """The columns of `compare`, and the teacher's own list, of every position."""
    chunks: list[dict[str, Tensor]] = []
    for student, teacher in zip(chunked(states.student), chunked(states.teacher), strict=True):
        teacher_logits = states.teacher_head.logits(teacher)
        scores = compare(teacher_logits, states.student_head.logits(student), k)
        ids = top_k(teacher_logits, k)
        scores["teacher_ids"] = ids.int()
        scores["teacher_top"] = torch.log_softmax(teacher_logits.double(), dim=1).gather(1, ids)
        chunks.append(scores)
    whole = {name: torch.cat([c[name] for c in chunks]).cpu().numpy() for name in chunks[0]}
    bad = np.flatnonzero(~np.isfinite(whole["entropy"] + whole["kl"] + whole["reverse_kl"]))
    if len(bad):
        raise InputError(
            where=f"rollout {states.context[bad[0]]}, position {states.position[bad[0]]}",
            expected="finite scores of student and teacher",
            got=f"KL {whole['kl'][bad[0]]}",
            fix="lower --learning-rate, or train in float32",
        )
    return whole


def _identity(states: BatchStates) -> NDArray[np.uint64]:
    positions = np.asarray(states.position, dtype=np.int32)
    return identities(pd.Series(states.context, dtype=object), positions)
