"""Exact top-N: what the positions that a selector keeps have gained (Table 8, Fig. 4A-B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.statistics.analyses.gaps import masked_mean, outcomes
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, joint_intervals
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.estimators import Mean
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.selection.selectors import Selection, Selector, select_many
from diagnostics.statistics.selection.signals import Signals, identities
from diagnostics.statistics.tables.definitions import PAPER, definitions_of
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.values import Outcome


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TopN(Result):
    """One row of Table 8.

    Fields: `selector`; `budget` rho; `n_kept` = ceil(rho N); `gain` mean over the kept positions,
    nats, with its interval; `gain_per_keep` = gain / rho, by the share kept where Q3 was `short` of
    positions or each rollout kept one; `q3_share` of the kept; `entropy_norm`, `disagreement_norm`,
    `compatibility_norm` their means over the kept; `tied_share`, `short` (selectors).
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
    short: bool


def signals_of(frame: pd.DataFrame, vocabulary: int | None = None) -> Signals:
    """The selectors' signals of one checkpoint's token table.

    A column that the table lacks, or that its teacher's lists left null, stays unknown; so does
    the size of the models' shared `vocabulary` where it is not given.
    """
    quadrant = _known(frame, "quadrant")
    return Signals(
        entropy=frame["entropy"].to_numpy(),
        disagreement=frame["disagreement"].to_numpy(),
        compatibility=frame["compatibility"].to_numpy(),
        identity=identities(frame["context_id"], frame["position"].to_numpy()),
        kl_0=_known(frame, "kl_0"),
        reverse_kl_0=_known(frame, "reverse_kl_0"),
        q3=None if quadrant is None else quadrant == 3,
        vocabulary=vocabulary,
    )


def _known(frame: pd.DataFrame, column: str) -> NDArray[Any] | None:
    """A column (pos,), None where the table does not have it or holds nulls alone."""
    if column not in frame or frame[column].isna().all():
        return None
    return np.asarray(frame[column])


def selections(
    frame: pd.DataFrame,
    selectors: Sequence[Selector],
    budgets: Sequence[float],
    seed: int = 0,
    *,
    vocabulary: int | None = None,
    one_per_rollout: bool | None = None,
) -> dict[tuple[Selector, float], Selection]:
    """What each selector keeps at each budget of one bank, under the frame's definition set.

    It is the same for every checkpoint, unless the set leaks. `one_per_rollout` keeps at least one
    position of each rollout besides, or not, whatever the set says. Raises InputError as
    `select_many` does.
    """
    signals, definitions = signals_of(frame, vocabulary), definitions_of(frame, PAPER)
    if one_per_rollout is None:
        one_per_rollout = definitions.keeping == "at_least_one"
    owners = pd.Series(frame["context_id"]) if one_per_rollout else None
    found: dict[tuple[Selector, float], Selection] = {}
    for name in selectors:
        kept = select_many(
            name, budgets, signals, seed, at_least_one_of=owners, ties=definitions.ties
        )
        found |= {(name, budget): k for budget, k in zip(budgets, kept, strict=True)}
    return found


def kept_means(
    frame: pd.DataFrame,
    kept: NDArray[np.bool_],
    outcome: Outcome,
    clusters: Clusters | None = None,
) -> Mean:
    """The mean gain over kept positions (pos,), as an estimator."""
    return masked_mean(clusters or prompt_clusters(frame), outcomes(frame, outcome, kept), kept)


@on_table
def top_n(
    frame: pd.DataFrame,
    selector: Selector,
    budget: float,
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome = "gain",
    seed: int = 0,
    vocabulary: int | None = None,
) -> TopN:
    """Mean gain of exactly ceil(rho N) positions of one checkpoint's token table.

    `seed` matters to `random` alone; `vocabulary` (its size) to `q3-tip` alone.
    """
    kept = selections(frame, [selector], [budget], seed, vocabulary=vocabulary)
    (only,) = top_ns(frame, kept, bootstrap, outcome=outcome)
    return only


def top_ns(
    frame: pd.DataFrame,
    kept: Mapping[tuple[Selector, float], Selection],
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome = "gain",
    clusters: Clusters | None = None,
) -> list[TopN]:
    """`top_n` of each selector and budget in `selections`, which every checkpoint shares."""
    clusters = clusters or prompt_clusters(frame)
    means = [kept_means(frame, k.mask, outcome, clusters) for k in kept.values()]
    gains = joint_intervals(means, bootstrap)
    columns = ("entropy_norm", "disagreement_norm", "compatibility_norm")
    features = {name: frame[name].to_numpy() for name in columns}
    features["q3_share"] = (frame["quadrant"] == 3).to_numpy(dtype=np.float64)
    return [
        TopN(
            selector=selector,
            budget=budget,
            n_kept=int(k.mask.sum()),
            gain=gain,
            gain_per_keep=gain.estimate / (k.share if k.short or k.added else budget),
            tied_share=k.tied_share,
            short=k.short,
            **{name: _mean(values[k.mask]) for name, values in features.items()},
        )
        for ((selector, budget), k), gain in zip(kept.items(), gains, strict=True)
    ]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
