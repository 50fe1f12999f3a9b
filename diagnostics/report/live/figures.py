"""Figures of live interventions (matplotlib).

Each function draws on a new figure and returns it; call them within `figure_style`. Bars are 95 %
prompt-cluster intervals of gains averaged over seeds; the small dots are single seeds. Grey bands
are the noise of scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from diagnostics.report.figures.figure4 import FIGURE4, kept_panels
from diagnostics.report.figures.settings import RUN
from diagnostics.report.figures.style import (
    CHECKPOINT_COLORS,
    INCOMPATIBLE,
    INK,
    LEARNABLE,
    LETTERS,
    NEUTRAL,
    canvas,
    noise_band,
    one_legend,
    zero_line,
)
from diagnostics.report.tables.views import percent
from diagnostics.statistics.analyses.interventions import Number

PANELS: tuple[Number, ...] = ("gain", "contrast")
LABELS: Mapping[str, str] = {
    "gain": "mean gain over the bank (nats)",
    "contrast": "contrast in Q3 (nats)",
}
Q3_LABELS = {"q3+high-dl": "high $D^L$", "q3+low-dl": "low $D^L$", "q3+high-di": "high $D^I$"}
Q3_COLORS = {"q3+high-dl": LEARNABLE, "q3+low-dl": "#56B4E9", "q3+high-di": INCOMPATIBLE}
CURVES, LONG_SWEEP = 6, 3  # how many curves of budgets, and from how many budgets on


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What figures are made of.

    Fields: `tables` by name; `noise` of each number, NaN where it was not measured; `budgets` that
    the forest of selectors shows.
    """

    tables: Mapping[str, pd.DataFrame]
    noise: Mapping[Number, float]
    budgets: tuple[float, ...]


Draw = Callable[[Drawn], "Figure | None"]
Frames = Mapping[str, pd.DataFrame]
NEEDS: Mapping[str, tuple[str, ...]] = {
    "selectors": ("table02", "arms"),
    "figure3b_live": ("table07", "table02", "arms"),
    "budget_curve": ("table10", "table02", "arms"),
    "figure4_live": ("table08",),
}


def frames_of(name: str, drawn: Drawn) -> dict[str, pd.DataFrame]:
    """The plotted numbers of a figure as frames; none where there is nothing to draw."""
    needed = NEEDS[name]
    if needed[0] not in drawn.tables or (name == "selectors" and not drawn.budgets):
        return {}
    noise = pd.DataFrame({"number": list(drawn.noise), "noise": list(drawn.noise.values())})
    budgets = pd.DataFrame({"budget": list(drawn.budgets)}, dtype=float)
    return {key: drawn.tables[key] for key in needed} | {"noise": noise, "budgets": budgets}


def draw_live(name: str, frames: Frames) -> Figure | None:
    """A figure from its frames alone."""
    noise = dict(
        zip(frames["noise"]["number"], frames["noise"]["noise"].astype(float), strict=True)
    )
    tables = {key: frame for key, frame in frames.items() if key not in ("noise", "budgets")}
    budgets = tuple(frames["budgets"]["budget"])
    return FIGURES[name](Drawn(tables=tables, noise=noise, budgets=budgets))


def selectors(drawn: Drawn) -> Figure:
    """Gain of every mask, one panel a budget, largest first; random and full as lines."""
    table = drawn.tables["table02"]
    panels = [_at(table, budget) for budget in drawn.budgets]
    tall = max(map(len, panels))
    figure, axes = canvas(0.9 + 0.24 * tall, (1,) * len(panels))
    for axis, rows, budget in zip(axes, panels, drawn.budgets, strict=True):
        _forest(axis, rows, drawn)
        _reference(axis, table[table["selector"] == "full"], INK, "full", vertical=True)
        random = rows[rows["selector"] == "random"]
        _reference(axis, random, NEUTRAL, "random, same budget", vertical=True)
        axis.set(xlabel="mean gain (nats)", ylim=(len(rows) - tall - 0.8, len(rows) - 0.4))
        axis.set_title(f"{_letter(axes, axis)}  {percent(budget)} of positions")
        axis.xaxis.set_major_locator(MaxNLocator(4))
    _same_range(axes)
    one_legend(figure, axes)
    return figure


def figure3b_live(drawn: Drawn) -> Figure:
    """Gain over the bank (A) and contrast (B) of the Q3 masks, one colour a mask."""
    table = drawn.tables["table07"]
    budgets = sorted(table["budget"].unique())
    arms, whole = drawn.tables["arms"], drawn.tables["table02"]
    figure, axes = canvas(2.9, (1, 1))
    for axis, number in zip(axes, PANELS, strict=True):
        for index, mask in enumerate(Q3_LABELS):
            for place, budget in enumerate(budgets):
                rows = table[(table["mask"] == mask) & (table["budget"] == budget)]
                x = index + (place - (len(budgets) - 1) / 2) * 0.28
                seeds = _arms(arms, mask, budget)[number]
                color = Q3_COLORS[mask]
                _estimate(axis, x, rows, number, seeds, color, hollow=place % 2 == 1)
        zero_line(axis)
        noise_band(axis, drawn.noise[number])
        if len(budgets) == 1:
            random = whole[(whole["selector"] == "random") & (whole["budget"] == budgets[0])]
            _reference(axis, random, NEUTRAL, "random, same budget", number=number)
        axis.set_xticks(range(len(Q3_LABELS)), list(Q3_LABELS.values()))
        axis.set(ylabel=LABELS[number], xlim=(-0.6, len(Q3_LABELS) - 0.4))
    said = ", ".join(map(percent, budgets))
    axes[0].set_title(f"A  Gain of Q3 masks, {said}")
    axes[1].set_title("B  Their contrast")
    one_legend(figure, axes)
    return figure


