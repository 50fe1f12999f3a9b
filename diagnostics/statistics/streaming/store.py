"""Decoded chunks, to be read several times: in memory up to a budget, then in a scratch file.

Reading columns back costs an eighth of decoding them again, and writing them between a fifth of one
decoding and one (docs/out-of-memory.md), so from two further readings on the file pays. It has no
name in its folder and is gone with the process. Not covered: sharing between processes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.streaming.chunks import FOLLOWS, HELD, Chunk, slim

MEMORY = 600 * 2**20  # bytes of columns that are held in memory by default

_NEEDS = {"gain_rel": ("gain", "kl_0"), "jaccard": ("overlap",), "relative_position": ()}
_ALWAYS = ("position",)


class Store:
    """Chunks of one checkpoint.

    Args: `memory` bytes of columns held in memory; `folder` of the scratch file, default that of
    temporary files. Close it, or use it in a `with`.
    """

    def __init__(self, memory: int = MEMORY, folder: Path | None = None) -> None:
        self.memory, self.folder = memory, folder
        self.spilled = 0
        self._chunks: list[tuple[Chunk, dict[str, tuple[int, int, Any]]]] = []
        self._file: int | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk. Raises InputError when the scratch file cannot be written."""
        small = slim(chunk)
        size = sum(column.nbytes for column in small.columns.values())
        if size <= self.memory:
            self.memory -= size
            held = {n: c if n in HELD else c.copy() for n, c in small.columns.items()}
            self._chunks.append((replace(small, columns=held), {}))
            return
        places: dict[str, tuple[int, int, Any]] = {}
        for name, column in small.columns.items():
            if name not in _ALWAYS:
                places[name] = (self._write(column), len(column), column.dtype)
        kept = {name: small.columns[name].copy() for name in _ALWAYS}
        self._chunks.append((replace(small, columns=kept), places))

    def __len__(self) -> int:
        return len(self._chunks)

    def chunks(self, names: Sequence[str], part: slice = slice(None)) -> Iterator[Chunk]:
        """The chunks in the order they came, or some of them, with at least these columns."""
        for chunk, places in self._chunks[part]:
            wanted = {n for name in names for n in (name, *_NEEDS.get(name, ()))}
            read = {n: self._read(*places[n]) for n in wanted if n in places}
            missing = wanted - read.keys() - chunk.columns.keys() - FOLLOWS.keys()
            assert not missing, f"columns {sorted(missing)} are not held"
            yield replace(chunk, columns={**chunk.columns, **read}) if places else chunk

    def close(self) -> None:
        """Frees memory and disk."""
        self._chunks.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, column: NDArray[Any]) -> int:
        """Puts a column at the end of the scratch file; where it begins."""
        at = self.spilled
        try:
            if self._file is None:
                handle, name = tempfile.mkstemp(prefix="diagnostics-", dir=self.folder)
                self._file = handle
                Path(name).unlink()
            view = np.ascontiguousarray(column).view(np.uint8).data
            while view:
                written = os.pwrite(self._file, view, self.spilled)
                self.spilled += written
                view = view[written:]
        except OSError as error:
            raise InputError(
                where=str(self.folder or tempfile.gettempdir()),
                expected="room for a scratch file of decoded columns (about 70 bytes a row)",
                got=" ".join(str(error).split()),
                fix="free some space, or name another folder (--scratch)",
            ) from error
        return at

    def _read(self, at: int, count: int, dtype: Any) -> NDArray[Any]:
        assert self._file is not None
        column = np.empty(count, dtype=dtype)
        view = column.view(np.uint8).data
        while view:
            got = os.preadv(self._file, [view], at)
            if not got:
                raise OSError("the scratch file ended early")
            at, view = at + got, view[got:]
        return column
