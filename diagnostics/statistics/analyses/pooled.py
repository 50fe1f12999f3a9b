"""Table 1 over several settings at once: teachers, prompt sets, shards.

Pooled over all positions a large bank weighs more; the mean over settings weighs them alike; both
are given. Each setting keeps its own quadrants, cuts and pairs. Settings over one bank share its
prompts, and are drawn together; other banks are drawn apart. Whether settings differ is asked by
Cochran's Q against its own bootstrap distribution (draws moved to no difference), since settings
that share prompts are not independent and chi-square would not hold. Not covered: random effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.headlines import headline
from diagnostics.statistics.analyses.matching import Layout, Names, lay_out, shared_prompts
from diagnostics.statistics.inference.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    bands,
    interval,
    joint_draws,
)
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Combination, Estimator, Floats, Placed
from diagnostics.statistics.inference.results import Tabled
from diagnostics.statistics.tables.origin import bank_of, require_one_origin
from diagnostics.statistics.tables.sources import Source, as_frame
from diagnostics.statistics.tables.values import Outcome

Kind = Literal["gap", "matched"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PooledGap(Tabled):
    """High- less low-support gain inside Q3 over settings.

    Fields: `number` (`gap` or `matched`); `definitions`; `outcome`, nats for `gain`; `pooled` over
    all positions; `equal` the mean over settings; `n_positions`; `n_prompts` clusters; `excluding`
    the share of settings whose own interval excludes 0, NaN where one has none; `smallest` and
    `largest` estimate; `q` Cochran's and `q_p` its bootstrap p value, small where settings differ
    by more than draws do, NaN where it cannot be had; `table` with one line a setting: setting,
    n_positions, n_q3, estimate, low, high, band_low, band_high (all settings together).
    """

    number: Kind
    definitions: str
    outcome: Outcome
    pooled: Interval
    equal: Interval
    n_positions: int
    n_prompts: int
    excluding: float
    smallest: float
    largest: float
    q: float
    q_p: float
    table: pd.DataFrame


def pooled_gap(
    settings: Mapping[str, Source] | Sequence[Source],
    number: Kind = "gap",
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome | None = None,
    share_prompts: bool | None = None,
) -> PooledGap:
    """The gap (or matched gap) by C of each setting, pooled, and whether settings differ.

    Settings are tables or runs of one checkpoint, by name or in order. `share_prompts` says whether
    one prompt id in two banks means one prompt, drawn for both. Raises InputError for fewer than
    two settings, tables of two definition sets, K's or cuts of quadrants, a table that does not say
    its bank, and ids in two banks where `share_prompts` is not given.
    """
    named = settings if isinstance(settings, Mapping) else _in_order(settings)
    frames = {name: as_frame(source) for name, source in named.items()}
    origin = require_one_origin(list(frames.values()), "pooled gap")
    chosen = outcome or origin.definitions.outcome
    layout = _layout(frames, share_prompts)
    made = [headline(frame, number, chosen) for frame in frames.values()]
    placed = [layout.place(estimator, i) for i, estimator in enumerate(made)]
    draws = layout.draws(bootstrap)
    own = [interval(e, bootstrap) for e in (made if bootstrap.counts is None else placed)]
    values, drawn = joint_draws(placed, draws)
    q, q_p = heterogeneity(values, drawn)
    equal = Combination(tuple(placed), (1 / len(placed),) * len(placed))
    return PooledGap(
        number=number,
        definitions=origin.definitions.name,
        outcome=chosen,
        pooled=interval(_pooled(placed), draws),
        equal=interval(equal, draws),
        n_positions=sum(map(len, frames.values())),
        n_prompts=layout.clusters,
        excluding=_excluding(own),
        smallest=float(values.min()),
        largest=float(values.max()),
        q=q,
        q_p=q_p,
        table=_table(frames, own, bands(placed, draws)),
    )


def heterogeneity(values: Floats, draws: Floats) -> tuple[float, float]:
    """Cochran's Q of values (s,) and its p value from their draws (draws, s).

    Q = sum of w (v - v_w)^2 with w = 1 / var of the draws and v_w the mean that w gives. Draws less
    their values have no difference, so p is (1 + how many of their Q's reach Q) / (1 + draws). NaN
    where a draw has no value, or values do not vary.
    """
    with np.errstate(invalid="ignore"):
        spread = draws.var(axis=0, ddof=1) if len(draws) > 1 else np.zeros(len(values))
    if not (np.isfinite(spread) & (spread > 0)).all():
        return float("nan"), float("nan")
    weight = 1 / spread

    def q_of(some: Floats) -> Floats:
        middle = some @ weight / weight.sum()
        return np.asarray(((some - middle[:, None]) ** 2) @ weight)

    q = float(q_of(values[None])[0])
    reached = int(np.count_nonzero(q_of(draws - values) >= q))
    return q, (1 + reached) / (1 + len(draws))


def _in_order(settings: Sequence[Source]) -> dict[str, Source]:
    return {f"setting {i}": source for i, source in enumerate(settings, 1)}


def _layout(frames: Mapping[str, pd.DataFrame], share_prompts: bool | None) -> Layout:
    """Settings of one bank in one group; all in one where prompts are shared between banks."""
    if len(frames) < 2:
        raise _refused("at least two settings", str(len(frames)), "add another, or use support_gap")
    banks = {name: bank_of(frame) for name, frame in frames.items()}
    unknown = [name for name, bank in banks.items() if bank is None]
    if unknown:
        fix = "make it with `token_table`, `read_tokens` or an opened run"
        raise _refused("tables that say their bank", f"none in {', '.join(unknown)}", fix)
    names = [prompt_clusters(frame).names for frame in frames.values()]
    if share_prompts is None and (several := _between_banks(names, list(banks.values()))):
        raise _refused(
            "banks without a prompt id in common, or share_prompts said",
            f"{several} prompt ids in more than one bank",
            "give share_prompts=True if they are the same prompts, False if not",
        )
    return lay_out(names, [0 if share_prompts else bank for bank in banks.values()])


def _between_banks(names: Sequence[Names], banks: Sequence[str | None]) -> int:
    """How many prompt ids more than one bank has."""
    own = {bank: [n for n, b in zip(names, banks, strict=True) if b == bank] for bank in banks}
    return shared_prompts([np.unique(np.concatenate(some)) for some in own.values()])


def _pooled(placed: Sequence[Estimator]) -> Estimator:
    """The number over all positions: a mean's totals and counts add up."""
    return Placed(placed[0], np.sum([e.sums for e in placed], axis=0))


def _excluding(own: Sequence[Interval]) -> float:
    ends = np.array([(value.low, value.high) for value in own])
    if np.isnan(ends).any():
        return float("nan")
    return float(((ends[:, 0] > 0) | (ends[:, 1] < 0)).mean())


def _table(
    frames: Mapping[str, pd.DataFrame], own: Sequence[Interval], joint: Sequence[Interval]
) -> pd.DataFrame:
    lines = [
        {
            "setting": name,
            "n_positions": len(frame),
            "n_q3": int((frame["quadrant"] == 3).sum()),
            "estimate": value.estimate,
            "low": value.low,
            "high": value.high,
            "band_low": band.low,
            "band_high": band.high,
        }
        for (name, frame), value, band in zip(frames.items(), own, joint, strict=True)
    ]
    return pd.DataFrame(lines)


def _refused(expected: str, got: str, fix: str) -> InputError:
    return InputError(where="pooled gap", expected=expected, got=got, fix=fix)
