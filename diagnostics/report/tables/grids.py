"""A table as a page shows it: every cell as text, with the numbers that sort it and fill a CSV.

Texts are those of `views`; nothing here formats or computes a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

from diagnostics.report.tables.views import Kind, Shown, cell

PARTS: Mapping[Kind, tuple[str, ...]] = {
    "interval": ("", "_low", "_high"),
    "spread": ("_mean", "_sd"),
}
NAMING: tuple[Kind, ...] = ("text", "count", "share")  # what says which row it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell. Fields: `text`; `value` its numbers in full, separated by blanks, "" for none."""

    text: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One table of cells.

    Fields: `columns`; `lead` the column that names a row: the first text that differs between rows,
    before the measured numbers; `rows` (rows, columns).
    """

    columns: tuple[Shown, ...]
    lead: int
    rows: tuple[tuple[Cell, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)


def grid(frame: pd.DataFrame, columns: tuple[Shown, ...]) -> Grid:
    """The shown columns of a frame, one row a row of the frame."""
    rows = frame.to_dict("records")
    made = tuple(
        tuple(Cell(text=cell(row, c), value=_value(row, c)) for c in columns) for row in rows
    )
    return Grid(columns=columns, lead=_lead(columns, made), rows=made)


def plain_grid(frame: pd.DataFrame) -> Grid:
    """Every column of a frame that holds anything, under its own name; ends join their estimate."""
    held = frame.dropna(axis=1, how="all")
    ends = {f"{name}{end}" for name in held for end in PARTS["interval"][1:]}
    names = [str(name) for name in held if name not in ends]
    columns = tuple(Shown(name.replace("_", " "), name, _kind(held, name)) for name in names)
    return grid(held, columns)


def _kind(frame: pd.DataFrame, name: str) -> Kind:
    if f"{name}_low" in frame and f"{name}_high" in frame:
        return "interval"
    if is_bool_dtype(frame[name]) or not is_numeric_dtype(frame[name]):
        return "text"
    return "count" if is_integer_dtype(frame[name]) else "number"


def parts(shown: Shown) -> tuple[str, ...]:
    """What the numbers of a column's cells are, as endings of the column's name in a CSV."""
    return PARTS.get(shown.kind, ("",))


def _value(row: Mapping[Any, Any], shown: Shown) -> str:
    """A cell's numbers in full, the one that sorts first; "" where that one is no number."""
    names = [f"{shown.column}{part}{shown.suffix}" for part in parts(shown)]
    values = [row.get(name, math.nan) for name in names]
    if not _is_number(values[0]):
        return ""
    return " ".join(repr(_plain(value)) if _is_number(value) else "nan" for value in values)


def _is_number(value: Any) -> bool:
    value = _plain(value)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _lead(columns: tuple[Shown, ...], rows: tuple[tuple[Cell, ...], ...]) -> int:
    naming = list(takewhile(lambda i: columns[i].kind in NAMING, range(len(columns))))
    texts = [i for i in naming if columns[i].kind == "text"]
    return next((i for i in texts if len({row[i].text for row in rows}) > 1), 0)
