"""What other studies than the pilot would give: rollouts a prompt by positions a rollout.

One row each, from the components of the pilot as it is or cut. Rows with as many rollouts a prompt
as the pilot are its own variance, whatever its components. Not covered: rollouts longer than the
pilot's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.components import Components, half_width, prompts_needed
from diagnostics.statistics.analyses.headlines import Headline
from diagnostics.statistics.analyses.pilot import Pilot
from diagnostics.statistics.inference.estimators import estimate
from diagnostics.statistics.tables.values import Outcome

QUARTERS = 4
ONE_ROLLOUT = (
    "one rollout a prompt: variance between prompts and between rollouts of one cannot be told "
    "apart, so more rollouts have bounds alone"
)
NEEDED = ("prompts_low", "prompts", "total_positions")
COLUMNS = (
    "rollouts",
    "positions",
    "estimate",
    "correlation",
    "half_width",
    *NEEDED,
    "reason",
)


def lengths(positions: Sequence[int] | None, longest: int) -> list[int]:
    """Positions of the longest rollout, ascending, the pilot's `longest` last; by default quarters.

    Raises InputError for less than 1 or more than the pilot's.
    """
    if positions is None:
        return sorted({ceil(longest * part / QUARTERS) for part in range(1, QUARTERS + 1)})
    for length in positions:
        if not 1 <= length <= longest:
            raise InputError(
                where="design of a study",
                expected=f"positions from 1 to {longest}, those of the pilot's longest rollout",
                got=f"{length}",
                fix="leave it out, or score a pilot of longer rollouts",
            )
    return sorted({*positions, longest})


def require_rollouts(rollouts: Sequence[int]) -> None:
    """Refuses a number of rollouts a prompt below 1."""
    for count in rollouts:
        if count < 1:
            raise InputError(
                where="design of a study",
                expected="1 rollout a prompt or more",
                got=f"{count}",
                fix="leave it out",
            )


def alternatives(
    name: Headline,
    cuts: Sequence[Pilot],
    rollouts: Sequence[int],
    wanted: float = np.nan,
    outcome: Outcome = "gain",
) -> pd.DataFrame:
    """Rows for a number at each length of `cuts` and each of `rollouts` and the pilot's own.

    Columns: `rollouts` a prompt; `positions` of the longest rollout; `estimate` the number there;
    `correlation` of two rollouts of one prompt; `half_width` of a 95 % interval with the pilot's
    prompts (at most); `prompts_low` and `prompts`, at least and surely enough for the half-width
    `wanted`; `total_positions` of those prompts; `reason` why there is no number, or why
    bounds alone.
    """
    rows = [row for cut in cuts for row in _rows(name, cut, rollouts, wanted, outcome)]
    return pd.DataFrame(rows)[list(COLUMNS)].astype(dict.fromkeys(("positions", *NEEDED), "Int64"))


def _rows(
    name: Headline, cut: Pilot, rollouts: Sequence[int], wanted: float, outcome: Outcome
) -> Iterator[dict[str, Any]]:
    """The rows of one length."""
    found, value, reason = None, float("nan"), ""
    try:
        value = float(estimate(cut.number(name, outcome))[0])
        found = cut.components(name, outcome)
    except InputError as error:
        reason = str(error)
    own = cut.rollouts.count / cut.shared.clusters.count
    for count in sorted({own, *map(float, rollouts)}):
        row = {"rollouts": count, "positions": cut.length, "estimate": value, "reason": reason}
        yield row | _row(found, count, wanted, len(cut.frame) / cut.rollouts.count)


def _row(found: Components | None, rollouts: float, wanted: float, length: float) -> dict[str, Any]:
    """Widths and counts with so many rollouts a prompt, of `length` positions in the mean."""
    nothing = dict.fromkeys(NEEDED, pd.NA)
    if found is None:
        return {"correlation": np.nan, "half_width": np.nan} | nothing
    low, high = found.variance(rollouts)
    row: dict[str, Any] = {"correlation": found.correlation}
    row |= {"half_width": half_width(high, found.prompts)}
    if low != high:
        row["reason"] = ONE_ROLLOUT
    if not (wanted == wanted and high > 0):
        return row | nothing
    enough = prompts_needed(high, wanted)
    counts = prompts_needed(low, wanted), enough, ceil(enough * rollouts * length)
    return row | dict(zip(NEEDED, counts, strict=True))
