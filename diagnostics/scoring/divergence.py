"""What is measured at each position, from two rows of logits: plain functions on tensors.

Logits are float32, terms float32, sums float64 (DEFINITIONS, section 2). With z' = z - max z and
Z = sum exp z', one pass gives

    KL(p || q) = sum_v p(v) (z'_p(v) - z'_q(v)) - log Z_p + log Z_q.

All information is in nats, at temperature 1, over the whole shared vocabulary. Axes: `pos`
positions, `vocab` tokens, `k` support size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 256  # positions whose logits exist at one time


def chunked(states: Tensor) -> Iterator[Tensor]:
    """Consecutive pieces of at most `CHUNK` rows of hidden states (pos, hidden)."""
    for start in range(0, len(states), CHUNK):
        yield states[start : start + CHUNK]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Next-token distributions of one model.

    Fields: `shifted` (pos, vocab) float32, logits less their maximum; `weight` (pos, vocab)
    float32, exp of that; `total` (pos,) float64, its sum Z; `log_total` (pos,) float64.
    """

    shifted: Tensor
    weight: Tensor
    total: Tensor
    log_total: Tensor

    def logprob(self, ids: Tensor) -> Tensor:
        """Log-probabilities (pos, k) float64, nats, of token ids (pos, k)."""
        return self.shifted.gather(1, ids).double() - self.log_total[:, None]


def distribution(logits: Tensor) -> Distribution:
    """Prepares logits (pos, vocab) float32 for the functions below."""
    shifted = logits - logits.amax(dim=1, keepdim=True)
    weight = shifted.exp()
    total = weight.sum(dim=1, dtype=torch.float64)
    return Distribution(shifted=shifted, weight=weight, total=total, log_total=total.log())


def entropy(p: Distribution) -> Tensor:
    """H(p) = -sum_v p log p, (pos,) float64, nats."""
    mean = (p.weight * p.shifted).sum(dim=1, dtype=torch.float64) / p.total
    return p.log_total - mean


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q) = sum_v p (log p - log q), (pos,) float64, nats; p is the reference."""
    terms = p.weight * (p.shifted - q.shifted)
    return terms.sum(dim=1, dtype=torch.float64) / p.total - p.log_total + q.log_total


def top_k(logits: Tensor, k: int) -> Tensor:
    """Ids (pos, k) int64 of the k largest logits, largest first, equal ones by lower id.

    `torch.topk` leaves the order of equal values open, so equal values are sorted by id, and rows
    whose cut falls between equal values are sorted whole. Raises ValueError for a k beyond vocab.
    """
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"expected k from 1 to {logits.shape[1]}, got {k}")
    values, ids = logits.topk(k, dim=1)
    cut = values[:, -1:]
    undecided = (logits == cut).sum(dim=1) > (values == cut).sum(dim=1)
    by_id = ids.argsort(dim=1)
    values, ids = values.gather(1, by_id), ids.gather(1, by_id)
    by_value = values.argsort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, by_value)
    if bool(undecided.any()):
        rows = undecided.nonzero()[:, 0]
        ids[rows] = logits[rows].argsort(dim=1, descending=True, stable=True)[:, :k]
    return ids
