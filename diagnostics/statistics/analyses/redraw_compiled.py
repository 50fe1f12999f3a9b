"""The compiled form of what `redraw` redoes in each draw: numba, one draw at a time.

`redraw.py` holds the method and imports this module only when it is used. A draw is a row of
counts, so its population is weighted rows, and nothing is copied. Quantiles interpolate between the
same two values, in the same arithmetic, as `np.quantile` of the repeated rows: cuts are equal to
the last bit, and so is what they cut. Prompts that a draw lacks are passed over. Sums are in
float64; those of one draw are one thread's alone. Not covered: spreading draws over threads.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from diagnostics.scoring.reduce_compiled import machine_code
from diagnostics.statistics.tables.normalize import EPSILON

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 256  # rows whose columns exist at one time, 20 kB
WIDTH = 10  # columns of a regression: the constant, eight predictors, the outcome
DISAGREEMENT, COMPATIBILITY, ENTROPY, TEACHER_ENTROPY, KL_0, POSITION, OUTCOME = range(7)
LOW_ENTROPY, HIGH_KL = 8, 9  # places of the medians among a draw's cuts, behind four Q05 and Q95


@machine_code()
def lerp(a: float, b: float, t: float) -> float:
    """Between a and b at t, rounded as numpy rounds it."""
    step = b - a
    return b - step * (1 - t) if t >= 0.5 else a + step * t


@machine_code()
def quantile(
    values: Floats, owner: Ints, counts: Floats, bins: Floats, size: int, total: float, q: float
) -> float:
    """The quantile `q` of `values` (pos,), ascending, each as often as its owner was drawn.

    `bins` are the weights of each `size` rows in order; `total` is the weight of all.
    """
    virtual = (total - 1) * q
    index = math.floor(virtual)
    place, upto = 0, 0.0
    while upto + bins[place] <= index:
        upto += bins[place]
        place += 1
    row = place * size
    upto += counts[owner[row]]
    while upto <= index:
        row += 1
        upto += counts[owner[row]]
    below = values[row]
    while upto <= min(index + 1, total - 1):
        row += 1
        upto += counts[owner[row]]
    return lerp(below, values[row], virtual - index)


@machine_code()
def add_cuts(
    values: Floats,
    owner: Ints,
    counts: Floats,
    bins: Floats,
    size: int,
    signals: Ints,
    levels: Floats,
    out: Floats,
) -> None:
    """Cuts of draws, (draws, cuts): quantile `levels` (cuts,) of rows `signals` (cuts,) of values.

    `values` and `owner` (signals, pos) are sorted by value; `bins` is (draws, signals, bins).
    """
    for draw in range(len(counts)):
        total = bins[draw, 0].sum()
        for cut in range(signals.size):
            s = signals[cut]
            out[draw, cut] = quantile(
                values[s], owner[s], counts[draw], bins[draw, s], size, total, levels[cut]
            )


@machine_code("contract")
def norm(z: Floats, low: float, high: float, added: float, out: Floats) -> None:
    """Eq. 11 of `z` between given quantiles, with `added` to their range."""
    factor = 0.0 if high - low < EPSILON else 1 / (high - low + added)
    for i in range(z.size):
        x = (z[i] - low) * factor
        x = x if x > 0.0 else 0.0
        out[i] = x if x < 1.0 else 1.0


@machine_code("contract", "reassoc", "nsz")
def add_products(work: Floats, weights: Floats, rows: int, scaled: Floats, out: Floats) -> None:
    """Adds the upper triangle of weighted products of columns `work` (WIDTH, CHUNK).

    Four products at a time, so that what is loaded serves four.
    """
    place = 0
    for i in range(WIDTH):
        for row in range(rows):
            scaled[row] = weights[row] * work[i, row]
        j = i
        while j + 4 <= WIDTH:
            a = b = c = d = 0.0
            for row in range(rows):
                x = scaled[row]
                a += x * work[j, row]
                b += x * work[j + 1, row]
                c += x * work[j + 2, row]
                d += x * work[j + 3, row]
            out[place] += a
            out[place + 1] += b
            out[place + 2] += c
            out[place + 3] += d
            j, place = j + 4, place + 4
        while j < WIDTH:
            a = 0.0
            for row in range(rows):
                a += scaled[row] * work[j, row]
            out[place] += a
            j, place = j + 1, place + 1


@machine_code("contract")
def fill(
    columns: Floats, first: int, last: int, cuts: Floats, added: float, work: Floats, at: int
) -> None:
    """The regression's columns of rows first to last - 1, from place `at` of `work` on."""
    end = at + last - first
    for column, signal in (
        (1, ENTROPY),
        (3, TEACHER_ENTROPY),
        (4, DISAGREEMENT),
        (6, COMPATIBILITY),
    ):
        low, high = cuts[2 * signal], cuts[2 * signal + 1]
        norm(columns[signal, first:last], low, high, added, work[column, at:end])
    for i in range(at, end):
        work[2, i] = columns[POSITION, first + i - at]
        work[5, i] = work[1, i] * work[4, i]
        work[7, i] = work[4, i] * work[6, i]
        work[8, i] = work[4, i] - work[7, i]
        work[9, i] = columns[OUTCOME, first + i - at]


