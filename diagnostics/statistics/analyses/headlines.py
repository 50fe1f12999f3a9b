"""The few numbers that a report's answers rest on, each as an estimator of one number.

    gain      mean gain over the bank
    beta      beta_L - beta_I over the bank (Table 9)
    beta_q3   the same inside Q3
    gap       high- less low-support gain inside Q3, at the tertiles of C (Table 1)
    matched   the same over matched pairs (Table 1)
    budget    gain of the top 5 % by D^L less that by KL, D~ (Table 8)

Whatever asks about "each headline statistic" (intervals of several kinds, designs, coverage,
definition sets) takes them from here; `number_of` takes a function of a table in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.budgets import kept_means, selections
from diagnostics.statistics.analyses.gaps import (
    Pairs,
    Split,
    in_q3,
    matched_pairs,
    outcomes,
    support_split,
)
from diagnostics.statistics.analyses.regression import decomposition_estimator
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.estimators import Difference, Estimator
from diagnostics.statistics.tables.definitions import PAPER, require_one_set
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.values import Outcome

Headline = Literal["gain", "beta", "beta_q3", "gap", "matched", "budget"]
Number: TypeAlias = Headline | Callable[[pd.DataFrame], Estimator]
BUDGET = 0.05
PROXY = "compatibility"

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shared:
    """What all checkpoints of one bank share at one K, since it knows no gain; made when needed.

    Fields: `frame` the token table of any of them.
    """

    frame: pd.DataFrame

    @cached_property
    def clusters(self) -> Clusters:
        """The prompts."""
        return prompt_clusters(self.frame)

    @cached_property
    def split(self) -> Split:
        """Q3 at the tertiles of C."""
        return support_split(self.frame, PROXY)

    @cached_property
    def pairs(self) -> Pairs:
        """Matched pairs of Q3 by C."""
        return matched_pairs(self.frame, PROXY, self.clusters)

    @cached_property
    def kept(self) -> tuple[Mask, Mask]:
        """The top 5 % by D^L and by D~, (pos,) each."""
        by_dl, by_kl = selections(self.frame, ("teachability", "kl"), (BUDGET,)).values()
        return by_dl.mask, by_kl.mask


@on_table
def headline(
    frame: pd.DataFrame,
    name: Headline,
    outcome: Outcome = "gain",
    shared: Shared | None = None,
    units: Clusters | None = None,
) -> Estimator:
    """A headline number of one checkpoint's token table.

    `shared` may hold what was made of another checkpoint of the same bank and K. `units` whose sums
    the estimator holds, by default the prompts: a study's design asks for rollouts and positions;
    an interval never does. Raises InputError where the table cannot give the number (no Q3, a
    constant predictor, NaN), for an unknown name, and for a `shared` of another definition set.
    """
    if name not in HEADLINES:
        raise InputError(
            where="headline number",
            expected=f"one of {', '.join(HEADLINES)}, or a function of a table",
            got=repr(name),
            fix="choose one of them",
        )
    if shared is not None:
        require_one_set((frame, shared.frame), f"headline number {name}", PAPER)
    shared = shared or Shared(frame)
    return HEADLINES[name](frame, outcome, shared, units or shared.clusters)


def number_of(
    frame: pd.DataFrame, number: Number, outcome: Outcome, shared: Shared | None = None
) -> Estimator:
    """A headline number, or what a function makes of the table, as an estimator of one number.

    A function knows its own outcome. Raises InputError for several numbers, or sums that are not
    those of the table's prompts.
    """
    if not callable(number):
        return headline(frame, number, outcome, shared)
    made = number(frame)
    wanted = (1, prompt_clusters(frame).count)
    found = (len(made.names), len(made.sums))
    if found != wanted:
        raise InputError(
            where=f"function {name_of(number)}",
            expected=f"one number from sums of {wanted[1]} prompts",
            got=f"{found[0]} from sums of {found[1]}",
            fix="return one estimator over `prompt_clusters` of the table it is given",
        )
    return made


def name_of(number: Number) -> str:
    """A headline's name, or a function's."""
    return getattr(number, "__name__", "function") if callable(number) else number


def _gain(frame: pd.DataFrame, outcome: Outcome, shared: Shared, units: Clusters) -> Estimator:
    return kept_means(frame, np.ones(len(frame), dtype=bool), outcome, units)


def _beta(frame: pd.DataFrame, outcome: Outcome, shared: Shared, units: Clusters) -> Estimator:
    return _beta_gap(frame, outcome, units, np.ones(len(frame), dtype=bool))


def _beta_q3(frame: pd.DataFrame, outcome: Outcome, shared: Shared, units: Clusters) -> Estimator:
    return _beta_gap(frame, outcome, units, in_q3(frame))


def _beta_gap(frame: pd.DataFrame, outcome: Outcome, units: Clusters, rows: Mask) -> Estimator:
    whole = decomposition_estimator(frame, rows=rows, outcome=outcome, clusters=units)
    return replace(whole, contrasts=tuple(c for c in whole.contrasts if c.name == "gap"))


def _gap(frame: pd.DataFrame, outcome: Outcome, shared: Shared, units: Clusters) -> Estimator:
    split = shared.split
    return split.gap(units, outcomes(frame, outcome, split.rows))


def _matched(frame: pd.DataFrame, outcome: Outcome, shared: Shared, units: Clusters) -> Estimator:
    return shared.pairs.difference(units, outcomes(frame, outcome, in_q3(frame)))


def _budget(frame: pd.DataFrame, outcome: Outcome, shared: Shared, units: Clusters) -> Estimator:
    by_dl, by_kl = (kept_means(frame, mask, outcome, units) for mask in shared.kept)
    return Difference(by_dl, by_kl)


HEADLINES: dict[Headline, Callable[[pd.DataFrame, Outcome, Shared, Clusters], Estimator]] = {
    "gain": _gain,
    "beta": _beta,
    "beta_q3": _beta_q3,
    "gap": _gap,
    "matched": _matched,
    "budget": _budget,
}
