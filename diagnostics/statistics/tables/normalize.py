"""Normalisation to [0, 1]: robust (paper, Eq. 11; DEFINITIONS, section 2) and min-max (TIP)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Epsilon = Literal["always", "empty_range"]

LOW, HIGH, EPSILON = 0.05, 0.95, 1e-12
OUTLIERS = 0.98  # TIP's clip of forward KL, a quantile of the batch


def stretched(z: Floats, epsilon: Epsilon = "always") -> Floats:
    """(z - Q05) / (Q95 - Q05 + eps), not clipped, (pos,); zeros where the range is below eps.

    Quantiles interpolate linearly over all of `z`, the valid positions of the bank or batch. With
    `epsilon` "empty_range" eps only tells an empty range, and is not added.
    """
    low, high = np.quantile(z, [LOW, HIGH])
    return stretched_between(z, float(low), float(high), epsilon)


def stretched_between(z: Floats, low: float, high: float, epsilon: Epsilon = "always") -> Floats:
    """`stretched` for given quantiles of the population."""
    if high - low < EPSILON:
        return np.zeros_like(z, dtype=np.float64)
    return np.asarray((z - low) / (high - low + (EPSILON if epsilon == "always" else 0.0)))


def norm(z: Floats, epsilon: Epsilon = "always") -> Floats:
    """Norm(z) = clip((z - Q05) / (Q95 - Q05 + eps), 0, 1), (pos,), written z~ (Eq. 11)."""
    return np.clip(stretched(z, epsilon), 0.0, 1.0)


def min_max(z: Floats) -> Floats:
    """(z - min) / (max - min), (pos,), in [0, 1]; zeros where the range is below eps.

    TIP's scaling, for its own rules alone: one outlier moves every value.
    """
    low, high = z.min(), z.max()
    if high - low < EPSILON:
        return np.zeros_like(z, dtype=np.float64)
    return np.asarray((z - low) / (high - low))


def to_outliers(z: Floats) -> tuple[Floats, Floats]:
    """z clipped at its 98 % quantile and min-max scaled, and the same unclipped, each (pos,).

    1 from that quantile on. Where it is within eps of the minimum the first is 0, the second z less
    its minimum.
    """
    low, high = float(z.min()), float(np.quantile(z, OUTLIERS))
    beyond = (z - low) / (high - low) if high - low >= EPSILON else z - low
    return min_max(np.minimum(z, high)), beyond
