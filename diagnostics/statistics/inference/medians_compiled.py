"""Medians of residuals whose regression is taken anew in each draw: numba, one draw at a time.

Every value changes with the draw, so nothing can be sorted once: a draw's weighted median is found
by partition (Hoare's selection with three parts). `medians` holds the method, and imports this
module only when it is used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diagnostics.scoring.reduce_compiled import machine_code

Floats = NDArray[np.float64]


@machine_code()
def weighted_median(values: Floats, weights: Floats, half: float) -> float:
    """The mean of the first value that has `half` of the weight up to it, and the first with more.

    Both arrays (pos,) are reordered.
    """
    start, end, below = 0, len(values), 0.0
    while True:
        pivot = values[(start + end) // 2]
        low, high, place = start, end, start
        less, equal = 0.0, 0.0
        while place < high:  # values below the pivot to the front, those above it to the end
            value, weight = values[place], weights[place]
            if value < pivot:
                values[place], weights[place] = values[low], weights[low]
                values[low], weights[low] = value, weight
                less += weight
                low += 1
                place += 1
            elif value > pivot:
                high -= 1
                values[place], weights[place] = values[high], weights[high]
                values[high], weights[high] = value, weight
            else:
                equal += weight
                place += 1
        if below + less >= half:
            end = low
        elif below + less + equal >= half:
            break
        else:
            below += less + equal
            start = high
    if below + less + equal > half:
        return float(pivot)
    after = np.inf
    for value in values:
        if value > pivot:
            after = min(after, value)
    return float((pivot + after) / 2)


@machine_code()
def refitted(
    columns: Floats,
    outcome: Floats,
    owner: NDArray[np.int64],
    counts: Floats,
    beta: Floats,
    windows: NDArray[np.int64],
) -> Floats:
    """The median of outcome (pos,) - beta' columns (p, pos) in each draw, (draws,).

    A row counts as often as its cluster `owner` (pos,) is drawn in `counts` (draws, clusters);
    `beta` is (draws, p). Rows before `windows` (draws, 2) are below the middle, rows behind it
    above. NaN where a draw holds no row, or its beta is not finite.
    """
    found = np.full(len(counts), np.nan)
    values, weights = np.empty(len(outcome)), np.empty(len(outcome))
    for draw in range(len(counts)):
        total = 0.0
        for row in range(len(outcome)):
            total += counts[draw, owner[row]]
        if not np.isfinite(beta[draw]).all() or total == 0:
            continue
        first, last = windows[draw]
        below = 0.0
        for row in range(first):
            below += counts[draw, owner[row]]
        size = 0
        for row in range(first, last):
            weight = counts[draw, owner[row]]
            if weight > 0:
                value = outcome[row]
                for place in range(len(columns)):
                    value -= columns[place, row] * beta[draw, place]
                values[size], weights[size] = value, weight
                size += 1
        found[draw] = weighted_median(values[:size], weights[:size], total / 2 - below)
    return found
