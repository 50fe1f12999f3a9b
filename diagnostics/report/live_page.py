"""The page of live interventions: one self-contained HTML file."""

from __future__ import annotations

from typing import Any

import pandas as pd

from diagnostics import __version__
from diagnostics.report.live_analysis import LiveResults
from diagnostics.report.live_views import PAPER_COLUMNS, paper_beside
from diagnostics.report.page import (
    LONG,
    figure_noise,
    shown_figure,
    shown_paper,
    shown_table,
    template,
)
from diagnostics.report.scoring import notes, scored_in
from diagnostics.report.views import number, plus_minus

FIGURE_TEXT = {
    "selectors": (
        "Selector check (Table 2)",
        "Mean gain over the whole bank of every mask that was trained, by budget, largest first. "
        "Bars: 95 % prompt-cluster intervals of the gain averaged over seeds; small dots: single "
        "seeds. Dotted lines: random at the same budget (grey) and full (dark).",
        "A mask right of the grey line moved the student more than random positions did. Where "
        "dots of one mask lie farther apart than the masks do, the order is the seeds' doing.",
    ),
    "figure3b_live": (
        "Figure 3B, trained live: masks inside Q3",
        "Three masks inside Q3 (low entropy, high KL) of matched budgets: the largest D^L, the "
        "smallest D^L, the largest D^I. A: mean gain over the whole bank. B: contrast, the high-C "
        "third's gain less the low-C third's inside Q3, which the paper's tables print as gain. "
        "Bars: 95 % prompt-cluster intervals; small dots: single seeds; hollow: a second budget.",
        "The paper's claim is high D^L above both others. A and B need not agree: a mask that "
        "improves every position alike is high in A and at 0 in B.",
    ),
    "budget_curve": (
        "Budget curve (Table 10)",
        "Selectors that were trained at the most budgets: mean gain over the whole bank (A) and "
        "contrast inside Q3 (B). Bars: 95 % prompt-cluster intervals; small dots: single seeds; "
        "dotted line: full.",
        "A curve that bends down says that more supervised tokens did not move the student "
        "further; the paper's peaks at 3 to 5 % and is of B.",
    ),
    "figure4": (
        "Figure 4A–B: exact budgets, not trained",
        "The positions that each selector keeps at exactly ⌈ρN⌉, after training on every position: "
        "their mean gain (A) and that over the share kept (B). Bars: 95 % prompt-cluster "
        "intervals. Hollow: Q3 had fewer positions than asked for, so all of it is kept.",
        "This is where gain lies, not what a mask does: compare with the selector check, whose "
        "masks were trained.",
    ),
}


def render_live_page(results: LiveResults, svgs: dict[str, str]) -> str:
    """The page's HTML; `svgs` holds drawn figures by name. Nothing in it loads anything."""
    noise = figure_noise(results.noise)
    return template("interventions.html.j2").render(
        version=__version__,
        settings=results.settings,
        runs=[results.run],
        name=results.run["name"],
        facts=_facts(results),
        scoring=[(results.run["name"], notes(results.run))],
        lead=results.cards,
        missing=_missing(results),
        training=results.training,
        tables=[_table(name, results) for name in results.tables],
        figures=[
            shown_figure(name, svgs[name], text, "" if name == "figure4" else noise)
            for name, text in FIGURE_TEXT.items()
            if name in svgs
        ],
    )


def _facts(results: LiveResults) -> list[tuple[str, str]]:
    masks = {arm.mask for arm in results.arms}
    seeds = sorted({arm.seed for arm in results.arms})
    noise = results.noise["gain"]
    return [
        ("trainings", str(len(results.arms))),
        ("masks", str(len(masks))),
        ("selectors", str(len({selector for selector, _ in masks}))),
        ("seeds", str(len(seeds))),
        ("positions", f"{results.positions:,}"),
        ("noise of a mean gain", plus_minus(noise) if noise == noise else "not measured"),
        ("mean KL before, nats", number(results.kl_0)),
        ("support K", str(results.settings.top_k)),
        ("scored in", scored_in(results.run)),
    ]


def _missing(results: LiveResults) -> list[tuple[str, str]]:
    """Arms without numbers, and why."""
    frame = results.tables.get("missing")
    if frame is None:
        return []
    return list(zip(frame["checkpoint"], frame["reason"], strict=True))


def _table(name: str, results: LiveResults) -> dict[str, Any]:
    frame, view = results.tables[name], results.views[name]
    lead = _lead(name, frame, results) if len(frame) > LONG else frame
    shown = shown_table(name, view, frame, lead, results.note_of(name), "every mask and budget")
    paper = paper_beside(name)
    return shown if paper is None else shown | shown_paper(paper, PAPER_COLUMNS[name])


def _lead(name: str, frame: pd.DataFrame, results: LiveResults) -> pd.DataFrame:
    """Of a long table the rows at the main budgets, of the answers the leaders' alone."""
    if name == "answers":
        return frame[frame["second"] == ""]
    if "budget" not in frame or name in ("table10", "arms"):
        return frame.head(LONG)
    main = frame["budget"].isin(results.budgets) | (frame.get("selector") == "full")
    return frame[main] if main.any() else frame.head(LONG)
