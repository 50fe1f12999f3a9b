"""The chapter of live interventions: what trained arms say, as questions, figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from diagnostics.report.chapters import Chapter, Note, Plate, Sheet
from diagnostics.report.contexts.chapter import LONG
from diagnostics.report.contexts.scoring import notes, scored_in
from diagnostics.report.live.analysis import LiveResults
from diagnostics.report.live.figures import frames_of
from diagnostics.report.live.views import PAPER_COLUMNS, VIEWS, paper_beside
from diagnostics.report.tables.views import number, plus_minus

EXPLAINED = (
    "Gain is the mean over every position of the bank of KL before less KL after training. "
    "Contrast, inside Q3 the high-C third's gain less the low-C third's, is another number under "
    "its own name: a student that improved everywhere alike has contrast 0. A difference is called "
    "clear when its 95 % interval lies beyond 0 and beyond the noise of scoring, and every seed "
    "that both masks have agrees in sign. Intervals are over prompts, of gains averaged over seeds."
)
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
    "figure4_live": (
        "Figure 4A–B: exact budgets, not trained",
        "The positions that each selector keeps at exactly ⌈ρN⌉, after training on every position: "
        "their mean gain (A) and that over the share kept (B). Bars: 95 % prompt-cluster "
        "intervals. Hollow: Q3 had fewer positions than asked for, so all of it is kept.",
        "This is where gain lies, not what a mask does: compare with the selector check, whose "
        "masks were trained.",
    ),
}


def interventions_chapter(results: LiveResults, extra: Sequence[Sheet] = ()) -> Chapter:
    """What arms of one run say; `extra` tables of the same arms come last."""
    name = results.run["name"]
    return Chapter(
        key="interventions",
        heading="Which mask moved the student toward the teacher?",
        opening=(
            f"Run {name}: one training a selector, budget and seed, from the same student, each "
            "rescored on the same frozen contexts."
        ),
        explained=EXPLAINED,
        settings=asdict(results.settings),
        facts=tuple(_facts(results)),
        cards=tuple(one.card for one in results.asked),
        plates=tuple(_plates(results)),
        sheets=(*(_sheet(name, results) for name in results.tables), *extra),
        notes={name: (*_missing(results), *notes(results.run))},
        runs=(results.run | {"arms": [asdict(arm) for arm in results.arms]},),
        making=results.training,
    )


def _plates(results: LiveResults) -> Iterator[Plate]:
    for name, (title, caption, reading) in FIGURE_TEXT.items():
        frames = frames_of(name, results.drawn)
        if frames:
            yield Plate(
                drawing=name,
                name=name,
                title=title,
                caption=caption,
                reading=reading,
                frames=frames,
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


def _missing(results: LiveResults) -> Iterator[Note]:
    """Arms without numbers, and why."""
    frame = results.tables.get("missing")
    if frame is not None:
        pairs = zip(frame["checkpoint"], frame["reason"], strict=True)
        why = "; ".join(f"{arm}: {reason}" for arm, reason in pairs)
        said = "arm has" if len(frame) == 1 else "arms have"
        yield Note(f"{len(frame)} {said} no numbers. {why}.", warning=True)


def _sheet(name: str, results: LiveResults) -> Sheet:
    frame = results.tables[name].reset_index(drop=True)
    return Sheet(
        name=name,
        frame=frame,
        view=VIEWS[name],
        note=results.note_of(name),
        lead=_lead(name, frame, results) if len(frame) > LONG else None,
        over="every mask and budget",
        paper=paper_beside(name),
        paper_columns=PAPER_COLUMNS.get(name, ()),
    )


def _lead(name: str, frame: pd.DataFrame, results: LiveResults) -> tuple[int, ...]:
    """Of a long table the rows at the main budgets, of the answers the leaders' alone."""
    first = np.arange(len(frame)) < LONG
    if name == "mask_answers":
        first = (frame["second"] == "").to_numpy()
    elif "budget" in frame and name not in ("table10", "arms"):
        main = frame["budget"].isin(results.budgets) | (frame.get("selector") == "full")
        first = main.to_numpy() if main.any() else first
    return tuple(int(i) for i in np.flatnonzero(first))
