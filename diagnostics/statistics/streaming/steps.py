"""The later passes of `stream`: sums of each prompt, from scaled signals and cut points.

Sums are made of whole prompts within one chunk, so where chunks end changes no bit of them. Axes:
`p` prompts of a chunk, `pos` its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diagnostics.statistics.selection.selectors import Selector
from diagnostics.statistics.streaming.chunks import Chunk
from diagnostics.statistics.streaming.cuts import Cuts, Kept, Keys
from diagnostics.statistics.streaming.scale import SIGNALS, Scale

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

WIDTH = 11  # [1, eight predictors, gain, relative gain]


@dataclass(slots=True, kw_only=True)
class Reduce:
    """The pass that takes all sums that need no cut beyond the scale, and begins `cuts`.

    Sums per prompt, one block a chunk: `cross` and `cross_q3` (p, 66) upper triangles of products
    of `predictor_rows`, all rows and Q3; `quadrants` (p, 8); `matched` (p, 3). Over all rows:
    `ends`, `ends_q3` (2, 8); `totals` (4, 3) entropy, kl_0, compatibility; `balance` (6, 3).
    """

    scale: Scale
    seed: int
    cuts: Cuts
    cross: list[Floats] = field(default_factory=list)
    cross_q3: list[Floats] = field(default_factory=list)
    quadrants: list[Floats] = field(default_factory=list)
    matched: list[Floats] = field(default_factory=list)
    ends: Floats = field(default_factory=lambda: _no_ends())
    ends_q3: Floats = field(default_factory=lambda: _no_ends())
    totals: Floats = field(default_factory=lambda: np.zeros((4, 3)))
    balance: Floats = field(default_factory=lambda: np.zeros((6, 3)))

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        proxies = tuple(self.cuts.proxies)
        return (*SIGNALS, "gain", "gain_rel", "relative_position", *proxies)

    def fresh(self) -> Reduce:
        """The same step before any chunk."""
        return Reduce(scale=self.scale, seed=self.seed, cuts=self.cuts.fresh())

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk."""
        signals, quadrant = self.scale.stretched(chunk), self.scale.quadrant(chunk)
        self._regressions(chunk, signals, quadrant)
        self._quadrants(chunk, quadrant)
        self._matched(chunk, signals, quadrant)
        self.cuts.add(chunk, signals, np.flatnonzero(quadrant == 3), self.seed)

    def _regressions(self, chunk: Chunk, signals: Floats, quadrant: NDArray[np.int8]) -> None:
        from diagnostics.statistics.streaming import sums_compiled as compiled

        outcomes = np.stack([chunk["gain"], chunk["gain_rel"]])
        relative, ends, centre = chunk["relative_position"], chunk.ends(), self.scale.centre()
        rows = np.empty((len(chunk), WIDTH))
        compiled.predictor_rows(signals, relative, outcomes, centre, rows, self.ends)
        self.cross.append(prompt_products(rows, ends))
        q3 = quadrant == 3
        inside = rows[q3]
        self.cross_q3.append(prompt_products(inside, np.r_[0, np.cumsum(q3)][ends]))
        if len(inside):
            low, high = inside[:, 1:9].min(axis=0), inside[:, 1:9].max(axis=0)
            self.ends_q3[0] = np.minimum(self.ends_q3[0], low + centre[1:9])
            self.ends_q3[1] = np.maximum(self.ends_q3[1], high + centre[1:9])

    def _quadrants(self, chunk: Chunk, quadrant: NDArray[np.int8]) -> None:
        from diagnostics.statistics.streaming import sums_compiled as compiled

        out = np.zeros((len(chunk.prompts), 8))
        raw = np.stack([chunk[name] for name in ("entropy", "kl_0", "compatibility")])
        compiled.quadrant_sums(quadrant, chunk.ends(), chunk["gain"], raw, out, self.totals)
        self.quadrants.append(out)

    def _matched(self, chunk: Chunk, signals: Floats, quadrant: NDArray[np.int8]) -> None:
        from diagnostics.statistics.streaming import sums_compiled as compiled

        prompts = len(chunk.prompts)
        rows, ends = np.empty(len(chunk), dtype=np.int64), np.zeros(prompts + 1, dtype=np.int64)
        rows = rows[
            : compiled.q3_order(
                quadrant, chunk.prompt_runs, chunk.run_ends, chunk.run_order, rows, ends
            )
        ]
        points = np.stack(
            [
                np.clip(signals[0, rows], 0.0, 1.0),
                np.clip(signals[1, rows], 0.0, 1.0),
                chunk["relative_position"][rows],
            ]
        )
        outcomes = np.stack([chunk["gain"][rows], chunk["gain_rel"][rows]])
        out = np.zeros((prompts, 3))
        compiled.matched_sums(
            chunk["compatibility"][rows], points, outcomes, ends, out, self.balance
        )
        self.matched.append(out)

    def merge(self, other: Reduce) -> None:
        """Takes what the same step saw of the chunks after its own."""
        self.cuts.merge(other.cuts)
        for name in ("cross", "cross_q3", "quadrants", "matched"):
            getattr(self, name).extend(getattr(other, name))
        for mine, theirs in ((self.ends, other.ends), (self.ends_q3, other.ends_q3)):
            mine[0], mine[1] = np.minimum(mine[0], theirs[0]), np.maximum(mine[1], theirs[1])
        self.totals += other.totals
        self.balance += other.balance


