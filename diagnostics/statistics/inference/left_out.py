"""A number and what it is without each prompt: all that its t interval, or a difference's, needs.

Two reports can be compared long after their runs are gone, if each left these behind. The error is
the jackknife's about the full sample's value, CR3 (`robust`), so an interval from here is that of
the sums, to the last digits. Paired, a prompt is left out of both numbers at one time; apart, the
variances add, and degrees of freedom are Welch and Satterthwaite's. Not covered: bootstraps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.inference.bootstrap import Interval, no_interval
from diagnostics.statistics.inference.estimators import Estimator, Floats, estimate, without_each
from diagnostics.statistics.inference.robust import RobustError, occupied

IDENTICAL = "identical"
NO_SPREAD = "no spread between prompts"

Names = NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """One number.

    Fields: `value`; `prompts` (clusters,) that have a part in it, sorted; `without` (clusters,) the
    number without each of them, in its unit.
    """

    value: float
    prompts: Names
    without: Floats = field(repr=False)

    def among(self, prompts: Names) -> Floats:
        """The number without each of some sorted prompts; itself without one that has no part."""
        out = np.full(len(prompts), self.value)
        out[np.searchsorted(prompts, self.prompts)] = self.without
        return out


def left_out(estimator: Estimator, prompts: Names) -> LeftOut:
    """A one-number estimator, reduced; `prompts` (clusters,) are the names of its sums, sorted."""
    rows = occupied(estimator)
    return LeftOut(
        value=float(estimate(estimator)[0]),
        prompts=np.asarray(prompts, dtype=object)[rows],
        without=without_each(estimator)[rows, 0],
    )


def own_interval(one: LeftOut) -> Interval:
    """The 95 % t interval of a number, as `robust_interval` with CR3."""
    return _interval(one.value, one.without, len(one.prompts))


def paired_difference(first: LeftOut, second: LeftOut) -> Interval:
    """first - second, a prompt left out of both at a time; 0 without width where identical."""
    prompts = np.union1d(first.prompts, second.prompts)
    one, two = first.among(prompts), second.among(prompts)
    value = first.value - second.value
    if value == 0 and np.array_equal(one, two, equal_nan=True):
        return Interval(0.0, 0.0, 0.0, IDENTICAL, "cr3")
    return _interval(value, one - two, len(prompts))


def apart_difference(first: LeftOut, second: LeftOut) -> Interval:
    """first - second of two banks that share no prompt."""
    value = first.value - second.value
    parts = [(jackknife_error(one), len(one.prompts)) for one in (first, second)]
    for one in (first, second):
        lacking = _lacking(one.value, one.without, len(one.prompts))
        if lacking is not None:
            return Interval(value, np.nan, np.nan, lacking.reason, "cr3")
    squares = [error**2 for error, _ in parts]
    total = sum(squares)
    if not total > 0:
        return Interval(value, np.nan, np.nan, NO_SPREAD, "cr3")
    spent = sum(v**2 / (count - 1) for v, (_, count) in zip(squares, parts, strict=True))
    return _around(value, RobustError(error=float(np.sqrt(total)), degrees=total**2 / spent))


def jackknife_error(one: LeftOut) -> float:
    """The standard error of a number, in its unit; NaN for fewer than two prompts."""
    return _error(one.value, one.without, len(one.prompts))


def _error(value: float, without: Floats, clusters: int) -> float:
    if clusters < 2:
        return float("nan")
    return float(np.sqrt((clusters - 1) / clusters * ((without - value) ** 2).sum()))


def _interval(value: float, without: Floats, clusters: int) -> Interval:
    lacking = _lacking(value, without, clusters)
    if lacking is not None:
        return lacking
    error = _error(value, without, clusters)
    if not error > 0:
        return Interval(value, np.nan, np.nan, NO_SPREAD, "cr3")
    return _around(value, RobustError(error=error, degrees=clusters - 1))


def _lacking(value: float, without: Floats, clusters: int) -> Interval | None:
    """A number that has no error, with the reason; None where it has one."""
    if clusters < 2:
        return no_interval(value, clusters, "cr3")
    if not np.isfinite(value):
        return Interval(value, np.nan, np.nan, "no value", "cr3")
    lacking = int(np.count_nonzero(~np.isfinite(without)))
    if lacking:
        reason = f"no value without one of {lacking} prompts"
        return Interval(value, np.nan, np.nan, reason, "cr3")
    return None


def _around(value: float, found: RobustError) -> Interval:
    half = found.half_width()
    return Interval(value, value - half, value + half, "", "cr3")
