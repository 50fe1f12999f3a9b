"""What differs between two runs or reports: each number of both, paired where the bank is one.

Over one bank a prompt is left out of both at one time, and so it is where two banks share prompts;
else the two are samples apart. Intervals are t with the jackknife's error, as the answers of a
report have. Not covered: tests over more than two, and numbers that no report leaves behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.report.comparison.estimates import numbers_of
from diagnostics.report.comparison.sides import MEASURED, Side
from diagnostics.report.noise import Row
from diagnostics.statistics.inference.bootstrap import Interval
from diagnostics.statistics.inference.left_out import (
    IDENTICAL,
    LeftOut,
    apart_difference,
    own_interval,
    paired_difference,
)
from diagnostics.statistics.inference.results import spread

Pairing = Literal["bank", "prompts", "no"]
Pair = tuple[str, str]
Numbers = Mapping[tuple[str, str], tuple[LeftOut, float]]

PAIRED: dict[Pairing, str] = {
    "bank": "paired: one bank",
    "prompts": "paired over the prompts that both banks have",
    "no": "not paired: banks without a common prompt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides, number by number.

    Fields: `first`, `second`; `numbers` one row a checkpoint pair, number and outcome; `budgets`
    the same for what selectors keep; `settings` one row each that differs.
    """

    first: Side
    second: Side
    numbers: pd.DataFrame
    budgets: pd.DataFrame
    settings: pd.DataFrame


def compare_sides(
    first: Side, second: Side, *, runs: Sequence[str] = (), checkpoints: Sequence[str] = ()
) -> Comparison:
    """first - second of every number.

    `runs` and `checkpoints` say which go together, `A=B` each; without, those of one name, and the
    only ones of both. Raises InputError where none do.
    """
    rows: list[Row] = []
    for pair in _together(list(first.runs), list(second.runs), runs, "run"):
        own = first.checkpoints(pair[0]), second.checkpoints(pair[1])
        for names in _together(*own, checkpoints, "checkpoint"):
            rows += list(_rows(first, second, pair, names))
    frame = pd.DataFrame(rows)
    by_selector = frame["number"].str.contains("@", regex=False)
    return Comparison(
        first=first,
        second=second,
        numbers=frame[~by_selector].reset_index(drop=True),
        budgets=_budgets(frame[by_selector]),
        settings=settings_differ(first, second),
    )


def _together(
    first: Sequence[str], second: Sequence[str], asked: Sequence[str], what: str
) -> list[Pair]:
    """Which names go together."""
    if asked:
        return [_asked(one, first, second, what) for one in asked]
    common = [(name, name) for name in first if name in second]
    if common:
        return common
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    raise InputError(
        where="compare",
        expected=f"a {what} that both have",
        got=f"{', '.join(first)} and {', '.join(second)}",
        fix=f"say which go together with --{what} {first[0]}={second[0]}",
    )


def _asked(given: str, first: Sequence[str], second: Sequence[str], what: str) -> Pair:
    """The pair of `A=B`; names may hold `=` themselves."""
    for one in first:
        if given.startswith(f"{one}=") and given.removeprefix(f"{one}=") in second:
            return one, given.removeprefix(f"{one}=")
    raise InputError(
        where=f"--{what}",
        expected=f"A=B with A of {', '.join(first)} and B of {', '.join(second)}",
        got=repr(given),
        fix="choose one of each",
    )


def _rows(first: Side, second: Side, runs: Pair, checkpoints: Pair) -> Iterator[Row]:
    """One row a number and outcome that both checkpoints have, then those that one lacks."""
    one, two = (
        numbers_of(side.rows(run, checkpoint))
        for side, run, checkpoint in zip((first, second), runs, checkpoints, strict=True)
    )
    same_bank = first.bank(runs[0]) == second.bank(runs[1])
    key: Row = {"run": _both(runs), "checkpoint": _both(checkpoints), "top_k": first.top_k}
    for number, outcome in dict.fromkeys([*one, *two]):
        named = key | {"number": number, "outcome": outcome}
        if (number, outcome) in one and (number, outcome) in two:
            yield named | _values(one[number, outcome], two[number, outcome], same_bank)
        else:
            yield named | _lacking(one, two, (number, outcome))


def _both(names: Pair) -> str:
    return names[0] if names[0] == names[1] else f"{names[0]} − {names[1]}"


def _values(one: tuple[LeftOut, float], two: tuple[LeftOut, float], same_bank: bool) -> Row:
    pairing = pairing_of(one[0], two[0], same_bank)
    made = apart_difference if pairing == "no" else paired_difference
    found = made(one[0], two[0])
    noise = one[1] + two[1]
    return {
        **spread("first", own_interval(one[0])),
        **spread("second", own_interval(two[0])),
        **spread("difference", found),
        "difference_noise": noise,
        "verdict": verdict(found, noise),
        "paired": pairing,
        "n_prompts": len(np.union1d(one[0].prompts, two[0].prompts)),
        "reason": found.reason,
    }


def _lacking(one: Numbers, two: Numbers, key: tuple[str, str]) -> Row:
    """The row of a number that only one has."""
    nothing = Interval(np.nan, np.nan, np.nan)
    values = [own_interval(side[key][0]) if key in side else nothing for side in (one, two)]
    which = "first" if key not in one else "second"
    return {
        **spread("first", values[0]),
        **spread("second", values[1]),
        **spread("difference", nothing),
        "difference_noise": np.nan,
        "verdict": "unclear",
        "paired": "no",
        "n_prompts": 0,
        "reason": f"the {which} has no such number",
    }


def pairing_of(one: LeftOut, two: LeftOut, same_bank: bool) -> Pairing:
    """How two numbers are set side by side."""
    if same_bank:
        return "bank"
    return "prompts" if len(np.intersect1d(one.prompts, two.prompts)) else "no"


def verdict(found: Interval, noise: float) -> str:
    """`yes` where the first is clearly larger, `no` smaller, `identical`, else `unclear`.

    `noise` is how far from 0 both come where nothing changed, NaN where it was not measured.
    """
    return IDENTICAL if found.reason == IDENTICAL else found.verdict(noise)


def _budgets(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of selectors with selector and budget apart."""
    parts = rows["number"].str.rsplit("@", n=1)
    at = list(rows.columns).index("number")
    made = rows.drop(columns="number")
    made.insert(at, "selector", parts.str[0])
    made.insert(at + 1, "budget", parts.str[1].astype(float))
    return made.reset_index(drop=True)


def settings_differ(first: Side, second: Side) -> pd.DataFrame:
    """Each setting, model, digest and version that differs, one row each; "" where one has none."""
    both = [name for name in first.settings if name in second.settings]
    one, two = (dict(_flat(_settings(side, both))) for side in (first, second))
    names = [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name)]
    rows = [{"setting": n, "first": one.get(n, ""), "second": two.get(n, "")} for n in names]
    return pd.DataFrame(rows, columns=["setting", "first", "second"])


def _settings(side: Side, names: Sequence[str]) -> dict[str, Any]:
    """A side's settings of some names and its runs' records; an only run's without its name."""
    runs = {
        name: {key: value for key, value in run.items() if key not in MEASURED}
        for name, run in side.runs.items()
    }
    own = {name: side.settings[name] for name in names}
    return own | (runs if len(runs) > 1 else next(iter(runs.values())))


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value as text) of nested settings."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(inner)
