"""Four processes that banks are drawn from, easy to hard, for the study of coverage.

All are those of `synthetic.py`; `skewed` and `placebo` change what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from synthetic import synthetic_bank

from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.tables.tokens import derived

ROLLOUTS, POSITIONS = 2, 48  # means, of a prompt and of a rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A process: `about` it, `options` of `synthetic_bank`, `change` of what that gives, and the
    numbers whose truth is 0 by construction."""

    about: str
    options: Mapping[str, Any]
    change: Callable[[np.random.Generator, pd.DataFrame], pd.DataFrame] | None = None
    zero: frozenset[str] = field(default_factory=frozenset)

    def draw(self, rng: np.random.Generator, prompts: int) -> pd.DataFrame:
        """A bank of that many prompts."""
        frame = synthetic_bank(rng, prompts, ROLLOUTS, POSITIONS, **self.options)
        return self.change(rng, frame) if self.change else frame


def skewed(rng: np.random.Generator, frame: pd.DataFrame) -> pd.DataFrame:
    """Log-normal differences between prompts (skewness 6) in the gain per nat of D C."""
    clusters = prompt_clusters(frame)
    factor = np.exp(rng.normal(size=clusters.count)) - np.exp(0.5)  # deviation 2.16
    inside = frame["disagreement"] * frame["compatibility"]
    return frame.assign(gain=frame["gain"] + 0.1 * factor[clusters.of_row] * inside)


def exchanged(rng: np.random.Generator, frame: pd.DataFrame) -> pd.DataFrame:
    """C of every rollout, by the toss of a coin, becomes 1 - C: D^L and D^I change places."""
    codes, names = pd.factorize(frame["context_id"])
    heads = rng.integers(0, 2, len(names))[codes].astype(bool)
    c = frame["compatibility"]
    changed = frame.assign(compatibility=c.where(~heads, 1 - c))
    return changed.assign(**derived(changed))


HEAVY = {"tail_df": 3.0, "unequal": True}
BANKS = {
    "normal": Bank(about="normal effects, equal prompts", options={}),
    "heavy": Bank(about="t with 3 degrees of freedom, unequal prompts", options=HEAVY),
    "skewed": Bank(
        about="log-normal effects of prompts, t3 noise, unequal prompts",
        options=HEAVY,
        change=skewed,
    ),
    "placebo": Bank(
        about="D^L and D^I exchangeable within prompts, t3, unequal prompts",
        options={**HEAVY, "effect_l": 0.25, "effect_i": 0.25},
        change=exchanged,
        zero=frozenset({"beta", "beta_q3", "gap"}),
    ),
}
