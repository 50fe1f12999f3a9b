"""The page: one self-contained HTML file from results and drawn figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from diagnostics import __version__
from diagnostics.paper.tables import paper_table
from diagnostics.report.analysis import Answer, Results
from diagnostics.report.captions import PAPER_COLUMNS, VIEWS
from diagnostics.report.figures import PLATES, panel_noise
from diagnostics.report.figures.style import INK
from diagnostics.report.scoring import notes, scored_in
from diagnostics.report.views import (
    NOT_MEASURED,
    Shown,
    View,
    cells,
    noise_note,
    number,
    plus_minus,
)
from diagnostics.statistics.analyses.headlines import BUDGET

QUESTIONS = {
    "beta": (
        "Does learnable disagreement predict the gain better than incompatible disagreement?",
        "β_L − β_I over the whole bank",
    ),
    "beta_q3": (
        "Does it also inside Q3, where the student is confident and in disagreement?",
        "β_L − β_I inside Q3",
    ),
    "gap": (
        "Inside Q3, do positions with high student support gain more?",
        "high − low support gap",
    ),
    "budget": (
        "At one and the same budget, does D^L pick better positions than raw KL?",
        f"gain of the top {BUDGET:.0%} by D^L less that by KL",
    ),
}
OUTCOME_NAMES = {"gain": "absolute gain", "gain_rel": "relative gain"}
VERDICTS = {"yes": "Yes", "no": "No", "unclear": "Not clear"}
FOLDED = 200  # rows; of a longer one the page has the first part alone, and says where the rest is
LONG = 20  # rows; a longer table is folded


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer as a page shows it.

    Fields: `outcome` what it is of; `verdict` that colours it; `word` in large; `text` its number;
    `remarks` what a reader must know beside it, as the noise of scoring.
    """

    outcome: str
    verdict: str
    word: str
    text: str
    remarks: tuple[str, ...] = ()


