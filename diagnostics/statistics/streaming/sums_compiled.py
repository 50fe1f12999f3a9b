"""Compiled inner loops of `steps`: rows of a chunk to sums, one pass over the rows each.

Each is a second form of array functions that the in-memory statistics use, and is held to them bit
for bit by tests: `normalize.norm`, `tokens.derived`, `gaps.matched_pairs`.
Imported only when used. Not covered: what selectors rank by (`keys_compiled`), quantiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diagnostics.scoring.reduce_compiled import machine_code

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@machine_code()
def clipped(z: float) -> float:
    """z in [0, 1]."""
    return min(max(z, 0.0), 1.0)


@machine_code()
def predictor_rows(
    signals: Floats, relative: Floats, outcomes: Floats, centre: Floats, out: Floats, ends: Floats
) -> None:
    """Rows [1, predictors, outcomes] less `centre` (11,) into `out` (pos, 11).

    `signals` (4, pos) are the stretched H, D, C, H_T, `outcomes` (2, pos) gain and relative gain.
    `ends` (2, 8) takes the least and greatest of each predictor, uncentred, in the order of
    `regression.PREDICTORS`.
    """
    for i in range(len(relative)):
        h, d, c = clipped(signals[0, i]), clipped(signals[1, i]), clipped(signals[2, i])
        t, learnable = clipped(signals[3, i]), d * c
        values = (h, relative[i], t, d, h * d, c, learnable, d - learnable)
        out[i, 0] = 1.0
        for k in range(8):
            ends[0, k] = min(ends[0, k], values[k])
            ends[1, k] = max(ends[1, k], values[k])
            out[i, k + 1] = values[k] - centre[k + 1]
        out[i, 9] = outcomes[0, i] - centre[9]
        out[i, 10] = outcomes[1, i] - centre[10]


@machine_code()
def quadrant_sums(
    quadrant: NDArray[np.int8],
    ends: Indices,
    gain: Floats,
    signals: Floats,
    out: Floats,
    total: Floats,
) -> None:
    """Counts and summed gain of each prompt's quadrants into `out` (p, 8), n then gain for 1 to 4.

    `total` (4, 3) takes the sums of `signals` (3, pos) in each quadrant.
    """
    for prompt in range(len(ends) - 1):
        for i in range(ends[prompt], ends[prompt + 1]):
            q = quadrant[i] - 1
            out[prompt, q] += 1.0
            out[prompt, 4 + q] += gain[i]
            for k in range(3):
                total[q, k] += signals[k, i]


@machine_code()
def q3_order(
    quadrant: NDArray[np.int8],
    prompt_runs: Indices,
    run_ends: Indices,
    run_order: Indices,
    rows: Indices,
    ends: Indices,
) -> int:
    """Rows of Q3 by prompt, context id and position into `rows` (pos,); says how many.

    `ends` (p + 1,) takes where each prompt's begin.
    """
    found = 0
    for prompt in range(len(prompt_runs) - 1):
        for at in range(prompt_runs[prompt], prompt_runs[prompt + 1]):
            run = run_order[at]
            for i in range(run_ends[run], run_ends[run + 1]):
                if quadrant[i] == 3:
                    rows[found] = i
                    found += 1
        ends[prompt + 1] = found
    return found


@machine_code()
def matched_sums(
    proxy: Floats, points: Floats, outcomes: Floats, ends: Indices, out: Floats, balance: Floats
) -> None:
    """Pairs of Q3 rows in the order of `q3_order`: sums of each prompt into `out` (p, 3).

    Those are pairs, and the differences of both `outcomes` (2, q3). `points` (3, q3) are the
    covariates; `balance` (6, 3) takes their sums over all, squares over all less 1/2, sums over
    rows not above the median, their count, sums over matched low rows and over high rows.
    """
    longest = 1
    for prompt in range(len(ends) - 1):
        longest = max(longest, ends[prompt + 1] - ends[prompt])
    low, away = np.empty((3, longest)), np.empty(longest)
    row_of = np.empty(longest, dtype=np.int64)
    for prompt in range(len(ends) - 1):
        first, last = ends[prompt], ends[prompt + 1]
        if first == last:
            continue
        median = median_of(proxy[first:last])
        lows = 0
        for i in range(first, last):
            for k in range(3):
                balance[0, k] += points[k, i]
                balance[1, k] += (points[k, i] - 0.5) ** 2
            if proxy[i] <= median:
                for k in range(3):
                    low[k, lows] = points[k, i]
                    balance[2, k] += points[k, i]
                    balance[3, k] += 1.0
                row_of[lows] = i
                lows += 1
        for i in range(first, last):
            if proxy[i] > median:
                near = row_of[nearest(points[0, i], points[1, i], points[2, i], low, away, lows)]
                out[prompt, 0] += 1.0
                out[prompt, 1] += outcomes[0, i] - outcomes[0, near]
                out[prompt, 2] += outcomes[1, i] - outcomes[1, near]
                for k in range(3):
                    balance[4, k] += points[k, near]
                    balance[5, k] += points[k, i]


@machine_code()
def median_of(values: Floats) -> float:
    """The median of some values, as np.median rounds it."""
    size, ordered = len(values), np.sort(values)
    upper = ordered[size // 2]
    return float(upper if size % 2 else (ordered[size // 2 - 1] + upper) / 2)


@machine_code()
def nearest(x: float, y: float, z: float, low: Floats, away: Floats, lows: int) -> int:
    """The first of `lows` points (3, lows) that is nearest; distances go to `away`."""
    for j in range(lows):
        a, b, c = x - low[0, j], y - low[1, j], z - low[2, j]
        away[j] = a * a + b * b + c * c
    best = 0
    for j in range(1, lows):
        if away[j] < away[best]:
            best = j
    return best


@machine_code()
def add_rows(outcomes: Floats, rows: Indices, column: Indices, ends: Indices, out: Floats) -> None:
    """Adds [1, outcomes] of ascending `rows` to `out` (p, columns * 3), by prompt and column.

    `outcomes` are (2, pos); `column` (rows,) says which three sums; -1 is left out.
    """
    prompt = 0
    for at in range(len(rows)):
        row, place = rows[at], 3 * column[at]
        while row >= ends[prompt + 1]:
            prompt += 1
        if place >= 0:
            out[prompt, place] += 1.0
            out[prompt, place + 1] += outcomes[0, row]
            out[prompt, place + 2] += outcomes[1, row]
