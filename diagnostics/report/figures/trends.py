"""Lines over buckets of a signal: thin ones for single settings, a bold one for their mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from diagnostics.report.figures.settings import settings_in
from diagnostics.report.figures.style import (
    dodge,
    ends,
    estimates,
    floats,
    noise_band,
    noise_of,
    zero_line,
)


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
    settings = settings_in(frame)
    alone = len(settings) == 1
    for index, (signal, line) in enumerate(lines.items()):
        thin = [rows[rows["signal"] == signal] for _, rows in settings]
        shift = dodge(index, len(lines), 0.2)
        if alone:
            places = floats(thin[0], "bucket") + shift
            estimates(axis, places, thin[0], value, color=line.color, marker=line.marker)
        else:
            for rows in thin:
                axis.plot(
                    floats(rows, "bucket") + shift,
                    floats(rows, value),
                    color=line.color,
                    linestyle=line.style,
                    linewidth=0.6,
                    alpha=0.7,
                )
        middle = mean_over(thin, value)
        axis.plot(
            middle.index + shift,
            middle,
            color=line.color,
            linestyle=line.style,
            marker=line.marker,
            linewidth=1.4 if alone else 2.2,
            label=line.label,
            zorder=3,
        )
    zero_line(axis)
    noise_band(axis, noise_of(frame))
    axis.set_xticks(sorted(set(floats(frame, "bucket"))))
    axis.legend(loc="best")


def mean_over(settings: list[pd.DataFrame], value: str) -> pd.Series:
    """The mean over settings by bucket, where all of them have it."""
    rows = pd.concat([s[["bucket", *ends(value)[:1]]] for s in settings])
    groups = rows.astype(float).groupby("bucket")[value]
    means: pd.Series = groups.mean()[groups.count() == len(settings)]
    return means