def render_page(results: Results, svgs: dict[str, str]) -> str:
    """The page's HTML; `svgs` holds drawn figures by name. Nothing in it loads anything."""
    checkpoints = list(dict.fromkeys((a.run, a.checkpoint) for a in results.answers))
    return template("report.html.j2").render(
        version=__version__,
        settings=results.settings,
        runs=results.runs,
        facts=_facts(results),
        scoring=[(run["name"], notes(run)) for run in results.runs],
        lead=_questions(results, *checkpoints[0]),
        lead_name=" / ".join(checkpoints[0]),
        others=[_short_answers(results, *who) for who in checkpoints[1:]],
        questions=[QUESTIONS[key][1] for key in QUESTIONS],
        tables=[_table(name, results) for name in VIEWS if name in results.tables],
        figures=[
            shown_figure(
                name,
                svgs[name],
                (plate.title, plate.caption, plate.reading),
                figure_noise(panel_noise(plate.data(results))),
            )
            for name, plate in PLATES.items()
            if name in svgs
        ],
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
    environment.filters["symbols"] = symbols
    return environment.get_template(name)


def shown_figure(name: str, svg: str, text: tuple[str, str, str], noise: str) -> dict[str, Any]:
    """A figure as a page shows it; `text` is its title, caption and how to read it."""
    title, caption, reading = text
    return {
        "name": name,
        "svg": inline_svg(svg, name),
        "title": title,
        "caption": f"{caption} {noise}".strip(),
        "reading": reading,
    }


def figure_noise(panels: Mapping[Any, float]) -> str:
    """The noise of scoring in a figure's panels, for its caption; empty where none shows gains."""
    if not panels:
        return ""
    if all(noise != noise for noise in panels.values()):
        return f"Noise of scoring: {NOT_MEASURED}."
    sizes = ", ".join(f"{panel} {plus_minus(noise)}" for panel, noise in panels.items())
    return f"Grey band: noise of scoring, the most that an unchanged checkpoint shows: {sizes}."


def symbols(text: str) -> Markup:
    """Escaped text with the project's symbols set properly: D^L, β_L, H̃_T, top-level only."""
    safe = str(escape(text))
    safe = re.sub(r"(?<=D)\^([LI])", r"<sup>\1</sup>", safe)
    return Markup(re.sub(r"(?<=[β\u0303])_([LIT])", r"<sub>\1</sub>", safe))


def inline_svg(svg: str, name: str) -> Markup:
    """An SVG that can stand in a page: no prologue, its ids its own, ink in the text's colour."""
    body = svg[svg.index("<svg") :].replace(INK, "currentColor")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    return Markup(body)  # drawn by ourselves; names in it were escaped by matplotlib


def _facts(results: Results) -> list[tuple[str, str]]:
    inventory = results.tables["table05"]
    first = inventory.iloc[0]
    quadrant = results.tables["quadrants"]
    q3 = quadrant[quadrant["quadrant"] == 3]["share"].iloc[0]
    gain = results.tables["checkpoints"].iloc[0]
    mean, single = gain["gain_noise"], gain["noise_q99"]
    return [
        ("mean gain, nats", number(gain["gain"])),
        ("noise of a mean gain", plus_minus(mean) if mean == mean else "not measured"),
        ("noise of one gain, 99 %", plus_minus(single) if single == single else "not measured"),
        ("contexts", f"{first['n_contexts']:,}"),
        ("prompts (clusters)", f"{first['n_prompts']:,}"),
        ("positions", f"{first['n_positions']:,}"),
        ("checkpoints", str(len(inventory))),
        ("Q3 share", f"{q3:.1%}"),
        ("support K", str(results.settings.top_k)),
        ("scored in", scored_in(results.runs[0])),
    ]


def _questions(results: Results, run: str, checkpoint: str) -> list[dict[str, Any]]:
    return [
        {
            "question": question,
            "measure": measure,
            "replies": [
                _reply(_find(results, run, checkpoint, key, outcome)) for outcome in OUTCOME_NAMES
            ],
        }
        for key, (question, measure) in QUESTIONS.items()
    ]


def _short_answers(results: Results, run: str, checkpoint: str) -> dict[str, Any]:
    rows = [
        [_reply(_find(results, run, checkpoint, key, outcome)) for key in QUESTIONS]
        for outcome in OUTCOME_NAMES
    ]
    return {"name": f"{run} / {checkpoint}", "rows": rows}


def _find(results: Results, run: str, checkpoint: str, key: str, outcome: str) -> Answer:
    wanted = (run, checkpoint, key, outcome)
    return next(
        a for a in results.answers if (a.run, a.checkpoint, a.question, a.outcome) == wanted
    )


def _reply(answer: Answer) -> Reply:
    value = answer.value
    verdict = answer.verdict()
    interval = (
        f"[{number(value.low)}, {number(value.high)}]"
        if value.low == value.low
        else f"(no interval: {value.reason})"
    )
    return Reply(
        outcome=OUTCOME_NAMES[answer.outcome],
        verdict=verdict,
        word=VERDICTS[verdict],
        text=f"{number(value.estimate)} {interval}",
        remarks=(_remark(answer),),
    )


def _remark(answer: Answer) -> str:
    noise = answer.noise
    if noise != noise:
        return "noise not measured"
    size = plus_minus(noise)
    return f"not above the noise of scoring, {size}" if answer.in_noise() else f"noise {size}"


def _table(name: str, results: Results) -> dict[str, Any]:
    """A table as shown: of a long one its `_lead`, the rest folded."""
    view, frame = VIEWS[name], results.tables[name]
    lead = _lead(frame, results.settings.top_k) if len(frame) > LONG else frame
    note = noise_note(frame, view.columns, results.tables["noise"])
    shown = shown_table(name, view, frame, lead, note, "every checkpoint and K")
    beside = PAPER_COLUMNS.get(name)
    return shown if beside is None else shown | shown_paper(paper_table(name), beside)


def shown_table(
    name: str, view: View, frame: pd.DataFrame, lead: pd.DataFrame, note: str, over: str
) -> dict[str, Any]:
    """A table as a page shows it: its `lead` rows, the rest folded; `over` says what rows are."""
    return {
        "name": name,
        "title": view.title,
        "caption": view.caption,
        "note": note,
        "rows": cells(lead, view.columns),
        "all_rows": cells(frame, view.columns) if len(lead) < len(frame) <= FOLDED else None,
        "count": len(frame),
        "over": over,
        "texts": _texts(view.columns),
        "paper": None,
    }


def shown_paper(paper: pd.DataFrame, columns: tuple[Shown, ...]) -> dict[str, Any]:
    """The paper's own table, beside ours."""
    return {"paper": cells(paper, columns), "paper_texts": _texts(columns)}


def _texts(columns: tuple[Shown, ...]) -> list[str]:
    return [c.heading for c in columns if c.kind == "text"]


def _lead(frame: pd.DataFrame, top_k: int) -> pd.DataFrame:
    """The rows at the main K; where a checkpoint has several of those, the first checkpoint's, and
    where those are still many, at the answers' budget."""
    lead = frame[frame["top_k"] == top_k] if "top_k" in frame else frame
    who = ["run", "checkpoint"]
    if "checkpoint" not in frame or "step" in frame or not lead.duplicated(who).any():
        return lead
    first = lead[(lead[who] == lead[who].iloc[0]).all(axis=1)]
    return first[first["budget"] == BUDGET] if len(first) > LONG and "budget" in first else first
