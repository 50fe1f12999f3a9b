"""Pearson and rank correlation over rows in clusters, as functions of sums per cluster.

Rank correlation (Spearman's) is Pearson's of average ranks, which are taken once over all rows and
stay in every draw, as cut points do. Not covered: partial correlation (`least_squares`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from diagnostics.statistics.inference.clusters import Clusters
from diagnostics.statistics.inference.estimators import Floats, ratio

NOTHING = 1e-24  # a variance that is rounding: of values centred and scaled to 1


@dataclass(frozen=True, slots=True)
class Correlation:
    """r of two variables from n, x, y, xx, yy, xy summed in each cluster, `moments` (clusters, 6).

    NaN where one of them does not vary.
    """

    moments: Floats
    name: str = "correlation"

    @property
    def names(self) -> tuple[str, ...]:
        """The one number's name."""
        return (self.name,)

    @property
    def sums(self) -> Floats:
        """The moments, (clusters, 6)."""
        return self.moments

    def value(self, totals: Floats) -> Floats:
        """Sxy / sqrt(Sxx Syy) with S of deviations from the means, (n, 1)."""
        deviations, size = _deviations(totals)
        return np.asarray(ratio(deviations[:, 2], size)[:, None])

    def gradient(self, totals: Floats, index: int) -> Floats:
        """Derivatives (n, 6): r moves by dSxy / size - r (dSxx / Sxx + dSyy / Syy) / 2."""
        n, x, y = totals[:, :3].T
        deviations, size = _deviations(totals)
        sxx, syy, sxy = deviations.T
        r = ratio(sxy, size)
        mx, my = ratio(x, n), ratio(y, n)
        by_xx, by_yy, by_xy = -ratio(r, 2 * sxx), -ratio(r, 2 * syy), ratio(np.ones_like(r), size)
        return np.column_stack(
            [
                by_xx * mx**2 + by_yy * my**2 + by_xy * mx * my,
                -2 * by_xx * mx - by_xy * my,
                -2 * by_yy * my - by_xy * mx,
                by_xx,
                by_yy,
                by_xy,
            ]
        )


def correlation(clusters: Clusters, x: Floats, y: Floats) -> Correlation:
    """The correlation of `x` and `y`, (pos,) each; both are centred and scaled first."""
    x, y = _standard(x), _standard(y)
    columns = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return Correlation(np.column_stack([clusters.sums(column) for column in columns]))


def ranks(values: Floats) -> Floats:
    """Average ranks (pos,), from 1: equal values share the mean of theirs."""
    return np.asarray(pd.Series(values).rank(), dtype=np.float64)


def _standard(values: Floats) -> Floats:
    """Less the mean, over the largest deviation: sums of squares that do not cancel."""
    values = np.asarray(values, dtype=np.float64)
    centred = values - values.mean() if len(values) else values
    largest = float(np.abs(centred).max(initial=0.0))
    return centred / largest if largest else centred


def _deviations(totals: Floats) -> tuple[Floats, Floats]:
    """(Sxx, Syy, Sxy) as (n, 3), and sqrt(Sxx Syy) (n,), 0 where one is nothing but rounding."""
    n, x, y, xx, yy, xy = totals.T
    sxx, syy = xx - ratio(x * x, n), yy - ratio(y * y, n)
    sxy = xy - ratio(x * y, n)
    varies = (sxx > NOTHING * n) & (syy > NOTHING * n)
    size = np.sqrt(np.where(varies, sxx * syy, 0.0))
    return np.column_stack([sxx, syy, sxy]), size
