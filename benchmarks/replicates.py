"""Does an interval hold the truth as often as it says? Many samples, all kinds, counted.

A sample is drawn anew in every replicate, with bootstrap draws of its own; a kind of interval that
a sample does not allow counts as none, not as a miss. Used by `interval_coverage.py`, and held to a
case that is known by `tests/statistics/test_statistics_coverage.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.inference.bootstrap import DRAWN, Bootstrap, Interval, Kind, interval
from diagnostics.statistics.inference.estimators import Estimator
from diagnostics.statistics.inference.robust import ROBUST, RobustKind, robust_interval

Floats = NDArray[np.float64]
Key = tuple[str, str]  # number, kind of interval
Way = Callable[[Estimator, Bootstrap], Interval]
Sample = Callable[[np.random.Generator, Bootstrap], Mapping[Key, Interval]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Intervals of one kind for one number over replicates.

    Fields: `truth`; `low` and `high` (replicates,), NaN where there was no interval.
    """

    truth: float
    low: Floats
    high: Floats

    @property
    def made(self) -> int:
        """How many replicates have an interval."""
        return int(np.isfinite(self.low).sum())

    @property
    def lacking(self) -> float:
        """Share of replicates without an interval."""
        return 1.0 - self.made / len(self.low)

    @property
    def held(self) -> NDArray[np.bool_]:
        """Which intervals hold the truth, (replicates,)."""
        return (self.low <= self.truth) & (self.truth <= self.high)

    @property
    def coverage(self) -> float:
        """Share of intervals that hold the truth."""
        return float(self.held.sum() / self.made)

    @property
    def error(self) -> float:
        """Monte Carlo standard error of the coverage."""
        return float(np.sqrt(self.coverage * (1 - self.coverage) / self.made))

    @property
    def below(self) -> float:
        """Share of intervals with the truth below them."""
        return float((self.low > self.truth).sum() / self.made)

    @property
    def above(self) -> float:
        """Share of intervals with the truth above them."""
        return float((self.high < self.truth).sum() / self.made)

    @property
    def width(self) -> float:
        """Mean width."""
        return float(np.nanmean(self.high - self.low))


def drawn(kind: Kind) -> Way:
    """A kind of interval from bootstrap draws."""
    return lambda estimator, bootstrap: interval(estimator, replace(bootstrap, kind=kind))


def robust(kind: RobustKind) -> Way:
    """A kind of interval from a cluster-robust error."""
    return lambda estimator, bootstrap: robust_interval(estimator, kind)


WAYS: dict[str, Way] = {
    **{kind: drawn(kind) for kind in DRAWN},
    **{kind: robust(kind) for kind in ROBUST},
}


def every_way(
    estimators: Mapping[str, Estimator], bootstrap: Bootstrap, ways: Mapping[str, Way] = WAYS
) -> dict[Key, Interval]:
    """Each number's interval of each kind."""
    return {
        (name, kind): way(estimator, bootstrap)
        for name, estimator in estimators.items()
        for kind, way in ways.items()
    }


def tally(
    sample: Sample,
    truths: Mapping[str, float],
    kinds: Sequence[str],
    *,
    replicates: int,
    seed: int,
    draws: int = 999,
) -> dict[Key, Cell]:
    """Cells by number and kind; `sample` draws a sample and gives its intervals."""
    keys = [(name, kind) for name in truths for kind in kinds]
    ends = np.full((len(keys), replicates, 2), np.nan)
    for replicate in range(replicates):
        rng = np.random.default_rng([seed, replicate, 1])
        made = sample(rng, Bootstrap(draws=draws, seed=replicate))
        for place, key in enumerate(keys):
            ends[place, replicate] = made[key].low, made[key].high
    return {
        key: Cell(truth=truths[key[0]], low=found[:, 0], high=found[:, 1])
        for key, found in zip(keys, ends, strict=True)
    }
