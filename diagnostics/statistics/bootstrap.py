"""Prompt-cluster bootstrap on per-prompt sufficient statistics.

A draw takes as many prompts as there are, with replacement; it is a row of counts, so a statistic
that is a function of sums is that function of `weights @ sums`. Cut points, normalisation and
z-scores stay at their full-sample values. Percentile intervals, seeded. Not covered: BCa and
studentised intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % prompt-cluster percentile interval.

    Fields: `estimate`; `low` and `high`, NaN where there is none; `reason` why there is none, else
    empty.
    """

    estimate: float
    low: float
    high: float
    reason: str = ""

    def verdict(self, noise: float = 0.0) -> str:
        """`yes` if the interval lies above 0 by more than `noise`, `no` if below, else `unclear`.

        `noise` is how far from 0 an unchanged checkpoint comes; NaN where it was not measured,
        which counts as 0.
        """
        margin = noise if noise == noise else 0.0
        if self.low > margin:
            return "yes"
        return "no" if self.high < -margin else "unclear"


def draw_counts(clusters: int, draws: int, seed: int) -> Floats:
    """How often each cluster is in each draw, (draws, clusters); every row sums to `clusters`."""
    chosen = np.random.default_rng(seed).integers(0, clusters, size=(draws, clusters))
    offsets = np.arange(draws)[:, None] * clusters
    counts = np.bincount((chosen + offsets).ravel(), minlength=draws * clusters)
    return counts.reshape(draws, clusters).astype(np.float64)


def percentile_interval(estimate: float, draws: Floats) -> Interval:
    """The interval of an estimate from its values (draws,) in the draws.

    None is given when a draw has no value: a side of it was empty, or a regression singular.
    """
    empty = int(np.count_nonzero(~np.isfinite(draws)))
    if empty:
        return Interval(
            estimate, np.nan, np.nan, f"{empty} of {len(draws)} draws have too few positions"
        )
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def no_interval(estimate: float, clusters: int) -> Interval | None:
    """What to give for fewer than two clusters; None where an interval can be had."""
    if clusters >= 2:
        return None
    return Interval(estimate, np.nan, np.nan, f"{clusters} prompt: no interval from one cluster")


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is 0."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=out, where=denominator != 0))


@dataclass(frozen=True, slots=True)
class Means:
    """A pooled mean as a ratio of per-cluster sums. Fields: `sums`, `counts`, each (clusters,)."""

    sums: Floats
    counts: Floats

    def estimate(self) -> float:
        """The pooled mean."""
        return float(ratio(self.sums.sum(keepdims=True), self.counts.sum(keepdims=True))[0])

    def draws(self, counts: Floats) -> Floats:
        """The pooled mean in each draw, (draws,), for counts (draws, clusters)."""
        return ratio(counts @ self.sums, counts @ self.counts)


def mean_interval(mean: Means, counts: Floats) -> Interval:
    """A pooled mean with its interval, for draw counts (draws, clusters)."""
    estimate = mean.estimate()
    single = no_interval(estimate, counts.shape[1])
    return single or percentile_interval(estimate, mean.draws(counts))


def difference_interval(first: Means, second: Means, counts: Floats) -> Interval:
    """first - second with the paired interval: both from the same draws (draws, clusters)."""
    estimate = first.estimate() - second.estimate()
    single = no_interval(estimate, counts.shape[1])
    return single or percentile_interval(estimate, first.draws(counts) - second.draws(counts))
