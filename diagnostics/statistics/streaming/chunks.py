"""A few hundred thousand rows of a token table: whole prompts of one checkpoint, as arrays.

`read` makes chunks from files, `store` holds them without what follows from the rest (`slim`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.tables.measured import RELATIVE_EPSILON

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

NUMBERS = (
    "kl_0",
    "gain",
    "entropy",
    "teacher_entropy",
    "disagreement",
    "compatibility",
    "bc_union",
    "shared_teacher_mass",
    "overlap",
    "jaccard",
    "gain_rel",
    "relative_position",
    "reverse_kl_0",
)


HELD = NUMBERS[:8]  # those that follow from no others


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole prompts of one checkpoint.

    Fields: `prompts` (p,) ids; `prompt_runs` (p + 1,) where each prompt's contexts begin among the
    `c`; `run_ends` (c + 1,) where each context's rows begin; `run_order` (c,) contexts sorted by
    id within their prompt; `hashes` (c,) of context ids; `columns` (pos,) that are held, by name.
    Positions increase within a context.
    """

    prompts: Sequence[str]
    prompt_runs: Indices
    run_ends: Indices
    run_order: Indices
    hashes: NDArray[np.uint64]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return int(self.run_ends[-1])

    def __getitem__(self, name: str) -> Floats:
        """A column of numbers (pos,), float64: held, or made from those it follows from."""
        if name not in self.columns:
            return FOLLOWS[name](self)
        return self.columns[name].astype(np.float64, copy=False)

    @property
    def position(self) -> NDArray[np.int32]:
        """Positions in the response, (pos,)."""
        held: NDArray[np.int32] = self.columns["position"]
        return held if self._lists_positions() else _counted(self.run_ends, held)

    def places(self) -> tuple[Indices, NDArray[np.uint64], NDArray[np.int32], bool]:
        """What `keys_compiled` makes identities of.

        Contexts' edges and hashes, positions as held, and whether those are of every row.
        """
        return self.run_ends, self.hashes, self.columns["position"], self._lists_positions()

    def positions(self, rows: Indices) -> NDArray[np.int32]:
        """Positions of some rows."""
        held = self.columns["position"]
        if self._lists_positions():
            return np.asarray(held[rows])
        run = self.runs(rows)
        counted = held[run] + (rows - self.run_ends[run])
        return np.asarray(counted, dtype=np.int32)

    def _lists_positions(self) -> bool:
        """Whether every position is held, and not only the first of each context."""
        return len(self.columns["position"]) == len(self)

    def ends(self) -> Indices:
        """Where each prompt's rows begin, (p + 1,)."""
        return self.run_ends[self.prompt_runs]

    def runs(self, rows: Indices) -> Indices:
        """The context of some rows, as an index into the chunk's."""
        return np.searchsorted(self.run_ends, rows, side="right") - 1


def relative_gain(chunk: Chunk) -> Floats:
    """`gain_rel` as `tokens` makes it."""
    return np.asarray(chunk["gain"] / (chunk["kl_0"] + RELATIVE_EPSILON))


def _jaccard(chunk: Chunk) -> Floats:
    overlap = chunk["overlap"]
    return overlap / (2.0 - overlap)


def _relative_position(chunk: Chunk) -> Floats:
    lengths = np.diff(chunk.run_ends)
    within = np.arange(len(chunk)) - np.repeat(chunk.run_ends[:-1], lengths)
    return np.asarray(within / np.repeat(np.maximum(lengths - 1, 1), lengths))


FOLLOWS: Mapping[str, Callable[[Chunk], Floats]] = {
    "gain_rel": relative_gain,
    "jaccard": _jaccard,
    "relative_position": _relative_position,
}


def slim(chunk: Chunk) -> Chunk:
    """The chunk without what follows from the rest to the last bit; `reverse_kl_0` is dropped."""
    held = {name: chunk.columns[name] for name in HELD}
    narrow = chunk["overlap"].astype(np.float32)
    held["overlap"] = narrow if (narrow == chunk["overlap"]).all() else chunk["overlap"]
    firsts = chunk.position[chunk.run_ends[:-1]]
    plain = np.array_equal(_counted(chunk.run_ends, firsts), chunk.position)
    held["position"] = firsts if plain else chunk.position
    smaller = replace(chunk, columns=held)
    for name in FOLLOWS:
        if not np.array_equal(FOLLOWS[name](smaller), chunk[name]):
            held[name] = chunk.columns[name]
    return smaller


def _counted(run_ends: Indices, firsts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Positions (pos,) that count up from the first of each context, (c,)."""
    lengths = np.diff(run_ends)
    return (np.arange(run_ends[-1]) - np.repeat(run_ends[:-1] - firsts, lengths)).astype(np.int32)
