"""Every statistic of a token table of any length, in memory that grows with its prompts alone.

The files are decoded once (`store`) and passed over about five times: quantiles of the signals
(`quantiles`), sums that need the normalised signals, cut points inside Q3 and of every budget, sums
on each side of the cuts. What is left is sums per prompt, and every interval is made from those by
the same estimators as in memory, so the numbers are those of `gaps`, `budgets` and `regression` on
the same rows: kept sets and cut points are equal, sums are equal up to rounding. Memory is a budget
of columns, a chunk a thread, and some 7 kB a prompt.

Norms and quadrants are made anew from the stream; the table's own columns of them are not read.
Not covered: redone cut points in each draw (`redraw`), the report's noise floor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.budgets import TopN
from diagnostics.statistics.analyses.gaps import Gap, MatchedGap, without_q3
from diagnostics.statistics.analyses.regression import Decomposition, Scope
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.statistics.streaming.cuts import Kept, sought_cuts, wanted_counts
from diagnostics.statistics.streaming.quantiles import QuantileSearch
from diagnostics.statistics.streaming.results import Sums, results
from diagnostics.statistics.streaming.scale import (
    OUTCOMES,
    SIGNALS,
    Load,
    Refine,
    Scale,
    sought_probabilities,
)
from diagnostics.statistics.streaming.sketch import Sketch
from diagnostics.statistics.streaming.steps import Narrow, Reduce, Split
from diagnostics.statistics.streaming.team import AnyStep, Reader, Recruit, StreamSettings, Team
from diagnostics.statistics.tables.values import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """The statistics of one checkpoint.

    Fields: `n_contexts`, `n_prompts`, `n_positions`, `n_q3`; `signals` a frame of quantiles, a row
    a signal; `quadrants` a frame, a row a quadrant; `gaps` by (proxy, outcome); `matched` by
    outcome; `top_n` by (selector, budget, outcome); `fits` by (scope, outcome).
    """

    n_contexts: int
    n_prompts: int
    n_positions: int
    n_q3: int
    signals: pd.DataFrame
    quadrants: pd.DataFrame
    gaps: Mapping[tuple[str, Outcome], Gap]
    matched: Mapping[Outcome, MatchedGap]
    top_n: Mapping[tuple[Selector, float, Outcome], TopN]
    fits: Mapping[tuple[Scope, Outcome], Decomposition]


def stream_statistics(
    files: Sequence[Path],
    settings: StreamSettings | None = None,
    bootstrap: Bootstrap = DEFAULT,
    *,
    team: Recruit | None = None,
) -> dict[str, StreamStatistics]:
    """The statistics of each checkpoint in some token tables, in order of appearance.

    `team` makes those who hold the files (default: this process, all of them). Raises InputError as
    `read_chunks` does, for a prompt whose rows are apart, and where the in-memory analyses would.
    """
    settings = settings or StreamSettings()
    with _closing((team or Reader)(files, settings)) as members:
        loaded = _loaded(members, settings)
        sums = {name: reduce_stream(members, name, load, settings) for name, load in loaded.items()}
    return {name: _statistics(found, settings, bootstrap) for name, found in sums.items()}


def _statistics(sums: Sums, settings: StreamSettings, bootstrap: Bootstrap) -> StreamStatistics:
    return StreamStatistics(
        n_contexts=sums.load.contexts,
        n_prompts=len(sums.load.prompts),
        n_positions=sums.load.rows,
        n_q3=sums.n_q3,
        **results(sums, settings.quantiles, settings.budgets, bootstrap),
    )


def reduce_stream(team: Team, checkpoint: str, load: Load, settings: StreamSettings) -> Sums:
    """All passes over one checkpoint after the first: the sums that every statistic is made of."""
    _require_together(load.prompts)
    quantiles = _signal_quantiles(team, checkpoint, load)
    scale = _scale(quantiles)
    cuts = sought_cuts(settings.proxies, settings.selectors)
    reduced = Reduce(scale=scale, seed=settings.seed, cuts=cuts)
    _run(team, checkpoint, reduced)
    if not cuts.proxies[settings.proxies[0]].count:
        raise without_q3()
    budgets = sorted(settings.budgets)
    wanted = {s: wanted_counts(s, budgets, load.rows) for s in settings.selectors}
    for proxy in cuts.proxies.values():
        proxy.start()
    for selector, search in cuts.selectors.items():
        search.seek(min(n, search.count) - 1 for n in wanted[selector])
    while not cuts.all_done():
        _run(team, checkpoint, Narrow(scale=scale, seed=settings.seed, cuts=cuts))
        cuts.advance()
    tertiles = {name: tuple(search.quantiles()) for name, search in cuts.proxies.items()}
    split = Split(
        scale=scale,
        seed=settings.seed,
        cuts={name: found[:2] for name, found in tertiles.items()},
        selected={s: Kept.found(s, search, wanted[s]) for s, search in cuts.selectors.items()},
    )
    _run(team, checkpoint, split)
    return Sums(load=load, quantiles=quantiles, reduced=reduced, split=split, tertiles=tertiles)


def _run(team: Team, checkpoint: str, step: AnyStep) -> None:
    """A pass over all parts; `step` takes what they saw."""
    for part in team.run(checkpoint, step.fresh()):
        step.merge(part)


def _loaded(team: Team, settings: StreamSettings) -> dict[str, Load]:
    wanted = sought_probabilities(settings.quantiles)

    def search(probabilities: tuple[float, ...]) -> QuantileSearch | Sketch:
        if settings.error:
            return Sketch(settings.error, probabilities)
        return QuantileSearch(probabilities)

    sought = dict.fromkeys(SIGNALS, wanted) | dict.fromkeys(OUTCOMES, (0.5,))
    empty = Load(searches={name: search(p) for name, p in sought.items()})
    found: dict[str, Load] = {}
    for part in team.load(empty):
        for name, load in part.items():
            found.setdefault(name, empty.fresh()).merge(load)
    if not found:
        raise InputError(
            where="token tables",
            expected="at least one row",
            got="none",
            fix="write them with `diagnostics tokens`",
        )
    return found


def _signal_quantiles(team: Team, checkpoint: str, load: Load) -> dict[str, np.ndarray]:
    exact = {n: s for n, s in load.searches.items() if isinstance(s, QuantileSearch)}
    for search in exact.values():
        search.start()
    while left := {name: search for name, search in exact.items() if not search.done}:
        _run(team, checkpoint, Refine(searches=dict(left)))
        for search in left.values():
            search.advance()
    return {name: search.quantiles() for name, search in load.searches.items()}


def _scale(quantiles: Mapping[str, np.ndarray]) -> Scale:
    low, middle, high = (
        {name: float(quantiles[name][at]) for name in SIGNALS} for at in (-3, -2, -1)
    )
    gain, relative = (float(quantiles[name][0]) for name in OUTCOMES)
    return Scale(low=low, high=high, middle=middle, outcome=(gain, relative))


def _require_together(prompts: Sequence[str]) -> None:
    """Refuses a prompt that comes back after another."""
    seen: set[str] = set()
    for prompt in prompts:
        if prompt in seen:
            raise InputError(
                where=f"token tables, prompt {prompt}",
                expected="all rows of a prompt together",
                got="more of them after other prompts",
                fix="sort the rows by prompt_id",
            )
        seen.add(prompt)


@contextmanager
def _closing(team: Team) -> Iterator[Team]:
    try:
        yield team
    finally:
        team.close()
