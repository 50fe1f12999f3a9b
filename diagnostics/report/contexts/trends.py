"""Tables of where gain lies along a signal, along training, and over several runs.

    bins        residualised gain in tenths of D^L, D^I and C~ (Fig. 5C), first checkpoint of a run
    buckets     gain in quarters of D^L, D^I, C~ and KL_0 inside Q3 (Fig. 4D), every checkpoint
    trajectory  headline numbers at each step of a series of checkpoints
    pooled      the support gaps of Table 1 over several runs (first checkpoint of each)

Numbers come from `diagnostics.statistics`; this module only asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from diagnostics.report.contexts.rows import Piece
from diagnostics.report.noise import Row
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.bins import Bins, bucket_means, residual_bins
from diagnostics.statistics.analyses.headlines import HEADLINES
from diagnostics.statistics.analyses.pooled import Kind, PooledGap, pooled_gap
from diagnostics.statistics.analyses.trajectory import trajectory
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.inference.results import spread

SIGNALS = ("learnable", "incompatible", "compatibility_norm")
BUCKETED = (*SIGNALS, "kl_0")
ENDS = {"low": "estimate_low", "high": "estimate_high"}
POOLED: tuple[Kind, ...] = ("gap", "matched")


def bin_rows(piece: Piece) -> list[Row]:
    """Residualised bins of a checkpoint; medians without intervals, which take a second each."""
    made = (
        residual_bins(piece.frame, signal, piece.bootstrap, simultaneous=True, medians="estimate")
        for signal in SIGNALS
    )
    return [row for one in made for row in _bin_rows(piece, one)]


def bucket_rows(piece: Piece) -> list[Row]:
    """Bucket trends of a checkpoint inside Q3."""
    made = (
        bucket_means(piece.frame, signal, piece.bootstrap, medians="estimate")
        for signal in BUCKETED
    )
    return [row for one in made for row in _bin_rows(piece, one)]


def _bin_rows(piece: Piece, made: Bins) -> list[Row]:
    """One row a bin, with the trend over all of them."""
    about = piece.key | {"top_k": piece.top_k, "signal": made.column}
    trend = spread("slope", made.slope) | spread("top_less_bottom", made.top_less_bottom)
    trend |= {"tied_share": made.tied_share}
    table = made.table.rename(columns={made.column: "signal_mean"})
    return [about | {str(k): v for k, v in row.items()} | trend for row in table.to_dict("records")]


def trajectory_rows(run: Run, frame: pd.DataFrame, k: int, bootstrap: Bootstrap) -> list[Row]:
    """Headline numbers over each series of checkpoints that has two steps or more."""
    rows: list[Row] = []
    for series, steps in _series(run).items():
        for name in HEADLINES:
            made = trajectory(frame, name, bootstrap, steps=steps)
            for line in made.table.to_dict("records"):
                row: Row = {"run": run.name, "series": series or "", "top_k": k, "statistic": name}
                row |= {ENDS.get(str(c), str(c)): v for c, v in line.items()}
                rows.append(row | spread("change", made.change))
    return rows


def _series(run: Run) -> Mapping[str | None, dict[str, int]]:
    """The steps of each series of at least two different ones."""
    found: dict[str | None, dict[str, int]] = {}
    for name, step in run.steps.items():
        if step is not None:
            found.setdefault(run.series[name], {})[name] = step
    return {series: steps for series, steps in found.items() if len(set(steps.values())) > 1}


def pooled_rows(pieces: Sequence[Piece], bootstrap: Bootstrap) -> list[Row]:
    """Table 1's gaps over the first checkpoints of several runs; a prompt's id is the prompt."""
    if len(pieces) < 2:
        return []
    frames = {f"{piece.run} / {piece.checkpoint}": piece.frame for piece in pieces}
    made = (pooled_gap(frames, kind, bootstrap, share_prompts=True) for kind in POOLED)
    return [row for one in made for row in _pooled(one, pieces[0].top_k)]


def _pooled(made: PooledGap, k: int) -> list[Row]:
    """The pooled number, the mean over settings, then each setting."""
    about: Row = {"number": made.number, "top_k": k}
    tested = {"q": made.q, "q_p": made.q_p, "excluding": made.excluding}
    total = {"n_positions": made.n_positions}
    rows = [
        about | {"setting": "all positions"} | total | spread("gap", made.pooled) | tested,
        about | {"setting": "mean over settings"} | total | spread("gap", made.equal) | tested,
    ]
    each = made.table.rename(columns={"estimate": "gap", "low": "gap_low", "high": "gap_high"})
    return rows + [about | {str(c): v for c, v in row.items()} for row in each.to_dict("records")]
