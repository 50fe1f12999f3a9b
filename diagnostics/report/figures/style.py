"""What all figures share: our matplotlib style, colours and shapes, canvases, marks and texts.

Draw within `figure_style`. Colours are safe for the colour-blind (Okabe and Ito), and whatever they
tell is told by a shape, a line style or a place too. Grounds are clear, so that a drawing stands on
light and dark; text is in `INK`, which the page replaces by its own colour.

Grey bands are the noise of scoring: how far from 0 a checkpoint that did not change comes there.
Names and tokens come from outside: `shown` makes text of them that no font and no formula trips on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import lcm
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEARNABLE, INCOMPATIBLE, NEUTRAL = "#0072B2", "#D55E00", "#7F7F7F"
SUPPORT, LIGHT = "#009E73", "#56B4E9"
TEACHER, STUDENT = "#009E73", "#E69F00"
CHECKPOINT_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS, PAPER_MARKER = ("o", "s", "^", "D", "v", "X"), "d"  # settings of runs, of the paper
INKED = (
    "text.color",
    "axes.labelcolor",
    "axes.titlecolor",
    "xtick.color",
    "ytick.color",
    "axes.edgecolor",
)
ZERO: dict[str, Any] = {"color": NEUTRAL, "linewidth": 0.7, "linestyle": (0, (4, 3))}
INK = "#0a0b0c"  # replaced by currentColor in the page, so that text follows light and dark
WIDE = 7.2  # inches, two columns of a paper
LETTERS = "ABCDEFGH"
UNSEEN = ("C", "Zl", "Zp", "M")  # categories of characters that one cannot see, or that pile up
SPACE = "␣"
NAME_LENGTH = 20
LETTER_WIDTH = 0.06  # inches, of a legend's


def style_file() -> Path:
    """Our matplotlib style, for `plt.style.use`."""
    return Path(__file__).with_name("figures.mplstyle")


@contextmanager
def figure_style() -> Iterator[None]:
    """Our matplotlib style while figures are drawn and saved; the caller's comes back after."""
    ours = mpl.rc_params_from_file(style_file(), use_default_template=False)
    with mpl.rc_context(dict(ours) | dict.fromkeys(INKED, INK)):
        yield


def canvas(height: float, widths: tuple[float, ...]) -> tuple[Figure, Any]:
    """A row of panels of these relative widths, 7.2 inches wide (two columns of a paper)."""
    names = [f"{index}" for index in range(len(widths))]
    figure, axes = mosaic(height, [names], widths=widths)
    return figure, np.array([axes[name] for name in names])


