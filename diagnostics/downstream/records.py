"""What an evaluation said, as records: one row a benchmark (or category of one) and seed.

A *score* is what a reader finds in an output folder; an *arm* says which student it is of. Together
they are a row of the records, the frame that every table is made of. Scores are in per cent.

`check_records` refuses what no table may hide: a score twice, a benchmark measured in two metrics
or on two numbers of problems, a value that is no percentage. Not covered: whether two arms were
sampled and prompted alike, which no output folder states in full.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.selection.selectors import SELECTORS

BASE = "base"  # the student before training, beside the selectors' names
FULL = "full"
KEYS = ("setting", "selector", "budget", "benchmark", "category", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Whose scores these are.

    Fields: `setting` teacher and student in words; `selector` a name of DEFINITIONS section 6, or
    `base`; `budget` the share of positions kept: None for `base`, 1 for `full`.
    """

    setting: str
    selector: str
    budget: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number of one evaluation.

    Fields: `benchmark`; `category` of it, "" for the whole; `seed` of the evaluation; `value` per
    cent, higher is better; `total` problems it is over, None where the output does not say;
    `metric` as the output calls it; `source` the file.
    """

    benchmark: str
    category: str = ""
    seed: int
    value: float
    total: int | None
    metric: str
    source: str


COLUMNS = tuple(field.name for kind in (Arm, Score) for field in fields(kind))


def make_arm(setting: str, selector: str, budget: float | None, where: str) -> Arm:
    """An arm from what a user wrote; `base` has no budget and `full` keeps all.

    Raises InputError for an unknown selector, an empty setting, or a budget that is missing,
    outside (0, 1], or other than its selector can have.
    """
    if not setting:
        raise InputError(
            where=where, expected="a setting", got="none", fix="name teacher and student"
        )
    if selector != BASE and selector not in SELECTORS:
        raise InputError(
            where=where,
            expected=f"a selector: one of {', '.join((BASE, *SELECTORS))}",
            got=repr(selector),
            fix="use its name; other differences go into the setting",
        )
    given = budget is not None and not math.isnan(budget)
    if selector == BASE and not given:
        return Arm(setting=setting, selector=selector, budget=None)
    if selector == FULL and (not given or budget == 1):
        return Arm(setting=setting, selector=selector, budget=1.0)
    if selector in (BASE, FULL) or budget is None or not 0 < budget <= 1:
        expected = {BASE: "no budget for `base`", FULL: "budget 1 or none for `full`"}
        raise InputError(
            where=where,
            expected=expected.get(selector, "a budget in (0, 1]"),
            got=repr(budget) if given else "none",
            fix="write 5 % as 0.05",
        )
    return Arm(setting=setting, selector=selector, budget=float(budget))


def to_records(arm: Arm, scores: Iterable[Score]) -> pd.DataFrame:
    """The records of one arm: columns COLUMNS, one row a score, `budget` NaN for the base."""
    rows = [asdict(arm) | asdict(score) for score in scores]
    frame = pd.DataFrame(rows, columns=[*COLUMNS])
    return frame.astype({"budget": "float64", "total": "Int64", "value": "float64"})


def check_records(records: pd.DataFrame) -> pd.DataFrame:
    """The records, refused by name where they contradict each other.

    Raises InputError for no records, a value outside 0 to 100 or NaN, the same score twice, or a
    benchmark with two metrics or two numbers of problems.
    """
    if records.empty:
        raise InputError(
            where="records", expected="at least one score", got="none", fix="name result folders"
        )
    for row in records[~records["value"].between(0, 100)].to_dict("records"):
        raise InputError(
            where=str(row["source"]),
            expected=f"a score of {_name(row)} from 0 to 100 per cent",
            got=str(row["value"]),
            fix="evaluate it again, or state the unit",
        )
    _once(records)
    for column, what in (("metric", "one metric"), ("total", "one number of problems")):
        _alike(records, column, what)
    return records


def _once(records: pd.DataFrame) -> None:
    """Refuses a score that is there twice."""
    again = records[records.duplicated([*KEYS])]
    if again.empty:
        return
    second = again.iloc[0]
    same = [
        (records[key] == second[key]) | (records[key].isna() & pd.isna(second[key])) for key in KEYS
    ]
    first = records[np.logical_and.reduce(same)].iloc[0]
    raise InputError(
        where=str(second["source"]),
        expected=f"one score of {_name(first)} at seed {first['seed']} for {arm_words(first)}",
        got=f"a second one besides {first['source']}",
        fix="keep one of the two, or state their seeds",
    )


def arm_words(row: Mapping[str, Any] | pd.Series) -> str:
    """An arm in words: `4B → 1.7B / tip / 0.1`."""
    budget = "no budget" if pd.isna(row["budget"]) else f"{row['budget']:g}"
    return f"{row['setting']} / {row['selector']} / {budget}"


def _alike(records: pd.DataFrame, column: str, what: str) -> None:
    """Refuses a benchmark whose records differ in a column."""
    for (benchmark, category), rows in records.groupby(["benchmark", "category"], sort=False):
        values = rows.dropna(subset=[column]).drop_duplicates(column)
        if len(values) > 1:
            one, other = values.to_dict("records")[:2]
            raise InputError(
                where=str(other["source"]),
                expected=f"{what} of {_name({'benchmark': benchmark, 'category': category})} in "
                f"every folder, {one[column]} as in {one['source']}",
                got=str(other[column]),
                fix="evaluate all arms alike, or name the metric",
            )


def _name(row: Mapping[str, Any] | pd.Series) -> str:
    return f"{row['benchmark']}/{row['category']}" if row["category"] else str(row["benchmark"])
