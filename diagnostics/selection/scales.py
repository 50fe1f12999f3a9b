"""Quantiles and scalings of a batch's valid positions on its own device, without a wait.

The tensor form of `statistics.tables.normalize`, equal to it bit for bit: quantiles are numpy's
linear interpolation in numpy's own arithmetic. Shapes do not depend on how many positions are
valid, so everything here compiles. What is at other positions may be anything and stays so. Axes:
`slot` valid and other positions of a batch, end to end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diagnostics.statistics.selection.rules import Scales
from diagnostics.statistics.tables.normalize import EPSILON, HIGH, LOW, OUTLIERS


def quantiles(z: Tensor, valid: Tensor, *wanted: float) -> tuple[Tensor, ...]:
    """Quantiles of `z` (slot,) float64 over `valid` (slot,), a 0-dim tensor each, as np.quantile's.

    Valid values must be finite. Of no valid position: a number that means nothing.
    """
    ordered = torch.where(valid, z, torch.inf).sort().values
    last = valid.sum() - 1
    return tuple(_interpolated(ordered, last, q) for q in wanted)


def scales(valid: Tensor) -> Scales:
    """The scalings of rules over the positions that are `valid` (slot,)."""

    def robust(z: Tensor) -> tuple[Tensor]:
        low, high = quantiles(z, valid, LOW, HIGH)
        return ((z - low) / _width(high - low, EPSILON),)

    def min_max(z: Tensor) -> tuple[Tensor]:
        low, high = _ends(z, valid)
        return ((z - low) / _width(high - low),)

    def outliers(z: Tensor) -> tuple[Tensor, Tensor]:
        low, (high,) = _ends(z, valid)[0], quantiles(z, valid, OUTLIERS)
        wide = high - low >= EPSILON
        beyond = (z - low) / torch.where(wide, high - low, 1.0)
        return *min_max(torch.minimum(z, high)), beyond

    return {"robust": robust, "min_max": min_max, "outliers": outliers, "raw": lambda z: (z,)}


def _interpolated(ordered: Tensor, last: Tensor, q: float) -> Tensor:
    place = last.double() * q  # as float64: an integer times q would be float32
    below = place.floor()
    weight = place - below
    first, second = (
        ordered.gather(0, index.long().clamp(min=0)[None])[0]
        for index in (below, torch.minimum(below + 1, last.double()))
    )
    step = second - first
    return torch.where(weight >= 0.5, second - step * (1 - weight), first + step * weight)


def _ends(z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest valid value."""
    return torch.where(valid, z, torch.inf).amin(), torch.where(valid, z, -torch.inf).amax()


def _width(found: Tensor, added: float = 0.0) -> Tensor:
    """What to divide by: infinity, which gives zeros, where the range is below eps."""
    return torch.where(found >= EPSILON, found + added, torch.inf)
