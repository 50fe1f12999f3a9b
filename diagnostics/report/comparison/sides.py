"""The two that are compared: runs or report folders, reduced to the same estimates.

A run gives its numbers as a report of it would, through the same lines; a report has them in
`estimates.parquet`, and so needs no run. Not covered: what differs between them (`comparison`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from diagnostics import __version__
from diagnostics.errors import InputError
from diagnostics.files import read_json
from diagnostics.report.chapters import plain, read_record
from diagnostics.report.comparison.estimates import KEY, read_estimates
from diagnostics.report.comparison.jackknife import estimate_frame
from diagnostics.report.contexts.analysis import (
    ReportSettings,
    require_reportable,
    scored_twice,
    slices,
)
from diagnostics.report.contexts.rows import kind_counts
from diagnostics.report.contexts.scoring import describe
from diagnostics.report.sources import Source, source_of
from diagnostics.scoring.run import open_run
from diagnostics.statistics.tables.definitions import definition_set
from diagnostics.statistics.tables.tokens import token_table

MADE_WITH = ("definitions", "top_k", "seed")  # a run's numbers: no draws
MEASURED = ("noise", "dropped")  # of a run's record: results, not settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two.

    Fields: `name`; `settings` that made its numbers; `runs` their records by name; `estimates`
    rows (`estimates.COLUMNS`).
    """

    name: str
    settings: Mapping[str, Any]
    runs: Mapping[str, Mapping[str, Any]]
    estimates: pd.DataFrame

    @property
    def definitions(self) -> str:
        """The definition set that made its numbers."""
        return str(self.settings["definitions"])

    @property
    def top_k(self) -> int:
        """The support size of its numbers."""
        return int(self.settings["top_k"])

    def bank(self, run: str) -> str:
        """The digest of a run's bank."""
        return str(self.runs[run]["bank_digest"])

    def rows(self, run: str, checkpoint: str) -> pd.DataFrame:
        """The rows of one checkpoint."""
        frame = self.estimates
        return frame[(frame["run"] == run) & (frame["checkpoint"] == checkpoint)]

    def checkpoints(self, run: str) -> list[str]:
        """The checkpoints of a run, in their order."""
        rows = self.estimates[self.estimates["run"] == run]
        return [str(name) for name in pd.unique(rows["checkpoint"])]


def open_sides(
    paths: Sequence[str], *, definitions: str | None = None, top_k: int | None = None
) -> tuple[Side, Side]:
    """Two runs or reports.

    `definitions` and `top_k` of runs' numbers; None: those of the report beside, or `paper` and 16.
    Raises InputError for what is neither, a report without estimates, a listed teacher, two
    definition sets, and a K that one lacks.
    """
    sources = [source_of(path) for path in paths]
    stored = [_stored(source) if source.kind != "run" else None for source in sources]
    settings = _common([side for side in stored if side is not None], definitions, top_k)
    one, two = (
        side or _measured(source, settings) for side, source in zip(stored, sources, strict=True)
    )
    first, second = _names(sources)
    return replace(one, name=first), replace(two, name=second)


def _stored(source: Source) -> Side:
    """A report's side."""
    if source.kind == "list":
        raise InputError(
            where=str(source.path),
            expected="a run folder or a report folder",
            got="a list of evaluation results",
            fix="compare runs or reports; `diagnostics downstream` sets evaluations side by side",
        )
    estimates = read_estimates(source.path)
    _require_one_each(estimates, source.path)
    chapters = [c for c in read_record(source.path) if c.key == "contexts"]
    runs = {str(run["name"]): run for chapter in chapters for run in chapter.runs}
    version = read_json(source.path / "results.json")["version"]
    return Side(
        name="",
        settings=dict(chapters[0].settings) | {"version": version},
        runs=runs,
        estimates=estimates,
    )


def _require_one_each(frame: pd.DataFrame, folder: Path) -> None:
    """Refuses a report made of others that have runs of one name, or several K's."""
    if frame.duplicated([*KEY, "prompt_id"]).any() or frame["top_k"].nunique() > 1:
        raise InputError(
            where=str(folder),
            expected="a report of runs of different names, at one K",
            got="runs of one name" if frame["top_k"].nunique() == 1 else "several K's",
            fix="compare the reports that it was made of",
        )


def _measured(source: Source, settings: ReportSettings) -> Side:
    """A run's side, made now."""
    run = open_run(source.path)
    require_reportable(run, settings)
    definitions = definition_set(settings.definitions)
    frame = token_table(run, settings.top_k, definitions=definitions)
    pieces = list(slices(run, settings.top_k, frame, settings))
    twice = scored_twice(run, pieces[0], settings)
    unchanged = [piece for piece in twice if kind_counts(run, piece.checkpoint)]
    return Side(
        name="",
        settings={name: getattr(settings, name) for name in MADE_WITH} | {"version": __version__},
        runs={run.name: plain(describe(run, []))},
        estimates=estimate_frame(pieces, unchanged),
    )


def _common(reports: Sequence[Side], definitions: str | None, top_k: int | None) -> ReportSettings:
    """The settings of both: what the reports have, or what was asked for, or the default ones."""
    default = ReportSettings()
    asked = [] if definitions is None else [definitions]
    sets = list(dict.fromkeys([*(side.definitions for side in reports), *asked]))
    if len(sets) > 1:
        raise _differ("one definition set", sets, "--definitions")
    wanted = [] if top_k is None else [top_k]
    sizes = list(dict.fromkeys([*(side.top_k for side in reports), *wanted]))
    if len(sizes) > 1:
        raise _differ("numbers at one K", [f"K = {size}" for size in sizes], "--top-k")
    return ReportSettings(
        definitions=sets[0] if sets else default.definitions,
        top_k=sizes[0] if sizes else default.top_k,
    )


def _differ(expected: str, found: Sequence[str], option: str) -> InputError:
    return InputError(
        where="compare",
        expected=expected,
        got=" and ".join(found),
        fix=f"make a report again with the other's {option}, or compare the runs",
    )


def _names(sources: Sequence[Source]) -> tuple[str, str]:
    """What the two are called: their folders, with as much of the path as tells them apart."""
    given = [source.name for source in sources]
    paths = [source.path.resolve().parts for source in sources]
    for length in range(1, 1 + max(map(len, paths))):
        one, two = (
            own or str(Path(*parts[-length:])) for own, parts in zip(given, paths, strict=True)
        )
        if one != two:
            return one, two
    return f"{one} (first)", f"{two} (second)"
