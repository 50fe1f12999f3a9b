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
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diagnostics.files import whole_file, write_json, write_text
from diagnostics.paper.tables import PAPER_TABLES, paper_table
from diagnostics.progress import bar
from diagnostics.report.analysis import ReportSettings, Results, analyse, supports
from diagnostics.report.captions import VIEWS
from diagnostics.report.figures import PLATES, figure_style
from diagnostics.report.page import render_page
from diagnostics.report.views import View, cells, latex, markdown, noise_note
from diagnostics.scoring.run import Run

COLORS = 128  # of a PNG
FIGURE_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None},
}


def write_report(runs: Sequence[Run], out: Path, settings: ReportSettings) -> Path:
    """Analyses `runs`, writes the report to `out` and returns the page's path."""
    steps = sum(len(supports(run, settings.top_k)) * len(run.checkpoints) for run in runs)
    with bar("statistics", steps) as advance:
        results = analyse(runs, settings, advance)
    for name in results.tables:
        _write_table(out / "tables", name, results)
    with figure_style():
        drawn = {name: plate.draw(plate.data(results)) for name, plate in PLATES.items()}
        svgs = {
            name: write_figure(figure, out / "figures", name, settings.definitions)
            for name, figure in drawn.items()
            if figure is not None
        }
    write_json(out / "results.json", record(results), indent=None)
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


def _write_table(folder: Path, name: str, results: Results) -> None:
    view, frame = VIEWS[name], results.tables[name]
    noise = noise_note(frame, view.columns, results.tables["noise"])
    write_twins(folder / name, frame, view, noise, results.settings.definitions)


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
    said = f"definitions: {definitions}"
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=FIGURE_METADATA["svg"])
    figure.set_layout_engine("none")  # laid out by now, and alike in every form
    with whole_file(folder / f"{name}.pdf") as partial:
        metadata = FIGURE_METADATA["pdf"] | {"Subject": said}
        figure.savefig(partial, format="pdf", facecolor="white", metadata=metadata)
    with whole_file(folder / f"{name}.png") as partial:
        _write_png(figure, partial, said)
    return drawn.getvalue()


def _write_png(figure: Figure, place: Path, description: str) -> None:
    """A PNG of few colours, a quarter of the size of a full one."""
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", facecolor="white")
    info = PngInfo()
    info.add_text("Description", description)
    with Image.open(pixels) as image:
        white = Image.new("RGBA", image.size, "white")
        few = Image.alpha_composite(white, image).convert("RGB").quantize(COLORS)
        few.save(place, format="png", optimize=True, pnginfo=info, dpi=image.info["dpi"])


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
