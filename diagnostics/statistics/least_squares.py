"""Least squares from summed cross-products: coefficients and R^2 as functions of sums per cluster.

Rows are reduced once to cross-products of [1, predictors, outcome] per cluster. Every model over
those predictors, in every draw, is then a small solve, done for all draws at one time (LDL' of the
normal matrix, vectorised over draws). Columns are centred first, since uncentred products lose
digits. Coefficients are per standard deviation (ddof 0) of the full sample, or of the draw where
`redo` is set. Not covered: weights, ridge, clustered analytic errors (`robust`).

Axes: `q` predictors, `w` = q + 2 columns [1, predictors, outcome], `m` = w (w + 1) / 2 sums,
`n` sets of totals, `p` columns of one model with its constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.estimators import Floats, ratio

COLLINEAR = 1e-10  # share of a predictor's variance that is left beside the earlier ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A number of one fit: a sum of its coefficients, or its R^2 over another model's.

    Fields: `name`; `model`; `weights` of predictors, by name; `over` a model whose R^2 is taken
    from this one's (then `weights` is empty; "" takes nothing off).
    """

    name: str
    model: str
    weights: Mapping[str, float]
    over: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquares:
    """An estimator (`estimators.Estimator`) of numbers from one or more models.

    Fields: `predictors` (q,) names; `sums` (clusters, m) upper triangles of the cross-products of
    [1, predictors, outcome], standardised; `models` by name, the predictors of each; `contrasts`
    what is estimated; `redo` whether z-scores are taken anew in each draw; `scaled` whether the
    outcome is z-scored too (it matters with `redo` alone).
    """

    predictors: tuple[str, ...]
    sums: Floats
    models: Mapping[str, tuple[str, ...]]
    contrasts: tuple[Contrast, ...]
    redo: bool = False
    scaled: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What is estimated, (s,)."""
        return tuple(contrast.name for contrast in self.contrasts)

    def columns(self, model: str) -> list[int]:
        """Which of the w columns a model has: the constant, then its predictors."""
        return [0, *(1 + self.predictors.index(name) for name in self.models[model])]

    def value(self, totals: Floats) -> Floats:
        """The numbers (n, s) at totals (n, m); NaN where a model is collinear or has no rows."""
        square = squares(totals)
        fits = {name: fit(square, self.columns(name)) for name in self._used()}
        return np.column_stack([self._number(c, square, fits) for c in self.contrasts])

    def gradient(self, totals: Floats, index: int) -> Floats:
        """Derivatives (n, m) of number `index` by each sum."""
        contrast, square = self.contrasts[index], squares(totals)
        if contrast.over is not None:
            inner = _r2_gradient(square, fit(square, self.columns(contrast.model)))
            if contrast.over:
                inner = inner - _r2_gradient(square, fit(square, self.columns(contrast.over)))
            return triangles(inner)
        return triangles(self._contrast_gradient(contrast, square))

    def _used(self) -> set[str]:
        return {m for c in self.contrasts for m in (c.model, c.over) if m}

    def _number(self, contrast: Contrast, square: Floats, fits: Mapping[str, Fit]) -> Floats:
        found = fits[contrast.model]
        if contrast.over is not None:
            return found.r2 - fits[contrast.over].r2 if contrast.over else found.r2
        out = np.zeros(square.shape[2])
        for name, weight in contrast.weights.items():
            out += weight * found.of(self._place(name)) * self._scale(square, name)
        return out

    def _place(self, name: str) -> int:
        return 1 + self.predictors.index(name)

    def _scale(self, square: Floats, name: str) -> Floats:
        """What turns a coefficient into one per standard deviation, (n,)."""
        if not self.redo:
            return np.ones(square.shape[2])
        spread = _deviation(square, self._place(name))
        return spread / _deviation(square, -1) if self.scaled else spread

    def _contrast_gradient(self, contrast: Contrast, square: Floats) -> Floats:
        found = fit(square, self.columns(contrast.model))
        scales = {name: self._scale(square, name) for name in contrast.weights}
        wanted = np.zeros((len(found.columns), square.shape[2]))
        for name, weight in contrast.weights.items():
            wanted[found.columns.index(self._place(name))] = weight * scales[name]
        direction = np.zeros(square.shape[1:])
        direction[found.columns] = found.solve(wanted)
        inner = direction[:, None] * found.residual_row(len(square))[None, :]
        if self.redo:  # the scale moves too
            for name, weight in contrast.weights.items():
                beta = weight * found.of(self._place(name)) * scales[name]
                inner += beta * _log_deviation_gradient(square, self._place(name))
                if self.scaled:
                    inner -= beta * _log_deviation_gradient(square, len(square) - 1)
        return inner


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Fits of one model to n sets of totals; NaN where it is collinear or has no rows.

    Fields: `columns` (p,) of the w; `beta` (p, n); `r2` (n,); `rss` and `tss` (n,) residual and
    total sums of squares; `lower` (p, p, n) and `pivots` (p, n) of the normal matrix L D L'.
    """

    columns: list[int]
    beta: Floats
    r2: Floats
    rss: Floats
    tss: Floats
    lower: Floats
    pivots: Floats

    def of(self, column: int) -> Floats:
        """The coefficient of one of the w columns, (n,)."""
        return np.asarray(self.beta[self.columns.index(column)])

    def solve(self, right: Floats) -> Floats:
        """Solutions (p, n) of the normal equations for right-hand sides (p, n)."""
        return _substitute(self.lower, self.pivots, right)

    def residual_row(self, width: int) -> Floats:
        """(w, n): -beta at the model's columns, 1 at the outcome: row times it is the residual."""
        row = np.zeros((width, self.beta.shape[1]))
        row[self.columns], row[-1] = -self.beta, 1.0
        return row


