"""Token selectors: exact budgets and ties (paper, section 4; DEFINITIONS, section 6).

A selector ranks positions and keeps exactly n = ceil(rho N); `tip-original` keeps floor(rho N), its
paper's rule, and the `q3` selectors rank Q3 alone and keep it whole where it has fewer than n. What
each ranks by, and how scores that clipping made equal are told apart, is in `rules`; positions that
stay equal are ordered by a stable hash of (context, position), never by row order. The share of
kept positions that only a tie-break decided is reported.

The definition set `released` keeps at least one position of every rollout besides
(`at_least_one_of`), which is how a nominal 3 % becomes more. A plain sort, whose ties fall by row
order, is one word away (`ties`), so that its effect can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError, one_of
from diagnostics.statistics.selection.ranking import Mask, first, tied_share, with_one_of_each
from diagnostics.statistics.selection.rules import RULES
from diagnostics.statistics.selection.signals import Floats, Signals, needed, uniform
from diagnostics.statistics.tables.definitions import Ties

Selector = Literal[
    "teachability",
    "teachability+entropy",
    "kl",
    "incompatible",
    "entropy",
    "tip",
    "compatibility",
    "q3",
    "q3+high-c",
    "q3+low-c",
    "q3+high-dl",
    "q3+low-dl",
    "q3+high-di",
    "tip-original",
    "q3-tip",
    "random",
    "full",
]
SELECTORS: tuple[Selector, ...] = get_args(Selector)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a selector keeps.

    Fields: `mask` (pos,) bool, True where kept; `tied_share` of the positions kept by rank, the
    share whose score equals the lowest of theirs while another position of that score was not;
    `wanted` n, what the budget asks for; `short` whether Q3 had fewer, so that all of it is kept;
    `added` how many positions beyond n were kept so that no rollout goes without.
    """

    mask: Mask
    tied_share: float
    wanted: int
    short: bool = False
    added: int = 0

    @property
    def share(self) -> float:
        """The share of positions that is kept, as it came out."""
        return float(self.mask.mean())


def keep_count(budget: float, total: int, *, floor: bool = False) -> int:
    """n = ceil(rho N), rho the decimal that was written: 5 % of 57,600 is 2,880.

    `floor` rounds down instead. Raises InputError for a budget outside (0, 1].
    """
    check_budget(budget)
    exact = Decimal(repr(float(budget))) * total
    return math.floor(exact) if floor else math.ceil(exact)


def check_selector(name: str) -> Selector:
    """The selector of a name. Raises InputError for an unknown one."""
    return one_of(name, SELECTORS, "--selector")


def check_budget(budget: float) -> None:
    """Refuses a budget outside (0, 1]."""
    if not 0 < budget <= 1:
        raise InputError(
            where="--budget",
            expected="a share of positions in (0, 1]",
            got=repr(budget),
            fix="write 5 % as 0.05",
        )


def select(
    name: Selector,
    budget: float,
    signals: Signals,
    seed: int,
    *,
    at_least_one_of: NDArray[Any] | None = None,
    ties: Ties = "hash",
) -> Selection:
    """The positions that a selector keeps at a budget; see `select_many`."""
    return select_many(name, [budget], signals, seed, at_least_one_of=at_least_one_of, ties=ties)[0]


def select_many(
    name: Selector,
    budgets: Sequence[float],
    signals: Signals,
    seed: int,
    *,
    at_least_one_of: NDArray[Any] | None = None,
    ties: Ties = "hash",
) -> tuple[Selection, ...]:
    """What a selector keeps at each budget: scored once, cut at each; `seed` matters to `random`.

    `at_least_one_of` (pos,) names the rollout of each position: of a rollout of which the budget
    keeps nothing, the position that ranks first is kept in addition. A `q3` selector then takes one
    outside Q3 where the rollout has none in it. `ties` "row_order" keeps the earlier row of equal
    scores: no tie-break and no hash.

    Raises InputError for a budget outside (0, 1] or one that keeps nothing, an empty Q3, and a
    signal that the selector needs and that is missing or not finite.
    """
    for budget in budgets:
        check_budget(budget)
    count = len(signals.identity)
    if not count:
        raise InputError(
            where=f"selector {name}",
            expected="at least one position",
            got="none",
            fix="give a bank or a batch with valid positions",
        )
    if name == "full":
        everything = np.ones(count, dtype=bool)
        return tuple(Selection(mask=everything, tied_share=0.0, wanted=count) for _ in budgets)
    score, tie_break = scores(name, signals, seed)
    keys = (score,) if ties == "row_order" else (score, tie_break, ~signals.identity)
    rows = _candidates(name, signals)
    found = [_cut(name, budget, keys, rows) for budget in budgets]
    if at_least_one_of is None:
        return tuple(found)
    inside = np.zeros(count, dtype=bool)
    inside[rows] = True
    groups = _groups(at_least_one_of)
    return tuple(_with_one_of_each(selection, (inside, *keys), groups) for selection in found)


def scores(name: Selector, signals: Signals, seed: int) -> tuple[Floats, Floats]:
    """(score, tie-break), each (pos,), larger is kept first (Eq. 12, 14-16; see `rules`).

    `q3` selectors score every position; only those in Q3 are then kept. Raises InputError for a
    signal that is missing or not finite.
    """
    if name == "random":
        drawn = uniform(signals.identity, seed)
        return drawn, drawn
    rule = RULES[name]
    return rule(*(needed(name, signal, signals) for signal in rule.needs))


def _candidates(name: str, signals: Signals) -> NDArray[np.int64]:
    """The rows that a selector may keep. Raises InputError where there are none."""
    if name not in RULES or not RULES[name].q3:
        return np.arange(len(signals.identity))
    rows = np.flatnonzero(needed(name, "q3", signals))
    if not len(rows):
        raise InputError(
            where=f"selector {name}",
            expected="at least one position in Q3",
            got=f"none of {len(signals.identity)}",
            fix="give more positions, or choose a selector that ranks all of them",
        )
    return rows


def _cut(
    name: str, budget: float, keys: tuple[NDArray[Any], ...], rows: NDArray[np.int64]
) -> Selection:
    """The `rows` that come first by `keys` (pos,), as many as the budget asks for."""
    total = len(keys[0])
    wanted = keep_count(budget, total, floor=name in RULES and RULES[name].floor)
    if not wanted:
        raise InputError(
            where=f"selector {name}",
            expected="a budget that keeps at least one position",
            got=f"{budget!r} of {total}, rounded down to 0",
            fix="raise --budget, or choose a selector that rounds up",
        )
    ours = [key[rows] for key in keys]
    kept = first(ours, min(wanted, len(rows)))
    mask = np.zeros(total, dtype=bool)
    mask[rows[kept]] = True
    return Selection(
        mask=mask,
        tied_share=tied_share(ours[0], kept),
        wanted=wanted,
        short=len(rows) < wanted,
    )


def _with_one_of_each(
    selection: Selection, keys: tuple[NDArray[Any], ...], groups: NDArray[np.int64]
) -> Selection:
    mask = with_one_of_each(keys, selection.mask, groups)
    return replace(selection, mask=mask, added=int(mask.sum() - selection.mask.sum()))


def _groups(owners: NDArray[Any]) -> NDArray[np.int64]:
    """Codes (pos,) of rollouts. Raises InputError for a position without one."""
    codes = np.asarray(pd.factorize(owners)[0], dtype=np.int64)
    if (codes < 0).any():
        raise InputError(
            where="at_least_one_of",
            expected="the rollout of every position",
            got=f"none at row {np.flatnonzero(codes < 0)[0]}",
            fix="name it",
        )
    return codes
