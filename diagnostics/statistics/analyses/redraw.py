"""The bootstrap that redoes everything in each draw: norms, quadrants, cut points, z-scores.

`redrawn_interval` is slow by design (one whole analysis of copied rows a draw) and takes any
statistic at all. `redrawn` does the same to the numbers of Tables 1 and 9 from weighted rows
(`redraw_sums`). Draws are those of `bootstrap.Bootstrap`, so both intervals of a statistic, cuts
held or redone, are of the same resampled prompts. Intervals are percentile or BCa. Not covered:
studentised ones (a statistic with cuts of its own has no gradient in sums).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.gaps import in_q3, masked_mean, outcomes, support_split
from diagnostics.statistics.analyses.redraw_sums import COLUMNS, Sample, prepare, sums
from diagnostics.statistics.analyses.regression import decomposition_estimator
from diagnostics.statistics.inference.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    bca_interval,
    no_interval,
    percentile_interval,
)
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.estimators import Estimator, Floats, estimate
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.tables.definitions import PAPER, definitions_of
from diagnostics.statistics.tables.origin import require_median
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.tokens import derived
from diagnostics.statistics.tables.values import Outcome, require_finite

Statistic = Callable[[pd.DataFrame], float]

KINDS = ("percentile", "bca")
_REGRESSION = ("beta_l", "beta_i", "beta_gap", "delta_r2_decomposed", "delta_r2_compatibility")
NAMES = ("gain", "support_gap", *_REGRESSION, *(f"{name}_q3" for name in _REGRESSION))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Redrawn(Result):
    """Numbers of one checkpoint, with intervals whose draws redo all that a population decides.

    Fields: `proxy` of the gap; `outcome`; `gain` its mean over the bank; `support_gap` of Table 1;
    then Table 9 over the bank and, `_q3`, inside Q3: `beta_l`, `beta_i` and `beta_gap` = beta_l -
    beta_i in nats per standard deviation, and R^2 over the baseline's, `delta_r2_decomposed` and
    `delta_r2_compatibility`.
    """

    proxy: str
    outcome: Outcome
    gain: Interval
    support_gap: Interval
    beta_l: Interval
    beta_i: Interval
    beta_gap: Interval
    delta_r2_decomposed: Interval
    delta_r2_compatibility: Interval
    beta_l_q3: Interval
    beta_i_q3: Interval
    beta_gap_q3: Interval
    delta_r2_decomposed_q3: Interval
    delta_r2_compatibility_q3: Interval


@on_table
def redrawn(
    frame: pd.DataFrame,
    bootstrap: Bootstrap = DEFAULT,
    *,
    proxy: str = "compatibility",
    outcome: Outcome = "gain",
    threads: int | None = None,
) -> Redrawn:
    """Tables 1 and 9 with norms, quadrants, tertiles and z-scores redone in each draw.

    Estimates are those of the table as it stands. A number has no interval, and says why, for one
    prompt, or where a draw lacks it: no Q3, a proxy constant in it, collinear predictors. Raises
    InputError where the table itself lacks a number or holds a value that is not finite.
    """

    def draw(settings: Bootstrap) -> Floats:
        return redrawn_values(frame, settings, proxy=proxy, outcome=outcome, threads=threads)

    values = np.concatenate([estimate(part(frame, proxy, outcome)) for part in _PARTS])
    made = _intervals(values, bootstrap, prompt_clusters(frame).count, draw)
    return Redrawn(proxy=proxy, outcome=outcome, **dict(zip(NAMES, made, strict=True)))


def redrawn_values(
    frame: pd.DataFrame,
    bootstrap: Bootstrap = DEFAULT,
    *,
    proxy: str = "compatibility",
    outcome: Outcome = "gain",
    threads: int | None = None,
) -> Floats:
    """The numbers `NAMES` in each draw, (draws, s), everything redone; NaN where a draw lacks one.

    `threads` share the draws, as many as numba knows of where None; they change no number. Raises
    InputError as `redrawn`, and for counts given that are not whole.
    """
    require_median(frame, "bootstrap that redoes cuts")
    clusters, everything = prompt_clusters(frame), np.ones(len(frame), dtype=bool)
    for name in (*COLUMNS, proxy, outcome):
        require_finite(frame[name].to_numpy(dtype=np.float64), name, frame, everything)
    parts = [part(frame, proxy, outcome) for part in _PARTS]
    epsilon = definitions_of(frame, PAPER).epsilon
    sample = prepare(frame, clusters, proxy, outcome, epsilon)
    blocks = _whole_counts(bootstrap, clusters.count)
    return np.concatenate([_values(sample, block, parts, threads) for block in blocks])


def redrawn_interval(
    frame: pd.DataFrame, statistic: Statistic, bootstrap: Bootstrap = DEFAULT
) -> Interval:
    """A statistic of one checkpoint's token table with quadrants and norms redone in each draw.

    `statistic` maps a token table to a number. A prompt that is drawn twice counts as two prompts.
    """
    require_median(frame, "bootstrap that redoes cuts")
    clusters = prompt_clusters(frame)

    def draw(settings: Bootstrap) -> Floats:
        return np.array([[statistic(rows)] for rows in _drawn_frames(frame, clusters, settings)])

    (only,) = _intervals(np.array([statistic(frame)]), bootstrap, clusters.count, draw)
    return only


def _intervals(
    values: Floats, bootstrap: Bootstrap, clusters: int, draw: Callable[[Bootstrap], Floats]
) -> list[Interval]:
    """Intervals of numbers (s,) whose draws, (draws, s), `draw` makes."""
    if bootstrap.kind not in KINDS:
        raise InputError(
            where="bootstrap that redoes cuts",
            expected=f"a kind of interval among {', '.join(KINDS)}",
            got=repr(bootstrap.kind),
            fix="choose one of them",
        )
    if clusters < 2:
        return [no_interval(float(value), clusters, bootstrap.kind) for value in values]
    draws = draw(bootstrap)
    if bootstrap.kind == "bca":
        left_out = draw(replace(bootstrap, counts=1.0 - np.eye(clusters)))
        return [bca_interval(*c) for c in zip(values, draws.T, left_out.T, strict=True)]
    return [percentile_interval(*c) for c in zip(values, draws.T, strict=True)]


def _gain(frame: pd.DataFrame, proxy: str, outcome: Outcome) -> Estimator:
    everything = np.ones(len(frame), dtype=bool)
    return masked_mean(prompt_clusters(frame), outcomes(frame, outcome, everything), everything)


def _gap(frame: pd.DataFrame, proxy: str, outcome: Outcome) -> Estimator:
    split = support_split(frame, proxy)
    return split.gap(prompt_clusters(frame), outcomes(frame, outcome, split.rows))


def _everywhere(frame: pd.DataFrame, proxy: str, outcome: Outcome) -> Estimator:
    rows = np.ones(len(frame), dtype=bool)
    return decomposition_estimator(frame, rows=rows, outcome=outcome, redo_zscores=True)


def _inside(frame: pd.DataFrame, proxy: str, outcome: Outcome) -> Estimator:
    return decomposition_estimator(frame, rows=in_q3(frame), outcome=outcome, redo_zscores=True)


_PARTS = (_gain, _gap, _everywhere, _inside)  # NAMES, in order


def _values(
    sample: Sample, counts: Floats, parts: Sequence[Estimator], threads: int | None
) -> Floats:
    """The numbers in draws `counts` (draws, clusters): estimators at totals made anew."""
    found = sums(sample, counts, threads)
    totals = (counts @ parts[0].sums, found.gap, found.everywhere, found.inside)
    return np.hstack([part.value(total) for part, total in zip(parts, totals, strict=True)])


def _whole_counts(bootstrap: Bootstrap, clusters: int) -> Iterator[Floats]:
    """Blocks of draws, refused where a count is no number of times."""
    for block in bootstrap.blocks(clusters):
        fits = block.ndim == 2 and block.shape[1] == clusters
        if not (fits and (block >= 0).all() and (block % 1 == 0).all() and block.any(axis=1).all()):
            raise InputError(
                where="bootstrap that redoes cuts",
                expected=f"how often each of {clusters} prompts is drawn, in every row of `counts`",
                got=f"an array {block.shape}" if not fits else "counts that are not whole, or none",
                fix="give whole numbers, some above 0",
            )
        yield block


def _drawn_frames(
    frame: pd.DataFrame, clusters: Clusters, bootstrap: Bootstrap
) -> Iterator[pd.DataFrame]:
    """The rows of each draw, what depends on their population redone."""
    order = np.argsort(clusters.of_row, kind="stable")
    ends = np.cumsum(np.bincount(clusters.of_row, minlength=clusters.count))
    rows = np.split(order, ends[:-1])
    for block in _whole_counts(bootstrap, clusters.count):
        for counts in block.astype(np.int64):
            chosen = np.repeat(np.arange(clusters.count), counts)
            yield _resampled(frame, [rows[c] for c in chosen])


def _resampled(frame: pd.DataFrame, pieces: list[np.ndarray]) -> pd.DataFrame:
    """Rows of drawn prompts under new prompt ids."""
    drawn = frame.iloc[np.concatenate(pieces)].reset_index(drop=True)
    copies = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    drawn["prompt_id"] = [f"{copy:08d}" for copy in copies]
    return drawn.assign(**derived(drawn, definitions_of(frame, PAPER).epsilon))