def fit(square: Floats, columns: list[int]) -> Fit:
    """Least squares of the last column on `columns` from totals (w, w, n)."""
    normal, moment = square[np.ix_(columns, columns)], square[columns, -1]
    lower, pivots = _factor(normal)
    diagonal = np.einsum("iin->in", normal)
    fine = (pivots > COLLINEAR * diagonal).all(axis=0)  # False for NaN and for no rows
    beta = _substitute(lower, np.where(fine, pivots, np.nan), moment)
    tss = square[-1, -1] - ratio(square[0, -1] ** 2, square[0, 0])
    rss = square[-1, -1] - np.einsum("pn,pn->n", beta, moment)
    return Fit(
        columns=columns,
        beta=beta,
        r2=1 - ratio(rss, tss),
        rss=rss,
        tss=tss,
        lower=lower,
        pivots=pivots,
    )


def cross_sums(columns: Sequence[Floats], owner: NDArray[np.int64], clusters: int) -> Floats:
    """Sums per cluster of products of [1, *columns], (clusters, m), for columns (pos,) as given.

    The last column is the outcome. Centre columns first; sums over parts of the rows add up.
    """
    width = len(columns) + 1
    order = None if (owner[1:] >= owner[:-1]).all() else np.argsort(owner, kind="stable")
    table = np.ones((width, len(owner)))
    for place, column in enumerate(columns, 1):
        table[place] = column if order is None else column[order]
    sizes = np.bincount(owner, minlength=clusters)
    ends = np.cumsum(sizes)
    upper = np.triu_indices(width)
    square = np.zeros((clusters, width, width))
    for cluster in np.flatnonzero(sizes).tolist():
        block = table[:, ends[cluster] - sizes[cluster] : ends[cluster]]
        np.matmul(block, block.T, out=square[cluster])
    return square[:, upper[0], upper[1]]


