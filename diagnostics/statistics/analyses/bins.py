"""Gain in bins of a signal: residualised bins (Fig. 5C) and bucket trends (Fig. 4D).

Bins are cut at quantiles of the signal over a scope, made once; a value on a cut falls below it, so
equal values stay together and a tied signal has bins of different sizes, or fewer. A draw resamples
prompts with what they hold. Residuals take the regression anew in each draw, as its coefficients
are estimates too; held fixed, intervals are too wide (docs/log.md). Medians are no functions of
sums (`medians`), and have percentile intervals whatever the kind that was asked. Not covered:
splines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError, one_of
from diagnostics.statistics.analyses.gaps import in_q3, masked_mean, outcomes
from diagnostics.statistics.analyses.regression import Scope
from diagnostics.statistics.analyses.residuals import CONTROLS, residuals
from diagnostics.statistics.inference.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    bands,
    interval,
    joint_intervals,
    no_interval,
    percentile_interval,
)
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.estimators import Combination, Estimator, Floats
from diagnostics.statistics.inference.medians import drawn_medians
from diagnostics.statistics.inference.results import Tabled, spread
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.values import Outcome, require_finite

Rows = NDArray[np.bool_]
Medians = Literal["interval", "estimate"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Bins(Tabled):
    """A mean and a median in each bin of a signal, lowest first.

    Fields: `column` the signal; `outcome`, nats for `gain`; `n_positions` in the scope;
    `tied_share` of them that lie exactly on a cut; `slope` of the means over the bins' numbers,
    every bin weighing the same; `top_less_bottom` the highest bin's mean less the lowest's; `table`
    with one line a bin that has positions: bucket (1 is lowest), n, the column's mean, the outcome
    (`gain` or `residual`) with _low and _high, median with its own, and, where asked, band_low and
    band_high, which hold the means of all bins together.
    """

    column: str
    outcome: Outcome
    n_positions: int
    tied_share: float
    slope: Interval
    top_less_bottom: Interval
    table: pd.DataFrame


@on_table
def bucket_means(
    frame: pd.DataFrame,
    column: str,
    bootstrap: Bootstrap = DEFAULT,
    *,
    buckets: int = 4,
    edges: Sequence[float] | None = None,
    outcome: Outcome = "gain",
    scope: Rows | Scope = "q3",
    simultaneous: bool = False,
    medians: Medians = "interval",
) -> Bins:
    """Gain in buckets of `column`, inside Q3, over `all`, or over a scope (pos,) (Fig. 4D).

    The cuts are quantiles, or the inner `edges`. The table calls either outcome `gain`. Raises
    InputError for an empty scope, a value that is not finite, or quantiles of a constant column.
    """
    rows = _named_rows(frame, scope) if isinstance(scope, str) else scope
    gain = outcomes(frame, outcome, rows)
    cut = _cut(frame, column, rows, buckets, edges)
    clusters = prompt_clusters(frame)
    means = [masked_mean(clusters, gain, mask) for mask in cut.masks]
    middles = [_median(gain[m], clusters.subset(m), bootstrap, medians) for m in cut.masks]
    return _bins(cut, ("gain", outcome), means, middles, bootstrap, simultaneous)


def _named_rows(frame: pd.DataFrame, name: str) -> Rows:
    """The rows (pos,) of a scope's name."""
    known = one_of(name, get_args(Scope), "scope")
    return in_q3(frame) if known == "q3" else np.ones(len(frame), dtype=bool)


@on_table
def residual_bins(
    frame: pd.DataFrame,
    column: str = "learnable",
    bootstrap: Bootstrap = DEFAULT,
    *,
    bins: int = 10,
    outcome: Outcome = "gain",
    scope: Rows | None = None,
    refit: bool = True,
    simultaneous: bool = False,
    medians: Medians = "interval",
) -> Bins:
    """What is left of the gain in quantile bins of `column`, over the bank or `scope` (Fig. 5C).

    The residual is that of least squares of the gain on H~, D~, relative position and H_T~ with a
    constant, over the same rows; its mean over all of them is 0. `refit` takes the regression anew
    in each draw; `medians` without intervals (`estimate`) are much faster. Raises InputError as
    `bucket_means` does, and for controls that are constant or collinear.
    """
    rows = np.ones(len(frame), dtype=bool) if scope is None else scope
    cut = _cut(frame, column, rows, bins, None)
    clusters = prompt_clusters(frame)
    left = residuals(frame, CONTROLS, rows, outcomes(frame, outcome, rows), clusters)
    redo = refit and clusters.count > 1
    means: list[Estimator] = [
        left.mean(mask) if redo else masked_mean(clusters, left.values, mask) for mask in cut.masks
    ]
    if redo and medians == "interval":
        beta = left.drawn_beta(bootstrap)
        draws = [left.medians(mask, bootstrap, beta) for mask in cut.masks]
        values = [float(np.median(left.values[mask])) for mask in cut.masks]
        middles = [percentile_interval(*pair) for pair in zip(values, draws, strict=True)]
    else:
        middles = [
            _median(left.values[m], clusters.subset(m), bootstrap, medians) for m in cut.masks
        ]
    return _bins(cut, ("residual", outcome), means, middles, bootstrap, simultaneous)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """Fields: `column`; `values` (pos,); `number` (bins,) of each bin that has positions, 1 the
    lowest; `masks` (pos,) each, which rows it holds; `rows` (pos,) all of them; `tied_share`."""

    column: str
    values: Floats
    number: NDArray[np.int64]
    masks: list[Rows]
    rows: Rows
    tied_share: float


