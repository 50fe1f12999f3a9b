"""Figure 4: exact budgets (A, B), proxies of support (C), trends over buckets (D).

Panels A and B are drawn here for the report of live interventions too (`top_n`, `draw`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures.plan import Frames, Plan
from diagnostics.report.figures.reach import reach, row_spread
from diagnostics.report.figures.settings import (
    PAPER,
    RUN,
    SETTING,
    common,
    first,
    first_name,
    ours,
    papers,
    papers_in,
    present,
    settings_in,
    stacked,
)
from diagnostics.report.figures.style import (
    CHECKPOINT_COLORS,
    INCOMPATIBLE,
    INK,
    NEUTRAL,
    PAPER_MARKER,
    SUPPORT,
    dodge,
    ends,
    estimates,
    header,
    key,
    look_of,
    marker_of,
    mosaic,
    no_ticks,
    noise_band,
    noise_of,
    title,
    zero_line,
)
from diagnostics.report.figures.trends import Line, trend_lines
from diagnostics.report.tables.views import percent
from diagnostics.statistics.analyses.bins import bucket_means
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval

BUDGETS = (0.03, 0.05)  # the paper's
AUDITED = (16, 32)  # support sizes of panel C
PROXIES = {
    "compatibility": "C mass",
    "bc_union": "CBC",
    "jaccard": "Jaccard",
    "overlap": "overlap",
    "shared_teacher_mass": "shared mass",
}
TRENDS = {
    "compatibility_norm": Line(label="support mass", color=SUPPORT, style="-", marker="o"),
    "kl_0": Line(label="raw KL", color=NEUTRAL, style="--", marker="s"),
    "incompatible": Line(label="$D^I$", color=INCOMPATIBLE, style=":", marker="D"),
}
KEPT = ("figure4a", "figure4b")
SELECTOR_ROW, BAR_ROW = 0.055, 0.065  # inches of one estimate of a selector, of a proxy


def data(results: Results) -> dict[str, pd.DataFrame]:
    """Tables 8 and 6 with the paper's, and the buckets."""
    found = _kept(results) | {"figure4c": _audit(results), "figure4d": _trends(results)}
    return present(found)


def draw(frames: Frames) -> Figure | None:
    """A and B over C and D; only the rows that are there."""
    top = [name for name in KEPT if name in frames]
    bottom = [name for name in ("figure4c", "figure4d") if name in frames]
    rows = [row for row in (top, bottom) if row]
    if not rows:
        return None
    heights = [_height(frames, row) for row in rows]
    figure, axes = mosaic(sum(heights) + 0.6, rows, heights=heights)
    looks: dict[str, dict[str, Any]] = {}
    if top:
        of = first_name(frames["figure4c"]) if "figure4c" in frames else ""
        looks |= _budgets([axes[name] for name in top], [frames[name] for name in top], of)
    if "figure4c" in frames:
        looks |= _proxies(axes["figure4c"], frames["figure4c"])
    if "figure4d" in frames:
        trend_lines(axes["figure4d"], frames["figure4d"], "gain", TRENDS)
        axes["figure4d"].set(xlabel="quarter of the signal in Q3", ylabel="mean gain (nats)")
        title(axes["figure4d"], "D", "Trends inside Q3")
    if any((frames[name]["source"] == PAPER).any() for row in rows for name in row):
        looks["paper"] = look_of(NEUTRAL, PAPER_MARKER)
    key(figure, looks)
    header(figure, common(*(frames[name] for row in rows for name in row)))
    return figure


