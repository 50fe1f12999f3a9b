"""The chapter of fixed contexts: what results of runs say, as questions, figures and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from diagnostics.paper.tables import paper_table
from diagnostics.report.chapters import Card, Chapter, Plate, Reply, Sheet
from diagnostics.report.contexts.analysis import Answer, Results
from diagnostics.report.contexts.captions import PAPER_COLUMNS, VIEWS
from diagnostics.report.contexts.scoring import notes, scored_in
from diagnostics.report.tables.views import (
    LABELS,
    VERDICTS,
    ended,
    noise_note,
    number,
    percent,
    plus_minus,
)
from diagnostics.statistics.analyses.headlines import BUDGET

QUESTIONS = {
    "beta": (
        "Does learnable disagreement predict the gain better than incompatible disagreement?",
        "β_L − β_I over the whole bank",
    ),
    "beta_q3": (
        "Does it also inside Q3, where the student is confident and in disagreement?",
        "β_L − β_I inside Q3",
    ),
    "gap": (
        "Inside Q3, do positions with high student support gain more?",
        "high − low support gap",
    ),
    "budget": (
        "At one and the same budget, does D^L pick better positions than raw KL?",
        f"gain of the top {percent(BUDGET)} by D^L less that by KL",
    ),
}
OUTCOME_NAMES = {"gain": "absolute gain", "gain_rel": "relative gain"}
LONG = 20  # rows; a longer table is folded
CHOICE_BUDGETS = (0.03, 0.05, 0.10)
REFERENCES = ("kl", "random")  # what a leading selector is compared with in words
EXPLAINED = (
    "“Yes” and “No” mean that the 95 % interval lies above or below zero, and farther from it than "
    "the noise of scoring: the same number of a checkpoint that did not change. Else “Not clear”. "
    "Absolute gain is in nats; relative gain divides by the KL before training, and can turn an "
    "answer over. Intervals here are of the kind that held the truth most often in simulation (t "
    "with the jackknife's error over prompts); tables have {kind} ones unless they say otherwise."
)


def contexts_chapter(results: Results, plates: Iterable[Plate] = ()) -> Chapter:
    """What runs over fixed contexts say; answers are of the first checkpoint of the first run."""
    checkpoints = list(dict.fromkeys((a.run, a.checkpoint) for a in results.answers))
    lead = checkpoints[0]
    sheets = [_sheet(name, results) for name in VIEWS if name in results.tables]
    return Chapter(
        key="contexts",
        heading="Which teacher signals did the student learn?",
        opening=(
            f"Fixed-context diagnostic of {' / '.join(lead)}: student rollouts frozen as contexts, "
            "teacher and student scored on the same ones before and after training."
        ),
        explained=EXPLAINED.format(kind=results.settings.interval),
        settings=asdict(results.settings),
        facts=tuple(_facts(results)),
        cards=(*_questions(results, *lead), *_choices(results), *_prompts(results)),
        plates=tuple(plates),
        sheets=(*([_others(results)] if len(checkpoints) > 1 else []), *sheets),
        answers=tuple(
            asdict(a) | {"verdict": a.verdict(), "in_noise": a.in_noise()} for a in results.answers
        ),
        notes={run["name"]: tuple(notes(run)) for run in results.runs},
        runs=tuple(results.runs),
        estimates=results.estimates,
    )


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    first = results.tables["table05"].iloc[0]
    quadrant = results.tables["quadrants"]
    gain = results.tables["checkpoints"].iloc[0]
    mean, single = gain["gain_noise"], gain["noise_q99"]
    yield "mean gain, nats", number(gain["gain"])
    yield "noise of a mean gain", plus_minus(mean) if mean == mean else "not measured"
    yield "noise of one gain, 99 %", plus_minus(single) if single == single else "not measured"
    if len(results.runs) > 1:
        yield "runs", str(len(results.runs))
    yield "contexts", f"{first['n_contexts']:,}"
    yield "prompts (clusters)", f"{first['n_prompts']:,}"
    yield "positions", f"{first['n_positions']:,}"
    yield "checkpoints", str(len(results.tables["table05"]))
    yield "Q3 share", percent(quadrant[quadrant["quadrant"] == 3]["share"].iloc[0])
    yield "support K", str(results.settings.top_k)
    yield "scored in", scored_in(results.runs[0])


def _questions(results: Results, run: str, checkpoint: str) -> Iterator[Card]:
    for key, (question, measure) in QUESTIONS.items():
        found = [a for a in results.answers if (a.run, a.checkpoint) == (run, checkpoint)]
        replies = [_reply(a) for a in found if a.question == key]
        yield Card(question=question, measure=measure, replies=tuple(replies))


def _reply(answer: Answer) -> Reply:
    value, verdict = answer.value, answer.verdict()
    return Reply(
        outcome=OUTCOME_NAMES[answer.outcome],
        verdict=verdict,
        word=VERDICTS[verdict],
        text=ended(value.estimate, value.low, value.high, value.reason),
        remarks=(_remark(answer),),
        estimate=value.estimate,
        low=value.low,
        high=value.high,
        noise=answer.noise,
    )


def _remark(answer: Answer) -> str:
    noise = answer.noise
    if noise != noise:
        return "noise not measured"
    size = plus_minus(noise)
    return f"not above the noise of scoring, {size}" if answer.in_noise() else f"noise {size}"


def _choices(results: Results) -> Iterator[Card]:
    """Which selector keeps the positions that gained most, at each of the paper's budgets."""
    rows, kept = _first(results.tables["choices"]), _first(results.tables["table08"])
    noise = 2 * kept.groupby("budget")["gain_noise"].max().fillna(0.0)  # of either side
    replies = [
        _choice(found, noise[budget])
        for budget, found in rows.groupby("budget")
        if budget in CHOICE_BUDGETS
    ]
    yield Card(
        question="Which selector keeps the positions that gained most, at which budget?",
        measure=(
            "mean gain of the kept positions, nats; differences to all other selectors hold "
            "together in 95 % of samples. This is where gain lies, not what a mask does: for that, "
            "train it (`diagnostics intervene`)"
        ),
        replies=tuple(replies),
    )


