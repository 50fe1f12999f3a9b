"""The first n rows by several keys, without sorting rows that a single key decides.

Equal, row for row, to sorting by all keys (`np.lexsort`) and taking n: the n-th largest value of
the first key is found by partition (O(N)), and only rows that equal it are compared by the next
key. Plain functions on arrays; what the keys mean is `selectors`' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = Sequence[NDArray[Any]]
Mask = NDArray[np.bool_]


def first(keys: Keys, count: int) -> Mask:
    """The `count` rows that come first, (row,) bool: largest first key, equal ones by the next.

    Each key is (row,), without NaN; rows equal in all keys: the earlier one. `count` from 1 to row.
    """
    total = len(keys[0])
    key = keys[0]
    cut = np.partition(key, total - count)[total - count]
    kept = key > cut
    tied = np.flatnonzero(key == cut)
    open_places = count - int(kept.sum())
    if open_places < len(tied) and len(keys) > 1:
        tied = tied[first([k[tied] for k in keys[1:]], open_places)]
    kept[tied[:open_places]] = True
    return np.asarray(kept, dtype=bool)


def tied_share(key: NDArray[Any], kept: Mask) -> float:
    """The share of kept rows equal to the lowest kept `key`, if a dropped row equals it too."""
    tied = key == key[kept].min()
    if not (tied & ~kept).any():
        return 0.0
    return float((tied & kept).sum() / kept.sum())


def with_one_of_each(keys: Keys, kept: Mask, groups: NDArray[np.int64]) -> Mask:
    """`kept` and, of each group that has none of it, the row that comes first; (row,) bool.

    `groups` (row,) holds codes from 0 on.
    """
    missing = np.bincount(groups, weights=kept) == 0
    rows = np.flatnonzero(missing[groups])
    order = rows[np.lexsort([-rows, *(k[rows] for k in reversed(keys))])[::-1]]
    _, leaders = np.unique(groups[order], return_index=True)
    found = kept.copy()
    found[order[leaders]] = True
    return found
