"""The downstream tables for people: files with their twins, the paper's own beside.

Numbers come from `downstream.tables`; here they are only shown. Each table is a CSV at full
precision and a Markdown and a LaTeX twin in two decimals, which hold the paper's table below ours;
that one is a CSV too (`…_paper.csv`). The paper's are of other models: compare order, not sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from diagnostics.downstream.records import BASE, FULL, arm_words
from diagnostics.downstream.results import read_results
from diagnostics.downstream.tables import downstream_tables
from diagnostics.errors import InputError
from diagnostics.files import write_json, write_text
from diagnostics.paper.tables import paper_table
from diagnostics.report.views import Shown, View, cells, latex, markdown
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
PAPER_NOTE = "The paper's (arXiv 2605.26844v1): of other models, so compare order, not sizes."
TWO_RUNS = (  # of the tables that print deviations
    f"{PAPER_NOTE} Its cells fit the ddof 0 deviation of two runs, not of five seeds "
    "(docs/paper-tables.md)."
)


def run_downstream(results: Path, out: Path, *, budget: float = 0.1) -> dict[str, pd.DataFrame]:
    """Reads a list of results and writes its tables to `out`; gives them back by name.

    `budget` is that of Tables 3 and 12. Raises InputError for anything in the list or its folders
    that is missing, unreadable, ambiguous or NaN.
    """
    return write_downstream(read_results(results), out, budget=budget)


def write_downstream(
    records: pd.DataFrame, out: Path, *, budget: float = 0.1
) -> dict[str, pd.DataFrame]:
    """Writes `tables/tableNN.csv`, `.md` and `.tex`, and `downstream.json`, of checked records.

    Raises InputError for a budget that no arm has, where arms have budgets.
    """
    _check_budget(records, budget)
    tables = downstream_tables(records, budget=budget)
    for name, table in tables.items():
        _write_table(out / "tables", name, table)
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


def _write_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    paper = paper_table(name)
    write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_text(folder / f"{name}_paper.csv", paper.to_csv(index=False))
    title, caption = VIEWS[name]
    note = TWO_RUNS if any(str(c).endswith("_sd") for c in paper) else PAPER_NOTE
    for suffix, form in (("md", markdown), ("tex", latex)):
        ours = form(*shown(name, table, title, caption), note=_missing(table))
        theirs = form(*shown(name, paper, f"{title}, the paper's", note))
        write_text(folder / f"{name}.{suffix}", f"{ours}\n{theirs}")


def shown(name: str, table: pd.DataFrame, title: str, caption: str) -> tuple[pd.DataFrame, View]:
    """A table's text cells and its view; Table 11 with one column a selector, as printed."""
    if name == "table11":
        table = by_selector(table)
    view = View(title, caption, _columns(table))
    return cells(table, view.columns), view


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
