"""How wide an interval will be: variance between prompts and between their rollouts.

A number moves, to first order, by the sum of its rollouts' influences (`estimators.influence`).
Times how many rollouts there are, these are values whose mean is the number, so with G prompts of
m rollouts its variance is (between + within / m) / G, and its 95 % interval reaches t(G - 1) times
the root of that to either side. `between` and `within` are the analysis of variance of a pilot
with unequal groups (Searle, Casella and McCulloch 1992, chapter 3). Positions need no component of
their own: along a rollout they are correlated in ways that a model would get wrong, so what
shorter rollouts give is measured by cutting the pilot's (`pilot`).

Influences are too small where prompts have leverage, since the fit bends to them, and the
jackknife's changes too large by about as much; the variance is taken as the geometric mean of both.

Axes: `prompts`, `rollouts`. Not covered: other tests than the sign of a number, power.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.inference.bootstrap import LEVEL
from diagnostics.statistics.inference.estimators import Floats
from diagnostics.statistics.inference.robust import RobustError


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Variance of a number, as a pilot's prompts give it.

    Fields: `prompts` of the pilot; `rollouts`, mean of a prompt; `as_pilot` variance times prompts,
    for prompts with as many rollouts as the pilot's; `between` prompts and `within` prompts between
    rollouts, both NaN where every prompt has one rollout; `correlation` of two rollouts of one
    prompt, between / (between + within), never below 0; `error` relative standard error of a
    half-width that is made of these.
    """

    prompts: int
    rollouts: float
    as_pilot: float
    between: float
    within: float
    correlation: float
    error: float

    def variance(self, rollouts: float) -> tuple[float, float]:
        """Variance times prompts with `rollouts` a prompt, in number^2: its lower, upper bound.

        They are the same number, save for more rollouts than the one that each of the pilot's
        prompts has: then all the variance may lie within prompts, or all between them.
        """
        if rollouts == self.rollouts:
            return self.as_pilot, self.as_pilot
        if self.within != self.within:
            return self.as_pilot / rollouts, self.as_pilot
        known = self.between + self.within / rollouts
        return known, known


def components(
    effects: Floats, prompt: NDArray[np.int64], jackknife: float | None = None
) -> Components:
    """Components of a number from the influence (rollouts,) of each rollout, `prompt` its owner.

    Prompts are numbered from 0 and all have rollouts. `jackknife` is the number's variance by that,
    over prompts; without it, all is that of the influences. Raises InputError for fewer than two
    prompts.
    """
    sizes = np.bincount(prompt).astype(np.float64)
    count, total = len(sizes), len(effects)
    require_prompts(count)
    sums = np.bincount(prompt, effects).astype(np.float64)
    linear = float(count**2 / (count - 1) * (sums**2).sum())
    factor = sqrt(jackknife * count / linear) if jackknife and linear > 0 else 1.0
    between, within = _between_within(effects * total, prompt, sizes)
    whole = between + within
    return Components(
        prompts=count,
        rollouts=total / count,
        as_pilot=(within * count / total if between == 0 else linear) * factor,
        between=between * factor,
        within=within * factor,
        correlation=between / whole if whole > 0 else float("nan"),
        error=_relative_error(sums**2),
    )


def require_prompts(count: int) -> None:
    """Refuses a pilot of fewer than two prompts."""
    if count < 2:
        raise InputError(
            where="design of a study",
            expected="a pilot of two prompts or more",
            got=f"{count}",
            fix="build a bank of more prompts; 30 or more say how wide intervals are",
        )


def _between_within(
    values: Floats, prompt: NDArray[np.int64], sizes: Floats
) -> tuple[float, float]:
    """Both components; NaN where no prompt has two rollouts.

    Mean squares within prompts (MSW) and between them (MSB, of prompt means weighted by rollouts):
    within = MSW, between = (MSB - MSW) / n0, n0 = (R - sum of sizes^2 / R) / (G - 1). Where that is
    below 0, between is 0 and within is both sums of squares over all degrees of freedom: chance,
    taken as rollouts that have nothing in common.
    """
    total, count = len(values), len(sizes)
    if total == count:
        return float("nan"), float("nan")
    means = np.bincount(prompt, values) / sizes
    inside = float(((values - means[prompt]) ** 2).sum())
    outside = float((sizes * (means - values.mean()) ** 2).sum())
    within = inside / (total - count)
    typical = (total - (sizes**2).sum() / total) / (count - 1)
    between = float((outside / (count - 1) - within) / typical)
    return (between, within) if between > 0 else (0.0, (inside + outside) / (total - 1))


def _relative_error(squared: Floats) -> float:
    """Of the root of a mean of squares (prompts,), to first order, whatever their tails; NaN at 0.

    Half of the relative error of the mean itself.
    """
    mean = squared.mean()
    if not mean > 0:
        return float("nan")
    return float(squared.std(ddof=1) / mean / sqrt(len(squared)) / 2)


def half_width(variance: float, prompts: int) -> float:
    """How far a 95 % t interval reaches to either side, for a variance times prompts."""
    return RobustError(error=sqrt(variance / prompts), degrees=prompts - 1).half_width()


def prompts_needed(variance: float, wanted: float) -> int:
    """Fewest prompts, 2 or more, whose `half_width` is at most `wanted`, which is above 0."""
    normal = NormalDist().inv_cdf((1 + LEVEL) / 2)
    count = max(2, ceil(normal**2 * variance / wanted**2))  # t asks for a few more
    while half_width(variance, count) > wanted:
        count += 1
    return count
