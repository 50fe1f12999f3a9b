"""`diagnostics align`: every position's gradient alignment with its bank (Proposition 1).

    bank + teacher + theta_0 -> run (existing scoring) -> signals, the teacher's hidden states
    run + theta_0's weights  -> gradient, slopes and steps (`measure`)
    both                     -> a table of positions, correlations, means by quadrant and selector

The derivative is by all of the student's parameters, each once, at theta_0. Refused by name: an
adapter or a quantised student (they are not what full training moves), a teacher known by its lists
alone (KL needs all of it), a layer without a forward-mode derivative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diagnostics.alignment.measure import AlignSettings, Measured, measure
from diagnostics.alignment.positions import position_table, write_positions
from diagnostics.bank.contexts import Bank, library_versions
from diagnostics.errors import InputError
from diagnostics.models.files import require_trainable
from diagnostics.scoring.listed import is_listed
from diagnostics.scoring.rescore import plan, rescore
from diagnostics.scoring.run import Run
from diagnostics.scoring.task import Settings, Task
from diagnostics.scoring.worker import device_errors
from diagnostics.statistics.analyses.alignment import correlations, group_means
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.selection.selectors import check_budget

AGREE = 1e-3  # nats (and relative), how far KL_0 of this pass may be from the scoring's


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What `align` found.

    Fields: `positions` (`positions.COLUMNS`), a row a valid position in bank order; `tables` by
    name: `correlations`, `groups`, `steps`, `pairs`; `record` settings, digests, versions and the
    few numbers of the whole bank, as JSON values.
    """

    positions: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    record: Mapping[str, Any]


def align(
    bank: Bank, teacher: str, student: str, out: Path, settings: AlignSettings | None = None
) -> Alignment:
    """Measures a bank, writes `out`/alignment.parquet and the run `out`/run, and returns all.

    A run that is there already is gone on with. Raises InputError before weights are loaded for
    models, bank and settings that do not fit; afterwards where a number is not finite, naming the
    context, or where this pass and the scoring disagree about KL_0.
    """
    settings = settings or AlignSettings()
    scoring = Settings(
        top_k=settings.top_k, device=settings.device, batch_tokens=settings.batch_tokens
    )
    task = _checked(bank, teacher, student, out / "run", scoring, settings)
    run = rescore(bank, teacher, student, {}, task.out, scoring)
    with device_errors(settings.device):
        measured = measure(task, settings)
    frame = position_table(run, settings.top_k, measured.columns)
    differs = _require_agreement(frame, measured.start["kl"], out)
    bootstrap = Bootstrap(draws=settings.draws, seed=settings.seed)
    tables = {
        "correlations": correlations(frame, bootstrap),
        "groups": group_means(
            frame, settings.budget, task.vocabulary, bootstrap, seed=settings.seed
        ),
        "steps": measured.steps,
        "pairs": measured.pairs,
    }
    record = _record(task, run, settings, measured) | {"kl_0_differs_by": differs}
    write_positions(out / "alignment.parquet", frame)
    return Alignment(positions=frame, tables=tables, record=record)


def _checked(
    bank: Bank, teacher: str, student: str, run: Path, scoring: Settings, settings: AlignSettings
) -> Task:
    """The task, everything known before weights being sound."""
    if is_listed(teacher):
        raise InputError(
            where="--teacher",
            expected="a model: the gradient of KL needs its whole distribution",
            got=teacher,
            fix="give the teacher's weights",
        )
    if settings.step_size is not None and not 0 < settings.step_size < float("inf"):
        raise InputError(
            where="--step-size",
            expected="a learning rate above 0",
            got=repr(settings.step_size),
            fix="leave it out for one that fits the bank",
        )
    task = plan(bank, teacher, student, {}, run, scoring)
    require_trainable(task.student)
    check_budget(settings.budget)
    return task


def _require_agreement(frame: pd.DataFrame, kl_0: np.ndarray[Any, Any], out: Path) -> float:
    """The largest difference of KL_0 between the two passes, nats; refuses a real one."""
    scored = frame["kl_0"].to_numpy()
    off = np.abs(kl_0 - scored)
    bad = np.flatnonzero(off > AGREE * (1 + scored))
    if bad.size:
        row = frame.iloc[int(bad[0])]
        raise InputError(
            where=f"{out}, context {row['context_id']}, position {row['position']}",
            expected=f"the KL_0 that the scoring found, {row['kl_0']:.6g}",
            got=f"{kl_0[bad[0]]:.6g} in the pass that has derivatives",
            fix="this family computes something else there: choose another student",
        )
    return float(off.max())


def _record(task: Task, run: Run, settings: AlignSettings, measured: Measured) -> dict[str, Any]:
    return {
        "settings": asdict(settings) | {"interval": "percentile", "definitions": "paper"},
        "bank": run.manifest["bank"],
        "teacher": run.manifest["teacher"],
        "student": run.manifest["student"],
        "libraries": library_versions(),
        "parameters": "all of the student's, tied ones once",
        **measured.numbers,
    }