@machine_code()
def add_sums(
    columns: Floats, starts: Ints, counts: Floats, cuts: Floats, added: float, out: Floats
) -> None:
    """Cross-products (draws, m) of [1, predictors, outcome] in Q3, under each draw's cuts.

    `columns` (7, pos) in order of cluster, those of one from its `starts` (clusters + 1,) on;
    `added` to ranges.
    """
    work, weights, scaled = np.ones((WIDTH, CHUNK)), np.empty(CHUNK), np.empty(CHUNK)
    for draw in range(len(counts)):
        entropy_cut, kl_cut, at = cuts[draw, LOW_ENTROPY], cuts[draw, HIGH_KL], 0
        for cluster in np.flatnonzero(counts[draw]):
            count, first = counts[draw, cluster], starts[cluster]
            while first < starts[cluster + 1]:
                last = min(starts[cluster + 1], first + CHUNK - at)
                fill(columns, first, last, cuts[draw], added, work, at)
                for row in range(first, last):
                    inside = (columns[ENTROPY, row] <= entropy_cut) & (columns[KL_0, row] >= kl_cut)
                    weights[at + row - first] = count if inside else 0.0
                at, first = at + last - first, last
                if at == CHUNK:
                    add_products(work, weights, at, scaled, out[draw])
                    at = 0
        add_products(work, weights, at, scaled, out[draw])


@machine_code()
def reached(upto: Floats, index: float) -> int:
    """The first row whose cumulative weight, upto[row + 1], is above `index`."""
    low, high = 0, upto.size - 2
    while low < high:
        middle = (low + high) // 2
        if upto[middle + 1] > index:
            high = middle
        else:
            low = middle + 1
    return low


@machine_code()
def add_gaps(
    proxy: Floats,
    columns: Floats,
    owner: Ints,
    counts: Floats,
    cuts: Floats,
    levels: Floats,
    out: Floats,
) -> None:
    """Sum and count of the outcome, high then low, (draws, 4), split by the proxy in Q3.

    `proxy` (pos,) is ascending, `columns` (7, pos) and `owner` (pos,) in its order; `levels` are
    the lower and the upper cut's. Left at 0 where Q3 is empty or its proxy constant.
    """
    upto, sums = np.zeros(proxy.size + 1), np.zeros(proxy.size + 1)
    for draw in range(len(counts)):
        entropy_cut, kl_cut = cuts[draw, LOW_ENTROPY], cuts[draw, HIGH_KL]
        for i in range(proxy.size):
            inside = columns[ENTROPY, i] <= entropy_cut and columns[KL_0, i] >= kl_cut
            weight = counts[draw, owner[i]] if inside else 0.0
            upto[i + 1] = upto[i] + weight
            sums[i + 1] = sums[i] + weight * columns[OUTCOME, i]
        total = upto[-1]
        if total == 0 or proxy[reached(upto, 0)] == proxy[reached(upto, total - 1)]:
            continue
        ends = np.empty(2)
        for side in range(2):
            virtual = (total - 1) * levels[side]
            index = math.floor(virtual)
            a, b = reached(upto, index), reached(upto, min(index + 1, total - 1))
            ends[side] = lerp(proxy[a], proxy[b], virtual - index)
        low, high = np.searchsorted(proxy, ends[0], "right"), np.searchsorted(proxy, ends[1])
        out[draw, 0], out[draw, 1] = sums[-1] - sums[high], total - upto[high]
        out[draw, 2], out[draw, 3] = sums[low], upto[low]
