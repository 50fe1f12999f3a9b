"""Numbers that are smooth functions of sums over clusters: what every interval is made from.

An estimator holds sums of its own for each cluster. In a bootstrap draw, without one cluster, or
over parts of a bank on several machines, only their totals change, so each of these is arithmetic
on totals and never touches rows again. A value stays when every total is multiplied alike, so its
gradient times the totals is 0, and times one cluster's sums it is that cluster's influence.

Axes: `n` sets of totals (one, or a draw each), `m` sums, `s` numbers.
Not covered: least squares (`least_squares`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Estimator(Protocol):
    """`s` numbers from `m` sums a cluster."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers are called, (s,)."""

    @property
    def sums(self) -> Floats:
        """Sums of each cluster, (clusters, m)."""

    def value(self, totals: Floats) -> Floats:
        """The numbers (n, s) at totals (n, m); NaN where they do not exist."""

    def gradient(self, totals: Floats, index: int) -> Floats:
        """Derivatives (n, m) of number `index` by each total."""


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is 0."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=out, where=denominator != 0))


@dataclass(frozen=True, slots=True)
class Mean:
    """A pooled mean: sum over all rows / their count, whatever the sizes of clusters.

    Fields: `total` and `count`, each (clusters,).
    """

    total: Floats
    count: Floats
    name: str = "mean"

    @property
    def names(self) -> tuple[str, ...]:
        """The one number's name."""
        return (self.name,)

    @property
    def sums(self) -> Floats:
        """(clusters, 2): total and count."""
        return np.column_stack([self.total, self.count])

    def value(self, totals: Floats) -> Floats:
        """total / count, (n, 1); NaN without rows."""
        return ratio(totals[:, :1], totals[:, 1:])

    def gradient(self, totals: Floats, index: int) -> Floats:
        """(1, -mean) / count, (n, 2)."""
        mean = self.value(totals)
        return ratio(np.concatenate([np.ones_like(mean), -mean], axis=1), totals[:, 1:])


@dataclass(frozen=True, slots=True)
class Difference:
    """first - second of two estimators over the same clusters, number by number: paired."""

    first: Estimator
    second: Estimator

    @property
    def names(self) -> tuple[str, ...]:
        """The first's names."""
        return self.first.names

    @property
    def sums(self) -> Floats:
        """Sums of both beside each other."""
        return np.hstack([self.first.sums, self.second.sums])

    def _parts(self, totals: Floats) -> tuple[Floats, Floats]:
        split = self.first.sums.shape[1]
        return totals[:, :split], totals[:, split:]

    def value(self, totals: Floats) -> Floats:
        """first - second, (n, s)."""
        left, right = self._parts(totals)
        return self.first.value(left) - self.second.value(right)

    def gradient(self, totals: Floats, index: int) -> Floats:
        """Derivatives of both beside each other, the second's negated."""
        left, right = self._parts(totals)
        return np.hstack([self.first.gradient(left, index), -self.second.gradient(right, index)])


@dataclass(frozen=True, slots=True)
class Combination:
    """A weighted sum of estimators over the same clusters, number by number: paired.

    Fields: `parts` of as many numbers each; `weights`, one a part.
    """

    parts: tuple[Estimator, ...]
    weights: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The first part's names."""
        return self.parts[0].names

    @property
    def sums(self) -> Floats:
        """Sums of all parts beside each other."""
        return np.hstack([part.sums for part in self.parts])

    def _split(self, totals: Floats) -> list[Floats]:
        ends = np.cumsum([part.sums.shape[1] for part in self.parts])
        return np.split(totals, ends[:-1], axis=1)

    def value(self, totals: Floats) -> Floats:
        """The weighted sum, (n, s)."""
        pieces = zip(self.weights, self.parts, self._split(totals), strict=True)
        return np.asarray(sum(weight * part.value(own) for weight, part, own in pieces))

    def gradient(self, totals: Floats, index: int) -> Floats:
        """Weighted derivatives of all parts beside each other."""
        pieces = zip(self.weights, self.parts, self._split(totals), strict=True)
        return np.hstack([weight * part.gradient(own, index) for weight, part, own in pieces])


@dataclass(frozen=True, slots=True)
class Placed:
    """The numbers of an estimator from other sums of its layout: of more clusters, or pooled.

    Fields: `of`; `sums` (clusters, m).
    """

    of: Estimator
    sums: Floats

    @property
    def names(self) -> tuple[str, ...]:
        """The estimator's names."""
        return self.of.names

    def value(self, totals: Floats) -> Floats:
        """The estimator's value, (n, s)."""
        return self.of.value(totals)

    def gradient(self, totals: Floats, index: int) -> Floats:
        """The estimator's gradient, (n, m)."""
        return self.of.gradient(totals, index)


def estimate(estimator: Estimator) -> Floats:
    """The numbers of the full sample, (s,)."""
    return np.asarray(estimator.value(estimator.sums.sum(axis=0, keepdims=True))[0])


def influence(estimator: Estimator, index: int) -> Floats:
    """Influence of each cluster on number `index`, (clusters,): what one more of it would add."""
    sums = estimator.sums
    return np.asarray(sums @ estimator.gradient(sums.sum(axis=0, keepdims=True), index)[0])


def without_each(estimator: Estimator) -> Floats:
    """The numbers with each cluster left out, (clusters, s)."""
    sums = estimator.sums
    return estimator.value(sums.sum(axis=0) - sums)