def standardized(sums: Floats, names: Sequence[str], *, outcome: bool = False) -> Floats:
    """Cross-sums (clusters, m) of z-scored predictors and centred outcome, from any columns'.

    Mean and deviation (ddof 0) are those of all rows together. `outcome` z-scores the outcome too.
    Raises InputError for a predictor that does not vary.
    """
    total = squares(sums.sum(axis=0, keepdims=True))[:, :, 0]
    mean = total[0] / total[0, 0]
    spread = np.sqrt(np.maximum(np.diagonal(total) / total[0, 0] - mean**2, 0.0))
    scale = spread.copy()
    scale[0] = 1.0
    if not outcome:
        scale[-1] = 1.0
    for place in np.flatnonzero(scale <= 1e-12 * np.abs(mean)):
        raise _constant([*names, "outcome"][place - 1], float(mean[place]))
    change = np.diag(1 / scale)
    change[1:, 0] = -mean[1:] / scale[1:]
    moved = change @ np.moveaxis(squares(sums), 2, 0) @ change.T  # (clusters, w, w)
    return triangles(np.moveaxis(moved, 0, 2), whole=True)


def require_varied(values: Floats, name: str) -> None:
    """Refuses a column (pos,) of one value."""
    if values.min() == values.max():
        raise _constant(name, float(values[0]))


def _constant(name: str, value: float) -> InputError:
    return InputError(
        where="regression",
        expected=f"`{name}` to vary over the scope",
        got=f"{value:g} everywhere",
        fix="score more contexts, or choose another scope or support size",
    )


def require_independent(
    sums: Floats, names: Sequence[str], models: Sequence[Sequence[str]]
) -> None:
    """Refuses models with collinear predictors in the full sample; names the first such one."""
    square = squares(sums.sum(axis=0, keepdims=True))
    for model in models:
        columns = [0, *(1 + names.index(name) for name in model)]
        normal = square[np.ix_(columns, columns)]
        _, pivots = _factor(normal)
        fine = (pivots > COLLINEAR * np.einsum("iin->in", normal))[:, 0]
        if not fine.all():
            raise InputError(
                where="regression",
                expected=f"independent predictors among {', '.join(model)}",
                got=f"`{model[int(np.argmin(fine)) - 1]}`, which the ones before it determine",
                fix="score more contexts, or choose another scope or support size",
            )


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


def _factor(normal: Floats) -> tuple[Floats, Floats]:
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


def _substitute(lower: Floats, pivots: Floats, right: Floats) -> Floats:
    """Solutions (p, n) of L D L' x = right."""
    size, x = len(lower), right.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(1, size):
            x[i] -= (lower[i, :i] * x[:i]).sum(axis=0)
        x /= pivots
        for i in range(size - 2, -1, -1):
            x[i] -= (lower[i + 1 :, i] * x[i + 1 :]).sum(axis=0)
    return x


def _deviation(square: Floats, column: int) -> Floats:
    """Standard deviation (ddof 0) of one of the w columns, (n,)."""
    mean = ratio(square[0, column], square[0, 0])
    return np.asarray(np.sqrt(np.maximum(ratio(square[column, column], square[0, 0]) - mean**2, 0)))


def _log_deviation_gradient(square: Floats, column: int) -> Floats:
    """Derivative (w, w, n) of log `_deviation`."""
    n, first, second = square[0, 0], square[0, column], square[column, column]
    variance = ratio(second, n) - ratio(first, n) ** 2
    inner = np.zeros_like(square)
    inner[0, 0] = (-second / n**2 + 2 * first**2 / n**3) / (2 * variance)
    inner[0, column] = -2 * first / n**2 / (2 * variance)
    inner[column, column] = 1 / n / (2 * variance)
    return inner


def _r2_gradient(square: Floats, found: Fit) -> Floats:
    """Derivative (w, w, n) of R^2 = 1 - RSS / TSS; RSS moves as r' S r at fixed r (envelope)."""
    row = found.residual_row(len(square))
    centre = np.zeros_like(row)
    centre[0], centre[-1] = -ratio(square[0, -1], square[0, 0]), 1.0
    by_rss, by_tss = -1 / found.tss, found.rss / found.tss**2
    return np.asarray(by_rss * row[:, None] * row[None] + by_tss * centre[:, None] * centre[None])