@dataclass(slots=True, kw_only=True)
class Narrow:
    """A further pass of the searches for cuts."""

    scale: Scale
    seed: int
    cuts: Cuts

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        return (*SIGNALS, *(n for n, s in self.cuts.proxies.items() if not s.done))

    def fresh(self) -> Narrow:
        """The same step before any chunk."""
        return Narrow(scale=self.scale, seed=self.seed, cuts=self.cuts.fresh())

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk."""
        q3 = np.flatnonzero(self.scale.quadrant(chunk) == 3)
        self.cuts.add(chunk, self.scale.stretched(chunk), q3, self.seed)

    def merge(self, other: Narrow) -> None:
        """Takes what the same step saw of the chunks after its own."""
        self.cuts.merge(other.cuts)


@dataclass(slots=True, kw_only=True)
class Split:
    """The last pass: sums of what lies on each side of the cuts.

    Sums per prompt, one block a chunk, of [1, gain, relative gain]: `gaps` by proxy (p, 2 * 3) high
    then low; `kept` by selector (p, budgets * 3) of rows that a budget is the first to keep. Over
    all rows: `tied` rows of Q3 on a cut by proxy; `means` by selector (budgets, 4) Q3, H~, D~, C~;
    `ties` by selector (budgets, 2) rows of the cut's score, kept and in all.
    """

    scale: Scale
    seed: int
    cuts: Mapping[str, tuple[float, float]]
    selected: Mapping[Selector, Kept]
    gaps: dict[str, list[Floats]] = field(default_factory=dict)
    kept: dict[Selector, list[Floats]] = field(default_factory=dict)
    tied: dict[str, int] = field(default_factory=dict)
    means: dict[Selector, Floats] = field(default_factory=dict)
    ties: dict[Selector, Indices] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        return (*SIGNALS, "gain", "gain_rel", *self.cuts)

    def fresh(self) -> Split:
        """The same step before any chunk."""
        return Split(scale=self.scale, seed=self.seed, cuts=self.cuts, selected=self.selected)

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk."""
        quadrant, signals = self.scale.quadrant(chunk), self.scale.stretched(chunk)
        outcomes = np.stack([chunk["gain"], chunk["gain_rel"]])
        rows = np.flatnonzero(quadrant == 3)
        for proxy, (low, high) in self.cuts.items():
            values = chunk[proxy][rows]
            sides = [rows[values >= high], rows[values <= low]]
            sums = [_sums(side, np.zeros_like(side), outcomes, chunk.ends(), 1) for side in sides]
            self.gaps.setdefault(proxy, []).append(np.hstack(sums))
            on = int(np.count_nonzero((values == low) | (values == high)))
            self.tied[proxy] = self.tied.get(proxy, 0) + on
        for selector, kept in self.selected.items():
            keys = Keys.of(selector, chunk, signals, rows, self.seed)
            self._select(kept, keys, signals, quadrant, outcomes)

    def _select(
        self,
        kept: Kept,
        keys: Keys,
        signals: Floats,
        quadrant: NDArray[np.int8],
        outcomes: Floats,
    ) -> None:
        from diagnostics.statistics.streaming import keys_compiled as compiled

        ends, budgets, chosen = keys.chunk.ends(), len(kept.last), kept.candidates(keys)
        out, means = np.zeros((len(ends) - 1, 3 * budgets)), np.zeros((budgets, 4))
        ties = np.zeros((budgets, 2), dtype=np.int64)
        compiled.select_rows(
            keys.first[chosen],
            keys.chunk_rows(chosen),
            np.array([last[0] for last in kept.last]),
            np.array(kept.score),
            kept.decided(keys, chosen),
            keys.rule is not None,
            outcomes,
            signals,
            quadrant,
            ends,
            out,
            means,
            ties,
        )
        self.kept.setdefault(keys.selector, []).append(out)
        _into(self.means, keys.selector, means)
        _into(self.ties, keys.selector, ties)

    def merge(self, other: Split) -> None:
        """Takes what the same step saw of the chunks after its own."""
        for proxy, blocks in other.gaps.items():
            self.gaps.setdefault(proxy, []).extend(blocks)
            self.tied[proxy] = self.tied.get(proxy, 0) + other.tied[proxy]
        for name, more in other.kept.items():
            self.kept.setdefault(name, []).extend(more)
            _into(self.means, name, other.means[name])
            _into(self.ties, name, other.ties[name])


def _no_ends() -> Floats:
    return np.array([[np.inf] * 8, [-np.inf] * 8])


def prompt_products(rows: Floats, ends: Indices) -> Floats:
    """Upper triangles (p, 66) of each prompt's rows' products, for rows (pos, 11) by prompt."""
    products = np.empty((len(ends) - 1, WIDTH, WIDTH))
    for prompt in range(len(products)):
        block = rows[ends[prompt] : ends[prompt + 1]]
        np.matmul(block.T, block, out=products[prompt])
    upper = np.triu_indices(WIDTH)
    return products[:, upper[0], upper[1]]


def _sums(rows: Indices, column: Indices, outcomes: Floats, ends: Indices, columns: int) -> Floats:
    """Sums of [1, outcomes] of ascending `rows` in each prompt, (p, columns * 3)."""
    from diagnostics.statistics.streaming import sums_compiled as compiled

    out = np.zeros((len(ends) - 1, columns * 3))
    compiled.add_rows(outcomes, rows, column, ends, out)
    return out


def _into(table: dict[Selector, Any], name: Selector, more: NDArray[Any]) -> None:
    table[name] = table[name] + more if name in table else more
