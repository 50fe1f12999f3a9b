"""Rows as they were read, brought into the one order that chunks have, and checked.

Contexts stand in one run each, positions increase within them, no row is there twice, and every
number is finite; then where prompts and contexts begin is known (`chunks.Chunk`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.selection.signals import context_hashes
from diagnostics.statistics.streaming.chunks import Chunk, Indices


@dataclass(frozen=True, slots=True)
class Rows:
    """Runs of one context each: prompt and context of each (c,), where they begin (c + 1,)."""

    prompts: NDArray[np.object_]
    contexts: NDArray[np.object_]
    edges: Indices
    columns: Mapping[str, NDArray[Any]]


def in_order(rows: Rows) -> Rows:
    """The rows with each context in one run, positions increasing, sorted if they were not."""
    position = rows.columns["position"]
    falls = position[1:] <= position[:-1]
    falls[rows.edges[1:-1] - 1] = False
    keys = list(zip(rows.prompts, rows.contexts, strict=True))
    if not falls.any() and len(set(keys)) == len(keys):
        return rows
    lengths = np.diff(rows.edges)
    prompt_rank = np.cumsum(np.r_[True, rows.prompts[1:] != rows.prompts[:-1]])
    place = {key: at for at, key in enumerate(dict.fromkeys(keys))}
    run = np.array([place[key] for key in keys])
    order = np.lexsort((position, np.repeat(run, lengths), np.repeat(prompt_rank, lengths)))
    run = np.repeat(run, lengths)[order]
    edges = np.flatnonzero(np.r_[True, run[1:] != run[:-1], True])
    names = list(place)
    chosen = [names[at] for at in run[edges[:-1]]]
    prompts, contexts = (np.array([n[i] for n in chosen], dtype=object) for i in (0, 1))
    return Rows(prompts, contexts, edges, {n: c[order] for n, c in rows.columns.items()})


def require_finite(rows: Rows, where: str) -> None:
    """Refuses NaN and infinity; names the context."""
    for name, values in rows.columns.items():
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum()):
                continue
        fine = np.isfinite(values)
        if not fine.all():
            row = int(np.argmin(fine))
            context = rows.contexts[np.searchsorted(rows.edges, row, side="right") - 1]
            position = rows.columns["position"][row]
            raise InputError(
                where=f"{where}, context {context}, position {position}",
                expected=f"a finite `{name}`",
                got=str(values[row]),
                fix="score that context again, or drop it",
            )


def indexed(rows: Rows, where: str) -> Chunk:
    """The chunk that rows in order make. Raises InputError for a row that is there twice."""
    new = np.r_[True, rows.prompts[1:] != rows.prompts[:-1]]
    prompt_runs = np.r_[np.flatnonzero(new), len(rows.prompts)]
    position = rows.columns["position"]
    twice = position[1:] == position[:-1]
    twice[rows.edges[1:-1] - 1] = False
    if twice.any():
        row = int(np.argmax(twice))
        _refuse_twice(rows, row, where)
    order: list[int] = []
    for first, last in pairwise(prompt_runs.tolist()):
        order += sorted(range(first, last), key=rows.contexts.__getitem__)
    return Chunk(
        prompts=rows.prompts[new].tolist(),
        prompt_runs=prompt_runs,
        run_ends=rows.edges,
        run_order=np.array(order, dtype=np.int64),
        hashes=context_hashes(rows.contexts),
        columns=rows.columns,
    )


def _refuse_twice(rows: Rows, row: int, where: str) -> NoReturn:
    context = rows.contexts[np.searchsorted(rows.edges, row, side="right") - 1]
    raise InputError(
        where=f"{where}, context {context}, position {rows.columns['position'][row]}",
        expected="each position once",
        got="two rows",
        fix="give each token table once",
    )
