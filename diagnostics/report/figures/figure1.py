"""Figure 1: two positions of the bank (A) and the pipeline with this run's numbers (B)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures.plan import Frames, Plan
from diagnostics.report.figures.settings import common, teacher_name
from diagnostics.report.figures.style import (
    INCOMPATIBLE,
    INK,
    LEARNABLE,
    NEUTRAL,
    STUDENT,
    TEACHER,
    floats,
    header,
    mosaic,
    no_ticks,
    shown,
    title,
)
from diagnostics.report.tables.views import number, percent
from diagnostics.statistics.analyses.headlines import BUDGET

HATCHED: dict[str, Any] = {"facecolor": "none", "edgecolor": STUDENT, "hatch": "//////"}
OFF: dict[str, Any] = {"fontsize": 7, "color": INCOMPATIBLE, "style": "italic"}
TOKEN_LENGTH, CONTEXT_LENGTH = 14, 40
BOXES = {  # place of each step: column, row
    "rollouts": (0, 1),
    "bank": (1, 1),
    "scores": (2, 1),
    "signals": (3, 1),
    "rank": (3, 0),
    "train": (2, 0),
    "rescore": (1, 0),
    "gain": (0, 0),
}
OURS = {"signals", "rank", "train"}  # what the method adds to plain distillation
STEP_X, STEP_Y, BOX_WIDTH, BOX_HEIGHT = 26.0, 17.0, 20.5, 11.5


def data(results: Results) -> dict[str, pd.DataFrame]:
    """The two examples, and what stands in the boxes."""
    frames = {"figure1b": _steps(results)}
    return {"figure1a": results.positions} | frames if len(results.positions) else frames


def draw(frames: Frames) -> Figure | None:
    """Both panels, or the one that is there."""
    rows = [["learnable", "incompatible"]] if "figure1a" in frames else []
    rows += [["pipeline"]] if "figure1b" in frames else []
    if not rows:
        return None
    figure, axes = mosaic(2.1 * len(rows) + 0.3, rows)
    if "figure1a" in frames:
        examples = frames["figure1a"].groupby("example", sort=False)
        for (name, tokens), letter in zip(examples, ("A  ", ""), strict=True):
            _distributions(axes[str(name)], tokens, f"{letter}{str(name).capitalize()} position")
        axes["learnable"].legend(loc="lower right")
    if "figure1b" in frames:
        _pipeline(axes["pipeline"], frames["figure1b"].iloc[0])
    header(figure, common(*frames.values()))
    return figure


def _steps(results: Results) -> pd.DataFrame:
    """One row: the numbers of the first checkpoint of the first run."""
    tables, settings = results.tables, results.settings
    inventory, mean = tables["table05"].iloc[0], tables["checkpoints"].iloc[0]
    who = {"run": inventory["run"], "checkpoint": inventory["checkpoint"]}
    top = tables["table08"]
    kept = top[
        (top["run"] == who["run"])
        & (top["checkpoint"] == who["checkpoint"])
        & (top["top_k"] == settings.top_k)
        & (top["selector"] == "teachability")
        & (top["budget"] == BUDGET)
    ].iloc[0]
    counts = {name: inventory[name] for name in ("n_contexts", "n_prompts", "n_positions")}
    about = {"teacher": teacher_name(results.runs[0]["teacher"]["model"]), "top_k": settings.top_k}
    kept_numbers = {"budget": BUDGET, "n_kept": kept["n_kept"], "gain_kept": kept["gain"]}
    return pd.DataFrame([who | about | counts | kept_numbers | {"gain": mean["gain"]}])


def _distributions(axis: Axes, tokens: pd.DataFrame, name: str) -> None:
    """Teacher and student bars of one position's tokens, the most probable on top."""
    y = np.arange(len(tokens))[::-1]
    for label, column, shift, look in (
        ("teacher $p_T$", "p_teacher", 0.2, {"color": TEACHER}),
        ("student before training $p_0$", "p_student", -0.2, HATCHED),
    ):
        sizes = floats(tokens, column)
        axis.barh(y + shift, sizes, height=0.36, label=label, **look)
        for place, size in zip(y + shift, sizes, strict=True):
            axis.text(size + 0.01, place, _probability(size), va="center", fontsize=6)
    for place, inside in zip(y, tokens["supported"], strict=True):
        if not inside:
            axis.text(1.12, place, "off support", va="center", ha="right", **OFF)
    axis.set_yticks(y, [shown(token, TOKEN_LENGTH, spaces=True) for token in tokens["token"]])
    no_ticks(axis)
    axis.set(xlim=(0, 1.12), xlabel="probability", xticks=np.linspace(0, 1, 6))
    axis.set_title(name, pad=28)
    _about(axis, tokens.iloc[0])


def _probability(value: float) -> str:
    """Two digits, a bound for what is smaller."""
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def _about(axis: Axes, row: pd.Series) -> None:
    """What precedes, and the position's numbers, under the title."""
    text = f"{shown(str(row['before']), CONTEXT_LENGTH, tail=True)} ▸"
    numbers = f"$D$ = {number(row['disagreement'])}, $C$ = {number(row['compatibility'])}, "
    numbers += f"$G$ = {number(row['gain'])} nats"
    place: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "bottom",
    }
    axis.annotate(text, (0, 1), xytext=(0, 14), fontsize=7, style="italic", **place)
    axis.annotate(numbers, (0, 1), xytext=(0, 4), fontsize=7, **place)


