"""Which positions and prompts of two token tables are the same, and draws over both.

Positions are the same when context and position are: a context's id comes from its content. Prompts
are the same when their ids are and both tables are of one bank, or the caller says that ids mean
the same prompts in both. Prompts that are the same are drawn together; banks that share none are
drawn apart, each as many prompts as it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.noise import find_rows
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.inference.estimators import Estimator, Floats, Placed

Names = NDArray[np.object_]


def matched(
    first: pd.DataFrame, second: pd.DataFrame, where: str, *, intersect: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Both tables over the positions that both have, and how many rows were left out of them.

    Rows of the second come back in the first's order; a table that needs no change is not copied.
    Raises InputError for positions that one of them
    lacks unless `intersect`, for a position that stands twice, and for one of another prompt.
    """
    rows = _rows_in(second, first, where)
    here = rows >= 0
    left_out = len(first) + len(second) - 2 * int(here.sum())
    if left_out and not (intersect and here.any()):
        raise InputError(
            where=where,
            expected="the same positions in both",
            got=f"{left_out:,} that one of them lacks, {int(here.sum()):,} in both",
            fix="score the same bank whole, or ask for `intersect=True`"
            if here.any()
            else "compare runs over one bank",
        )
    mine, other = (np.asarray(f["prompt_id"], dtype=object) for f in (first, second))
    differs = mine[here] != other[rows[here]]
    if differs.any():
        at = int(np.argmax(differs))
        context = np.asarray(first["context_id"], dtype=object)[here][at]
        raise InputError(
            where=f"{where}, context {context}",
            expected="one prompt_id in both: it is the cluster",
            got=f"{mine[here][at]} and {other[rows[here]][at]}",
            fix="score the same bank",
        )
    if not left_out and (rows == np.arange(len(rows))).all():
        return first, second, 0
    return first[here] if left_out else first, second.iloc[rows[here]], left_out


def _rows_in(table: pd.DataFrame, wanted: pd.DataFrame, where: str) -> NDArray[np.int64]:
    """The row of `table` for each of `wanted`'s, -1 where it has none."""
    contexts = pd.Index(wanted["context_id"].unique())
    codes = [contexts.get_indexer(np.asarray(f["context_id"], object)) for f in (table, wanted)]
    positions = [f["position"].to_numpy(dtype=np.int64) for f in (table, wanted)]
    for code, position in zip(codes, positions, strict=True):
        known = code >= 0
        keys = code[known] * 2**32 + position[known]
        if len(np.unique(keys)) != len(keys):
            raise InputError(
                where=where,
                expected="each position once in a table",
                got="one that stands twice or more",
                fix="choose one checkpoint, and drop copies of rows",
            )
    return find_rows(codes[0], positions[0], codes[1], positions[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the prompts of several tables stand among all clusters.

    Fields: `rows` of each table's prompts, (its prompts,); `sizes` how many clusters each group of
    tables has, one group after the other; groups are drawn apart.
    """

    rows: tuple[NDArray[np.int64], ...]
    sizes: tuple[int, ...]

    @property
    def clusters(self) -> int:
        """How many there are in all."""
        return sum(self.sizes)

    def spread(self, sums: Floats, table: int) -> Floats:
        """A table's sums (its prompts, m) among all clusters, (clusters, m), 0 elsewhere."""
        out = np.zeros((self.clusters, sums.shape[1]))
        out[self.rows[table]] = sums
        return out

    def place(self, estimator: Estimator, table: int) -> Estimator:
        """A table's estimator over all clusters."""
        return Placed(estimator, self.spread(estimator.sums, table))

    def draws(self, bootstrap: Bootstrap) -> Bootstrap:
        """The bootstrap over all clusters, each group with draws of its own.

        The first group's are those of the bootstrap itself. Counts that were given are taken as
        they are. Raises InputError for a group of one prompt: its part has no spread.
        """
        if len(self.sizes) == 1 or bootstrap.counts is not None:
            return bootstrap
        if min(self.sizes) < 2:
            raise InputError(
                where="bootstrap of several banks",
                expected="at least two prompts in each",
                got=str(min(self.sizes)),
                fix="build banks of more prompts",
            )
        seeds = [_own_seed(bootstrap.seed, group) for group in range(len(self.sizes))]
        blocks = [
            np.concatenate(list(replace(bootstrap, seed=seed).blocks(size)))
            for seed, size in zip(seeds, self.sizes, strict=True)
        ]
        return replace(bootstrap, counts=np.hstack(blocks))


def lay_out(names: Sequence[Names], groups: Sequence[object]) -> Layout:
    """The layout of tables with sorted prompt `names` each, in `groups` that share prompts."""
    order = list(dict.fromkeys(groups))
    rows: dict[int, NDArray[np.int64]] = {}
    sizes: list[int] = []
    for group in order:
        members = [i for i, other in enumerate(groups) if other == group]
        union = np.unique(np.concatenate([names[i] for i in members]))
        for i in members:
            rows[i] = np.searchsorted(union, names[i]) + sum(sizes)
        sizes.append(len(union))
    return Layout(rows=tuple(rows[i] for i in range(len(names))), sizes=tuple(sizes))


def shared_prompts(names: Sequence[Names]) -> int:
    """How many prompt ids are in more than one of several tables."""
    _, times = np.unique(np.concatenate(list(names)), return_counts=True)
    return int((times > 1).sum())


def _own_seed(seed: int, group: int) -> int:
    """A seed of each group: the first keeps the bootstrap's."""
    return int(np.random.SeedSequence((seed, group)).generate_state(1)[0]) if group else seed
