"""Figure 2: gain over D^L and D^I (A), and both on the entropy-KL plane (B, C)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures.plan import Frames, Plan
from diagnostics.report.figures.reach import reach, row_spread
from diagnostics.report.figures.settings import common, teacher_name
from diagnostics.report.figures.style import (
    INCOMPATIBLE,
    LEARNABLE,
    NEUTRAL,
    floats,
    header,
    mosaic,
    noise_band,
    noise_of,
    title,
    zero_line,
)
from diagnostics.statistics.analyses.bins import bucket_means
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval

SIGNALS = {
    "learnable": ("$D^L$", LEARNABLE, "o", "-"),
    "incompatible": ("$D^I$", INCOMPATIBLE, "D", "--"),
}
CELLS, SMALLEST, LOWEST = 36, 1e-7, 0.005
TENTHS = tuple(i / 10 for i in range(1, 10))
SIGN: dict[str, Any] = {  # readable on either ground and on cells
    "color": "white",
    "fontsize": 7,
    "bbox": {"facecolor": "#5A5A5A", "linewidth": 0, "pad": 1.5},
}
PLANES = {"figure2b": "learnable", "figure2c": "incompatible"}


def data(results: Results) -> dict[str, pd.DataFrame]:
    """Means of the first checkpoint of the first run."""
    frame = results.tokens
    frame = frame[frame["checkpoint"] == frame["checkpoint"].iloc[0]].reset_index(drop=True)
    about = {
        "run": results.runs[0]["name"],
        "teacher": teacher_name(results.runs[0]["teacher"]["model"]),
        "checkpoint": str(frame["checkpoint"].iloc[0]),
        "top_k": results.settings.top_k,
    }
    bootstrap = results.settings.bootstrap
    curves = pd.concat([_by_tenth(frame, name, bootstrap) for name in SIGNALS], ignore_index=True)
    noise = reach(results, lambda rows, how: [s for n in SIGNALS for s in _spreads(rows, n, how)])
    panels = {"figure2a": curves.assign(noise=noise)}
    panels |= {panel: _cells(frame, name) for panel, name in PLANES.items()}
    return {panel: rows.assign(**about) for panel, rows in panels.items()}


def draw(frames: Frames) -> Figure | None:
    """The panels that are there, side by side."""
    shown = [name for name in ("figure2a", *PLANES) if name in frames]
    if not shown:
        return None
    widths = [1.0 if name == "figure2a" else 1.2 for name in shown]
    figure, axes = mosaic(2.6, [shown], widths=widths)
    if "figure2a" in frames:
        _curves(axes["figure2a"], frames["figure2a"])
    for name, letter in (("figure2b", "B"), ("figure2c", "C")):
        if name in frames:
            _plane(figure, axes[name], frames[name], letter)
    header(figure, common(*(frames[name] for name in shown)))
    return figure


def _by_tenth(frame: pd.DataFrame, column: str, bootstrap: Bootstrap) -> pd.DataFrame:
    """Mean gain in tenths of a score's range: signal, score (its mean there), bucket, n, gain."""
    everywhere = np.ones(len(frame), dtype=bool)
    made = bucket_means(
        frame, column, bootstrap, edges=TENTHS, scope=everywhere, medians="estimate"
    )
    table = made.table.rename(columns={column: "score"}).assign(signal=column)
    return table[["signal", "bucket", "n", "score", "gain", "gain_low", "gain_high"]]


def _spreads(frame: pd.DataFrame, column: str, bootstrap: Bootstrap) -> list[Interval]:
    rows = _by_tenth(frame, column, bootstrap).to_dict("records")
    return [row_spread(row, "gain") for row in rows]


