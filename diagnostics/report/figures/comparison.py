"""The forest of a comparison: the difference of each number, of absolute (A) and relative gain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diagnostics.report.figures.plan import Frames
from diagnostics.report.figures.style import (
    CHECKPOINT_COLORS,
    canvas,
    dodge,
    estimates,
    key,
    look_of,
    marker_of,
    no_ticks,
    noise_band,
    noise_of,
    shown,
    title,
    zero_line,
)

PANELS = {
    "comparisona": ("absolute gain", "first − second (nats)"),
    "comparisonb": ("relative gain", "first − second (share of KL before)"),
}
NUMBERS = {
    "gain": "mean gain",
    "beta": r"$\beta_L - \beta_I$, bank",
    "beta_q3": r"$\beta_L - \beta_I$, Q3",
    "gap": "support gap, Q3",
    "matched": "matched gap, Q3",
    "budget": "top 5 % by $D^L$ less by KL",
}
ROW, BETWEEN = 0.3, 0.6  # inches of a number, and how much of it its checkpoints take


def draw(frames: Frames) -> Figure | None:
    """One panel an outcome, numbers from top to bottom, checkpoints side by side."""
    there = [name for name in PANELS if name in frames and len(frames[name])]
    if not there:
        return None
    names = list(dict.fromkeys(n for panel in there for n in frames[panel]["checkpoint"]))
    numbers = list(dict.fromkeys(n for panel in there for n in frames[panel]["number"]))
    tall = 0.9 + len(numbers) * ROW * max(1.0, len(names) / 4)
    figure, axes = canvas(tall, (1,) * len(there))
    for axis, panel, letter in zip(axes, there, "AB", strict=False):
        words, unit = PANELS[panel]
        _forest(axis, frames[panel], numbers, names)
        title(axis, letter, words)
        axis.set_xlabel(unit)
    for axis in axes[1:]:
        axis.set_yticklabels([])
    if len(names) > 1:
        key(figure, {shown(n): look_of(_color(i), marker_of(i)) for i, n in enumerate(names)})
    return figure


def _forest(axis: Axes, frame: pd.DataFrame, numbers: Sequence[str], names: Sequence[str]) -> None:
    zero_line(axis, vertical=True)
    noise_band(axis, noise_of(frame), vertical=True)
    for index, name in enumerate(names):
        rows = frame[frame["checkpoint"] == name]
        places = np.array([numbers.index(n) for n in rows["number"]], dtype=np.float64)
        places += dodge(index, len(names), BETWEEN)
        estimates(
            axis,
            places,
            rows,
            "difference",
            color=_color(index),
            marker=marker_of(index),
            across=True,
        )
    axis.set_yticks(range(len(numbers)), [NUMBERS[name] for name in numbers])
    axis.set_ylim(len(numbers) - 0.5, -0.5)
    no_ticks(axis)


def _color(index: int) -> str:
    return CHECKPOINT_COLORS[index % len(CHECKPOINT_COLORS)]
