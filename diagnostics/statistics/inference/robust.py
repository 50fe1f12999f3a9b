"""Cluster-robust errors without draws: CR1, CR2 and CR3 from cross-products per cluster.

For a coefficient (`sandwich` has the algebra), with G clusters, N rows and p columns:

    cr1  statsmodels' clustered error, with the factor G / (G - 1) (N - 1) / (N - p); t with G - 1
         degrees of freedom
    cr2  Bell and McCaffrey 2002, Pustejovsky and Tipton 2018 (doi:10.1080/07350015.2016.1247004):
         unbiased when errors are alike and independent; t with Satterthwaite degrees of freedom
         under that working model
    cr3  the jackknife about the full sample's value, with the factor (G - 1) / G (MacKinnon,
         Nielsen and Webb 2023, arXiv:2301.04527); t with G - 1

A pooled mean is the coefficient of a constant. Numbers that are no coefficients (gaps, R^2, those
with z-scores redone) have the linearised error with G / (G - 1) as cr1, and the jackknife as cr3.
Clusters without rows do not count. A coefficient that one prompt alone determines has no error: its
spread between prompts is not seen. Not covered: several ways of clustering at one time, wild
bootstraps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.inference.bootstrap import LEVEL, Interval, no_interval
from diagnostics.statistics.inference.estimators import Estimator, Mean, estimate, influence
from diagnostics.statistics.inference.least_squares import Contrast, LeastSquares
from diagnostics.statistics.inference.normal_equations import squares
from diagnostics.statistics.inference.sandwich import (
    Pieces,
    alone,
    pieces_of,
    satterthwaite,
    variance,
)
from diagnostics.statistics.inference.sandwich import RobustKind as RobustKind

ROBUST: tuple[RobustKind, ...] = ("cr1", "cr2", "cr3")


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustError:
    """Fields: `error` standard error, in the number's unit; `degrees` of freedom of its t."""

    error: float
    degrees: float

    def p_value(self, value: float) -> float:
        """Two-sided p value of 0, for an estimate `value`."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees, -abs(value) / self.error))

    def half_width(self) -> float:
        """Half of the 95 % t interval."""
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees, (1 + LEVEL) / 2)) * self.error


class _Lacking(InputError):
    """A number that has no error: `reason` is what its interval says."""

    def __init__(self, reason: str, *, expected: str, got: str, fix: str) -> None:
        super().__init__(where="cluster-robust error", expected=expected, got=got, fix=fix)
        self.reason = reason


def robust_error(estimator: Estimator, index: int, kind: RobustKind) -> RobustError:
    """The cluster-robust error of one number of an estimator.

    Raises InputError for cr2 of a number that is no coefficient, for fewer than two clusters, and
    where there is no value without one of the clusters.
    """
    return _error(estimator, index, kind, {})


def robust_interval(estimator: Estimator, kind: RobustKind, index: int = 0) -> Interval:
    """The 95 % t interval of one number; none, with a reason, where it has no error."""
    interval, _ = _interval(estimator, index, kind, {})
    return interval


def robust_table(estimator: Estimator, kinds: Sequence[RobustKind] = ROBUST) -> pd.DataFrame:
    """All numbers by all kinds, a row each.

    Columns: name, kind, estimate, low, high, error, degrees, p (two-sided, of 0), reason (why the
    others are NaN, else empty).
    """
    rows, shared = [], dict[str, Pieces]()
    for index, name in enumerate(estimator.names):
        for kind in kinds:
            interval, found = _interval(estimator, index, kind, shared)
            rows.append(
                {
                    "name": name,
                    "kind": kind,
                    "estimate": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "error": found.error if found else np.nan,
                    "degrees": found.degrees if found else np.nan,
                    "p": found.p_value(interval.estimate) if found else np.nan,
                    "reason": interval.reason,
                }
            )
    return pd.DataFrame(rows)


def _interval(
    estimator: Estimator, index: int, kind: RobustKind, shared: dict[str, Pieces]
) -> tuple[Interval, RobustError | None]:
    """An interval and its error; `shared` keeps the pieces of models for the next number."""
    value, clusters = float(estimate(estimator)[index]), int(occupied(estimator).sum())
    if clusters < 2:
        return no_interval(value, clusters, kind), None
    try:
        found = _error(estimator, index, kind, shared)
    except _Lacking as lacking:
        return Interval(value, np.nan, np.nan, lacking.reason, kind), None
    if not found.error > 0:
        return Interval(value, np.nan, np.nan, "no spread between prompts", kind), None
    half = found.half_width()
    return Interval(value, value - half, value + half, "", kind), found


def _error(
    estimator: Estimator, index: int, kind: RobustKind, shared: dict[str, Pieces]
) -> RobustError:
    clusters, name = int(occupied(estimator).sum()), estimator.names[index]
    if clusters < 2:
        raise _Lacking(
            f"{clusters} prompt: no interval from one cluster",
            expected="at least two prompts",
            got=f"{clusters}",
            fix="build a bank of more prompts",
        )
    if not np.isfinite(estimate(estimator)[index]):
        raise _Lacking("no value", expected=f"a value of {name}", got="none", fix="add positions")
    found = _coefficient(estimator, index)
    if found is None:
        return _smooth(estimator, index, kind, clusters)
    return _linear(*found, kind, clusters, shared)


def occupied(estimator: Estimator) -> NDArray[np.bool_]:
    """Which clusters have rows, (clusters,)."""
    return np.asarray((estimator.sums != 0).any(axis=1))


def _coefficient(estimator: Estimator, index: int) -> tuple[LeastSquares, Contrast] | None:
    """The model and the contrast of a number that is linear in the outcome, else None."""
    if isinstance(estimator, Mean):
        contrast = Contrast(name=estimator.name, model="mean", weights={}, constant=1.0)
        unused = np.zeros(len(estimator.total))  # the outcome's own square
        sums = np.column_stack([estimator.count, estimator.total, unused])
        models: dict[str, tuple[str, ...]] = {"mean": ()}
        return LeastSquares(
            predictors=(), sums=sums, models=models, contrasts=(contrast,)
        ), contrast
    if not isinstance(estimator, LeastSquares) or estimator.redo:
        return None
    contrast = estimator.contrasts[index]
    return None if contrast.over is not None else (estimator, contrast)


def _linear(
    estimator: LeastSquares,
    contrast: Contrast,
    kind: RobustKind,
    clusters: int,
    shared: dict[str, Pieces],
) -> RobustError:
    """The error of a coefficient."""
    columns, weights = estimator.columns(contrast.model), estimator.weights(contrast)
    square = squares(estimator.sums)  # (w, w, clusters)
    if contrast.model not in shared:
        beta = estimator.fit(square.sum(axis=2)[:, :, None], contrast.model).beta[:, 0]
        own = np.moveaxis(square[np.ix_(columns, columns)], 2, 0)
        shared[contrast.model] = pieces_of(own, square[columns, -1].T, beta)
    pieces = shared[contrast.model]
    _require_all(~alone(pieces, weights), contrast.name, "build a bank of more prompts")
    rows, size = float(square[0, 0].sum()), len(columns)
    factor = {
        "cr1": clusters / (clusters - 1) * (rows - 1) / (rows - size),
        "cr2": 1.0,
        "cr3": (clusters - 1) / clusters,
    }[kind]
    degrees = satterthwaite(pieces, weights) if kind == "cr2" else clusters - 1
    return _root(factor * variance(pieces, weights, kind), degrees)


def _smooth(estimator: Estimator, index: int, kind: RobustKind, clusters: int) -> RobustError:
    """The error of a number that is no coefficient: linearised, or by the jackknife."""
    name = estimator.names[index]
    if kind == "cr2":
        raise _Lacking(
            "cr2 is of coefficients alone",
            expected="a coefficient for cr2",
            got=name,
            fix="ask for cr1 or cr3",
        )
    if kind == "cr1":
        effects = influence(estimator, index)
        return _root(clusters / (clusters - 1) * (effects**2).sum(), clusters - 1)
    sums = estimator.sums[occupied(estimator)]
    left_out = estimator.value(sums.sum(axis=0) - sums)[:, index]
    _require_all(np.isfinite(left_out), name, "ask for cr1, or build a bank of more prompts")
    away = left_out - estimate(estimator)[index]
    return _root((clusters - 1) / clusters * (away**2).sum(), clusters - 1)


def _require_all(fine: NDArray[np.bool_], name: str, fix: str) -> None:
    """Refuses a number that is not `fine` (clusters,) without some cluster."""
    lacking = int(np.count_nonzero(~fine))
    if lacking:
        raise _Lacking(
            f"no value without one of {lacking} prompts",
            expected=f"a value of {name} without any one prompt",
            got=f"none without one of {lacking} prompts",
            fix=fix,
        )


def _root(total: float, degrees: float) -> RobustError:
    return RobustError(error=float(np.sqrt(total)), degrees=degrees)
