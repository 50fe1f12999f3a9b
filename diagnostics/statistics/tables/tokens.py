"""The token table: one row per (checkpoint, context, valid position), under a definition set.

Everything before training is measured at theta_0; only `kl`, `reverse_kl` and the gains know the
checkpoint, unless the set's leakage switch takes H or C from it too. A table says its set, its K
and its bank in `frame.attrs` (`definitions`, `origin`), which survive what analyses do with frames;
joining tables that differ in one of them loses all. A table that does not fit in memory is written
part by part (`token_files`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.scoring.run import Run
from diagnostics.statistics.tables.columns import columns_of
from diagnostics.statistics.tables.definitions import PAPER, Definitions, state
from diagnostics.statistics.tables.measured import (
    Columns,
    Start,
    choose,
    measure_after,
    measure_listed,
    measure_start,
)
from diagnostics.statistics.tables.normalize import HIGH, LOW, Epsilon, stretched_between
from diagnostics.statistics.tables.origin import stamp
from diagnostics.statistics.tables.values import require_finite

Floats = NDArray[np.float64]

NORMALIZED = ("disagreement", "compatibility", "entropy", "teacher_entropy")
SPLIT = ("entropy", "kl_0")
LISTED_NORMALIZED = ("disagreement", "compatibility_lower", "entropy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Quantiles of a population, by raw column.

    Fields: `ranges` Q05 and Q95 of each normalised signal; `medians` where the quadrants split,
    empty beside a teacher known by its lists.
    """

    ranges: Mapping[str, tuple[float, float]]
    medians: Mapping[str, float]


def token_table(
    run: Run, k: int, checkpoints: Sequence[str] | None = None, definitions: Definitions = PAPER
) -> pd.DataFrame:
    """The token table of a run at support size `k`, in bank order.

    Raises InputError for a `k` beyond the run's, a run without checkpoints, an unknown one, or
    another set than `paper` beside a teacher known by its lists alone.
    """
    (table,) = token_tables(run, [k], checkpoints, definitions)
    return table


def token_tables(
    run: Run,
    ks: Sequence[int],
    checkpoints: Sequence[str] | None = None,
    definitions: Definitions = PAPER,
    *,
    start: Start | None = None,
) -> Iterator[pd.DataFrame]:
    """`token_table` at each of several support sizes, from scores that are read once.

    `start` may hold what was measured of the run already.
    """
    names = require_checkpoints(run, checkpoints)
    require_measured(run, definitions)
    columns = [c.name for c in columns_of(run)]
    if start is None and not run.listed:
        start = measure_start(run, ks[0], run.contexts())
    for k in ks:
        if start is None:
            pieces = _listed(run, k, names)
        else:
            pieces = _pieces(run, k, names, definitions, start.at(k))
        tables = [pd.DataFrame({name: piece[name] for name in columns}) for piece in pieces]
        whole = pd.concat(tables, ignore_index=True)
        whole["checkpoint"] = pd.Categorical(whole["checkpoint"], categories=names)
        yield stamp(state(whole, definitions), k, run.bank_digest)


def require_checkpoints(run: Run, checkpoints: Sequence[str] | None) -> list[str]:
    """The asked checkpoints, by default all. Raises InputError for none or an unknown one."""
    names = list(run.checkpoints if checkpoints is None else checkpoints)
    unknown = [name for name in names if name not in run.checkpoints]
    if unknown or not names:
        raise InputError(
            where=str(run.folder),
            expected=f"checkpoints among {', '.join(run.checkpoints) or '(none scored)'}",
            got=", ".join(unknown) or "none",
            fix="add one with `diagnostics rescore … --checkpoint NAME=MODEL`",
        )
    return names


def require_measured(run: Run, definitions: Definitions) -> None:
    """Refuses another set than `paper` for a teacher known by its lists: it needs KL and C."""
    if run.listed and definitions != PAPER:
        raise InputError(
            where=str(run.folder),
            expected="the definition set `paper` beside a teacher known by its top-k lists alone",
            got=f"`{definitions.name}`",
            fix="leave --definitions out, or score the bank with the teacher's weights",
        )


def require_gain(run: Run) -> None:
    """Refuses a run beside a teacher known by its lists: no gain can be had there."""
    if run.listed:
        raise InputError(
            where=str(run.folder),
            expected="a teacher whose whole distribution is known: gain needs KL",
            got="one known by its top-k lists alone",
            fix="score the bank with the teacher's weights",
        )


