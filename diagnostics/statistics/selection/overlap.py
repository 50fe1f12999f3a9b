"""How much what several selectors keep is the same (Jaccard index), and lies in Q3.

Arrays in, a matrix out. Masks are of one bank at one budget; what they hold does not depend on a
checkpoint, since selectors rank by theta_0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.inference.results import Result

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Overlap(Result):
    """Overlap of `s` kept sets.

    Fields: `names` of the sets, s of them; `jaccard` (s, s), |A and B| / |A or B|, 1 on the
    diagonal, symmetric; `n_kept` (s,); `q3_share` (s,), the share of each set that lies in Q3, None
    where quadrants are not known.
    """

    names: tuple[str, ...]
    jaccard: Floats
    n_kept: NDArray[np.int64]
    q3_share: Floats | None

    def to_frame(self) -> pd.DataFrame:
        """One row a set: `selector`, `n_kept`, `q3_share` (NaN: not known), its `jaccard` row."""
        shares = np.full(len(self.names), np.nan) if self.q3_share is None else self.q3_share
        first = {"selector": self.names, "n_kept": self.n_kept, "q3_share": shares}
        columns = {f"jaccard {name}": self.jaccard[:, i] for i, name in enumerate(self.names)}
        return pd.DataFrame(first | columns)


def overlap(kept: Mapping[str, Mask], q3: Mask | None = None) -> Overlap:
    """The overlap of every two kept sets, by name, each (pos,) bool; `q3` (pos,) bool.

    Raises InputError for no sets or an empty one: 0 / 0 is no overlap.
    """
    if not kept:
        raise InputError(
            where="selector overlap", expected="kept sets", got="none", fix="name selectors"
        )
    sets = np.stack([np.asarray(mask, dtype=np.float64) for mask in kept.values()])
    sizes = sets.sum(axis=1)
    for name, size in zip(kept, sizes, strict=True):
        if not size:
            raise InputError(
                where=f"selector overlap, {name}",
                expected="at least one kept position",
                got="none",
                fix="leave it out or raise its budget",
            )
    both = sets @ sets.T
    return Overlap(
        names=tuple(kept),
        jaccard=both / (sizes[:, None] + sizes[None, :] - both),
        n_kept=sizes.astype(np.int64),
        q3_share=None if q3 is None else sets @ q3.astype(np.float64) / sizes,
    )
