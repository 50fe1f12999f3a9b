"""Figure 5: audit of support proxies (A), robustness of the gaps (B), residualised bins (C)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures.figure4 import PROXIES
from diagnostics.report.figures.forest import ROW, forest, forest_rows
from diagnostics.report.figures.plan import Frames, Plan
from diagnostics.report.figures.reach import reach, row_spread
from diagnostics.report.figures.settings import (
    common,
    first,
    first_name,
    ours,
    papers,
    present,
    stacked,
)
from diagnostics.report.figures.style import (
    INCOMPATIBLE,
    INK,
    LEARNABLE,
    NEUTRAL,
    PAPER_MARKER,
    SUPPORT,
    ends,
    estimates,
    floats,
    header,
    key,
    look_of,
    mosaic,
    no_ticks,
    noise_band,
    noise_of,
    title,
    zero_line,
)
from diagnostics.report.figures.trends import Line, trend_lines
from diagnostics.statistics.analyses.bins import residual_bins
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval

BINNED = {
    "learnable": Line(label="$D^L$", color=LEARNABLE, style="-", marker="o"),
    "incompatible": Line(label="$D^I$", color=INCOMPATIBLE, style=":", marker="D"),
    "compatibility_norm": Line(label=r"$\tilde C$", color=SUPPORT, style="--", marker="s"),
}
GAPS = {"gap": ("gap", False), "matched_gap": ("matched gap", True)}  # label, whether hollow
BESIDE: dict[str, Any] = {  # at the right of a panel, at a row
    "xycoords": ("axes fraction", "data"),
    "xytext": (3, 0),
    "textcoords": "offset points",
    "fontsize": 7,
}


def data(results: Results) -> dict[str, pd.DataFrame]:
    """Table 6 of the first setting, Table 1 at the main K with the paper's, and the bins."""
    found = {"figure5a": _audit(results), "figure5b": _gaps(results), "figure5c": _bins(results)}
    return present(found)


def draw(frames: Frames) -> Figure | None:
    """A and B over C."""
    top = [name for name in ("figure5a", "figure5b") if name in frames]
    rows = [top] if top else []
    rows += [["figure5c"]] if "figure5c" in frames else []
    if not rows:
        return None
    counts = [len(frames["figure5a"])] if "figure5a" in frames else [0]
    counts += [forest_rows(frames["figure5b"])] if "figure5b" in frames else []
    tall = max(counts)
    heights = ([0.6 + ROW * tall] if top else []) + ([2.2] if "figure5c" in frames else [])
    figure, axes = mosaic(sum(heights) + 0.5, rows, heights=heights)
    if "figure5a" in frames:
        of = first_name(frames["figure5b"]) if "figure5b" in frames else ""
        _draw_audit(axes["figure5a"], frames["figure5a"], of)
    if "figure5b" in frames:
        forest(axes["figure5b"], frames["figure5b"], {n: hollow for n, (_, hollow) in GAPS.items()})
        title(axes["figure5b"], "B", "Gap and matched gap")
        looks = {label: look_of(INK, hollow=hollow) for label, hollow in GAPS.values()}
        key(figure, looks | {"paper": look_of(NEUTRAL, PAPER_MARKER)})
    if "figure5c" in frames:
        axis = axes["figure5c"]
        trend_lines(axis, frames["figure5c"], "residual", BINNED)
        axis.set(xlabel="tenth of the signal", ylabel="residual gain (nats)")
        title(axis, "C", "Residualised bins")
    header(figure, common(*(frames[name] for row in rows for name in row)))
    return figure


def _audit(results: Results) -> pd.DataFrame:
    columns = ["top_k", "proxy", *ends("gap"), "tied_share"]
    return first(ours(results, "table06", columns, "gap_noise"))


def _gaps(results: Results) -> pd.DataFrame:
    columns = ["top_k", *ends("gap"), *ends("matched_gap"), "n_q3"]
    rows = ours(results, "table01", [*columns, "matched_gap_noise"], "gap_noise")
    rows = rows[rows["top_k"] == results.settings.top_k]
    worst = rows[["noise", "matched_gap_noise"]].max(axis=1)
    rows = rows.assign(noise=worst).drop(columns="matched_gap_noise")
    return stacked(rows, papers("table01", columns))


def _bins(results: Results) -> pd.DataFrame:
    columns = ["top_k", "signal", "bucket", "n", "signal_mean", *ends("residual")]
    return ours(results, "bins", columns).assign(noise=reach(results, _bin_spreads))


def _bin_spreads(frame: pd.DataFrame, bootstrap: Bootstrap) -> list[Interval]:
    made = [residual_bins(frame, name, bootstrap, medians="estimate") for name in BINNED]
    return [row_spread(row, "residual") for one in made for row in one.table.to_dict("records")]


def _draw_audit(axis: Axes, frame: pd.DataFrame, of: str) -> None:
    """One row a proxy and K; the share of Q3 positions that lie on a cut at the right."""
    order = {name: place for place, name in enumerate(PROXIES)}
    rows = frame.sort_values(["proxy", "top_k"], key=lambda c: c.map(order).fillna(c))
    y = -np.arange(len(rows))
    estimates(axis, y, rows, "gap", color=INK, across=True)
    lead = rows["proxy"] != rows["proxy"].shift()
    labels = [
        f"{PROXIES[name]}, $K$ = {k:g}" if new else f"{k:g}"
        for name, k, new in zip(rows["proxy"], rows["top_k"], lead, strict=True)
    ]
    for place, share in zip(y, floats(rows, "tied_share"), strict=True):
        axis.annotate(f"{100 * share:.0f} %", (1, place), va="center", **BESIDE)
    axis.annotate("tied", (1, 0.8), **BESIDE)
    zero_line(axis, vertical=True)
    noise_band(axis, noise_of(frame), vertical=True)
    axis.set_yticks(y, labels)
    no_ticks(axis)
    axis.set(ylim=(-len(labels) + 0.4, 0.6), xlabel=f"high − low gain in Q3 (nats){of}")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    title(axis, "A", "Support proxies")


FIGURE5 = Plan(
    name="figure5",
    title="Figure 5: more evidence on Q3, and robustness",
    caption="A: gain of the third of Q3 (low student entropy, high KL) with the most support less "
    "that of the third with the least, by proxy of support and K (first setting; proxies as in "
    "Figure 4C); at the right the share of Q3 positions that lie exactly on a cut. B: the same gap "
    "by C mass (filled) and the matched one (hollow): within a prompt, each position above the "
    "prompt's median C against the nearest one not above it in student entropy, disagreement and "
    "position; one row a setting, the paper's Table 1 in grey. C: what is left of the gain after "
    "least squares on student and teacher entropy, disagreement and position, in tenths of D^L, "
    "D^I and C̃ over the bank, lowest first (D^L = D̃C̃, D^I = D̃(1 − C̃); tilde: scaled to [0, 1]); "
    "thin lines are single settings (the first checkpoint of each run), bold ones their mean. "
    "Bars: 95 % prompt-cluster intervals.",
    reading="Rows of A and B right of the dashed line say that positions in the student's support "
    "gain more. A curve of C that rises at its right end says that the signal tells gain beyond "
    "the controls; a straight line of the regression would rise evenly.",
    data=data,
    draw=draw,
)
