"""Token tables on disk: written part by part, and read back with the definition set they state.

A table that is longer than memory is written in two passes over the run's parts. The first keeps
the raw columns whose quantiles are needed, 40 bytes a position; the second makes the table a part
at a time, one row group for each, in bank order. Its content is `token_table`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.files import read_parquet, whole_file
from diagnostics.schema import VERSION_KEY, arrow_schema, check_version, conform
from diagnostics.scoring.run import Run
from diagnostics.statistics.tables.columns import (
    LISTED_COLUMNS,
    SCHEMA_VERSION,
    TOKEN_COLUMNS,
    columns_of,
)
from diagnostics.statistics.tables.definitions import (
    ATTRIBUTE,
    PAPER,
    Definitions,
    definition_set,
    definitions_of,
    state,
)
from diagnostics.statistics.tables.measured import (
    Columns,
    Contexts,
    choose,
    measure_after,
    measure_listed,
    measure_start,
)
from diagnostics.statistics.tables.origin import BANK, TOP_K, stamp
from diagnostics.statistics.tables.tokens import (
    LISTED_NORMALIZED,
    NORMALIZED,
    SPLIT,
    Cuts,
    cuts_of,
    derived,
    derived_listed,
    require_checkpoints,
    require_measured,
    require_signals,
)

_KEY = ATTRIBUTE.encode()


def to_arrow(frame: pd.DataFrame, run: Run, k: int, where: str = "token table") -> pa.Table:
    """The token table as it is written, with its definition set and origin in the metadata."""
    definitions = definitions_of(frame)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(_metadata(run, k, definitions))
    return conform(table, columns_of(run), where)


def write_tokens(
    path: Path,
    run: Run,
    k: int,
    definitions: Definitions = PAPER,
    checkpoints: Sequence[str] | None = None,
) -> int:
    """Writes the token table of a run part by part; how many rows it has.

    Raises InputError as `token_table` does; then there is no file.
    """
    names = require_checkpoints(run, checkpoints)
    require_measured(run, definitions)
    contexts, rows = run.contexts(), 0
    schema = arrow_schema(columns_of(run)).with_metadata(_metadata(run, k, definitions))
    cuts = None
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as file:
        for name in names:
            if cuts is None or definitions.leaks:
                cuts = _cuts(_raw_parts(run, k, name, definitions, contexts), run.listed)
            for part, raw in enumerate(_raw_parts(run, k, name, definitions, contexts)):
                known = derived_listed(raw, cuts) if run.listed else None
                known = derived(raw, definitions.epsilon, cuts) if known is None else known
                frame = pd.DataFrame({c.name: (raw | known)[c.name] for c in columns_of(run)})
                where = f"token table, checkpoint {name}, part {part}"
                file.write_table(to_arrow(state(frame, definitions), run, k, where))
                rows += len(frame)
    return rows


def read_tokens(path: Path) -> pd.DataFrame:
    """A token table read back, with its definition set in `attrs`.

    Raises InputError for a newer schema, a missing or wrong column, or a set that is not stated or
    not known.
    """
    table = read_parquet(path)
    check_version(table.schema.metadata, SCHEMA_VERSION, str(path))
    stated = table.schema.metadata.get(_KEY)
    if stated is None:
        raise InputError(
            where=str(path),
            expected="the definition set in the Parquet metadata",
            got="none",
            fix="write the table with `diagnostics tokens`",
        )
    definitions = definition_set(stated.decode(errors="replace"), str(path))
    listed = LISTED_COLUMNS[-1].name in table.column_names
    table = conform(table, LISTED_COLUMNS if listed else TOKEN_COLUMNS, str(path))
    frame = table.to_pandas(strings_to_categorical=True)
    if listed:
        frame["quadrant"] = frame["quadrant"].astype("Int8")
    frame.attrs.clear()
    origin = {key: table.schema.metadata.get(key.encode()) for key in (TOP_K, BANK)}
    if all(origin.values()):
        stamp(frame, int(origin[TOP_K]), origin[BANK].decode())
    return state(frame, definitions)


def _raw_parts(
    run: Run, k: int, name: str, definitions: Definitions, contexts: Contexts
) -> Iterator[Columns]:
    """The raw columns of a checkpoint, part by part."""
    for part in range(run.parts):
        if run.listed:
            yield measure_listed(run, k, name, contexts, part)
        else:
            start = measure_start(run, k, contexts, part)
            after = measure_after(run, k, name, start, part, own=definitions.leaks)
            raw = choose(start, after, definitions)
            require_signals(raw)
            yield raw


def _cuts(parts: Iterator[Columns], listed: bool) -> Cuts:
    """The quantiles of the whole bank."""
    normalized, split = (LISTED_NORMALIZED, ()) if listed else (NORMALIZED, SPLIT)
    kept: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*normalized, *split)}
    for raw in parts:
        for name, pieces in kept.items():
            pieces.append(raw[name])
    whole = {name: np.concatenate(kept.pop(name)) for name in list(kept)}
    return cuts_of(whole, normalized, split)


def _metadata(run: Run, k: int, definitions: Definitions) -> dict[bytes, bytes]:
    return {
        VERSION_KEY: str(SCHEMA_VERSION).encode(),
        _KEY: definitions.name.encode(),
        TOP_K.encode(): str(k).encode(),
        BANK.encode(): run.bank_digest.encode(),
    }
