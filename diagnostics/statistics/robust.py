"""Cluster-robust errors without draws: CR1, CR2 and CR3 from cross-products per cluster.

For a coefficient c'b of least squares with clusters g, N_g = X_g'X_g and A = sum of N_g:

    cr1  sum of (c'A^-1 X_g'e_g)^2, times G / (G - 1) (N - 1) / (N - p): what statsmodels gives;
         t with G - 1 degrees of freedom
    cr2  residuals times (I - H_gg)^(-1/2) (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018,
         doi:10.1080/07350015.2016.1247004), unbiased when errors are alike and independent; t with
         Satterthwaite degrees of freedom under that working model
    cr3  the jackknife: (G - 1) / G times the sum of (c'b without g - c'b)^2; t with G - 1

H_gg = X_g A^-1 X_g' is as large as a cluster, but X_g' f(H_gg) = f(N_g A^-1) X_g', so matrices of
the size of a model do (p x p). Numbers that are no coefficients (means, gaps, R^2) have the
linearised error with G / (G - 1) as cr1, and the jackknife as cr3. Not covered: several ways of
clustering at one time, wild bootstraps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from diagnostics.errors import InputError
from diagnostics.statistics.bootstrap import LEVEL, Interval, no_interval, standard_error
from diagnostics.statistics.estimators import Estimator, Floats, estimate, without_each
from diagnostics.statistics.least_squares import LeastSquares, fit, squares

RobustKind = Literal["cr1", "cr2", "cr3"]
ROBUST: tuple[RobustKind, ...] = ("cr1", "cr2", "cr3")
FULL_LEVERAGE = 1e-8  # 1 - leverage below this: a direction that one cluster alone determines


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustError:
    """Fields: `error` standard error, in the number's unit; `degrees` of freedom of its t."""

    error: float
    degrees: float

    def p_value(self, value: float) -> float:
        """Two-sided p value of 0, for an estimate `value`."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees, -abs(value) / self.error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """One coefficient c'b: `whiten` R with R'R = A^-1 (p, p); `own` R N_g R' (clusters, p, p);
    `scores` R X_g'e_g (clusters, p); `direction` R^-T A^-1 c (p,); `rows`, all of them."""

    whiten: Floats
    own: Floats
    scores: Floats
    direction: Floats
    rows: float


def robust_error(estimator: Estimator, index: int, kind: RobustKind) -> RobustError:
    """The cluster-robust error of one number of an estimator.

    Raises InputError for cr2 of a number that is no coefficient, for fewer than two clusters, and
    where the jackknife has no value without one of the clusters.
    """
    clusters = len(estimator.sums)
    if clusters < 2:
        raise _refused("at least two prompts", f"{clusters}", "build a bank of more prompts")
    if kind == "cr3":
        return _jackknife(estimator, index)
    if not _is_coefficient(estimator, index):
        if kind == "cr2":
            raise _refused("a coefficient for cr2", estimator.names[index], "ask for cr1 or cr3")
        return RobustError(error=standard_error(estimator, index), degrees=clusters - 1)
    assert isinstance(estimator, LeastSquares)
    pieces = _pieces(estimator, index)
    if kind == "cr1":
        effects = pieces.scores @ pieces.direction
        size = len(pieces.direction)
        factor = clusters / (clusters - 1) * (pieces.rows - 1) / (pieces.rows - size)
        return RobustError(error=_root(factor * (effects**2).sum()), degrees=clusters - 1)
    return _bell_mccaffrey(pieces)


def robust_interval(estimator: Estimator, kind: RobustKind, index: int = 0) -> Interval:
    """The 95 % t interval of one number; none, with a reason, for fewer than two clusters."""
    from scipy.special import stdtrit

    value = float(estimate(estimator)[index])
    clusters = len(estimator.sums)
    if clusters < 2:
        return no_interval(value, clusters, kind)
    found = robust_error(estimator, index, kind)
    if not found.error > 0:
        return Interval(value, np.nan, np.nan, "no spread between prompts", kind)
    half = float(stdtrit(found.degrees, (1 + LEVEL) / 2)) * found.error
    return Interval(value, value - half, value + half, "", kind)


