"""How many positions a budget keeps, in whole numbers on the batch's own device.

n = ceil(rho N) with rho the decimal that was written, as `statistics.selection.selectors.
keep_count`. That decimal may have 17 digits, and its product with N would not fit into 64 bits. So
rho is replaced by the nearest fraction on the side of the rounding whose denominator is below 2^31:
between the two lies no fraction k / N with a smaller N, and so no n changes.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

MOST = 2**31 - 1  # positions of a batch


def kept_count(total: Tensor, ratio: tuple[int, int], *, floor: bool) -> Tensor:
    """n, 0-dim int64, of `total` N positions at `written_ratio`."""
    numerator, denominator = ratio
    added = 0 if floor else denominator - 1
    return torch.div(total * numerator + added, denominator, rounding_mode="floor")


def written_ratio(budget: float, *, floor: bool) -> tuple[int, int]:
    """(p, q) up to 2^31 with the ceil, or the floor, of N p / q equal to that of rho N.

    In a graph that is compiled, constants: another budget is compiled again.
    """
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import guard_scalar

        budget = float(guard_scalar(budget))
    found: tuple[int, int] = _ratio(budget, floor)
    return found


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _ratio(budget: float, floor: bool) -> tuple[int, int]:
    rho = Fraction(repr(float(budget)))
    if rho.denominator <= MOST:
        return rho.numerator, rho.denominator
    below, above = neighbours(rho, MOST)
    found = below if floor else above
    return found.numerator, found.denominator


def neighbours(x: Fraction, most: int) -> tuple[Fraction, Fraction]:
    """The fractions next to `x` with denominators up to `most`; x, in (0, 1), is not one itself.

    Continued fractions, as in `Fraction.limit_denominator`, which returns the closer of the two.
    """
    p0, q0, p1, q1 = 0, 1, 1, 0
    n, d = x.numerator, x.denominator
    while q0 + n // d * q1 <= most:
        whole = n // d
        p0, q0, p1, q1 = p1, q1, p0 + whole * p1, q0 + whole * q1
        n, d = d, n - whole * d
    times = (most - q0) // q1
    ends = Fraction(p1, q1), Fraction(p0 + times * p1, q0 + times * q1)
    return min(ends), max(ends)
