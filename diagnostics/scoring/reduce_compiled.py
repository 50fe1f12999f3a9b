"""The compiled form of one pass over a tile of logits: numba, one row at a time, in float32 blocks.

`reduce.py` holds the method and the state's meaning, and imports this module only when it is used.
A block of both models stays in the first-level cache through three loops that the compiler turns
into vector instructions: the largest logit, the six sums, and, seldom, a search for new members of
the top k. The vector mathematics library of numba's authors is not in wheels, so exp is written
here: range reduction by Cody and Waite (Software Manual for the Elementary Functions, 1980) and a
polynomial of degree 6. Not covered: spreading rows over threads, which the caller does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])
Row = NDArray[np.float32]
Index = int | np.unsignedinteger[Any]

BLOCK = 1024  # ids; 64 terms a float32 partial sum with 16 lanes, 128 with 8
PIECE = 32  # ids searched one by one once the block holds a new member of the top k
MAXIMUM, LEVEL, TOTAL, INNER, CROSS = range(5)  # places in the first axis of the state's sums
LEAST_FACTOR = 1e-300  # what a sum is multiplied by at least, so that inf and NaN stay

_NOTHING = np.float32(-np.inf)
_LEAST = np.float32(-87.0)  # below it exp leaves float32's normal range: weights stop at 1.6e-38
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # 9 bits after the point: whole multiples up to 2^14 are exact
_LN2_LOW = np.float32(-2.12194440e-4)
_TO_BITS = np.float32(3 * 2**22 + 127)  # adding it leaves n + 127, an exponent, in the low bits
_ONE = np.float32(1.0)
# exp(r) = 1 + r + c2 r^2 + ... + c6 r^6 within 3.1e-9 of its size for |r| <= ln(2) / 2
_C2 = np.float32(0.4999999343211645)
_C3 = np.float32(0.16666520399021806)
_C4 = np.float32(0.041668390786198634)
_C5 = np.float32(0.008368745110832814)
_C6 = np.float32(0.0013814540044298235)
_ORDER = np.int32(0x7FFFFFFF)


def machine_code(*fastmath: str) -> Callable[[Function], Function]:
    """numba's compiler, with the machine code kept on disk where some folder can be written."""

    def wrap(function: Function) -> Function:
        def compiler(*, cache: bool) -> Function:
            made = numba.njit(
                function, nogil=True, cache=cache, fastmath=set(fastmath), error_model="numpy"
            )
            return cast(Function, made)

        try:
            return compiler(cache=True)
        except RuntimeError:  # numba found no folder for its cache
            return compiler(cache=False)

    return wrap


@machine_code("contract")
def exponential(x: np.float32) -> np.float32:
    """exp(x) within 1.2e-7 of its size for -87 <= x <= 0; NaN gives NaN."""
    shifted = x * _LOG2_E + _TO_BITS
    n = shifted - _TO_BITS
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r
    bits = np.float32(shifted).view(np.int32) << np.int32(23)
    power = np.int32(bits).view(np.float32)  # 2^n
    return ((p + _ONE) * r + _ONE) * power


@machine_code()
def largest(row: Row) -> np.float32:
    """The largest of a row, by an order of bits that has no exceptions, so that it vectorises.

    Rows with NaN give any value: their sums are NaN whatever is subtracted.
    """
    bits = row.view(np.int32)
    best = np.int32(-(2**31))
    for i in range(bits.size):
        best = max(best, bits[i] ^ ((bits[i] >> np.int32(31)) & _ORDER))
    return np.int32(best ^ ((best >> np.int32(31)) & _ORDER)).view(np.float32)


@machine_code()
def minus(x: np.float32, y: np.float32) -> np.float32:
    """x - y, rounded once; elsewhere the compiler may rearrange sums, which loses digits here."""
    return x - y


