"""Prompt-cluster bootstrap on per-cluster sums: draws, and four kinds of interval from them.

A draw takes as many prompts as there are, with replacement; it is a row of counts, and a statistic
that is a function of sums is that function of `counts @ sums` (`estimators`). Kinds: percentile;
BCa (Efron 1987, doi:10.1080/01621459.1987.10478410), whose acceleration is the jackknife's;
studentised (bootstrap-t), with the linearised cluster-robust error in each draw; and simultaneous
sup-t bands over a family (Montiel Olea and Plagborg-Moller 2019, doi:10.1002/jae.2656). Cut points,
normalisation and z-scores stay at their full-sample values: `redraw` redoes them. Which kind covers
how often: docs/coverage.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

from diagnostics.errors import InputError
from diagnostics.statistics.inference.estimators import (
    Difference,
    Estimator,
    Floats,
    estimate,
    influence,
    without_each,
)

LEVEL = 0.95
BLOCK = 2**22  # counts that exist at one time, 32 MB
CACHED = 2**16  # counts that are drawn at one time when all are kept: they stay in the cache
KEPT = 2**23  # the largest matrix of counts that is kept for the next statistic, 64 MB

Kind = Literal["percentile", "bca", "studentized", "simultaneous", "cr1", "cr2", "cr3"]
DRAWN: tuple[Kind, ...] = ("percentile", "bca", "studentized")


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % prompt-cluster interval.

    Fields: `estimate`; `low` and `high`, NaN where there is none; `reason` why there is none, else
    empty; `kind` of interval.
    """

    estimate: float
    low: float
    high: float
    reason: str = ""
    kind: Kind = "percentile"

    def verdict(self, noise: float = 0.0) -> str:
        """`yes` if the interval lies above 0 by more than `noise`, `no` if below, else `unclear`.

        `noise` is how far from 0 an unchanged checkpoint comes; NaN where it was not measured,
        which counts as 0.
        """
        margin = noise if noise == noise else 0.0
        if self.low > margin:
            return "yes"
        return "no" if self.high < -margin else "unclear"

    def __str__(self) -> str:
        if self.low != self.low:
            return f"{self.estimate:.4g} (no interval: {self.reason})"
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def check_kind(name: str, where: str = "--interval") -> Kind:
    """The kind of interval of a name. Raises InputError for one that is not made of draws."""
    for known in DRAWN:
        if name == known:
            return known
    raise InputError(
        where=where,
        expected=f"a kind of interval among {', '.join(DRAWN)}",
        got=repr(name),
        fix="choose one of them",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How intervals are made.

    Fields: `draws` how many; `seed`; `kind` of interval; `counts` (draws, clusters) given draws in
    place of random ones. Statistics of one bank with the same settings are made of the same
    resampled prompts, so their differences are paired.
    """

    draws: int = 2000
    seed: int = 0
    kind: Kind = "percentile"
    counts: Floats | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind(self.kind, "bootstrap")

    def blocks(self, clusters: int) -> Iterator[Floats]:
        """Draw counts (some, clusters), one block after the other; the same for the same seed."""
        if self.counts is not None:
            yield self.counts
        elif self.draws * clusters <= KEPT:
            yield draw_counts(clusters, self.draws, self.seed)
        else:
            yield from count_blocks(clusters, self.draws, self.seed, max(1, BLOCK // clusters))

    def totals(self, sums: Floats) -> Floats:
        """Totals of each draw, (draws, m), of sums (clusters, m)."""
        return np.concatenate([counts @ sums for counts in self.blocks(len(sums))])


DEFAULT = Bootstrap()


def count_blocks(clusters: int, draws: int, seed: int, size: int) -> Iterator[Floats]:
    """How often each cluster is in each draw, (size, clusters) at a time; a row sums to `clusters`.

    The generator's stream goes on from block to block, so the size of blocks changes nothing.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        chosen = generator.integers(0, clusters, size=(rows, clusters))
        chosen += np.arange(rows)[:, None] * clusters
        counts = np.bincount(chosen.ravel(), minlength=rows * clusters)
        yield counts.reshape(rows, clusters).astype(np.float64)


@lru_cache(maxsize=4)
def draw_counts(clusters: int, draws: int, seed: int) -> Floats:
    """All counts of `count_blocks` at once, (draws, clusters), kept for the next; read-only."""
    counts = np.empty((draws, clusters))
    size = 1 + CACHED // clusters
    for start, block in zip(
        range(0, draws, size), count_blocks(clusters, draws, seed, size), strict=True
    ):
        counts[start : start + size] = block
    counts.flags.writeable = False
    return counts


def draw_values(estimator: Estimator, bootstrap: Bootstrap) -> Floats:
    """The numbers in each draw, (draws, s)."""
    return estimator.value(bootstrap.totals(estimator.sums))


def interval(estimator: Estimator, bootstrap: Bootstrap = DEFAULT) -> Interval:
    """The interval of an estimator of one number."""
    (only,) = intervals(estimator, bootstrap)
    return only


def difference(first: Estimator, second: Estimator, bootstrap: Bootstrap) -> Interval:
    """first - second with the paired interval: both from the same draws."""
    return interval(Difference(first, second), bootstrap)


def intervals(estimator: Estimator, bootstrap: Bootstrap) -> list[Interval]:
    """The intervals of an estimator's numbers, of the bootstrap's kind.

    A number has none, and says why, for fewer than two clusters, and when a draw (or the sample
    without one cluster) has no value: a side of it was empty, or a regression singular.
    """
    values = estimate(estimator)
    clusters = len(estimator.sums)
    if clusters < 2:
        return [no_interval(float(value), clusters, bootstrap.kind) for value in values]
    totals = bootstrap.totals(estimator.sums)
    draws = estimator.value(totals)
    if bootstrap.kind == "bca":
        left_out = without_each(estimator)
        ends = [bca_interval(*c) for c in zip(values, draws.T, left_out.T, strict=True)]
    elif bootstrap.kind == "studentized":
        ends = [
            _studentized(estimator, index, float(values[index]), draws[:, index], totals, bootstrap)
            for index in range(len(values))
        ]
    else:
        ends = [percentile_interval(*c) for c in zip(values, draws.T, strict=True)]
    return ends


def joint_draws(estimators: Sequence[Estimator], bootstrap: Bootstrap) -> tuple[Floats, Floats]:
    """Numbers (s,) of several estimators of the same clusters, and their draws (draws, s).

    They come from one product of all their sums, several times faster than one by one.
    """
    sums = [e.sums for e in estimators]
    totals = bootstrap.totals(np.hstack(sums))
    ends = np.cumsum([one.shape[1] for one in sums])
    pieces = zip(estimators, sums, ends, strict=True)
    draws = [e.value(totals[:, end - one.shape[1] : end]) for e, one, end in pieces]
    return np.concatenate([estimate(e) for e in estimators]), np.hstack(draws)


def joint_intervals(estimators: Sequence[Estimator], bootstrap: Bootstrap) -> list[Interval]:
    """`interval` of each of many one-number estimators of the same clusters."""
    if bootstrap.kind != "percentile" or len(estimators[0].sums) < 2:
        return [interval(e, bootstrap) for e in estimators]
    values, draws = joint_draws(estimators, bootstrap)
    return [percentile_interval(*one) for one in zip(values, draws.T, strict=True)]


def no_interval(value: float, clusters: int, kind: Kind = "percentile") -> Interval:
    """What is given for fewer than two clusters."""
    reason = f"{clusters} prompt: no interval from one cluster"
    return Interval(value, np.nan, np.nan, reason, kind)


def percentile_interval(value: float, draws: Floats) -> Interval:
    """The 2.5 and 97.5 % quantiles of the values (draws,) in the draws."""
    return _between(float(value), draws, (1 - LEVEL) / 2, (1 + LEVEL) / 2, "percentile")


def bca_interval(value: float, draws: Floats, left_out: Floats) -> Interval:
    """Bias-corrected and accelerated, from values (draws,) and without each cluster (clusters,)."""
    if not np.isfinite(left_out).all():
        missing = int(np.count_nonzero(~np.isfinite(left_out)))
        reason = f"no value without one of {missing} prompts"
        return Interval(float(value), np.nan, np.nan, reason, "bca")
    normal = NormalDist()
    below = (np.count_nonzero(draws < value) + np.count_nonzero(draws == value) / 2) / len(draws)
    if not 0 < below < 1:
        reason = "every draw lies on one side of the estimate"
        return Interval(float(value), np.nan, np.nan, reason, "bca")
    bias = normal.inv_cdf(below)
    away = left_out.mean() - left_out
    spread = float((away**2).sum())
    acceleration = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

    def level(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1 - acceleration * z))

    return _between(float(value), draws, level((1 - LEVEL) / 2), level((1 + LEVEL) / 2), "bca")


