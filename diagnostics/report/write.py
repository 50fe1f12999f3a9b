"""Writes a report folder: tables with their twins, figures, results.json and the page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from diagnostics.files import whole_file, write_json, write_text
from diagnostics.paper.tables import PAPER_TABLES, paper_table
from diagnostics.progress import bar
from diagnostics.report.analysis import ReportSettings, Results, analyse, supports
from diagnostics.report.captions import PAPER_COLUMNS, VIEWS
from diagnostics.report.chapters import Sheet
from diagnostics.report.estimates import write_estimates
from diagnostics.report.figures import FIGURES, figure_style
from diagnostics.report.formats import DEFAULT_FORMATS, Format, write_sheet
from diagnostics.report.page import render_page
from diagnostics.report.views import noise_note
from diagnostics.scoring.run import Run

FIGURE_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None},
}


def write_report(
    runs: Sequence[Run],
    out: Path,
    settings: ReportSettings,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> Path:
    """Analyses `runs`, writes the report to `out` and returns the page's path.

    `formats` of its tables.
    """
    steps = sum(len(supports(run, settings.top_k)) * len(run.checkpoints) for run in runs)
    with bar("statistics", steps) as advance:
        results = analyse(runs, settings, advance)
    for name in results.tables:
        _write_table(out / "tables", name, results, formats)
    with figure_style():
        svgs = {
            name: write_figure(draw(results), out / "figures", name, settings.definitions)
            for name, draw in FIGURES.items()
        }
    write_json(out / "results.json", record(results), indent=None)
    write_estimates(out, results.estimates, settings.definitions)
    page = out / "report.html"
    write_text(page, render_page(results, svgs))
    return page


def record(results: Results) -> dict[str, Any]:
    """Everything of a report as JSON values; a number that does not exist is null."""
    tables = {name: json_rows(frame) for name, frame in results.tables.items()}
    return {
        **asdict(results.settings),
        "runs": plain(results.runs),
        "answers": [
            plain(asdict(a) | {"verdict": a.verdict(), "in_noise": a.in_noise()})
            for a in results.answers
        ],
        "tables": tables,
        "paper": {name: json_rows(paper_table(name)) for name in tables if name in PAPER_TABLES},
    }


def _write_table(folder: Path, name: str, results: Results, formats: Sequence[Format]) -> None:
    view, frame = VIEWS[name], results.tables[name]
    beside = PAPER_COLUMNS.get(name, ())
    sheet = Sheet(
        name=name,
        frame=frame,
        view=view,
        note=noise_note(frame, view.columns, results.tables["noise"]),
        paper=paper_table(name) if beside else None,
        paper_columns=beside,
    )
    write_sheet(folder / name, sheet, results.settings.definitions, formats)


def write_figure(figure: Figure, folder: Path, name: str, definitions: str) -> str:
    """Writes PNG and PDF on white, and returns the SVG with a clear ground."""
    said = {"png": "Description", "pdf": "Subject"}
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=FIGURE_METADATA["svg"])
    for suffix in ("png", "pdf"):
        with whole_file(folder / f"{name}.{suffix}") as partial:
            metadata = FIGURE_METADATA[suffix] | {said[suffix]: f"definitions: {definitions}"}
            smaller: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if suffix == "png" else {}
            figure.savefig(partial, format=suffix, facecolor="white", metadata=metadata, **smaller)
    return drawn.getvalue()


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON values."""
    return [
        {str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")
    ]


def plain(value: Any) -> Any:
    """JSON values: NaN as null, numpy scalars as Python's."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
