"""Writes the report of live interventions: tables 2, 7, 8 and 10, figures, numbers, the page.

Trainings and rescoring happened elsewhere; here is one run and the arms whose checkpoints it holds.
Not covered: Figure 4C-D, which are offline figures of the other report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diagnostics.files import write_json, write_text
from diagnostics.progress import bar
from diagnostics.report.analysis import ReportSettings
from diagnostics.report.chapters import Sheet
from diagnostics.report.figures import figure_style
from diagnostics.report.formats import DEFAULT_FORMATS, Format, write_sheet
from diagnostics.report.live_analysis import Extra, LiveResults, analyse_arms
from diagnostics.report.live_figures import FIGURES
from diagnostics.report.live_page import render_live_page
from diagnostics.report.live_views import PAPER_COLUMNS, paper_beside
from diagnostics.report.write import json_rows, plain, write_figure
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.interventions import Arm

NOTHING: Mapping[str, Any] = MappingProxyType({})


def write_interventions(
    run: Run,
    arms: Sequence[Arm],
    out: Path,
    settings: ReportSettings,
    *,
    extra_tables: Extra = NOTHING,
    missing: Mapping[str, str] = NOTHING,
    training: Mapping[str, Any] = NOTHING,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> Path:
    """Reports arms that were rescored in `run`, to `out`; returns the page's path.

    `extra_tables` come after the others, with their views; `missing` says of each arm that failed
    or was skipped why; `training` holds settings that all arms share; `formats` of its tables.
    Raises InputError as `analyse_arms` does.
    """
    with bar("statistics", len(arms)) as advance:
        results = analyse_arms(
            run,
            arms,
            settings,
            extra_tables=extra_tables,
            missing=missing,
            training=training,
            advance=advance,
        )
    for name, frame in results.tables.items():
        sheet = Sheet(
            name=name,
            frame=frame,
            view=results.views[name],
            note=results.note_of(name),
            paper=paper_beside(name),
            paper_columns=PAPER_COLUMNS.get(name, ()),
        )
        write_sheet(out / "tables" / name, sheet, settings.definitions, formats)
    svgs: dict[str, str] = {}
    with figure_style():
        for name, draw in FIGURES.items():
            figure = draw(results.drawn)
            if figure is not None:
                svgs[name] = write_figure(figure, out / "figures", name, settings.definitions)
    write_json(out / "results.json", live_record(results), indent=None)
    page = out / "report.html"
    write_text(page, render_live_page(results, svgs))
    return page


def live_record(results: LiveResults) -> dict[str, Any]:
    """Everything of the report as JSON values; a number that does not exist is null."""
    paper = {name: paper_beside(name) for name in PAPER_COLUMNS if name in results.tables}
    return {
        **asdict(results.settings),
        "training": plain(results.training),
        "runs": [plain(results.run)],
        "arms": [plain(asdict(arm)) for arm in results.arms],
        "noise": plain(dict(results.noise)),
        "tables": {name: json_rows(frame) for name, frame in results.tables.items()},
        "paper": {name: json_rows(frame) for name, frame in paper.items() if frame is not None},
    }
