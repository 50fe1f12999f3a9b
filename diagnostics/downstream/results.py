"""The list of results: which folder holds which arm's evaluations, and all of their records.

A CSV or JSONL file with columns `setting`, `selector`, `budget`, `folder`, one row a folder; a
folder that is not absolute lies beside the list. Optional: `seed` of an evaluation whose output
does not state it; `tasks` to take (`[NAME=]TASK[:METRIC]`, separated by spaces), which also gives
one benchmark one name over two programs; `unit` of its scores, `fraction` or `percent`.

Both programs write fractions, so a score above 1 is refused unless its unit is stated.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from diagnostics.downstream.evalscope import evalscope_files, read_evalscope
from diagnostics.downstream.harness import harness_files, read_harness
from diagnostics.downstream.metrics import UNITS, Unit, parse_wanted
from diagnostics.downstream.records import Score, check_records, make_arm, to_records
from diagnostics.errors import InputError

NEEDED = ("setting", "selector", "budget", "folder")
OPTIONAL = ("seed", "tasks", "unit")
Reader = Callable[..., list[Score]]


def read_results(path: Path) -> pd.DataFrame:
    """The checked records of every folder of a list. Raises InputError, naming list and row."""
    rows = enumerate(read_list(path), 1)
    frames = [_read_row(path, row, f"{path}, row {number}") for number, row in rows]
    return check_records(pd.concat(frames, ignore_index=True))


def _read_row(path: Path, row: dict[str, str], where: str) -> pd.DataFrame:
    arm = make_arm(row["setting"], row["selector"], _number(row["budget"], where), where)
    if not row["folder"]:
        raise InputError(where=where, expected="a folder", got="none", fix="name the output folder")
    folder = path.parent / row["folder"]
    scores = reader(folder)(
        folder, parse_wanted(row["tasks"]), seed=_seed(row["seed"], where), unit=_unit(row, where)
    )
    return to_records(arm, scores)


def read_list(path: Path) -> list[dict[str, str]]:
    """The rows of a list as text, every column there. Raises InputError for a bad one."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = _jsonl(text) if path.suffix == ".jsonl" else [*csv.DictReader(StringIO(text))]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            where=str(path),
            expected="a CSV or JSONL list of results",
            got=" ".join(str(error).split()),
            fix=f"write one with the columns {', '.join(NEEDED)}",
        ) from error
    if not rows:
        raise InputError(where=str(path), expected="rows", got="none", fix="add one a folder")
    for row in rows:
        if not set(NEEDED) <= set(row) <= {*NEEDED, *OPTIONAL}:
            raise InputError(
                where=str(path),
                expected=f"columns {', '.join(NEEDED)} and, where wanted, {', '.join(OPTIONAL)}",
                got=", ".join(map(str, row)),
                fix="rename, add or drop columns",
            )
    return [{name: _text(row.get(name)) for name in (*NEEDED, *OPTIONAL)} for row in rows]


def reader(folder: Path) -> Reader:
    """The reader of a folder's kind. Raises InputError where it is of none or of both."""
    kinds: list[Reader] = []
    if harness_files(folder):
        kinds.append(read_harness)
    if evalscope_files(folder):
        kinds.append(read_evalscope)
    if len(kinds) == 1:
        return kinds[0]
    raise InputError(
        where=str(folder),
        expected="results_*.json of lm-evaluation-harness or reports/MODEL/*.json of EvalScope",
        got="both" if kinds else "neither" if folder.exists() else "no such folder",
        fix="name the output folder of one evaluation program",
    )


def _jsonl(text: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line that is no object")
    return rows


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _number(text: str, where: str) -> float | None:
    """A budget, or None for an empty cell."""
    try:
        return float(text) if text else None
    except ValueError as error:
        raise InputError(
            where=where, expected="a number as budget", got=repr(text), fix="write 5 % as 0.05"
        ) from error


def _seed(text: str, where: str) -> int | None:
    """A seed, or None for an empty cell."""
    if text and not text.isdecimal():
        raise InputError(
            where=where, expected="a whole number as seed", got=repr(text), fix="or leave it empty"
        )
    return int(text) if text else None


def _unit(row: dict[str, str], where: str) -> Unit:
    for unit in UNITS:
        if row["unit"] in (unit, ""):
            return unit
    raise InputError(
        where=where,
        expected=f"a unit: {' or '.join(UNITS)}",
        got=repr(row["unit"]),
        fix="or leave it empty",
    )
