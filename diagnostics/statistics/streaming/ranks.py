"""Exact ranks in a stream that is longer than memory, by reading it several times.

The first pass counts the leading bits of each float (bits in the order of floats, a radix
histogram): that places every wanted rank in a bin. Each pass after it looks into those bins alone:
where few values are left they are collected and sorted, else their next bits are counted. A bin of
one value (a tie, however large) is seen by its least and greatest. At most four further passes for
one word, one for values without massive ties; memory depends on neither rows nor distribution.
Histograms add up, so parts of a stream may be read by several processes. A key may have more words
than one (score, tie-break, identity), in lexicographic order: so exact top-N budgets are found.

Munro and Paterson (1980, doi:10.1016/0304-3975(80)90061-4) give the passes that any such method
needs. Not covered: weights, quantiles (`quantiles`), one pass (`sketch`: with an error).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Rest = Callable[[NDArray[np.int64]], Sequence[Words]]

TOP_BITS = 18
COLLECTED = 2**20  # keys of one search that are held at one time
_SIGN, _ALL = np.uint64(1 << 63), np.uint64(2**64 - 1)
_INFINITE = 2 ** (TOP_BITS - 12)  # bins at either end that hold infinities and NaN


def ordered(values: Floats) -> Words:
    """Floats (n,) as integers in the same order, (n,); -0.0 is 0.0."""
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.uint64)
    return np.asarray(bits ^ np.where(bits >> np.uint64(63), _ALL, _SIGN))


def unordered(words: Words) -> Floats:
    """The floats (n,) of `ordered` integers (n,)."""
    return (words ^ np.where(words >> np.uint64(63), _SIGN, _ALL)).view(np.float64)


@dataclass(slots=True)
class _Node:
    """All keys that begin alike: whole words `exact`, then `depth` bits `prefix` of the next.

    `below` keys of the stream come before it, `size` are in it, and `ranks` are wanted. A pass
    either collects its keys or counts the next bits of that word, with its least and greatest.
    """

    exact: tuple[int, ...]
    prefix: int
    depth: int
    below: int
    size: int
    ranks: list[int]
    collects: bool = False
    kept: list[list[Words]] = field(default_factory=list)
    counts: NDArray[np.int64] | None = None
    least: int = 2**64
    greatest: int = -1

    def top(self) -> int:
        """The leading bits of the first word."""
        if self.exact:
            return self.exact[0] >> (64 - TOP_BITS)
        return self.prefix >> (self.depth - TOP_BITS)

    def bits(self) -> int:
        """How many bits the next count looks at."""
        return min(TOP_BITS, 64 - self.depth)

    def add(self, words: Sequence[Words]) -> None:
        """Takes those of some keys (words, n) that are in it."""
        inside = np.ones(len(words[0]), dtype=bool)
        for word, value in zip(words, self.exact, strict=False):
            inside &= word == np.uint64(value)
        here = words[len(self.exact)]
        if self.depth:
            inside &= (here >> np.uint64(64 - self.depth)) == np.uint64(self.prefix)
        if self.collects:
            self.kept.append([word[inside] for word in words])
        elif inside.any():
            self._count(here[inside])

    def _count(self, here: Words) -> None:
        self.least = min(self.least, int(here.min()))
        self.greatest = max(self.greatest, int(here.max()))
        left = 64 - self.depth - self.bits()
        digits = (here >> np.uint64(left)) & np.uint64(2 ** self.bits() - 1)
        found = np.bincount(digits.astype(np.int64), minlength=2 ** self.bits())
        self.counts = found if self.counts is None else self.counts + found

    def fresh(self) -> _Node:
        """The same node before any key."""
        return _Node(
            self.exact, self.prefix, self.depth, self.below, self.size, self.ranks, self.collects
        )


class RankSearch:
    """The keys of some ranks in a stream, read once for the first pass and again for each other.

    A key is one float and `words` - 1 unsigned words after it. Use: `add` every chunk; `seek` the
    ranks; then, until `done`: `add` every chunk, `advance`. `found` maps each rank to its words.
    """

    def __init__(self, words: int = 1, limit: int = COLLECTED) -> None:
        self.words, self.limit = words, limit
        self.count = 0
        self.found: dict[int, tuple[int, ...]] = {}
        self.passes = 1
        self._counts: NDArray[np.int64] | None = np.zeros(2**TOP_BITS, dtype=np.int64)
        self._nodes: list[_Node] = []

    @property
    def done(self) -> bool:
        """Whether nothing is left to look for, after `seek`."""
        return self._counts is None and not self._nodes

    def add(self, first: Floats, rest: Rest | None = None) -> None:
        """Takes a chunk of a pass: the first words (n,) as floats, and `rest`, which gives the
        other words of some rows.

        Raises ValueError for NaN or infinity.
        """
        from diagnostics.statistics.streaming import ranks_compiled as compiled

        if self._counts is not None:
            compiled.count_top(first, self._counts)
            self.count += len(first)
            if self._counts[:_INFINITE].any() or self._counts[-_INFINITE:].any():
                raise ValueError("a value is not finite")
        elif self._nodes:
            wanted = np.zeros(2**TOP_BITS, dtype=bool)
            wanted[[node.top() for node in self._nodes]] = True
            rows = np.empty(len(first) + 1, dtype=np.int64)
            rows = rows[: compiled.rows_in(first, wanted, rows)]
            keys = [ordered(first[rows]), *(rest(rows) if rest else ())]
            for node in self._nodes:
                node.add(keys)

    def seek(self, ranks: Iterable[int]) -> None:
        """Ends the first pass: the 0-based ranks, in ascending order of keys, to be found."""
        assert self._counts is not None, "ranks are sought once"
        wanted = sorted(set(ranks))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.count:
            raise ValueError(f"ranks {wanted} of {self.count} keys")
        root = _Node((), 0, 0, 0, self.count, wanted, counts=self._counts)
        self._counts = None
        self._nodes = [node for child in self._below(root) for node in self._whole(child)]
        self._plan()

    def advance(self) -> bool:
        """Ends a further pass; True when every rank is found."""
        children: list[_Node] = []
        for node in self._nodes:
            if node.collects:
                self._pick(node)
            elif node.least == node.greatest:
                children += self._next_word(node, node.least)
            else:
                children += [n for child in self._below(node) for n in self._whole(child)]
        self._nodes = children
        self.passes += 1
        self._plan()
        return self.done

    def fresh(self) -> Self:
        """A search at the same pass that has seen nothing of it, for a part of the stream."""
        other = copy(self)
        RankSearch.__init__(other, self.words, self.limit)
        if self._counts is None:
            other._counts = None
            other._nodes = [node.fresh() for node in self._nodes]
        return other

    def merge(self, other: RankSearch) -> None:
        """Takes what another search saw of another part in the same pass."""
        if self._counts is not None and other._counts is not None:
            self._counts += other._counts
            self.count += other.count
        for mine, theirs in zip(self._nodes, other._nodes, strict=True):
            mine.kept += theirs.kept
            mine.least = min(mine.least, theirs.least)
            mine.greatest = max(mine.greatest, theirs.greatest)
            if theirs.counts is not None:
                mine.counts = theirs.counts + (0 if mine.counts is None else mine.counts)

    def value(self, rank: int) -> float:
        """The first word of a rank that was found."""
        return float(unordered(np.array([self.found[rank][0]], dtype=np.uint64))[0])

    def _below(self, node: _Node) -> Iterator[_Node]:
        """The nodes one count deeper that hold wanted ranks."""
        assert node.counts is not None
        ends = np.cumsum(node.counts)
        local = np.asarray(node.ranks, dtype=np.int64) - node.below
        digits = np.searchsorted(ends, local, side="right")
        for digit in np.unique(digits):
            size = int(node.counts[digit])
            yield _Node(
                node.exact,
                (node.prefix << node.bits()) | int(digit),
                node.depth + node.bits(),
                node.below + int(ends[digit]) - size,
                size,
                [rank for rank, d in zip(node.ranks, digits, strict=True) if d == digit],
            )

    def _whole(self, node: _Node) -> list[_Node]:
        """The node itself, or what follows where its word is known to the last bit."""
        return [node] if node.depth < 64 else self._next_word(node, node.prefix)

    def _next_word(self, node: _Node, value: int) -> list[_Node]:
        """The node at the word after one that is `value` in all its keys."""
        exact = (*node.exact, value)
        if len(exact) == self.words:
            self.found |= dict.fromkeys(node.ranks, exact)
            return []
        return [_Node(exact, 0, 0, node.below, node.size, node.ranks)]

    def _pick(self, node: _Node) -> None:
        columns = [np.concatenate(parts) for parts in zip(*node.kept, strict=True)]
        for rank in node.ranks:
            self.found[rank] = _at(columns, rank - node.below)

    def _plan(self) -> None:
        """The smallest nodes are collected, as many as the limit allows."""
        room = self.limit
        for node in sorted(self._nodes, key=lambda n: n.size):
            room -= node.size
            node.collects = room >= 0


def _at(columns: Sequence[Words], rank: int) -> tuple[int, ...]:
    """The key (words,) at a rank among keys (words, n) in no order."""
    first = columns[0]
    value = np.partition(first, rank)[rank]
    if len(columns) == 1:
        return (int(value),)
    rank -= int(np.count_nonzero(first < value))
    tied = first == value
    return (int(value), *_at([column[tied] for column in columns[1:]], rank))
