"""From a stream's sums per prompt to the records that the in-memory analyses return.

Prompts are put in the order of their ids, as `clusters` numbers them, so that draws are of the same
prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.statistics.analyses.budgets import TopN
from diagnostics.statistics.analyses.gaps import (
    Gap,
    MatchedGap,
    balance_frame,
    constant_proxy,
    without_pairs,
)
from diagnostics.statistics.analyses.regression import (
    PREDICTORS,
    Decomposition,
    Scope,
    decomposition_from,
)
from diagnostics.statistics.inference.bootstrap import (
    Bootstrap,
    Interval,
    intervals,
    percentile_interval,
)
from diagnostics.statistics.inference.estimators import Difference, Estimator, Mean, estimate
from diagnostics.statistics.inference.least_squares import require_varied
from diagnostics.statistics.inference.results import spread
from diagnostics.statistics.streaming.scale import SIGNALS, UNDER, Load
from diagnostics.statistics.streaming.steps import WIDTH, Reduce, Split
from diagnostics.statistics.tables.values import Outcome

Floats = NDArray[np.float64]

OUTCOMES: tuple[Outcome, ...] = ("gain", "gain_rel")
SCOPES: tuple[Scope, ...] = ("all", "q3")
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What the passes over one checkpoint have left.

    Fields: the steps `load`, `reduced`, `split`; `quantiles` of each signal; `tertiles` of each
    proxy in Q3, then its least and greatest.
    """

    load: Load
    quantiles: Mapping[str, Floats]
    reduced: Reduce
    split: Split
    tertiles: Mapping[str, tuple[float, ...]]

    @property
    def n_q3(self) -> int:
        """Positions in Q3."""
        return int(sum(block[:, 2].sum() for block in self.reduced.quadrants))


def intervals_together(
    estimators: Mapping[Key, Estimator], bootstrap: Bootstrap
) -> dict[Key, list[Interval]]:
    """`intervals` of many estimators of the same clusters, by key.

    Percentile intervals come from one pass over the draws: many prompts' draws are not kept, and
    each estimator would make them again.
    """
    sums = {key: part.sums for key, part in estimators.items()}
    clusters = len(next(iter(sums.values())))
    if bootstrap.kind != "percentile" or clusters < 2:
        return {key: intervals(part, bootstrap) for key, part in estimators.items()}
    totals, made, start = bootstrap.totals(np.hstack(list(sums.values()))), {}, 0
    for key, part in estimators.items():
        end = start + sums[key].shape[1]
        draws = part.value(totals[:, start:end])
        numbers = zip(estimate(part), draws.T, strict=True)
        made[key] = [percentile_interval(float(value), drawn) for value, drawn in numbers]
        start = end
    return made


def results(
    sums: Sums, quantiles: Sequence[float], budgets: Sequence[float], bootstrap: Bootstrap
) -> dict[str, Any]:
    """The frames and records of `StreamStatistics`."""
    order = sorted(range(len(sums.load.prompts)), key=sums.load.prompts.__getitem__)
    table = _Estimators(sums, np.array(order, dtype=np.int64), budgets)
    parts = table.all()
    made = intervals_together(parts, bootstrap)
    return {
        "signals": signal_frame(sums, quantiles),
        "quadrants": _quadrants(sums, made),
        "gaps": {k[1:]: _gap(sums, table, k, made) for k in parts if k[0] == "gap"},
        "matched": {k[1]: _matched(sums, table, k, made) for k in parts if k[0] == "matched"},
        "top_n": {k[1:]: _top_n(sums, table, k, made) for k in parts if k[0] == "top_n"},
        "fits": {k[1:]: _fit(sums, k, parts[k], made) for k in parts if k[0] == "fit"},
    }


class _Estimators:
    """Every estimator, by a key that says what it is of; prompts are in the order given."""

    def __init__(self, sums: Sums, order: NDArray[np.int64], budgets: Sequence[float]) -> None:
        self.sums, self.order, self.budgets = sums, order, list(budgets)
        self.quadrants = self._in_order(sums.reduced.quadrants)
        self.matched = self._in_order(sums.reduced.matched)
        self.gaps = {name: self._in_order(b) for name, b in sums.split.gaps.items()}
        self.kept = {name: self._kept(b) for name, b in sums.split.kept.items()}

    def all(self) -> dict[Key, Estimator]:
        """All of them. Raises InputError where one cannot be had."""
        return {
            **{
                ("quadrant", q): Mean(self.quadrants[:, 3 + q], self.quadrants[:, q - 1])
                for q in (1, 2, 3, 4)
            },
            **dict(self._gap_parts()),
            **dict(self._matched_parts()),
            **dict(self._kept_parts()),
            **dict(self._fit_parts()),
        }

    def _in_order(self, blocks: Sequence[Floats]) -> Floats:
        return np.concatenate(blocks)[self.order]

    def _kept(self, blocks: Sequence[Floats]) -> Floats:
        """Sums of all that each budget keeps, (budgets, clusters, 3): the smaller ones' too."""
        first = self._in_order(blocks)
        return np.cumsum(first.reshape(len(first), -1, 3), axis=1).transpose(1, 0, 2)

    def _gap_parts(self) -> Iterator[tuple[Key, Estimator]]:
        for proxy, found in self.gaps.items():
            low, high = self.sums.tertiles[proxy][2:]
            if low == high:
                raise constant_proxy(proxy, low)
            for place, outcome in enumerate(OUTCOMES, 1):
                sides = [Mean(found[:, side + place], found[:, side]) for side in (0, 3)]
                yield ("gap", proxy, outcome), Difference(*sides)

    def _matched_parts(self) -> Iterator[tuple[Key, Estimator]]:
        if not self.matched[:, 0].any():
            raise without_pairs(next(iter(self.gaps)))
        for place, outcome in enumerate(OUTCOMES, 1):
            yield ("matched", outcome), Mean(self.matched[:, place], self.matched[:, 0])

    def _kept_parts(self) -> Iterator[tuple[Key, Estimator]]:
        ranks = np.argsort(np.argsort(self.budgets, kind="stable"), kind="stable")
        for selector, found in self.kept.items():
            for at, budget in enumerate(self.budgets):
                block = found[ranks[at]]
                for place, outcome in enumerate(OUTCOMES, 1):
                    yield (
                        ("top_n", selector, budget, outcome),
                        Mean(block[:, place], block[:, 0]),
                    )

    def _fit_parts(self) -> Iterator[tuple[Key, Estimator]]:
        reduced = self.sums.reduced
        for scope, blocks, ends in (
            ("all", reduced.cross, reduced.ends),
            ("q3", reduced.cross_q3, reduced.ends_q3),
        ):
            for name, low, high in zip(PREDICTORS, *ends, strict=True):
                require_varied(np.array([low, high]), name)
            cross = self._in_order(blocks)
            for outcome, columns in zip(OUTCOMES, _outcome_columns(), strict=True):
                yield ("fit", scope, outcome), decomposition_from(cross[:, columns])