def _cut(
    frame: pd.DataFrame, column: str, rows: Rows, bins: int, edges: Sequence[float] | None
) -> _Cut:
    if not rows.any():
        raise _refused(column, "positions in the scope", "none", "choose a wider scope")
    values = frame[column].to_numpy(dtype=np.float64)
    require_finite(values[rows], column, frame, rows)
    inner = np.asarray(edges) if edges is not None else _quantiles(values[rows], column, bins)
    bucket = np.searchsorted(inner, values, side="left")
    filled = np.flatnonzero(np.bincount(bucket[rows], minlength=len(inner) + 1))
    return _Cut(
        column=column,
        values=values,
        number=filled + 1,
        masks=[rows & (bucket == index) for index in filled],
        rows=rows,
        tied_share=float(np.isin(values[rows], inner).mean()),
    )


def _quantiles(values: Floats, column: str, bins: int) -> Floats:
    """Inner cuts at equal shares."""
    if bins < 2:
        raise _refused(column, "at least two bins", str(bins), "ask for 4 or 10")
    if values.min() == values.max():
        constant = f"{values[0]:g} everywhere"
        raise _refused(column, "a column that varies in the scope", constant, "choose another one")
    return np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])


def _bins(
    cut: _Cut,
    names: tuple[str, Outcome],
    means: Sequence[Estimator],
    medians: Sequence[Interval],
    bootstrap: Bootstrap,
    simultaneous: bool,
) -> Bins:
    shown, outcome = names
    made = zip(cut.masks, joint_intervals(means, bootstrap), medians, strict=True)
    lines: list[dict[str, Any]] = [
        {"n": int(mask.sum()), cut.column: float(cut.values[mask].mean())}
        | spread(shown, mean)
        | spread("median", median)
        for mask, mean, median in made
    ]
    table = pd.DataFrame(lines)
    table.insert(0, "bucket", cut.number)
    if simultaneous:
        joint = bands(means, bootstrap)
        table["band_low"], table["band_high"] = [b.low for b in joint], [b.high for b in joint]
    slope, ends = _trend(cut.number, means, bootstrap)
    return Bins(
        column=cut.column,
        outcome=outcome,
        n_positions=int(cut.rows.sum()),
        tied_share=cut.tied_share,
        slope=slope,
        top_less_bottom=ends,
        table=table,
    )


def _median(values: Floats, clusters: Clusters, bootstrap: Bootstrap, asked: Medians) -> Interval:
    middle = float(np.median(values))
    if asked == "estimate":
        return Interval(middle, np.nan, np.nan, "not asked for")
    if clusters.count < 2:
        return no_interval(middle, clusters.count)
    blocks = bootstrap.blocks(clusters.count)
    draws = [drawn_medians(values, clusters.of_row, counts) for counts in blocks]
    return percentile_interval(middle, np.concatenate(draws))


def _trend(
    number: NDArray[np.int64], means: Sequence[Estimator], bootstrap: Bootstrap
) -> tuple[Interval, Interval]:
    """The slope of the means over the bins' numbers, and the last less the first."""
    if len(means) < 2:
        one = Interval(np.nan, np.nan, np.nan, "one bin has all positions", bootstrap.kind)
        return one, one
    away = number - number.mean()
    slope = Combination(tuple(means), tuple((away / (away**2).sum()).tolist()))
    ends = Combination((means[-1], means[0]), (1.0, -1.0))
    return interval(slope, bootstrap), interval(ends, bootstrap)


def _refused(column: str, expected: str, got: str, fix: str) -> InputError:
    return InputError(where=f"bins of {column}", expected=expected, got=got, fix=fix)
