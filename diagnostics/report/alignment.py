"""Tables, figure and record of gradient alignment, as files beside alignment.parquet.

    alignment.csv .md          correlations of the alignment with signals and one-step gains
    alignment_groups.csv .md   mean alignment by quadrant and by selector
    alignment_steps.csv .md    what a bank step realised, against its first order
    alignment_pairs.csv .md    Proposition 1 at single positions
    alignment.png .pdf         the figure
    alignment.json             settings, digests, versions, and every number of the tables

Takes frames; what they mean is said where they are made (`statistics/analyses/alignment.py` and the
alignment layer). No number is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diagnostics.files import write_json
from diagnostics.report.chapters import Sheet, json_rows, plain
from diagnostics.report.figures.style import (
    INCOMPATIBLE,
    LEARNABLE,
    NEUTRAL,
    canvas,
    figure_style,
    legend_below,
    zero_line,
)
from diagnostics.report.tables.formats import write_sheet
from diagnostics.report.tables.views import Shown, View
from diagnostics.report.write import write_figure
from diagnostics.statistics.tables.definitions import PAPER

FILES = {
    "correlations": "alignment",
    "groups": "alignment_groups",
    "steps": "alignment_steps",
    "pairs": "alignment_pairs",
}
VIEWS = {
    "correlations": View(
        "What gradient alignment goes with",
        "alignment: inner product of grad L_fix with the gradient of this position's OPD loss l_t "
        "= KL(p_0 || p_T); alignment_kl: with that of its KL(p_T || p_0). L_fix: the bank's "
        "mean KL(p_T || p_theta). gain_step and loss_step: reduction of KL and of l_t there by one "
        "step along grad L_fix. Intervals: 95 % prompt-cluster bootstrap, ranks fixed.",
        (
            Shown("scope", "scope", "text"),
            Shown("of", "of", "text"),
            Shown("with", "signal", "text"),
            Shown("positions", "n_positions", "count"),
            Shown("Pearson", "pearson", "interval"),
            Shown("Spearman", "spearman", "interval"),
        ),
    ),
    "groups": View(
        "Mean alignment by quadrant and by what selectors keep",
        "Nats per unit learning rate; gain: KL_0 less KL after one step along grad L_fix, nats. "
        "Share: of the bank. Positive: positions of the group whose own step lowers L_fix to first "
        "order. Intervals: 95 % prompt-cluster bootstrap.",
        (
            Shown("kind", "kind", "text"),
            Shown("group", "group", "text"),
            Shown("positions", "n_positions", "count"),
            Shown("share", "share", "share"),
            Shown("positive", "positive_share", "share"),
            Shown("alignment", "alignment", "interval"),
            Shown("alignment_kl", "alignment_kl", "interval"),
            Shown("one-step gain", "gain_step", "interval"),
        ),
    ),
    "steps": View(
        "One step along grad L_fix",
        "Mean reduction over the bank as it came out and to first order; the mean size of the "
        "first-order terms, of what is left of them (R_t) and the largest of those; nats. At half "
        "the step size a remainder of second order is a quarter.",
        (
            Shown("of", "quantity", "text"),
            Shown("step size", "step_size"),
            Shown("realised", "realised"),
            Shown("first order", "first_order"),
            Shown("size of first order", "first_order_size"),
            Shown("remainder", "remainder"),
            Shown("largest", "largest"),
            Shown("correlation", "correlation"),
        ),
    ),
    "pairs": View(
        "Proposition 1 at single positions",
        "One step of size η along the gradient of one position's l_t, as long as the bank's step "
        "or half of it: reduction of L_fix (over as many contexts as alignment.json states) as it "
        "came out, to first order η·alignment, and the remainder R_t; nats. Smoothness: "
        "2|R_t| / (η |grad l_t|)², which β of the proposition is at least.",
        (
            Shown("context", "context_id", "text"),
            Shown("position", "position", "count"),
            Shown("η", "step_size"),
            Shown("alignment", "alignment"),
            Shown("gradient norm", "gradient_norm"),
            Shown("realised", "realised"),
            Shown("first order", "first_order"),
            Shown("remainder", "remainder"),
            Shown("smoothness", "smoothness"),
        ),
    ),
}
QUADRANTS = {1: "#E69F00", 2: "#56B4E9", 3: INCOMPATIBLE, 4: NEUTRAL}
SHOWN_SIGNALS = (
    ("gain_step", "one-step gain"),
    ("learnable", "$D^L$"),
    ("incompatible", "$D^I$"),
    ("compatibility", "$C$"),
    ("kl_0", "$KL_0$"),
    ("entropy", "$H$"),
)
FAINT = 1e-7  # nats per unit learning rate, below which the log axes of panel A are linear


def write_alignment(
    out: Path,
    positions: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    record: Mapping[str, Any],
) -> Path:
    """Writes every file but the Parquet table to `out` and returns the Markdown of correlations."""
    for name, stem in FILES.items():
        view, frame = VIEWS[name], tables[name]
        sheet = Sheet(name=stem, frame=frame, view=view)
        write_sheet(out / stem, sheet, PAPER.name, ("csv", "md"))
    with figure_style():
        write_figure(alignment_figure(positions, tables), out, "alignment", PAPER.name)
    found = {name: json_rows(frame) for name, frame in tables.items()}
    write_json(out / "alignment.json", plain(dict(record)) | {"tables": found})
    return out / "alignment.md"


def alignment_figure(positions: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One-step gain over alignment (A), correlations (B), mean alignment by selector (C)."""
    figure, axes = canvas(3.2, (1.1, 0.8, 0.8))
    _gain_over_alignment(axes[0], positions)
    _correlations(axes[1], tables["correlations"])
    _selectors(axes[2], tables["groups"])
    return figure