def _is_coefficient(estimator: Estimator, index: int) -> bool:
    """Whether a number is linear in the outcome at fixed predictors: a sum of coefficients."""
    return isinstance(estimator, LeastSquares) and estimator.contrasts[index].over is None


def _jackknife(estimator: Estimator, index: int) -> RobustError:
    left_out = without_each(estimator)[:, index]
    clusters = len(left_out)
    if not np.isfinite(left_out).all():
        lacking = int(np.count_nonzero(~np.isfinite(left_out)))
        raise _refused(
            f"a value of {estimator.names[index]} without any one prompt",
            f"none without one of {lacking} prompts",
            "ask for cr1, or build a bank of more prompts",
        )
    away = left_out - estimate(estimator)[index]
    return RobustError(
        error=_root((clusters - 1) / clusters * float((away**2).sum())), degrees=clusters - 1
    )


def _pieces(estimator: LeastSquares, index: int) -> _Pieces:
    contrast = estimator.contrasts[index]
    columns = estimator.columns(contrast.model)
    own = np.moveaxis(squares(estimator.sums)[np.ix_(columns, columns)], 2, 0)  # (clusters, p, p)
    moments = squares(estimator.sums)[columns, -1].T  # (clusters, p)
    total = squares(estimator.sums.sum(axis=0, keepdims=True))
    beta = fit(total, columns).beta[:, 0]
    weights = np.zeros(len(columns))
    for name, weight in contrast.weights.items():
        weights[columns.index(1 + estimator.predictors.index(name))] = weight
    lower = np.linalg.cholesky(own.sum(axis=0))
    whiten = np.linalg.inv(lower)
    return _Pieces(
        whiten=whiten,
        own=whiten @ own @ whiten.T,
        scores=(moments - own @ beta) @ whiten.T,
        direction=whiten @ weights,
        rows=float(own[:, 0, 0].sum()),
    )


def _bell_mccaffrey(pieces: _Pieces) -> RobustError:
    """CR2 and its degrees of freedom.

    With d = L^-1 c and M_g = L^-1 N_g L^-T, cluster g's effect is d' f(M_g) L^-1 X_g'e_g with
    f(z) = (1 - z)^(-1/2), pseudo-inverted where z = 1. Under the working model the effects have the
    covariance delta_gh d'f M_g f d - (f M_g d)'(f M_h d); the estimate's variance being the sum of
    squared effects, its degrees of freedom are (trace)^2 / (trace of the square).
    """
    leverage, basis = np.linalg.eigh(pieces.own)  # (clusters, p), (clusters, p, p)
    left = 1.0 - leverage
    root = np.where(left > FULL_LEVERAGE, 1.0 / np.sqrt(np.maximum(left, FULL_LEVERAGE)), 0.0)
    along = np.einsum("gij,i->gj", basis, pieces.direction)  # d in each cluster's own basis
    adjusted = np.einsum("gij,gj->gi", basis, root * along)  # f(M_g) d
    effects = np.einsum("gi,gi->g", adjusted, pieces.scores)
    own = (root**2 * leverage * along**2).sum(axis=1)
    shared = np.einsum("gij,gj->gi", basis, root * leverage * along)  # f M_g d
    overlap = shared @ shared.T
    diagonal = own - np.diagonal(overlap)
    square = (overlap**2).sum() - (np.diagonal(overlap) ** 2).sum() + (diagonal**2).sum()
    return RobustError(
        error=_root(float((effects**2).sum())), degrees=float(diagonal.sum() ** 2 / square)
    )


def _root(variance: float) -> float:
    return float(np.sqrt(variance))


def _refused(expected: str, got: str, fix: str) -> InputError:
    return InputError(where="cluster-robust error", expected=expected, got=got, fix=fix)
