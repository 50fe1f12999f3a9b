"""A teacher's top-k lists: checked, packed into arrays, and read from a Parquet file.

One list belongs to one response position: the distribution of the token at that position, given
the teacher's prompt and the response before it. Whoever made the lists, they pass `packed`, which
refuses what cannot be the head of a distribution. Where lists come from a server: `server.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diagnostics.bank.contexts import Bank
from diagnostics.errors import InputError
from diagnostics.files import read_parquet, sha256_file
from diagnostics.progress import Advance, silent
from diagnostics.schema import Column, conform
from diagnostics.scoring.hidden import Context

LIST_COLUMNS = (
    Column("context_id", pa.string(), "the bank's context"),
    Column("position", pa.int32(), "0-based in the response"),
    Column("token_ids", pa.list_(pa.int32()), "the teacher's most probable tokens, best first"),
    Column("logprobs", pa.list_(pa.float32()), "their log-probabilities, temperature 1, nats"),
)
FILE = "topk:"  # what stands before the path of such a file, as a teacher
EXCESS = 1e-4  # how far over 1 the listed probabilities may sum: rounding of whoever wrote them


@dataclass(frozen=True, slots=True, kw_only=True)
class TopKLists:
    """A teacher's lists at some positions.

    Fields: `ids` (pos, k) int32, most probable first, equal ones by lower id, -1 where a list is
    shorter; `logprob` (pos, k) float32, nats, -inf where a list is shorter.
    """

    ids: NDArray[np.int32]
    logprob: NDArray[np.float32]

    @property
    def tail_mass(self) -> NDArray[np.float64]:
        """The teacher's probability of all unlisted tokens together, (pos,)."""
        listed = np.exp(self.logprob.astype(np.float64)).sum(axis=1)
        return np.asarray(np.maximum(1 - listed, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Lists end to end. Fields: `ids`, `logprob` (entries,); `sizes` (pos,) entries of each."""

    ids: NDArray[np.int64]
    logprob: NDArray[np.float64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFile:
    """Lists of a whole bank, read from a file.

    Fields: `spec` as the user wrote it; `fingerprint` SHA-256 of the file; `vocabulary` ids;
    `width` entries of the longest list; `everything` all lists in bank order; `spans` where each
    context's lie in it.
    """

    spec: str
    fingerprint: str
    vocabulary: int
    width: int
    everything: TopKLists
    spans: dict[str, slice]

    def lists(
        self, names: Sequence[str], contexts: Sequence[Context], advance: Advance = silent
    ) -> list[TopKLists]:
        """The lists of some contexts at their valid positions, by context id."""
        spans = [self.spans[name] for name in names]
        advance(len(contexts))
        return [
            TopKLists(ids=self.everything.ids[s], logprob=self.everything.logprob[s]) for s in spans
        ]


def packed(
    entries: Entries,
    *,
    vocabulary: int,
    least: int,
    width: int,
    place: Callable[[int], str],
    fix: str,
) -> TopKLists:
    """Lists as arrays of `width` columns, equal probabilities by lower id.

    A sum of probabilities within `EXCESS` over 1 is scaled to 1. `place` names a position, `fix`
    says what to do about a list that is too short.
    Raises InputError at the first position whose list has fewer than `least` tokens, an id outside
    the vocabulary or twice, a log-probability that is NaN or above 0, another order than most
    probable first, a sum above 1, or a token of probability 0 while mass is missing.
    """
    rows = len(entries.sizes)
    owner = np.repeat(np.arange(rows), entries.sizes)
    short = np.flatnonzero(entries.sizes < least)
    if short.size:
        raise InputError(
            where=place(int(short[0])),
            expected=f"a list of at least {least} tokens (--top-k)",
            got=str(entries.sizes[short[0]]),
            fix=fix,
        )
    _require_entries(entries, owner, vocabulary, place)
    order = np.lexsort((entries.ids, -entries.logprob, owner))
    column = np.arange(len(owner)) - np.repeat(
        np.cumsum(entries.sizes) - entries.sizes, entries.sizes
    )
    ids = np.full((rows, width), -1, dtype=np.int32)
    logprob = np.full((rows, width), -np.inf, dtype=np.float64)
    ids[owner, column], logprob[owner, column] = entries.ids[order], entries.logprob[order]
    p = np.exp(logprob)
    mass = p.sum(axis=1)
    _require_mass(mass, ((p == 0) & (ids >= 0)).any(axis=1), place)
    logprob -= np.log(np.maximum(mass, 1.0))[:, None]
    return TopKLists(ids=ids, logprob=logprob.astype(np.float32))


def read_lists(path: Path, bank: Bank, *, vocabulary: int, top_k: int) -> ListFile:
    """Reads a file of lists (columns `LIST_COLUMNS`) for a bank; rows of other positions are left.

    Raises InputError that names context and position where a valid position has no list, or two, or
    a list that `packed` refuses.
    """
    table = _read_columns(path)
    names, masks = bank.strings("context_id"), bank.masks()
    context = np.repeat(np.arange(len(names)), [int(mask.sum()) for mask in masks])
    position = np.concatenate([np.flatnonzero(mask) for mask in masks])

    def place(row: int) -> str:
        return f"{path}, context {names[context[row]]}, position {position[row]}"

    table = table.take(_rows_of(table, names, context, position, place))
    sizes = {name: pc.list_value_length(table[name]) for name in ("token_ids", "logprobs")}
    unlike = np.flatnonzero(pc.not_equal(*sizes.values()).to_numpy())
    if unlike.size:
        row = int(unlike[0])
        ids, logprobs = (int(size[row].as_py()) for size in sizes.values())
        raise InputError(
            where=place(row),
            expected=f"{ids} logprobs, as many as token_ids",
            got=str(logprobs),
            fix="write one log-probability for each token",
        )
    entries = Entries(
        ids=_flat(table["token_ids"], -1).astype(np.int64),
        logprob=_flat(table["logprobs"], np.nan).astype(np.float64),
        sizes=sizes["token_ids"].to_numpy().astype(np.int64),
    )
    width = int(entries.sizes.max())
    fix = "rescore with a smaller --top-k, or write longer lists"
    ends = np.cumsum([mask.sum() for mask in masks])
    return ListFile(
        spec=f"{FILE}{path}",
        fingerprint=sha256_file(path),
        vocabulary=vocabulary,
        width=width,
        everything=packed(
            entries, vocabulary=vocabulary, least=top_k, width=width, place=place, fix=fix
        ),
        spans={
            name: slice(int(end - mask.sum()), int(end))
            for name, mask, end in zip(names, masks, ends, strict=True)
        },
    )


def _read_columns(path: Path) -> pa.Table:
    table = read_parquet(path)
    if not {column.name for column in LIST_COLUMNS} <= set(table.column_names):
        raise InputError(
            where=str(path),
            expected=f"columns {', '.join(column.name for column in LIST_COLUMNS)}",
            got=", ".join(table.column_names),
            fix="write a row for each position, as docs/top-k-teachers.md shows",
        )
    return conform(table, LIST_COLUMNS, str(path))


def _rows_of(
    table: pa.Table,
    names: Sequence[str],
    context: NDArray[np.int64],
    position: NDArray[np.int64],
    place: Callable[[int], str],
) -> NDArray[np.int64]:
    """The file's row of each valid position, in bank order; every one there exactly once."""
    stride = int(position.max()) + 1
    known = pc.index_in(table["context_id"], value_set=pa.array(names)).fill_null(-1).to_numpy()
    at = table["position"].to_numpy()
    inside = (at >= 0) & (at < stride)
    found = np.where(inside, known.astype(np.int64) * stride + at, -1)  # unknown contexts: below 0
    wanted = context.astype(np.int64) * stride + position
    order = np.argsort(found, kind="stable")
    first = np.searchsorted(found[order], wanted, side="left")
    count = np.searchsorted(found[order], wanted, side="right") - first
    wrong = np.flatnonzero(count != 1)
    if wrong.size:
        raise InputError(
            where=place(int(wrong[0])),
            expected="one list for every valid position of the bank",
            got=str(count[wrong[0]] or "none"),
            fix="write the teacher's lists of this bank, each position once",
        )
    return np.asarray(order[first])


def _flat(column: pa.ChunkedArray, missing: float) -> NDArray[np.float64]:
    """All entries of a list column, end to end; a null becomes `missing`."""
    values = column.combine_chunks().flatten()
    return np.asarray(pc.fill_null(values, pa.scalar(missing, values.type)).to_numpy())


def _require_entries(
    entries: Entries, owner: NDArray[np.int64], vocabulary: int, place: Callable[[int], str]
) -> None:
    """Refuses ids, log-probabilities and orders that no list can have."""
    ids, logprob = entries.ids, entries.logprob
    same_row = owner[1:] == owner[:-1]
    by_id = np.lexsort((ids, owner))
    twice = same_row & (ids[by_id][1:] == ids[by_id][:-1])
    rising = same_row & (logprob[1:] > logprob[:-1])
    faults: tuple[tuple[NDArray[np.int64], str, Callable[[int], str], str], ...] = (
        (
            np.flatnonzero((ids < 0) | (ids >= vocabulary)),
            f"token ids from 0 to {vocabulary - 1}",
            lambda i: str(ids[i]),
            "use a teacher of the student's tokenizer",
        ),
        (
            np.flatnonzero(~(logprob <= 0)),
            "log-probabilities of at most 0",
            lambda i: f"{logprob[i]:g}",
            "write natural logarithms of probabilities",
        ),
        (
            np.flatnonzero(rising),
            "the most probable token first",
            lambda i: f"{logprob[i]:g} before {logprob[i + 1]:g}",
            "sort each list by probability",
        ),
        (
            by_id[:-1][twice],
            "each token once in a list",
            lambda i: f"token {ids[i]} twice",
            "write each token once",
        ),
    )
    for bad, expected, got, fix in faults:
        if bad.size:
            entry = int(bad[0])
            where = place(int(owner[entry]))
            raise InputError(where=where, expected=expected, got=got(entry), fix=fix)


def _require_mass(
    mass: NDArray[np.float64], impossible: NDArray[np.bool_], place: Callable[[int], str]
) -> None:
    """Refuses sums above 1, and mass that is missing though a listed token has none."""
    over = np.flatnonzero(mass > 1 + EXCESS)
    if over.size:
        raise InputError(
            where=place(int(over[0])),
            expected="probabilities that sum to at most 1",
            got=f"{mass[over[0]]:.6f}",
            fix="write natural logarithms of probabilities at temperature 1",
        )
    cut = np.flatnonzero(impossible & (mass < 1 - EXCESS))
    if cut.size:
        raise InputError(
            where=place(int(cut[0])),
            expected="log-probabilities from before any top-k or top-p filter",
            got=f"a token of probability 0, and {1 - mass[cut[0]]:.6f} of the mass unlisted",
            fix="write the lists without sampling filters, or shorter ones",
        )
