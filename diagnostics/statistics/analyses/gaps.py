"""Gaps of gain between high- and low-support positions inside Q3 (Tables 1 and 6).

Cuts and pairs are made once, in the full sample; a draw resamples prompts with what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, interval
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.estimators import Difference, Mean
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.values import Outcome, require_finite

Floats = NDArray[np.float64]

TERTILES, MEDIAN, QUARTILES = (1 / 3, 2 / 3), (0.5, 0.5), (0.25, 0.75)
COVARIATES = ("entropy_norm", "disagreement_norm", "relative_position")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Gap(Result):
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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MatchedGap(Result):
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
        raise without_q3()
    return rows


def without_q3() -> InputError:
    """What a table without positions in Q3 is refused with."""
    return InputError(
        where="token table",
        expected="positions in Q3 (low entropy, high KL)",
        got="none",
        fix="score more contexts",
    )


def constant_proxy(proxy: str, value: float) -> InputError:
    """What a proxy of one value in Q3 is refused with."""
    return InputError(
        where=f"gap by {proxy}",
        expected="a proxy that varies in Q3",
        got=f"{value:g} everywhere",
        fix="choose a smaller support size or another proxy",
    )


def without_pairs(proxy: str) -> InputError:
    """What a table without a matched pair is refused with."""
    return InputError(
        where=f"matched gap by {proxy}",
        expected="a prompt with Q3 positions above and not above its median",
        got="none",
        fix="score longer or more contexts",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A high and a low side of some rows, each (pos,) bool; `tied` rows lie exactly on a cut."""

    rows: NDArray[np.bool_]
    high: NDArray[np.bool_]
    low: NDArray[np.bool_]
    tied: NDArray[np.bool_]

    def gap(self, clusters: Clusters, values: Floats) -> Difference:
        """Mean of `values` (pos,) over the high side less that over the low one."""
        return Difference(
            masked_mean(clusters, values, self.high), masked_mean(clusters, values, self.low)
        )


@on_table
def support_gap(
    frame: pd.DataFrame,
    proxy: str,
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome = "gain",
    cuts: tuple[float, float] = TERTILES,
) -> Gap:
    """High-low gap inside Q3: high at or above the upper cut of `proxy`, low at or below the lower.

    `cuts` are two quantiles: `TERTILES`, `MEDIAN`, `QUARTILES` or others. Raises InputError when
    the proxy is constant in Q3, a value is not finite, or the cuts are not in order.
    """
    split = support_split(frame, proxy, cuts)
    estimator = split.gap(prompt_clusters(frame), outcomes(frame, outcome, split.rows))
    return Gap(
        proxy=proxy,
        gap=interval(estimator, bootstrap),
        n_positions=int(split.rows.sum()),
        n_high=int(split.high.sum()),
        n_low=int(split.low.sum()),
        tied_share=float(split.tied.sum() / split.rows.sum()),
    )


def support_split(frame: pd.DataFrame, proxy: str, cuts: tuple[float, float] = TERTILES) -> Split:
    """The sides of `support_gap`."""
    if not 0 <= cuts[0] <= cuts[1] <= 1:
        raise InputError(
            where=f"gap by {proxy}",
            expected="two quantiles from 0 to 1, the lower one first",
            got=f"{cuts[0]:g} and {cuts[1]:g}",
            fix="give (1/3, 2/3) for tertiles, (0.5, 0.5) for a median split",
        )
    rows = in_q3(frame)
    values = frame[proxy].to_numpy(dtype=np.float64)
    require_finite(values[rows], proxy, frame, rows)
    low_cut, high_cut = np.quantile(values[rows], cuts)
    if values[rows].min() == values[rows].max():
        raise constant_proxy(proxy, float(values[rows][0]))
    high, low = rows & (values >= high_cut), rows & (values <= low_cut)
    tied = rows & ((values == high_cut) | (values == low_cut))
    return Split(rows=rows, high=high, low=low, tied=tied)


def outcomes(frame: pd.DataFrame, outcome: Outcome, rows: NDArray[np.bool_]) -> Floats:
    """The outcome (pos,), refused where it is not finite in `rows`."""
    values: Floats = frame[outcome].to_numpy(dtype=np.float64)
    require_finite(values[rows], outcome, frame, rows)
    return values


