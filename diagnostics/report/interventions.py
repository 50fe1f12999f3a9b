"""Writes the report of live interventions: tables 2, 7, 8 and 10, figures, results.json, the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from diagnostics.report.analysis import ReportSettings
from diagnostics.report.views import View
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.interventions import Arm


def write_interventions(
    run: Run,
    arms: Sequence[Arm],
    out: Path,
    settings: ReportSettings,
    *,
    extra_tables: Mapping[str, tuple[pd.DataFrame, View]] = {},
    missing: Mapping[str, str] = {},
    training: Mapping[str, Any] = {},
) -> Path:
    """Reports arms that were rescored in `run`, to `out`; returns the page's path.

    `extra_tables` come after the others, with their views; `missing` says of each arm that failed
    or was skipped why; `training` holds settings that all arms share.
    """
    raise NotImplementedError
