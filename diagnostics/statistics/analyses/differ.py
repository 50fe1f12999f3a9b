"""What each departure from the set `paper` does to the headline numbers of a run.

One row a headline and a set: `paper`; each departure of `released` alone; what belongs to neither
set, alone (a plain sort, C-hat, and the leakage switch for H, for C and for both); `released`; and
`released` with leakage. All rows of a checkpoint are made of the same draws, so the difference to
`paper` is paired; it is given where the outcome has the same unit. A departure that cannot touch a
number leaves it exactly equal, and the row says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.headlines import Headline, headline
from diagnostics.statistics.inference.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    difference,
    interval,
)
from diagnostics.statistics.inference.estimators import Estimator
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.tables.columns import TOKEN_COLUMNS
from diagnostics.statistics.tables.definitions import PAPER, RELEASED, Definitions, state
from diagnostics.statistics.tables.measured import (
    After,
    Start,
    choose,
    measure_after,
    measure_start,
)
from diagnostics.statistics.tables.opened import OpenedRun
from diagnostics.statistics.tables.tokens import (
    derived,
    require_checkpoints,
    require_gain,
    require_signals,
)

HEADLINE_NAMES: tuple[Headline, ...] = get_args(Headline)
Same = Literal["yes", "no", "other unit", ""]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Departure(Result):
    """One headline number under one set.

    Fields: `run`, `checkpoint`, `top_k`; `headline` (`statistics.headlines`); `definitions` the
    set's name; `outcome`: nats for `gain`, no unit for `gain_rel`; `value` with its interval;
    `change` the value less that under `paper`, paired, nats, NaN where the unit is another;
    `same` whether all that goes into it equals what goes into that under `paper`, to the last bit,
    empty where one of them is missing; `reason` why a number or an interval is missing.
    """

    run: str
    checkpoint: str
    top_k: int
    headline: Headline
    definitions: str
    outcome: str
    value: Interval
    change: Interval
    same: Same
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DefinitionsDiffer:
    """The table `definitions_differ`. Fields: `rows` by checkpoint, headline and set."""

    rows: tuple[Departure, ...]

    def to_frame(self) -> pd.DataFrame:
        """One line a row; value and change with the ends of their intervals beside them."""
        return pd.concat([row.to_frame() for row in self.rows], ignore_index=True)

    def __repr__(self) -> str:
        shown = ["checkpoint", "headline", "definitions", "value", "change", "same"]
        lines = [[str(getattr(row, name)) for name in shown] for row in self.rows]
        table: str = pd.DataFrame(lines, columns=shown).to_string(index=False)
        return f"DefinitionsDiffer\n{table}"


def departures() -> tuple[Definitions, ...]:
    """The sets that are compared, `paper` first."""
    ours, theirs = asdict(PAPER), asdict(RELEASED)
    alone: list[dict[str, Any]] = [{k: v} for k, v in theirs.items() if v != ours[k]]
    alone += [{"ties": "row_order"}, {"compatibility": "lower"}]
    alone += [{"entropy_from": "checkpoint"}, {"compatibility_from": "checkpoint"}]
    changed = (replace(PAPER, **change) for change in alone)
    return (PAPER, *changed, PAPER.leaking(), RELEASED, RELEASED.leaking())


def definitions_differ(
    run: Run | OpenedRun,
    k: int,
    bootstrap: Bootstrap = DEFAULT,
    checkpoints: Sequence[str] | None = None,
    *,
    start: Start | None = None,
) -> DefinitionsDiffer:
    """Headline numbers of each checkpoint at support size `k`, under each of `departures`.

    `start` may hold what was measured of the run already. A number that a set cannot give (a
    constant predictor, no Q3) is NaN with its reason. Raises InputError for a teacher known by its
    lists alone, and as `token_table` does.
    """
    if isinstance(run, OpenedRun):
        checkpoints, run = checkpoints or run.checkpoints, run.run
    names = require_checkpoints(run, checkpoints)
    require_gain(run)
    start = (start or measure_start(run, k, run.contexts())).at(k)
    rows: list[Departure] = []
    for name in names:
        after = measure_after(run, k, name, start, own=True)
        place = {"run": run.name, "checkpoint": name, "top_k": k}
        made = [_numbers(_frame(start, after, d), d) for d in departures()]
        for headline_name in HEADLINE_NAMES:
            rows += _rows(place, headline_name, made, bootstrap)
    return DefinitionsDiffer(rows=tuple(rows))


def _frame(start: Start, after: After, definitions: Definitions) -> pd.DataFrame:
    raw = choose(start, after, definitions)
    require_signals(raw)
    raw |= derived(raw, definitions.epsilon)
    return state(pd.DataFrame({c.name: raw[c.name] for c in TOKEN_COLUMNS}), definitions)


def _numbers(
    frame: pd.DataFrame, definitions: Definitions
) -> dict[Headline, Estimator | InputError]:
    """Each headline number of a set's token table, or why there is none."""
    found: dict[Headline, Estimator | InputError] = {}
    for name in HEADLINE_NAMES:
        try:
            found[name] = headline(frame, name, definitions.outcome)
        except InputError as error:
            found[name] = error
    return found


def _rows(
    place: dict[str, Any],
    name: Headline,
    made: Sequence[dict[Headline, Estimator | InputError]],
    bootstrap: Bootstrap,
) -> Iterator[Departure]:
    """One headline under each set, beside `paper`, the first."""
    paper = made[0][name]
    for definitions, numbers in zip(departures(), made, strict=True):
        number = numbers[name]
        value = _missing(number) or interval(_known(number), bootstrap)
        change, same = _against(paper, number, definitions, bootstrap)
        yield Departure(
            **place,
            headline=name,
            definitions=definitions.name,
            outcome=definitions.outcome,
            value=value,
            change=change,
            same=same,
            reason=value.reason or change.reason,
        )


def _against(
    paper: Estimator | InputError,
    number: Estimator | InputError,
    definitions: Definitions,
    bootstrap: Bootstrap,
) -> tuple[Interval, Same]:
    """The number less that under `paper`, and whether they are the same."""
    if definitions.outcome != PAPER.outcome:
        return Interval(np.nan, np.nan, np.nan, "no unit, where `paper` has nats"), "other unit"
    missing = _missing(number) or _missing(paper)
    if missing:
        return missing, ""
    ours, theirs = _known(paper), _known(number)
    same: Same = "yes" if np.array_equal(ours.sums, theirs.sums) else "no"
    return difference(theirs, ours, bootstrap), same


def _missing(number: Estimator | InputError) -> Interval | None:
    if isinstance(number, InputError):
        return Interval(np.nan, np.nan, np.nan, str(number))
    return None


def _known(number: Estimator | InputError) -> Estimator:
    assert not isinstance(number, InputError)
    return number
