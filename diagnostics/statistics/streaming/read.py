"""Token tables on disk, of any length, as chunks.

Chunks are whole prompts of one checkpoint, in file order. Row groups, files and the asked size
decide where chunks end and nothing else. Memory is one chunk and one page of each column: row
groups are read through a small buffer. Prompts must stand together, as they do in bank order;
contexts within a prompt need not. Not covered: files elsewhere than on a file system.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.files import damaged
from diagnostics.schema import check_version
from diagnostics.statistics.streaming.canonical import Rows, in_order, indexed, require_finite
from diagnostics.statistics.streaming.chunks import HELD, NUMBERS, Chunk, Floats, Indices
from diagnostics.statistics.tables.columns import SCHEMA_VERSION
from diagnostics.statistics.tables.definitions import ATTRIBUTE, PAPER, Definitions, definition_set

ROWS = 2**17  # rows of a chunk
READ_BUFFER = 2**20  # bytes of a column that are read from disk at one time
PLACES = ("checkpoint", "prompt_id", "context_id")


def read_chunks(
    files: Sequence[Path],
    rows: int = ROWS,
    *,
    numbers: Sequence[str] = NUMBERS,
    ahead: bool = False,
) -> Iterator[tuple[str, Chunk]]:
    """(checkpoint, chunk) of token tables, in the order given, with some columns of `numbers`.

    A chunk has about `rows` rows, more where one prompt has more. `ahead` decodes the next piece in
    a thread of its own. Columns that are not `HELD` are valid until the next chunk is asked for.

    Raises InputError for a file that is missing, damaged, or no token table, for a null, for a
    number that is not finite and for a row that is there twice, each with its place. That a prompt
    is in one chunk of a checkpoint alone is not seen here.
    """
    held: list[_Piece] = []
    room = _Room(len(numbers))
    pieces = chain.from_iterable(_pieces(path, rows, numbers) for path in files)
    for piece in _ahead(pieces) if ahead else pieces:
        held.append(piece)
        if sum(len(p) for p in held) >= rows or held[0].checkpoint != piece.checkpoint:
            whole, held = _split(held)
            if whole:
                yield whole[0].checkpoint, _chunk(whole, room)
    if held:
        yield held[0].checkpoint, _chunk(held, room)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Rows of one checkpoint as they were read: runs of one context each, columns (pos,)."""

    where: str
    checkpoint: str
    prompts: NDArray[np.object_]
    contexts: NDArray[np.object_]
    starts: Indices
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["position"])

    def part(self, first: int, last: int) -> _Piece:
        """Runs from `first` to before `last`."""
        edges = np.r_[self.starts, len(self)]
        low, high = edges[first], edges[last]
        return replace(
            self,
            prompts=self.prompts[first:last],
            contexts=self.contexts[first:last],
            starts=self.starts[first:last] - low,
            columns={name: column[low:high] for name, column in self.columns.items()},
        )


def _split(held: list[_Piece]) -> tuple[list[_Piece], list[_Piece]]:
    """The pieces that are whole prompts, and what must wait for the rest of its prompt."""
    last = held[-1]
    if held[0].checkpoint != last.checkpoint:
        return held[:-1], [last]
    changes = np.flatnonzero(last.prompts[1:] != last.prompts[:-1]) + 1
    if len(changes):
        cut = int(changes[-1])
    elif len(held) > 1 and held[-2].prompts[-1] != last.prompts[0]:
        cut = 0
    else:
        return [], held
    done = [*held[:-1], last.part(0, cut)] if cut else held[:-1]
    return done, [last.part(cut, len(last.starts))]


