"""What a kept set is like, as numbers for a training log."""

from __future__ import annotations

import torch
from torch import Tensor

from diagnostics.selection.scales import quantiles
from diagnostics.selection.select import Kept
from diagnostics.selection.signals import TokenSignals
from diagnostics.statistics.tables.origin import MEDIAN

MEANS = ("disagreement", "compatibility", "entropy")


@torch.no_grad()
def describe(kept: Kept, signals: TokenSignals, mask: Tensor) -> dict[str, float]:
    """Numbers of a kept set; waits for the device once.

    `keep`, the kept share of valid positions, and `tied_share`; `q1` to `q4`, shares of the kept
    positions in TIP's quadrants, cut at the medians of H and KL over the batch; `kept_` and
    `dropped_` `disagreement`, `compatibility` and `entropy`, means in raw units. A signal that is
    not known, and a mean over no position, is NaN.
    """
    mask = mask.bool()
    dropped = mask & ~kept.mask
    found = {"keep": _ratio(kept.mask.sum(), mask.sum()), "tied_share": kept.tied_share}
    found |= _quadrant_shares(kept.mask, signals, mask)
    for name in MEANS:
        values = getattr(signals, name)
        for word, inside in (("kept", kept.mask), ("dropped", dropped)):
            found[f"{word}_{name}"] = _mean(values, inside)
    numbers = torch.stack([value.double() for value in found.values()]).tolist()
    return dict(zip(found, numbers, strict=True))


def _quadrant_shares(kept: Tensor, signals: TokenSignals, mask: Tensor) -> dict[str, Tensor]:
    """DEFINITIONS, section 4: a position on a cut is low in H and high in KL."""
    if signals.entropy is None or signals.kl is None:
        return {f"q{quadrant}": _nan(mask) for quadrant in range(1, 5)}
    valid = mask.reshape(-1)
    (entropy_cut,) = quantiles(signals.entropy.double().reshape(-1), valid, MEDIAN)
    (kl_cut,) = quantiles(signals.kl.double().reshape(-1), valid, MEDIAN)
    low, high = signals.entropy <= entropy_cut, signals.kl >= kl_cut
    sets = (~low & high, ~low & ~high, low & high, low & ~high)
    return {f"q{q}": _ratio((kept & s).sum(), kept.sum()) for q, s in enumerate(sets, start=1)}


def _mean(values: Tensor | None, inside: Tensor) -> Tensor:
    if values is None:
        return _nan(inside)
    return _ratio(torch.where(inside, values.double(), 0.0).sum(), inside.sum())


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole as float64; NaN over nothing."""
    return part.double() / whole.double()


def _nan(like: Tensor) -> Tensor:
    return torch.full((), torch.nan, dtype=torch.float64, device=like.device)
