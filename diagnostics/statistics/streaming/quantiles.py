"""Exact linear-interpolation quantiles of a stream that is longer than memory.

The ranks on either side of each are found exactly (`ranks`), so they are np.quantile's to the last
bit. Not covered: weights, other interpolation, one pass (`sketch`: with an error).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.streaming.ranks import COLLECTED, RankSearch

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a quantile lies among n sorted values: between ranks `below` and `above`."""

    below: int
    above: int
    weight: float


def place(probability: float, count: int) -> Place:
    """The place of a linear-interpolation quantile, as np.quantile has it."""
    index = (count - 1) * probability
    below = min(math.floor(index), count - 1)
    return Place(below, min(below + 1, count - 1), index - below)


def between(low: float, high: float, weight: float) -> float:
    """low + (high - low) weight, from the nearer end, as np.quantile rounds it."""
    away = high - low
    return high - away * (1 - weight) if weight >= 0.5 else low + away * weight


class QuantileSearch(RankSearch):
    """A `RankSearch` for linear-interpolation quantiles at `probabilities` of one float."""

    def __init__(self, probabilities: Sequence[float], limit: int = COLLECTED) -> None:
        super().__init__(limit=limit)
        self.probabilities = tuple(probabilities)

    def start(self) -> None:
        """Ends the first pass."""
        places = [place(p, self.count) for p in self.probabilities] if self.count else []
        self.seek(rank for p in places for rank in (p.below, p.above))

    def quantiles(self) -> Floats:
        """The quantiles, (probabilities,), equal to np.quantile's of the same values."""
        places = [place(p, self.count) for p in self.probabilities]
        return np.array(
            [between(self.value(p.below), self.value(p.above), p.weight) for p in places]
        )


def stream_quantiles(
    read: Callable[[], Iterable[Mapping[str, Floats]]],
    wanted: Mapping[str, Sequence[float]],
    limit: int = COLLECTED,
) -> dict[str, Floats]:
    """Exact quantiles of some columns of a stream, {name: (probabilities,)}.

    `read` begins the stream anew and gives chunks of columns (n,) by name. Raises InputError for a
    column with no values, or with one that is not finite.
    """
    searches = {name: QuantileSearch(p, limit) for name, p in wanted.items()}
    _pass(read, searches)
    for name, search in searches.items():
        if not search.count:
            raise _refusal(name, "no value at all", "at least one value")
        search.start()
    while left := {name: s for name, s in searches.items() if not s.done}:
        _pass(read, left)
        for search in left.values():
            search.advance()
    return {name: search.quantiles() for name, search in searches.items()}


def _pass(
    read: Callable[[], Iterable[Mapping[str, Floats]]], searches: Mapping[str, QuantileSearch]
) -> None:
    row = 0
    for chunk in read():
        for name, search in searches.items():
            try:
                search.add(chunk[name])
            except ValueError:
                bad = int(np.argmin(np.isfinite(chunk[name])))
                got = f"{chunk[name][bad]} in row {row + bad}"
                raise _refusal(name, got, "finite values") from None
        row += len(next(iter(chunk.values())))


def _refusal(name: str, got: str, expected: str) -> InputError:
    return InputError(
        where=f"quantiles of {name}",
        expected=expected,
        got=got,
        fix="score that context again, or drop it",
    )
