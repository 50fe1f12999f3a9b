"""Residuals of least squares on some columns, and their mean over some rows as an estimator.

Residuals of the full sample are plain numbers, (pos,). Where the regression is to be taken anew in
each draw, a bin's mean residual is still a function of sums per cluster: those of cross-products
over all rows, which give the coefficients, and those of the columns over the bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.inference.clusters import Clusters
from diagnostics.statistics.inference.estimators import Floats, ratio
from diagnostics.statistics.inference.least_squares import (
    cross_sums,
    require_independent,
    require_varied,
)
from diagnostics.statistics.inference.medians import refitted_medians
from diagnostics.statistics.inference.normal_equations import fit, squares, triangles
from diagnostics.statistics.tables.values import require_finite

CONTROLS = ("entropy_norm", "disagreement_norm", "relative_position", "teacher_entropy_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Fields: `values` (pos,) residuals, 0 outside the scope; `columns` (w, pos) the constant, the
    predictors and the outcome, centred over the scope; `beta` (w - 1,) coefficients; `cross`
    (clusters, m) cross-sums over the scope; `clusters`."""

    values: Floats
    columns: Floats
    beta: Floats
    cross: Floats
    clusters: Clusters

    def mean(self, rows: NDArray[np.bool_]) -> ResidualMean:
        """The mean over `rows` (pos,) of the scope, the regression taken anew in each draw."""
        owners = self.clusters.subset(rows)
        inside = [owners.sums(column[rows]) for column in self.columns]
        return ResidualMean(sums=np.column_stack([self.cross, *inside]), width=len(inside))

    def drawn_beta(self, bootstrap: Bootstrap) -> Floats:
        """The coefficients of each draw, (draws, w - 1); NaN where predictors are collinear."""
        return _beta(bootstrap.totals(self.cross))

    def medians(self, rows: NDArray[np.bool_], bootstrap: Bootstrap, drawn_beta: Floats) -> Floats:
        """The median over `rows` (pos,) of the scope in each draw, (draws,), with its own beta."""
        inside, owner = self.columns[:, rows], self.clusters.of_row[rows]
        found, done = [], 0
        for counts in bootstrap.blocks(self.clusters.count):
            beta = drawn_beta[done : done + len(counts)]
            done += len(counts)
            columns, outcome = inside[:-1], inside[-1]
            found.append(refitted_medians(columns, outcome, owner, counts, self.beta, beta))
        return np.concatenate(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualMean:
    """Mean residual over some rows of a regression over all: r'b / n, r = (-beta, 1).

    Fields: `sums` (clusters, m + w) cross-products of [1, predictors, outcome] over all rows, then
    sums b of these `width` columns over the rows that are meant.
    """

    sums: Floats
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        """The one number's name."""
        return ("residual",)

    def value(self, totals: Floats) -> Floats:
        """The mean residual, (n, 1); NaN without rows, or where predictors are collinear."""
        square, inside = self._parts(totals)
        row = fit(square, self._model).residual_row(self.width)
        return ratio((row * inside).sum(axis=0), inside[0])[:, None]

    def gradient(self, totals: Floats, index: int) -> Floats:
        """Derivatives (n, m + w): beta = A^-1 c moves as A^-1 dS r."""
        square, inside = self._parts(totals)
        found = fit(square, self._model)
        row = found.residual_row(self.width)
        shares = ratio(inside, inside[:1])  # (w, n)
        direction = np.zeros_like(row)
        direction[:-1] = found.solve(shares[:-1])
        by_cross = triangles(-direction[:, None] * row[None, :])
        by_inside = ratio(row, inside[:1])
        by_inside[0] -= ratio((row * inside).sum(axis=0), inside[0] ** 2)
        return np.hstack([by_cross, by_inside.T])

    @property
    def _model(self) -> list[int]:
        return list(range(self.width - 1))

    def _parts(self, totals: Floats) -> tuple[Floats, Floats]:
        """Cross-products (w, w, n) and sums over the rows that are meant (w, n)."""
        split = totals.shape[1] - self.width
        return squares(totals[:, :split]), np.ascontiguousarray(totals[:, split:].T)


def residuals(
    frame: pd.DataFrame,
    predictors: Sequence[str],
    rows: NDArray[np.bool_],
    outcome: Floats,
    clusters: Clusters,
) -> Residuals:
    """Residuals of `outcome` (pos,) on a constant and `predictors` over `rows` (pos,).

    Raises InputError for predictors that are not finite, constant or collinear.
    """
    columns = np.zeros((len(predictors) + 2, len(rows)))
    columns[0, rows] = 1.0
    for place, name in enumerate(predictors, 1):
        values = frame[name].to_numpy(dtype=np.float64)[rows]
        require_finite(values, name, frame, rows)
        require_varied(values, name)
        columns[place, rows] = values - values.mean()
    columns[-1, rows] = outcome[rows] - outcome[rows].mean()
    inner = [column[rows] for column in columns[1:]]
    cross = cross_sums(inner, clusters.of_row[rows], clusters.count)
    require_independent(cross, predictors, [predictors])
    beta = _beta(cross.sum(axis=0, keepdims=True))[0]
    left = columns[-1] - beta @ columns[:-1]
    return Residuals(values=left, columns=columns, beta=beta, cross=cross, clusters=clusters)


def _beta(totals: Floats) -> Floats:
    """Coefficients (n, w - 1) of all columns but the last at totals (n, m) of cross-products."""
    square = squares(totals)
    return np.ascontiguousarray(fit(square, list(range(len(square) - 1))).beta.T)
