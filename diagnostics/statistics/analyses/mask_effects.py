"""Each trained mask's numbers with intervals, and two masks against each other (Tables 2, 7, 10).

From `interventions.Rescored`; that module says what an interval and a deviation over seeds are of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.statistics.analyses.interventions import NUMBERS, Mask, Number, Rescored
from diagnostics.statistics.inference.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    interval,
    joint_intervals,
)
from diagnostics.statistics.inference.estimators import Difference, Estimator
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.statistics.tables.values import Outcome

ONE_SEED = "one seed: no deviation over seeds"
REFERENCES = ("random", "full")
DEVIATIONS: tuple[Number, ...] = ("gain", "contrast", "matched_gap")  # over seeds


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Versus(Result):
    """One mask less another, paired over prompts.

    Fields: `number` that is compared; `difference`, first - second of the numbers averaged over
    seeds, with its interval; `seeds` that both have; `agree` in how many of them the difference has
    the sign of `difference`; `sd` of it over them, NaN for fewer than two.
    """

    first: Mask
    second: Mask
    number: Number
    difference: Interval
    seeds: int
    agree: int
    sd: float

    def verdict(self, noise: float = 0.0) -> str:
        """`yes` (first is larger) or `no` where the interval excludes `noise` and every seed that
        both have agrees, else `unclear`."""
        said = self.difference.verdict(noise)
        return said if self.agree == self.seeds else "unclear"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MaskEffect(Result):
    """What training with one mask did, over its seeds.

    Fields: `seeds` how many; `keep` share of positions that carried loss; `gain` mean over the
    whole bank, nats, positive: toward the teacher; `gain_sd` over seeds, as each `_sd`;
    `gain_per_keep` gain / keep; `on_target` and `off_target` mean gain of the positions that the
    mask's selector keeps on the bank at this budget, and of the others; `contrast` high-C less
    low-C gain inside Q3; `matched_gap` the same over matched pairs; `vs_random`, `vs_full` gain
    less that of `random` at the same budget and of `full`, with the seeds both have and how many
    `agree` in sign; `n_target` positions, `short` whether Q3 had fewer than the budget asks for;
    of them `q3_share`, mean `learnable` D^L, `incompatible` D^I and `compatibility` C;
    `q3_share_trained` of the positions that carried loss, NaN where unknown; `held_out_kl` nats,
    mean; `skipped` batches in all; `note` what the numbers lack.
    """

    selector: Selector
    budget: float
    seeds: int
    keep: float
    gain: Interval
    gain_sd: float
    gain_per_keep: float
    on_target: Interval
    off_target: Interval
    contrast: Interval
    contrast_sd: float
    matched_gap: Interval
    matched_gap_sd: float
    vs_random: Interval
    vs_random_seeds: int
    vs_random_agree: int
    vs_full: Interval
    vs_full_seeds: int
    vs_full_agree: int
    n_target: int
    short: bool
    q3_share: float
    learnable: float
    incompatible: float
    compatibility: float
    q3_share_trained: float
    held_out_kl: float
    skipped: int
    note: str


def mask_effects(
    rescored: Rescored, bootstrap: Bootstrap = DEFAULT, *, outcome: Outcome = "gain"
) -> list[MaskEffect]:
    """Every mask's numbers, in the order they were given; all from the same draws."""
    masks = list(rescored.masks)
    wanted = [(number, mask) for mask in masks for number in NUMBERS]
    made = {place: rescored.number(*place, outcome) for place in wanted}
    apart: dict[tuple[str, Mask], Estimator] = {}
    for mask in masks:
        for name, other in references(rescored, mask).items():
            apart[name, mask] = Difference(made["gain", mask], made["gain", other])
    found = joint_intervals([*made.values(), *apart.values()], bootstrap)
    numbers = dict(zip((*made, *apart), found, strict=True))
    return [_effect(rescored, mask, numbers, outcome) for mask in masks]


def references(rescored: Rescored, mask: Mask) -> dict[str, Mask]:
    """What a mask is set against, by name: `random` at its budget and `full`, where trained."""
    at = {"random": ("random", mask[1]), "full": rescored.full}
    return {
        name: other
        for name, other in at.items()
        if other is not None and other != mask and other in rescored.masks
    }


