"""Quantiles of a stream in one pass, with a bound on the error of their ranks.

Values fill buffers of k. Two full buffers of one weight are merged, and every second value is kept
with twice the weight (Manku, Rajagopalan and Lindsay 1998, doi:10.1145/276305.276342). One merge of
weight w moves any rank by at most w, so the sum over merges bounds the error: no assumption on the
values or their order, no chance in it. Ranks are exact until the first merge. For exact quantiles
by several passes see `quantiles`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError

Floats = NDArray[np.float64]

LEVELS = 30  # merges deep: streams of up to k 2^30 values keep the bound


class Sketch:
    """A summary of finite floats whose quantiles are off by at most `error` of all ranks.

    Args: `error` share of the values, above 0 and under 1/2; `probabilities` to be asked. Memory is
    15 / error values a level, of which log2(n error / 15) are in use.
    """

    def __init__(self, error: float, probabilities: Sequence[float] = ()) -> None:
        if not 0 < error < 0.5:
            raise InputError(
                where="quantile sketch",
                expected="an error above 0 and under 0.5, as a share of all ranks",
                got=repr(error),
                fix="choose 0.001, or leave it out for exact quantiles",
            )
        self.error, self.probabilities = error, tuple(probabilities)
        self.size = math.ceil(LEVELS / (2 * error))
        self.count = 0
        self._moved = 0  # how far merges have moved a rank at most
        self._open: list[Floats] = []
        self._full: dict[int, Floats] = {}  # sorted buffers of k values, by log2 of their weight
        self._later = False  # which of two values the next merge keeps

    @property
    def rank_error(self) -> float:
        """The largest error of a rank so far, as a share of all values; at most `error`."""
        return self._moved / self.count if self.count else 0.0

    def add(self, values: Floats) -> None:
        """Takes a chunk (n,). Raises InputError where a value is not finite."""
        fine = np.isfinite(values)
        if not fine.all():
            bad = int(np.argmin(fine))
            raise InputError(
                where=f"quantile sketch, value {self.count + bad}",
                expected="finite values",
                got=str(values[bad]),
                fix="score that context again, or drop it",
            )
        self.count += len(values)
        pool = np.concatenate([*self._open, values])
        whole = len(pool) - len(pool) % self.size
        for start in range(0, whole, self.size):
            self._carry(np.sort(pool[start : start + self.size]), 0)
        self._open = [pool[whole:].copy()]

    def merge(self, other: Sketch) -> None:
        """Takes what another sketch of the same error has seen."""
        self.count += other.count
        self._moved += other._moved
        for level, buffer in other._full.items():
            self._carry(buffer, level)
        loose = np.concatenate([np.empty(0), *other._open])
        self.count -= len(loose)
        self.add(loose)

    def fresh(self) -> Sketch:
        """An empty one of the same error."""
        return Sketch(self.error, self.probabilities)

    def quantiles(self, probabilities: Sequence[float] | None = None) -> Floats:
        """Values (probabilities,) of the stream whose ranks are within `rank_error` of the asked.

        Default: those it was made for. Raises InputError without values.
        """
        probabilities = self.probabilities if probabilities is None else probabilities
        if not self.count:
            raise InputError(
                where="quantile sketch",
                expected="at least one value",
                got="none",
                fix="add values first",
            )
        parts = [(np.concatenate(self._open), 1)]
        parts += [(buffer, 2**level) for level, buffer in self._full.items()]
        values = np.concatenate([part for part, _ in parts])
        weights = np.concatenate([np.full(len(part), weight) for part, weight in parts])
        order = np.argsort(values, kind="stable")
        ends = np.cumsum(weights[order])
        ranks = np.round(np.asarray(probabilities) * (self.count - 1))
        return np.asarray(values[order][np.searchsorted(ends, ranks, side="right")])

    def _carry(self, buffer: Floats, level: int) -> None:
        """Puts a full buffer in place; two of one level become one of the next."""
        while level in self._full:
            both = np.sort(np.concatenate([self._full.pop(level), buffer]))
            buffer = both[int(self._later) :: 2].copy()
            self._later = not self._later
            self._moved += 2**level
            level += 1
        self._full[level] = buffer