def _choice(rows: pd.DataFrame, noise: float) -> Reply:
    """The leader at one budget: clear where it is above the runner-up by more than the noise."""
    best = rows.iloc[0]  # against the runner-up
    named = rows[rows["other"].isin((*REFERENCES, best["other"]))]
    return Reply(
        outcome=f"at {percent(best['budget'])} of positions",
        verdict="yes" if best["over_low"] > noise else "unclear",
        word=LABELS.get(best["best"], best["best"]),
        text=f"gain {ended(best['gain'], best['gain_low'], best['gain_high'])}",
        remarks=tuple(_over(row, noise) for row in named.to_dict("records")),
        estimate=best["gain"],
        low=best["gain_low"],
        high=best["gain_high"],
    )


def _over(row: dict[Any, Any], noise: float) -> str:
    """The leader against another selector; `random`, which does not compete, may be above it."""
    clear = "clearly" if row["over_low"] > noise else "not clearly"
    size = ended(row["over"], row["over_low"], row["over_high"])
    return f"{clear} above {row['other']}: {'+' if row['over'] > 0 else ''}{size}"


def _prompts(results: Results) -> Iterator[Card]:
    """How sure the numbers are, and how many prompts would make them surer."""
    rows = _first(results.tables["design"]).set_index("statistic")
    yield Card(
        question="How sure is this, and how many prompts more would it take?",
        measure=(
            "prompts that would bring the half-width of the 95 % interval to half of the number, "
            "with rollouts like these; other goals: `diagnostics plan`"
        ),
        replies=tuple(
            _needed(LABELS[key], rows.loc[key]) for key in QUESTIONS if key in rows.index
        ),
    )


def _needed(name: str, row: Any) -> Reply:
    wanted, has = row["prompts_needed"], row["prompts"]
    known = pd.notna(wanted)
    if not known:
        word, more = "No goal", str(row["reason"])
    elif wanted <= has:
        word, more = "Enough", f"{wanted:,.0f} of {has:,} would do"
    else:
        lacking = wanted - has
        word = f"+{lacking:,.0f} prompt{'' if lacking == 1 else 's'}"
        more = f"{wanted:,.0f} in all"
    return Reply(
        outcome=name,
        verdict="yes" if known and wanted <= has else "unclear",
        word=word,
        text=f"{number(row['estimate'])} ± {number(row['half_width'])}",
        remarks=(more,),
    )


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first checkpoint of the first run."""
    who = ["run", "checkpoint"]
    return frame[(frame[who] == frame[who].iloc[0]).all(axis=1)]


def _others(results: Results) -> Sheet:
    """The answers for every checkpoint."""
    rows = [
        {"run": a.run, "checkpoint": a.checkpoint, "question": a.question, "outcome": a.outcome}
        | {"verdict": a.verdict(), "value": a.value.estimate, "value_low": a.value.low}
        | {"value_high": a.value.high, "value_noise": a.noise, "kind": a.value.kind}
        for a in results.answers
    ]
    frame = pd.DataFrame(rows)
    lead = np.flatnonzero(frame["outcome"] == "gain")
    return Sheet(
        name="answers",
        frame=frame,
        view=VIEWS["answers"],
        lead=tuple(int(i) for i in lead) if len(frame) > LONG else None,
        over="absolute and relative gain",
    )


def _sheet(name: str, results: Results) -> Sheet:
    """A table with its noise and the paper's own; of a long one `_lead` rows stand first."""
    view, frame = VIEWS[name], results.tables[name].reset_index(drop=True)
    return Sheet(
        name=name,
        frame=frame,
        view=view,
        note=noise_note(frame, view.columns, results.tables["noise"]),
        lead=_lead(frame, results.settings.top_k) if len(frame) > LONG else None,
        over="every checkpoint and K",
        paper=paper_table(name) if name in PAPER_COLUMNS else None,
        paper_columns=PAPER_COLUMNS.get(name, ()),
    )


def _lead(frame: pd.DataFrame, top_k: int) -> tuple[int, ...]:
    """The rows at the main K; where a checkpoint has several of those, the first checkpoint's, and
    where those are still many, at the answers' budget."""
    lead = frame[frame["top_k"] == top_k] if "top_k" in frame else frame
    who = ["run", "checkpoint"]
    if "checkpoint" in frame and "step" not in frame and lead.duplicated(who).any():
        lead = _first(lead)
        if len(lead) > LONG and "budget" in lead:
            lead = lead[lead["budget"] == BUDGET]
    return tuple(int(i) for i in lead.index)
