"""Token tables on disk for the tests of the streams: small, with ties, in any row groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import statistics_reference as reference

from diagnostics.schema import VERSION_KEY
from diagnostics.statistics.tables.tokens import derived


def whole_frame(seed: int = 11, *, tied: bool = False, **shape: int) -> pd.DataFrame:
    """`make_frame` with every column that streams read; `tied` rounds the signals to eighths."""
    frame = reference.make_frame(seed, **shape)
    if tied:
        for name in ("kl_0", "entropy", "teacher_entropy", "disagreement", "compatibility"):
            frame[name] = (frame[name] * 8).round() / 8
    frame["bc_union"] = 1 - 0.2 * (1 - frame["compatibility"])
    frame["shared_teacher_mass"] = 0.9 * frame["compatibility"]
    frame["reverse_kl_0"] = 1.1 * frame["kl_0"]
    frame["gain_rel"] = frame["gain"] / (frame["kl_0"] + 1e-12)
    frame["position"] = frame["position"].astype(np.int32)
    return frame.assign(**derived(frame))


def write_frame(
    path: Path, frame: pd.DataFrame, rows: int = 1000, definitions: str = "paper"
) -> Path:
    """A token file of `rows` a row group."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(
        table.replace_schema_metadata(
            {VERSION_KEY: b"1", b"top_k": b"8", b"definitions": definitions.encode()}
        ),
        path,
        row_group_size=rows,
    )
    return path


def split_rows(frame: pd.DataFrame, cuts: Sequence[int]) -> list[pd.DataFrame]:
    """The frame cut before these rows."""
    edges = [0, *cuts, len(frame)]
    return [frame.iloc[a:b] for a, b in pairwise(edges)]
