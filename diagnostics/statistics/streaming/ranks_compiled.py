"""Compiled inner loops of `ranks`: the leading bits of floats, counted and looked up.

Imported only when used (numba takes half a second). `ranks` holds the method.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diagnostics.scoring.reduce_compiled import machine_code

Floats = NDArray[np.float64]

TOP_BITS = 18  # sign, exponent and 6 bits of the mantissa: bins of 1 to 2 % of a value

_DOWN = np.uint64(64 - TOP_BITS)
_SIGN = np.uint64(1 << 63)
_NEGATIVE = np.uint64((1 << 64) - 1)


@machine_code()
def top_bin(value: float) -> np.uint64:
    """The leading bits of a float, in the order of floats; -0.0 is 0.0."""
    bits = np.float64(value + 0.0).view(np.uint64)
    return np.uint64((bits ^ (_NEGATIVE if bits & _SIGN else _SIGN)) >> _DOWN)


@machine_code()
def count_top(values: Floats, counts: NDArray[np.int64]) -> None:
    """Adds how many of `values` (pos,) have each leading bits to `counts` (2^18,)."""
    for value in values:
        counts[top_bin(value)] += 1


@machine_code()
def rows_in(values: Floats, wanted: NDArray[np.bool_], rows: NDArray[np.int64]) -> int:
    """Puts the rows whose leading bits are `wanted` (2^18,) into `rows` (pos,), says how many."""
    found = 0
    for row in range(len(values)):
        rows[found] = row
        found += int(wanted[top_bin(values[row])])
    return found
