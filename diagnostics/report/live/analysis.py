"""From a run and its arms to results: every table, the noise beside it, and the plain answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from diagnostics.errors import InputError
from diagnostics.progress import Advance, silent
from diagnostics.report.contexts.analysis import ReportSettings, require_reportable
from diagnostics.report.contexts.rows import kind_counts, noise_rows
from diagnostics.report.contexts.scoring import describe
from diagnostics.report.live.answers import Asked, answer_table, answers
from diagnostics.report.live.figures import Drawn
from diagnostics.report.live.rows import arm_rows, live_rows, missing_rows, with_difference_noise
from diagnostics.report.live.views import VIEWS
from diagnostics.report.noise import Floor, Row, measure
from diagnostics.report.tables.views import noise_note
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.interventions import (
    Arm,
    Number,
    Rescored,
    measure_arms,
    unchanged_arms,
)
from diagnostics.statistics.analyses.mask_answers import budgets_to_compare
from diagnostics.statistics.analyses.noise import NoiseFloor, noise_floor, unchanged_tokens
from diagnostics.statistics.tables.definitions import definition_set

SHOWN_BUDGETS = 3  # panels of the forest: those with the most masks


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveResults:
    """Everything that a report of live interventions says.

    Fields: `run` its identity and scoring; `arms`; `tables` by name, in the page's order; `asked`
    plain questions with their answers; `noise` of gain and contrast, NaN where it was not measured;
    `budgets` that stand first; `training` settings that all arms share; `positions` of the bank
    and mean `kl_0` there, nats.
    """

    settings: ReportSettings
    run: dict[str, Any]
    arms: tuple[Arm, ...]
    tables: dict[str, pd.DataFrame]
    asked: list[Asked]
    noise: dict[Number, float]
    budgets: tuple[float, ...]
    training: dict[str, Any]
    positions: int
    kl_0: float

    def note_of(self, name: str) -> str:
        """What an unchanged checkpoint shows in a table's gains; empty for a table without."""
        return noise_note(self.tables[name], VIEWS[name].columns, self.tables["noise"])

    @property
    def drawn(self) -> Drawn:
        """What the figures need."""
        return Drawn(tables=self.tables, noise=self.noise, budgets=self.budgets)


def analyse_arms(
    run: Run,
    arms: Sequence[Arm],
    settings: ReportSettings,
    *,
    missing: Mapping[str, str],
    training: Mapping[str, Any],
    advance: Advance = silent,
) -> LiveResults:
    """All tables and answers of some arms.

    Raises InputError for a K beyond the run's, a bank of a single prompt, and as
    `measure_arms` does.
    """
    require_reportable(run, settings)
    definitions = definition_set(settings.definitions)
    rescored = measure_arms(
        run, arms, settings.top_k, definitions, seed=settings.seed, advance=advance
    )
    kinds = [(k, unchanged_arms(rescored, run, k)) for k in run.noise_kinds]
    frame = rescored.shared.frame
    floors = [noise_floor(k, unchanged_tokens(frame, run, k), settings.bootstrap) for k, _ in kinds]
    reach = measure(_unchanged_rows(run, [r for k, r in kinds if kind_counts(run, k)], settings))
    floor = Floor(reach=reach, kinds=[f for f in floors if kind_counts(run, f.kind)])
    tables = _tables(run, rescored, settings, floor)
    noise = _noise(tables["table02"])
    asked = answers(rescored, settings.bootstrap, noise)
    tables |= _about(run, rescored, asked, floors, missing)
    return LiveResults(
        settings=settings,
        run=describe(run, floors),
        arms=rescored.arms,
        tables=tables,
        asked=asked,
        noise=noise,
        budgets=_main_budgets(rescored),
        training=dict(training),
        positions=len(frame),
        kl_0=float(frame["kl_0"].mean()),
    )


def _tables(
    run: Run, rescored: Rescored, settings: ReportSettings, floor: Floor
) -> dict[str, pd.DataFrame]:
    """Tables 2, 7, 10 and 8 with the noise beside them, in this order; empty ones are left out."""
    rows: dict[str, list[Row]] = {name: [] for name in VIEWS}
    for name, row in live_rows(run.name, settings.top_k, rescored, settings.bootstrap):
        rows[name].append(floor.beside(name, row))
    tables = {name: pd.DataFrame(found) for name, found in rows.items() if found}
    noise = _noise(tables["table02"])["gain"]
    return {name: with_difference_noise(table, noise) for name, table in tables.items()}


def _about(
    run: Run,
    rescored: Rescored,
    asked: Sequence[Asked],
    floors: Sequence[NoiseFloor],
    missing: Mapping[str, str],
) -> dict[str, pd.DataFrame]:
    """Tables of single arms, of the answers, of the noise, and of arms without numbers."""
    found = {
        "arms": pd.DataFrame(arm_rows(run.name, rescored)),
        "mask_answers": answer_table(run.name, asked),
        "noise": pd.DataFrame(noise_rows(run, floors)),
    }
    if missing:
        found["missing"] = pd.DataFrame(missing_rows(run.name, missing))
    return found


def _unchanged_rows(
    run: Run, unchanged: Sequence[Rescored], settings: ReportSettings
) -> Iterator[tuple[str, Row]]:
    """(table, row) of arms that did not change; none of a sample that has too few positions."""
    for one in unchanged:
        try:
            yield from list(live_rows(run.name, settings.top_k, one, settings.bootstrap))
        except InputError:  # its noise stays unmeasured, which the report says
            continue


def _noise(table: pd.DataFrame) -> dict[Number, float]:
    """How far from 0 an unchanged checkpoint comes: the same for every mask."""
    numbers: tuple[Number, ...] = ("gain", "contrast")
    return {number: float(table[f"{number}_noise"].max()) for number in numbers}


def _main_budgets(rescored: Rescored) -> tuple[float, ...]:
    """The budgets with the most masks, or at least half as many, ascending."""
    asked = [mask[1] for mask in rescored.masks if mask[0] != "full"]
    most = max((asked.count(budget) for budget in asked), default=0)
    full = [b for b in budgets_to_compare(rescored) if 2 * asked.count(b) >= most]
    return tuple(sorted(sorted(full, key=lambda b: (-asked.count(b), b))[:SHOWN_BUDGETS]))