def mosaic(
    height: float, rows: Sequence[Sequence[str]], *, width: float = WIDE, **ratios: Sequence[float]
) -> tuple[Figure, dict[str, Axes]]:
    """Panels by name, laid out in `rows`, each as wide as the figure; `widths` and `heights` are
    relative. The ground is clear."""
    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0)
    wanted: dict[str, Any] = {
        f"{name.removesuffix('s')}_ratios": values for name, values in ratios.items()
    }
    columns = lcm(*map(len, rows))
    layout = [[name for name in row for _ in range(columns // len(row))] for row in rows]
    axes: dict[str, Axes] = figure.subplot_mosaic(layout, **wanted)
    for axis in axes.values():
        axis.patch.set_alpha(0)
    return figure, axes


def header(figure: Figure, text: str) -> None:
    """What a whole figure is of, small, over its right end."""
    figure.suptitle(text, x=0.995, ha="right", fontsize=7)


def title(axis: Axes, letter: str, text: str) -> None:
    """A panel's letter and what it shows."""
    axis.set_title(f"{letter}  {text}")


def no_ticks(axis: Axes) -> None:
    """No ticks on y, whose labels name rows."""
    axis.tick_params(axis="y", length=0)


def zero_line(axis: Axes, *, vertical: bool = False) -> None:
    """A dashed line at 0, under everything."""
    draw = axis.axvline if vertical else axis.axhline
    draw(0, zorder=0, **ZERO)


def noise_band(axis: Axes, noise: float, *, vertical: bool = False) -> None:
    """A band of +-noise around 0, under everything; none where it was not measured."""
    if noise == noise:
        draw = axis.axvspan if vertical else axis.axhspan
        draw(-noise, noise, color=NEUTRAL, alpha=0.25, linewidth=0, zorder=0, label="_noise")


def estimates(
    axis: Axes,
    places: Any,
    frame: pd.DataFrame,
    name: str,
    *,
    color: str,
    marker: str = "o",
    across: bool = False,
    hollow: bool = False,
    label: str = "_",
) -> None:
    """Estimates with their intervals at `places` (row,) on x, or on y where they go `across`.

    A missing interval is not drawn, nor is a missing estimate.
    """
    middle, low, high = (floats(frame, column) for column in ends(name))
    where = np.broadcast_to(np.asarray(places, dtype=np.float64), middle.shape)
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        lines = axis.hlines if across else axis.vlines
        lines(where[known], low[known], high[known], color=color, zorder=2)
    x, y = (middle, where) if across else (where, middle)
    look = look_of(color, marker, hollow=hollow)
    axis.plot(x, y, label=label, linestyle="none", zorder=3, **look)


def ends(name: str) -> list[str]:
    """The columns of an estimate and its interval."""
    return [name, f"{name}_low", f"{name}_high"]


def floats(frame: pd.DataFrame, name: str) -> Floats:
    """A column (row,) as float64; NaN where the frame lacks it, or has a null (as JSON does)."""
    if name not in frame:
        return np.full(len(frame), np.nan)
    return np.asarray(frame[name].astype(np.float64))


def noise_of(frame: pd.DataFrame) -> float:
    """The largest noise of scoring in a panel's frame; NaN where none was measured."""
    known = floats(frame, "noise")
    known = known[~np.isnan(known)]
    return float(known.max()) if len(known) else np.nan


def legend_below(axis: Axes, *, ncols: int = 3, **more: Any) -> None:
    """A legend under the axis, in one row where it fits."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "columnspacing": 1.0}
    axis.legend(**place, ncols=ncols, **more)


def one_legend(figure: Figure, axes: Sequence[Axes] | NDArray[Any], *, ncols: int = 7) -> None:
    """One legend under all panels, each name once."""
    found: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=min(ncols, len(found)),
        )


def key(figure: Figure, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """A legend under all panels of (label, look), in as few rows as they fit."""
    longest = max(map(len, entries), default=1)
    columns = max(
        1, min(len(entries), int(figure.get_figwidth() / (0.35 + LETTER_WIDTH * longest)))
    )
    across = [name for i in range(columns) for name in list(entries)[i::columns]]  # row by row
    handles = [Line2D([], [], **{"linestyle": "none", **entries[name]}) for name in across]
    labels = [f" {name}" if name.startswith("_") else name for name in across]  # else left out
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def look_of(color: str, marker: str = "o", *, hollow: bool = False) -> dict[str, Any]:
    """How an estimate's marker looks."""
    fill = "none" if hollow else color
    return {"color": color, "marker": marker, "markerfacecolor": fill, "markeredgewidth": 0.9}


def marker_of(index: int) -> str:
    """A setting's shape."""
    return MARKERS[index % len(MARKERS)]


def dodge(index: int, count: int, width: float) -> float:
    """How far the one of `index` stands from the middle of `count` side by side in `width`."""
    return (index - (count - 1) / 2) * width / count


def shown(text: str, length: int = NAME_LENGTH, *, spaces: bool = False, tail: bool = False) -> str:
    """Text from outside as a label may hold it: unseen characters and those that the font lacks as
    escapes, dollars that open no formula, no more than `length` characters: the first of them, or
    the `tail`. Spaces at the ends are made visible where `spaces` says so."""
    if spaces:
        inner = len(text.strip(" "))
        before = len(text) - len(text.lstrip(" ")) if inner else len(text)
        after = len(text) - before - inner
        text = SPACE * before + text.strip(" ") + SPACE * after
    near = text[-length - 1 :] if tail else text[: length + 1]  # each takes one place or more
    seen = [_seen(character) for character in (reversed(near) if tail else near)]
    kept = seen[: int(np.searchsorted(np.cumsum([len(s) for s in seen]), length, side="right"))]
    if len(kept) < len(seen):
        kept = [*kept[: -1 if sum(map(len, kept)) == length else None], "…"]
    return "".join(reversed(kept) if tail else kept).replace("$", r"\$")


def _seen(character: str) -> str:
    unseen = unicodedata.category(character).startswith(UNSEEN)
    if not unseen and ord(character) in _glyphs():
        return character
    return character.encode("unicode_escape").decode()


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the style's font has."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
