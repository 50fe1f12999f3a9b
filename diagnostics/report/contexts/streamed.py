"""Tables of token files of any length: the report's rows, made from a stream.

Columns are those of the report's tables of the same names (`rows`). `run` is the name of the first
file. Not covered: what a report has beside them (noise floor, figures, the page).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from diagnostics.errors import InputError
from diagnostics.report.chapters import Sheet
from diagnostics.report.contexts.captions import VIEWS
from diagnostics.report.contexts.rows import (
    OUTCOMES,
    SCOPES,
    table01_row,
    table05_row,
    table06_row,
    table08_row,
    table09_row,
)
from diagnostics.report.noise import Row
from diagnostics.report.tables.formats import DEFAULT_FORMATS, Format, write_sheet
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap
from diagnostics.statistics.streaming.read import open_tokens
from diagnostics.statistics.streaming.stream import StreamStatistics, stream_statistics
from diagnostics.statistics.streaming.team import Recruit, StreamSettings
from diagnostics.statistics.tables.definitions import PAPER

NAMES = ("table01", "table05", "table06", "table08", "table09")


def token_paths(paths: Sequence[Path]) -> list[Path]:
    """The Parquet files among some paths: files as given, those of a folder by name.

    Raises InputError for a folder without one.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not inside:
            raise InputError(
                where=str(path),
                expected="a folder with Parquet files",
                got="none in it",
                fix="write token tables there with `diagnostics tokens`",
            )
        found += inside
    return found


def write_stream_tables(
    files: Sequence[Path],
    out: Path,
    settings: StreamSettings | None = None,
    bootstrap: Bootstrap = DEFAULT,
    *,
    team: Recruit | None = None,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> dict[str, pd.DataFrame]:
    """Writes the five tables of some token files to `out` and returns them by name.

    Raises InputError as `stream_statistics` does, and for files of several support sizes or sets.
    """
    settings = settings or StreamSettings()
    top_k = _support(files)
    rows: dict[str, list[Row]] = {name: [] for name in NAMES}
    found = stream_statistics(files, settings, bootstrap, team=team)
    for checkpoint, statistics in found.items():
        key = {"run": files[0].stem, "checkpoint": checkpoint}
        for name, row in _rows(key, top_k, statistics, settings):
            rows[name].append(row)
    tables = {name: pd.DataFrame(made) for name, made in rows.items()}
    for name, table in tables.items():
        sheet = Sheet(name=name, frame=table, view=VIEWS[name])
        write_sheet(out / name, sheet, PAPER.name, formats)
    return tables


def _rows(
    key: Row, top_k: int, found: StreamStatistics, settings: StreamSettings
) -> Iterator[tuple[str, Row]]:
    """(table, row) of one checkpoint."""
    outcomes = [outcome for outcome, _ in OUTCOMES]
    first = [found.gaps[settings.proxies[0], outcome] for outcome in outcomes]
    matched = [found.matched[outcome] for outcome in outcomes]
    counts = found.n_contexts, found.n_positions
    yield "table01", table01_row(key, top_k, *counts, first, matched)
    yield "table05", table05_row(key, found.n_contexts, found.n_prompts, found.n_positions)
    for proxy in settings.proxies:
        gaps = [found.gaps[proxy, outcome] for outcome in outcomes]
        yield "table06", table06_row(key, top_k, gaps)
    for selector in settings.selectors:
        for budget in settings.budgets:
            kept = [found.top_n[selector, budget, outcome] for outcome in outcomes]
            yield "table08", table08_row(key, top_k, kept)
    for scope in SCOPES:
        fits = [found.fits[scope, outcome] for outcome in outcomes]
        yield "table09", table09_row(key, top_k, fits)


def _support(files: Sequence[Path]) -> int:
    """The support size that all files state, with one definition set."""
    stated = [_stated(path) for path in files]
    for path, one in zip(files, stated, strict=True):
        if one != stated[0]:
            raise InputError(
                where=str(path),
                expected=f"a token table of the first one's kind, {_words(stated[0])}",
                got=_words(one),
                fix="make a table of each kind on its own",
            )
    return int(stated[0][0])


def _stated(path: Path) -> tuple[str, str]:
    """The support size and the definition set of a file."""
    metadata = open_tokens(path).schema_arrow.metadata
    top_k = metadata.get(b"top_k", b"").decode(errors="replace")
    if not top_k.isdigit():
        raise InputError(
            where=str(path),
            expected="the support size K in the Parquet metadata",
            got=top_k or "none",
            fix="write the table with `diagnostics tokens`",
        )
    return top_k, metadata[b"definitions"].decode()


def _words(stated: tuple[str, str]) -> str:
    return f"K = {stated[0]} and `{stated[1]}`"
