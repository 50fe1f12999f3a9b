"""Gradient steps that are taken, beside what their first-order terms say (Proposition 1).

One step along the bank's own gradient shows how far every position follows its slope; steps along
single tokens' gradients are Proposition 1 as it is stated (Eq. 2). Each is taken at a size and at
half of it: a remainder of second order is then a quarter. Nothing is left changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.alignment.frozen import Batch, batches
from diagnostics.alignment.student import Divergences, Parameters, Student, inner, require_finite
from diagnostics.progress import Advance, silent
from diagnostics.scoring.task import Task

Columns = dict[str, NDArray[np.float64]]
HALVES = (1.0, 0.5)  # of the step size
DIVERGENCES = ("kl", "reverse_kl")


def numbers(found: Divergences) -> Columns:
    """Both divergences, or their slopes, as arrays (pos,) float64."""
    return {name: getattr(found, name).double().cpu().numpy() for name in DIVERGENCES}


def bank_order(pieces: Iterable[tuple[Batch, Columns]]) -> Columns:
    """Columns (pos,) of batches, context after context in bank order."""
    rows: dict[int, Columns] = {}
    for batch, columns in pieces:
        ends = np.cumsum(batch.counts)[:-1]
        for name, values in columns.items():
            for row, own in zip(batch.rows, np.split(values, ends), strict=True):
                rows.setdefault(row, {})[name] = own
    order = sorted(rows)
    return {name: np.concatenate([rows[r][name] for r in order]) for name in rows[order[0]]}


def values_at(
    student: Student,
    parameters: Parameters,
    frozen: Iterable[Batch],
    what: str,
    advance: Advance = silent,
) -> Columns:
    """`kl` and `reverse_kl` (pos,) at some parameters, bank order, nats.

    Raises InputError that names the context where they are not finite, `what` being said of them.
    """
    pieces = []
    for batch in frozen:
        found = student.values(parameters, batch)
        require_finite(found.kl + found.reverse_kl, batch, what)
        pieces.append((batch, numbers(found)))
        advance(len(batch.rows))
    return bank_order(pieces)


def bank_steps(
    student: Student,
    task: Task,
    gradient: Parameters,
    size: float,
    start: Columns,
    advance: Advance = silent,
) -> list[Columns]:
    """Realised reductions of `kl` and `reverse_kl` (pos,), nats, by each step of `HALVES`.

    A step is theta_0 - share * size * gradient; `start` holds both divergences at theta_0.
    Positive: the student moved toward the teacher there.
    """
    found = []
    for share in HALVES:
        what = f"a step of {share * size:.3g} along the bank's gradient"
        moved = student.stepped(share * size, gradient)
        after = values_at(student, moved, batches(task), what, advance)
        found.append({name: start[name] - after[name] for name in DIVERGENCES})
    return found


def token_steps(
    student: Student,
    frozen: Sequence[Batch],
    bank_gradient: Parameters,
    length: float,
    draw: Sequence[int],
    advance: Advance = silent,
) -> pd.DataFrame:
    """Proposition 1 at single positions: a row for each position and step of `HALVES`.

    L_fix is the mean KL(p_T || p_theta) over the positions of `frozen`; `draw` numbers some of
    them, batch after batch. Gradients differ in size by orders, so eta is that of a step of one
    `length` in parameter space: eta = length / gradient_norm. Columns: `context_id`, `position`,
    `step_size` eta; `alignment` <grad L_fix, grad l_t>; `alignment_bank` the same with the whole
    bank's gradient, by a backward pass, so that it can be held against the forward one;
    `gradient_norm` of l_t; `first_order` eta * alignment; `realised` reduction of L_fix (nats,
    positive: it fell); `remainder` R_t = realised - first_order; `smoothness` 2 |R_t| / (eta *
    gradient_norm)^2, which the proposition's beta is at least.
    """
    start = float(values_at(student, student.parameters, frozen, "theta_0")["kl"].mean())
    count = sum(sum(batch.counts) for batch in frozen)
    own = {name: g / count for name, g in student.gradient(frozen, "kl").items()}
    rows: list[dict[str, Any]] = []
    for place in draw:
        single = _single(frozen, place)
        token = student.gradient([single], "reverse_kl")
        norm, alignment = inner(token, token) ** 0.5, inner(own, token)
        position = len(single.contexts[0].response) - 1
        shared = {
            "context_id": single.names[0],
            "position": position,
            "alignment": alignment,
            "alignment_bank": inner(bank_gradient, token),
            "gradient_norm": norm,
        }
        for eta in (share * length / norm if norm else 0.0 for share in HALVES):
            what = f"a step of {eta:.3g} along the gradient of position {position}"
            moved = student.stepped(eta, token)
            realised = start - float(values_at(student, moved, frozen, what)["kl"].mean())
            remainder = realised - eta * alignment
            bound = (eta * norm) ** 2 / 2
            rows.append(
                shared
                | {
                    "step_size": eta,
                    "first_order": eta * alignment,
                    "realised": realised,
                    "remainder": remainder,
                    "smoothness": abs(remainder) / bound if bound else np.nan,
                }
            )
        advance(1)
    return pd.DataFrame(rows)


def _single(frozen: Sequence[Batch], place: int) -> Batch:
    """Position number `place` of some batches, alone."""
    for batch in frozen:
        count = sum(batch.counts)
        if place < count:
            return batch.alone(place)
        place -= count
    raise IndexError(f"expected a position of the batches, got {place} beyond the last")
