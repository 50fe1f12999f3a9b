"""Shared by all benchmarks: peers that take turns on one clock, and the table of their ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Work = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What each peer took in each round; `of` is the peer that the others are divided by.

    `seconds` are seconds for all positions, or what `unit` says.
    """

    title: str
    positions: int
    of: str
    seconds: Mapping[str, Sequence[float]]
    unit: Literal["ms a position", "ms", "MB"] = "ms a position"

    def markdown(self) -> str:
        """One row a peer: its median, and the median over rounds of both ratios within a round."""
        scale = {"ms a position": 1e3 / self.positions, "ms": 1e3, "MB": 1.0}[self.unit]
        lines = [
            f"### {self.title}",
            "",
            f"| peer | {self.unit} | {self.of} / this | this / {self.of} |",
            "|---|---|---|---|",
        ]
        for name, found in self.seconds.items():
            over = median(a / b for a, b in zip(found, self.seconds[self.of], strict=True))
            lines.append(f"| {name} | {scale * median(found):.3f} | {1 / over:.2f} | {over:.3g} |")
        return "\n".join([*lines, ""])


def interleaved(peers: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each peer in each round, after one round that warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for count in range(rounds + 1):
        for name, work in peers.items():
            start = time.process_time()
            work()
            if count:
                seconds[name].append(time.process_time() - start)
    return seconds
