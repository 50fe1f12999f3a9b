"""The noise floor of scoring: gains of a checkpoint that did not change.

theta_0 scored a second time, in another batch shape or dtype, is a checkpoint whose true gain is 0.
What it shows instead is the noise: per position as quantiles of |gain|, and for a mean, a gap or a
coefficient as the same statistic of the unchanged token table, so like is compared with like. A
claim is above the noise when its whole interval lies beyond the farthest end of that statistic's
interval. The sample is at most as large as the bank, so the noise of a mean is rather overstated.
Not covered: noise of signals other than the gain (C, D, H and reverse KL).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.scoring.run import BATCH, Run
from diagnostics.statistics.analyses.budgets import kept_means
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, interval
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.tables.measured import RELATIVE_EPSILON

PRECISION = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}  # significant bits


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NoiseFloor(Result):
    """Gains of an unchanged checkpoint, in nats.

    Fields: `kind` of noise (`batch` or another dtype); `n_contexts` and `n_positions` that were
    scored twice; `mean` signed mean gain with its prompt-cluster interval; `q50`, `q90`, `q99`
    linear-interpolation quantiles of |gain|, and `max` the largest.
    """

    kind: str
    n_contexts: int
    n_positions: int
    mean: Interval
    q50: float
    q90: float
    q99: float
    max: float


def noise_floor(kind: str, unchanged: pd.DataFrame, bootstrap: Bootstrap = DEFAULT) -> NoiseFloor:
    """The floor of one kind from its `unchanged_tokens`."""
    sizes = unchanged["gain"].abs().to_numpy()
    everywhere = np.ones(len(unchanged), dtype=bool)
    q50, q90, q99 = (float(q) for q in np.quantile(sizes, (0.5, 0.9, 0.99)))
    return NoiseFloor(
        kind=kind,
        n_contexts=int(unchanged["context_id"].nunique()),
        n_positions=len(unchanged),
        mean=interval(kept_means(unchanged, everywhere, "gain"), bootstrap),
        q50=q50,
        q90=q90,
        q99=q99,
        max=float(sizes.max()),
    )


def unchanged_tokens(frame: pd.DataFrame, run: Run, kind: str = BATCH) -> pd.DataFrame:
    """Token table of a checkpoint that did not change: `frame`'s rows that were scored twice.

    `frame` is the token table of one checkpoint of `run`, whichever. Its features stay as they are;
    `kl` is theta_0's from the second time, and the gains are kl_0 less that. The index tells the
    rows in `frame`. Raises InputError for a kind that was not measured, a position that is not in
    `frame`, or a number that is not finite.
    """
    noise = run.noise(kind)
    codes = pd.Categorical(frame["context_id"], categories=run.contexts()[0]).codes
    rows = find_rows(codes, frame["position"].to_numpy(), noise.context, noise.position)
    if not len(rows) or (rows < 0).any() or not np.isfinite(noise.kl).all():
        raise InputError(
            where=str(run.folder / "noise" / kind),
            expected="finite scores at positions of the run",
            got="none, other positions, NaN or infinity",
            fix="delete that folder and run the same `diagnostics rescore` again",
        )
    kl_0 = frame["kl_0"].to_numpy()[rows]
    gain = kl_0 - noise.kl
    changed = {"kl": noise.kl, "gain": gain, "gain_rel": gain / (kl_0 + RELATIVE_EPSILON)}
    changed["reverse_kl"] = noise.reverse_kl
    return frame.iloc[rows].assign(**changed)


def find_rows(
    context: NDArray[np.integer],
    position: NDArray[np.integer],
    wanted_context: NDArray[np.integer],
    wanted_position: NDArray[np.integer],
) -> NDArray[np.int64]:
    """Row of each wanted (context, position) among (pos,) ones, each there at most once; -1: none.

    Contexts are indices into the bank; neither side need be sorted.
    """
    keys, wanted = (
        np.asarray(c, np.int64) * 2**32 + np.asarray(p, np.int64)
        for c, p in ((context, position), (wanted_context, wanted_position))
    )
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    rows = order[place]
    return np.where(keys[rows] == wanted, rows, -1)


def counts_against(kind: str, dtype: str) -> bool:
    """Whether a kind of noise is in the numbers of a run that was scored in `dtype`.

    The batch shape always is. Another dtype is when it is finer: then the difference is the
    rounding of the run's own. A coarser one tells what it would have cost, no more. A kind or dtype
    of another name counts.
    """
    return kind == BATCH or PRECISION.get(kind, np.inf) > PRECISION.get(dtype, 0)


def farthest(values: Iterable[Interval]) -> float:
    """How far from 0 the intervals reach; NaN where none is given."""
    ends = [max(abs(v.low), abs(v.high)) for v in values if v.low == v.low]
    return max(ends, default=np.nan)


def in_noise(value: Interval, noise: float) -> bool:
    """Whether the noise alone keeps a claim from being made, or the value is within the noise.

    True where the interval holds no 0 yet reaches within +-`noise`, and where all of it lies there.
    Noise that was not measured (NaN) takes nothing away.
    """
    if value.verdict(noise) != "unclear":
        return False
    return value.verdict() != "unclear" or max(abs(value.low), abs(value.high)) <= noise
