"""What a report says, before it is drawn or written: chapters of questions, figures and tables.

Analyses hand over chapters; `write` makes files of them, `page` one HTML file, and `record` and
`read_record` turn them into the JSON of `results.json` and back, so a page can be made again where
no run is left. Nothing here computes a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diagnostics import __version__
from diagnostics.errors import InputError
from diagnostics.files import read_json
from diagnostics.report.comparison.estimates import FILE as ESTIMATES
from diagnostics.report.comparison.estimates import read_estimates
from diagnostics.report.tables.views import Shown, View

SCHEMA_VERSION = 1
SCHEMA_NAME = f"urn:fixed-context-diagnostics:results:{SCHEMA_VERSION}"  # `json_schema`


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer as a page shows it.

    Fields: `outcome` what it is of; `verdict` that colours it (`yes`, `no`, `unclear`); `word` in
    large; `text` its number; `remarks` what a reader must know beside it, as the noise of scoring.
    `estimate`, `low`, `high` and `noise` are that number again, to be drawn; None: it has none.
    """

    outcome: str
    verdict: str
    word: str
    text: str
    remarks: tuple[str, ...] = ()
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    noise: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One question and its answers. Fields: `measure` which number answers it."""

    question: str
    measure: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence about a run. Fields: `text`; `warning` if numbers may not be what they seem."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One table.

    Fields: `frame` at full precision; `view` how people are shown it; `note` under it; `lead` rows
    of the frame that stand first where it is long, None: all; `over` what the other rows are;
    `paper` the paper's own table, None where it has none, `paper_columns` how it is shown, and
    `paper_note` what must be known of it alone.
    """

    name: str
    frame: pd.DataFrame
    view: View
    note: str = ""
    lead: tuple[int, ...] | None = None
    over: str = ""
    paper: pd.DataFrame | None = None
    paper_columns: tuple[Shown, ...] = ()
    paper_note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plate:
    """One figure before it is drawn.

    Fields: `drawing` the kind of figure, and `name` its own in a report, mostly the same;
    `caption` defines every symbol; `reading` says how to read it; `frames` the plotted numbers by
    panel, all that the drawing gets.
    """

    drawing: str
    name: str
    title: str
    caption: str
    reading: str
    frames: Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What one kind of evidence says.

    Fields: `key` its kind (`contexts`, `interventions`, `downstream`, `comparison`); `heading` the
    question it is about; `opening` what was done; `explained` how its answers are to be read;
    `facts` (name, value) pairs; `cards`; `plates`; `sheets` in the page's order; `answers` every
    number behind the cards, one record each; `notes` by run name; `runs` one `describe` record
    each; `settings` that made the numbers; `making` further settings, as of training; `estimates`
    what comparisons are made from (`estimates`), None where there is none.
    """

    key: str
    heading: str
    opening: str
    explained: str
    settings: Mapping[str, Any]
    facts: tuple[tuple[str, str], ...] = ()
    cards: tuple[Card, ...] = ()
    plates: tuple[Plate, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    answers: tuple[Mapping[str, Any], ...] = ()
    notes: Mapping[str, tuple[Note, ...]] = field(default_factory=dict)
    runs: tuple[Mapping[str, Any], ...] = ()
    making: Mapping[str, Any] = field(default_factory=dict)
    estimates: pd.DataFrame | None = None

    @property
    def definitions(self) -> str:
        """The definition set that made its numbers; empty where none did, as of benchmarks."""
        return str(self.settings.get("definitions", ""))


def record(chapters: Sequence[Chapter]) -> dict[str, Any]:
    """Everything of a report as JSON values; a number that does not exist is null.

    Raises InputError where two chapters have a table of one name.
    """
    sheets = [sheet for chapter in chapters for sheet in chapter.sheets]
    _require_different(sheets)
    return {
        "$schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        **plain(dict(chapters[0].settings)),
        "runs": [plain(dict(run)) for chapter in chapters for run in chapter.runs],
        "answers": [plain(dict(row)) for chapter in chapters for row in chapter.answers],
        "tables": {sheet.name: json_rows(sheet.frame) for sheet in sheets},
        "paper": {s.name: json_rows(s.paper) for s in sheets if s.paper is not None},
        "chapters": [_chapter_record(chapter) for chapter in chapters],
    }


def read_record(folder: Path) -> list[Chapter]:
    """The chapters of a report folder's `results.json`. Raises InputError for another schema."""
    found = read_json(folder / "results.json")
    if found.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            where=str(folder / "results.json"),
            expected=f"schema_version {SCHEMA_VERSION}",
            got=str(found.get("schema_version")),
            fix="make the report again from its runs",
        )
    chapters = [_chapter(stored, found) for stored in found["chapters"]]
    if not (folder / ESTIMATES).is_file():
        return chapters
    estimates = read_estimates(folder)
    return [replace(chapter, estimates=_own(chapter, estimates)) for chapter in chapters]


