"""The bootstrap that redoes everything in each draw: cut points, normalisation, z-scores.

Slow by design (one whole analysis a draw), for any statistic at all. Its draws are those of
`bootstrap.Bootstrap`, so both intervals of one statistic are of the same resampled prompts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from diagnostics.statistics.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    no_interval,
    percentile_interval,
)
from diagnostics.statistics.clusters import prompt_clusters
from diagnostics.statistics.definitions import PAPER, definitions_of
from diagnostics.statistics.tokens import derived

Statistic = Callable[[pd.DataFrame], float]


def redrawn_interval(
    frame: pd.DataFrame, statistic: Statistic, bootstrap: Bootstrap = DEFAULT
) -> Interval:
    """A statistic of one checkpoint's token table with quadrants and norms redone in each draw.

    `statistic` maps a token table to a number. A prompt that is drawn twice counts as two prompts.
    """
    clusters = prompt_clusters(frame)
    estimate = statistic(frame)
    if clusters.count < 2:
        return no_interval(estimate, clusters.count)
    order = np.argsort(clusters.of_row, kind="stable")
    ends = np.cumsum(np.bincount(clusters.of_row, minlength=clusters.count))
    rows = np.split(order, ends[:-1])
    values = []
    for block in bootstrap.blocks(clusters.count):
        for counts in block.astype(np.int64):
            chosen = np.repeat(np.arange(clusters.count), counts)
            values.append(statistic(_resampled(frame, [rows[c] for c in chosen])))
    return percentile_interval(estimate, np.asarray(values))


def _resampled(frame: pd.DataFrame, pieces: list[np.ndarray]) -> pd.DataFrame:
    """Rows of drawn prompts under new prompt ids; what depends on the population is redone."""
    drawn = frame.iloc[np.concatenate(pieces)].reset_index(drop=True)
    copies = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    drawn["prompt_id"] = [f"{copy:08d}" for copy in copies]
    return drawn.assign(**derived(drawn, definitions_of(frame, PAPER).epsilon))
