"""Which positions of a rollout batch carry loss: the seam between training and selection.

A mask is made from numbers of the current student and the teacher on its own fresh rollouts, by the
same selectors that the analysis uses, normalised over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diagnostics.models.heads import Head
from diagnostics.scoring.divergence import chunked, compare, top_k
from diagnostics.statistics.selectors import Selection, Selector, Signals, identities, select
from diagnostics.statistics.support import TopLists, support_features

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


@torch.no_grad()
def batch_mask(
    states: BatchStates, selector: Selector, budget: float, k: int, seed: int
) -> Selection:
    """The positions of a batch that a selector keeps, mask (pos,).

    Logits exist for one chunk of positions at a time. `full` and `random` look at no logits.
    """
    positions = np.asarray(states.position, dtype=np.int32)
    identity = identities(pd.Series(states.context, dtype=object), positions)
    if selector in UNSCORED:
        blank = np.zeros(len(identity))
        signals = Signals(entropy=blank, disagreement=blank, compatibility=blank, identity=identity)
        return select(selector, budget, signals, seed)
    chunks: list[dict[str, Tensor]] = []
    for student, teacher in zip(chunked(states.student), chunked(states.teacher), strict=True):
        teacher_logits = states.teacher_head.logits(teacher)
        scores = compare(teacher_logits, states.student_head.logits(student), k)
        ids = top_k(teacher_logits, k)
        scores["teacher_ids"] = ids.int()
        scores["teacher_top"] = torch.log_softmax(teacher_logits.double(), dim=1).gather(1, ids)
        chunks.append(scores)
    whole = {name: torch.cat([c[name] for c in chunks]).cpu().numpy() for name in chunks[0]}
    lists = TopLists(
        student_ids=whole["top_ids"],
        student_logprob=whole["top_logprob"].astype(np.float64),
        teacher_at_student=whole["teacher_logprob"].astype(np.float64),
        teacher_ids=whole["teacher_ids"],
        teacher_logprob=whole["teacher_top"],
        student_at_teacher=whole["logprob_at_teacher"].astype(np.float64),
    )
    features = support_features(lists, k)
    signals = Signals(
        entropy=whole["entropy"],
        disagreement=features.disagreement,
        compatibility=features.compatibility,
        identity=identity,
    )
    return select(selector, budget, signals, seed)
