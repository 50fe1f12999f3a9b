"""Every figure of a report by its name, drawn from its frames alone."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from diagnostics.report.chapters import Plate
from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures import PLANS, panel_noise
from diagnostics.report.figures.comparison import draw as draw_comparison
from diagnostics.report.live.figures import FIGURES as LIVE
from diagnostics.report.live.figures import draw_live
from diagnostics.report.tables.views import NOT_MEASURED, plus_minus


def plates_of(results: Results) -> Iterator[Plate]:
    """The figures of fixed contexts that some results can fill."""
    for name, plan in PLANS.items():
        frames = plan.data(results)
        if frames:
            noise = noise_words(panel_noise(frames))
            caption = f"{plan.caption} {noise}".strip()
            yield Plate(
                drawing=name,
                name=name,
                title=plan.title,
                caption=caption,
                reading=plan.reading,
                frames=frames,
            )


def draw(plate: Plate) -> Figure | None:
    """A figure of its frames; None where they are empty."""
    if plate.drawing == "comparison":
        return draw_comparison(plate.frames)
    if plate.drawing in LIVE:
        return draw_live(plate.drawing, plate.frames)
    return PLANS[plate.drawing].draw(plate.frames)


def noise_words(panels: dict[str, float]) -> str:
    """The noise of scoring in a figure's panels, for its caption; empty where none shows gains."""
    if not panels:
        return ""
    if all(noise != noise for noise in panels.values()):
        return f"Noise of scoring: {NOT_MEASURED}."
    sizes = ", ".join(f"{panel} {plus_minus(noise)}" for panel, noise in panels.items())
    return f"Grey band: noise of scoring, the most that an unchanged checkpoint shows: {sizes}."
