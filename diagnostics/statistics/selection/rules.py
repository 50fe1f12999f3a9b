"""What each selector ranks by: raw signals in, a score and its tie-break out.

A rule scales each signal over its population, and then combines what it has scaled, position by
position. The combinations are methods and operators alone, so that they take numpy arrays and torch
tensors alike; the scalings are given (`scales`), numpy's by default, for tensors `diagnostics.
selection.scales`.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from diagnostics.statistics.tables.normalize import min_max, stretched, to_outliers

Array = Any
"""A float64 array or tensor, (pos,)."""
Scored = tuple[Array, Array]
Scaling = Literal["robust", "min_max", "outliers", "raw"]
Scales = Mapping[Scaling, Callable[[Array], tuple[Array, ...]]]

SCALES: Scales = {
    "robust": lambda z: (stretched(z),),
    "min_max": lambda z: (min_max(z),),
    "outliers": to_outliers,
    "raw": lambda z: (z,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a selector ranks.

    Fields: `needs`, names of the signals that it ranks by; `scalings`, how each is scaled; `of`
    gives (score, tie-break), each (pos,), larger first, of the scaled signals in that order; `up`
    ranks by the smallest instead; `q3` keeps none outside Q3; `floor` keeps floor(rho N) instead of
    ceil(rho N).
    """

    needs: tuple[str, ...]
    scalings: tuple[Scaling, ...]
    of: Callable[..., Scored]
    up: bool = False
    q3: bool = False
    floor: bool = False

    def __call__(self, *signals: Array, scales: Scales = SCALES) -> Scored:
        """(score, tie-break), each (pos,), larger first, of the signals in `needs`."""
        scaled: list[Array] = []
        for scaling, signal in zip(self.scalings, signals, strict=True):
            scaled += scales[scaling](signal)
        score, tie_break = self.of(*scaled)
        return (-score, -tie_break) if self.up else (score, tie_break)

    @property
    def robust(self) -> bool:
        """Whether it needs no more of the population than the quantiles of Eq. 11."""
        return set(self.scalings) == {"robust"}


def single(z: Array) -> Scored:
    """z~ of one stretched signal (pos,) (Eq. 14)."""
    return _clip(z), z


def product(d: Array, c: Array) -> Scored:
    """D^L = D~ C~ (Eq. 12)."""
    return _clip(d) * _clip(c), _unclipped_product(d, c)


def incompatible(d: Array, c: Array) -> Scored:
    """D^I = D~ (1 - C~) (Eq. 12)."""
    return _clip(d) * (1.0 - _clip(c)), _unclipped_product(d, 1.0 - c)


def soft_or(h: Array, d: Array) -> Scored:
    """H~ + D~ - H~ D~ (Eq. 15)."""
    return _either(_clip(h), _clip(d)), h + d


def entropy_or_teachability(h: Array, d: Array, c: Array) -> Scored:
    """H~ + s - H~ s with s = D~ C~ (Eq. 16)."""
    learnable, beyond = product(d, c)
    return _either(_clip(h), learnable), h + beyond


def tip_original(h: Array, d: Array) -> Scored:
    """TIP's soft-or h + d - h d of min-max scaled H and KL(p_0 || p_T); nothing is clipped."""
    return _either(h, d), h + d


def q3_tip(kl: Array, kl_beyond: Array, entropy: Array, vocabulary: int) -> Scored:
    """TIP, section 7.3: scaled KL(p_T || p_0) times confidence, (1 - H / log V).

    `kl` is clipped at its 98 % quantile and min-max scaled, `kl_beyond` the same before the clip.
    """
    confidence = (1.0 - entropy / math.log(vocabulary)).clip(min=0.0)
    return kl * confidence, kl_beyond * confidence


def _clip(z: Array) -> Array:
    return z.clip(0.0, 1.0)


def _either(a: Array, b: Array) -> Array:
    """a + b - a b, exactly 1 where either is 1."""
    return 1.0 - (1.0 - a) * (1.0 - b)


def _unclipped_product(a: Array, b: Array) -> Array:
    """a b where both are above 0, else what lies below 0: rises with either everywhere.

    Of the product and the sum one is 0 at every position.
    """
    return a.clip(min=0.0) * b.clip(min=0.0) + (a.clip(max=0.0) + b.clip(max=0.0))


_D = ("disagreement",)
_C = ("compatibility",)
_DC = ("disagreement", "compatibility")


def _rule(of: Callable[..., Scored], *needs: str, up: bool = False, q3: bool = False) -> Rule:
    """A rule that ranks by stretched signals."""
    scalings: tuple[Scaling, ...] = tuple("robust" for _ in needs)
    return Rule(needs=needs, scalings=scalings, of=of, up=up, q3=q3)


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
    "tip-original": Rule(
        needs=("entropy", "reverse_kl_0"),
        scalings=("min_max", "min_max"),
        of=tip_original,
        floor=True,
    ),
    "q3-tip": Rule(
        needs=("kl_0", "entropy", "vocabulary"), scalings=("outliers", "raw", "raw"), of=q3_tip
    ),
}
