"""What selectors keep and where proxies are cut, found by searching ranks in a stream.

A selector's order (score, tie-break, identity) is three words a position (`quantiles.RankSearch`),
so what a budget keeps is all keys up to one that is known to the last bit: the kept set is that of
`selectors.select_many`, ties and all. Not covered: rules that scale by other than the 5 and 95 %
quantiles (`tip-original`, `q3-tip`), `full`, one position a rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.gaps import TERTILES
from diagnostics.statistics.selection.rules import (
    RULES,
    entropy_or_teachability,
    incompatible,
    product,
    single,
    soft_or,
)
from diagnostics.statistics.selection.selectors import Selector, keep_count
from diagnostics.statistics.selection.signals import identities_from, seed_hash
from diagnostics.statistics.streaming.chunks import Chunk
from diagnostics.statistics.streaming.quantiles import QuantileSearch
from diagnostics.statistics.streaming.ranks import RankSearch, Words, ordered
from diagnostics.statistics.streaming.scale import SCALED

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FORMS = (single, product, incompatible, soft_or, entropy_or_teachability)  # as in `keys_compiled`


@dataclass(frozen=True, slots=True)
class Keys:
    """What a selector ranks the positions of a chunk by; the least is kept first.

    Fields: `rule` what `keys_compiled` needs to score a row, None for `random`; `rows` (n,) of the
    chunk, those of Q3 for a rule that keeps none outside, None for all; `first` (n,) first words.
    """

    selector: Selector
    chunk: Chunk
    rule: tuple[int, bool, Floats, Floats, Floats] | None
    rows: Indices | None
    first: Floats

    @classmethod
    def of(cls, selector: Selector, chunk: Chunk, signals: Floats, q3: Indices, seed: int) -> Keys:
        """The keys of a chunk with its stretched signals (4, pos)."""
        from diagnostics.statistics.streaming import keys_compiled as compiled

        out = np.empty(len(chunk))
        if selector == "random":
            hashed = seed_hash(seed)[0]
            compiled.random_words(*chunk.places(), hashed, out)
            return cls(selector, chunk, None, None, out)
        rule = RULES[selector]
        needed = [signals[SCALED.index(name)] for name in rule.needs]
        x, y, z = (*needed, needed[0], needed[0])[:3]
        form = FORMS.index(rule.of), rule.up, x, y, z
        compiled.leading_words(*form, out)
        rows = q3 if rule.q3 else None
        return cls(selector, chunk, form, rows, out if rows is None else out[rows])

    def chunk_rows(self, keys: Indices) -> Indices:
        """Rows of the chunk of some keys."""
        return keys if self.rows is None else self.rows[keys]

    def rest(self, keys: Indices) -> Sequence[Words]:
        """The other words of some ascending keys: tie-break and identity."""
        from diagnostics.statistics.streaming import keys_compiled as compiled

        rows, chunk = self.chunk_rows(keys), self.chunk
        if self.rule is None:
            hashes = chunk.hashes[chunk.runs(rows)]
            return ordered(self.first[keys]), identities_from(hashes, chunk.positions(rows))
        ties, identities = (np.empty(len(rows), dtype=np.uint64) for _ in range(2))
        compiled.other_words(*self.rule, rows, *chunk.places(), ties, identities)
        return ties, identities


@dataclass(slots=True, kw_only=True)
class Cuts:
    """The searches for cut points that need normalised signals.

    Fields: `proxies` tertiles, least and greatest in Q3, by column; `selectors` positions kept.
    """

    proxies: dict[str, QuantileSearch]
    selectors: dict[Selector, RankSearch]

    def fresh(self) -> Cuts:
        """The same before any chunk."""
        return Cuts(
            proxies={name: search.fresh() for name, search in self.proxies.items()},
            selectors={name: search.fresh() for name, search in self.selectors.items()},
        )

    def merge(self, other: Cuts) -> None:
        """Takes what the same searches saw of the chunks after."""
        for name, proxy in self.proxies.items():
            proxy.merge(other.proxies[name])
        for selector, search in self.selectors.items():
            search.merge(other.selectors[selector])

    def add(self, chunk: Chunk, signals: Floats, q3: Indices, seed: int) -> None:
        """Takes a chunk with its stretched signals (4, pos) and rows of Q3."""
        for name, proxy in self.proxies.items():
            if not proxy.done:
                proxy.add(chunk[name][q3])
        for selector, search in self.selectors.items():
            if not search.done:
                keys = Keys.of(selector, chunk, signals, q3, seed)
                search.add(keys.first, keys.rest)

    def advance(self) -> None:
        """Ends a further pass."""
        for search in (*self.proxies.values(), *self.selectors.values()):
            if not search.done:
                search.advance()

    def all_done(self) -> bool:
        """Whether every cut is found."""
        return all(s.done for s in (*self.proxies.values(), *self.selectors.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a selector keeps at each budget, ascending.

    Fields: `last` words of the last key kept; `score` its score; `wanted` what the budget asks for;
    `count` what is kept.
    """

    last: tuple[tuple[float, int, int], ...]
    score: tuple[float, ...]
    wanted: tuple[int, ...]
    count: tuple[int, ...]

    @classmethod
    def found(cls, selector: Selector, search: RankSearch, wanted: Sequence[int]) -> Kept:
        """From a search whose ranks are found."""
        counts = [min(n, search.count) for n in wanted]
        last = [
            (search.value(n - 1), search.found[n - 1][1], search.found[n - 1][2]) for n in counts
        ]
        score = [-first if selector == "random" else min(-first, 1.0) for first, _, _ in last]
        return cls(last=tuple(last), score=tuple(score), wanted=tuple(wanted), count=tuple(counts))

    def candidates(self, keys: Keys) -> Indices:
        """Keys that may be kept or share the score of the last one."""
        firsts = zip(self.last, self.score, strict=True)
        return np.flatnonzero(keys.first <= max(max(last[0], -score) for last, score in firsts))

    def decided(self, keys: Keys, chosen: Indices) -> NDArray[np.bool_]:
        """Which of some keys whose word is a budget's last one that budget keeps, (n, budgets)."""
        first = keys.first[chosen]
        kept = np.zeros((len(chosen), len(self.last)), dtype=bool)
        for budget, (cut, tie, identity) in enumerate(self.last):
            tied = np.flatnonzero(first == cut)
            second, third = keys.rest(chosen[tied])
            before = second < np.uint64(tie)
            kept[tied, budget] = before | (
                (second == np.uint64(tie)) & (third <= np.uint64(identity))
            )
        return kept


def sought_cuts(proxies: Sequence[str], selectors: Sequence[Selector]) -> Cuts:
    """Searches for the tertiles of `proxies` in Q3 and for what selectors keep, before any pass."""
    for selector in selectors:
        _require_streamable(selector)
    return Cuts(
        proxies={name: QuantileSearch((*TERTILES, 0.0, 1.0)) for name in proxies},
        selectors={name: RankSearch(words=3) for name in selectors},
    )


def wanted_counts(selector: Selector, budgets: Sequence[float], total: int) -> list[int]:
    """How many of `total` positions each budget asks for."""
    floor = selector in RULES and RULES[selector].floor
    return [keep_count(budget, total, floor=floor) for budget in budgets]


def _require_streamable(selector: Selector) -> None:
    if selector != "random" and (selector not in RULES or not RULES[selector].robust):
        known = [name for name, rule in RULES.items() if rule.robust]
        raise InputError(
            where=f"selector {selector} on a stream",
            expected=f"one of {', '.join([*known, 'random'])}",
            got=repr(selector),
            fix="leave it out, or use `diagnostics report`, which holds the table in memory",
        )
