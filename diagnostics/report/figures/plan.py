"""A figure as data and drawing: plotted numbers as frames, and a drawing of those frames alone.

Frames may go through JSON in between (a null is NaN then), so that a stored report can be drawn
again. A panel's frame holds what its points are of and, where it shows gains, a column `noise`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures.style import noise_of

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One figure.

    Fields: `name`, as `figure2`; `title`; `caption`, which defines every symbol; `reading`, how to
    read it; `data` the plotted numbers, one frame a panel (`figure2a`), without those that the
    results have nothing for; `draw` the figure of such frames, None where they are empty.
    """

    name: str
    title: str
    caption: str
    reading: str
    data: Callable[[Results], dict[str, pd.DataFrame]]
    draw: Callable[[Frames], Figure | None]


def panel_noise(frames: Frames) -> dict[str, float]:
    """How far from 0 an unchanged checkpoint comes in each panel that shows gains, in its unit.

    By panel's letter; NaN where it was not measured.
    """
    shown = {name: frame for name, frame in frames.items() if "noise" in frame}
    return {name[-1].upper(): noise_of(frame) for name, frame in shown.items()}
