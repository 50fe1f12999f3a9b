"""The downstream tables for people: files with their twins, the paper's own beside.

Numbers come from `downstream.tables`; here they are only shown. Files are those of every report's
tables (`formats`), in two decimals where people read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from diagnostics.downstream.records import BASE, FULL, arm_words
from diagnostics.downstream.results import read_results
from diagnostics.downstream.tables import downstream_tables
from diagnostics.errors import InputError
from diagnostics.files import write_json, write_text
from diagnostics.paper.tables import paper_table
from diagnostics.report.chapters import Sheet
from diagnostics.report.formats import DEFAULT_FORMATS, Format, write_sheet
from diagnostics.report.views import Shown, View
from diagnostics.report.write import json_rows

SCORES = (
    "Scores in per cent: mean ± standard deviation over evaluation seeds of one checkpoint (ddof "
    "1, none for one seed). Average: mean of the benchmarks' means; – where the arm lacks one."
)
VIEWS: dict[str, tuple[str, str]] = {
    "table03": (
        "Table 3: downstream results at one budget",
        f"{SCORES} base: before training; full: every position trained on.",
    ),
    "table04": ("Table 4: budget sweep", SCORES),
    "table11": ("Table 11: averages over the budget sweep", "Table 4's averages, per cent."),
    "table12": ("Table 12: selectors at one budget", SCORES),
    "table13": (
        "Table 13: categories, less the base",
        "Mean score of each category less that of the untrained student of the same setting, "
        "percentage points, ± sqrt(sd² + sd_base²) over evaluation seeds.",
    ),
}
TWO_RUNS = (  # of the paper's tables that print deviations
    "Its cells fit the ddof 0 deviation of two runs, not of five seeds (docs/paper-tables.md)."
)


def run_downstream(
    results: Path,
    out: Path,
    *,
    budget: float = 0.1,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> dict[str, pd.DataFrame]:
    """Reads a list of results and writes its tables to `out`; gives them back by name.

    `budget` is that of Tables 3 and 12, `formats` of all. Raises InputError for anything in
    the list or its folders that is missing, unreadable, ambiguous or NaN.
    """
    return write_downstream(read_results(results), out, budget=budget, formats=formats)


def write_downstream(
    records: pd.DataFrame,
    out: Path,
    *,
    budget: float = 0.1,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> dict[str, pd.DataFrame]:
    """Writes `tables/tableNN` in every format, and `downstream.json`, of checked records.

    Raises InputError for a budget that no arm has, where arms have budgets.
    """
    _check_budget(records, budget)
    tables = downstream_tables(records, budget=budget)
    for name, table in tables.items():
        _write_table(out / "tables" / name, sheet_of(name, table), formats)
    write_text(out / "records.csv", records.to_csv(index=False))
    metrics = records.drop_duplicates("benchmark").set_index("benchmark")["metric"]
    write_json(
        out / "downstream.json",
        {
            "budget": budget,
            "ddof": 1,
            "metrics": metrics.to_dict(),
            "tables": {name: json_rows(table) for name, table in tables.items()},
            "paper": {name: json_rows(paper_table(name)) for name in tables},
        },
    )
    return tables


def _check_budget(records: pd.DataFrame, budget: float) -> None:
    """Refuses a budget of Tables 3 and 12 that would leave them without selectors."""
    swept = records.loc[~records["selector"].isin([BASE, FULL]), "budget"]
    if len(swept) and budget not in set(swept):
        raise InputError(
            where="--budget",
            expected=f"a budget of the results: {', '.join(f'{b:g}' for b in sorted(set(swept)))}",
            got=f"{budget:g}",
            fix="choose the one of Tables 3 and 12",
        )


def _write_table(place: Path, sheet: Sheet, formats: Sequence[Format]) -> None:
    """Writes a table; people are shown Table 11 with one column a selector, as printed."""
    for_people = _by_selector(sheet) if sheet.name == "table11" else sheet
    for one in formats:
        write_sheet(place, for_people if one in ("md", "tex") else sheet, "", (one,))


def sheet_of(name: str, table: pd.DataFrame) -> Sheet:
    """A table with the paper's own beside."""
    title, caption = VIEWS[name]
    paper = paper_table(name)
    return Sheet(
        name=name,
        frame=table,
        view=View(title, caption, _columns(table)),
        note=_missing(table),
        paper=paper,
        paper_columns=_columns(paper),
        paper_note=TWO_RUNS if any(str(c).endswith("_sd") for c in paper) else "",
    )


def _by_selector(sheet: Sheet) -> Sheet:
    assert sheet.paper is not None
    ours, theirs = by_selector(sheet.frame), by_selector(sheet.paper)
    view = replace(sheet.view, columns=_columns(ours))
    return replace(sheet, frame=ours, view=view, paper=theirs, paper_columns=_columns(theirs))


def with_views(tables: Mapping[str, pd.DataFrame]) -> dict[str, tuple[pd.DataFrame, View]]:
    """Tables with how they are shown in another report."""
    return {name: (table, View(*VIEWS[name], _columns(table))) for name, table in tables.items()}


def by_selector(table: pd.DataFrame) -> pd.DataFrame:
    """Averages with one row a setting and budget, and one column a selector, in their order."""
    selectors = list(dict.fromkeys(table["selector"]))
    wide = table.pivot(index=["setting", "budget"], columns="selector", values="average")
    order = pd.MultiIndex.from_frame(table[["setting", "budget"]].drop_duplicates())
    return wide.loc[order, selectors].reset_index()


def _columns(table: pd.DataFrame) -> tuple[Shown, ...]:
    """Arm, average, then mean ± sd a benchmark; all else of Table 11 is a selector's average."""
    arm = [
        Shown("setting", "setting", "text"),
        Shown("budget", "budget", "share"),
        Shown("selector", "selector", "text"),
        Shown("average", "average", "points"),
    ]
    kept = [c for c in arm if c.column in table]
    benchmarks = [str(c)[: -len("_mean")] for c in table if str(c).endswith("_mean")]
    if "selector" not in table:
        kept += [Shown(str(c), str(c), "points") for c in table if c not in ("setting", "budget")]
    return (*kept, *(Shown(name, name, "spread") for name in benchmarks))


def _missing(table: pd.DataFrame) -> str:
    """What arms lack, in a sentence; empty where nothing is missing."""
    rows = table[table["missing"] != ""].to_dict("records")
    said = [f"{arm_words(row)}: {row['missing']}" for row in rows]
    return f"No average, because these are missing: {'; '.join(said)}." if said else ""
