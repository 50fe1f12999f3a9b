"""Which of a task's metrics is its main one, which tasks are asked for, and units.

Evaluation programs write several metrics a task. The user may name one; else the first of
`PREFERRED` that is there is taken, under the first of `FILTERS` where a metric was computed under
several. The choice is kept in the records, and all arms must have the same. A task without any of
them is refused unless it has one metric alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from diagnostics.errors import InputError

# Exactness first; IFEval's strict prompts as both programs and its paper put first.
PREFERRED = (
    "exact_match",
    "acc",
    "mean_acc",
    "AverageAccuracy",
    "pass@1",
    "mean_pass@1",
    "pass_at_1",
    "AveragePass@1",
    "prompt_level_strict_acc",
    "prompt_level_strict",
    "mean_prompt_level_strict",
)
FILTERS = ("none", "strict-match")

Unit = Literal["fraction", "percent"]
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A task that is asked for.

    Fields: `task` its name in the output; `benchmark` its name in our tables; `metric` the user's
    choice, None for the main one.
    """

    task: str
    benchmark: str
    metric: str | None = None


def parse_wanted(text: str) -> tuple[Wanted, ...]:
    """`[NAME=]TASK[:METRIC]`, separated by spaces: `math_500=minerva_math500:math_verify,none`.

    Empty text asks for every task. Raises InputError for a part without a task.
    """
    return tuple(_parse(part) for part in text.split())


def _parse(part: str) -> Wanted:
    name, equals, rest = part.rpartition("=")
    task, colon, metric = rest.partition(":")
    if not task or (equals and not name) or (colon and not metric):
        raise InputError(
            where="tasks",
            expected="[NAME=]TASK[:METRIC], separated by spaces",
            got=repr(part),
            fix="write for instance math_500=minerva_math500:exact_match",
        )
    return Wanted(task=task, benchmark=name or task, metric=metric or None)


def main_metric(names: Mapping[str, Any], wanted: str | None, where: str) -> str:
    """The key of `names` to take; keys are metrics or `metric,filter`.

    Raises InputError, naming them all, when the wanted one is absent or none stands out.
    """
    for metric in (wanted,) if wanted else PREFERRED:
        if metric in names:
            return str(metric)
        keys = [key for key in names if key.partition(",")[0] == metric]
        if len(keys) == 1:
            return keys[0]
        for filtered in FILTERS:
            if f"{metric},{filtered}" in keys:
                return f"{metric},{filtered}"
        if keys:
            raise _unclear(keys, f"one filter of {metric}", where)
    if wanted or len(names) != 1:
        raise _unclear([*names], f"the metric {wanted}" if wanted else "a main metric", where)
    return next(iter(names))


def percent(value: object, unit: Unit, where: str, what: str) -> float:
    """A score in per cent. Raises InputError for what is no number of that unit, NaN included."""
    most = 1.0 if unit == "fraction" else 100.0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or math.isnan(value) or not 0 <= value <= most:  # type: ignore[arg-type,operator]
        raise InputError(
            where=where,
            expected=f"{what} as a {unit}, 0 to {most:g}",
            got=repr(value),
            fix="evaluate it again, or state the unit: fraction or percent",
        )
    return float(value) * 100 / most  # type: ignore[arg-type]


def _unclear(names: list[str], what: str, where: str) -> InputError:
    return InputError(
        where=where,
        expected=what,
        got=", ".join(names) or "none",
        fix="name one in `tasks`, as TASK:METRIC",
    )
