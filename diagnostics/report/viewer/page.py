"""The viewer as a file, as several that link to each other, and as a section of a report.

Whatever comes from a run is text: the template escapes it, and the script that reads the data makes
text nodes alone. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from diagnostics import __version__
from diagnostics.files import write_text
from diagnostics.report.assets import asset
from diagnostics.report.page import template
from diagnostics.report.viewer.colours import STEPS, css_rules, css_variables, scales
from diagnostics.report.viewer.data import Measured, evenly_by_gain, measure, show
from diagnostics.report.viewer.encode import (
    COARSE,
    FINE,
    Precision,
    bundled,
    packed_measures,
    packed_tops,
    script_json,
    token_strings,
)
from diagnostics.scoring.run import Run
from diagnostics.scoring.texts import ContextTexts

FILE_BYTES, SECTION_BYTES = 25_000_000, 220_000  # the section's script comes on top
FILE_CONTEXTS, FILE_POSITIONS = 1000, 500_000  # tried first; bytes decide
LONGEST_PROMPT = 4000  # letters of a prompt that are kept
SECTION_PROMPT = 300
Make = Callable[[Sequence[int]], str]  # a page of these contexts

SCRIPT = "viewer.js"  # of the templates; a page's policy names it
ALL = "diagnostics view RUN --out FILE"
SPLIT = "diagnostics view RUN --out FILE --split"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerSettings:
    """How a run is shown.

    Fields: `top_k` support size of D and C; `contexts` at most so many in a file, None for as many
    as a file may hold; `seed` of the selector `random`.
    """

    top_k: int = 16
    contexts: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one file holds.

    Fields: `contexts`; `said` of them; `command` that makes the rest; `file` name; `others` (name,
    first, last context) of all files where there are several.
    """

    contexts: Sequence[int]
    said: str
    command: str = ""
    file: str = ""
    others: tuple[tuple[str, int, int], ...] = ()


def write_viewer(run: Run, out: Path, settings: ViewerSettings) -> list[Path]:
    """Writes the viewer of a run as one file, of a larger run with a sample of its contexts.

    Raises InputError for a teacher known by its lists, or a `top_k` beyond the run's.
    """
    measured = measure(run, settings.top_k, settings.seed)
    wanted = min(settings.contexts or FILE_CONTEXTS, _contexts_in(measured, FILE_POSITIONS))

    def page(contexts: Sequence[int]) -> str:
        return _page(measured, _sample(measured, contexts, SPLIT))

    write_text(out, _fitting(measured, wanted, page, FILE_BYTES))
    return [out]


def write_viewers(run: Run, out: Path, settings: ViewerSettings) -> list[Path]:
    """Writes the viewer of a run as several files in bank order, FILE-01.html and so on.

    Each links to the others. Raises InputError as `write_viewer` does.
    """
    measured = measure(run, settings.top_k, settings.seed)
    present = np.unique(measured.context)
    size = settings.contexts or _contexts_a_file(measured)
    chunks = [present[i : i + size].tolist() for i in range(0, len(present), size)]
    paths = [
        out.with_name(f"{out.stem}-{i + 1:02d}{out.suffix or '.html'}") for i in range(len(chunks))
    ]
    others = tuple((p.name, c[0], c[-1]) for p, c in zip(paths, chunks, strict=True))
    for number, (path, contexts) in enumerate(zip(paths, chunks, strict=True), 1):
        said = (
            f"Contexts {contexts[0]} to {contexts[-1]}, bank order: file {number} of {len(paths)}."
        )
        part = Part(contexts=contexts, said=said, file=path.name, others=others)
        write_text(path, _page(measured, part))
    return paths


def viewer_section(
    run: Run, settings: ViewerSettings, *, contexts: int = 24, number: int = 1, level: int = 3
) -> Markup:
    """The viewer of some contexts as a section of a page, 250 kB at most with its script.

    `number` tells viewers of one page apart; the first brings the style for all. `level` is that of
    contexts' headings: the page gives the viewer one above. It also has `SCRIPT` once among its
    scripts, below the section. Raises InputError as `write_viewer` does.
    """
    measured = measure(run, settings.top_k, settings.seed)

    def section(chosen: Sequence[int]) -> str:
        part = _sample(measured, chosen, ALL)
        values = _context(measured, part, COARSE, SECTION_PROMPT)
        prefix = "tv" if number == 1 else f"tv{number}"
        return template("viewer_section.html.j2").render(
            **values, prefix=prefix, level=level, boxed=True, styled=number == 1
        )

    return Markup(_fitting(measured, contexts, section, SECTION_BYTES))


