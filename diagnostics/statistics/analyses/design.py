"""Design of a study: from a pilot, how many prompts, rollouts and positions an interval asks for.

For each headline number, the influence of every rollout of the pilot gives its variance between
prompts and between rollouts of one (`components`), and so the half-width that any number of prompts
and rollouts can expect. Shorter rollouts are the pilot's own, cut (`pilot`), so serial correlation
and what is special about early positions are measured, not assumed. Longer ones are not covered:
nothing measured says how positions go on. How near the widths come: docs/design.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.alternatives import (
    ONE_ROLLOUT,
    alternatives,
    lengths,
    require_rollouts,
)
from diagnostics.statistics.analyses.components import (
    Components,
    half_width,
    prompts_needed,
    require_prompts,
)
from diagnostics.statistics.analyses.headlines import HEADLINES, Headline
from diagnostics.statistics.analyses.pilot import Pilot, pilot_of
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, interval
from diagnostics.statistics.inference.estimators import Floats
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.tables.definitions import PAPER, definitions_of
from diagnostics.statistics.tables.sources import Source
from diagnostics.statistics.tables.values import Outcome

RELATIVE = 0.5
ROLLOUTS = (1, 2, 4, 8)

UNCLEAR = "0 lies in the pilot's interval, so a share of the number is no goal; ask for a width"
NO_SPREAD = "no spread between prompts"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NumberDesign(Result):
    """What one headline number asks of a study; numbers and widths in its unit.

    Fields: `statistic`; `estimate` of the pilot with its bootstrap interval; `half_width` that a
    study of the pilot's size expects; `error` of that, relative, one standard error (a count of
    prompts has twice that); `wanted` half-width, NaN where none can be said; `prompts_needed` for
    it with rollouts like the pilot's, None where not known; `correlation` of two rollouts of one
    prompt, NaN where not known; `design_effect`, the variance over that of as many independent
    positions; `reason` what is missing and why; `table` of other studies (`alternatives`).
    """

    statistic: Headline
    estimate: Interval
    half_width: float
    error: float
    wanted: float
    prompts_needed: int | None
    correlation: float
    design_effect: float
    reason: str
    table: pd.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Design(Result):
    """The designs of a pilot's numbers.

    Fields: `checkpoint`, empty where the table does not say; `definitions`, its set; `outcome`,
    nats for `gain`; `prompts`; `rollouts`, mean of a prompt; `positions` of the longest rollout;
    `total_positions`; `numbers`; `reason` why more rollouts have bounds alone, else empty.
    """

    checkpoint: str
    definitions: str
    outcome: Outcome
    prompts: int
    rollouts: float
    positions: int
    total_positions: int
    reason: str
    numbers: tuple[NumberDesign, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a number, without the tables of alternatives."""
        rows = pd.concat([number.to_frame() for number in self.numbers], ignore_index=True)
        return rows.astype({"prompts_needed": "Int64"})

    def alternatives(self) -> pd.DataFrame:
        """The tables of all numbers below each other, with what holds for each number."""
        whole = pd.concat([_labelled(number) for number in self.numbers], ignore_index=True)
        whole.insert(0, "checkpoint", self.checkpoint)
        return whole


