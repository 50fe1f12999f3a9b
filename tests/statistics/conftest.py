"""Synthetic token tables and draws for the tests of the statistics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statistics_reference import make_frame

from diagnostics.statistics.inference.bootstrap import draw_counts


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    """One checkpoint's token table: 10 prompts of 2 rollouts, about 330 positions."""
    return make_frame(seed=11)


@pytest.fixture(scope="session")
def counts(frame: pd.DataFrame) -> np.ndarray:
    """Few draws, for statistics that brute force recomputes, (draws, prompts)."""
    return draw_counts(frame["prompt_id"].nunique(), draws=60, seed=5)
