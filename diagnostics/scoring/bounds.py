"""What a teacher's top-k list says of KL at a position: a lower and an upper bound.

The teacher lists k tokens with their probabilities. The rest of its mass, m, lies on unlisted
tokens, on none of them more than c, the smallest listed probability. The student is known whole.
With A = sum over the listed v of p_T(v) (log p_T(v) - log p(v)) and q the student's unlisted mass,

    lower = A + m log(m / q)
    upper = A + max of sum p_v log(p_v / p(v)), unlisted v, 0 <= p_v <= c, sum p_v = m.

The lower bound takes the unlisted tokens as one bucket (log-sum inequality). The maximum is of a
convex function, so it stands at an extreme point: n = floor(m / c) tokens at c, one at m - n c, the
rest at 0, and by the rearrangement inequality on the tokens that the student finds least probable.
It is exact, not the simpler m log(c / min p): those tokens are picked by `torch.topk`, which costs
less than the head's product. KL(p || p_T) has no bound here: the rounding of a list decides log m.

Information is in nats, terms are float32, sums float64. Axes: `pos`, `vocab`, `list` k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.scoring import divergence
from diagnostics.scoring.divergence import Distribution

ROWS = 16  # positions whose unlisted tokens are looked at together


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of KL(p_T || p). Fields: `lower`, `upper` (pos,) float64, nats."""

    lower: Tensor
    upper: Tensor


def kl_bounds(ids: Tensor, logprob: Tensor, student: Distribution) -> Bounds:
    """Bounds of KL(p_T || p) for a teacher of known lists, p the student.

    Args: `ids` (pos, list) int64, distinct in a row, `logprob` (pos, list) the teacher's there,
    nats, most probable first, sum of exp at most 1; -1 and -inf where a list is shorter than the
    longest, which the first entry never is.
    A list of the whole vocabulary gives lower = upper = KL.
    """
    p = logprob.double().exp()
    known_ids = torch.where(ids < 0, ids[:, :1], ids)
    terms = p * (logprob.double() - student.logprob(known_ids))
    known = torch.where(p > 0, terms, 0.0).sum(dim=1)
    unlisted = student.shifted.shape[1] - (ids >= 0).sum(dim=1)
    tail = torch.where(unlisted > 0, 1 - p.sum(dim=1), 0.0)
    smallest = p.masked_fill(ids < 0, torch.inf).amin(dim=1)
    ceiling = torch.maximum(smallest, tail / unlisted.clamp(min=1))  # a rounded list may ask more
    full = torch.where(tail > 0, (tail / ceiling).floor(), 0.0).long()
    lower, upper = torch.zeros_like(known), torch.zeros_like(known)
    order = full.argsort()  # rows of like `full` together: topk takes the largest
    for rows in (order[start : start + ROWS] for start in range(0, len(order), ROWS)):
        listed, shifted = known_ids[rows], student.shifted[rows]
        log_q = _log_sum(shifted.scatter(1, listed, -torch.inf)) - student.log_total[rows]
        lower[rows] = _weighted(tail[rows], tail[rows].log() - log_q)
        count = min(int(full[rows].max()) + 1, shifted.shape[1])
        least = shifted.scatter(1, listed, torch.inf).topk(count, dim=1, largest=False).values
        log_least = least.double() - student.log_total[rows, None]
        upper[rows] = _largest_tail(tail[rows], ceiling[rows], full[rows], log_least)
    return Bounds(lower=known + lower, upper=known + upper)


def compare_lists(ids: Tensor, logprob: Tensor, logits: Tensor, k: int) -> dict[str, Tensor]:
    """Everything stored of a student beside a teacher of known lists.

    Args: `ids`, `logprob` as for `kl_bounds`; `logits` (pos, vocab) float32 of the student; `k` how
    many of the student's own tokens to store.
    Returns the columns of `run.ListedStudentScores`, (pos,) float64 and (pos, k) int32 or float32.
    """
    student = divergence.distribution(logits)
    bounds = kl_bounds(ids, logprob, student)
    student_ids = divergence.top_k(logits, k)
    same = student_ids[:, :, None] == ids[:, None, :]
    listed = torch.where(same, logprob.float()[:, None, :], -torch.inf).amax(dim=2)
    at_teacher = student.logprob(ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)
    return {
        "kl_lower": bounds.lower,
        "kl_upper": bounds.upper,
        "entropy": divergence.entropy(student),
        "top_ids": student_ids.int(),
        "top_logprob": student.logprob(student_ids).float(),
        "teacher_logprob": listed,
        "logprob_at_teacher": at_teacher.float(),
    }


def _log_sum(values: Tensor) -> Tensor:
    """log sum exp of each row of (rows, vocab), summed in float64; no digits are cancelled."""
    top = values.amax(dim=1)
    return (values - top[:, None]).exp().sum(dim=1, dtype=torch.float64).log() + top.double()


def _largest_tail(tail: Tensor, ceiling: Tensor, full: Tensor, log_least: Tensor) -> Tensor:
    """Largest sum of p_v log(p_v / p(v)): `full` tokens at `ceiling`, the remainder on the next.

    `log_least` (rows, count) is the student's log p of unlisted tokens, least probable first, +inf
    where there are no more.
    """
    sums = torch.nn.functional.pad(log_least.cumsum(dim=1), (1, 0))
    at_ceiling = full * ceiling.log() - sums.gather(1, full[:, None])[:, 0]
    following = log_least.gather(1, full.clamp(max=log_least.shape[1] - 1)[:, None])[:, 0]
    remainder = (tail - full * ceiling).clamp(min=0).masked_fill(torch.isposinf(following), 0.0)
    last = _weighted(remainder, remainder.log() - following)
    return _weighted(ceiling, at_ceiling) + last


def _weighted(weight: Tensor, value: Tensor) -> Tensor:
    """weight x value, 0 where the weight is 0, whatever the value."""
    return torch.where(weight > 0, weight * value, 0.0)
