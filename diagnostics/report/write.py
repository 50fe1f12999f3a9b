"""Writes a report folder: tables with their twins, figures, results.json and the page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from diagnostics.files import whole_file, write_json, write_text
from diagnostics.progress import bar
from diagnostics.report.analysis import ReportSettings, analyse, supports
from diagnostics.report.chapters import Chapter, Sheet, record
from diagnostics.report.contexts import contexts_chapter
from diagnostics.report.drawing import draw, plates_of
from diagnostics.report.figures import figure_style
from diagnostics.report.page import render_page
from diagnostics.report.views import View, cells, latex, markdown
from diagnostics.scoring.run import Run

FIGURE_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None},
}


def report_runs(runs: Sequence[Run], settings: ReportSettings) -> Chapter:
    """Analyses `runs`: the chapter of fixed contexts. Raises InputError as `analyse` does."""
    steps = sum(len(supports(run, settings.top_k)) * len(run.checkpoints) for run in runs)
    with bar("statistics", steps) as advance:
        results = analyse(runs, settings, advance)
    return contexts_chapter(results, plates_of(results))


def write_report(runs: Sequence[Run], out: Path, settings: ReportSettings) -> Path:
    """Analyses `runs`, writes the report to `out` and returns the page's path."""
    return write_chapters([report_runs(runs, settings)], out)


def write_chapters(chapters: Sequence[Chapter], out: Path) -> Path:
    """Writes tables, figures, `results.json` and the page; the page's path.

    A table or figure of a name that an earlier chapter has gets its chapter's key at its end.
    """
    chapters = own_names(chapters)
    svgs: dict[str, str] = {}
    for chapter in chapters:
        for sheet in chapter.sheets:
            write_sheet(out / "tables", sheet, chapter.definitions)
        with figure_style():
            for plate in chapter.plates:
                figure = draw(plate)
                svgs[plate.name] = write_figure(
                    figure, out / "figures", plate.name, chapter.definitions
                )
    write_json(out / "results.json", record(chapters), indent=None)
    page = out / "report.html"
    write_text(page, render_page(chapters, svgs))
    return page


def own_names(chapters: Sequence[Chapter]) -> list[Chapter]:
    """Chapters whose tables and figures all have names of their own."""
    taken: set[str] = set()

    def free(name: str, key: str) -> str:
        chosen = f"{name}_{key}" if name in taken else name
        taken.add(chosen)
        return chosen

    return [
        replace(
            chapter,
            sheets=tuple(replace(s, name=free(s.name, chapter.key)) for s in chapter.sheets),
            plates=tuple(replace(p, name=free(p.name, chapter.key)) for p in chapter.plates),
        )
        for chapter in chapters
    ]


def write_sheet(folder: Path, sheet: Sheet, definitions: str) -> None:
    """Writes a table as CSV, Markdown and LaTeX."""
    write_twins(folder / sheet.name, sheet.frame, sheet.view, sheet.note, definitions)


def write_twins(place: Path, frame: pd.DataFrame, view: View, note: str, definitions: str) -> None:
    """Writes a table as CSV, Markdown and LaTeX; `place` is their path without a suffix."""
    shown = cells(frame, view.columns)
    said = f"{note} Definitions: {definitions}.".strip()
    write_csv(place.with_name(f"{place.name}.csv"), frame, definitions)
    write_text(place.with_name(f"{place.name}.md"), markdown(shown, view, said))
    write_text(place.with_name(f"{place.name}.tex"), latex(shown, view, said))


def write_csv(path: Path, frame: pd.DataFrame, definitions: str) -> None:
    """Writes a table whose last column names the definition set that made each number."""
    named = frame if "definitions" in frame else frame.assign(definitions=definitions)
    write_text(path, named.to_csv(index=False))


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
