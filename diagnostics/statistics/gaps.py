"""Gaps of gain between high- and low-support positions inside Q3 (Tables 1 and 6, Fig. 4D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.bootstrap import (
    Interval,
    Means,
    difference_interval,
    mean_interval,
)
from diagnostics.statistics.clusters import prompt_clusters
from diagnostics.statistics.regression import Outcome

Floats = NDArray[np.float64]

TERTILES = (1 / 3, 2 / 3)
COVARIATES = ("entropy_norm", "disagreement_norm", "relative_position")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Mean gain of high less low positions.

    Fields: `proxy`; `gap` with its interval, nats for outcome gain; `n_positions` in the scope;
    `n_high`, `n_low`; `tied_share` of the scope's positions that lie exactly on a cut (a position
    on both cuts counts on both sides).
    """

    proxy: str
    gap: Interval
    n_positions: int
    n_high: int
    n_low: int
    tied_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedGap:
    """Mean within-prompt difference of gain over matched pairs.

    Fields: `gap` with its interval; `pairs`; `prompt_share` of all prompts that contribute a pair;
    `balance` a frame with one row a covariate: means of high, of all low and of matched low, and
    the standardised differences before and after matching.
    """

    gap: Interval
    pairs: int
    prompt_share: float
    balance: pd.DataFrame


