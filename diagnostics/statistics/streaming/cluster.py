"""The parts of a stream on Ray: each actor holds some of the files, and only sums travel.

Sums per prompt add up and histograms of rank searches merge, so an actor is sent an empty step and
sends it back. Every machine must see the files under the same path. Files are dealt in order, whole
ones: a prompt whose rows lie in two actors' files is refused as one that comes back. Not covered:
actors that die (the run stops), files cut up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from diagnostics.errors import InputError
from diagnostics.scoring.ray_start import import_ray, start_ray
from diagnostics.statistics.streaming.scale import Load
from diagnostics.statistics.streaming.team import AnyStep, Reader, StreamSettings

Answer = tuple[dict[str, str], list[Any]]


class RayTeam:
    """A `team.Team` of Ray actors.

    Args: `workers` how many, at most one a file; `address` of a cluster, default a Ray of this
    machine, or the one that $RAY_ADDRESS names. Each holds `settings.memory` bytes of columns.
    Raises InputError when Ray is not installed or not found.
    """

    def __init__(
        self,
        files: Sequence[Path],
        settings: StreamSettings,
        workers: int,
        address: str | None = None,
    ) -> None:
        self._ray = import_ray()
        self._started = not self._ray.is_initialized()
        count = min(workers, len(files))
        if self._started:
            start_ray(self._ray, count, address)
        actor = self._ray.remote(Member).options(num_cpus=1)
        edges = [len(files) * i // count for i in range(count + 1)]
        self._actors = [
            actor.remote([path.absolute() for path in files[a:b]], replace(settings, threads=1))
            for a, b in pairwise(edges)
        ]

    def load(self, empty: Load) -> list[dict[str, Load]]:
        """Each actor decodes its files."""
        return self._gather([actor.load.remote(empty) for actor in self._actors])

    def run(self, checkpoint: str, empty: AnyStep) -> list[AnyStep]:
        """One step over all parts."""
        sent = self._ray.put(empty)
        return self._gather([actor.run.remote(checkpoint, sent) for actor in self._actors])

    def close(self) -> None:
        """Ends the actors, and a Ray that this object began."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()

    def _gather(self, calls: Sequence[Any]) -> list[Any]:
        """What the actors give, in order. Raises the first InputError of any."""
        found = []
        for words, parts in self._ray.get(list(calls)):
            if words:
                raise InputError(**words)
            found += parts
        return found


class Member:
    """Some files in a process of Ray's.

    An InputError comes back as its words and is not raised, so that Ray wraps nothing around it.
    """

    def __init__(self, files: Sequence[Path], settings: StreamSettings) -> None:
        self._reader = Reader(files, settings)

    def load(self, empty: Load) -> Answer:
        """Words of an InputError, if any, and what the first pass saw."""
        return _answer(lambda: self._reader.load(empty))

    def run(self, checkpoint: str, empty: AnyStep) -> Answer:
        """Words of an InputError, if any, and what a step saw."""
        return _answer(lambda: self._reader.run(checkpoint, empty))


def _answer(work: Callable[[], list[Any]]) -> Answer:
    try:
        return {}, work()
    except InputError as error:
        return {name: getattr(error, name) for name in ("where", "expected", "got", "fix")}, []
