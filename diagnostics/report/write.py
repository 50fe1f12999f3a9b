"""Writes a report folder: tables with their twins, figures, results.json and the page."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diagnostics.files import whole_file, write_json, write_text
from diagnostics.progress import bar
from diagnostics.report.chapters import Chapter, record
from diagnostics.report.comparison.estimates import FILE as ESTIMATES
from diagnostics.report.comparison.estimates import write_estimates
from diagnostics.report.contexts.analysis import ReportSettings, analyse, supports
from diagnostics.report.contexts.chapter import contexts_chapter
from diagnostics.report.drawing import draw, plates_of
from diagnostics.report.figures import figure_style
from diagnostics.report.page import NONE, render_page
from diagnostics.report.tables.formats import DEFAULT_FORMATS, Format, write_sheet
from diagnostics.report.viewer.page import ViewerSettings, viewer_section
from diagnostics.scoring.run import Run

COLORS = 128  # of a PNG
FIGURE_METADATA: dict[str, dict[str, Any]] = {
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
    return write_chapters([report_runs(runs, settings)], out, viewers=viewers_of(runs, settings))


def viewers_of(runs: Sequence[Run], settings: ReportSettings) -> dict[str, Markup]:
    """The token viewer of the first run, by its name."""
    shown = ViewerSettings(top_k=settings.top_k, seed=settings.seed)
    return {run.name: viewer_section(run, shown) for run in runs[:1]}


def write_chapters(
    chapters: Sequence[Chapter],
    out: Path,
    *,
    viewers: Mapping[str, Markup] = NONE,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> Path:
    """Writes tables, figures, `results.json` and the page; the page's path.

    A table or figure of a name that an earlier chapter has gets its chapter's key at its end.
    """
    chapters = own_names(chapters)
    svgs: dict[str, str] = {}
    for chapter in chapters:
        for sheet in chapter.sheets:
            write_sheet(out / "tables" / sheet.name, sheet, chapter.definitions, formats)
        with figure_style():
            for plate in chapter.plates:
                figure = draw(plate)
                if figure is not None:
                    place = out / "figures"
                    svgs[plate.name] = write_figure(figure, place, plate.name, chapter.definitions)
    write_json(out / "results.json", record(chapters), indent=None)
    _write_estimates(out, chapters)
    page = out / "report.html"
    write_text(page, render_page(chapters, svgs, viewers, formats[0]))
    return page


def _write_estimates(out: Path, chapters: Sequence[Chapter]) -> None:
    """What comparisons are made from, of all chapters that have it."""
    frames = [chapter.estimates for chapter in chapters if chapter.estimates is not None]
    if frames:
        write_estimates(out, pd.concat(frames, ignore_index=True))
    else:
        (out / ESTIMATES).unlink(missing_ok=True)  # of an earlier report


def own_names(chapters: Sequence[Chapter]) -> list[Chapter]:
    """Chapters whose keys, tables and figures all have names of their own."""
    keys: Counter[str] = Counter()
    taken: set[str] = set()
    found = []
    for chapter in chapters:
        keys[chapter.key] += 1
        again = keys[chapter.key] > 1
        key = f"{chapter.key}-{keys[chapter.key]}" if again else chapter.key

        def free(name: str, key: str = key) -> str:
            chosen = f"{name}_{key}" if name in taken else name
            taken.add(chosen)
            return chosen

        sheets = tuple(replace(s, name=free(s.name)) for s in chapter.sheets)
        plates = tuple(replace(p, name=free(p.name)) for p in chapter.plates)
        found.append(replace(chapter, key=key, sheets=sheets, plates=plates))
    return found


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
        few = (
            Image.alpha_composite(white, image)
            .convert("RGB")
            .quantize(COLORS, Image.Quantize.MAXCOVERAGE)
        )
        few.save(place, format="png", optimize=True, pnginfo=info, dpi=image.info["dpi"])