def in_q3(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows lie in Q3, (pos,). Raises InputError when none does."""
    rows: NDArray[np.bool_] = (frame["quadrant"] == 3).to_numpy()
    if not rows.any():
        raise InputError(
            where="token table",
            expected="positions in Q3 (low entropy, high KL)",
            got="none",
            fix="score more contexts",
        )
    return rows


def support_gap(
    frame: pd.DataFrame,
    proxy: str,
    counts: Floats,
    *,
    outcome: Outcome = "gain",
    cuts: tuple[float, float] = TERTILES,
) -> Gap:
    """High-low gap inside Q3: high at or above the upper cut of `proxy`, low at or below the lower.

    Raises InputError when the proxy is constant in Q3.
    """
    rows = in_q3(frame)
    clusters = prompt_clusters(frame)
    values = frame[proxy].to_numpy(dtype=np.float64)
    low_cut, high_cut = np.quantile(values[rows], cuts)
    high, low = rows & (values >= high_cut), rows & (values <= low_cut)
    if values[rows].min() == values[rows].max():
        raise InputError(
            where=f"gap by {proxy}",
            expected="a proxy that varies in Q3",
            got=f"{values[rows][0]:g} everywhere",
            fix="choose a smaller support size or another proxy",
        )
    gain = frame[outcome].to_numpy(dtype=np.float64)

    def side(mask: NDArray[np.bool_]) -> Means:
        return Means(clusters.sums(np.where(mask, gain, 0.0)), clusters.sums(mask.astype(float)))

    tied = rows & ((values == high_cut) | (values == low_cut))
    return Gap(
        proxy=proxy,
        gap=difference_interval(side(high), side(low), counts),
        n_positions=int(rows.sum()),
        n_high=int(high.sum()),
        n_low=int(low.sum()),
        tied_share=float(tied.sum() / rows.sum()),
    )


def matched_gap(
    frame: pd.DataFrame, proxy: str, counts: Floats, *, outcome: Outcome = "gain"
) -> MatchedGap:
    """Matched gap inside Q3 (Table 1).

    Within each prompt, positions above the prompt's median of `proxy` are each paired, with
    replacement, with the nearest position not above it in (H~, D~, relative position), Euclidean.
    Equal distances: the earlier context and position. Raises InputError when no prompt has a pair.
    """
    rows = np.flatnonzero(in_q3(frame))
    clusters = prompt_clusters(frame)
    names = frame["context_id"].astype(str).to_numpy()[rows]
    order = np.lexsort((frame["position"].to_numpy()[rows], names, clusters.of_row[rows]))
    rows = rows[order]
    owner = clusters.of_row[rows]
    values = frame[proxy].to_numpy(dtype=np.float64)[rows]
    points = frame[list(COVARIATES)].to_numpy(dtype=np.float64)[rows]  # (q3, 3)
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    edges = [*starts.tolist(), len(rows)]
    pairs = [_pairs(values, points, start, end) for start, end in pairwise(edges)]
    high, low = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if not len(high):
        raise InputError(
            where=f"matched gap by {proxy}",
            expected="a prompt with Q3 positions above and not above its median",
            got="none",
            fix="score longer or more contexts",
        )
    gain = frame[outcome].to_numpy(dtype=np.float64)[rows]
    difference = np.zeros(len(rows))
    difference[high] = gain[high] - gain[low]
    paired = np.zeros(len(rows))
    paired[high] = 1.0
    sums, sizes = (clusters.subset(rows).sums(values) for values in (difference, paired))
    medians = pd.Series(values).groupby(owner).transform("median").to_numpy()
    return MatchedGap(
        gap=mean_interval(Means(sums, sizes), counts),
        pairs=len(high),
        prompt_share=float((sizes > 0).sum() / clusters.count),
        balance=_balance(points, high, low, values > medians),
    )


def bucket_means(
    frame: pd.DataFrame,
    column: str,
    counts: Floats,
    *,
    buckets: int = 4,
    edges: Sequence[float] | None = None,
    outcome: Outcome = "gain",
    scope: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Mean gain in buckets of `column`, inside Q3 unless `scope` (pos,) is given.

    The cuts are quantiles, or the inner `edges`; a value on a cut falls below it. One row a bucket
    that has positions: bucket (1 is lowest), n, mean of the column, gain, gain_low, gain_high.
    Equal values stay together, so quantile buckets of a tied column differ in size.
    """
    rows = in_q3(frame) if scope is None else scope
    clusters = prompt_clusters(frame)
    values = frame[column].to_numpy(dtype=np.float64)
    if edges is None:
        edges = np.quantile(values[rows], np.linspace(0, 1, buckets + 1)[1:-1]).tolist()
    bucket = np.searchsorted(np.asarray(edges), values, side="left")
    gain = frame[outcome].to_numpy(dtype=np.float64)
    table = []
    for index in range(len(edges) + 1):
        mask = rows & (bucket == index)
        if mask.any():
            sums = clusters.sums(np.where(mask, gain, 0.0))
            mean = mean_interval(Means(sums, clusters.sums(mask.astype(float))), counts)
            middle = float(values[mask].mean())
            table.append((index + 1, int(mask.sum()), middle, mean.estimate, mean.low, mean.high))
    return pd.DataFrame(table, columns=["bucket", "n", column, "gain", "gain_low", "gain_high"])


def _pairs(
    values: Floats, points: Floats, start: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the high positions of one prompt, and of the low one nearest to each."""
    here = values[start:end]
    above = here > np.median(here)
    high, low = start + np.flatnonzero(above), start + np.flatnonzero(~above)
    if not len(high):
        return high, high
    distance = ((points[high][:, None, :] - points[low][None, :, :]) ** 2).sum(axis=2)
    return high, low[distance.argmin(axis=1)]


def _balance(
    points: Floats, high: NDArray[np.int64], low: NDArray[np.int64], above: NDArray[np.bool_]
) -> pd.DataFrame:
    """Covariate balance before and after matching."""
    spread = points.std(axis=0)
    all_low, matched, top = points[~above].mean(axis=0), points[low].mean(axis=0), points[high]
    safe = np.where(spread > 0, spread, 1.0)
    return pd.DataFrame(
        {
            "covariate": COVARIATES,
            "high_mean": top.mean(axis=0),
            "low_mean": all_low,
            "matched_low_mean": matched,
            "difference_before": (top.mean(axis=0) - all_low) / safe,
            "difference_after": (top.mean(axis=0) - matched) / safe,
        }
    )