def _pipeline(axis: Axes, row: pd.Series) -> None:
    """The steps as boxes in two rows, the second from right to left."""
    axis.set_axis_off()
    axis.set(xlim=(-0.5, 3 * STEP_X + BOX_WIDTH + 0.5), ylim=(-0.5, STEP_Y + BOX_HEIGHT + 0.5))
    title(axis, "B", "Pipeline")
    for name, (head, *lines) in _texts(row).items():
        _box(axis, name, head, lines)
    for start, end in zip(list(BOXES)[:-1], list(BOXES)[1:], strict=True):
        _arrow(axis, start, end)
    _arrow(axis, "bank", "rescore", dashed=True)
    x, _ = _middle("bank")
    axis.text(
        x + 0.8, STEP_Y - (STEP_Y - BOX_HEIGHT) / 2, "same contexts", fontsize=6.5, va="center"
    )


def _texts(row: pd.Series) -> dict[str, tuple[str, ...]]:
    """Head and lines of each box."""
    budget = percent(row["budget"])
    return {
        "rollouts": (
            "Student rollouts",
            f"{row['n_contexts']:,} contexts",
            f"from {row['n_prompts']:,} prompts",
        ),
        "bank": ("Frozen bank", f"{row['n_positions']:,} positions", "contexts $c_t$ fixed"),
        "scores": (
            "Teacher and student",
            "$p_T$ and $p_0$ at each $c_t$",
            f"top-$K$, $K$ = {row['top_k']}",
        ),
        "signals": ("Two signals", "disagreement $D_t$", "compatibility $C_t$"),
        "rank": (
            "Rank and keep",
            r"by $\tilde D_t \tilde C_t$, top $\rho$ = " + budget,
            f"{row['n_kept']:,} positions",
        ),
        "train": ("Train", "loss on what is kept", r"$\theta_0 \to \theta_\tau$"),
        "rescore": (
            "Rescore",
            r"$p_\tau$ at each $c_t$",
            f"checkpoint {shown(str(row['checkpoint']), 16)}",
        ),
        "gain": (
            "Gain $G$ (nats)",
            f"mean {number(row['gain'])}",
            f"top {budget}: {number(row['gain_kept'])}",
        ),
    }


def _box(axis: Axes, name: str, head: str, lines: Sequence[str]) -> None:
    x, y = _corner(name)
    color = LEARNABLE if name in OURS else NEUTRAL
    look: dict[str, Any] = {"edgecolor": color, "facecolor": to_rgba(color, 0.12)}
    shape = "round,pad=0,rounding_size=1.2"
    axis.add_patch(
        FancyBboxPatch((x, y), BOX_WIDTH, BOX_HEIGHT, boxstyle=shape, linewidth=0.9, **look)
    )
    middle = x + BOX_WIDTH / 2
    place: dict[str, Any] = {"ha": "center", "va": "center"}
    axis.text(middle, y + BOX_HEIGHT - 2.4, head, fontsize=7.5, weight="bold", **place)
    for index, line in enumerate(lines):
        axis.text(middle, y + BOX_HEIGHT - 5.9 - 3.3 * index, line, fontsize=7, **place)


def _arrow(axis: Axes, start: str, end: str, *, dashed: bool = False) -> None:
    """From the edge of one box to the edge of another beside or under it."""
    (x0, y0), (x1, y1) = _middle(start), _middle(end)
    across, up = np.sign(x1 - x0), np.sign(y1 - y0)
    gap = 0.5
    begin = (x0 + across * (BOX_WIDTH / 2 + gap), y0 + up * (BOX_HEIGHT / 2 + gap))
    stop = (x1 - across * (BOX_WIDTH / 2 + gap), y1 - up * (BOX_HEIGHT / 2 + gap))
    style = (0, (3, 2)) if dashed else "solid"
    look: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0}
    axis.add_patch(FancyArrowPatch(begin, stop, color=INK, linewidth=0.9, linestyle=style, **look))


def _corner(name: str) -> tuple[float, float]:
    column, row = BOXES[name]
    return column * STEP_X, row * STEP_Y


def _middle(name: str) -> tuple[float, float]:
    x, y = _corner(name)
    return x + BOX_WIDTH / 2, y + BOX_HEIGHT / 2


FIGURE1 = Plan(
    name="figure1",
    title="Figure 1: token teachability",
    caption="A: two positions of the bank in Q3 (low student entropy, high KL): those of largest "
    "learnable disagreement D^L = D̃C̃ and of largest incompatible disagreement D^I = D̃(1 − C̃), "
    "equal ones told apart by the unclipped score, then by a hash of context and position. Bars: "
    "probability of the six likeliest tokens under the teacher (p_T, filled) and under the "
    "student before training (p_0, hatched); in italics the end of the text before. Off support: "
    "not among the student's K likeliest tokens. D: KL(teacher ‖ student) on the union of both "
    "top-K sets; C: the teacher's mass on the student's top K; tilde: scaled to [0, 1] between "
    "the 5 % and 95 % quantiles of the bank; G, the gain: KL before less KL after training, nats. "
    "B: the pipeline, with this run's numbers; ρ is the share of positions kept, and the mean "
    "gains are of the named checkpoint, over the bank and over what D̃C̃ ranks highest.",
    reading="In a learnable position the teacher moves mass among tokens that the student already "
    "has in its top K; in an incompatible one it points to tokens outside.",
    data=data,
    draw=draw,
)
