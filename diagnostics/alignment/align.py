"""`diagnostics align`: every position's gradient alignment with its bank (Proposition 1).

    bank + teacher + theta_0 -> run (existing scoring) -> signals, the teacher's hidden states
    one backward pass over the bank       -> grad L_fix, L_fix = mean KL(p_T || p_theta)
    one forward-mode pass along it        -> alignment of every position
    steps along it, and along single tokens' gradients -> what was realised, the remainder R_t

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

from diagnostics.alignment.frozen import batches
from diagnostics.alignment.positions import position_table, write_positions
from diagnostics.alignment.precision import PRECISIONS, Precision, precision_of
from diagnostics.alignment.steps import (
    HALVES,
    Columns,
    bank_order,
    bank_steps,
    numbers,
    token_steps,
)
from diagnostics.alignment.student import Parameters, Student, inner, require_finite
from diagnostics.bank.contexts import Bank, library_versions
from diagnostics.errors import InputError
from diagnostics.models.files import check_top_k, require_trainable
from diagnostics.models.heads import load_head
from diagnostics.models.weights import load_weights
from diagnostics.progress import bar
from diagnostics.scoring.listed import is_listed
from diagnostics.scoring.rescore import plan, rescore
from diagnostics.scoring.run import Run, head_file
from diagnostics.scoring.task import Settings, Task, spread_rows
from diagnostics.scoring.worker import device_errors
from diagnostics.statistics.analyses.alignment import correlations, group_means, step_rows
from diagnostics.statistics.inference.bootstrap import Bootstrap

SHARE = 1e-3  # of L_fix that the default step lowers to first order
AGREE = 1e-3  # nats (and relative), how far KL_0 of this pass may be from the scoring's


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignSettings:
    """How to measure.

    Fields: `top_k` K of D and C; `step_size` eta, None for the one that lowers L_fix by 0.1 % to
    first order; `precision` None for float64 where the student is small; `batch_tokens` in a pass;
    `pairs` positions of Proposition 1 and `pair_contexts`, over how many contexts their L_fix is
    (evenly spread); `budget` of the selectors; `draws` and `seed`.
    """

    top_k: int = 16
    step_size: float | None = None
    precision: Precision | None = None
    batch_tokens: int = 8192
    device: str = "cpu"
    pairs: int = 32
    pair_contexts: int = 30
    budget: float = 0.05
    draws: int = 2000
    seed: int = 0


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
        measured = _measure(task, settings)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What the student's passes gave. Fields: `start` divergences at theta_0; `columns` of the
    position table; the tables; `numbers` of the whole bank."""

    start: Columns
    columns: Columns
    steps: pd.DataFrame
    pairs: pd.DataFrame
    numbers: dict[str, Any]


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
    check_top_k(settings.top_k, task.vocabulary)
    return task


def _measure(task: Task, settings: AlignSettings) -> _Measured:
    student = _load(task, settings)
    total = len(task.bank)
    with bar("bank gradient", 1) as advance:
        gradient, positions = _bank_gradient(student, task)
        advance(1)
    start, slopes = _slopes(student, task, gradient)
    loss, squared = float(start["kl"].mean()), inner(gradient, gradient)
    size = settings.step_size or (SHARE * loss / squared if squared else 1.0)
    with bar("bank steps", len(HALVES) * total) as advance:
        taken = bank_steps(student, task, gradient, size, start, advance)
    rows = set(spread_rows(total, settings.pair_contexts))
    frozen = list(batches(task, rows))
    draw = _draw(sum(sum(b.counts) for b in frozen), settings)
    with bar("single tokens", len(draw)) as advance:
        pairs = token_steps(student, frozen, gradient, size, draw, advance)
    steps = step_rows(
        [
            (name, share * size, slopes[name], step[name])
            for name in ("kl", "reverse_kl")
            for share, step in zip(HALVES, taken, strict=True)
        ]
    )
    return _Measured(
        start=start,
        columns={
            "alignment": slopes["reverse_kl"],
            "alignment_kl": slopes["kl"],
            "loss": start["reverse_kl"],
            "gain_step": taken[0]["kl"],
            "loss_step": taken[0]["reverse_kl"],
        },
        steps=steps,
        pairs=pairs,
        numbers={
            "n_positions": positions,
            "fixed_context_loss": loss,
            "gradient_norm_squared": squared,
            "mean_alignment_kl": float(slopes["kl"].mean()),  # the same number, by the other mode
            "mean_alignment": float(slopes["reverse_kl"].mean()),
            "step_size": size,
            "precision": str(student.dtype).removeprefix("torch."),
            "pair_contexts": len(rows),
        },
    )


def _load(task: Task, settings: AlignSettings) -> Student:
    model = load_weights(task.student, "float32", settings.device)
    model = model.to(PRECISIONS[precision_of(settings.precision, model)])
    head = load_head(head_file(task.out), settings.device)
    return Student(model, task.student.spec, head, task.vocabulary)


def _bank_gradient(student: Student, task: Task) -> tuple[Parameters, int]:
    """grad L_fix by parameter, and the positions that L_fix is the mean over."""
    positions = sum(int(mask.sum()) for mask in task.bank.masks())
    total = student.gradient(batches(task), "kl")
    return {name: g / positions for name, g in total.items()}, positions


def _slopes(student: Student, task: Task, gradient: Parameters) -> tuple[Columns, Columns]:
    """Both divergences at theta_0, and their derivatives along the bank's gradient, (pos,) each."""
    values, slopes = [], []
    with bar("alignment", len(task.bank)) as advance:
        for batch in batches(task):
            value, slope = student.slopes(gradient, batch)
            require_finite(slope.kl + slope.reverse_kl, batch, f"alignment of {student.name}")
            values.append((batch, numbers(value)))
            slopes.append((batch, numbers(slope)))
            advance(len(batch.rows))
    return bank_order(values), bank_order(slopes)


def _draw(count: int, settings: AlignSettings) -> list[int]:
    """Which positions Proposition 1 is tried at, without repetition."""
    generator = np.random.default_rng(settings.seed)
    chosen = generator.choice(count, size=min(settings.pairs, count), replace=False)
    return [int(place) for place in chosen]


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


def _record(task: Task, run: Run, settings: AlignSettings, measured: _Measured) -> dict[str, Any]:
    return {
        "settings": asdict(settings) | {"interval": "percentile", "definitions": "paper"},
        "bank": run.manifest["bank"],
        "teacher": run.manifest["teacher"],
        "student": run.manifest["student"],
        "libraries": library_versions(),
        "parameters": "all of the student's, tied ones once",
        **measured.numbers,
    }
