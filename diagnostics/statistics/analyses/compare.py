"""The difference of one number between two tables, or of two selectors over one, with its interval.

Two checkpoints of a bank, or two teachers, have the same positions: both numbers are made of the
same draws, and what varies alike in both falls out of the interval (`paired` is "positions").
Rollouts of two students to the same prompts share prompts alone ("prompts"): a prompt is drawn for
both. Banks that share nothing are drawn apart ("no"), and the interval is that of two samples.
Not covered: tests of equality of more than two (`pooled`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.budgets import kept_means, selections
from diagnostics.statistics.analyses.headlines import BUDGET, Number, name_of, number_of
from diagnostics.statistics.analyses.matching import lay_out, matched, shared_prompts
from diagnostics.statistics.inference.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    difference,
    interval,
)
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Estimator
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.statistics.tables.origin import bank_of, require_one_origin
from diagnostics.statistics.tables.sources import Source, as_frame
from diagnostics.statistics.tables.values import Outcome

Pairing = Literal["positions", "prompts", "no"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison(Result):
    """One number of two tables, or of two selectors.

    Fields: `number`; `definitions` and `outcome` of both, nats for `gain`; `first`, `second` what
    is compared; `first_value`, `second_value`, each with its own interval; `difference` first less
    second; `paired` by "positions", by "prompts", or "no": independent draws; `n_first`, `n_second`
    positions of each; `left_out` rows that only one of them has; `n_prompts` all clusters.
    """

    number: str
    definitions: str
    outcome: Outcome
    first: str
    second: str
    first_value: Interval
    second_value: Interval
    difference: Interval
    paired: Pairing
    n_first: int
    n_second: int
    left_out: int
    n_prompts: int


def compare(
    first: Source,
    second: Source,
    number: Number = "gain",
    bootstrap: Bootstrap = DEFAULT,
    *,
    paired: Pairing = "positions",
    intersect: bool = False,
    outcome: Outcome | None = None,
) -> Comparison:
    """first - second of a headline number, or of a function of a table, with its interval.

    `outcome` is by default that of the tables' definition set. `intersect` takes the positions that
    both have; norms and quadrants stay those of each table. Raises InputError for tables of two
    definition sets, K's or cuts of quadrants; paired by positions, for two banks or positions that
    one lacks; and drawn apart, for one bank.
    """
    one, two = as_frame(first), as_frame(second)
    names = (_label(first, one, "first"), _label(second, two, "second"))
    origin = require_one_origin([one, two], "compare")
    prompts = [prompt_clusters(frame).names for frame in (one, two)]
    _check_banks((bank_of(one), bank_of(two)), paired, shared_prompts(prompts))
    left_out = 0
    if paired == "positions":
        one, two, left_out = matched(one, two, "compare", intersect=intersect)
        prompts = [prompt_clusters(frame).names for frame in (one, two)]
    chosen = outcome or origin.definitions.outcome
    made = [number_of(frame, number, chosen) for frame in (one, two)]
    layout = lay_out(prompts, [0, 1] if paired == "no" else [0, 0])
    placed = [layout.place(estimator, i) for i, estimator in enumerate(made)]
    return Comparison(
        number=name_of(number),
        definitions=origin.definitions.name,
        outcome=chosen,
        first=names[0],
        second=names[1],
        first_value=_own(made[0], placed[0], paired, bootstrap),
        second_value=_own(made[1], placed[1], paired, bootstrap),
        difference=difference(placed[0], placed[1], layout.draws(bootstrap)),
        paired=paired,
        n_first=len(one),
        n_second=len(two),
        left_out=left_out,
        n_prompts=layout.clusters,
    )


def compare_selectors(
    source: Source,
    first: Selector,
    second: Selector,
    budget: float = BUDGET,
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome | None = None,
    seed: int = 0,
    vocabulary: int | None = None,
) -> Comparison:
    """Mean gain that one selector keeps less that of another, at one budget of one table.

    Positions that both keep count in both. Raises InputError as `top_n` does.
    """
    frame = as_frame(source)
    origin = require_one_origin([frame], "compare")
    chosen = outcome or origin.definitions.outcome
    kept = selections(frame, [first, second], [budget], seed, vocabulary=vocabulary)
    masks = [kept[name, budget].mask for name in (first, second)]
    means = [kept_means(frame, mask, chosen) for mask in masks]
    return Comparison(
        number=f"top {budget:.4g}",
        definitions=origin.definitions.name,
        outcome=chosen,
        first=first,
        second=second,
        first_value=interval(means[0], bootstrap),
        second_value=interval(means[1], bootstrap),
        difference=difference(means[0], means[1], bootstrap),
        paired="positions",
        n_first=int(masks[0].sum()),
        n_second=int(masks[1].sum()),
        left_out=0,
        n_prompts=len(means[0].sums),
    )


def _own(
    estimator: Estimator, placed: Estimator, paired: Pairing, bootstrap: Bootstrap
) -> Interval:
    """A value with the interval that it has by itself; counts that were given are over all."""
    if bootstrap.counts is None or paired == "positions":
        return interval(estimator, bootstrap)
    return interval(placed, bootstrap)


def _check_banks(banks: tuple[str | None, str | None], paired: Pairing, shared: int) -> None:
    """Refuses a pairing that the banks, and how many prompts both have, do not allow."""
    first, second = banks
    if paired == "positions" and None not in banks and first != second:
        got = f"banks {str(first)[:12]} and {str(second)[:12]}"
        fix = 'compare runs over one bank, or ask for paired="prompts" or paired="no"'
        raise _refused("two tables of one bank", got, fix)
    if paired == "prompts" and not shared:
        raise _refused("prompt ids that both tables have", "none", 'ask for paired="no"')
    if paired == "no" and shared and (None in banks or first == second):
        got = "one bank" if first == second and first else f"{shared} prompt ids in both"
        fix = 'ask for paired="positions" or paired="prompts"'
        raise _refused("two banks, to be drawn apart", got, fix)


def _label(source: Source, frame: pd.DataFrame, unnamed: str) -> str:
    """What a table is called: run and checkpoint, as far as they are known."""
    known = [getattr(source, "name", "")] if not isinstance(source, pd.DataFrame) else []
    if "checkpoint" in frame:
        known.append(str(np.asarray(frame["checkpoint"])[0]))
    return " ".join(filter(None, known)) or unnamed


def _refused(expected: str, got: str, fix: str) -> InputError:
    return InputError(where="compare", expected=expected, got=got, fix=fix)
