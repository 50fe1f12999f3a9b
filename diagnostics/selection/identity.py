"""What tells positions apart: hashes of rollouts and positions, on the batch's own device.

The tensor form of `statistics.selection.signals`, equal to it bit for bit: int64 holds the bits of
uint64, and order and conversion to float64 are those of uint64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diagnostics.statistics.selection.signals import scattered

_LOW_HALF = (1 << 32) - 1
_LEAST = -(1 << 63)


@torch.no_grad()
def row_hashes(ids: Tensor, mask: Tensor) -> Tensor:
    """A hash (batch,) int64 of each row's token ids (batch, time) where `mask` is True.

    It depends on these ids and their places from the row's first on, not on padding, its side, the
    order of rows or the rank. Give prompt and response, or else equal responses to two prompts are
    one rollout. Rows of equal content have equal hashes: what ties between them keeps is decided by
    their order in the batch.
    """
    words = _mix(ids.long() + _mix(places(mask)))
    return _mix(torch.where(mask, words, 0).sum(dim=1) + _mix(mask.sum(dim=1)))


def places(mask: Tensor) -> Tensor:
    """The position of each token, (batch, time) int64, 0 at its row's first valid one."""
    index = torch.arange(mask.shape[1], device=mask.device)
    return index - mask.int().argmax(dim=1, keepdim=True)


def identities(rows: Tensor, mask: Tensor) -> Tensor:
    """A hash (batch, time) int64 of each (rollout, position), of the rollouts' hashes (batch,)."""
    return _mix(rows[:, None] + _mix(places(mask)))


def uniform(identity: Tensor, seed: int) -> Tensor:
    """Random float64 numbers, uniform over [0, 2^64], of each identity and the seed alone."""
    word = _mix(identity + _mix(torch.full_like(identity[:1], seed_word(seed))))
    high, low = (word >> 32) & _LOW_HALF, word & _LOW_HALF
    return high.double() * 2.0**32 + low.double()  # both exact, their sum rounded once


def seed_word(seed: int) -> int:
    """A seed's lowest 64 bits as int64."""
    return seed if _LEAST <= seed < -_LEAST else (seed - _LEAST) % 2**64 + _LEAST


def unsigned_order(words: Tensor) -> Tensor:
    """Int64 words whose order is that of their bits as uint64."""
    return words ^ _LEAST


def _mix(words: Tensor) -> Tensor:
    found: Tensor = scattered(words)
    return found
