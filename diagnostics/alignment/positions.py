"""alignment.parquet: one row a valid position, in bank order, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from diagnostics.files import write_parquet
from diagnostics.schema import VERSION_KEY, Column, conform
from diagnostics.scoring.run import Run
from diagnostics.statistics.tables.definitions import PAPER, state
from diagnostics.statistics.tables.measured import measure_start
from diagnostics.statistics.tables.origin import BANK, TOP_K, stamp
from diagnostics.statistics.tables.tokens import derived, require_signals

SCHEMA_VERSION = 1

_F = pa.float64()
COLUMNS = (
    Column("context_id", pa.string(), "the frozen rollout"),
    Column("prompt_id", pa.string(), "the cluster"),
    Column("position", pa.int32(), "0-based in the response"),
    Column("token_id", pa.int32(), "the response token there"),
    Column(
        "alignment",
        _F,
        "<grad L_fix, grad l_t>, nats per unit learning rate; positive: a step on this token's OPD "
        "loss lowers the bank's fixed-context loss",
    ),
    Column(
        "alignment_kl",
        _F,
        "<grad L_fix, grad KL(p_T || p_theta)> there, nats per unit learning rate; positive: a "
        "step on the bank's loss lowers this position's KL. Its mean is |grad L_fix|^2",
    ),
    Column("loss", _F, "l_t = KL(p_0 || p_T), the OPD token loss, nats"),
    Column("kl_0", _F, "KL(p_T || p_0), nats"),
    Column("gain_step", _F, "KL_0 less KL after one step along grad L_fix, nats"),
    Column("loss_step", _F, "l_t less l_t after that step, nats"),
    Column("entropy", _F, "H of p_0, nats"),
    Column("disagreement", _F, "D at K, nats"),
    Column("compatibility", _F, "C at K, teacher mass on the student's top K"),
    Column("entropy_norm", _F, "H~"),
    Column("disagreement_norm", _F, "D~"),
    Column("compatibility_norm", _F, "C~"),
    Column("learnable", _F, "D^L = D~ C~"),
    Column("incompatible", _F, "D^I = D~ (1 - C~)"),
    Column("quadrant", pa.int8(), "1 to 4; 3 is low H, high KL"),
)


def position_table(run: Run, k: int, measured: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """theta_0's signals at support size `k` with what was `measured` (pos,), in bank order.

    Holds `COLUMNS` and `reverse_kl_0`, which selectors rank by. Raises InputError for a signal that
    is not finite.
    """
    raw = measure_start(run, k, run.contexts()).columns
    require_signals(raw)
    whole = raw | derived(raw) | dict(measured)
    names = [*(column.name for column in COLUMNS), "reverse_kl_0"]
    return stamp(state(pd.DataFrame({n: whole[n] for n in names}), PAPER), k, run.bank_digest)


def write_positions(path: Path, frame: pd.DataFrame) -> None:
    """Writes the table whole, with schema version, definition set, K and the bank's digest."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {
        VERSION_KEY: str(SCHEMA_VERSION).encode(),
        b"definitions": PAPER.name.encode(),
        TOP_K.encode(): str(frame.attrs[TOP_K]).encode(),
        BANK.encode(): str(frame.attrs[BANK]).encode(),
    }
    write_parquet(path, conform(table.replace_schema_metadata(metadata), COLUMNS, str(path)))
