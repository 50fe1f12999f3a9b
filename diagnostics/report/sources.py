"""What `diagnostics report` is given, and the chapters it becomes.

    a run folder (manifest.json)       all runs together are one chapter of fixed contexts
    a report folder (results.json)     its chapters as they stand, as of `intervene`
    a .csv or .jsonl list              evaluation results: a chapter of downstream tables

`NAME=RUN` gives a run the name that this report calls it by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from diagnostics.errors import InputError
from diagnostics.report.chapters import Chapter, read_record
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.downstream import read_downstream
from diagnostics.report.write import report_runs, viewers_of
from diagnostics.scoring.run import Run, open_run

Kind = Literal["run", "report", "list"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One argument. Fields: `kind`; `path`; `name` that it was given, else empty."""

    kind: Kind
    path: Path
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a report is made of. Fields: `chapters`; token `viewers` by run."""

    chapters: tuple[Chapter, ...]
    viewers: Mapping[str, Markup]


def parts_of(given: Sequence[str], settings: ReportSettings) -> Parts:
    """The parts of runs, reports and lists of results: fixed contexts first, then as given.

    Raises InputError for what is none of these, as their readers do, and for two definition sets.
    """
    sources = [source_of(one) for one in given]
    runs = [_open(s) for s in sources if s.kind == "run"]
    chapters = [report_runs(runs, settings)] if runs else []
    for source in sources:
        if source.kind == "report":
            chapters += read_record(source.path)
        elif source.kind == "list":
            chapters.append(read_downstream(source.path)[1])
    _require_one_set(chapters)
    return Parts(chapters=tuple(chapters), viewers=viewers_of(runs, settings))


def source_of(given: str) -> Source:
    """What an argument is, by what lies there."""
    name, found, path = given.partition("=")
    if not found or Path(given).exists():
        name, path = "", given
    place = Path(path)
    if (place / "manifest.json").is_file():
        return Source(kind="run", path=place, name=name)
    if (place / "results.json").is_file() and not name:
        return Source(kind="report", path=place)
    if place.is_file() and place.suffix in (".csv", ".jsonl") and not name:
        return Source(kind="list", path=place)
    raise InputError(
        where=str(place),
        expected="a run folder (manifest.json), a report folder (results.json) or a .csv or .jsonl "
        "list of evaluation results; NAME= before a run alone",
        got="nothing of that kind" if place.exists() else "no such file or folder",
        fix="give what `diagnostics rescore`, `report` or `intervene` wrote",
    )


def _open(source: Source) -> Run:
    run = open_run(source.path)
    return replace(run, manifest={**run.manifest, "name": source.name}) if source.name else run


def _require_one_set(chapters: Sequence[Chapter]) -> None:
    sets = {c.settings["definitions"] for c in chapters if "definitions" in c.settings}
    if len(sets) > 1:
        raise InputError(
            where="report",
            expected="parts of one definition set",
            got=", ".join(sorted(sets)),
            fix="report them apart, or make one of them again with --definitions",
        )