def require_signals(raw: Mapping[str, Any]) -> None:
    """Refuses a raw signal (pos,) that is not finite: one of them spoils every norm of the bank."""
    everywhere = np.ones(len(raw["entropy"]), dtype=bool)
    for name in dict.fromkeys((*NORMALIZED, *SPLIT)):
        require_finite(np.asarray(raw[name]), name, raw, everywhere)


def derived(
    raw: Mapping[str, Any], epsilon: Epsilon = "always", cuts: Cuts | None = None
) -> dict[str, NDArray[Any]]:
    """The columns that depend on a population: normalised signals, D^L, D^I and quadrants.

    `raw` holds the raw signals (pos,) by column name, of that population, or of a part of it whose
    `cuts` are given.
    """
    cuts = cuts or cuts_of(raw)
    normalized = {name: _norm(raw, name, cuts, epsilon) for name in NORMALIZED}
    disagreement = normalized["disagreement"]
    learnable = disagreement * normalized["compatibility"]
    return {
        **{f"{name}_norm": values for name, values in normalized.items()},
        "learnable": learnable,
        "incompatible": disagreement - learnable,
        "quadrant": quadrants_at(
            np.asarray(raw["entropy"]),
            np.asarray(raw["kl_0"]),
            cuts.medians["entropy"],
            cuts.medians["kl_0"],
        ),
    }


def derived_listed(raw: Mapping[str, Any], cuts: Cuts | None = None) -> dict[str, Floats]:
    """The same beside a teacher known by its lists: D^L of C-hat alone, no quadrants."""
    cuts = cuts or cuts_of(raw, LISTED_NORMALIZED, ())
    disagreement, compatibility, entropy = (_norm(raw, name, cuts) for name in LISTED_NORMALIZED)
    return {
        "disagreement_norm": disagreement,
        "entropy_norm": entropy,
        "learnable_lower": disagreement * compatibility,
    }


def cuts_of(
    raw: Mapping[str, Any], normalized: Sequence[str] = NORMALIZED, split: Sequence[str] = SPLIT
) -> Cuts:
    """The quantiles of raw signals (pos,), interpolated linearly."""
    found = {name: np.quantile(np.asarray(raw[name]), [LOW, HIGH]) for name in normalized}
    return Cuts(
        ranges={name: (float(low), float(high)) for name, (low, high) in found.items()},
        medians={name: float(np.quantile(np.asarray(raw[name]), 0.5)) for name in split},
    )


def quadrants(entropy: Floats, kl_0: Floats, quantile: float = 0.5) -> NDArray[np.int8]:
    """TIP's quadrant of each position, (pos,): both cuts at `quantile`, Q3 owns its borders.

    Q1 high H, high KL; Q2 high H, low KL; Q3 low H (<= cut), high KL (>= cut); Q4 low, low.
    """
    cuts = (float(np.quantile(values, quantile)) for values in (entropy, kl_0))
    return quadrants_at(entropy, kl_0, *cuts)


def quadrants_at(
    entropy: Floats, kl_0: Floats, entropy_cut: float, kl_cut: float
) -> NDArray[np.int8]:
    """`quadrants` for given cuts."""
    low_entropy = (entropy <= entropy_cut).astype(np.int8)
    high_kl = (kl_0 >= kl_cut).astype(np.int8)
    two = np.int8(2)
    return np.asarray(two + two * low_entropy - high_kl)  # (low, high): 00 2, 10 4, 01 1, 11 3


def _norm(raw: Mapping[str, Any], name: str, cuts: Cuts, epsilon: Epsilon = "always") -> Floats:
    stretched = stretched_between(np.asarray(raw[name]), *cuts.ranges[name], epsilon)
    return np.clip(stretched, 0.0, 1.0)


def _listed(run: Run, k: int, names: Sequence[str]) -> Iterator[Columns]:
    """The columns of each checkpoint beside a teacher known by its lists."""
    contexts = run.contexts()
    for name in names:
        raw = measure_listed(run, k, name, contexts)
        yield raw | derived_listed(raw)


def _pieces(
    run: Run, k: int, names: Sequence[str], definitions: Definitions, start: Start
) -> Iterator[Columns]:
    """The columns of each checkpoint; what knows theta_0 alone is made once."""
    made: dict[str, NDArray[Any]] = {}
    for name in names:
        after = measure_after(run, k, name, start, own=definitions.leaks)
        raw = choose(start, after, definitions)
        if definitions.leaks or not made:
            require_signals(raw)
            made = derived(raw, definitions.epsilon)
        yield raw | made
