"""A number over training: at each checkpoint of a run that has steps, with bands over all of them.

All checkpoints are of one bank, so their numbers are made of the same draws: pointwise intervals,
simultaneous bands that hold the whole trajectory together, and the paired change from the first
checkpoint to the last. theta_0, whose gain is 0 by definition, is not a point of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.headlines import Number, Shared, name_of, number_of
from diagnostics.statistics.analyses.matching import matched
from diagnostics.statistics.inference.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    bands,
    difference,
    joint_intervals,
)
from diagnostics.statistics.inference.results import Tabled
from diagnostics.statistics.tables.opened import OpenedRun
from diagnostics.statistics.tables.origin import require_one_origin
from diagnostics.statistics.tables.sources import as_frame
from diagnostics.statistics.tables.values import Outcome


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Trajectory(Tabled):
    """A number at each step.

    Fields: `number`; `definitions`; `outcome`, nats for `gain`; `n_positions`, the same at each;
    `change` last less first, paired; `table` with one line a checkpoint, first step first: step,
    checkpoint, estimate, low, high (pointwise), band_low, band_high (all steps together), reason
    why ends are missing.
    """

    number: str
    definitions: str
    outcome: Outcome
    n_positions: int
    change: Interval
    table: pd.DataFrame


def trajectory(
    source: OpenedRun | pd.DataFrame,
    number: Number = "gain",
    bootstrap: Bootstrap = DEFAULT,
    *,
    series: str | None = None,
    steps: Mapping[str, int] | None = None,
    outcome: Outcome | None = None,
) -> Trajectory:
    """A headline number, or a function of a table, over the checkpoints of a run with their steps.

    `series` chooses where a run has several; `steps` by checkpoint says which to take, and must be
    given for a table. `outcome` is by default that of the definition set. Raises InputError for
    fewer than two checkpoints with steps, two of one step, several series, or a table in which
    checkpoints differ in their positions.
    """
    if steps is None:
        steps = _steps_of(source, series)
    order = sorted(steps, key=lambda name: steps[name])
    _check(order, steps)
    frames = [
        as_frame(source, name) if isinstance(source, pd.DataFrame) else source.table(None, name)
        for name in order
    ]
    first, places = frames[0], [f"trajectory, checkpoint {name}" for name in order]
    frames = [matched(first, frame, place)[1] for frame, place in zip(frames, places, strict=True)]
    origin = require_one_origin(frames, "trajectory")
    chosen = outcome or origin.definitions.outcome
    shared = None if origin.definitions.leaks else Shared(first)
    made = [number_of(frame, number, chosen, shared) for frame in frames]
    pieces = zip(order, joint_intervals(made, bootstrap), bands(made, bootstrap), strict=True)
    lines = [
        (steps[name], name, own.estimate, own.low, own.high, band.low, band.high, own.reason)
        for name, own, band in pieces
    ]
    return Trajectory(
        number=name_of(number),
        definitions=origin.definitions.name,
        outcome=chosen,
        n_positions=len(first),
        change=difference(made[-1], made[0], bootstrap),
        table=pd.DataFrame(lines, columns=COLUMNS),
    )


COLUMNS = ["step", "checkpoint", "estimate", "low", "high", "band_low", "band_high", "reason"]


def _steps_of(source: OpenedRun | pd.DataFrame, series: str | None) -> dict[str, int]:
    """The checkpoints of one series of a run, with their steps."""
    if isinstance(source, pd.DataFrame):
        raise _refused("steps of a table's checkpoints", "none", "give steps={checkpoint: step, …}")
    known = {name: step for name, step in source.steps.items() if step is not None}
    own = {name: source.run.series[name] for name in known}
    found = list(dict.fromkeys(own.values()))
    if series is None and len(found) > 1:
        names = _named(found)
        raise _refused("one series of checkpoints", names, "choose one with series=… or steps={…}")
    wanted = found[0] if series is None and found else series
    if found and wanted not in found:
        raise _refused(f"a series among {_named(found)}", repr(series), "choose one of them")
    return {name: step for name, step in known.items() if own[name] == wanted}


def _named(series: Iterable[str | None]) -> str:
    return ", ".join(name or "(checkpoints given by themselves)" for name in series)


def _check(order: list[str], steps: Mapping[str, int]) -> None:
    if len(order) < 2:
        got = ", ".join(order) or "none"
        fix = "score the checkpoints of several steps, or give steps={checkpoint: step, …}"
        raise _refused("at least two checkpoints with steps", got, fix)
    values = np.array([steps[name] for name in order])
    same = np.flatnonzero(values[1:] == values[:-1])
    if len(same):
        at = int(same[0])
        got = f"{order[at]} and {order[at + 1]} at step {values[at]}"
        raise _refused("one checkpoint a step", got, "choose them with steps={…}")


def _refused(expected: str, got: str, fix: str) -> InputError:
    return InputError(where="trajectory", expected=expected, got=got, fix=fix)
