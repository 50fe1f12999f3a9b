"""The student's passes over a bank: its gradient, every position's slope along it, and steps.

one backward pass over the bank       -> grad L_fix, L_fix = mean KL(p_T || p_theta)
one forward-mode pass along it        -> alignment of every position
steps along it, and along single tokens' gradients -> what was realised, the remainder R_t
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from diagnostics.alignment.frozen import batches
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
from diagnostics.models.heads import load_head
from diagnostics.models.weights import load_weights
from diagnostics.progress import bar
from diagnostics.scoring.run import head_file
from diagnostics.scoring.task import Task, spread_rows
from diagnostics.statistics.analyses.alignment import step_rows

SHARE = 1e-3  # of L_fix that the default step lowers to first order


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignSettings:
    """How to measure.

    Fields: `top_k` K of D and C; `step_size` eta, None for the one that lowers L_fix by 0.1 % to
    first order; `precision` None for float64 where the student is small; `batch_tokens` in a pass;
    `pairs` positions of Proposition 1, stepped as far as the bank's step goes, and `pair_contexts`,
    over how many contexts their L_fix is (evenly spread); `budget` of the selectors; `draws` and
    `seed`.
    """

    top_k: int = 16
    step_size: float | None = None
    precision: Precision | None = None
    batch_tokens: int = 8192
    device: str = "cpu"
    pairs: int = 32
    pair_contexts: int = 20
    budget: float = 0.05
    draws: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the student's passes gave. Fields: `start` divergences at theta_0; `columns` of the
    position table; the tables; `numbers` of the whole bank."""

    start: Columns
    columns: Columns
    steps: pd.DataFrame
    pairs: pd.DataFrame
    numbers: dict[str, Any]


def measure(task: Task, settings: AlignSettings) -> Measured:
    """All of it, of a task that is scored.

    Raises InputError where a number is not finite, naming the context, and for a student that has
    no forward-mode derivative.
    """
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
        pairs = token_steps(student, frozen, gradient, size * squared**0.5, draw, advance)
    steps = step_rows(
        [
            (name, share * size, slopes[name], step[name])
            for name in ("kl", "reverse_kl")
            for share, step in zip(HALVES, taken, strict=True)
        ]
    )
    return Measured(
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
