"""Compiled inner loops of `cuts`: what selectors rank positions by, and what budgets keep.

A second form of `rules`, `signals.identities` and `quantiles.ordered`, held to them bit for bit by
tests. Imported only when used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diagnostics.scoring.reduce_compiled import machine_code
from diagnostics.statistics.streaming.sums_compiled import clipped

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SINGLE, PRODUCT, INCOMPATIBLE, SOFT_OR, ENTROPY_OR_PRODUCT = range(5)

_MIX_ADD = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SIGN, _ALL = np.uint64(1 << 63), np.uint64((1 << 64) - 1)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


@machine_code()
def scored(kind: int, x: float, y: float, z: float) -> tuple[float, float]:
    """(score, tie-break) of a position from the stretched signals that a rule needs (`rules`)."""
    if kind == SINGLE:
        return clipped(x), x
    if kind == PRODUCT:
        return clipped(x) * clipped(y), beyond(x, y)
    if kind == INCOMPATIBLE:
        return clipped(x) * (1.0 - clipped(y)), beyond(x, 1.0 - y)
    if kind == SOFT_OR:
        return 1.0 - (1.0 - clipped(x)) * (1.0 - clipped(y)), x + y
    learnable = clipped(y) * clipped(z)
    return 1.0 - (1.0 - clipped(x)) * (1.0 - learnable), x + beyond(y, z)


@machine_code()
def beyond(a: float, b: float) -> float:
    """A product of signals before clipping that rises with either everywhere."""
    found = max(a, 0.0) * max(b, 0.0)
    return found if found > 0.0 else min(a, 0.0) + min(b, 0.0)


@machine_code()
def leading(score: float, tie: float, up: bool) -> float:
    """What ranks first, least first: the score turned around, parted by ties where it is 1.

    A monotone function of (score, tie-break), so that (this, tie-break, identity) is the order of
    (score, tie-break, identity). Scores of 1 are many, and so the first pass parts them already.
    """
    if up:
        return score
    return -(score if score < 1.0 else 1.0 + max(tie, 0.0))


@machine_code()
def leading_words(kind: int, up: bool, x: Floats, y: Floats, z: Floats, out: Floats) -> None:
    """The first word of each position into `out` (pos,), from the signals that a rule needs.

    A loop for each kind, so that the compiler makes vector instructions of it.
    """
    if kind == SINGLE:
        for i in range(len(out)):
            score, tie = scored(SINGLE, x[i], y[i], z[i])
            out[i] = leading(score, tie, up)
    elif kind == PRODUCT:
        for i in range(len(out)):
            score, tie = scored(PRODUCT, x[i], y[i], z[i])
            out[i] = leading(score, tie, up)
    elif kind == INCOMPATIBLE:
        for i in range(len(out)):
            score, tie = scored(INCOMPATIBLE, x[i], y[i], z[i])
            out[i] = leading(score, tie, up)
    elif kind == SOFT_OR:
        for i in range(len(out)):
            score, tie = scored(SOFT_OR, x[i], y[i], z[i])
            out[i] = leading(score, tie, up)
    else:
        for i in range(len(out)):
            score, tie = scored(ENTROPY_OR_PRODUCT, x[i], y[i], z[i])
            out[i] = leading(score, tie, up)


@machine_code()
def mixed(x: np.uint64) -> np.uint64:
    """`signals._mix` of one integer."""
    x = np.uint64(x + _MIX_ADD)
    x = np.uint64((x ^ (x >> _S30)) * _MIX_1)
    x = np.uint64((x ^ (x >> _S27)) * _MIX_2)
    return np.uint64(x ^ (x >> _S31))


@machine_code()
def identity_of(
    run: int,
    row: int,
    run_ends: Indices,
    hashes: NDArray[np.uint64],
    position: NDArray[np.int32],
    listed: bool,
) -> np.uint64:
    """`signals.identities` of a row of a context; `position` is each row's if `listed`, else the
    first of each context, from which the others count up."""
    place = position[row] if listed else position[run] + (row - run_ends[run])
    return mixed(np.uint64(hashes[run] + mixed(np.uint64(place))))


@machine_code()
def ordered_word(value: float) -> np.uint64:
    """`quantiles.ordered` of one float."""
    bits = np.float64(value + 0.0).view(np.uint64)
    return np.uint64(bits ^ (_ALL if bits & _SIGN else _SIGN))


@machine_code()
def random_words(
    run_ends: Indices,
    hashes: NDArray[np.uint64],
    position: NDArray[np.int32],
    listed: bool,
    seed: np.uint64,
    out: Floats,
) -> None:
    """The first word of each position for `random` into `out` (pos,)."""
    for run in range(len(run_ends) - 1):
        for i in range(run_ends[run], run_ends[run + 1]):
            identity = identity_of(run, i, run_ends, hashes, position, listed)
            out[i] = -np.float64(mixed(np.uint64(identity + seed)))


@machine_code()
def other_words(
    kind: int,
    up: bool,
    x: Floats,
    y: Floats,
    z: Floats,
    rows: Indices,
    run_ends: Indices,
    hashes: NDArray[np.uint64],
    position: NDArray[np.int32],
    listed: bool,
    ties: NDArray[np.uint64],
    identities: NDArray[np.uint64],
) -> None:
    """Tie-breaks and identities of ascending `rows` as words, for any rule but `random`."""
    run = 0
    for at in range(len(rows)):
        i = rows[at]
        while i >= run_ends[run + 1]:
            run += 1
        tie = scored(kind, x[i], y[i], z[i])[1]
        ties[at] = ordered_word(tie if up else -tie)
        identities[at] = identity_of(run, i, run_ends, hashes, position, listed)


@machine_code()
def select_rows(
    first: Floats,
    rows: Indices,
    last: Floats,
    score: Floats,
    kept: NDArray[np.bool_],
    parted: bool,
    outcomes: Floats,
    signals: Floats,
    quadrant: NDArray[np.int8],
    ends: Indices,
    out: Floats,
    means: Floats,
    ties: Indices,
) -> None:
    """Adds up what each of `b` ascending budgets is the first to keep.

    `first` (n,) words of ascending `rows` of the chunk; `last` (b,) words of the last key kept and
    `score` (b,) its score; `kept` (n, b) decides keys whose word equals `last`; `parted` says that
    scores of 1 have several words. `out` (p, b * 3) takes [1, outcomes]; `means` (b, 4) Q3, H~, D~,
    C~; `ties` (b, 2) the keys of the cut's score, kept and in all.
    """
    prompt, budgets = 0, len(last)
    for at in range(len(rows)):
        row, word = rows[at], first[at]
        while row >= ends[prompt + 1]:
            prompt += 1
        level = budgets
        for b in range(budgets):
            if word < last[b] or (word == last[b] and kept[at, b]):
                level = b
                break
        shown = min(-word, 1.0) if parted else -word
        for b in range(budgets):
            if shown == score[b]:
                ties[b, 1] += 1
                if level <= b:
                    ties[b, 0] += 1
        if level < budgets:
            out[prompt, 3 * level] += 1.0
            out[prompt, 3 * level + 1] += outcomes[0, row]
            out[prompt, 3 * level + 2] += outcomes[1, row]
            means[level, 0] += 1.0 if quadrant[row] == 3 else 0.0
            for k in range(3):
                means[level, 1 + k] += clipped(signals[k, row])