def budget_curve(drawn: Drawn) -> Figure:
    """Gain (A) and contrast (B) against the budget, one line a selector, log x."""
    table = drawn.tables["table10"]
    arms, whole = drawn.tables["arms"], drawn.tables["table02"]
    names = curves(table)
    budgets = sorted(table[table["selector"].isin(names)]["budget"].unique())
    figure, axes = canvas(3.1, (1, 1))
    for axis, number in zip(axes, PANELS, strict=True):
        _budget_axis(axis, budgets)
        for index, name in enumerate(names):
            rows = table[table["selector"] == name]
            color = color_of(name, index)
            x = rows["budget"].to_numpy() * (1 + 0.04 * (index - (len(names) - 1) / 2))
            axis.plot(x, rows[number], color=color, label=name, zorder=2)
            for place, (_, row) in zip(x, rows.iterrows(), strict=True):
                seeds = _arms(arms, name, row["budget"])[number]
                _estimate(axis, place, pd.DataFrame([row]), number, seeds, color)
        full = whole[whole["selector"] == "full"]
        _reference(axis, full, INK, "full", number=number)
        zero_line(axis)
        noise_band(axis, drawn.noise[number])
        axis.set(ylabel=LABELS[number], xlabel="budget asked for (log scale)")
    axes[0].set_title("A  Gain by budget")
    axes[1].set_title("B  Contrast by budget")
    one_legend(figure, axes)
    return figure


def figure4(drawn: Drawn) -> Figure | None:
    """Offline gain (A) and gain per kept token (B) at exact budgets, after full training."""
    table = drawn.tables["table08"]
    budgets = drawn.budgets or tuple(sorted(table["budget"].unique())[:3])
    rows = table[table["budget"].isin(budgets)]
    noise = rows.get("gain_noise", np.nan)
    return FIGURE4.draw(kept_panels(rows.assign(source=RUN, teacher="", noise=noise)))


FIGURES: dict[str, Draw] = {
    "selectors": selectors,
    "figure3b_live": figure3b_live,
    "budget_curve": budget_curve,
    "figure4_live": figure4,
}


def curves(table: pd.DataFrame) -> list[str]:
    """The selectors of Table 10 that a curve shows: of three budgets or more, else of two."""
    counts = table["selector"].value_counts(sort=False)
    long = [name for name in counts.index if counts[name] >= LONG_SWEEP]
    return (long or list(counts.index))[:CURVES]


def color_of(selector: str, index: int) -> str:
    """A selector's colour in curves: what the text names has its own."""
    fixed = {"random": NEUTRAL, "teachability": LEARNABLE, "incompatible": INCOMPATIBLE}
    others = [c for c in CHECKPOINT_COLORS if c not in fixed.values()]
    return fixed.get(selector, others[index % len(others)])


def _at(table: pd.DataFrame, budget: float) -> pd.DataFrame:
    return table[(table["budget"] == budget) & (table["selector"] != "full")]


def _arms(arms: pd.DataFrame, selector: str, budget: float) -> pd.DataFrame:
    return arms[(arms["selector"] == selector) & (arms["budget"] == budget)]


def _forest(axis: Axes, rows: pd.DataFrame, drawn: Drawn) -> None:
    ordered = rows.sort_values("gain")
    for y, (_, row) in enumerate(ordered.iterrows()):
        color = NEUTRAL if row["selector"] == "random" else LEARNABLE
        axis.plot([row["gain_low"], row["gain_high"]], [y, y], color=color)
        axis.plot(row["gain"], y, "o", color=color)
        seeds = _arms(drawn.tables["arms"], row["selector"], row["budget"])["gain"]
        if len(seeds) > 1:
            _dots(axis, seeds.to_numpy(), np.full(len(seeds), y - 0.3), color)
    zero_line(axis, vertical=True)
    noise_band(axis, drawn.noise["gain"], vertical=True)
    axis.set_yticks(range(len(ordered)), list(ordered["selector"]))


def _estimate(
    axis: Axes,
    x: float,
    rows: pd.DataFrame,
    number: str,
    seeds: pd.Series,
    color: str,
    *,
    hollow: bool = False,
) -> None:
    """A mask's number with its interval and one small dot a seed; none where it was not trained."""
    if rows.empty:
        return
    row = rows.iloc[0]
    axis.plot([x, x], [row[f"{number}_low"], row[f"{number}_high"]], color=color)
    axis.plot(x, row[number], "o", color=color, markerfacecolor="white" if hollow else color)
    if len(seeds) > 1:
        beside = x * 1.09 if axis.get_xscale() == "log" else x + 0.1
        _dots(axis, np.full(len(seeds), beside), seeds.to_numpy(), color)


def _dots(axis: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """Single seeds."""
    axis.scatter(x, y, s=7, color=color, alpha=0.55, linewidths=0, zorder=3, label="_seeds")


def _reference(
    axis: Axes,
    rows: pd.DataFrame,
    color: str,
    label: str,
    *,
    vertical: bool = False,
    number: str = "gain",
) -> None:
    """A line at a mask's number, none where it was not trained."""
    if not rows.empty:
        draw = axis.axvline if vertical else axis.axhline
        draw(rows.iloc[0][number], color=color, linewidth=1.1, linestyle=":", label=label, zorder=1)


def _budget_axis(axis: Axes, budgets: list[float]) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(budgets))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(budgets[0] / 1.35, budgets[-1] * 1.35)


def _same_range(axes: np.ndarray) -> None:
    """Panels side by side over one range of x."""
    low, high = zip(*(axis.get_xlim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_xlim(min(low), max(high))


def _letter(axes: np.ndarray, axis: Axes) -> str:
    return LETTERS[list(axes).index(axis)]
