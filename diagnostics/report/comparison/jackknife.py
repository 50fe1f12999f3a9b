"""The numbers of a run's checkpoints, and each of them without each prompt, as a frame.

Rows are those of `estimates`; numbers come from `diagnostics.statistics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.report.comparison.estimates import COLUMNS, number_of
from diagnostics.report.contexts.rows import OUTCOMES, Piece
from diagnostics.statistics.analyses.headlines import HEADLINES
from diagnostics.statistics.analyses.noise import farthest
from diagnostics.statistics.analyses.shown import BUDGETS, PAPER_SELECTORS
from diagnostics.statistics.inference.left_out import LeftOut, left_out, own_interval
from diagnostics.statistics.tables.values import Outcome


def estimate_frame(pieces: Sequence[Piece], unchanged: Sequence[Piece]) -> pd.DataFrame:
    """The numbers of a run's checkpoints at one K; `unchanged`: theta_0 scored a second time."""
    noise = _noise(unchanged)
    frames = []
    for piece in pieces:
        for number, outcome, one in _numbers(piece):
            key = piece.key | {"top_k": piece.top_k, "number": number, "outcome": outcome}
            values = {"noise": noise.get((number, outcome), np.nan), "estimate": one.value}
            parts = {"prompt_id": one.prompts, "without": one.without}
            frames.append(pd.DataFrame(parts).assign(**key, **values))
    return pd.concat(frames, ignore_index=True)[[c.name for c in COLUMNS]]


def _numbers(piece: Piece) -> Iterator[tuple[str, Outcome, LeftOut]]:
    """(number, outcome, its values) of one checkpoint, as far as its rows can give them."""
    prompts = piece.start.clusters.names
    for outcome, _ in OUTCOMES:
        for name in HEADLINES:
            try:
                yield name, outcome, left_out(piece.headline(name, outcome), prompts)
            except InputError:
                continue
        for selector in PAPER_SELECTORS:
            for budget in BUDGETS:
                mean = piece.mean(piece.start.selected[selector, budget].mask, outcome)
                yield number_of(selector, budget), outcome, left_out(mean, prompts)


def _noise(unchanged: Sequence[Piece]) -> dict[tuple[str, Outcome], float]:
    """How far from 0 each number of a checkpoint that did not change comes; of kinds the most."""
    reach: dict[tuple[str, Outcome], float] = {}
    for piece in unchanged:
        for number, outcome, one in _numbers(piece):
            far = farthest([own_interval(one)])
            reach[number, outcome] = float(np.fmax(far, reach.get((number, outcome), np.nan)))
    return reach
