"""What each selector ranks by: raw signals in, a score and its tie-break out.

Paper, section 4.3 (Eq. 12, 14-16); TIP (arXiv 2604.14084) for `tip-original` and `q3-tip`;
DEFINITIONS, section 6. Which positions a budget then keeps is `selectors`' and `ranking`'s.

A score is of clipped signals, so a twentieth of all positions or more share its end. The tie-break
is the same score of the signals *before* clipping, in a form that is monotone outside [0, 1] too:

- one signal: the signal itself;
- a product: two factors below 0 would make it rise again, so they are floored at 0, and where the
  floor makes it 0, it is what lies below the floor;
- a soft-or: two signals above 1 would make it fall, so it is their sum. `teachability+entropy` adds
  its entropy to the product above;
- a score that is ranked upwards (`q3+low-c`, `q3+low-dl`) turns its tie-break with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.tables.normalize import EPSILON, min_max, stretched

Floats = NDArray[np.float64]
Scored = tuple[Floats, Floats]

OUTLIERS = 0.98  # TIP's clip of forward KL, a quantile of the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a selector ranks.

    Fields: `needs`, names of the signals that `score` takes, in its order; `score` gives (score,
    tie-break), each (pos,), larger first; `of` gives the same from signals that are `stretched`
    already, None where the rule scales otherwise; `up` ranks by the smallest instead; `q3` keeps
    none outside Q3; `floor` keeps floor(rho N) instead of ceil(rho N).
    """

    needs: tuple[str, ...]
    score: Callable[..., Scored]
    of: Callable[..., Scored] | None = None
    up: bool = False
    q3: bool = False
    floor: bool = False

    def __call__(self, *signals: Floats | int) -> Scored:
        """(score, tie-break), each (pos,), larger first, of the signals in `needs`."""
        return self._turned(self.score(*signals))

    def ranked(self, *stretched_signals: Floats) -> Scored:
        """The same from the signals in `needs` before clipping; only for a rule that has `of`."""
        assert self.of is not None
        return self._turned(self.of(*stretched_signals))

    def _turned(self, scored: Scored) -> Scored:
        score, tie_break = scored
        return (-score, -tie_break) if self.up else (score, tie_break)


def single(z: Floats) -> Scored:
    """z~ of one stretched signal (pos,) (Eq. 14)."""
    return _clip(z), z


def product(d: Floats, c: Floats) -> Scored:
    """D^L = D~ C~ (Eq. 12)."""
    return _clip(d) * _clip(c), _unclipped_product(d, c)


def incompatible(d: Floats, c: Floats) -> Scored:
    """D^I = D~ (1 - C~) (Eq. 12)."""
    return _clip(d) * (1.0 - _clip(c)), _unclipped_product(d, 1.0 - c)


def soft_or(h: Floats, d: Floats) -> Scored:
    """H~ + D~ - H~ D~ (Eq. 15)."""
    return _either(_clip(h), _clip(d)), h + d


def entropy_or_teachability(h: Floats, d: Floats, c: Floats) -> Scored:
    """H~ + s - H~ s with s = D~ C~ (Eq. 16)."""
    learnable, beyond = product(d, c)
    return _either(_clip(h), learnable), h + beyond


def tip_original(entropy: Floats, reverse_kl: Floats) -> Scored:
    """TIP's soft-or h + d - h d of min-max scaled H and KL(p_0 || p_T); nothing is clipped."""
    h, d = min_max(entropy), min_max(reverse_kl)
    return _either(h, d), h + d


def q3_tip(kl_0: Floats, entropy: Floats, vocabulary: int) -> Scored:
    """TIP, section 7.3: scaled KL(p_T || p_0) times confidence, (1 - H / log V).

    KL is clipped at its 98 % quantile, then min-max scaled: 1 from that quantile on.
    """
    low, high = float(kl_0.min()), float(np.quantile(kl_0, OUTLIERS))
    confidence = np.maximum(1.0 - entropy / math.log(vocabulary), 0.0)
    beyond = (kl_0 - low) / (high - low) if high - low >= EPSILON else kl_0 - low
    return min_max(np.minimum(kl_0, high)) * confidence, beyond * confidence


def _clip(z: Floats) -> Floats:
    return np.clip(z, 0.0, 1.0)


def _either(a: Floats, b: Floats) -> Floats:
    """a + b - a b, exactly 1 where either is 1."""
    return np.asarray(1.0 - (1.0 - a) * (1.0 - b))


def _unclipped_product(a: Floats, b: Floats) -> Floats:
    """a b where both are above 0, else what lies below 0: rises with either everywhere."""
    found = np.maximum(a, 0.0) * np.maximum(b, 0.0)
    return np.where(found > 0.0, found, np.minimum(a, 0.0) + np.minimum(b, 0.0))


_D = ("disagreement",)
_C = ("compatibility",)
_DC = ("disagreement", "compatibility")


def _rule(of: Callable[..., Scored], *needs: str, up: bool = False, q3: bool = False) -> Rule:
    """A rule that ranks by stretched signals."""

    def score(*signals: Floats) -> Scored:
        return of(*(stretched(signal) for signal in signals))

    return Rule(needs=needs, score=score, of=of, up=up, q3=q3)


RULES: dict[str, Rule] = {
    "teachability": _rule(product, *_DC),
    "teachability+entropy": _rule(entropy_or_teachability, "entropy", *_DC),
    "kl": _rule(single, *_D),
    "incompatible": _rule(incompatible, *_DC),
    "entropy": _rule(single, "entropy"),
    "tip": _rule(soft_or, "entropy", *_D),
    "compatibility": _rule(single, *_C),
    "q3": _rule(single, *_D, q3=True),
    "q3+high-c": _rule(single, *_C, q3=True),
    "q3+low-c": _rule(single, *_C, q3=True, up=True),
    "q3+high-dl": _rule(product, *_DC, q3=True),
    "q3+low-dl": _rule(product, *_DC, q3=True, up=True),
    "q3+high-di": _rule(incompatible, *_DC, q3=True),
    "tip-original": Rule(needs=("entropy", "reverse_kl_0"), score=tip_original, floor=True),
    "q3-tip": Rule(needs=("kl_0", "entropy", "vocabulary"), score=q3_tip),
}