def _page(measured: Measured, part: Part) -> str:
    return template("viewer_page.html.j2").render(
        **_context(measured, part, FINE, LONGEST_PROMPT),
        prefix="tv",
        level=2,
        boxed=False,
        script=SCRIPT,
    )


def _fitting(measured: Measured, wanted: int, make: Make, limit: int) -> str:
    """What `make` makes of so many contexts, fewer where it is larger than `limit` bytes."""
    while True:
        text = make(evenly_by_gain(measured, wanted))
        size = len(text.encode())
        if size <= limit or wanted == 1:
            return text
        wanted = max(1, min(wanted - 1, int(0.97 * wanted * limit / size)))


def _contexts_in(measured: Measured, positions: int) -> int:
    """How many contexts of mean length hold so many positions; all where the run has fewer."""
    found = len(np.unique(measured.context))
    return max(1, min(found, positions * found // max(1, len(measured.context))))


def _contexts_a_file(measured: Measured) -> int:
    """How many contexts fill a file, by the size of some."""
    tried = min(50, _contexts_in(measured, FILE_POSITIONS))
    chosen = evenly_by_gain(measured, tried)
    size = len(_page(measured, Part(contexts=chosen, said="")).encode())
    return max(1, min(FILE_CONTEXTS, int(0.9 * FILE_BYTES * tried / size)))


def _sample(measured: Measured, contexts: Sequence[int], command: str) -> Part:
    """All contexts, or some and how to get all."""
    found = len(np.unique(measured.context))
    if len(contexts) == found:
        said = f"All {found:,} contexts, {len(measured.context):,} positions."
        return Part(contexts=contexts, said=said)
    by = f"chosen evenly by mean gain (of {measured.run.checkpoints[0]})"
    said = f"{len(contexts):,} of {found:,} contexts, {by}; all of them:"
    return Part(contexts=contexts, said=said, command=command)


def _context(
    measured: Measured, part: Part, precision: Precision, longest_prompt: int
) -> dict[str, Any]:
    """What the template needs."""
    run, shown = measured.run, show(measured, part.contexts)
    texts, token_ids = run.token_texts(), shown.token_ids()
    found = scales(measured)
    data = {
        "steps": STEPS,
        "most": int(shown.top_ids.shape[1]),
        "digits": 4 if precision is FINE else 2,
        "scales": [scale.as_dict() for scale in found],
        "models": list(shown.models),
        "masks": [[name, budget] for name, budget in measured.masks],
        "contexts": _contexts(measured, part.contexts, longest_prompt),
        "tokens": token_strings(token_ids, texts),
        "files": [list(other) for other in part.others],
        "measures": bundled(packed_measures(shown, precision)),
        "tops": bundled(packed_tops(shown, precision)),
    }
    return {
        "run": run,
        "part": part,
        "top_k": measured.top_k,
        "version": __version__,
        "scales": found,
        "selectors": list(dict.fromkeys(name for name, _ in measured.masks)),
        "budgets": list(dict.fromkeys(budget for _, budget in measured.masks)),
        "texts_known": texts is not None,
        "data": Markup(script_json(data)),  # cannot end its element: see `script_json`
        "css": Markup(_css()),
    }


def _contexts(measured: Measured, contexts: Sequence[int], longest: int) -> list[dict[str, Any]]:
    """Each shown context: its place, names, size, and the prompt as far as it is kept."""
    names, prompts = measured.run.contexts()
    texts = measured.run.context_texts() or ContextTexts(prompts=[""] * len(names), responses=[])
    counts = np.bincount(measured.context, minlength=len(names))
    gains = np.stack([measured.mean_gain(i) for i in range(len(measured.gain))]).round(9)
    return [
        {
            "index": index,
            "id": names[index],
            "prompt_id": prompts[index],
            "count": int(counts[index]),
            "gain": gains[:, index].tolist(),
            "prompt": texts.prompts[index][:longest],
            "prompt_length": len(texts.prompts[index]),
        }
        for index in contexts
    ]


def _css() -> str:
    """The viewer's style: both themes' colours, whoever chooses between them, and the rules."""
    light, dark = css_variables("light"), css_variables("dark")
    return asset("viewer.css").replace("/*light*/", light).replace("/*dark*/", dark) + css_rules()
