"""The page: one self-contained HTML file from chapters and drawn figures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup, escape

from diagnostics import __version__
from diagnostics.report.assets import asset, policy
from diagnostics.report.chapters import Chapter, Plate, Sheet
from diagnostics.report.figures.style import INK
from diagnostics.report.tables.grids import grid, parts, plain_grid

NONE: Mapping[str, Markup] = MappingProxyType({})
FOLDED = 200  # rows; of a longer one the page has the first part alone, and says where the rest is
DRAWN = 60  # rows; a figure's numbers beyond that are in results.json alone


def render_page(
    chapters: Sequence[Chapter],
    svgs: Mapping[str, str],
    viewers: Mapping[str, Markup] = NONE,
    suffix: str = "csv",
) -> str:
    """The page's HTML; `svgs` holds drawn figures by name, `viewers` the token viewers of runs.
    Long tables name their files, of `suffix`. Nothing in it loads anything."""
    return template("page.html.j2").render(
        version=__version__,
        chapters=[_chapter(chapter, svgs, suffix) for chapter in chapters],
        viewers=viewers,
        scripts=("page.js", "viewer.js") if viewers else ("page.js",),
    )


def template(name: str) -> jinja2.Template:
    """A template of ours, every value escaped, nothing undefined let through."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("diagnostics.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"symbols": symbols, "prose": prose}
    environment.tests["nan"] = math.isnan
    environment.globals |= {"asset": asset, "policy": policy, "parts": parts}
    return environment.get_template(name)


def symbols(text: str) -> Markup:
    """Escaped text with the project's symbols set properly: D^L, β_L, H̃_T, top-level only."""
    safe = str(escape(text))
    safe = re.sub(r"(?<=D)\^([LI])", r"<sup>\1</sup>", safe)
    return Markup(re.sub(r"(?<=[β\u0303])_([LIT])", r"<sub>\1</sub>", safe))


def prose(text: str) -> Markup:
    """A sentence of ours: symbols set properly, `commands` as code, numbers never broken."""
    said = re.sub(r"\b(KL|[pHDC])_([0Tt])\b", r"\1<sub>\2</sub>", str(symbols(text)))
    said = re.sub(r"`([^`]+)`", r"<code>\1</code>", said).replace(" %", "\u00a0%")
    return Markup(re.sub(r"\[[^\[\]<>]*\]", lambda found: found[0].replace(" ", "\u00a0"), said))


def inline_svg(svg: str, name: str) -> Markup:
    """An SVG that can stand in a page: no prologue, its ids its own, ink in the text's colour."""
    body = svg[svg.index("<svg") :].replace(INK, "currentColor")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    return Markup(body)  # drawn by ourselves; names in it were escaped by matplotlib


def _chapter(chapter: Chapter, svgs: Mapping[str, str], suffix: str) -> dict[str, Any]:
    return {
        "key": chapter.key,
        "heading": chapter.heading,
        "opening": chapter.opening,
        "explained": chapter.explained,
        "facts": chapter.facts,
        "cards": chapter.cards,
        "remarks": list(chapter.notes.items()),
        "figures": [_figure(p, svgs[p.name]) for p in chapter.plates if p.name in svgs],
        "tables": [_table(sheet, suffix) for sheet in chapter.sheets],
        "settings": chapter.settings,
        "making": chapter.making,
        "runs": chapter.runs,
    }


def _figure(plate: Plate, svg: str) -> dict[str, Any]:
    return {
        "name": plate.name,
        "svg": inline_svg(svg, plate.name),
        "title": plate.title,
        "caption": plate.caption,
        "reading": plate.reading,
        "drawn": {
            name: plain_grid(frame)
            for name, frame in plate.frames.items()
            if 0 < len(frame) <= DRAWN
        },
    }


def _table(sheet: Sheet, suffix: str) -> dict[str, Any]:
    """A table as shown: of a long one its lead, the rest folded."""
    frame, columns = sheet.frame, sheet.view.columns
    lead = frame if sheet.lead is None else frame.iloc[list(sheet.lead)]
    folded = len(lead) < len(frame) <= FOLDED
    return {
        "name": sheet.name,
        "file": f"tables/{sheet.name}.{suffix}",
        "title": sheet.view.title,
        "caption": sheet.view.caption,
        "note": sheet.note,
        "rows": grid(lead, columns),
        "all_rows": grid(frame, columns) if folded else None,
        "count": len(frame),
        "over": sheet.over,
        "paper": None if sheet.paper is None else grid(sheet.paper, sheet.paper_columns),
    }