def _outcome_columns() -> list[NDArray[np.int64]]:
    """Which of the 66 sums belong to the regression of each outcome."""
    rows, columns = np.triu_indices(WIDTH)
    drop = (WIDTH - 1, WIDTH - 2)  # gain is column 9, relative gain 10
    return [np.flatnonzero((rows != other) & (columns != other)) for other in drop]


def _gap(sums: Sums, table: _Estimators, key: Key, made: Mapping[Key, list[Interval]]) -> Gap:
    _, proxy, _ = key
    high, low = table.gaps[proxy][:, 0].sum(), table.gaps[proxy][:, 3].sum()
    return Gap(
        proxy=proxy,
        gap=made[key][0],
        n_positions=sums.n_q3,
        n_high=int(high),
        n_low=int(low),
        tied_share=sums.split.tied[proxy] / sums.n_q3,
    )


def _matched(
    sums: Sums, table: _Estimators, key: Key, made: Mapping[Key, list[Interval]]
) -> MatchedGap:
    pairs, balance = table.matched[:, 0].sum(), sums.reduced.balance
    mean = balance[0] / sums.n_q3
    variance = balance[1] / sums.n_q3 - (mean - 0.5) ** 2
    return MatchedGap(
        gap=made[key][0],
        pairs=int(pairs),
        prompt_share=float((table.matched[:, 0] > 0).sum() / len(table.matched)),
        balance=balance_frame(
            spread=np.sqrt(np.maximum(variance, 0.0)),
            high=balance[5] / pairs,
            all_low=balance[2] / balance[3],
            matched_low=balance[4] / pairs,
        ),
    )


def _top_n(sums: Sums, table: _Estimators, key: Key, made: Mapping[Key, list[Interval]]) -> TopN:
    _, selector, budget, _ = key
    at = sorted(table.budgets).index(budget)
    kept = sums.split.selected[selector]
    count = kept.count[at]
    means = np.cumsum(sums.split.means[selector], axis=0)[at] / count
    tied, of_score = sums.split.ties[selector][at]
    gain = made[key][0]
    short = kept.count[at] < kept.wanted[at]
    return TopN(
        selector=selector,
        budget=budget,
        n_kept=count,
        gain=gain,
        gain_per_keep=gain.estimate / (count / sums.load.rows if short else budget),
        q3_share=float(means[0]),
        entropy_norm=float(means[1]),
        disagreement_norm=float(means[2]),
        compatibility_norm=float(means[3]),
        tied_share=float(tied / count) if tied < of_score else 0.0,
        short=short,
    )


def _fit(
    sums: Sums, key: Key, part: Estimator, made: Mapping[Key, list[Interval]]
) -> Decomposition:
    _, scope, outcome = key
    return Decomposition(
        scope=scope,
        outcome=outcome,
        n_positions=sums.load.rows if scope == "all" else sums.n_q3,
        n_q3=sums.n_q3,
        **dict(zip(part.names, made[key], strict=True)),
    )


def _quadrants(sums: Sums, made: Mapping[Key, list[Interval]]) -> pd.DataFrame:
    """A row a quadrant: share, n_positions, mean entropy, kl_0, compatibility, gain."""
    counts = sum(block[:, :4].sum(axis=0) for block in sums.reduced.quadrants)
    rows = []
    for at in range(4):
        with np.errstate(invalid="ignore"):
            means = sums.reduced.totals[at] / counts[at]
        row = {"quadrant": at + 1, "share": counts[at] / sums.load.rows}
        row |= {"n_positions": int(counts[at])}
        row |= dict(zip(("entropy", "kl_0", "compatibility"), means, strict=True))
        rows.append(row | spread("gain", made["quadrant", at + 1][0]))
    return pd.DataFrame(rows)


def signal_frame(sums: Sums, quantiles: Sequence[float]) -> pd.DataFrame:
    """A row a signal: mean, its quantiles, the shares under 0.5 and 0.9."""
    rows = []
    for name in SIGNALS:
        found = sums.quantiles[name][: len(quantiles)]
        row: dict[str, Any] = {"signal": name, "mean": sums.load.sums[name] / sums.load.rows}
        row |= {f"q{round(q * 100):02d}": v for q, v in zip(quantiles, found, strict=True)}
        for cut, count in zip(UNDER, sums.load.under[name], strict=True):
            row[f"under_{cut}"] = count / sums.load.rows
        rows.append(row)
    return pd.DataFrame(rows)
