"""The files of a table: CSV and Parquet at full precision, Markdown and LaTeX as people read it.

One declaration of each format, `WRITERS`; `--format` chooses among them. The paper's own table
stands below ours in Markdown and LaTeX, and alone in the folder `paper` as CSV and Parquet.
Not covered: the page (`page`), and LaTeX's letters and layout (`tex`).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa

from diagnostics.errors import InputError, one_of
from diagnostics.files import write_parquet, write_text
from diagnostics.report.chapters import Sheet
from diagnostics.report.tables.columns import meaning
from diagnostics.report.tables.tex import latex
from diagnostics.report.tables.views import View, cells
from diagnostics.schema import VERSION_KEY

Format = Literal["csv", "md", "tex", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "md", "tex", "parquet")
DEFAULT_FORMATS: tuple[Format, ...] = ("csv", "md", "tex")
SCHEMA_VERSION = 1


def check_formats(words: Sequence[str] | None, where: str = "--format") -> tuple[Format, ...]:
    """The formats of words, each one or several with commas between; once each, in our order.

    None asks for the default ones. Raises InputError for an unknown word, or an empty list.
    """
    if words is None:
        return DEFAULT_FORMATS
    split = [word.strip() for text in words for word in text.split(",") if word.strip()]
    found = {one_of(word, FORMATS, where) for word in split}
    if not found:
        raise InputError(
            where=where,
            expected=f"one or more of {', '.join(FORMATS)}",
            got="none",
            fix="leave the option out for csv, md and tex",
        )
    return tuple(one for one in FORMATS if one in found)


def write_sheet(
    place: Path,
    sheet: Sheet,
    definitions: str,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> None:
    """Writes a table in some formats; `place` is their path without a suffix.

    `definitions` is the set that made its numbers, empty where none did, as of benchmarks' scores.
    """
    for one in formats:
        WRITERS[one](place.with_name(f"{place.name}.{one}"), sheet, definitions)


def named(frame: pd.DataFrame, definitions: str) -> pd.DataFrame:
    """A table whose last column names the definition set that made each number, if one did."""
    known = "definitions" in frame or not definitions
    return frame if known else frame.assign(definitions=definitions)


def said_under(sheet: Sheet, definitions: str) -> str:
    """What stands under a table."""
    made = f"Definitions: {definitions}." if definitions else ""
    return " ".join(filter(None, (sheet.note, made)))


def papers(sheet: Sheet) -> Sheet | None:
    """The paper's own table as a sheet of its own, None where there is none."""
    if sheet.paper is None:
        return None
    caption = f"{PAPER_CAPTION} {sheet.paper_note}".strip()
    return Sheet(
        name=f"{sheet.name}-paper",
        frame=sheet.paper,
        view=View(f"{sheet.view.title}, the paper's", caption, sheet.paper_columns),
    )


PAPER_CAPTION = (
    "The paper's own (arXiv 2605.26844v1), of other models and contexts: compare order and signs, "
    "not sizes."
)


def _write_csv(path: Path, sheet: Sheet, definitions: str) -> None:
    write_text(path, named(sheet.frame, definitions).to_csv(index=False))
    if sheet.paper is not None:
        write_text(_beside(path), sheet.paper.to_csv(index=False))


def _write_md(path: Path, sheet: Sheet, definitions: str) -> None:
    theirs = papers(sheet)
    below = "" if theirs is None else f"\n{markdown(theirs)}"
    write_text(path, markdown(sheet, said_under(sheet, definitions)) + below)


def _write_tex(path: Path, sheet: Sheet, definitions: str) -> None:
    theirs = papers(sheet)
    below = "" if theirs is None else f"\n{_tex(theirs, '')}"
    write_text(path, _tex(sheet, said_under(sheet, definitions)) + below)


def _write_parquet(path: Path, sheet: Sheet, definitions: str) -> None:
    write_parquet(path, arrow_table(sheet, definitions))
    if sheet.paper is not None:
        theirs = replace(sheet, frame=sheet.paper, note=PAPER_CAPTION)
        write_parquet(_beside(path), arrow_table(theirs, ""))


def _beside(path: Path) -> Path:
    """The path of the paper's own table."""
    return path.parent / "paper" / path.name


WRITERS: dict[Format, Callable[[Path, Sheet, str], None]] = {
    "csv": _write_csv,
    "md": _write_md,
    "tex": _write_tex,
    "parquet": _write_parquet,
}


def markdown(sheet: Sheet, note: str = "") -> str:
    """A Markdown table of text cells with its title, caption and note."""
    view = sheet.view
    shown = cells(sheet.frame, view.columns)
    lines = [f"### {_md(view.title)}", "", _line(shown.columns), "|" + "---|" * len(shown.columns)]
    lines += map(_line, shown.itertuples(index=False))
    return "\n".join([*lines, "", _md(view.caption), *(["", _md(note)] if note else []), ""])


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_md(text).replace("|", r"\|") for text in texts) + " |"


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no line of its own."""
    return html.escape(" ".join(str(text).split()), quote=False)


def _tex(sheet: Sheet, note: str) -> str:
    view = sheet.view
    shown = cells(sheet.frame, view.columns)
    return latex(shown, view.columns, view, note, sheet.name)


def arrow_table(sheet: Sheet, definitions: str) -> pa.Table:
    """A sheet with its types; schema and columns say in their metadata what they mean."""
    frame = named(sheet.frame, definitions)
    table = pa.table({str(name): _array(frame[name]) for name in frame})
    described = [field.with_metadata(_about(field.name, sheet.name)) for field in table.schema]
    stated = {
        VERSION_KEY.decode(): str(SCHEMA_VERSION),
        "table": sheet.name,
        "title": sheet.view.title,
        "caption": sheet.view.caption,
        "note": sheet.note,
        "definitions": definitions,
    }
    return table.cast(pa.schema(described, metadata=stated))


def _array(column: pd.Series) -> pa.Array:
    """A column with one type; mixed ones, which only texts are, as text."""
    try:
        found = pa.Array.from_pandas(column)
        return found.cast(pa.string()) if pa.types.is_large_string(found.type) else found
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if pd.isna(value) else str(value) for value in column], pa.string())


def _about(column: str, table: str) -> dict[str, str]:
    """What a column means, as far as it is known."""
    known = meaning(column, table)
    return {} if known is None else {"description": known.text, "unit": known.unit}
