"""What a report leaves behind to be compared: its numbers, and each of them without each prompt.

`estimates.parquet` has one row a run, checkpoint, number, outcome and prompt, at the report's main
K. A number is a headline's name, or `SELECTOR@BUDGET`, the mean gain of what a selector keeps.
Not covered: what is made of two of them (`comparison`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from diagnostics.errors import InputError
from diagnostics.files import read_parquet, write_parquet
from diagnostics.schema import VERSION_KEY, Column, check_version, conform
from diagnostics.statistics.inference.left_out import LeftOut

FILE = "estimates.parquet"
SCHEMA_VERSION = 1
_WORD = pa.dictionary(pa.int32(), pa.string())
COLUMNS = (
    Column("run", _WORD, "name of the run"),
    Column("checkpoint", _WORD, "name of the trained checkpoint"),
    Column("top_k", pa.int32(), "support size K"),
    Column("number", _WORD, "headline number, or SELECTOR@BUDGET: mean gain of what it keeps"),
    Column("outcome", _WORD, "gain (nats) or gain_rel (share of KL before)"),
    Column(
        "noise", pa.float64(), "how far from 0 an unchanged checkpoint comes; NaN: not measured"
    ),
    Column("estimate", pa.float64(), "the number, in its outcome's unit"),
    Column("prompt_id", _WORD, "one prompt that has a part in the number"),
    Column("without", pa.float64(), "the number without that prompt"),
)
KEY = ("run", "checkpoint", "top_k", "number", "outcome")


def number_of(selector: str, budget: float) -> str:
    """How a selector's mean gain at a budget is called."""
    return f"{selector}@{budget:g}"


def write_estimates(folder: Path, frame: pd.DataFrame) -> None:
    """Writes a report's `estimates.parquet`."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    stated = {VERSION_KEY: str(SCHEMA_VERSION).encode()}
    write_parquet(folder / FILE, conform(table, COLUMNS, FILE).replace_schema_metadata(stated))


def read_estimates(folder: Path) -> pd.DataFrame:
    """A report's numbers. Raises InputError where there are none, or of a newer schema."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            where=str(folder),
            expected=f"a report of runs with its {FILE}",
            got="none in it",
            fix="make the report again with `diagnostics report`, or name the runs",
        )
    table = read_parquet(path)
    check_version(table.schema.metadata, SCHEMA_VERSION, str(path))
    return conform(table, COLUMNS, str(path)).to_pandas()


def numbers_of(frame: pd.DataFrame) -> dict[tuple[str, str], tuple[LeftOut, float]]:
    """(value, noise) by (number, outcome) of one checkpoint's rows, in their order."""
    found = {}
    for key, rows in frame.groupby(["number", "outcome"], sort=False, observed=True):
        ordered = rows.sort_values("prompt_id", key=lambda ids: ids.astype(object))
        one = LeftOut(
            value=float(rows["estimate"].iloc[0]),
            prompts=ordered["prompt_id"].to_numpy(dtype=object),
            without=ordered["without"].to_numpy(),
        )
        found[str(key[0]), str(key[1])] = (one, float(rows["noise"].iloc[0]))
    return found