def standard_error(estimator: Estimator, index: int = 0) -> float:
    """Linearised cluster-robust standard error of a number, with the factor G / (G - 1)."""
    effects = influence(estimator, index)
    clusters = len(effects)
    return float(np.sqrt((effects**2).sum() * clusters / (clusters - 1)))


def bands(estimators: Sequence[Estimator], bootstrap: Bootstrap) -> list[Interval]:
    """Simultaneous 95 % bands over a family of estimators of the same clusters.

    All numbers, in order, lie in their bands together in 95 % of samples: estimate +- c sd, with c
    the 95 % quantile over draws of the largest |draw - estimate| / sd.
    """
    clusters = len(estimators[0].sums)
    if clusters < 2:
        values = np.concatenate([estimate(e) for e in estimators])
        return [no_interval(float(value), clusters, "simultaneous") for value in values]
    return simultaneous(*joint_draws(estimators, bootstrap))


def simultaneous(values: Floats, draws: Floats) -> list[Interval]:
    """`bands` from values (s,) and their draws (draws, s); a number without draws is left out."""
    spread = draws.std(axis=0, ddof=1)
    usable = np.isfinite(spread) & (spread > 0)
    away = np.abs(draws[:, usable] - values[usable]) / spread[usable]
    width = np.quantile(away.max(axis=1), LEVEL) * spread if usable.any() else spread
    return [
        Interval(float(v), float(v - w), float(v + w), "", "simultaneous")
        if fine or w == 0
        else _lacking(float(v), draws[:, i], "simultaneous")
        for i, (v, w, fine) in enumerate(zip(values, width, usable, strict=True))
    ]