def _ahead(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    """The same, the next one made in a thread while the last is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = thread.submit(next, pieces, None)
            yield piece


class _Room:
    """Memory for the columns of a chunk, used again for the next: fresh pages cost as decoding."""

    def __init__(self, columns: int) -> None:
        self._block = np.empty((columns, 0))

    def columns(self, rows: int) -> Floats:
        """(columns, rows), whatever is in it."""
        if self._block.shape[1] < rows:
            self._block = np.empty((len(self._block), rows + rows // 8))
        return self._block[:, :rows]


def _pieces(path: Path, rows: int, numbers: Sequence[str]) -> Iterator[_Piece]:
    """What a file holds, checkpoint by checkpoint, in pieces of at most `rows` rows."""
    try:
        file = open_tokens(path)
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(
                rows, row_groups=[group], columns=[*PLACES, "position", *numbers], use_threads=False
            ):
                yield from _by_checkpoint(str(path), batch)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def open_tokens(path: Path) -> pq.ParquetFile:
    """A token file, opened for reading a small buffer at a time.

    Raises InputError for one that is missing, no token table, or of a set that streams do not make.
    """
    if not path.is_file():
        raise InputError(
            where=str(path), expected="a Parquet file", got="no such file", fix="check the path"
        )
    file = pq.ParquetFile(
        path, read_dictionary=list(PLACES), pre_buffer=False, buffer_size=READ_BUFFER
    )
    schema = file.schema_arrow
    check_version(schema.metadata, SCHEMA_VERSION, str(path))
    _require_set(path, schema.metadata)
    missing = [n for n in (*PLACES, "position", *NUMBERS) if n not in schema.names]
    if missing:
        raise InputError(
            where=str(path),
            expected=f"a column `{missing[0]}`",
            got=f"columns {', '.join(schema.names)}",
            fix="write the table with `diagnostics tokens`",
        )
    return file


def stated_definitions(path: Path, metadata: Mapping[bytes, bytes]) -> Definitions:
    """The definition set that a file states. Raises InputError where it states none."""
    stated = metadata.get(ATTRIBUTE.encode())
    if stated is None:
        raise InputError(
            where=str(path),
            expected="the definition set in the Parquet metadata",
            got="none",
            fix="write the table with `diagnostics tokens`",
        )
    return definition_set(stated.decode(errors="replace"), str(path))


def _require_set(path: Path, metadata: Mapping[bytes, bytes]) -> None:
    """Refuses a set whose norms or kept positions a stream does not make."""
    found = stated_definitions(path, metadata)
    if (found.epsilon, found.keeping, found.ties) != (PAPER.epsilon, PAPER.keeping, PAPER.ties):
        raise InputError(
            where=str(path),
            expected="a definition set with the norm, budgets and ties of `paper`",
            got=f"`{found.name}`",
            fix="use `diagnostics report`, which holds the table in memory",
        )


def _by_checkpoint(where: str, batch: pa.RecordBatch) -> Iterator[_Piece]:
    for name in batch.schema.names:
        if batch[name].null_count:
            raise InputError(
                where=where,
                expected=f"a value in every row of `{name}`",
                got="a null",
                fix="a teacher known by its lists alone has no gain; score with its weights",
            )
    if not batch.num_rows:
        return
    codes = [batch[name].indices.to_numpy() for name in PLACES]
    changed = np.zeros(batch.num_rows, dtype=bool)
    changed[0] = True
    for code in codes:
        changed[1:] |= code[1:] != code[:-1]
    starts = np.flatnonzero(changed)
    checkpoints, prompts, contexts = (
        np.asarray(batch[name].dictionary.take(pa.array(code[starts])).to_pylist(), dtype=object)
        for name, code in zip(PLACES, codes, strict=True)
    )
    numbers = [name for name in batch.schema.names if name not in PLACES]
    columns = {name: batch[name].to_numpy() for name in numbers}
    whole = _Piece(
        where=where,
        checkpoint=checkpoints[0],
        prompts=prompts,
        contexts=contexts,
        starts=starts,
        columns=columns,
    )
    edges = [0, *(np.flatnonzero(checkpoints[1:] != checkpoints[:-1]) + 1), len(starts)]
    for first, last in pairwise(edges):
        yield replace(whole.part(first, last), checkpoint=checkpoints[first])


def _chunk(pieces: Sequence[_Piece], room: _Room) -> Chunk:
    """The rows of some pieces together; pieces of one context are joined."""
    sizes = np.cumsum([0, *(len(piece) for piece in pieces)])
    columns = {"position": np.concatenate([p.columns["position"] for p in pieces])}
    block = room.columns(int(sizes[-1]))
    numbers = [name for name in pieces[0].columns if name != "position"]
    for row, name in enumerate(numbers):
        place = np.empty(sizes[-1]) if name in HELD else block[row]
        columns[name] = np.concatenate([p.columns[name] for p in pieces], out=place)
    prompts = np.concatenate([p.prompts for p in pieces])
    contexts = np.concatenate([p.contexts for p in pieces])
    starts = np.concatenate([p.starts + at for p, at in zip(pieces, sizes[:-1], strict=True)])
    new = np.r_[True, (prompts[1:] != prompts[:-1]) | (contexts[1:] != contexts[:-1])]
    rows = Rows(prompts[new], contexts[new], np.r_[starts[new], sizes[-1]], columns)
    rows = in_order(rows)
    require_finite(rows, pieces[0].where)
    return indexed(rows, pieces[0].where)
