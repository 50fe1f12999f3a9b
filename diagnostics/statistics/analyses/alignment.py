"""What a position's gradient alignment goes with: signals, gains, quadrants and selectors.

`alignment` (nats per unit learning rate) is <grad L_fix, grad l_t> of Proposition 1, positive where
a step on this token's OPD loss lowers the bank's fixed-context loss; the alignment layer measures
it. Here are arrays and intervals alone. Not covered: why it is so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.statistics.analyses.budgets import selections
from diagnostics.statistics.analyses.gaps import masked_mean
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, joint_intervals
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.correlation import correlation, ranks
from diagnostics.statistics.inference.results import spread
from diagnostics.statistics.selection.selectors import SELECTORS

Mask = NDArray[np.bool_]
ALIGNMENTS = ("alignment", "alignment_kl")
SIGNALS = (
    "gain_step",
    "loss_step",
    "learnable",
    "incompatible",
    "compatibility",
    "disagreement",
    "kl_0",
    "loss",
    "entropy",
)
MEANS = ("alignment", "alignment_kl", "gain_step")


def correlations(frame: pd.DataFrame, bootstrap: Bootstrap = DEFAULT) -> pd.DataFrame:
    """Correlation of each alignment with each signal, over the bank and within Q3.

    `frame` holds a row a position. One row for each (`scope`, `of`, `signal`): `n_positions`,
    `pearson` and `spearman` with the ends of their intervals; NaN where a side does not vary or the
    scope has fewer than two positions.
    """
    rows: list[dict[str, Any]] = []
    whole = prompt_clusters(frame)
    for scope, mask in (("all", np.ones(len(frame), dtype=bool)), ("q3", _quadrant(frame, 3))):
        part, clusters = frame[mask], whole.subset(mask)
        for of in ALIGNMENTS:
            rows += _with_signals(part, of, {"scope": scope, "of": of}, clusters, bootstrap)
    return pd.DataFrame(rows)


def _with_signals(
    part: pd.DataFrame,
    of: str,
    key: dict[str, str],
    clusters: Clusters,
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """The rows of one alignment in one scope; all intervals from the same draws."""
    columns = {name: part[name].to_numpy(np.float64) for name in (of, *SIGNALS)}
    ordered = {name: ranks(values) for name, values in columns.items()}
    made = [
        correlation(clusters, values[of], values[signal])
        for signal in SIGNALS
        for values in (columns, ordered)
    ]
    found = joint_intervals(made, bootstrap) if len(part) else []
    for index, signal in enumerate(SIGNALS if found else ()):
        pearson, spearman = found[2 * index : 2 * index + 2]
        row = {"signal": signal, "n_positions": len(part)}
        yield key | row | spread("pearson", pearson) | spread("spearman", spearman)


def group_means(
    frame: pd.DataFrame,
    budget: float,
    vocabulary: int,
    bootstrap: Bootstrap = DEFAULT,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean alignments and one-step gain of the bank, its quadrants, and what each selector keeps.

    `budget` rho and `vocabulary` (its size) are the selectors'. One row a group: `kind` (`bank`,
    `quadrant`, `selector`), `group`, `n_positions`, `share` of the bank, `positive_share` of the
    group's alignments, and each mean with its interval. Groups without positions are left out.
    """
    clusters = prompt_clusters(frame)
    values = {name: frame[name].to_numpy(np.float64) for name in MEANS}
    rows: list[dict[str, Any]] = []
    for kind, group, mask in _groups(frame, budget, vocabulary, seed):
        if not mask.any():
            continue
        means = [masked_mean(clusters, values[name], mask) for name in MEANS]
        row: dict[str, Any] = {
            "kind": kind,
            "group": group,
            "n_positions": int(mask.sum()),
            "share": float(mask.mean()),
            "positive_share": float((values["alignment"][mask] > 0).mean()),
        }
        for name, found in zip(MEANS, joint_intervals(means, bootstrap), strict=True):
            row |= spread(name, found)
        rows.append(row)
    return pd.DataFrame(rows)


def _groups(
    frame: pd.DataFrame, budget: float, vocabulary: int, seed: int
) -> Iterator[tuple[str, str, Mask]]:
    yield "bank", "every position", np.ones(len(frame), dtype=bool)
    for quadrant in (1, 2, 3, 4):
        yield "quadrant", f"Q{quadrant}", _quadrant(frame, quadrant)
    names = [name for name in SELECTORS if name != "full"]
    kept = selections(frame, names, [budget], seed, vocabulary=vocabulary)
    for (name, _), selection in kept.items():
        yield "selector", name, selection.mask


def _together(count: int) -> Clusters:
    """All of `count` rows in one cluster."""
    return Clusters(names=np.array(["all"], dtype=object), of_row=np.zeros(count, dtype=np.int64))


def _quadrant(frame: pd.DataFrame, number: int) -> Mask:
    return np.asarray(frame["quadrant"] == number)


def step_rows(
    first_order: Sequence[tuple[str, float, NDArray[np.float64], NDArray[np.float64]]],
) -> pd.DataFrame:
    """How well first-order terms say what a step did, from (quantity, eta, slope, realised).

    Columns: `quantity`, `step_size`; `realised` and `first_order` mean reductions, nats;
    `first_order_size` mean |eta * slope|; `remainder` mean |realised - eta * slope| and its
    `largest`; `correlation` of realised with slope.
    """
    rows = []
    for quantity, eta, slope, realised in first_order:
        remainder = np.abs(realised - eta * slope)
        everything = correlation(_together(len(slope)), slope, realised)
        rows.append(
            {
                "quantity": quantity,
                "step_size": eta,
                "realised": float(realised.mean()),
                "first_order": float(eta * slope.mean()),
                "first_order_size": float(np.abs(eta * slope).mean()),
                "remainder": float(remainder.mean()),
                "largest": float(remainder.max()),
                "correlation": float(everything.value(everything.sums)[0, 0]),
            }
        )
    return pd.DataFrame(rows)
