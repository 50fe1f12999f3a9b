"""Who holds the chunks of a stream: this process (`Reader`), or several (`cluster.RayTeam`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

from diagnostics.statistics.analyses.shown import BUDGETS, PAPER_SELECTORS, PROXIES, QUANTILES
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.statistics.streaming.read import ROWS, read_chunks
from diagnostics.statistics.streaming.scale import Load, Step
from diagnostics.statistics.streaming.store import MEMORY, Store

AnyStep = TypeVar("AnyStep", bound=Step)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What is asked of a stream.

    Fields: `proxies` of Table 6, of which the first is Table 1's; `selectors` and `budgets` of
    Table 8; `quantiles` of the signals; `seed` of the selector `random`; `error` of the signals'
    quantiles, as a share of ranks: 0 is exact, above it they come from one pass (`sketch`), norms
    and quadrants with them; `rows` of a chunk; `memory` bytes of decoded columns that are held;
    `scratch` folder for the rest, default that of temporary files; `threads` that work on chunks,
    default one a processor.
    """

    proxies: tuple[str, ...] = PROXIES
    selectors: tuple[Selector, ...] = PAPER_SELECTORS
    budgets: tuple[float, ...] = BUDGETS
    quantiles: tuple[float, ...] = QUANTILES
    seed: int = 0
    error: float = 0.0
    rows: int = ROWS
    memory: int = MEMORY
    scratch: Path | None = None
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)


class Team(Protocol):
    """Those who hold the chunks of a stream, each a part of its files, in order."""

    def load(self, empty: Load) -> list[dict[str, Load]]:
        """What the first pass over each part saw, by checkpoint, in order of appearance."""

    def run(self, checkpoint: str, empty: AnyStep) -> list[AnyStep]:
        """What a step saw of each part's chunks."""

    def close(self) -> None:
        """Frees memory and disk."""


Recruit = Callable[[Sequence[Path], StreamSettings], Team]


class Reader:
    """One part of the files, held in this process. A `Team` of one."""

    def __init__(self, files: Sequence[Path], settings: StreamSettings) -> None:
        self.files, self.settings = list(files), settings
        self._stores: dict[str, Store] = {}

    def load(self, empty: Load) -> list[dict[str, Load]]:
        """Decodes the files, once."""
        found: dict[str, Load] = {}
        room = self.settings.memory
        ahead = self.settings.threads > 1
        for checkpoint, chunk in read_chunks(self.files, self.settings.rows, ahead=ahead):
            if checkpoint not in found:
                found[checkpoint] = empty.fresh()
                self._stores[checkpoint] = Store(room, self.settings.scratch)
            found[checkpoint].add(chunk)
            store = self._stores[checkpoint]
            store.memory = room
            store.add(chunk)
            room = store.memory
        return [found]

    def run(self, checkpoint: str, empty: AnyStep) -> list[AnyStep]:
        """One step over this part's chunks of a checkpoint, a stretch of them in each thread."""
        store = self._stores.get(checkpoint)
        count = len(store) if store else 0
        threads = max(1, min(self.settings.threads, count))
        edges = [count * part // threads for part in range(threads + 1)]

        def over(part: slice) -> AnyStep:
            step = empty.fresh()
            for chunk in store.chunks(step.columns, part) if store else ():
                step.add(chunk)
            return step

        parts = [slice(a, b) for a, b in pairwise(edges)]
        if threads == 1:
            return [over(part) for part in parts]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(over, parts))

    def close(self) -> None:
        """Frees memory and disk."""
        for store in self._stores.values():
            store.close()
