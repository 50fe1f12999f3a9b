"""Exact top-N: what the positions that a selector keeps have gained (Table 8, Fig. 4A-B)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.statistics.bootstrap import DEFAULT, Bootstrap, Interval, interval
from diagnostics.statistics.clusters import prompt_clusters
from diagnostics.statistics.estimators import Mean
from diagnostics.statistics.gaps import masked_mean, outcomes
from diagnostics.statistics.regression import Outcome
from diagnostics.statistics.results import Result
from diagnostics.statistics.selectors import (
    Selection,
    Selector,
    Signals,
    identities,
    select,
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TopN(Result):
    """One row of Table 8.

    Fields: `selector`; `budget` rho; `n_kept` = ceil(rho N); `gain` mean over the kept positions,
    nats, with its interval; `gain_per_keep` = gain / rho; `q3_share` of the kept; `entropy_norm`,
    `disagreement_norm`, `compatibility_norm` their means over the kept; `tied_share` (selectors).
    """

    selector: Selector
    budget: float
    n_kept: int
    gain: Interval
    gain_per_keep: float
    q3_share: float
    entropy_norm: float
    disagreement_norm: float
    compatibility_norm: float
    tied_share: float


def signals_of(frame: pd.DataFrame) -> Signals:
    """The selectors' signals of one checkpoint's token table."""
    return Signals(
        entropy=frame["entropy"].to_numpy(),
        disagreement=frame["disagreement"].to_numpy(),
        compatibility=frame["compatibility"].to_numpy(),
        identity=identities(frame["context_id"], frame["position"].to_numpy()),
    )


def kept_means(frame: pd.DataFrame, kept: NDArray[np.bool_], outcome: Outcome) -> Mean:
    """The mean gain over kept positions (pos,), as an estimator."""
    return masked_mean(prompt_clusters(frame), outcomes(frame, outcome, kept), kept)


def top_n(
    frame: pd.DataFrame,
    selector: Selector,
    budget: float,
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome = "gain",
    seed: int = 0,
    selection: Selection | None = None,
) -> TopN:
    """Mean gain of exactly ceil(rho N) positions of one checkpoint's token table.

    `selection` may hold what `selector` keeps at `budget`, where the caller has it already: it is
    the same for every checkpoint and outcome.
    """
    if selection is None:
        selection = select(selector, budget, signals_of(frame), seed)
    kept = selection.mask
    gain = interval(kept_means(frame, kept, outcome), bootstrap)
    chosen = frame[kept]
    return TopN(
        selector=selector,
        budget=budget,
        n_kept=int(kept.sum()),
        gain=gain,
        gain_per_keep=gain.estimate / budget,
        q3_share=float((chosen["quadrant"] == 3).mean()),
        entropy_norm=float(chosen["entropy_norm"].mean()),
        disagreement_norm=float(chosen["disagreement_norm"].mean()),
        compatibility_norm=float(chosen["compatibility_norm"].mean()),
        tied_share=selection.tied_share,
    )
