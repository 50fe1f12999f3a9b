"""Every figure of a report by its name, drawn from its frames alone."""

from __future__ import annotations

from matplotlib.figure import Figure

from diagnostics.report.analysis import Results
from diagnostics.report.chapters import Plate
from diagnostics.report.live_figures import FIGURES as LIVE
from diagnostics.report.live_figures import draw_live


def plates_of(results: Results) -> tuple[Plate, ...]:
    """The figures of fixed contexts that some results can fill."""
    return ()


def draw(plate: Plate) -> Figure:
    """A figure of its frames."""
    assert plate.name in LIVE
    return draw_live(plate.name, plate.frames)
