"""Estimates of settings below each other: a line with the setting's name, then one row a K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diagnostics.report.figures.settings import papers_in, settings_in
from diagnostics.report.figures.style import (
    INK,
    NEUTRAL,
    PAPER_MARKER,
    ZERO,
    dodge,
    estimates,
    marker_of,
    no_ticks,
    noise_band,
    noise_of,
)

ROW = 0.145  # inches of a row
HALF = 0.5


def forest(axis: Axes, frame: pd.DataFrame, numbers: Mapping[str, bool]) -> None:
    """`numbers` of each row, each filled or hollow; the first setting on top, the paper's below."""
    settings = settings_in(frame)
    places: dict[int, str] = {}
    y = 0
    for index, (name, rows) in enumerate([*settings, *papers_in(frame)]):
        paper = index >= len(settings)
        look: dict[str, Any] = {"color": NEUTRAL if paper else INK}
        look["marker"] = PAPER_MARKER if paper else marker_of(index)
        _name(axis, -y, name)
        at = -np.arange(y + 1, y + 1 + len(rows))
        for place, (number, hollow) in enumerate(numbers.items()):
            where = at - dodge(place, len(numbers), 0.9)
            estimates(axis, where, rows, number, across=True, hollow=hollow, **look)
        axis.vlines(0, at[-1] - HALF, at[0] + HALF, zorder=0, **ZERO)
        places |= dict(zip(at.tolist(), (f"$K$ = {k:g}" for k in rows["top_k"]), strict=True))
        y += 1 + len(rows)
    noise_band(axis, noise_of(frame), vertical=True)
    axis.set_yticks(list(places), list(places.values()))
    no_ticks(axis)
    axis.set(xlabel="high − low gain in Q3 (nats)", ylim=(-y + HALF, HALF))
    axis.xaxis.set_major_locator(MaxNLocator(5))


def forest_rows(frame: pd.DataFrame) -> int:
    """How many rows a forest of this frame has."""
    return len(frame) + len(settings_in(frame)) + len(papers_in(frame))


def _name(axis: Axes, y: float, name: str) -> None:
    """A setting's name in a row of its own; it may be longer than the panel is wide."""
    across = axis.get_yaxis_transform()
    text = axis.text(0.015, y, name, transform=across, fontsize=7, va="center", style="italic")
    text.set_in_layout(False)
