"""Values of a token table: which gain is asked for, and the refusal of what is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError

Floats = NDArray[np.float64]
Outcome = Literal["gain", "gain_rel"]


def require_finite(
    values: Floats, name: str, frame: pd.DataFrame | Mapping[str, Floats], rows: NDArray[np.bool_]
) -> None:
    """Refuses NaN and infinity among `values`, those of `rows` (pos,); names the first context."""
    fine = np.isfinite(values)
    if fine.all():
        return
    row = np.flatnonzero(rows)[int(np.argmin(fine))]
    context, position = (
        np.asarray(frame[c])[row] if c in frame else "?" for c in ("context_id", "position")
    )
    raise InputError(
        where=f"token table, context {context}, position {position}",
        expected=f"a finite `{name}`",
        got=f"{values[int(np.argmin(fine))]}",
        fix="score that context again, or drop it",
    )