@machine_code("contract", "reassoc", "nsz")
def block_sums(
    t: Row, s: Row, t_max: np.float32, s_max: np.float32, s_level: np.float32, t_level: np.float32
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Z, A and B of a block: teacher, student of each in turn.

    `s_level` is taken off the student's logits in the teacher's B, `t_level` the other way round.
    B is inf where a model has mass and the other has none; a token without mass adds nothing.
    """
    zero = np.float32(0.0)
    t_total = s_total = t_inner = s_inner = t_cross = s_cross = zero
    for i in range(t.size):
        a, b = minus(t[i], t_max), minus(s[i], s_max)
        a_cross, b_cross = minus(a, minus(s[i], s_level)), minus(b, minus(t[i], t_level))
        a_held = _LEAST if a < _LEAST else a  # in this order NaN stays
        b_held = _LEAST if b < _LEAST else b
        a_weight, b_weight = exponential(a_held), exponential(b_held)
        t_total += a_weight
        s_total += b_weight
        t_inner += a_weight * a_held
        s_inner += b_weight * b_held
        t_cross += zero if a == _NOTHING else a_weight * a_cross
        s_cross += zero if b == _NOTHING else b_weight * b_cross
    return t_total, s_total, t_inner, s_inner, t_cross, s_cross


@machine_code()
def raise_maximum(
    row: int,
    own: int,
    top: np.float32,
    other: np.float32,
    sums: NDArray[np.float64],
) -> None:
    """Makes `top` the maximum of model `own` if it is larger; keeps its sums exact.

    `other` is the other model's logit at that token.
    """
    old = sums[MAXIMUM, own, row]
    if not top > old:
        return
    total = sums[TOTAL, own, row]
    level = other if np.isfinite(other) else sums[LEVEL, own, row]
    shift = top - old if old > -np.inf else 0.0
    factor = max(np.exp(-shift), LEAST_FACTOR)
    across = (level - sums[LEVEL, own, row]) - shift
    sums[MAXIMUM, own, row] = top
    sums[LEVEL, own, row] = level
    sums[TOTAL, own, row] = factor * total
    sums[INNER, own, row] = factor * (sums[INNER, own, row] - shift * total)
    sums[CROSS, own, row] = factor * (sums[CROSS, own, row] + across * total)


@machine_code()
def any_above(row: Row, start: Index, stop: Index, least: np.float32) -> bool:
    """Whether some logit of a piece of a row is above `least`; indices are unsigned."""
    count = np.int32(0)
    for i in range(start, stop):
        count += np.int32(row[i] > least)
    return bool(count > 0)


@machine_code()
def insert(
    row: Row,
    other: Row,
    first: int,
    values: Row,
    ids: NDArray[np.int32],
    others: Row,
) -> None:
    """Puts members of the top k into sorted lists; `first` is the id of the block's first token.

    Ids come in ascending order, so that only a strictly larger logit goes before another one.
    Indices are unsigned: signed ones cost a test for a negative index each.
    """
    zero, one, k, size = np.uint64(0), np.uint64(1), np.uint64(values.size), np.uint64(row.size)
    before, last = np.uint64(first), k - one
    for start in range(zero, size, np.uint64(PIECE)):
        stop = min(start + np.uint64(PIECE), size)
        if before + start >= k and not any_above(row, start, stop, values[last]):
            continue
        for i in range(start, stop):
            place = before + i  # how many are there
            if place >= k:
                if not row[i] > values[last]:
                    continue
                place = last
            while place > zero and row[i] > values[place - one]:
                values[place] = values[place - one]
                ids[place] = ids[place - one]
                others[place] = others[place - one]
                place -= one
            values[place], ids[place], others[place] = row[i], before + i, other[i]


@machine_code()
def add_rows(
    rows: tuple[int, int],
    teacher: Row,
    student: Row,
    first: int,
    sums: NDArray[np.float64],
    values: Row,
    ids: NDArray[np.int32],
    others: Row,
) -> None:
    """Adds a tile (pos, width) of both models to rows `rows[0]` up to `rows[1]` of the state.

    State as in `reduce.PairSums`: sums (5, 2, pos) and lists (2, pos, k), the teacher's first.
    """
    k = values.shape[2]
    for row in range(rows[0], rows[1]):
        for start in range(0, teacher.shape[1], BLOCK):
            t, s = teacher[row, start : start + BLOCK], student[row, start : start + BLOCK]
            if first + start < k or largest(t) > values[0, row, k - 1]:
                insert(t, s, first + start, values[0, row], ids[0, row], others[0, row])
            if first + start < k or largest(s) > values[1, row, k - 1]:
                insert(s, t, first + start, values[1, row], ids[1, row], others[1, row])
            for model in range(2):
                raise_maximum(row, model, values[model, row, 0], others[model, row, 0], sums)
            t_max, s_max = sums[MAXIMUM, 0, row], sums[MAXIMUM, 1, row]
            found = block_sums(
                t,
                s,
                np.float32(t_max if t_max > -np.inf else 0.0),
                np.float32(s_max if s_max > -np.inf else 0.0),
                np.float32(sums[LEVEL, 0, row]),
                np.float32(sums[LEVEL, 1, row]),
            )
            for model in range(2):
                sums[TOTAL, model, row] += found[model]
                sums[INNER, model, row] += found[2 + model]
                sums[CROSS, model, row] += found[4 + model]
