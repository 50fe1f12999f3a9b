"""Medians of resampled clusters, exact and without sorting rows in every draw.

A median is no function of sums, so rows are sorted once and cut into blocks: a matrix product gives
the weight of every draw at the end of each block, and only the block that holds the middle is
looked into. Residuals whose regression is taken anew in each draw change their order, but none by
more than the coefficients moved, so only rows near the middle are selected from. Weights are draw
counts, whole numbers, so all comparisons are exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.inference.estimators import Floats

BLOCK = 128  # rows of a block: about as much work within one as between them at 10,000 rows
SLACK = 1e-9  # share of a value's size that its rounding stays below


def drawn_medians(values: Floats, owner: NDArray[np.int64], counts: Floats) -> Floats:
    """The median of `values` (pos,) in each draw, (draws,), NaN where a draw holds no row.

    A row counts as often as its cluster `owner` (pos,) is drawn in `counts` (draws, clusters). An
    even number of rows has the mean of the middle two, as in `numpy.median`.
    """
    order = np.argsort(values, kind="stable")
    return np.asarray(_middles(values[order], owner[order], counts).mean(axis=0))


def refitted_medians(
    columns: Floats,
    outcome: Floats,
    owner: NDArray[np.int64],
    counts: Floats,
    beta: Floats,
    drawn_beta: Floats,
) -> Floats:
    """`drawn_medians` of outcome (pos,) - b' columns (p, pos), b = `drawn_beta` (draws, p).

    `beta` (p,) is b in the full sample.
    """
    from diagnostics.statistics.inference.medians_compiled import refitted

    left = outcome - beta @ columns
    order = np.argsort(left, kind="stable")
    left, owner = left[order], owner[order]
    lowest, highest = _middles(left, owner, counts)
    largest = np.abs(columns).max(axis=1)
    moved = np.abs(drawn_beta - beta) @ largest  # no value moves by more
    slack = SLACK * (np.abs(outcome).max() + np.abs(drawn_beta) @ largest)
    windows = np.column_stack(
        [
            np.searchsorted(left, lowest - 2 * moved - slack, side="left"),
            np.searchsorted(left, highest + 2 * moved + slack, side="right"),
        ]
    )
    sorted_columns = np.ascontiguousarray(columns[:, order])
    return refitted(sorted_columns, outcome[order], owner, counts, drawn_beta, windows)


def _middles(values: Floats, owner: NDArray[np.int64], counts: Floats) -> Floats:
    """The first value with half of the weight up to it and the first with more, (2, draws).

    `values` ascend.
    """
    blocks = -(-len(values) // BLOCK)
    cell = np.arange(len(values)) // BLOCK * counts.shape[1] + owner
    held = np.bincount(cell, minlength=blocks * counts.shape[1]).reshape(blocks, -1)
    upto = counts @ held.cumsum(axis=0).T.astype(np.float64)  # (draws, blocks)
    rows = np.stack([_row_of(side, upto, counts, owner) for side in (np.less, np.less_equal)])
    return np.where(upto[:, -1] > 0, values[rows], np.nan)


def _row_of(
    side: np.ufunc, upto: Floats, counts: Floats, owner: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The first row, (draws,), at which the weight so far is no longer `side` of half of all."""
    draws, half = np.arange(len(counts)), upto[:, -1] / 2
    place = side(upto, half[:, None]).sum(axis=1)
    place = np.minimum(place, upto.shape[1] - 1)  # an empty draw has none: NaN in the end
    before = np.where(place > 0, upto[draws, place - 1], 0.0)
    rows = np.minimum(place[:, None] * BLOCK + np.arange(BLOCK), len(owner) - 1)
    weight = counts[draws[:, None], owner[rows]].cumsum(axis=1) + before[:, None]
    within = side(weight, half[:, None]).sum(axis=1)
    return np.asarray(np.minimum(place * BLOCK + within, len(owner) - 1))