def masked_mean(clusters: Clusters, values: Floats, mask: NDArray[np.bool_]) -> Mean:
    """The mean of `values` (pos,) over `mask` (pos,), as an estimator."""
    chosen = clusters.subset(mask)
    return Mean(chosen.sums(values[mask]), chosen.sizes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Matched pairs inside Q3: row numbers of the frame, (pairs,) each.

    Fields: `high`; `low` the nearest to each; `rows` (q3,) all of Q3 and `above` (q3,) bool which
    of them lie above their prompt's median proxy.
    """

    high: NDArray[np.int64]
    low: NDArray[np.int64]
    rows: NDArray[np.int64]
    above: NDArray[np.bool_]

    def difference(self, clusters: Clusters, values: Floats) -> Mean:
        """Mean of `values` (pos,) at high less at low positions, over pairs."""
        owners = clusters.subset(self.high)
        return Mean(owners.sums(values[self.high] - values[self.low]), owners.sizes())


@on_table
def matched_gap(
    frame: pd.DataFrame,
    proxy: str,
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome = "gain",
    pairs: Pairs | None = None,
) -> MatchedGap:
    """Matched gap inside Q3 (Table 1).

    Within each prompt, positions above the prompt's median of `proxy` are each paired, with
    replacement, with the nearest position not above it in (H~, D~, relative position), Euclidean.
    Equal distances: the earlier context and position. `pairs` may hold them where the caller has
    them. Raises InputError when no prompt has a pair.
    """
    clusters = prompt_clusters(frame)
    pairs = pairs or matched_pairs(frame, proxy, clusters)
    estimator = pairs.difference(clusters, outcomes(frame, outcome, in_q3(frame)))
    return MatchedGap(
        gap=interval(estimator, bootstrap),
        pairs=len(pairs.high),
        prompt_share=float((estimator.count > 0).sum() / clusters.count),
        balance=_balance(frame[list(COVARIATES)].to_numpy(dtype=np.float64), pairs),
    )


def matched_pairs(frame: pd.DataFrame, proxy: str, clusters: Clusters | None = None) -> Pairs:
    """The pairs of `matched_gap`; they know no gain, so every checkpoint shares them."""
    clusters = clusters or prompt_clusters(frame)
    inside = in_q3(frame)
    for name in (proxy, *COVARIATES):
        require_finite(frame[name].to_numpy(dtype=np.float64)[inside], name, frame, inside)
    rows = np.flatnonzero(inside)
    names = frame["context_id"].astype(str).to_numpy()[rows]
    rows = rows[np.lexsort((frame["position"].to_numpy()[rows], names, clusters.of_row[rows]))]
    owner = clusters.of_row[rows]
    values = frame[proxy].to_numpy(dtype=np.float64)[rows]
    points = frame[list(COVARIATES)].to_numpy(dtype=np.float64)[rows]  # (q3, 3)
    above = values > pd.Series(values).groupby(owner).transform("median").to_numpy()
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    edges = [*starts.tolist(), len(rows)]
    found = [_pairs(above, points, start, end) for start, end in pairwise(edges)]
    high, low = (np.concatenate(side) for side in zip(*found, strict=True))
    if not len(high):
        raise without_pairs(proxy)
    return Pairs(high=rows[high], low=rows[low], rows=rows, above=above)


def _pairs(
    above: NDArray[np.bool_], points: Floats, start: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the high positions of one prompt, and of the low one nearest to each."""
    high = start + np.flatnonzero(above[start:end])
    if not len(high):
        return high, high
    low = start + np.flatnonzero(~above[start:end])
    distance = ((points[high][:, None, :] - points[low][None, :, :]) ** 2).sum(axis=2)
    return high, low[distance.argmin(axis=1)]


def _balance(points: Floats, pairs: Pairs) -> pd.DataFrame:
    """Covariate balance before and after matching, for covariates (pos, 3)."""
    return balance_frame(
        spread=points[pairs.rows].std(axis=0),
        high=points[pairs.high].mean(axis=0),
        all_low=points[pairs.rows[~pairs.above]].mean(axis=0),
        matched_low=points[pairs.low].mean(axis=0),
    )


def balance_frame(
    *, spread: Floats, high: Floats, all_low: Floats, matched_low: Floats
) -> pd.DataFrame:
    """The balance table from the covariates' deviation in Q3 and their means, (3,) each."""
    safe = np.where(spread > 0, spread, 1.0)
    return pd.DataFrame(
        {
            "covariate": COVARIATES,
            "high_mean": high,
            "low_mean": all_low,
            "matched_low_mean": matched_low,
            "difference_before": (high - all_low) / safe,
            "difference_after": (high - matched_low) / safe,
        }
    )
