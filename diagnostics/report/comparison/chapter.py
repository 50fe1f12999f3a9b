"""A comparison as people see it: a chapter of answers, a forest and tables; a terminal's lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diagnostics.report.chapters import Card, Chapter, Note, Plate, Reply, Sheet
from diagnostics.report.comparison.compare import PAIRED, Comparison
from diagnostics.report.noise import Row
from diagnostics.report.tables.views import LABELS, Shown, View, ended, plus_minus
from diagnostics.statistics.inference.left_out import IDENTICAL

MEASURES = {
    "gain": "Does the mean gain over the bank differ?",
    "beta": "Does it differ by how much learnable disagreement predicts gain better?",
    "beta_q3": "And inside Q3?",
    "gap": "Does the gap of high over low student support inside Q3 differ?",
    "matched": "Does that gap over matched pairs differ?",
    "budget": "Does it differ by how much D^L picks better positions than KL?",
}
OUTCOMES = {"gain": "absolute gain", "gain_rel": "relative gain"}
WHO = (Shown("run", "run", "text"), Shown("checkpoint", "checkpoint", "text"))
_K, _OF = Shown("K", "top_k", "count"), Shown("of", "outcome", "text")
VALUES = (
    Shown("first", "first", "interval"),
    Shown("second", "second", "interval"),
    Shown("difference", "difference", "interval"),
    Shown("clear", "clear", "text"),
    Shown("paired", "paired", "text"),
    Shown("prompts", "n_prompts", "count"),
)
CAPTION = (
    "First: {first}. Second: {second}. Difference: first less second, with the 95 % t interval of "
    "the jackknife over prompts; paired by `bank`: over one bank a prompt is left out of both at "
    "one time; by `prompts`: over the prompts of both banks; `no`: the banks share none. "
)
VIEW = View(
    "What differs",
    CAPTION + "Nats; relative gain: share of KL before. β_L − β_I: nats per standard deviation.",
    (*WHO, _K, Shown("number", "number", "text"), _OF, *VALUES),
)
BUDGET_VIEW = View(
    "What selectors keep",
    CAPTION + "The mean gain of the positions that a selector keeps at a budget, nats.",
    (
        *WHO,
        _K,
        Shown("selector", "selector", "text"),
        Shown("budget", "budget", "share"),
        _OF,
        *VALUES,
    ),
)
SETTINGS_VIEW = View(
    "Settings that differ",
    "Everything that is not alike: settings, models, fingerprints, digests, versions. First: "
    "{first}. Second: {second}.",
    (
        Shown("setting", "setting", "text"),
        Shown("first", "first", "text"),
        Shown("second", "second", "text"),
    ),
)
EXPLAINED = (
    "“Larger” means that the 95 % interval of the first less the second lies above zero, and "
    "farther from it than the noise of scoring of both together; “smaller” that it lies below. "
    "Identical: every digit is the same, without any one prompt too. Intervals that overlap say "
    "nothing of a paired difference: look at its own."
)


def comparison_chapter(made: Comparison) -> Chapter:
    """What differs between two, for the page and the files."""
    names = {"first": made.first.name, "second": made.second.name}
    sheets = [
        Sheet(name="comparison", frame=_clear(made.numbers), view=_told(VIEW, names)),
        Sheet(
            name="comparison_budgets", frame=_clear(made.budgets), view=_told(BUDGET_VIEW, names)
        ),
        Sheet(name="settings_differ", frame=made.settings, view=_told(SETTINGS_VIEW, names)),
    ]
    return Chapter(
        key="comparison",
        heading=f"What differs between {made.first.name} and {made.second.name}?",
        opening=opening(made),
        explained=EXPLAINED,
        settings={"definitions": made.first.definitions, "top_k": made.first.top_k},
        facts=tuple(_facts(made)),
        cards=tuple(_cards(made)),
        plates=(_plate(made),),
        sheets=tuple(sheet for sheet in sheets if len(sheet.frame)),
        answers=tuple(made.numbers.to_dict("records")),
        notes=_notes(made),
        runs=tuple(_runs(made)),
    )


def opening(made: Comparison) -> str:
    """One sentence of what is compared, and how."""
    ways = [PAIRED[way] for way in PAIRED if way in set(made.numbers["paired"])]
    return (
        f"{made.first.name} less {made.second.name}, {'; '.join(ways)}; definitions "
        f"{made.first.definitions}, K = {made.first.top_k}."
    )


def _facts(made: Comparison) -> Iterator[tuple[str, str]]:
    yield "first", made.first.name
    yield "second", made.second.name
    yield "checkpoints compared", str(len(made.numbers[["run", "checkpoint"]].drop_duplicates()))
    yield "prompts", f"{int(made.numbers['n_prompts'].max()):,}"
    yield "settings that differ", str(len(made.settings))


def _runs(made: Comparison) -> Iterator[dict[str, Any]]:
    """The records of both, under names of their own."""
    for side in (made.first, made.second):
        for name, run in side.runs.items():
            yield dict(run) | {"name": f"{side.name}: {name}"}


def _notes(made: Comparison) -> dict[str, tuple[Note, ...]]:
    """A warning where what differs may be more than what is asked about."""
    if made.first.settings.get("version") == made.second.settings.get("version"):
        return {}
    versions = " and ".join(str(s.settings.get("version")) for s in (made.first, made.second))
    text = f"Made by two versions of this project, {versions}: numbers may differ by that alone."
    return {"versions": (Note(text, warning=True),)}


def _told(view: View, names: dict[str, str]) -> View:
    """A view whose caption says which two."""
    return View(view.title, view.caption.format(**names), view.columns)


def _clear(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with its verdicts in words."""
    words = [word_of(verdict) for verdict in frame["verdict"]]
    return frame.drop(columns="verdict").assign(clear=words)


