"""Lines over buckets of a signal: thin ones for single settings, a bold one for their mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from diagnostics.report.figures.settings import settings_in
from diagnostics.report.figures.style import (
    dodge,
    estimates,
    floats,
    noise_band,
    noise_of,
    zero_line,
)

HEADROOM = 0.16  # of the axis, for the legend


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How a signal's line looks, and what it is called."""

    label: str
    color: str
    style: str
    marker: str


def trend_lines(axis: Axes, frame: pd.DataFrame, value: str, lines: Mapping[str, Line]) -> None:
    """The mean of `value` by bucket, one line a signal; of a single setting with its intervals.

    A mean over settings stands where every setting has the bucket.
    """
    settings = [rows for _, rows in settings_in(frame)]
    for index, (signal, line) in enumerate(lines.items()):
        mine = [rows[rows["signal"] == signal] for rows in settings]
        _line(axis, mine, value, line, dodge(index, len(lines), 0.2))
    zero_line(axis)
    noise_band(axis, noise_of(frame))
    axis.set_xticks(sorted(set(floats(frame, "bucket"))))
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + HEADROOM * (high - low))
    axis.legend(loc="upper center", ncols=len(lines))


def _line(axis: Axes, settings: list[pd.DataFrame], value: str, line: Line, shift: float) -> None:
    """One signal: its mean over settings, and each setting or, of one alone, its intervals."""
    look: dict[str, Any] = {"color": line.color, "linestyle": line.style}
    alone = len(settings) == 1
    for rows in settings:
        places = floats(rows, "bucket") + shift
        if alone:
            estimates(axis, places, rows, value, color=line.color, marker=line.marker)
        else:
            axis.plot(places, floats(rows, value), linewidth=0.6, alpha=0.7, **look)
    middle = mean_over(settings, value)
    look |= {"marker": line.marker, "linewidth": 1.4 if alone else 2.2, "label": line.label}
    axis.plot(middle.index + shift, middle, zorder=3, **look)


def mean_over(settings: list[pd.DataFrame], value: str) -> pd.Series:
    """The mean over settings by bucket, where all of them have it."""
    rows = pd.concat([s[["bucket", value]] for s in settings])
    groups = rows.astype(float).groupby("bucket")[value]
    means: pd.Series = groups.mean()[groups.count() == len(settings)]
    return means
