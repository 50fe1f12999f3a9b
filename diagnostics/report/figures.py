"""Figures 2 and 3 from results (matplotlib).

Each function draws on a new figure and returns it; call them within `figure_style`.

Colours are safe for the colour-blind (Okabe and Ito): blue is learnable, vermilion incompatible.
Grey bands are the noise of scoring: how far from 0 a checkpoint that did not change comes there.
Figure 3B shows positions of the bank by what they are, not masks that were trained on: the live
version needs one checkpoint a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.report.analysis import Results
from diagnostics.report.noise import spread
from diagnostics.statistics.analyses.bins import bucket_means
from diagnostics.statistics.analyses.budgets import kept_means
from diagnostics.statistics.analyses.gaps import TERTILES, in_q3
from diagnostics.statistics.analyses.noise import farthest
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, interval

LEARNABLE, INCOMPATIBLE, NEUTRAL = "#0072B2", "#D55E00", "#7F7F7F"
CHECKPOINT_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INKED = (
    "text.color",
    "axes.labelcolor",
    "axes.titlecolor",
    "xtick.color",
    "ytick.color",
    "axes.edgecolor",
)
CELLS, SMALLEST = 36, 1e-7
TENTHS = tuple(i / 10 for i in range(1, 10))
INK = "#0a0b0c"  # replaced by currentColor in the page, so that text follows light and dark

Draw = Callable[[Results], Figure]


def figure2(results: Results) -> Figure:
    """Gain over D^L and D^I (A), and both on the entropy-KL plane (B, C), first checkpoint."""
    frame, bootstrap = focus(results)
    figure, axes = canvas(2.8, (1, 1.15, 1.15))
    _gain_curves(axes[0], frame, bootstrap)
    noise_band(axes[0], panel_noise(results)["figure2"]["A"])
    for axis, column, symbol, color in (
        (axes[1], "learnable", "$D^L$", LEARNABLE),
        (axes[2], "incompatible", "$D^I$", INCOMPATIBLE),
    ):
        _plane(figure, axis, frame, column, symbol, color)
    axes[1].set_title("B  Learnable disagreement")
    axes[2].set_title("C  Incompatible disagreement")
    return figure


def figure3(results: Results) -> Figure:
    """Coefficients by K (A), gain of kinds of Q3 positions (B), high-low support gaps (C)."""
    figure, axes = canvas(3.0, (1, 1.1, 1))
    _coefficients(axes[0], results.tables["table09"])
    _q3_kinds(axes[1], results)
    _gaps(axes[2], results.tables["table01"])
    for axis, (panel, noise) in zip(axes, panel_noise(results)["figure3"].items(), strict=True):
        noise_band(axis, noise, vertical=panel == "C")
    return figure


FIGURES: dict[str, Draw] = {"figure2": figure2, "figure3": figure3}


def focus(results: Results) -> tuple[pd.DataFrame, Bootstrap]:
    """The first checkpoint's token table and how intervals are made."""
    frame = checkpoint_frame(results, results.tokens["checkpoint"].iloc[0])
    return frame, results.settings.bootstrap


def checkpoint_frame(results: Results, name: str) -> pd.DataFrame:
    """One checkpoint's rows of the first run's token table."""
    return results.tokens[results.tokens["checkpoint"] == name].reset_index(drop=True)


def style_file() -> Path:
    """Our matplotlib style, for `plt.style.use`."""
    return Path(str(files("diagnostics.report") / "templates" / "figures.mplstyle"))


@contextmanager
def figure_style() -> Iterator[None]:
    """Our matplotlib style while figures are drawn and saved; the caller's comes back after."""
    with as_file(files("diagnostics.report") / "templates" / "figures.mplstyle") as style:
        ours = mpl.rc_params_from_file(style, use_default_template=False)
    with mpl.rc_context(dict(ours) | dict.fromkeys(INKED, INK)):
        yield


def canvas(height: float, widths: tuple[float, ...]) -> tuple[Figure, Any]:
    """A row of panels of these relative widths, 7.2 inches wide (two columns of a paper)."""
    figure = Figure(figsize=(7.2, height))
    figure.patch.set_alpha(0)
    (axes,) = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)
    for axis in axes:
        axis.patch.set_alpha(0)
    return figure, axes


def zero_line(axis: Axes, *, vertical: bool = False) -> None:
    """A dashed line at 0, under everything."""
    draw = axis.axvline if vertical else axis.axhline
    draw(0, color=NEUTRAL, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)


