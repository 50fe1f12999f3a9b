"""The paper's 13 tables (arXiv 2605.26844v1, CC BY 4.0), for comparison beside ours.

One CSV a table in `data/`, transcribed cell by cell with the digits as printed, under our columns
and units: budgets and shares are fractions (its percentages with the point moved), Table 9's R^2
(units of 1e-3) likewise, selectors and proxies have our names, `base` is the untrained student and
`full` its "Pure OPD". Rows are of other models and banks: compare signs and order, not sizes.

Names that differ on purpose:

- Tables 2, 7 and 10 print a high-C less low-C contrast under the name of gain (DEFINITIONS,
  section 7); the column is `contrast` here.
- Table 2 states keep and Q3 share once a selector; they stand with its 3 % row. What it leaves out
  is empty.
- Table 11 is in rows, one a selector. Table 12 has the setting that its caption states, which is
  not the one that its rows are of (`arithmetic`). Table 13 states no setting.

Not covered: figures, and numbers that stand in the text alone.
"""

from __future__ import annotations

from importlib.resources import files
from io import StringIO

import pandas as pd

from diagnostics.errors import InputError

PAPER_TABLES: tuple[str, ...] = tuple(f"table{number:02d}" for number in range(1, 14))


def paper_table(which: int | str) -> pd.DataFrame:
    """The paper's table of a number (3) or of our name (`table03`); an empty cell is NaN.

    Raises InputError for a table that the paper does not have.
    """
    return pd.read_csv(_text(which))


def printed_table(which: int | str) -> pd.DataFrame:
    """The same cells as text, so that 0.10 keeps its digits; an empty cell is "".

    Raises InputError for a table that the paper does not have.
    """
    return pd.read_csv(_text(which), dtype=str, keep_default_na=False)


def table_name(which: int | str) -> str:
    """Our name of a table: 3 and `table03` give `table03`. Raises InputError for an unknown one."""
    name = f"table{which:02d}" if isinstance(which, int) else which
    if name not in PAPER_TABLES:
        raise InputError(
            where="paper_table",
            expected="a table of the paper, 1 to 13 or table01 to table13",
            got=repr(which),
            fix="choose one of them",
        )
    return name


def _text(which: int | str) -> StringIO:
    path = files("diagnostics.paper") / "data" / f"{table_name(which)}.csv"
    return StringIO(path.read_text(encoding="utf-8"))