def _own(chapter: Chapter, estimates: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of a chapter's runs; None where it has none."""
    names = [run["name"] for run in chapter.runs] if chapter.key == "contexts" else []
    rows = estimates[estimates["run"].isin(names)]
    return rows if len(rows) else None


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON values."""
    return [
        {str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")
    ]


def plain(value: Any) -> Any:
    """JSON values: NaN as null, numpy scalars as Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _require_different(sheets: Sequence[Sheet]) -> None:
    names = [sheet.name for sheet in sheets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            where="report",
            expected="tables of different names",
            got=f"two called {', '.join(twice)}",
            fix="report them apart",
        )


def _chapter_record(chapter: Chapter) -> dict[str, Any]:
    """A chapter without what stands under `tables` and `paper`."""
    return {
        "key": chapter.key,
        "heading": chapter.heading,
        "opening": chapter.opening,
        "explained": chapter.explained,
        "settings": plain(chapter.settings),
        "facts": plain(chapter.facts),
        "cards": [plain(asdict(card)) for card in chapter.cards],
        "notes": {name: [asdict(n) for n in notes] for name, notes in chapter.notes.items()},
        "runs": [run["name"] for run in chapter.runs],
        "answers": len(chapter.answers),
        "making": plain(chapter.making),
        "figures": [_plate_record(plate) for plate in chapter.plates],
        "tables": [_sheet_record(sheet) for sheet in chapter.sheets],
    }


def _plate_record(plate: Plate) -> dict[str, Any]:
    texts = {f.name: getattr(plate, f.name) for f in fields(plate) if f.name != "frames"}
    return texts | {"data": {name: columns(frame) for name, frame in plate.frames.items()}}


def _sheet_record(sheet: Sheet) -> dict[str, Any]:
    return {
        "name": sheet.name,
        "title": sheet.view.title,
        "caption": sheet.view.caption,
        "columns": [asdict(c) for c in sheet.view.columns],
        "note": sheet.note,
        "lead": plain(sheet.lead),
        "over": sheet.over,
        "paper_columns": [asdict(c) for c in sheet.paper_columns],
        "paper_note": sheet.paper_note,
    }


def columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """A frame as JSON values, column by column: a third of the size of rows."""
    return {str(name): plain(frame[name].tolist()) for name in frame}


def _chapter(stored: Mapping[str, Any], whole: Mapping[str, Any]) -> Chapter:
    """A chapter of its record; `whole` is the file, whose lists go on from chapter to chapter."""
    before = whole["chapters"][: whole["chapters"].index(stored)]
    answers = sum(chapter["answers"] for chapter in before)
    runs = sum(len(chapter["runs"]) for chapter in before)
    return Chapter(
        key=stored["key"],
        heading=stored["heading"],
        opening=stored["opening"],
        explained=stored["explained"],
        settings=stored["settings"],
        facts=tuple((name, value) for name, value in stored["facts"]),
        cards=tuple(map(_card, stored["cards"])),
        plates=tuple(map(_plate, stored["figures"])),
        sheets=tuple(_sheets(stored["tables"], whole)),
        answers=tuple(whole["answers"][answers : answers + stored["answers"]]),
        notes={name: tuple(Note(**n) for n in notes) for name, notes in stored["notes"].items()},
        runs=tuple(whole["runs"][runs : runs + len(stored["runs"])]),
        making=stored["making"],
    )


def _card(stored: Mapping[str, Any]) -> Card:
    replies = [Reply(**(r | {"remarks": tuple(r["remarks"])})) for r in stored["replies"]]
    return Card(question=stored["question"], measure=stored["measure"], replies=tuple(replies))


def _plate(stored: Mapping[str, Any]) -> Plate:
    texts = {name: value for name, value in stored.items() if name != "data"}
    return Plate(**texts, frames={name: _frame(data) for name, data in stored["data"].items()})


def _sheets(stored: Sequence[Mapping[str, Any]], whole: Mapping[str, Any]) -> Iterator[Sheet]:
    for one in stored:
        name = one["name"]
        paper = whole["paper"].get(name)
        yield Sheet(
            name=name,
            frame=_frame(whole["tables"][name]),
            view=View(one["title"], one["caption"], tuple(Shown(**c) for c in one["columns"])),
            note=one["note"],
            lead=None if one["lead"] is None else tuple(one["lead"]),
            over=one["over"],
            paper=None if paper is None else _frame(paper),
            paper_columns=tuple(Shown(**c) for c in one["paper_columns"]),
            paper_note=one["paper_note"],
        )


def _frame(stored: Any) -> pd.DataFrame:
    """A frame of rows or columns; null is NaN in a column of numbers, and None in one of texts."""
    frame = pd.DataFrame(stored)
    for name in frame:
        column = frame[name]
        if column.dtype == object and column.map(lambda v: not isinstance(v, str | bool)).all():
            frame[name] = pd.to_numeric(column)
    return frame
