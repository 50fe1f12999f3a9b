"""Placebo: what the headline numbers are when D and C say nothing of the position they stand at.

Every position is given the D and the C of another position of its prompt, as a pair, and with them
their norms, D^L and D^I; outcome, controls and quadrants stay. What a number keeps after that comes
from differences between prompts or from the design, not from where support is. Shuffles follow from
a hash of (seed, context, position), so the order of rows changes nothing. Not covered: shuffles
across prompts, which would take the differences between prompts away as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.headlines import Headline, Shared, headline
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, interval
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.selection.signals import identities, uniform
from diagnostics.statistics.tables.definitions import ATTRIBUTE
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.values import Outcome

SHUFFLES = 20
MOVED = (
    "disagreement",
    "compatibility",
    "disagreement_norm",
    "compatibility_norm",
    "learnable",
    "incompatible",
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Placebo(Result):
    """A headline number beside the same of shuffled tables.

    Fields: `headline`; `definitions` the table's set; `outcome`, nats for `gain`; `real` the number
    itself; `shuffles` how many; `mean` and `sd` (ddof 1) of the shuffled numbers; `excludes_zero`
    the share of shuffles whose interval does not hold 0, NaN where none has an interval; `values` a
    frame with one row a shuffle: shuffle, estimate, low, high.
    """

    headline: Headline
    definitions: str
    outcome: Outcome
    real: Interval
    shuffles: int
    mean: float
    sd: float
    excludes_zero: float
    values: pd.DataFrame


@on_table
def placebo(
    frame: pd.DataFrame,
    name: Headline,
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome = "gain",
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Placebo:
    """The placebo distribution of a headline number of one checkpoint's token table.

    `beta` and `beta_q3` are the regression gap, `budget` the exact top-N by D^L less that by D~:
    both rankings follow the shuffled pair. Raises InputError where the number cannot be had, for
    fewer than two shuffles, and where every prompt has a single position.
    """
    (only,) = placebos(frame, (name,), bootstrap, outcome=outcome, shuffles=shuffles, seed=seed)
    return only


def placebos(
    frame: pd.DataFrame,
    names: Sequence[Headline],
    bootstrap: Bootstrap = DEFAULT,
    *,
    outcome: Outcome = "gain",
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> list[Placebo]:
    """`placebo` of several headline numbers, from the same shuffled tables."""
    if shuffles < 2:
        raise InputError(
            where="placebo",
            expected="at least two shuffles",
            got=str(shuffles),
            fix=f"leave it at {SHUFFLES}, or ask for more",
        )
    real = _intervals(frame, names, outcome, bootstrap)
    made = [
        _intervals(table, names, outcome, bootstrap)
        for table in shuffled_tables(frame, shuffles, seed)
    ]
    stated = frame.attrs.get(ATTRIBUTE, "not stated")
    return [
        _placebo(name, stated, outcome, one, shuffled)
        for name, one, shuffled in zip(names, real, zip(*made, strict=True), strict=True)
    ]


def _intervals(
    frame: pd.DataFrame, names: Sequence[Headline], outcome: Outcome, bootstrap: Bootstrap
) -> list[Interval]:
    shared = Shared(frame)
    return [interval(headline(frame, name, outcome, shared), bootstrap) for name in names]


def _placebo(
    name: Headline, stated: str, outcome: Outcome, real: Interval, made: Sequence[Interval]
) -> Placebo:
    rows = [(i, v.estimate, v.low, v.high) for i, v in enumerate(made, 1)]
    values = pd.DataFrame(rows, columns=["shuffle", "estimate", "low", "high"])
    known = values.dropna()
    beyond = (known["low"] > 0) | (known["high"] < 0)
    return Placebo(
        headline=name,
        definitions=stated,
        outcome=outcome,
        real=real,
        shuffles=len(made),
        mean=float(values["estimate"].mean()),
        sd=float(values["estimate"].std()),
        excludes_zero=float(beyond.mean()) if len(known) else float("nan"),
        values=values,
    )


def shuffled_tables(frame: pd.DataFrame, shuffles: int, seed: int) -> Iterator[pd.DataFrame]:
    """The token table with `MOVED` columns shuffled within prompts, so many times."""
    moved = {name: frame[name].to_numpy() for name in MOVED}
    for source in sources(frame, shuffles, seed):
        yield frame.assign(**{name: values[source] for name, values in moved.items()})


def sources(frame: pd.DataFrame, shuffles: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The row that each row takes its pair from, (pos,), for each shuffle.

    Within a prompt, the i-th position by identity gives to the i-th by a hash of identity and seed.
    Raises InputError where every prompt has a single position.
    """
    owner = prompt_clusters(frame).of_row
    if not len(owner) or np.bincount(owner).max() < 2:
        raise InputError(
            where="placebo",
            expected="a prompt with at least two positions",
            got="none: nothing can be shuffled within prompts",
            fix="score longer or more rollouts",
        )
    identity = identities(frame["context_id"], frame["position"].to_numpy())
    givers = np.lexsort((identity, owner))
    identity, owner = identity[givers], owner[givers]
    for index in range(shuffles):
        drawn = uniform(identity, int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))
        source = np.empty_like(givers)
        source[givers[np.lexsort((drawn, owner))]] = givers
        yield source
