"""Batches of the selector's tests, and the same batch as the analysis sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from diagnostics.selection import Kept, TokenSignals
from diagnostics.statistics.selection.selectors import Selection
from diagnostics.statistics.selection.signals import Signals, identities_from

VOCABULARY = 1000
TENSORS = ("entropy", "disagreement", "compatibility", "kl", "reverse_kl")
Batch = tuple[TokenSignals, torch.Tensor, torch.Tensor]


def batch(
    change: Callable[[torch.Tensor], torch.Tensor] = lambda z: z,
    seed: int = 0,
    rows: int = 6,
    time: int = 40,
) -> Batch:
    """Signals, mask padded on the right and hashes of rows; `change` is applied to each signal."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, time + 1, (rows, 1), generator=generator)

    def draw() -> torch.Tensor:
        return 3 * torch.rand(rows, time, generator=generator, dtype=torch.float64)

    signals = TokenSignals(**{name: change(draw()) for name in TENSORS}, vocabulary=VOCABULARY)
    hashes = torch.randint(-(2**63), 2**63 - 1, (rows,), generator=generator)
    return signals, torch.arange(time) < lengths, hashes


def rounded(z: torch.Tensor) -> torch.Tensor:
    """Few values, so that every score is shared by many."""
    return (z * 2).round() / 2


def repeated(z: torch.Tensor) -> torch.Tensor:
    """Every second position is its neighbour's equal in all signals."""
    return z.repeat_interleave(2, dim=1)[:, : z.shape[1]]


def constant(z: torch.Tensor) -> torch.Tensor:
    """No range at all."""
    return torch.full_like(z, 0.5)


def spiked(z: torch.Tensor) -> torch.Tensor:
    """No range but for one row that stands out."""
    out = torch.full_like(z, 0.5)
    out[0] += z[0]
    return out


def negative_zeros(z: torch.Tensor) -> torch.Tensor:
    """Nothing, with both signs."""
    return torch.where(z > 1.5, z, torch.where(z > 0.7, 0.0, -0.0))


CHANGES = {f.__name__: f for f in (rounded, repeated, constant, spiked, negative_zeros)} | {
    "plain": lambda z: z
}


def slow_quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q))


def offline(signals: TokenSignals, mask: torch.Tensor, hashes: torch.Tensor) -> Signals:
    """The valid positions as the analysis has them, row by row; right padding."""
    at = mask.numpy()
    arrays = {name: tensor.numpy()[at] for name, tensor in signals.known()}
    names = np.broadcast_to(hashes.numpy().view(np.uint64)[:, None], at.shape)[at]
    places = np.broadcast_to(np.arange(at.shape[1], dtype=np.int32), at.shape)[at]
    low = arrays["entropy"] <= slow_quantile(arrays["entropy"], 0.5)
    high = arrays["kl"] >= slow_quantile(arrays["kl"], 0.5)
    return Signals(
        entropy=arrays["entropy"],
        disagreement=arrays["disagreement"],
        compatibility=arrays["compatibility"],
        identity=identities_from(names, places),
        kl_0=arrays["kl"],
        reverse_kl_0=arrays["reverse_kl"],
        q3=low & high,
        vocabulary=signals.vocabulary,
    )


def owners(mask: torch.Tensor) -> np.ndarray:
    """The row of each valid position."""
    return np.nonzero(mask.numpy())[0]


def numbers(kept: Kept, mask: torch.Tensor) -> tuple[object, ...]:
    """Everything that is kept and said, at valid positions, as plain Python."""
    assert not (kept.mask & ~mask).any()
    return (
        kept.mask[mask].tolist(),
        kept.tied_share.item(),
        kept.wanted.item(),
        kept.short.item(),
        kept.added.item(),
    )


def expected(found: Selection) -> tuple[object, ...]:
    """The same of the analysis's selection."""
    return found.mask.tolist(), found.tied_share, found.wanted, found.short, found.added
