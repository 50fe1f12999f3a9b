"""A small run on disk, written from random distributions without any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diagnostics.files import write_json, write_parquet
from diagnostics.scoring.run import Run, open_run, part_file, scores_table

VOCABULARY, STORED_K = 40, 8


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _student(log_t: np.ndarray, log_s: np.ndarray, teacher_ids: np.ndarray) -> dict[str, Any]:
    p_t, p_s = np.exp(log_t), np.exp(log_s)
    ids = np.argsort(-log_s, axis=1, kind="stable")[:, :STORED_K].astype(np.int32)
    return {
        "kl": (p_t * (log_t - log_s)).sum(axis=1),
        "reverse_kl": (p_s * (log_s - log_t)).sum(axis=1),
        "entropy": -(p_s * log_s).sum(axis=1),
        "top_ids": ids,
        "top_logprob": np.take_along_axis(log_s, ids, axis=1),
        "teacher_logprob": np.take_along_axis(log_t, ids, axis=1),
        "logprob_at_teacher": np.take_along_axis(log_s, teacher_ids, axis=1),
        "dropped": np.zeros(len(log_s), dtype=np.float32),
    }


def write_run(
    folder: Path, *, name: str = "small", prompts: int = 24, length: int = 30, seed: int = 0
) -> Run:
    """A run of one part: two rollouts a prompt, two checkpoints that moved to the teacher a bit."""
    rng = np.random.default_rng(seed)
    contexts = 2 * prompts
    positions = contexts * length
    sharpness = rng.gamma(1.0, 3.0, size=(positions, 1))
    teacher_logits = rng.normal(size=(positions, VOCABULARY)) * sharpness
    start_logits = teacher_logits * 0.5 + rng.normal(size=(positions, VOCABULARY)) * 1.5
    log_t = _log_softmax(teacher_logits)
    teacher_ids = np.argsort(-log_t, axis=1, kind="stable")[:, :STORED_K].astype(np.int32)
    owner = np.repeat(np.arange(contexts, dtype=np.int32), length)
    teacher = {
        "context": owner,
        "position": np.tile(np.arange(length, dtype=np.int32), contexts),
        "token_id": rng.integers(0, VOCABULARY, positions).astype(np.int32),
        "entropy": -(np.exp(log_t) * log_t).sum(axis=1),
        "top_ids": teacher_ids,
        "top_logprob": np.take_along_axis(log_t, teacher_ids, axis=1),
        "dropped": np.zeros(positions, dtype=np.float32),
    }
    write_parquet(part_file(folder, "teacher", 0), scores_table(teacher))
    for model, step in (("theta_0", 0.0), ("one", 0.3), ("two", 0.1)):
        noise = rng.normal(size=start_logits.shape) * step
        log_s = _log_softmax(start_logits + step * (teacher_logits - start_logits) + noise)
        table = scores_table(_student(log_t, log_s, teacher_ids))
        write_parquet(part_file(folder, model, 0), table)
    ids = pa.table(
        {
            "context_id": [f"c{i:03d}" for i in range(contexts)],
            "prompt_id": [f"p{i // 2:03d}" for i in range(contexts)],
        }
    )
    write_parquet(folder / "contexts.parquet", ids)
    stamp = {"model": "random", "fingerprint": "0" * 64}
    manifest = {
        "schema_version": 2,
        "name": name,
        "bank": {"digest": "b" * 64, "contexts": contexts},
        "teacher": stamp,
        "student": stamp,
        "checkpoints": {"one": stamp, "two": stamp},
        "settings": {"top_k": STORED_K, "dtype": "float32"},
        "parts": 1,
        "libraries": {"python": "3"},
    }
    write_json(folder / "manifest.json", manifest)
    return open_run(folder)
