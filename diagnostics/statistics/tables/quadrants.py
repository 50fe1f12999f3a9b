"""Quadrants at another cut than the median (DEFINITIONS, section 4), and how large each is.

`tokens.quadrants` decides a position's quadrant; here a whole table is given others, so that every
analysis of Q3 runs at another cut, and the shares that must be reported with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.inference.results import Tabled
from diagnostics.statistics.tables.origin import MEDIAN, QUADRANTS
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.tokens import SPLIT, quadrants
from diagnostics.statistics.tables.values import require_finite


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class QuadrantShares(Tabled):
    """How many positions each quadrant has.

    Fields: `quantile` of both cuts; `n_positions`; `q3_share`; `table` with one line a quadrant:
    quadrant, n, share.
    """

    quantile: float
    n_positions: int
    q3_share: float
    table: pd.DataFrame


@on_table
def with_quadrants(frame: pd.DataFrame, quantile: float = MEDIAN) -> pd.DataFrame:
    """The table with both cuts of its quadrants at `quantile` of H and of KL_0 over its rows.

    A position on a cut is low in H and high in KL_0, as at the median. The table says its quantile
    from then on. Raises InputError for a quantile that is not between 0 and 1, or a NaN.
    """
    if not 0 < quantile < 1:
        raise InputError(
            where="quadrants",
            expected="a quantile between 0 and 1",
            got=f"{quantile:g}",
            fix="give 0.5 for the median, 0.8 for the upper fifth",
        )
    entropy, kl_0 = (frame[name].to_numpy(dtype=np.float64) for name in SPLIT)
    everywhere = np.ones(len(frame), dtype=bool)
    for name, values in zip(SPLIT, (entropy, kl_0), strict=True):
        require_finite(values, name, frame, everywhere)
    made = frame.assign(quadrant=quadrants(entropy, kl_0, quantile))
    made.attrs[QUADRANTS] = quantile
    return made


@on_table
def quadrant_shares(frame: pd.DataFrame) -> QuadrantShares:
    """The share of each quadrant, also of empty ones."""
    counts = np.bincount(frame["quadrant"].to_numpy(dtype=np.int64), minlength=5)[1:]
    shares = counts / len(frame)
    return QuadrantShares(
        quantile=frame.attrs.get(QUADRANTS, MEDIAN),
        n_positions=len(frame),
        q3_share=float(shares[2]),
        table=pd.DataFrame({"quadrant": np.arange(1, 5), "n": counts, "share": shares}),
    )
