"""The noise of scoring of numbers that no table holds: the same numbers of unchanged tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.report.contexts.analysis import Results
from diagnostics.report.noise import spread
from diagnostics.statistics.analyses.noise import farthest
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval


def reach(
    results: Results, measure: Callable[[pd.DataFrame, Bootstrap], Sequence[Interval]]
) -> float:
    """The farthest that intervals of the unchanged tables come from 0; NaN: not measured."""
    found: list[Interval] = []
    for frame in results.unchanged:
        try:
            found += measure(frame, results.settings.bootstrap)
        except InputError:  # the sample lacks positions of a kind
            return np.nan
    return farthest(found)


def row_spread(row: Mapping[Any, Any], name: str) -> Interval:
    """The interval that a row of a table of bins holds."""
    return spread({str(key): value for key, value in row.items()}, name)
