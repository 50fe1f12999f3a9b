"""The few numbers that a report's answers rest on, each as an estimator of one number.

    gain      mean gain over the bank
    beta      beta_L - beta_I over the bank (Table 9)
    beta_q3   the same inside Q3
    gap       high- less low-support gain inside Q3, at the tertiles of C (Table 1)
    matched   the same over matched pairs (Table 1)
    budget    gain of the top 5 % by D^L less that by KL, D~ (Table 8)

Whatever asks about "each headline statistic" (intervals of several kinds, designs, coverage,
definition sets) takes them from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from diagnostics.statistics.budgets import kept_means, selections
from diagnostics.statistics.clusters import prompt_clusters
from diagnostics.statistics.estimators import Difference, Estimator
from diagnostics.statistics.gaps import in_q3, matched_pairs, outcomes, support_split
from diagnostics.statistics.regression import Outcome, decomposition_estimator

Headline = Literal["gain", "beta", "beta_q3", "gap", "matched", "budget"]
BUDGET = 0.05
PROXY = "compatibility"


def headline(frame: pd.DataFrame, name: Headline, outcome: Outcome = "gain") -> Estimator:
    """A headline number of one checkpoint's token table.

    Raises InputError where the table cannot give it (no Q3, a constant predictor, NaN).
    """
    return HEADLINES[name](frame, outcome)


def _gain(frame: pd.DataFrame, outcome: Outcome) -> Estimator:
    return kept_means(frame, np.ones(len(frame), dtype=bool), outcome)


def _beta(frame: pd.DataFrame, outcome: Outcome) -> Estimator:
    whole = decomposition_estimator(frame, rows=np.ones(len(frame), dtype=bool), outcome=outcome)
    return replace(whole, contrasts=tuple(c for c in whole.contrasts if c.name == "gap"))


def _beta_q3(frame: pd.DataFrame, outcome: Outcome) -> Estimator:
    inside = decomposition_estimator(frame, rows=in_q3(frame), outcome=outcome)
    return replace(inside, contrasts=tuple(c for c in inside.contrasts if c.name == "gap"))


def _gap(frame: pd.DataFrame, outcome: Outcome) -> Estimator:
    split = support_split(frame, PROXY)
    return split.gap(prompt_clusters(frame), outcomes(frame, outcome, split.rows))


def _matched(frame: pd.DataFrame, outcome: Outcome) -> Estimator:
    clusters = prompt_clusters(frame)
    pairs = matched_pairs(frame, PROXY, clusters)
    return pairs.difference(clusters, outcomes(frame, outcome, in_q3(frame)))


def _budget(frame: pd.DataFrame, outcome: Outcome) -> Estimator:
    kept = selections(frame, ("teachability", "kl"), (BUDGET,))
    by_dl, by_kl = (kept_means(frame, selection.mask, outcome) for selection in kept.values())
    return Difference(by_dl, by_kl)


HEADLINES: dict[Headline, Callable[[pd.DataFrame, Outcome], Estimator]] = {
    "gain": _gain,
    "beta": _beta,
    "beta_q3": _beta_q3,
    "gap": _gap,
    "matched": _matched,
    "budget": _budget,
}