def word_of(verdict: str) -> str:
    """What is said of the first, beside the second."""
    words = {"yes": "larger", "no": "smaller", "unclear": "not clear", IDENTICAL: IDENTICAL}
    return words[verdict]


def _cards(made: Comparison) -> Iterator[Card]:
    rows = made.numbers.to_dict("records")
    several = made.numbers[["run", "checkpoint"]].drop_duplicates().shape[0] > 1
    for number, question in MEASURES.items():
        replies = [_reply(row, made, several) for row in rows if row["number"] == number]
        if replies:
            yield Card(question=question, measure=LABELS[number], replies=tuple(replies))


def _reply(row: Row, made: Comparison, several: bool) -> Reply:
    estimate, low, high = _ends(row, "difference")
    known = estimate == estimate
    return Reply(
        outcome=_of(row, several),
        verdict=row["verdict"] if row["verdict"] in ("yes", "no") else "unclear",
        word=word_of(row["verdict"]).capitalize(),
        text=ended(estimate, low, high, row["reason"]) if known else row["reason"],
        remarks=tuple(_remarks(row, made)),
        estimate=estimate if known else None,
        low=low if known else None,
        high=high if known else None,
        noise=row["difference_noise"],
    )


def _ends(row: Row, name: str) -> tuple[float, float, float]:
    """A number and the ends of its interval."""
    return float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"])


def _of(row: Row, several: bool) -> str:
    outcome = OUTCOMES[row["outcome"]]
    return f"{row['checkpoint']}, {outcome}" if several else outcome


def _remarks(row: Row, made: Comparison) -> Iterator[str]:
    for side, name in ((made.first, "first"), (made.second, "second")):
        if row[name] == row[name]:
            yield f"{side.name}: {ended(*_ends(row, name))}"
    noise = row["difference_noise"]
    yield f"noise {plus_minus(noise)}" if noise == noise else "noise not measured"


def _plate(made: Comparison) -> Plate:
    columns = ["run", "checkpoint", "number", "difference", "difference_low", "difference_high"]
    frames = {}
    for panel, outcome in (("comparisona", "gain"), ("comparisonb", "gain_rel")):
        rows = made.numbers[made.numbers["outcome"] == outcome].reset_index(drop=True)
        frames[panel] = rows[columns].assign(noise=rows["difference_noise"])
    return Plate(
        drawing="comparison",
        name="differences",
        title="What differs, number by number",
        caption=(
            f"First: {made.first.name}; second: {made.second.name}. Points: first less second of "
            "each headline number, with 95 % t intervals of the jackknife over prompts. A: "
            "absolute gain, nats. B: relative gain, share of KL before. Grey band: the most that "
            "both show together where nothing changed."
        ),
        reading=(
            "Right of the dashed line the first is larger. A line that does not cross it, and ends "
            "outside the grey band, is a clear difference; a point without a line has no interval, "
            "or no width: the two are identical."
        ),
        frames=frames,
    )


def show(made: Comparison, console: Console) -> None:
    """Prints a comparison: what is compared, one line a number, and how many settings differ."""
    console.print(Text(opening(made)), soft_wrap=True)
    console.print("", _table(made), "", sep="\n")
    names = ", ".join(made.settings["setting"])
    said = f"Settings that differ: {names}" if names else "No setting differs"
    console.print(Text(f"{said}."), soft_wrap=True)


def _table(made: Comparison) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, head in enumerate(("number", "of", "first", "second", "difference", "first is")):
        table.add_column(head, justify="left" if place < 2 else "right", no_wrap=True)
    pairs = made.numbers[["run", "checkpoint"]].drop_duplicates().shape[0]
    for row in made.numbers.to_dict("records"):
        values = [_short(row, name) for name in ("first", "second", "difference")]
        named = LABELS[row["number"]]
        cells = [named, _of(row, pairs > 1), *values, word_of(row["verdict"])]
        table.add_row(*map(Text, cells))
    return table


def _short(row: Row, name: str) -> str:
    value, low, high = _ends(row, name)
    if value != value:
        return "–"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]" if low == low else f"{value:.3g}"
