"""The JSON schema of `results.json`, made from what the code declares: its one form and its words.

The file `templates/results.schema.json` is this, written; a test holds the two together. Tables of
the contract have their columns with types and units; any other table may hold any scalars, but an
interval has both of its ends or none. Not covered: whether numbers are right.

    python -m diagnostics.report.json_schema    writes the file
"""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from diagnostics.files import write_json
from diagnostics.report.chapters import SCHEMA_NAME, SCHEMA_VERSION, Card, Note, Plate, Reply
from diagnostics.report.tables.columns import CONTRACT, ENDS, MEANINGS, RELATIVE, Meaning, meaning
from diagnostics.report.tables.views import Kind as ColumnKind
from diagnostics.report.tables.views import Shown
from diagnostics.statistics.inference.bootstrap import DRAWN, Kind
from diagnostics.statistics.tables.definitions import SETS, SWITCHES

FILE = "results.schema.json"
DRAFT = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]

WORD: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
NUMBER: Json = {"type": ["number", "null"]}
SCALAR: Json = {"type": ["string", "number", "boolean", "null"]}
DIGEST: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
ANYTHING: Json = {"type": "object"}
WORDS: Json = {"type": "array", "items": WORD}
TYPES: dict[str, Json] = {
    "string": {"type": "string"},
    "integer": {"type": ["integer", "null"]},
    "number": NUMBER,
}


def stored_schema() -> Json:
    """The schema as it lies in the package."""
    text = (files("diagnostics.report") / "templates" / FILE).read_text(encoding="utf-8")
    found: Json = json.loads(text)
    return found


def schema() -> Json:
    """The schema (draft 2020-12) of what `chapters.record` gives."""
    return {
        "$schema": DRAFT,
        "$id": SCHEMA_NAME,
        "title": "results.json",
        "description": "Every number of a report. A number that does not exist is null.",
        "type": "object",
        "required": ["schema_version", "version", "runs", "answers", "tables", "paper", "chapters"],
        "properties": {
            "$schema": {"const": SCHEMA_NAME},
            "schema_version": {"const": SCHEMA_VERSION},
            "version": WORD,
            **_settings(),
            "runs": _list("run"),
            "answers": {"type": "array", "items": {"$ref": "#/$defs/answer"}},
            "tables": {
                "type": "object",
                "properties": {name: _list(name) for name in CONTRACT},
                "additionalProperties": _list("row"),
            },
            "paper": {"type": "object", "additionalProperties": _list("row")},
            "chapters": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/chapter"}},
        },
        "$defs": {
            **_parts(),
            "row": _row(),
            **{name: _contract(name) for name in CONTRACT},
        },
    }


def _settings() -> Json:
    """What made the numbers; chapters without a definition set (evaluations) lack some."""
    switches = "|".join(f"{name}=({'|'.join(values)})" for name, values in SWITCHES.items())
    return {
        "definitions": {
            "type": "string",
            "pattern": f"^({'|'.join(SETS)})(\\+(leakage|{switches}))*$",
        },
        "top_k": {"type": "integer", "minimum": 1},
        "draws": {"type": "integer", "minimum": 1},
        "seed": COUNT,
        "interval": {"enum": list(DRAWN)},
        "redo_cuts": {"type": "boolean"},
    }


def _row() -> Json:
    """Any table's row: scalars, and both ends of an interval or none."""
    return {
        "type": "object",
        "additionalProperties": SCALAR,
        "dependentRequired": _both_ends(),
    }


def _both_ends() -> dict[str, list[str]]:
    """An interval's end asks for its other end and the number."""
    found: dict[str, list[str]] = {}
    for name, known in MEANINGS.items():
        for tail in ("", RELATIVE):
            if known.type == "number" and not name.endswith(RELATIVE):
                low, high = f"{name}_low{tail}", f"{name}_high{tail}"
                found |= {low: [name + tail, high], high: [name + tail, low]}
    return found


def _contract(table: str) -> Json:
    """A row of a table that the contract names."""
    columns = {name: _column(meaning(name, table)) for name in CONTRACT[table]}
    return {"$ref": "#/$defs/row", "required": list(columns), "properties": columns}


def _column(known: Meaning | None) -> Json:
    assert known is not None, "a test holds every contract column against the meanings"
    said = f"{known.text} ({known.unit})" if known.unit else known.text
    return TYPES[known.type] | {"description": said}


def _list(name: str) -> Json:
    return {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}


def _record(required: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    """An object of some keys."""
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
    }


