"""Least squares of many totals at one time: LDL' of normal matrices, vectorised over draws.

Arrays in, arrays out: totals of cross-products of [1, predictors, outcome] give coefficients, R^2
and their derivatives. A model whose columns the totals do not tell apart (collinear, a level or all
rows missing in the draw) has NaN. Not covered: what is estimated and standardised
(`least_squares`).

Axes: `w` columns [1, predictors, outcome], `m` = w (w + 1) / 2 sums, `n` sets of totals,
`p` columns of one model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.inference.estimators import Floats, ratio

COLLINEAR = 1e-10  # share of a predictor's variance that is left beside the earlier ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Fits of one model to n sets of totals; NaN where it is collinear or has no rows.

    Fields: `columns` (p,) of the w; `beta` (p, n); `r2` (n,); `rss` and `tss` (n,) residual and
    total sums of squares, the latter about the mean or, not `about_mean`, about 0; `lower`
    (p, p, n) and `pivots` (p, n) of the normal matrix L D L'.
    """

    columns: list[int]
    beta: Floats
    r2: Floats
    rss: Floats
    tss: Floats
    lower: Floats
    pivots: Floats
    about_mean: bool

    def of(self, column: int) -> Floats:
        """The coefficient of one of the w columns, (n,)."""
        return np.asarray(self.beta[self.columns.index(column)])

    def solve(self, right: Floats) -> Floats:
        """Solutions (p, n) of the normal equations for right-hand sides (p, n)."""
        return substitute(self.lower, self.pivots, right)

    def residual_row(self, width: int) -> Floats:
        """(w, n): -beta at the model's columns, 1 at the outcome: row times it is the residual."""
        row = np.zeros((width, self.beta.shape[1]))
        row[self.columns], row[-1] = -self.beta, 1.0
        return row


def fit(square: Floats, columns: list[int], *, about_mean: bool = True) -> Fit:
    """Least squares of the last column on `columns` from totals (w, w, n)."""
    normal, moment = square[np.ix_(columns, columns)], square[columns, -1]
    lower, pivots = factor(normal)
    fine = _told_apart(normal, pivots).all(axis=0)
    beta = substitute(lower, np.where(fine, pivots, np.nan), moment)
    tss = square[-1, -1] - (ratio(square[0, -1] ** 2, square[0, 0]) if about_mean else 0.0)
    rss = square[-1, -1] - np.einsum("pn,pn->n", beta, moment)
    return Fit(
        columns=columns,
        beta=beta,
        r2=1 - ratio(rss, tss),
        rss=rss,
        tss=tss,
        lower=lower,
        pivots=pivots,
        about_mean=about_mean,
    )


def undetermined(square: Floats, columns: list[int]) -> NDArray[np.int64]:
    """The first of `columns` that those before it determine, by place, (n,); -1 for none.

    From totals (w, w, n). No rows at all count against the first column.
    """
    normal = square[np.ix_(columns, columns)]
    fine = _told_apart(normal, factor(normal)[1])
    return np.where(fine.all(axis=0), -1, np.argmin(fine, axis=0))


def _told_apart(normal: Floats, pivots: Floats) -> NDArray[np.bool_]:
    """Whether each column varies beside the earlier ones, (p, n); False for NaN and no rows."""
    return np.asarray(pivots > COLLINEAR * np.einsum("iin->in", normal))


def squares(totals: Floats) -> Floats:
    """Symmetric matrices (w, w, n) from upper triangles (n, m)."""
    width = int((np.sqrt(8 * totals.shape[1] + 1) - 1) / 2)
    place = np.zeros((width, width), dtype=np.int64)
    place[np.triu_indices(width)] = np.arange(totals.shape[1])
    place = np.maximum(place, place.T)
    return np.ascontiguousarray(totals.T)[place]


def triangles(inner: Floats, *, whole: bool = False) -> Floats:
    """Upper triangles (n, m) of matrices (w, w, n).

    A derivative by a symmetric matrix is the sum of those by its two equal entries; `whole` takes
    the entries of a symmetric matrix as they are.
    """
    rows, columns = np.triu_indices(len(inner))
    if whole:
        return np.ascontiguousarray(inner[rows, columns].T)
    both = inner[rows, columns] + inner[columns, rows]
    both[rows == columns] /= 2
    return np.ascontiguousarray(both.T)


def factor(normal: Floats) -> tuple[Floats, Floats]:
    """Unit lower triangles (p, p, n) and pivots (p, n) of matrices (p, p, n): L D L'."""
    size = len(normal)
    lower = np.zeros_like(normal)
    pivots = np.empty(normal.shape[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        for j in range(size):
            scaled = lower[j, :j] * pivots[:j]
            pivots[j] = normal[j, j] - (lower[j, :j] * scaled).sum(axis=0)
            lower[j, j] = 1.0
            for i in range(j + 1, size):
                lower[i, j] = (normal[i, j] - (lower[i, :j] * scaled).sum(axis=0)) / pivots[j]
    return lower, pivots


def substitute(lower: Floats, pivots: Floats, right: Floats) -> Floats:
    """Solutions (p, n) of L D L' x = right."""
    size, x = len(lower), right.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(1, size):
            x[i] -= (lower[i, :i] * x[:i]).sum(axis=0)
        x /= pivots
        for i in range(size - 2, -1, -1):
            x[i] -= (lower[i + 1 :, i] * x[i + 1 :]).sum(axis=0)
    return x


def r2_gradient(square: Floats, found: Fit) -> Floats:
    """Derivative (w, w, n) of R^2 = 1 - RSS / TSS; RSS moves as r' S r at fixed r (envelope)."""
    row = found.residual_row(len(square))
    centre = np.zeros_like(row)
    centre[-1] = 1.0
    if found.about_mean:
        centre[0] = -ratio(square[0, -1], square[0, 0])
    by_rss, by_tss = -1 / found.tss, found.rss / found.tss**2
    return np.asarray(by_rss * row[:, None] * row[None] + by_tss * centre[:, None] * centre[None])


def deviation(square: Floats, column: int) -> Floats:
    """Standard deviation (ddof 0) of one of the w columns, (n,)."""
    mean = ratio(square[0, column], square[0, 0])
    return np.asarray(np.sqrt(np.maximum(ratio(square[column, column], square[0, 0]) - mean**2, 0)))


def log_deviation_gradient(square: Floats, column: int) -> Floats:
    """Derivative (w, w, n) of log `deviation`."""
    n, first, second = square[0, 0], square[0, column], square[column, column]
    variance = ratio(second, n) - ratio(first, n) ** 2
    inner = np.zeros_like(square)
    inner[0, 0] = (-second / n**2 + 2 * first**2 / n**3) / (2 * variance)
    inner[0, column] = -2 * first / n**2 / (2 * variance)
    inner[column, column] = 1 / n / (2 * variance)
    return inner
