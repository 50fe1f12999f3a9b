"""Least squares from summed cross-products: coefficients and R^2 as functions of sums per cluster.

Rows are reduced once to cross-products of [1, predictors, outcome] per cluster. Every model over
those predictors, in every draw, is then a small solve, done for all draws at one time (LDL' of the
normal matrix: `normal_equations`). Columns are centred first, since uncentred products lose digits.
Coefficients are per standard deviation (ddof 0) of the full sample, or of the draw where `redo` is
set. Not covered: weights, ridge, clustered analytic errors (`robust`).

Axes: `q` predictors, `w` = q + 2 columns [1, predictors, outcome], `m` = w (w + 1) / 2 sums,
`n` sets of totals, `p` columns of one model with its constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.inference.estimators import Floats
from diagnostics.statistics.inference.normal_equations import (
    Fit,
    deviation,
    fit,
    log_deviation_gradient,
    r2_gradient,
    squares,
    triangles,
    undetermined,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A number of one fit: a sum of its coefficients, or its R^2 over another model's.

    Fields: `name`; `model`; `weights` of predictors, by name; `over` a model whose R^2 is taken
    from this one's (then `weights` is empty; "" takes nothing off); `constant` the weight of the
    model's constant and `offset` a number that is added, both for columns that were centred.
    """

    name: str
    model: str
    weights: Mapping[str, float]
    over: str | None = None
    constant: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquares:
    """An estimator (`estimators.Estimator`) of numbers from one or more models.

    Fields: `predictors` (q,) names; `sums` (clusters, m) upper triangles of the cross-products of
    [1, predictors, outcome], standardised; `models` by name, the predictors of each; `contrasts`
    what is estimated; `redo` whether z-scores are taken anew in each draw; `scaled` whether the
    outcome is z-scored too (it matters with `redo` alone); `constant` whether models have one;
    `about_mean` whether R^2 compares with the mean, or with 0.
    """

    predictors: tuple[str, ...]
    sums: Floats
    models: Mapping[str, tuple[str, ...]]
    contrasts: tuple[Contrast, ...]
    redo: bool = False
    scaled: bool = False
    constant: bool = True
    about_mean: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """What is estimated, (s,)."""
        return tuple(contrast.name for contrast in self.contrasts)

    def columns(self, model: str) -> list[int]:
        """Which of the w columns a model has: the constant, if any, then its predictors."""
        first = [0] if self.constant else []
        return first + [1 + self.predictors.index(name) for name in self.models[model]]

    def weights(self, contrast: Contrast) -> Floats:
        """The weights of a contrast's coefficients at full-sample scales, (p,)."""
        columns = self.columns(contrast.model)
        out = np.zeros(len(columns))
        for name, weight in contrast.weights.items():
            out[columns.index(self._place(name))] = weight
        if contrast.constant:
            out[columns.index(0)] = contrast.constant
        return out

    def fit(self, square: Floats, model: str) -> Fit:
        """One model's fits to totals (w, w, n)."""
        return fit(square, self.columns(model), about_mean=self.about_mean)

    def value(self, totals: Floats) -> Floats:
        """The numbers (n, s) at totals (n, m); NaN where a model is collinear or has no rows."""
        square = squares(totals)
        fits = {name: self.fit(square, name) for name in self._used()}
        return np.column_stack([self._number(c, square, fits) for c in self.contrasts])

    def gradient(self, totals: Floats, index: int) -> Floats:
        """Derivatives (n, m) of number `index` by each sum."""
        contrast, square = self.contrasts[index], squares(totals)
        if contrast.over is not None:
            inner = r2_gradient(square, self.fit(square, contrast.model))
            if contrast.over:
                inner = inner - r2_gradient(square, self.fit(square, contrast.over))
            return triangles(inner)
        return triangles(self._contrast_gradient(contrast, square))

    def _used(self) -> set[str]:
        return {m for c in self.contrasts for m in (c.model, c.over) if m}

    def _number(self, contrast: Contrast, square: Floats, fits: Mapping[str, Fit]) -> Floats:
        found = fits[contrast.model]
        if contrast.over is not None:
            return found.r2 - fits[contrast.over].r2 if contrast.over else found.r2
        out = np.full(square.shape[2], contrast.offset)
        for name, weight in contrast.weights.items():
            out += weight * found.of(self._place(name)) * self._scale(square, name)
        if contrast.constant:
            out += contrast.constant * found.of(0)
        return out

    def _place(self, name: str) -> int:
        return 1 + self.predictors.index(name)

    def _scale(self, square: Floats, name: str) -> Floats:
        """What turns a coefficient into one per standard deviation, (n,)."""
        if not self.redo:
            return np.ones(square.shape[2])
        spread = deviation(square, self._place(name))
        return spread / deviation(square, -1) if self.scaled else spread

    def _contrast_gradient(self, contrast: Contrast, square: Floats) -> Floats:
        found = self.fit(square, contrast.model)
        scales = {name: self._scale(square, name) for name in contrast.weights}
        wanted = np.repeat(self.weights(contrast)[:, None], square.shape[2], axis=1)
        for name, scale in scales.items():
            wanted[found.columns.index(self._place(name))] *= scale
        direction = np.zeros(square.shape[1:])
        direction[found.columns] = found.solve(wanted)
        inner = direction[:, None] * found.residual_row(len(square))[None, :]
        if self.redo:  # the scale moves too
            for name, weight in contrast.weights.items():
                beta = weight * found.of(self._place(name)) * scales[name]
                inner += beta * log_deviation_gradient(square, self._place(name))
                if self.scaled:
                    inner -= beta * log_deviation_gradient(square, len(square) - 1)
        return inner


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
    sums: Floats,
    names: Sequence[str],
    models: Sequence[Sequence[str]],
    *,
    constant: bool = True,
    where: str = "regression",
    fix: str = "score more contexts, or choose another scope or support size",
) -> None:
    """Refuses models with collinear predictors in the full sample; names the first such one."""
    square = squares(sums.sum(axis=0, keepdims=True))
    for model in models:
        columns = ([0] if constant else []) + [1 + names.index(name) for name in model]
        place = int(undetermined(square, columns)[0])
        if place >= 0:
            raise InputError(
                where=where,
                expected=f"independent predictors among {', '.join(model)}",
                got=f"`{names[columns[place] - 1]}`, which the ones before it determine",
                fix=fix,
            )
