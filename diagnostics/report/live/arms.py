"""Writes the report of live interventions: tables 2, 7, 8 and 10, figures, numbers, the page.

Trainings and rescoring happened elsewhere; here is one run and the arms whose checkpoints it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from diagnostics.progress import bar
from diagnostics.report.chapters import Chapter, Sheet
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.live.analysis import analyse_arms
from diagnostics.report.live.chapter import interventions_chapter
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.interventions import Arm

NOTHING: Mapping[str, Any] = MappingProxyType({})


def report_arms(
    run: Run,
    arms: Sequence[Arm],
    settings: ReportSettings,
    *,
    extra: Sequence[Sheet] = (),
    missing: Mapping[str, str] = NOTHING,
    training: Mapping[str, Any] = NOTHING,
) -> Chapter:
    """The chapter of arms that were rescored in `run`.

    `extra` tables come after the others; `missing` says of each arm that failed
    or was skipped why; `training` holds settings that all arms share. Raises InputError as
    `analyse_arms` does.
    """
    with bar("statistics", len(arms)) as advance:
        results = analyse_arms(
            run,
            arms,
            settings,
            missing=missing,
            training=training,
            advance=advance,
        )
    return interventions_chapter(results, extra)
