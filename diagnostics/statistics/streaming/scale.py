"""The first passes of `stream`: what there is, quantiles of the signals, and the scale they make.

A step (`Step`) is made by the driver, sent to wherever chunks are held, and comes back with what it
has seen: it is empty at first, takes chunks, and merges with the step that saw the chunks after its
own. Sums per prompt are lists of one block a chunk, in order. No step holds rows, save the few
candidates that a rank search collects.

Axes: `p` prompts of a chunk, `pos` its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.streaming.chunks import Chunk
from diagnostics.statistics.streaming.quantiles import QuantileSearch
from diagnostics.statistics.streaming.ranks import RankSearch
from diagnostics.statistics.streaming.sketch import Sketch
from diagnostics.statistics.tables.normalize import EPSILON, HIGH, LOW, stretched_between
from diagnostics.statistics.tables.tokens import quadrants_at

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SIGNALS = ("compatibility", "disagreement", "kl_0", "entropy", "teacher_entropy")
SCALED = ("entropy", "disagreement", "compatibility", "teacher_entropy")  # rows of `stretched`
UNDER = (0.5, 0.9)
OUTCOMES = ("gain", "gain_rel")


class Step(Protocol):
    """One pass."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""

    def fresh(self) -> Self:
        """The same step before any chunk."""

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk."""

    def merge(self, other: Self) -> None:
        """Takes what the same step saw of the chunks after its own."""


@dataclass(slots=True, kw_only=True)
class Load:
    """The first pass: what there is, and where the signals' quantiles lie.

    Fields: `searches` by signal and outcome; `prompts` ids; `contexts` and `rows` counted; `sums`
    of each signal over all rows; `under` (2,) positions whose signal is under 0.5 and 0.9.
    """

    searches: dict[str, QuantileSearch | Sketch]
    prompts: list[str] = field(default_factory=list)
    contexts: int = 0
    rows: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SIGNALS, 0.0))
    under: dict[str, Indices] = field(
        default_factory=lambda: {name: np.zeros(2, dtype=np.int64) for name in SIGNALS}
    )

    def fresh(self) -> Load:
        """The same step before any chunk."""
        return Load(searches={name: search.fresh() for name, search in self.searches.items()})

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk as it was read."""
        self.prompts += chunk.prompts
        self.contexts += len(chunk.hashes)
        self.rows += len(chunk)
        for name in SIGNALS:
            self.sums[name] += float(chunk[name].sum())
        for name, search in self.searches.items():
            values = chunk[name]
            search.add(values)
            if name in self.under:
                self.under[name] += [np.count_nonzero(values < cut) for cut in UNDER]

    def merge(self, other: Load) -> None:
        """Takes what the same step saw of the chunks after its own."""
        self.prompts += other.prompts
        self.contexts += other.contexts
        self.rows += other.rows
        for name in SIGNALS:
            self.sums[name] += other.sums[name]
        for name, search in self.searches.items():
            search.merge(other.searches[name])  # type: ignore[arg-type]
        for name, counts in self.under.items():
            counts += other.under[name]


@dataclass(slots=True, kw_only=True)
class Refine:
    """A further pass of the signals' searches, by column."""

    searches: dict[str, RankSearch]

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        return tuple(self.searches)

    def fresh(self) -> Refine:
        """The same step before any chunk."""
        return Refine(searches={name: search.fresh() for name, search in self.searches.items()})

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk."""
        for name, search in self.searches.items():
            search.add(chunk[name])

    def merge(self, other: Refine) -> None:
        """Takes what the same step saw of the chunks after its own."""
        for name, search in self.searches.items():
            search.merge(other.searches[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How raw signals are normalised and split, from the quantiles of the whole stream.

    Fields: `low`, `high` 5 and 95 % quantiles by signal; `middle` medians; `outcome` median gain
    and relative gain. Sums of products are taken about medians: a relative gain of a position where
    KL was 0 is so large that about the mean all digits of the others would be lost.
    """

    low: Mapping[str, float]
    high: Mapping[str, float]
    middle: Mapping[str, float]
    outcome: tuple[float, float]

    def stretched(self, chunk: Chunk) -> Floats:
        """H, D, C and H_T before clipping, (4, pos)."""
        out = np.empty((4, len(chunk)))
        for row, name in enumerate(SCALED):
            out[row] = stretched_between(chunk[name], self.low[name], self.high[name])
        return out

    def quadrant(self, chunk: Chunk) -> NDArray[np.int8]:
        """Quadrant of each position, (pos,)."""
        cuts = self.middle["entropy"], self.middle["kl_0"]
        return quadrants_at(chunk["entropy"], chunk["kl_0"], *cuts)

    def centre(self) -> Floats:
        """A typical value of each column of `predictor_rows`, (11,), from medians."""
        h, d, c, t = (min(max(self._at(name), 0.0), 1.0) for name in SCALED)
        return np.array([0.0, h, 0.5, t, d, h * d, c, d * c, d - d * c, *self.outcome])

    def _at(self, name: str) -> float:
        width = self.high[name] - self.low[name]
        return (self.middle[name] - self.low[name]) / width if width >= EPSILON else 0.0


def sought_probabilities(probabilities: Sequence[float]) -> tuple[float, ...]:
    """The probabilities to be sought: those asked for, and those of Norm and the quadrants."""
    return (*probabilities, LOW, 0.5, HIGH)