def panel_noise(results: Results) -> dict[str, dict[str, float]]:
    """How far from 0 an unchanged checkpoint comes in each panel that shows gains, in its unit.

    NaN where it was not measured. By figure, then panel.
    """
    tables = results.tables
    betas = _lead_coefficients(tables["table09"])[["beta_l_noise", "beta_i_noise"]]
    return {
        "figure2": {"A": _reach(results, _tenths)},
        "figure3": {
            "A": float(betas.to_numpy().max()),
            "B": _reach(results, _kind_means),
            "C": float(tables["table01"]["gap_noise"].max()),
        },
    }


def _reach(
    results: Results, measure: Callable[[pd.DataFrame, Bootstrap], Sequence[Interval]]
) -> float:
    """The farthest that intervals of the unchanged tables come from 0; NaN: not measured."""
    found: list[Interval] = []
    for frame in results.unchanged:
        try:
            found += measure(frame, results.settings.bootstrap)
        except InputError:  # no position of a kind in the sample
            return np.nan
    return farthest(found)


def _tenths(frame: pd.DataFrame, bootstrap: Bootstrap) -> list[Interval]:
    """Mean gain by tenths of D^L and of D^I."""
    tables = [_by_tenth(frame, column, bootstrap) for column in ("learnable", "incompatible")]
    return [spread(row, "gain") for table in tables for row in table.to_dict("records")]


def _kind_means(frame: pd.DataFrame, bootstrap: Bootstrap) -> list[Interval]:
    """Mean gain of the kinds of Q3 positions."""
    return [interval(kept_means(frame, rows, "gain"), bootstrap) for rows in q3_kinds(frame)]


def _by_tenth(frame: pd.DataFrame, column: str, bootstrap: Bootstrap) -> pd.DataFrame:
    everywhere = np.ones(len(frame), dtype=bool)
    return bucket_means(frame, column, bootstrap, edges=TENTHS, scope=everywhere).to_frame()


def noise_band(axis: Axes, noise: float, *, vertical: bool = False) -> None:
    """A band of +-noise around 0, under everything; none where it was not measured."""
    if noise == noise:
        draw = axis.axvspan if vertical else axis.axhspan
        draw(-noise, noise, color=NEUTRAL, alpha=0.25, linewidth=0, zorder=0, label="_noise")


