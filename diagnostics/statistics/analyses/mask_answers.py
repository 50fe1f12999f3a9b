"""Plain questions to trained masks: the best at a budget, the best budget, how far seeds differ.

A mask that leads among several leads partly by chance, so its differences to the others come in
bands that hold together in 95 % of samples (`bootstrap.bands`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diagnostics.statistics.analyses.choices import ranked
from diagnostics.statistics.analyses.interventions import Mask, Number, Rescored
from diagnostics.statistics.analyses.mask_effects import (
    Versus,
    compared,
    deviation,
    references,
    versus_estimator,
)
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, bands, interval
from diagnostics.statistics.inference.estimators import estimate
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.selection.selectors import Selector

Q3_MASKS: tuple[Selector, ...] = ("q3+high-dl", "q3+low-dl", "q3+high-di")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Leader(Result):
    """The mask with the largest number among some.

    Fields: `mask`; `value` its number with its interval; `others` against which it was set, in
    descending order of their number, each difference's interval a band over all of them.
    """

    mask: Mask
    value: Interval
    others: tuple[Versus, ...]

    def against(self, second: Mask) -> Versus | None:
        """The comparison with a mask."""
        return next((one for one in self.others if one.second == second), None)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SeedSpread(Result):
    """How far seeds of one mask differ, beside how far masks do, in nats of mean gain.

    Fields: `within` pooled deviation over seeds; `between` deviation over masks of their means;
    `prompts` median half-width of the prompt interval; `masks` with at least two seeds.
    """

    within: float
    between: float
    prompts: float
    masks: int


def leader(
    rescored: Rescored,
    masks: Sequence[Mask],
    bootstrap: Bootstrap = DEFAULT,
    *,
    beside: Sequence[Mask] = (),
    number: Number = "gain",
) -> Leader:
    """The mask with the largest number, set against the others and against those `beside` it,
    which do not compete. Equal numbers: the first given."""
    sizes = {m: _value(rescored, number, m) for m in (*masks, *beside)}
    best, others = ranked(sizes, masks)
    apart = [versus_estimator(rescored, best, other, number) for other in others]
    found = bands(apart, bootstrap) if apart else []
    return Leader(
        mask=best,
        value=interval(rescored.number(number, best), bootstrap),
        others=tuple(
            compared(rescored, best, other, number, value)
            for other, value in zip(others, found, strict=True)
        ),
    )


def leader_at(rescored: Rescored, budget: float, bootstrap: Bootstrap = DEFAULT) -> Leader:
    """The mask with the largest gain at a budget, `random` among those that compete, beside
    `full`."""
    masks = [m for m in rescored.masks if m[1] == budget and m[0] != "full"]
    full = references(rescored, masks[0]).get("full")
    return leader(rescored, masks, bootstrap, beside=[] if full is None else [full])


def peak(
    rescored: Rescored,
    selector: Selector,
    bootstrap: Bootstrap = DEFAULT,
    *,
    number: Number = "gain",
) -> Leader:
    """The budget with the largest number of a selector, set against its other budgets."""
    masks = [m for m in rescored.masks if m[0] == selector]
    return leader(rescored, masks, bootstrap, number=number)


def budgets_to_compare(rescored: Rescored) -> list[float]:
    """Budgets at which at least two masks were trained, ascending; `full` has none."""
    asked = [m[1] for m in rescored.masks if m[0] != "full"]
    return sorted({budget for budget in asked if asked.count(budget) > 1})


def swept(rescored: Rescored) -> list[Selector]:
    """Selectors that were trained at several budgets, most budgets first."""
    names = [m[0] for m in rescored.masks]
    return sorted(
        (n for n in dict.fromkeys(names) if names.count(n) > 1), key=lambda n: -names.count(n)
    )


def seed_spread(rescored: Rescored, bootstrap: Bootstrap = DEFAULT) -> SeedSpread:
    """How far seeds differ. NaN where no mask has two, or there are not two masks."""
    values = {m: list(rescored.by_seed("gain", m).values()) for m in rescored.masks}
    several = [v for v in values.values() if len(v) > 1]
    degrees = sum(len(v) - 1 for v in several)
    squares = sum((len(v) - 1) * deviation(v) ** 2 for v in several)
    widths = [
        (one.high - one.low) / 2
        for one in (interval(rescored.number("gain", m), bootstrap) for m in values)
    ]
    return SeedSpread(
        within=float(np.sqrt(squares / degrees)) if degrees else float("nan"),
        between=deviation([float(np.mean(v)) for v in values.values()]),
        prompts=float(np.median(widths)),
        masks=len(several),
    )


def _value(rescored: Rescored, number: Number, mask: Mask) -> float:
    return float(estimate(rescored.number(number, mask))[0])
