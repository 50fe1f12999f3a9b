"""Figure 3: coefficients by K (A), gain of kinds of Q3 positions (B), support gaps (C).

Panel B shows positions of the bank by what they are, not masks that were trained on: the live
version needs one checkpoint a mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures.forest import ROW, forest, forest_rows
from diagnostics.report.figures.plan import Frames, Plan
from diagnostics.report.figures.settings import (
    common,
    ours,
    papers,
    papers_in,
    present,
    settings_in,
    stacked,
)
from diagnostics.report.figures.style import (
    INCOMPATIBLE,
    LEARNABLE,
    LIGHT,
    NEUTRAL,
    PAPER_MARKER,
    dodge,
    ends,
    estimates,
    header,
    key,
    look_of,
    marker_of,
    mosaic,
    noise_band,
    noise_of,
    title,
    zero_line,
)

BETAS = {  # label, colour, whether hollow
    "beta_l": (r"$\beta_L$", LEARNABLE, False),
    "beta_i": (r"$\beta_I$", INCOMPATIBLE, True),
}
KINDS = {
    "q3+high-dl": ("high $D^L$", LEARNABLE),
    "q3+low-dl": ("low $D^L$", LIGHT),
    "q3+high-di": ("high $D^I$", INCOMPATIBLE),
}


def data(results: Results) -> dict[str, pd.DataFrame]:
    """Tables 9 and 1 with the paper's, and the kinds of Q3 positions."""
    gaps = ["top_k", *ends("gap")]
    found = {
        "figure3a": _betas(results),
        "figure3b": ours(results, "q3_kinds", ["mask", "top_k", *ends("gain")], "gain_noise"),
        "figure3c": stacked(ours(results, "table01", gaps, "gap_noise"), papers("table01", gaps)),
    }
    return present(found)


def draw(frames: Frames) -> Figure | None:
    """A over B at the left, C at the right, as tall as its rows ask for."""
    panels = {"figure3a": ("A", _coefficients), "figure3b": ("B", _kinds), "figure3c": ("C", _gaps)}
    there = {name: panel for name, panel in panels.items() if name in frames}
    if not there:
        return None
    left = [letter for name, (letter, _) in there.items() if name != "figure3c"]
    rows = [[letter, "C"] if "figure3c" in there else [letter] for letter in left] or [["C"]]
    tall = ROW * forest_rows(frames["figure3c"]) if "figure3c" in there else 0
    figure, axes = mosaic(max(2.1 * len(rows), 0.8 + tall), rows)
    for name, (letter, panel) in there.items():
        panel(axes[letter], frames[name])
    looks = {label: look_of(color, hollow=hollow) for label, color, hollow in BETAS.values()}
    key(figure, looks | {"paper (other models and contexts)": look_of(NEUTRAL, PAPER_MARKER)})
    header(figure, common(*(frames[name] for name in there)))
    return figure


def _betas(results: Results) -> pd.DataFrame:
    columns = ["scope", "top_k", *(column for name in BETAS for column in ends(name))]
    noises = [f"{name}_noise" for name in BETAS]
    both = ours(results, "table09", [*columns, *noises])
    both = both[both["scope"] == "all"].assign(noise=both[noises].max(axis=1))
    return stacked(both.drop(columns=["scope", *noises]), papers("table09", columns))


def _coefficients(axis: Axes, frame: pd.DataFrame) -> None:
    settings, beside = settings_in(frame), papers_in(frame)
    ks = sorted(settings[0][1]["top_k"].unique())
    count = len(settings) + len(beside)
    for index, (_, rows) in enumerate([*settings, *beside]):
        rows = rows[rows["top_k"].isin(ks)]
        x = np.array([ks.index(k) for k in rows["top_k"]]) + dodge(index, count, 0.8)
        paper = index >= len(settings)
        marker = PAPER_MARKER if paper else marker_of(index)
        for name, (_, color, hollow) in BETAS.items():
            look: dict[str, Any] = {
                "color": NEUTRAL if paper else color,
                "hollow": hollow,
                "marker": marker,
            }
            estimates(axis, x, rows, name, **look)
    zero_line(axis)
    noise_band(axis, noise_of(frame))
    axis.set_xticks(range(len(ks)), [f"$K$ = {k:g}" for k in ks])
    axis.set(ylabel="gain per SD (nats)", xlim=(-0.5, len(ks) - 0.5))
    title(axis, "A", "Coefficients of $D^L$ and $D^I$")


def _kinds(axis: Axes, frame: pd.DataFrame) -> None:
    settings = settings_in(frame)
    for index, (_, rows) in enumerate(settings):
        for place, (mask, (_, color)) in enumerate(KINDS.items()):
            x = place + dodge(index, len(settings), 0.7)
            mine = rows[rows["mask"] == mask]
            estimates(axis, x, mine, "gain", color=color, marker=marker_of(index))
    zero_line(axis)
    noise_band(axis, noise_of(frame))
    axis.set_xticks(range(len(KINDS)), [label for label, _ in KINDS.values()])
    axis.set(ylabel="mean gain in Q3 (nats)", xlim=(-0.5, len(KINDS) - 0.5))
    title(axis, "B", "Kinds of Q3 positions")


def _gaps(axis: Axes, frame: pd.DataFrame) -> None:
    forest(axis, frame, {"gap": False})
    title(axis, "C", "Support gap")


FIGURE3 = Plan(
    name="figure3",
    title="Figure 3: evidence for teachability",
    caption="A: coefficients β_L and β_I of learnable (D^L = D̃C̃, filled) and incompatible "
    "disagreement (D^I = D̃(1 − C̃), hollow) in a regression of the gain G (KL before less KL "
    "after training) on them, student and teacher entropy and position, all z-scored, by support "
    "size K. B: mean gain of three kinds of positions in Q3 (low student entropy, high KL): upper "
    "and lower third by D^L, upper third by D^I; these are positions of the bank, not masks that "
    "were trained on. C: gain of the third of Q3 with the most support C (teacher mass on the "
    "student's top K) less that of the third with the least. One shape a setting, as named in C; "
    "of more than six the first checkpoint of each run. Bars: 95 % prompt-cluster intervals. Grey "
    "diamonds: the paper's tables 9 and 1, of other models and contexts.",
    reading="A point whose bar crosses the dashed line is compatible with no difference. The "
    "paper's claim is: filled above hollow in A, and every point of C right of the line.",
    data=data,
    draw=draw,
)