def _cells(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean of a score in the cells of the plane that hold positions, and the corner of Q3."""
    entropy, kl = (np.maximum(frame[name].to_numpy(), SMALLEST) for name in ("entropy", "kl_0"))
    x, y = (np.geomspace(np.quantile(z, LOWEST), z.max(), CELLS + 1) for z in (entropy, kl))
    total, _, _ = np.histogram2d(entropy, kl, [x, y])
    summed, _, _ = np.histogram2d(entropy, kl, [x, y], weights=frame[column])
    i, j = np.nonzero(total)
    q3 = frame[frame["quadrant"] == 3]
    return pd.DataFrame(
        {
            "signal": column,
            "entropy_low": x[i],
            "entropy_high": x[i + 1],
            "kl_low": y[j],
            "kl_high": y[j + 1],
            "n": total[i, j].astype(int),
            "mean": summed[i, j] / total[i, j],
            "q3_entropy": q3["entropy"].max(),
            "q3_kl": q3["kl_0"].min(),
        }
    )


def _curves(axis: Axes, frame: pd.DataFrame) -> None:
    for name, (symbol, color, marker, line) in SIGNALS.items():
        rows = frame[frame["signal"] == name]
        x, low, high = (floats(rows, column) for column in ("score", "gain_low", "gain_high"))
        look: dict[str, Any] = {"color": color, "marker": marker, "linestyle": line}
        axis.plot(x, floats(rows, "gain"), label=symbol, **look)
        axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    zero_line(axis)
    noise_band(axis, noise_of(frame))
    axis.set(xlabel="score, in tenths of its range", ylabel="mean gain (nats)")
    title(axis, "A", "Gain by score")
    axis.legend(loc="best")


def _plane(figure: Figure, axis: Axes, frame: pd.DataFrame, letter: str) -> None:
    """Mean of a score in cells of the plane; the outlined corner is Q3."""
    name = str(frame["signal"].iloc[0])
    symbol, color, _, _ = SIGNALS[name]
    x, y, mean = _grid(frame)
    ramp = LinearSegmentedColormap.from_list("ramp", [to_rgba(NEUTRAL, 0.18), to_rgba(color)])
    mesh = axis.pcolormesh(x, y, mean.T, cmap=ramp, vmin=0, vmax=1, rasterized=True)
    axis.set(xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    right, bottom = floats(frame, "q3_entropy")[0], floats(frame, "q3_kl")[0]
    outline: dict[str, Any] = {"color": NEUTRAL, "linewidth": 1.4, "clip_on": False}
    axis.plot([x[0], right, right, x[0], x[0]], [bottom, bottom, y[-1], y[-1], bottom], **outline)
    axis.annotate("Q3", (x[0], bottom), xytext=(4, 4), textcoords="offset points", **SIGN)
    axis.set(xlabel="student entropy $H$ (nats)", ylabel=r"$\mathrm{KL}_0$ (nats)")
    title(axis, letter, f"{name.capitalize()}")
    bar = figure.colorbar(mesh, ax=axis, label=f"mean {symbol}", shrink=0.9, aspect=25)
    bar.ax.patch.set_alpha(0)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)


def _grid(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges on x and y, and means (x, y), NaN in cells without positions."""
    sides = [
        (floats(frame, f"{name}_low"), floats(frame, f"{name}_high")) for name in ("entropy", "kl")
    ]
    x, y = (np.unique(np.r_[low, high]) for low, high in sides)
    mean = np.full((len(x) - 1, len(y) - 1), np.nan)
    i, j = (np.searchsorted(z, low) for z, (low, _) in zip((x, y), sides, strict=True))
    mean[i, j] = floats(frame, "mean")
    return x, y, mean


FIGURE2 = Plan(
    name="figure2",
    title="Figure 2: local-support decomposition",
    caption="A: mean gain G (KL before less KL after training, nats) of positions by their "
    "learnable disagreement D^L = D̃C̃ (blue, circles) and incompatible disagreement "
    "D^I = D̃(1 − C̃) (vermilion, diamonds), in tenths of the range, with 95 % prompt-cluster "
    "intervals. D̃ and C̃: disagreement on the union of both top-K sets and teacher mass on the "
    "student's top K, scaled to [0, 1]. B and C: mean D^L and D^I in cells of the plane of student "
    "entropy H and KL_0 = KL(teacher ‖ student) before training; empty where no position lies; "
    "the outlined corner is Q3 (H at most, KL_0 at least the median). First checkpoint of the "
    "first run.",
    reading="If the blue curve rises above the vermilion one, disagreement inside the student's "
    "support is where gain is. In B and C a corner of Q3 that is dark in both "
    "says that raw KL mixes the two kinds there.",
    data=data,
    draw=draw,
)
