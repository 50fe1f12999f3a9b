"""From runs to results: every table of a report and the plain answers, as frames and records.

`rows` makes the rows of one checkpoint; here runs are checked, opened and walked through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from diagnostics.errors import InputError
from diagnostics.progress import Advance, silent
from diagnostics.report.comparison.jackknife import estimate_frame
from diagnostics.report.contexts.checks import (
    band_rows,
    choice_rows,
    design_rows,
    differ_rows,
    interval_rows,
    overlap_rows,
    placebo_rows,
)
from diagnostics.report.contexts.examples import example_positions
from diagnostics.report.contexts.rows import (
    ANSWERS,
    SCOPES,
    TABLE_SELECTORS,
    Piece,
    Start,
    answer_rows,
    checkpoint_rows,
    kind_counts,
    kind_rows,
    noise_rows,
    quadrant_rows,
    signal_rows,
    table01,
    table05,
    table06,
    table08,
    table09,
)
from diagnostics.report.contexts.scoring import describe
from diagnostics.report.contexts.trends import bin_rows, bucket_rows, pooled_rows, trajectory_rows
from diagnostics.report.noise import NO_FLOOR, Floor, Row, measure
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.budgets import selections
from diagnostics.statistics.analyses.noise import (
    in_noise,
    noise_floor,
    unchanged_tokens,
)
from diagnostics.statistics.analyses.shown import BUDGETS, PAPER_SELECTORS
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, Kind
from diagnostics.statistics.tables.definitions import definition_set, definitions_of
from diagnostics.statistics.tables.measured import Start as Measured
from diagnostics.statistics.tables.measured import measure_start
from diagnostics.statistics.tables.tokens import token_tables
from diagnostics.statistics.tables.values import Outcome

SUPPORTS = (8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What a report is made with.

    Fields: `definitions` a set's name (`statistics.definitions`); `top_k` the main K; `draws`,
    `seed` and kind of `interval` of every table; `redo_cuts` whether headline numbers also get
    intervals with norms, cuts and z-scores redone in each draw.
    """

    definitions: str = "paper"
    top_k: int = 16
    draws: int = 2000
    seed: int = 0
    interval: Kind = "percentile"
    redo_cuts: bool = False

    @property
    def bootstrap(self) -> Bootstrap:
        """How its intervals are made."""
        return Bootstrap(draws=self.draws, seed=self.seed, kind=self.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One plain answer.

    Fields: `question` key; `outcome`; `value` with its interval; `noise` how far from 0 the same
    value of an unchanged checkpoint comes, NaN where that was not measured.
    """

    run: str
    checkpoint: str
    question: str
    outcome: Outcome
    value: Interval
    noise: float

    def verdict(self) -> str:
        """`yes` or `no` where the interval lies beyond the noise of scoring, else `unclear`."""
        return self.value.verdict(self.noise)

    def in_noise(self) -> bool:
        """Whether the noise of scoring alone keeps it from being clear, or the value is in it."""
        return in_noise(self.value, self.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything a report says.

    Fields: `tables` by name; `tokens` the first run's table at `top_k`; `unchanged` the same for
    theta_0 scored a second time, one table for each kind of noise that counts; `positions` two
    examples of the first run (`examples`); `estimates` what comparisons are made from.
    """

    settings: ReportSettings
    runs: list[dict[str, Any]]
    tables: dict[str, pd.DataFrame]
    answers: list[Answer]
    tokens: pd.DataFrame
    unchanged: list[pd.DataFrame]
    positions: pd.DataFrame
    estimates: pd.DataFrame


def analyse(runs: Sequence[Run], settings: ReportSettings, advance: Advance = silent) -> Results:
    """All tables and answers of some runs.

    Raises InputError for a K beyond a run's, two runs of one name, a teacher known by its lists
    alone, or a bank of a single prompt (no interval can be had, so no report).
    """
    _check(runs, settings)
    rows: dict[str, list[Row]] = {name: [] for name in (*TABLES, "answers")}
    scored = [_run_rows(run, settings, rows, advance) for run in runs]
    rows["pooled"] += pooled_rows([one.first for one in scored], settings.bootstrap)
    return Results(
        settings=settings,
        runs=[one.record for one in scored],
        tables={name: pd.DataFrame(rows[name]) for name in TABLES if rows[name]},
        answers=[_answer(row) for row in rows["answers"]],
        tokens=scored[0].tokens,
        unchanged=scored[0].unchanged,
        positions=example_positions(runs[0], scored[0].first.frame, scored[0].measured),
        estimates=pd.concat([one.estimates for one in scored], ignore_index=True),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """One run: its record, its token table at the main K, its first checkpoint there, the tables
    of no change, and teacher and theta_0 at the main K."""

    record: dict[str, Any]
    measured: Measured
    first: Piece
    tokens: pd.DataFrame
    unchanged: list[pd.DataFrame]
    estimates: pd.DataFrame


def _run_rows(
    run: Run, settings: ReportSettings, rows: dict[str, list[Row]], advance: Advance
) -> _Scored:
    """Adds a run's rows to every table."""
    ks = supports(run, settings.top_k)
    measured = measure_start(run, ks[0], run.contexts())
    definitions = definition_set(settings.definitions)
    tables = token_tables(run, ks, definitions=definitions, start=measured)
    pieces: dict[int, list[Piece]] = {}
    found: _Scored | None = None
    for k, frame in zip(ks, tables, strict=True):
        main = k == settings.top_k
        pieces[k] = list(slices(run, k, frame, settings))
        twice = scored_twice(run, pieces[k][0], settings)
        noise = [piece for piece in twice if kind_counts(run, piece.checkpoint)]
        floors = [noise_floor(p.checkpoint, p.frame, p.bootstrap) for p in twice]
        within = [floor for floor in floors if kind_counts(run, floor.kind)]
        floor = Floor(reach=measure(_unchanged_rows(noise, main)), kinds=within)
        for piece in pieces[k]:
            for name, make in _tables(piece, floor, main):
                rows[name] += [floor.beside(name, row) for row in make()]
            advance(1)
        rows["signals"] += signal_rows(run, k, pieces[k][0].frame)
        if main:
            rows["noise"] += noise_rows(run, floors)
            unchanged = [piece.frame for piece in noise]
            found = _Scored(
                record=describe(run, floors),
                measured=measured.at(k),
                first=pieces[k][0],
                tokens=frame,
                unchanged=unchanged,
                estimates=estimate_frame(pieces[k], noise),
            )
            rows["trajectory"] += trajectory_rows(run, frame, k, settings.bootstrap)
    main_start = measured.at(settings.top_k)
    for name, more in _checks(run, pieces, main_start, redo=settings.redo_cuts):
        rows[name] += more
    assert found is not None, "supports() always holds settings.top_k"
    return found


def _checks(
    run: Run, pieces: dict[int, list[Piece]], measured: Measured, *, redo: bool
) -> Iterator[tuple[str, list[Row]]]:
    """(table, rows) of how far a run's numbers can be trusted; `pieces` by K."""
    first = pieces[measured.k][0]
    for piece in pieces[measured.k]:
        yield "intervals", interval_rows(piece, redo=redo)
        yield "buckets", bucket_rows(piece)
        yield "choices", choice_rows(piece)
    for same in zip(*pieces.values(), strict=True):
        yield "bands", band_rows(same, measured.k)
    yield "bins", bin_rows(first)
    yield "placebo", placebo_rows(first)
    yield "definitions_differ", differ_rows(run, first, measured)
    yield "design", design_rows(first)
    yield "selector_overlap", overlap_rows(first)


def supports(run: Run, top_k: int) -> list[int]:
    """The support sizes a report shows: the paper's that the run has, and the asked one."""
    return sorted({k for k in SUPPORTS if k <= run.top_k} | {top_k})


def _check(runs: Sequence[Run], settings: ReportSettings) -> None:
    names = [run.name for run in runs]
    if len(set(names)) != len(names):
        raise InputError(
            where="report",
            expected="runs of different names",
            got=", ".join(names),
            fix="score one of them again with another --name",
        )
    for run in runs:
        require_reportable(run, settings)


def require_reportable(run: Run, settings: ReportSettings) -> None:
    """Refuses a run beside a listed teacher, a K beyond the run's, and a bank of one prompt."""
    if run.listed:
        raise InputError(
            where=str(run.folder),
            expected="a teacher whose whole distribution is known: gain needs KL",
            got=f"one known by its top-k lists alone ({run.manifest['teacher']['model']})",
            fix="score the bank with the teacher's weights; "
            "`diagnostics tokens` gives D, C-hat and the bounds of this run",
        )
    if settings.top_k > run.top_k or settings.top_k < 1:
        raise InputError(
            where=str(run.folder),
            expected=f"--top-k from 1 to {run.top_k}, what the run stored",
            got=str(settings.top_k),
            fix="choose a smaller one, or rescore with a larger --top-k",
        )
    prompts = len(set(run.contexts()[1]))
    if prompts < 2:
        raise InputError(
            where=str(run.folder),
            expected="at least two prompts: one cluster has no interval",
            got=str(prompts),
            fix="build a bank of more prompts",
        )


def slices(run: Run, k: int, frame: pd.DataFrame, settings: ReportSettings) -> Iterator[Piece]:
    """Each checkpoint of a run's token table at one K."""
    start = None
    size = int(run.manifest["vocabulary"]["shared"])
    names = TABLE_SELECTORS if k == settings.top_k else PAPER_SELECTORS
    for name, rows in frame.groupby("checkpoint", observed=True, sort=False):
        part = rows.reset_index(drop=True)
        if start is None or definitions_of(part).leaks:
            kept = selections(part, names, BUDGETS, settings.seed, vocabulary=size)
            start = Start(part, kept)
        yield Piece(run.name, str(name), k, part, settings.bootstrap, start)


def scored_twice(run: Run, piece: Piece, settings: ReportSettings) -> list[Piece]:
    """The unchanged checkpoint of each kind of noise; selectors keep what they keep in `piece`."""
    found = []
    for kind in run.noise_kinds:
        frame = unchanged_tokens(piece.frame, run, kind)
        selected = {
            key: replace(s, mask=s.mask[frame.index]) for key, s in piece.start.selected.items()
        }
        frame = frame.reset_index(drop=True)
        start = Start(frame, selected)
        found.append(Piece(run.name, kind, piece.top_k, frame, settings.bootstrap, start))
    return found


def _unchanged_rows(pieces: Sequence[Piece], main: bool) -> Iterator[tuple[str, Row]]:
    """(table, row) of unchanged checkpoints; without those that have too few positions."""
    for piece in pieces:
        for name, make in _tables(piece, NO_FLOOR, main):
            try:
                rows = make()
            except InputError:  # the sample is too small for this one; its noise stays unmeasured
                continue
            yield from ((name, row) for row in rows)


def _tables(
    piece: Piece, floor: Floor, main: bool
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """(table, what makes its rows of one checkpoint at one K); some are of the `main` K alone."""
    yield "table01", partial(table01, piece)
    yield "table06", partial(table06, piece)
    for scope in SCOPES:
        yield "table09", partial(table09, piece, scope)
    yield "table08", partial(table08, piece)
    if main:
        yield "table05", partial(table05, piece)
        yield "checkpoints", partial(checkpoint_rows, piece, floor.kinds)
        yield "quadrants", partial(quadrant_rows, piece)
        yield "q3_kinds", partial(kind_rows, piece)
        for question in ANSWERS:
            yield "answers", partial(answer_rows, piece, question)


def _answer(row: Row) -> Answer:
    value = Interval(row["gain"], row["gain_low"], row["gain_high"], row["reason"], row["kind"])
    names = ("run", "checkpoint", "question", "outcome")
    return Answer(**{name: row[name] for name in names}, value=value, noise=row["gain_noise"])


TABLES = (
    "checkpoints",
    "noise",
    "table01",
    "table05",
    "table06",
    "table08",
    "table09",
    "choices",
    "quadrants",
    "q3_kinds",
    "signals",
    "intervals",
    "bands",
    "buckets",
    "bins",
    "trajectory",
    "pooled",
    "placebo",
    "definitions_differ",
    "design",
    "selector_overlap",
)
