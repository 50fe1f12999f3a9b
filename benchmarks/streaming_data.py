"""Token tables of any length for `streaming.py`, as `diagnostics tokens` writes them.

Every column of the table is there, in its type, with mantissas that do not compress, zstd, row
groups of 2^20. A context has 192 positions and a prompt 4 contexts. Distributions are made up but
shaped as real ones are: most entropies near 0, divergences with long tails, C tied near 1, overlap
in sixteenths. The same block comes again under other prompt ids once `BLOCKS` of them are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diagnostics.schema import VERSION_KEY, arrow_schema
from diagnostics.statistics.tables.columns import TOKEN_COLUMNS
from diagnostics.statistics.tables.measured import RELATIVE_EPSILON

POSITIONS, ROLLOUTS, SUPPORT = 192, 4, 16
PROMPT = POSITIONS * ROLLOUTS
GROUP = 2**20  # rows of a row group: pyarrow's own choice
BLOCKS = 8  # different blocks of rows


def write_tokens(path: Path, rows: int, seed: int = 0) -> None:
    """Writes about `rows` rows (whole prompts) of one checkpoint."""
    schema = arrow_schema(TOKEN_COLUMNS).with_metadata(
        {VERSION_KEY: b"1", b"definitions": b"paper", b"top_k": b"16", b"bank_digest": b"made up"}
    )
    prompts = -(-rows // PROMPT)
    per_block = GROUP // PROMPT
    made: dict[int, dict[str, np.ndarray]] = {}
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for block, first in enumerate(range(0, prompts, per_block)):
            count = min(per_block, prompts - first)
            kind = block % BLOCKS
            if kind not in made:
                made[kind] = _numbers(np.random.default_rng([seed, kind]), per_block)
            writer.write_table(_table(made[kind], first, count, schema), row_group_size=GROUP)


def _table(numbers: dict[str, np.ndarray], first: int, prompts: int, schema: pa.Schema) -> pa.Table:
    rows = prompts * PROMPT
    context = np.arange(rows) // POSITIONS
    columns = {name: values[:rows] for name, values in numbers.items()}
    columns["checkpoint"] = _labels(["step100"], np.zeros(rows, np.int64))
    columns["context_id"] = _labels(list(_context_names(first, prompts)), context)
    columns["prompt_id"] = _labels(
        [_name(p) for p in range(first, first + prompts)], context // ROLLOUTS
    )
    arrays = [
        pa.array(columns[f.name], type=f.type)
        if not isinstance(columns[f.name], pa.Array)
        else columns[f.name].cast(f.type)
        for f in schema
    ]
    return pa.table(arrays, schema=schema)


def _context_names(first: int, prompts: int) -> Iterator[str]:
    for prompt in range(first, first + prompts):
        for rollout in range(ROLLOUTS):
            yield f"{(prompt * ROLLOUTS + rollout) * 0x9E3779B97F4A7C15 % 2**64:016x}"


def _name(prompt: int) -> str:
    return f"{(prompt + 1) * 0xBF58476D1CE4E5B9 % 2**64:016x}"


def _labels(names: list[str], codes: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names))


def _numbers(rng: np.random.Generator, prompts: int) -> dict[str, np.ndarray]:
    """Columns of numbers of so many whole prompts."""
    n = prompts * PROMPT
    entropy = rng.gamma(0.35, 1.6, n)
    kl_0 = rng.gamma(0.4, 0.9, n) * (0.4 + entropy)
    shared = np.minimum(rng.binomial(SUPPORT, rng.beta(7, 2, n)), SUPPORT)
    compatibility = np.clip(1.0 - 0.6 * kl_0 * rng.random(n) ** 2, 1e-9, 1.0)
    lower = compatibility * (1.0 - 0.02 * rng.random(n) * (SUPPORT - shared) / SUPPORT)
    disagreement = 0.8 * kl_0 * rng.random(n) + 0.05 * rng.gamma(0.3, 1.0, n)
    effect = np.repeat(rng.normal(0, 0.05, prompts), PROMPT)
    kl = kl_0 * np.exp(effect - 0.2 * compatibility + rng.normal(0, 0.3, n))
    gain = kl_0 - kl
    position = np.tile(np.arange(POSITIONS), n // POSITIONS)
    unit = {
        f"{x}_norm": rng.random(n)
        for x in ("disagreement", "compatibility", "entropy", "teacher_entropy")
    }
    return {
        **unit,
        "position": position.astype(np.int32),
        "token_id": rng.integers(0, 151_936, n).astype(np.int32),
        "kl_0": kl_0,
        "kl": kl,
        "gain": gain,
        "gain_rel": gain / (kl_0 + RELATIVE_EPSILON),
        "reverse_kl_0": kl_0 * rng.random(n) * 1.5,
        "reverse_kl": kl_0 * rng.random(n),
        "entropy": entropy,
        "teacher_entropy": 0.4 * entropy + rng.gamma(0.3, 1.0, n),
        "disagreement": disagreement,
        "compatibility": compatibility,
        "compatibility_lower": lower,
        "overlap": shared / SUPPORT,
        "jaccard": shared / (2 * SUPPORT - shared),
        "shared_teacher_mass": lower,
        "bc_union": 1.0 - 0.2 * (1 - compatibility) - 1e-3 * rng.random(n),
        "learnable": unit["disagreement_norm"] * unit["compatibility_norm"],
        "incompatible": unit["disagreement_norm"] * (1 - unit["compatibility_norm"]),
        "quadrant": rng.integers(1, 5, n).astype(np.int8),
        "relative_position": position / (POSITIONS - 1),
    }