def kept_panels(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Panels A and B of rows of Table 8 that say their setting and, in `noise`, their noise."""
    who = [*SETTING, "selector", "budget", "short"]
    per_keep = rows["noise"] * (rows["gain_per_keep"] / rows["gain"]).abs()
    return {
        "figure4a": rows[[*who, *ends("gain"), "noise"]],
        "figure4b": rows[[*who, "gain_per_keep"]].assign(noise=per_keep),
    }


def _kept(results: Results) -> dict[str, pd.DataFrame]:
    """The first setting at the main K, and the paper's."""
    columns = ["top_k", "selector", "budget", *ends("gain"), "gain_per_keep", "short"]
    rows = ours(results, "table08", columns, "gain_noise")
    rows = first(rows[rows["top_k"] == results.settings.top_k])
    if rows.empty:
        return {}
    beside = papers("table08", columns).assign(short=False)
    both = stacked(rows[rows["budget"].isin(BUDGETS)], beside)
    return {name: f.assign(top_k=both["top_k"]) for name, f in kept_panels(both).items()}


def _audit(results: Results) -> pd.DataFrame:
    """Table 6 at the paper's support sizes that there are, else at the largest, and the paper's."""
    columns = ["top_k", "proxy", *ends("gap"), "tied_share"]
    rows = ours(results, "table06", columns, "gap_noise")
    ks = [k for k in AUDITED if (rows["top_k"] == k).any()] or [rows["top_k"].max()]
    both = stacked(rows, papers("table06", columns))
    return both[both["top_k"].isin(ks)].reset_index(drop=True)


def _trends(results: Results) -> pd.DataFrame:
    columns = ["top_k", "signal", "bucket", "n", *ends("gain")]
    rows = ours(results, "buckets", columns)
    rows = rows[rows["signal"].isin(TRENDS)].reset_index(drop=True)
    return rows.assign(noise=reach(results, _bucket_spreads))


def _bucket_spreads(frame: pd.DataFrame, bootstrap: Bootstrap) -> list[Interval]:
    made = [bucket_means(frame, name, bootstrap, medians="estimate") for name in TRENDS]
    return [row_spread(row, "gain") for one in made for row in one.table.to_dict("records")]


def _height(frames: Frames, row: Sequence[str]) -> float:
    """Inches that a row of panels asks for."""
    if "figure4a" in row:
        frame = frames["figure4a"]
        bars = len(frame[["budget", "source"]].drop_duplicates())
        return 0.5 + SELECTOR_ROW * (bars + 0.8) * len(set(frame["selector"]))
    bars = len(frames["figure4c"]) if "figure4c" in row else 0
    return max(2.2, 0.5 + BAR_ROW * bars)


def _budgets(
    axes: Sequence[Axes], frames: Sequence[pd.DataFrame], of: str
) -> dict[str, dict[str, Any]]:
    """One row a selector, the largest gain on top; the looks of the budgets."""
    rows = frames[0][frames[0]["source"] == RUN]
    names = list(dict.fromkeys(rows.sort_values("gain", ascending=False)["selector"]))[::-1]
    budgets = sorted(rows["budget"].unique())
    looks: dict[float, dict[str, Any]] = {
        budget: {"color": CHECKPOINT_COLORS[i % len(CHECKPOINT_COLORS)], "marker": marker_of(i)}
        for i, budget in enumerate(budgets)
    }
    for axis, frame, column in zip(axes, frames, ("gain", "gain_per_keep"), strict=False):
        sources = list(dict.fromkeys(frame["source"]))
        for place, (budget, source) in enumerate(product(budgets, sources)):
            y = np.arange(len(names)) - dodge(place, len(budgets) * len(sources), 0.7)
            look: dict[str, Any] = (
                {"color": NEUTRAL, "marker": PAPER_MARKER} if source == PAPER else looks[budget]
            )
            mine = frame[(frame["budget"] == budget) & (frame["source"] == source)]
            _selectors(axis, y, mine.set_index("selector").reindex(names), column, look)
        zero_line(axis, vertical=True)
        noise_band(axis, noise_of(frame), vertical=True)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(-0.6, len(names) - 0.4)
        no_ticks(axis)
    axes[0].set(xlabel=f"gain of kept positions (nats){of}")
    title(axes[0], "A", "Matched counts")
    if len(axes) > 1:
        axes[1].tick_params(labelleft=False)
        axes[1].set(xlabel=f"gain / share kept (nats){of}")
        title(axes[1], "B", "Per kept token")
    return {f"{percent(b)} kept": look_of(**look) for b, look in looks.items()}


def _selectors(
    axis: Axes, y: NDArray[Any], rows: pd.DataFrame, column: str, look: dict[str, Any]
) -> None:
    """Estimates of one budget; hollow where Q3 was smaller than the budget."""
    short = (rows["short"] == True).to_numpy()  # noqa: E712, absent rows are NaN
    for hollow in (False, True):
        chosen = short == hollow
        if chosen.any():
            estimates(axis, y[chosen], rows[chosen], column, across=True, hollow=hollow, **look)


def _proxies(axis: Axes, frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """One row a proxy, in it settings and support sizes below each other; the settings' looks."""
    settings, beside = settings_in(frame), papers_in(frame)
    names = [name for name in PROXIES if (frame["proxy"] == name).any()]
    ks = sorted(frame["top_k"].unique())
    bars = [(i, part, k) for i, (_, part) in enumerate([*settings, *beside]) for k in ks]
    for place, (index, part, k) in enumerate(bars):
        rows = part[part["top_k"] == k].set_index("proxy").reindex(names)
        y = -np.arange(len(names)) - dodge(place, len(bars), 0.75)
        paper = index >= len(settings)
        look: dict[str, Any] = {"color": NEUTRAL if paper else INK}
        look["marker"] = PAPER_MARKER if paper else marker_of(index)
        estimates(axis, y, rows, "gap", across=True, hollow=k != ks[0], **look)
    zero_line(axis, vertical=True)
    noise_band(axis, noise_of(frame), vertical=True)
    axis.set_yticks(-np.arange(len(names)), [PROXIES[name] for name in names])
    axis.set_ylim(-len(names) + 0.5, 0.5)
    no_ticks(axis)
    fills = zip(("filled", "hollow"), ks, strict=False)
    said = ", ".join(f"{fill}: $K$ = {k:g}" for fill, k in fills)
    axis.set(xlabel=f"high − low gain in Q3 (nats)\n{said}")
    title(axis, "C", "Proxies of support")
    several = enumerate(settings) if len(settings) > 1 else ()
    return {name: look_of(INK, marker_of(i)) for i, (name, _) in several}


FIGURE4 = Plan(
    name="figure4",
    title="Figure 4: controls inside Q3",
    caption="A: mean gain G (KL before less KL after training, nats) of exactly ⌈ρN⌉ positions "
    "that each selector keeps, ρ the share; hollow where Q3 has fewer positions than that. B: the "
    "same over ρ. First setting, and the paper's Table 8 (grey). C: gain of the third of Q3 (low "
    "student entropy, high KL) with the most support less that of the third with the least, by "
    "proxies of support on the top-K sets of student and teacher: C mass, the teacher's mass on "
    "the student's set; CBC, the Bhattacharyya coefficient on the union; Jaccard and overlap of "
    "the sets, which agree by construction; shared mass, the teacher's on the intersection. Grey: "
    "the paper's Table 6. D: mean gain in quarters of Q3 by C, by KL before training and by "
    "D^I = D̃(1 − C̃) (disagreement off the student's support), lowest first; thin lines are single "
    "settings, bold ones their mean. Bars: 95 % prompt-cluster intervals.",
    reading="A selector right of random at the same count chooses better positions. In D a line "
    "that rises says that gain grows with the signal inside Q3; the paper's claim is that it does "
    "with C alone.",
    data=data,
    draw=draw,
)
