"""A small run on disk, written from random distributions without any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diagnostics.files import read_parquet, write_json, write_parquet
from diagnostics.scoring.run import (
    SCHEMA_VERSION,
    Run,
    noise_file,
    open_run,
    part_file,
    scores_table,
)
from diagnostics.scoring.texts import contexts_file, vocabulary_file, vocabulary_table

VOCABULARY, STORED_K = 40, 8
HOSTILE = (  # texts that tokens and prompts may have
    "<end>",
    "<script>window.__hacked=1</script>",
    "</script><script>window.__hacked=2</script>",
    "<!--",
    "<!--<script>",
    "]]>",
    "<img src=x onerror=window.__hacked=3>",
    "&lt;b&gt;",
    "\u202egnp.exe",
    "\u2066\u200b\ufeff",
    "\u2028\u2029",
    "\x00\x07\x1b[31m",
    "👩‍👩‍👧",
    "مرحبا",
    "x" * 100_000,
    " ",
    "\n\n",
    "\t",
    "",
    "e\u0301",
    "{{ 7 * 7 }}",
    "'\"`",
)


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
    }


def write_noise(run: Run, kind: str, rows: np.ndarray) -> None:
    """Leaves of one kind of noise only some rows (pos,)."""
    file = noise_file(run.folder, kind)
    write_parquet(file, read_parquet(file).take(rows))


def write_run(
    folder: Path,
    *,
    name: str = "small",
    prompts: int = 24,
    length: int = 30,
    seed: int = 0,
    checkpoints: Mapping[str, float] = {"one": 0.3, "two": 0.1},
    noise: Mapping[str, float] = {"batch": 1e-6},
    dropped: Mapping[str, Sequence[float]] = {},
    origins: Mapping[str, Mapping[str, Any]] = {},
    texts: Sequence[str] | None = None,
    **manifest_keys: Any,
) -> Run:
    """A run of one part: two rollouts a prompt, checkpoints that moved to the teacher a bit.

    `checkpoints` says how far each moved, `noise` by kind how much the logits change when theta_0
    is scored again; a checkpoint of a kind's name is that second scoring. `dropped` gives a model's
    dropped mass at its first positions, 0 elsewhere. `origins` gives checkpoints a step and a
    series. `texts` are the first ids' (the first is a special token, ids beyond have none), and
    the prompts' too; None makes a run without texts. `manifest_keys` go over the manifest's.
    """
    rng = np.random.default_rng(seed)
    contexts = 2 * prompts
    positions = contexts * length
    sharpness = rng.gamma(1.0, 3.0, size=(positions, 1))
    teacher_logits = rng.normal(size=(positions, VOCABULARY)) * sharpness
    start_logits = teacher_logits * 0.5 + rng.normal(size=(positions, VOCABULARY)) * 1.5
    log_t = _log_softmax(teacher_logits)
    teacher_ids = np.argsort(-log_t, axis=1, kind="stable")[:, :STORED_K].astype(np.int32)
    owner = np.repeat(np.arange(contexts, dtype=np.int32), length)
    models: dict[str, dict[str, Any]] = {}
    models["teacher"] = teacher = {
        "context": owner,
        "position": np.tile(np.arange(length, dtype=np.int32), contexts),
        "token_id": rng.integers(0, VOCABULARY, positions).astype(np.int32),
        "entropy": -(np.exp(log_t) * log_t).sum(axis=1),
        "top_ids": teacher_ids,
        "top_logprob": np.take_along_axis(log_t, teacher_ids, axis=1),
    }
    for model, step in {"theta_0": 0.0, **checkpoints}.items():
        change = rng.normal(size=start_logits.shape) * step
        log_s = _log_softmax(start_logits + step * (teacher_logits - start_logits) + change)
        models[model] = _student(log_t, log_s, teacher_ids)
    for kind, size in noise.items():
        again = np.random.default_rng(seed + 1).normal(size=start_logits.shape) * size
        scores = _student(log_t, _log_softmax(start_logits + again), teacher_ids)
        if kind in checkpoints:
            models[kind] = scores
        columns = {key: teacher[key] for key in ("context", "position")}
        columns |= {key: scores[key] for key in ("kl", "reverse_kl", "entropy")}
        write_parquet(noise_file(folder, kind), scores_table(columns))
    for model, columns in models.items():
        mass = np.zeros(positions, np.float32)
        mass[: len(dropped.get(model, ()))] = dropped.get(model, ())
        write_parquet(part_file(folder, model, 0), scores_table({**columns, "dropped": mass}))
    ids = pa.table(
        {
            "context_id": [f"c{i:03d}" for i in range(contexts)],
            "prompt_id": [f"p{i // 2:03d}" for i in range(contexts)],
        }
    )
    if texts is not None:
        prompt_texts = [texts[i // 2 % len(texts)] for i in range(contexts)]
        ids = ids.append_column("prompt_text", pa.array(prompt_texts))
        ids = ids.append_column("response_text", pa.array([""] * contexts))
        known = [*texts, *[None] * VOCABULARY][:VOCABULARY]
        rows = [(text, index == 0) for index, text in enumerate(known)]
        write_parquet(vocabulary_file(folder), vocabulary_table(rows))
    write_parquet(contexts_file(folder), ids)
    stamp = {"model": "random", "fingerprint": "0" * 64}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "bank": {"digest": "b" * 64, "contexts": contexts},
        "teacher": stamp,
        "student": stamp,
        "checkpoints": {key: {**stamp, **origins.get(key, {})} for key in checkpoints},
        "settings": {"top_k": STORED_K, "dtype": "float32", "kernel": "torch"},
        "vocabulary": dict.fromkeys(("shared", "teacher", "student"), VOCABULARY),
        "parts": 1,
        "libraries": {"python": "3"},
    }
    write_json(folder / "manifest.json", manifest | manifest_keys)
    return open_run(folder)
