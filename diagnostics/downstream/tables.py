"""Tables 3, 4, 11, 12 and 13 of the paper from records (CONTRACT, "Table columns").

Per arm and benchmark: mean and standard deviation over evaluation seeds of one checkpoint, in per
cent, with ddof 1: sqrt(sum (x - mean)^2 / (s - 1)). The paper does not say which it prints; its
cells fit ddof 0 over two runs (`docs/paper-tables.md`). One seed has no deviation. The deviation is
of the evaluation alone: another training run is not in it.

The average is the mean of the benchmarks' means, all alike whatever their size, over the benchmarks
that any arm of the table has. An arm that lacks one has no average, and `missing` names what it
lacks. `seeds` is the smallest number of seeds of a benchmark of the row.

Not covered: intervals and tests between arms; the problems themselves are a sample too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from diagnostics.downstream.records import BASE, FULL

ARM = ["setting", "budget", "selector"]
MAIN = (BASE, FULL, "entropy", "tip", "teachability", "teachability+entropy")  # Table 3's


def downstream_tables(records: pd.DataFrame, *, budget: float = 0.1) -> dict[str, pd.DataFrame]:
    """Every table that the records have rows for, by our names; `budget` of Tables 3 and 12."""
    tables = {
        "table03": main_results(records, budget=budget),
        "table04": budget_sweep(records),
        "table11": macro_averages(records),
        "table12": selector_ablation(records, budget=budget),
        "table13": category_deltas(records),
    }
    return {name: table for name, table in tables.items() if len(table)}


def main_results(records: pd.DataFrame, *, budget: float = 0.1) -> pd.DataFrame:
    """Table 3: base, full and the paper's four selectors at one budget."""
    table = _wide(summary(_whole(records)))
    unbudgeted = table["selector"].isin([BASE, FULL])
    return _kept(table, (unbudgeted | (table["budget"] == budget)) & table["selector"].isin(MAIN))


def budget_sweep(records: pd.DataFrame) -> pd.DataFrame:
    """Table 4: every selector at every budget."""
    table = _wide(summary(_whole(records)))
    return _kept(table, ~table["selector"].isin([BASE, FULL]))


def macro_averages(records: pd.DataFrame) -> pd.DataFrame:
    """Table 11: Table 4 by its averages; the benchmarks' columns follow, as in Table 4."""
    return budget_sweep(records)


def selector_ablation(records: pd.DataFrame, *, budget: float = 0.1) -> pd.DataFrame:
    """Table 12: every selector at one budget."""
    table = budget_sweep(records)
    return _kept(table, table["budget"] == budget)


def category_deltas(records: pd.DataFrame) -> pd.DataFrame:
    """Table 13: each category's mean less the base's of the same setting, percentage points.

    `…_sd` is sqrt(sd^2 + sd_base^2), as the two evaluations draw apart. Without a base in the
    setting the row is empty and `missing` says `base`.
    """
    parts = records[records["category"] != ""]
    single = parts["benchmark"].nunique() == 1
    named = parts["category"] if single else parts["benchmark"] + "/" + parts["category"]
    found = summary(parts.assign(benchmark=named))
    base = found[found["selector"] == BASE].set_index(["setting", "benchmark"])
    arms = found[found["selector"] != BASE]
    beside = base.reindex(pd.MultiIndex.from_frame(arms[["setting", "benchmark"]]))
    less = arms.assign(
        mean=arms["mean"].to_numpy() - beside["mean"].to_numpy(),
        sd=np.sqrt(arms["sd"].to_numpy() ** 2 + beside["sd"].to_numpy() ** 2),
    )
    table = _wide(less)
    alone = ~table["setting"].isin(base.index.get_level_values("setting"))
    return table.assign(missing=table["missing"].mask(alone, BASE))


def summary(records: pd.DataFrame) -> pd.DataFrame:
    """One row an arm and benchmark: `mean`, `sd` (ddof 1, NaN for one seed), `seeds`; in order."""
    groups = records.groupby([*ARM, "benchmark"], sort=False, dropna=False)["value"]
    return groups.agg(mean="mean", sd="std", seeds="count").reset_index()


def _wide(found: pd.DataFrame) -> pd.DataFrame:
    """Contract's columns: arm, `average`, then mean and sd a benchmark, `seeds` and `missing`."""
    benchmarks = list(dict.fromkeys(found["benchmark"]))
    rows = []
    for arm, part in found.groupby(ARM, sort=False, dropna=False):
        by_name = part.set_index("benchmark").reindex(benchmarks)
        means, deviations = by_name["mean"], by_name["sd"]
        missing = [name for name in benchmarks if np.isnan(means[name])]
        row: dict[str, object] = dict(zip(ARM, arm, strict=True))
        row["average"] = np.nan if missing else float(means.mean())
        for name in benchmarks:
            row[f"{name}_mean"] = means[name]
            row[f"{name}_sd"] = deviations[name]
        rows.append(row | {"seeds": int(part["seeds"].min()), "missing": ", ".join(missing)})
    columns = [*ARM, "average", *(f"{b}_{part}" for b in benchmarks for part in ("mean", "sd"))]
    return _ordered(pd.DataFrame(rows, columns=[*columns, "seeds", "missing"]))


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Settings and selectors as they came; base, full, then budgets from small to large."""
    first = {name: place for place, name in enumerate(dict.fromkeys(table["setting"]))}
    unbudgeted = table["selector"].map({BASE: -2.0, FULL: -1.0})
    keys = pd.DataFrame(
        {"setting": table["setting"].map(first), "budget": unbudgeted.fillna(table["budget"])}
    )
    return table.loc[keys.sort_values(["setting", "budget"], kind="stable").index].reset_index(
        drop=True
    )


def _whole(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["category"] == ""]


def _kept(table: pd.DataFrame, mask: pd.Series) -> pd.DataFrame:
    return table[mask].reset_index(drop=True)
