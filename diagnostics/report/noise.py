"""The noise of scoring beside the gains of a report: for each number, the same of no change.

The rows of every table are made a second time from a checkpoint that did not change
(`statistics/analyses/noise.py`). How far such a row's intervals reach from 0 stands beside the real
row's numbers, in columns that end in `_noise`. Not covered: Delta R^2, which is no gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.statistics.analyses.noise import NoiseFloor, farthest, in_noise
from diagnostics.statistics.inference.bootstrap import Interval

Row = dict[str, Any]

GAINS = (
    "gain",
    "gap",
    "matched_gap",
    "beta_l",
    "beta_i",
    "contrast",
    "on_target",
    "off_target",
)
SUFFIXES = ("", "_rel")
IDENTITY = ("proxy", "selector", "mask", "budget", "scope", "quadrant", "question", "outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What a checkpoint that did not change shows, in one run at one K.

    Fields: `reach` how far from 0 its intervals come, by table, what tells the table's rows apart,
    and column, in the column's unit; what is not there was not measured (no second scoring, or too
    few positions in it). `kinds` of noise that count, position by position.
    """

    reach: dict[tuple[Any, ...], float]
    kinds: Sequence[NoiseFloor]

    def beside(self, table: str, row: Row) -> Row:
        """A row with the noise of each of its gains (NaN: not measured) after its columns."""
        noise = {
            f"{name}_noise{suffix}": self.reach.get(_place(table, row, name + suffix), np.nan)
            for name, suffix in _gains(row)
        }
        return row | noise


NO_FLOOR = Floor(reach={}, kinds=())


def measure(unchanged: Iterable[tuple[str, Row]]) -> dict[tuple[Any, ...], float]:
    """A floor's `reach` from (table, row) of unchanged checkpoints; of several kinds the most."""
    reach: dict[tuple[Any, ...], float] = {}
    for table, row in unchanged:
        for name, suffix in _gains(row):
            place = _place(table, row, name + suffix)
            far = farthest([spread(row, name, suffix)])
            reach[place] = float(np.fmax(far, reach.get(place, np.nan)))
    return reach


def spread(row: Row, name: str, suffix: str = "") -> Interval:
    """The interval that a table's row holds in three columns."""
    return Interval(*(row[f"{name}{end}{suffix}"] for end in ("", "_low", "_high")))


def marked(row: Row, name: str, suffix: str = "") -> bool:
    """Whether a row's number is not above the noise of scoring; False where that is not known."""
    noise = row.get(f"{name}_noise{suffix}")
    return noise is not None and in_noise(spread(row, name, suffix), noise)


def _gains(row: Row) -> Iterator[tuple[str, str]]:
    """(name, suffix) of the gains with an interval in a row."""
    pairs = ((name, suffix) for name in GAINS for suffix in SUFFIXES)
    return (pair for pair in pairs if "{}_low{}".format(*pair) in row)


def _place(table: str, row: Row, column: str) -> tuple[Any, ...]:
    return (table, *(row[key] for key in IDENTITY if key in row), column)
