"""The paper's figures of fixed-context runs, each as data and drawing; and our matplotlib style.

    figure1 … figure5   one plan each
    settings            which settings are shown, what they are called, the paper's rows beside
    style               colours, shapes, canvases, marks; `style_file()` for one's own figures

Not covered: figures of live interventions (`live_figures`) and of gradient alignment.
"""

from __future__ import annotations

from diagnostics.report.figures.figure1 import FIGURE1
from diagnostics.report.figures.figure2 import FIGURE2
from diagnostics.report.figures.figure3 import FIGURE3
from diagnostics.report.figures.figure4 import FIGURE4
from diagnostics.report.figures.figure5 import FIGURE5
from diagnostics.report.figures.plan import Frames, Plan, panel_noise
from diagnostics.report.figures.style import figure_style, style_file

PLANS: dict[str, Plan] = {plan.name: plan for plan in (FIGURE1, FIGURE2, FIGURE3, FIGURE4, FIGURE5)}

__all__ = ["PLANS", "Frames", "Plan", "figure_style", "panel_noise", "style_file"]