def _studentized(
    estimator: Estimator,
    index: int,
    value: float,
    draws: Floats,
    totals: Floats,
    bootstrap: Bootstrap,
) -> Interval:
    """Bootstrap-t: quantiles of (draw - estimate) / error of the draw, turned around."""
    lacking = _lacking(value, draws, "studentized")
    if lacking.reason:
        return lacking
    sums = estimator.sums
    gradient = estimator.gradient(totals, index)
    errors, done = np.empty(len(draws)), 0
    for counts in bootstrap.blocks(len(sums)):
        rows = slice(done, done + len(counts))
        errors[rows] = np.sqrt(np.einsum("dc,dc->d", counts, (gradient[rows] @ sums.T) ** 2))
        done += len(counts)
    error = float(np.sqrt((influence(estimator, index) ** 2).sum()))
    if not (errors > 0).all() or not error > 0:
        reason = f"{np.count_nonzero(~(errors > 0))} of {len(draws)} draws have no spread"
        return Interval(value, np.nan, np.nan, reason, "studentized")
    low, high = np.quantile((draws - value) / errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(
        value, float(value - high * error), float(value - low * error), "", "studentized"
    )


def _lacking(value: float, draws: Floats, kind: Kind) -> Interval:
    """No interval, with a reason where draws have no value."""
    empty = int(np.count_nonzero(~np.isfinite(draws)))
    reason = f"{empty} of {len(draws)} draws have too few positions" if empty else ""
    return Interval(value, np.nan, np.nan, reason, kind)


def _between(value: float, draws: Floats, lower: float, upper: float, kind: Kind) -> Interval:
    lacking = _lacking(value, draws, kind)
    if lacking.reason:
        return lacking
    low, high = np.quantile(draws, [lower, upper])
    return Interval(value, float(low), float(high), "", kind)