def _parts() -> Json:
    """Everything that a report is made of beside its tables."""
    stamp = _record({"model": WORD, "fingerprint": WORD})
    interval = _record(
        {"estimate": NUMBER, "low": NUMBER, "high": NUMBER},
        {"reason": WORD, "kind": {"enum": list(get_args(Kind))}},
    )
    verdict = {"enum": ["yes", "no", "unclear", "identical"]}
    return {
        "interval": interval,
        "answer": {
            "type": "object",
            "properties": {"value": {"$ref": "#/$defs/interval"}, "verdict": verdict},
            "dependentRequired": _both_ends() | {"value": ["run", "checkpoint", "question"]},
        },
        "run": _record(
            {
                "name": WORD,
                "bank_digest": DIGEST,
                "run_digest": DIGEST,
                "teacher": stamp,
                "student": stamp,
                "checkpoints": {"type": "object", "additionalProperties": stamp},
                "settings": _record({"top_k": COUNT, "dtype": WORD, "kernel": WORD}),
                "libraries": {"type": "object", "additionalProperties": WORD},
            },
            {"noise": {"type": "array", "items": _record({"mean": {"$ref": "#/$defs/interval"}})}},
        ),
        "chapter": _record(_chapter()),
    }


def _chapter() -> dict[str, Json]:
    pair = {"type": "array", "prefixItems": [WORD, WORD], "minItems": 2, "maxItems": 2}
    notes = {"type": "array", "items": _of(Note, text=WORD, warning={"type": "boolean"})}
    return {
        "key": {"enum": ["contexts", "interventions", "downstream", "comparison"]},
        "heading": WORD,
        "opening": WORD,
        "explained": WORD,
        "settings": {"type": "object", "properties": _settings()},
        "facts": {"type": "array", "items": pair},
        "cards": {"type": "array", "items": _card()},
        "notes": {"type": "object", "additionalProperties": notes},
        "runs": WORDS,
        "answers": COUNT,
        "making": ANYTHING,
        "figures": {"type": "array", "items": _figure()},
        "tables": {"type": "array", "items": _table()},
    }


def _card() -> Json:
    reply = _of(
        Reply,
        **dict.fromkeys(("outcome", "word", "text"), WORD),
        verdict={"enum": ["yes", "no", "unclear"]},
        remarks=WORDS,
        **dict.fromkeys(("estimate", "low", "high", "noise"), NUMBER),
    )
    return _of(Card, question=WORD, measure=WORD, replies={"type": "array", "items": reply})


def _figure() -> Json:
    """A figure and its numbers: by panel, column by column."""
    columns = {"type": "object", "additionalProperties": {"type": "array", "items": SCALAR}}
    texts = [field.name for field in fields(Plate) if field.name != "frames"]
    data = {"data": {"type": "object", "additionalProperties": columns}}
    return _record(dict.fromkeys(texts, WORD) | data)


def _table() -> Json:
    """How a table is shown; its rows stand under `tables`."""
    shown = _of(
        Shown,
        **dict.fromkeys(("heading", "column", "suffix"), WORD),
        kind={"enum": list(get_args(ColumnKind))},
    )
    lead = {"type": ["array", "null"], "items": COUNT}
    texts = ("name", "title", "caption", "note", "over", "paper_note")
    columns: dict[str, Json] = {
        name: {"type": "array", "items": shown} for name in ("columns", "paper_columns")
    }
    return _record(dict.fromkeys(texts, WORD) | columns | {"lead": lead})


def _of(record: type, **types: Json) -> Json:
    """A dataclass's record: every field, and no other."""
    names = [field.name for field in fields(record)]
    assert set(names) == set(types), f"{record.__name__}: {set(names) ^ set(types)}"
    return _record({name: types[name] for name in names}) | {"additionalProperties": False}


def column_words() -> str:
    """The contract's columns as Markdown, for `docs/results.md`."""
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    shown = [name for name in MEANINGS if any(name in names for names in CONTRACT.values())]
    for name in shown:
        known = MEANINGS[name]
        lines.append(f"| `{name}` | {known.unit or 'text'} | {known.text} |")
    lines += [f"| `…_{end}` | of `…` | {said} `…` |" for end, said in ENDS.items()]
    return "\n".join([*lines, f"| `…{RELATIVE}` | share of KL before | `…` of relative gain |"])


def main() -> None:
    """Writes the schema beside the templates."""
    write_json(Path(__file__).parent / "templates" / FILE, schema())


if __name__ == "__main__":
    main()
