"""The chapter of downstream results: accuracies beside the paper's own.

Numbers come from `downstream.tables`; here they are only shown, in two decimals, the paper's table
beside. The paper's are of other models: compare order, not sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from diagnostics.downstream.records import BASE, FULL, arm_words
from diagnostics.downstream.results import read_results
from diagnostics.downstream.tables import downstream_tables
from diagnostics.errors import InputError
from diagnostics.paper.tables import paper_table
from diagnostics.report.chapters import Chapter, Sheet
from diagnostics.report.tables.views import Shown, View, percent

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


def read_downstream(results: Path, *, budget: float = 0.1) -> tuple[pd.DataFrame, Chapter]:
    """The records of a list of results, and their chapter; `budget` is that of Tables 3 and 12.

    Raises InputError for anything in the list or its folders that is missing, unreadable,
    ambiguous or NaN.
    """
    records = read_results(results)
    return records, downstream_chapter(records, budget=budget)


def downstream_chapter(records: pd.DataFrame, *, budget: float = 0.1) -> Chapter:
    """What checked records say. Raises InputError for a budget that no arm has, where arms have
    budgets."""
    _check_budget(records, budget)
    metrics = records.drop_duplicates("benchmark").set_index("benchmark")["metric"]
    return Chapter(
        key="downstream",
        heading="What did training do to answers?",
        opening=(
            f"{len(records):,} results over {records['benchmark'].nunique()} benchmarks; Tables 3 "
            f"and 12 at {percent(budget)} of positions."
        ),
        explained=SCORES,
        settings={"downstream_budget": budget, "ddof": 1},
        sheets=tuple(downstream_sheets(downstream_tables(records, budget=budget))),
        making={"metrics": metrics.to_dict()},
    )


def downstream_sheets(tables: Mapping[str, pd.DataFrame]) -> Iterator[Sheet]:
    """Tables 3, 4, 11, 12 and 13 as sheets, the paper's beside."""
    for name, table in tables.items():
        title, caption = VIEWS[name]
        paper = paper_table(name)
        yield Sheet(
            name=name,
            frame=table,
            view=View(title, caption, _columns(name, table)),
            note=_missing(table),
            paper=paper,
            paper_columns=_columns(name, paper),
            paper_note=TWO_RUNS if any(str(c).endswith("_sd") for c in paper) else "",
        )


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


def _columns(name: str, table: pd.DataFrame) -> tuple[Shown, ...]:
    """Arm, average, then mean ± sd a benchmark; Table 11 has averages alone."""
    arm = [
        Shown("setting", "setting", "text"),
        Shown("budget", "budget", "share"),
        Shown("selector", "selector", "text"),
        Shown("average", "average", "points"),
    ]
    kept = [c for c in arm if c.column in table]
    benchmarks = [str(c)[: -len("_mean")] for c in table if str(c).endswith("_mean")]
    if name == "table11":
        benchmarks = []
    return (*kept, *(Shown(name, name, "spread") for name in benchmarks))


def _missing(table: pd.DataFrame) -> str:
    """What arms lack, in a sentence; empty where nothing is missing."""
    rows = table[table["missing"] != ""].to_dict("records")
    said = [f"{arm_words(row)}: {row['missing']}" for row in rows]
    return f"No average, because these are missing: {'; '.join(said)}." if said else ""