def _gain_over_alignment(axis: Axes, positions: pd.DataFrame) -> None:
    """Every position, coloured by quadrant, on axes that are logarithmic to both sides of 0."""
    for quadrant, color in QUADRANTS.items():
        rows = positions[positions["quadrant"] == quadrant]
        axis.scatter(
            rows["alignment"],
            rows["gain_step"],
            s=1.5,
            color=color,
            alpha=0.35,
            linewidths=0,
            label=f"Q{quadrant}",
            rasterized=True,
        )
    _two_sided(axis.set_xscale, axis.set_xticks, positions["alignment"])
    _two_sided(axis.set_yscale, axis.set_yticks, positions["gain_step"])
    zero_line(axis)
    zero_line(axis, vertical=True)
    axis.set(xlabel="alignment (nats / learning rate)", ylabel="one-step gain (nats)")
    axis.set_title("A  Gain of one bank step")
    legend_below(axis, markerscale=5, handletextpad=0.1, ncols=4)


def _two_sided(
    set_scale: Callable[..., None], set_ticks: Callable[..., object], values: pd.Series
) -> None:
    """A scale that is linear up to the median size; ticks at 0 and two powers of ten a side."""
    sizes = np.abs(values.to_numpy())
    linear = max(float(np.median(sizes)), FAINT)
    set_scale("symlog", linthresh=linear)
    top = math.floor(math.log10(max(float(sizes.max()), linear)))
    middle = math.floor((math.log10(linear) + top) / 2)
    powers = sorted({10.0**middle, 10.0**top})
    set_ticks([*(-power for power in reversed(powers)), 0.0, *powers])


def _correlations(axis: Axes, table: pd.DataFrame) -> None:
    names = [label for _, label in SHOWN_SIGNALS]
    y = np.arange(len(names))[::-1].astype(np.float64)
    for scope, label, color, shift in (
        ("all", "bank", LEARNABLE, 0.12),
        ("q3", "Q3", INCOMPATIBLE, -0.12),
    ):
        rows = table[(table["scope"] == scope) & (table["of"] == "alignment")].set_index("signal")
        if rows.empty:
            continue
        rows = rows.loc[[name for name, _ in SHOWN_SIGNALS]]
        ends = rows[["spearman_low", "spearman_high"]].to_numpy()
        for place, (low, high) in zip(y + shift, ends, strict=True):
            axis.plot([low, high], [place, place], color=color)
        axis.plot(rows["spearman"], y + shift, "o", color=color, label=label)
    zero_line(axis, vertical=True)
    axis.set_yticks(y, names)
    axis.set(xlabel="rank correlation with alignment")
    axis.set_title("B  What it goes with")
    legend_below(axis)


def _selectors(axis: Axes, table: pd.DataFrame) -> None:
    """What each selector keeps; those that keep the same are drawn once."""
    rows = table[table["kind"] == "selector"].drop_duplicates(["n_positions", "alignment"])
    rows = rows.sort_values("alignment")
    y = np.arange(len(rows))
    axis.hlines(y, rows["alignment_low"], rows["alignment_high"], color=LEARNABLE)
    axis.plot(rows["alignment"], y, "o", color=LEARNABLE, label="kept")
    bank = table.loc[table["kind"] == "bank", "alignment"].item()
    axis.axvline(bank, color=NEUTRAL, linewidth=0.9, label="bank")
    zero_line(axis, vertical=True)
    axis.set_yticks(y, rows["group"])
    axis.set(xlabel="mean alignment")
    axis.set_title("C  By selector")
    legend_below(axis)
