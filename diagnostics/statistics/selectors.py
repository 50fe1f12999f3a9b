"""Token selectors: scores, exact budgets and ties (paper, section 4; DEFINITIONS, section 6).

A selector ranks positions and keeps exactly n = ceil(rho N). Scores are of clipped signals, so a
twentieth of all positions or more share the top score; such ties are broken by the same score of
the signals *before* clipping, then by a stable hash of (context, position), never by row order.
The share of kept positions that only a tie-break decided is reported.

The unclipped product and soft-or are not monotone outside [0, 1] (two signals beyond their 95 %
quantile would make the soft-or fall), so the tie-break takes factors floored at 0 and, for `tip`,
the sum of the two signals.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.normalize import stretched

Floats = NDArray[np.float64]

Selector = Literal[
    "teachability", "kl", "entropy", "tip", "compatibility", "incompatible", "random", "full"
]
SELECTORS: tuple[Selector, ...] = get_args(Selector)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What selectors rank by, each (pos,).

    Fields: `entropy` H of theta_0, nats; `disagreement` D, nats; `compatibility` C; `identity`
    (pos,) uint64, a hash of (context, position) that is unique with certainty enough to break ties.
    """

    entropy: Floats
    disagreement: Floats
    compatibility: Floats
    identity: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Selection:
    """Fields: `mask` (pos,) bool, True where kept; `tied_share` of the kept positions, the share
    whose score equals the lowest kept score while another position of that score was dropped."""

    mask: NDArray[np.bool_]
    tied_share: float


def identities(context_ids: pd.Series, positions: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Stable 64-bit hashes of (context, position), (pos,), the same on every machine."""
    codes, names = pd.factorize(context_ids)
    digests = [hashlib.blake2b(str(n).encode(), digest_size=8).digest() for n in names]
    bases = np.frombuffer(b"".join(digests), dtype="<u8")
    return _mix(bases[codes] + _mix(positions.astype(np.uint64)))


def keep_count(budget: float, total: int) -> int:
    """n = ceil(rho N), rho the decimal that was written: 5 % of 57,600 is 2,880.

    Raises InputError for a budget outside (0, 1].
    """
    check_budget(budget)
    return math.ceil(Decimal(repr(float(budget))) * total)


def check_selector(name: str) -> Selector:
    """The selector of a name. Raises InputError for an unknown one."""
    for known in SELECTORS:
        if name == known:
            return known
    raise InputError(
        where="--selector",
        expected=f"one of {', '.join(SELECTORS)}",
        got=repr(name),
        fix="choose one of them",
    )


def check_budget(budget: float) -> None:
    """Refuses a budget outside (0, 1]."""
    if not 0 < budget <= 1:
        raise InputError(
            where="--budget",
            expected="a share of positions in (0, 1]",
            got=repr(budget),
            fix="write 5 % as 0.05",
        )


def select(name: Selector, budget: float, signals: Signals, seed: int) -> Selection:
    """The positions that a selector keeps at a budget; `seed` matters to `random` alone.

    Raises InputError for a budget outside (0, 1].
    """
    check_budget(budget)
    count = len(signals.identity)
    if name == "full":
        return Selection(mask=np.ones(count, dtype=bool), tied_share=0.0)
    score, tie_break = scores(name, signals, seed)
    kept = keep_count(budget, count)
    order = np.lexsort((signals.identity, -tie_break, -score))
    mask = np.zeros(count, dtype=bool)
    mask[order[:kept]] = True
    cut = score[order[kept - 1]]
    tied = score == cut
    decided = bool((tied & ~mask).any())
    return Selection(mask=mask, tied_share=float((tied & mask).sum() / kept) if decided else 0.0)


def scores(name: Selector, signals: Signals, seed: int) -> tuple[Floats, Floats]:
    """(score, tie-break), each (pos,), larger is kept first (Eq. 12, 14, 15)."""
    if name == "random":
        mixed = _mix(signals.identity + _mix(np.array([seed % 2**64], dtype=np.uint64)))
        uniform = mixed.astype(np.float64)
        return uniform, uniform
    entropy, disagreement, compatibility = (
        stretched(z) for z in (signals.entropy, signals.disagreement, signals.compatibility)
    )
    h, d, c = (np.clip(z, 0.0, 1.0) for z in (entropy, disagreement, compatibility))
    floored_d = np.maximum(disagreement, 0.0)
    table: dict[str, tuple[Floats, Floats]] = {
        "teachability": (d * c, floored_d * np.maximum(compatibility, 0.0)),
        "kl": (d, disagreement),
        "entropy": (h, entropy),
        "tip": (1.0 - (1.0 - h) * (1.0 - d), entropy + disagreement),
        "compatibility": (c, compatibility),
        "incompatible": (d * (1.0 - c), floored_d * np.maximum(1.0 - compatibility, 0.0)),
    }
    return table[name]


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection of 64-bit integers that scatters them."""
    with np.errstate(over="ignore"):
        x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