def plan(
    source: Source | Run,
    *,
    checkpoint: str | None = None,
    k: int = 16,
    statistics: Sequence[str] = tuple(HEADLINES),
    width: float | None = None,
    relative: float | None = None,
    rollouts: Sequence[int] = ROLLOUTS,
    positions: Sequence[int] | None = None,
    outcome: Outcome = "gain",
    bootstrap: Bootstrap = DEFAULT,
) -> Design:
    """How large a study should be, from a pilot: a run, or a token table of it.

    A 95 % interval is wanted to reach `width` to either side, in the number's unit, or `relative`
    (0.5) times the number, which needs one whose sign the pilot knows. `rollouts` a prompt and
    `positions` of the longest rollout (by default quarters of the pilot's) are the alternatives;
    `k` is the support size of a run's table (an opened run has its own). A number that the pilot
    cannot give has a reason. Raises InputError for fewer than two prompts, several checkpoints of
    which none is named, an unknown statistic, both kinds of width or one not above 0, positions
    beyond the pilot's.
    """
    _require_wish(width, relative)
    require_rollouts(rollouts)
    names = check_statistics(statistics)
    pilot, name = pilot_of(source, checkpoint, k)
    prompts = pilot.shared.clusters.count
    require_prompts(prompts)
    cuts = [pilot.cut(length) for length in lengths(positions, pilot.length)]
    numbers = []
    for statistic in names:
        start = _start(statistic, pilot, outcome, bootstrap)
        wanted = _wanted(start.estimate, width, RELATIVE if relative is None else relative)
        table = alternatives(statistic, cuts, rollouts, wanted, outcome)
        numbers.append(_number(statistic, start, wanted, table))
    return Design(
        checkpoint=name,
        definitions=definitions_of(pilot.frame, PAPER).name,
        outcome=outcome,
        prompts=prompts,
        rollouts=pilot.rollouts.count / prompts,
        positions=pilot.length,
        total_positions=len(pilot.frame),
        reason=ONE_ROLLOUT if pilot.rollouts.count == prompts else "",
        numbers=tuple(numbers),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What the pilot says of a number: `estimate`, its `components` (None with the estimate's
    reason where it has no number), and its `design_effect`."""

    estimate: Interval
    components: Components | None = None
    design_effect: float = float("nan")


def _start(name: Headline, pilot: Pilot, outcome: Outcome, bootstrap: Bootstrap) -> _Start:
    try:
        estimate = interval(pilot.number(name, outcome), bootstrap)
        found = pilot.components(name, outcome)
        alone = pilot.position_effects(name, outcome)
    except InputError as error:
        return _Start(estimate=Interval(np.nan, np.nan, np.nan, str(error)))
    effect = _design_effect(found, alone)
    return _Start(estimate=estimate, components=found, design_effect=effect)


def _design_effect(found: Components, alone: Floats) -> float:
    """Variance of the number over that of as many independent positions; NaN without spread."""
    count = len(alone)
    independent = count / (count - 1) * float((alone**2).sum())
    return found.as_pilot / found.prompts / independent if independent > 0 else float("nan")


def _wanted(estimate: Interval, width: float | None, relative: float) -> float:
    """The wanted half-width; NaN for a share of a number whose sign is unclear."""
    if width is not None:
        return width
    clear = estimate.verdict() != "unclear"
    return relative * abs(estimate.estimate) if clear else float("nan")


def _number(name: Headline, start: _Start, wanted: float, table: pd.DataFrame) -> NumberDesign:
    found, nan = start.components, float("nan")
    known = found is not None and found.as_pilot > 0 and wanted == wanted
    return NumberDesign(
        statistic=name,
        estimate=start.estimate,
        half_width=half_width(found.as_pilot, found.prompts) if found else nan,
        error=found.error if found else nan,
        wanted=wanted,
        prompts_needed=prompts_needed(found.as_pilot, wanted) if found and known else None,
        correlation=found.correlation if found else nan,
        design_effect=start.design_effect,
        reason=_reason(start, wanted),
        table=table,
    )


def _reason(start: _Start, wanted: float) -> str:
    """What is missing and why; empty where nothing is."""
    if start.estimate.reason or start.components is None:
        return start.estimate.reason
    if not start.components.as_pilot > 0:
        return NO_SPREAD
    return UNCLEAR if wanted != wanted else ""


def _labelled(number: NumberDesign) -> pd.DataFrame:
    """A number's table with its name, wanted half-width, design effect and error."""
    reasons = [own or number.reason for own in number.table["reason"]]
    table = number.table.assign(
        reason=reasons,
        wanted=number.wanted,
        design_effect=number.design_effect,
        error=number.error,
    )
    table.insert(0, "statistic", number.statistic)
    return table


def check_statistics(names: Sequence[str]) -> tuple[Headline, ...]:
    """Headline numbers by name. Raises InputError for an unknown one, or none."""
    unknown = [name for name in names if name not in HEADLINES]
    if unknown or not names:
        expected = f"headline numbers among {', '.join(HEADLINES)}"
        raise _refused("--statistic", expected, ", ".join(unknown) or "none")
    return tuple(known for name in names for known in HEADLINES if known == name)


def _require_wish(width: float | None, relative: float | None) -> None:
    """Refuses both kinds of width, and one that is not above 0."""
    if width is not None and relative is not None:
        raise _refused("--width", "a width or a relative one", f"{width:g} and {relative:g}")
    for name, value in (("--width", width), ("--relative", relative)):
        if value is not None and not 0 < value < np.inf:
            raise _refused(name, "a number above 0", f"{value:g}")


def _refused(where: str, expected: str, got: str) -> InputError:
    return InputError(where=where, expected=expected, got=got, fix="choose one of them")