def versus(
    rescored: Rescored,
    first: Mask,
    second: Mask,
    bootstrap: Bootstrap = DEFAULT,
    *,
    number: Number = "gain",
    outcome: Outcome = "gain",
) -> Versus:
    """A number of `first` less that of `second`, with its interval and the seeds' signs."""
    difference = versus_estimator(rescored, first, second, number, outcome)
    value = interval(difference, bootstrap)
    return compared(rescored, first, second, number, value, outcome)


def compared(
    rescored: Rescored,
    first: Mask,
    second: Mask,
    number: Number,
    value: Interval,
    outcome: Outcome = "gain",
) -> Versus:
    """A difference whose interval is known, with what its seeds say."""
    apart = seed_differences(rescored, first, second, number, outcome)
    return Versus(
        first=first,
        second=second,
        number=number,
        difference=value,
        seeds=len(apart),
        agree=agreeing(apart, value),
        sd=deviation(apart),
    )


def versus_estimator(
    rescored: Rescored, first: Mask, second: Mask, number: Number, outcome: Outcome = "gain"
) -> Difference:
    """The difference of two masks' numbers, each averaged over its seeds."""
    one, other = (rescored.number(number, mask, outcome) for mask in (first, second))
    return Difference(one, other)


def seed_differences(
    rescored: Rescored, first: Mask, second: Mask, number: Number, outcome: Outcome = "gain"
) -> list[float]:
    """First less second of each seed that both have."""
    one, other = (rescored.by_seed(number, mask, outcome) for mask in (first, second))
    return [one[seed] - other[seed] for seed in one if seed in other]


def deviation(values: list[float]) -> float:
    """Standard deviation over seeds (n - 1), NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def agreeing(apart: list[float], value: Interval) -> int:
    """How many differences of seeds have the sign of the difference of means."""
    return int((np.sign(apart) == np.sign(value.estimate)).sum())


def name_of_mask(mask: Mask) -> str:
    """A mask in words: `teachability 5%`."""
    return mask[0] if mask[0] == "full" else f"{mask[0]} {100 * mask[1]:g}%"


def _effect(
    rescored: Rescored, mask: Mask, numbers: dict[Any, Interval], outcome: Outcome
) -> MaskEffect:
    arms = rescored.of(mask)
    keep = float(np.mean([arm.keep for arm in arms]))
    gain = numbers["gain", mask]
    found: dict[str, Any] = {name: numbers[name, mask] for name in NUMBERS}
    for name in DEVIATIONS:
        apart = rescored.by_seed(name, mask, outcome)
        found[f"{name}_sd"] = deviation(list(apart.values()))
    shares = [np.nan if arm.q3_share is None else arm.q3_share for arm in arms]
    return MaskEffect(
        selector=mask[0],
        budget=mask[1],
        seeds=len(arms),
        keep=keep,
        gain_per_keep=gain.estimate / keep if keep else float("nan"),
        q3_share_trained=float(np.mean(shares)),
        held_out_kl=float(np.mean([arm.held_out_kl for arm in arms])),
        skipped=sum(arm.skipped for arm in arms),
        note=ONE_SEED if len(arms) == 1 else "",
        **found,
        **_against(rescored, mask, numbers, outcome),
        **_aim(rescored, mask),
    )


def _against(
    rescored: Rescored, mask: Mask, numbers: dict[Any, Interval], outcome: Outcome
) -> dict[str, Any]:
    """The differences to what a mask is set against; what was not trained has none, and says so."""
    others = references(rescored, mask)
    found: dict[str, Any] = {}
    for name in REFERENCES:
        value, apart = numbers.get((name, mask)), []
        if value is None:
            own = mask[0] == name
            reason = f"this is {name}" if own else f"{name} was not trained at this budget"
            value = Interval(np.nan, np.nan, np.nan, reason)
        else:
            apart = seed_differences(rescored, mask, others[name], "gain", outcome)
        agree = agreeing(apart, value)
        found |= {f"vs_{name}": value, f"vs_{name}_seeds": len(apart), f"vs_{name}_agree": agree}
    return found


def _aim(rescored: Rescored, mask: Mask) -> dict[str, Any]:
    """What the mask's selector keeps on the bank."""
    frame, target = rescored.shared.frame, rescored.targets[mask]
    signals = ("learnable", "incompatible", "compatibility")
    return {
        "n_target": int(target.mask.sum()),
        "short": target.short,
        "q3_share": float((frame["quadrant"].to_numpy() == 3)[target.mask].mean()),
        **{name: float(frame[name].to_numpy()[target.mask].mean()) for name in signals},
    }