def legend_below(axis: Axes, *, ncols: int = 3, **more: Any) -> None:
    """A legend under the axis, in one row where it fits."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "columnspacing": 1.0}
    axis.legend(**place, ncols=ncols, **more)


def _gain_curves(axis: Axes, frame: pd.DataFrame, bootstrap: Bootstrap) -> None:
    for column, label, color in (
        ("learnable", "$D^L$", LEARNABLE),
        ("incompatible", "$D^I$", INCOMPATIBLE),
    ):
        table = _by_tenth(frame, column, bootstrap)
        axis.plot(table[column], table["gain"], marker="o", color=color, label=label)
        axis.fill_between(
            table[column],
            table["gain_low"],
            table["gain_high"],
            color=color,
            alpha=0.2,
            linewidth=0,
        )
    zero_line(axis)
    axis.set(xlabel="score, in tenths of its range", ylabel="mean gain (nats)")
    axis.set_title("A  Gain by score")
    legend_below(axis)


def _plane(
    figure: Figure, axis: Axes, frame: pd.DataFrame, column: str, symbol: str, color: str
) -> None:
    """Mean of a score in cells of the plane; the outlined corner is Q3."""
    entropy, kl = (np.maximum(frame[name].to_numpy(), SMALLEST) for name in ("entropy", "kl_0"))
    x_edges, y_edges = (
        np.geomspace(np.quantile(z, 0.005), z.max(), CELLS + 1) for z in (entropy, kl)
    )
    total, _, _ = np.histogram2d(entropy, kl, [x_edges, y_edges])
    summed, _, _ = np.histogram2d(entropy, kl, [x_edges, y_edges], weights=frame[column])
    mean = np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0)
    ramp = LinearSegmentedColormap.from_list("ramp", ["#EDEDED", color])
    mesh = axis.pcolormesh(x_edges, y_edges, mean.T, cmap=ramp, vmin=0, vmax=1, rasterized=True)
    axis.set(xscale="log", yscale="log")
    q3 = frame["quadrant"] == 3
    right, bottom = frame.loc[q3, "entropy"].max(), frame.loc[q3, "kl_0"].min()
    axis.plot([x_edges[0], right, right], [bottom, bottom, kl.max()], color=NEUTRAL, linewidth=1.2)
    axis.annotate(
        "Q3", (x_edges[0], bottom), xytext=(3, 3), textcoords="offset points", color=NEUTRAL
    )
    axis.set(xlabel="student entropy $H$ (nats)", ylabel="$KL_0$ (nats)")
    figure.colorbar(mesh, ax=axis, label=f"mean {symbol}", shrink=0.9, aspect=25)


def _coefficients(axis: Axes, table: pd.DataFrame) -> None:
    rows = _lead_coefficients(table)
    x = np.arange(len(rows), dtype=np.float64)
    for name, label, color, shift in (
        ("beta_l", r"$\beta_L$", LEARNABLE, -0.1),
        ("beta_i", r"$\beta_I$", INCOMPATIBLE, 0.1),
    ):
        _points(axis, x + shift, rows, name, color, label)
    zero_line(axis)
    axis.set_xticks(x, [f"K={k}" for k in rows["top_k"]])
    axis.set(ylabel="gain per SD (nats)", xlim=(-0.5, len(rows) - 0.5))
    axis.set_title("A  Coefficients")
    legend_below(axis)


def _lead_coefficients(table: pd.DataFrame) -> pd.DataFrame:
    """The whole-bank rows of the first checkpoint, one a K."""
    rows = table[table["scope"] == "all"]
    first = rows.iloc[0]
    return rows[(rows["run"] == first["run"]) & (rows["checkpoint"] == first["checkpoint"])]


def _points(
    axis: Axes, x: NDArray[np.float64], rows: pd.DataFrame, name: str, color: str, label: str
) -> None:
    """Estimates with their intervals."""
    low, high = rows[f"{name}_low"], rows[f"{name}_high"]
    errors = [rows[name] - low, high - rows[name]]
    axis.errorbar(x, rows[name], yerr=errors, fmt="o", color=color, label=label)


def _q3_kinds(axis: Axes, results: Results) -> None:
    names = list(dict.fromkeys(results.tokens["checkpoint"]))
    kinds = ("high $D^L$", "low $D^L$", "high $D^I$")
    for index, name in enumerate(names):
        frame = checkpoint_frame(results, name)
        _, bootstrap = focus(results)
        means = _kind_means(frame, bootstrap)
        x = np.arange(len(kinds)) + (index - (len(names) - 1) / 2) * 0.2
        middle = [m.estimate for m in means]
        errors = [[m.estimate - m.low for m in means], [m.high - m.estimate for m in means]]
        color = _checkpoint_color(index)
        axis.errorbar(x, middle, yerr=errors, fmt="o", color=color, label=name)
    zero_line(axis)
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set(ylabel="mean gain in Q3 (nats)", xlim=(-0.5, len(kinds) - 0.5))
    axis.set_title("B  Kinds of Q3 positions")
    legend_below(axis)


def _checkpoint_color(index: int) -> str:
    return CHECKPOINT_COLORS[index % len(CHECKPOINT_COLORS)]


def q3_kinds(frame: pd.DataFrame) -> tuple[NDArray[np.bool_], ...]:
    """Rows (pos,) of Q3 in the upper and lower third by D^L, and in the upper third by D^I."""
    rows = in_q3(frame)
    learnable, incompatible = frame["learnable"].to_numpy(), frame["incompatible"].to_numpy()
    low, high = np.quantile(learnable[rows], TERTILES)
    cut = np.quantile(incompatible[rows], TERTILES[1])
    return rows & (learnable >= high), rows & (learnable <= low), rows & (incompatible >= cut)


def _gaps(axis: Axes, table: pd.DataFrame) -> None:
    rows = table.iloc[::-1]
    y = np.arange(len(rows))
    names = list(dict.fromkeys(table["checkpoint"]))
    colors = [_checkpoint_color(names.index(n)) for n in rows["checkpoint"]]
    for place, (_, row), color in zip(y, rows.iterrows(), colors, strict=True):
        axis.plot([row["gap_low"], row["gap_high"]], [place, place], color=color)
        axis.plot(row["gap"], place, "o", color=color)
    zero_line(axis, vertical=True)
    labels = [f"{n}, K={k}" for n, k in zip(rows["checkpoint"], rows["top_k"], strict=True)]
    axis.set_yticks(y, labels)
    axis.set(xlabel="high − low gain (nats)")
    axis.set_title("C  Support gap")
