"""Scores a bank with a teacher, theta_0 and any number of checkpoints into a run folder.

The work is cut into parts of consecutive contexts. For each model and part that is not on disk yet:
hidden states by length-bucketed forward passes, then chunks of positions through both heads, so
that logits exist for one chunk at a time. The teacher's hidden states are kept; later checkpoints
need its head alone. Not covered yet: several devices, teachers known by top-k only, logit scaling.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diagnostics.bank.contexts import Bank, check_ids, library_versions
from diagnostics.errors import InputError
from diagnostics.files import whole_file, write_json, write_parquet
from diagnostics.models.files import (
    ModelFiles,
    check_shared_vocabulary,
    check_top_k,
    open_model,
    tokenizer_fingerprint,
)
from diagnostics.models.weights import Dtype, load_head, load_weights, project
from diagnostics.progress import bar
from diagnostics.scoring import divergence
from diagnostics.scoring.divergence import chunked
from diagnostics.scoring.hidden import Context, hidden_states
from diagnostics.scoring.run import (
    CHECKPOINT_NAME,
    SCHEMA_VERSION,
    START,
    TEACHER,
    Run,
    hidden_file,
    open_run,
    part_file,
    scores_table,
)

PART_CONTEXTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to score. What changes numbers (`top_k`, `dtype`) is fixed for the life of a run."""

    top_k: int = 32
    dtype: Dtype = "float32"
    device: str = "cpu"
    batch_tokens: int = 8192


class NotFinite(InputError):
    """A model's output is not finite."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One model to be scored: its name in the run and its files."""

    name: str
    files: ModelFiles


def rescore(
    bank: Bank,
    teacher: str,
    student: str,
    checkpoints: Mapping[str, str],
    out: Path,
    settings: Settings,
    *,
    name: str | None = None,
) -> Run:
    """Scores what the run at `out` does not hold yet, and returns the run.

    Args: `checkpoints` maps names to MODELs; `name` is how reports call the run.
    Raises InputError before any weights are loaded when models, bank and run do not fit together,
    and during scoring when a model's output is not finite, naming checkpoint and context.
    """
    _check_names(checkpoints)
    teacher_files, student_files = open_model(teacher), open_model(student)
    trained = {key: open_model(spec) for key, spec in checkpoints.items()}
    for other in (student_files, *trained.values()):
        check_shared_vocabulary(teacher_files, other)
    _check_origin(bank, student_files)
    check_ids(bank, teacher_files.vocabulary, f"bank {bank.digest[:12]}")
    check_top_k(settings.top_k, teacher_files)
    manifest = _manifest(bank, teacher_files, student_files, trained, settings, name or out.name)
    manifest = _join(out, manifest)
    contexts = bank.table.select(["context_id", "prompt_id"])
    if not (out / "contexts.parquet").is_file():
        write_parquet(out / "contexts.parquet", contexts.replace_schema_metadata(None))
    _write_manifest(out, manifest)
    jobs = [_Job(TEACHER, teacher_files), _Job(START, student_files)]
    jobs += [_Job(key, files) for key, files in trained.items()]
    for job in jobs:
        try:
            _score_model(job, teacher_files, bank, out, settings)
        except NotFinite:
            _forget(out, job.name, manifest)
            raise
        _write_manifest(out, manifest)
    return open_run(out)


def _write_manifest(out: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest with how many parts of each model lie in the folder now."""
    models = (TEACHER, START, *manifest["checkpoints"])
    done = {name: len(list(part_file(out, name, 0).parent.glob("*.parquet"))) for name in models}
    write_json(out / "manifest.json", {**manifest, "parts_done": done})


def parse_checkpoints(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=MODEL words as a mapping. Raises InputError for another form or a name given twice."""
    models: dict[str, str] = {}
    for pair in pairs:
        key, equals, spec = pair.partition("=")
        if not equals or not spec or key in models:
            raise InputError(
                where="--checkpoint",
                expected="NAME=MODEL, each name once",
                got=repr(pair),
                fix="write it as step100=path/to/checkpoint",
            )
        models[key] = spec
    return models


def _check_origin(bank: Bank, student: ModelFiles) -> None:
    """Refuses a bank whose ids come from another tokenizer than the student's."""
    if student.tokenizer is None:
        return
    found = tokenizer_fingerprint(student.tokenizer)
    if found != bank.info.tokenizer_fingerprint:
        raise InputError(
            where=f"bank {bank.digest[:12]}",
            expected=f"ids of {student.spec}'s tokenizer ({found[:12]})",
            got=f"ids of another tokenizer ({bank.info.tokenizer_fingerprint[:12]})",
            fix="build the bank with this student's tokenizer",
        )


def _forget(out: Path, name: str, manifest: dict[str, Any]) -> None:
    """Takes a refused checkpoint out of the run, so that a mended one may have its name."""
    if manifest["checkpoints"].pop(name, None):
        shutil.rmtree(part_file(out, name, 0).parent, ignore_errors=True)
        _write_manifest(out, manifest)


def _check_names(checkpoints: Mapping[str, str]) -> None:
    for key in checkpoints:
        if not CHECKPOINT_NAME.fullmatch(key) or key in (TEACHER, START):
            raise InputError(
                where="--checkpoint",
                expected=f"a name of letters, digits, `.`, `_`, `-`, not {TEACHER} or {START}",
                got=repr(key),
                fix="write --checkpoint NAME=MODEL with another name",
            )


def _manifest(
    bank: Bank,
    teacher: ModelFiles,
    student: ModelFiles,
    checkpoints: Mapping[str, ModelFiles],
    settings: Settings,
    name: str,
) -> dict[str, Any]:
    """What a run is made of; written before the first part."""

    def stamp(files: ModelFiles) -> dict[str, str]:
        return {"model": files.spec, "fingerprint": files.fingerprint}

    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "bank": {"digest": bank.digest, "contexts": len(bank)},
        "teacher": stamp(teacher),
        "student": stamp(student),
        "checkpoints": {key: stamp(files) for key, files in checkpoints.items()},
        "settings": {"top_k": settings.top_k, "dtype": settings.dtype},
        "parts": _part_count(bank),
        "libraries": library_versions(),
    }


def _join(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that may exist already, with new checkpoints added.

    Raises InputError that names what differs when the folder holds another run.
    """
    file = out / "manifest.json"
    if not file.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(
                where=str(out),
                expected="a new or empty folder, or a run",
                got="other files",
                fix="choose another --out",
            )
        return wanted
    found = open_run(out).manifest
    if not wanted.keys() <= found.keys():
        raise InputError(
            where=str(file),
            expected=f"a run's manifest with {', '.join(wanted)}",
            got=f"{', '.join(found)}",
            fix="choose another --out",
        )
    same = ("bank.digest", "teacher.fingerprint", "student.fingerprint", "settings", "parts")
    for key in same:
        here, there = _dig(wanted, key), _dig(found, key)
        if here != there:
            raise _another_run(out, key, there, here)
    checkpoints = dict(found["checkpoints"])
    for key, stamp in wanted["checkpoints"].items():
        known = checkpoints.setdefault(key, stamp)
        if known["fingerprint"] != stamp["fingerprint"]:
            raise _another_run(out, f"checkpoint {key}", known["fingerprint"], stamp["fingerprint"])
    return {**wanted, "name": found["name"], "checkpoints": checkpoints}


def _another_run(out: Path, key: str, there: object, here: object) -> InputError:
    def short(value: object) -> str:
        return value[:12] if isinstance(value, str) else str(value)

    return InputError(
        where=str(out),
        expected=f"a run of the same {key} ({short(here)})",
        got=f"a run of {short(there)}",
        fix="choose another --out (or another checkpoint name)",
    )


def _dig(value: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        value = value[key]
    return value


def _score_model(job: _Job, teacher: ModelFiles, bank: Bank, out: Path, settings: Settings) -> None:
    """Scores the parts of one model that are not on disk yet."""
    parts = range(_part_count(bank))
    missing = [part for part in parts if not part_file(out, job.name, part).is_file()]
    if not missing:
        return
    model = load_weights(job.files, settings.dtype, settings.device)
    own_head = load_head(job.files, settings.dtype, settings.device)
    is_teacher = job.name == TEACHER
    teacher_head = own_head if is_teacher else load_head(teacher, settings.dtype, settings.device)
    with bar(f"scoring {job.name}", sum(_part_size(part, bank) for part in missing)) as advance:
        for part in missing:
            contexts = _read_contexts(bank, part, teacher=is_teacher)
            states = hidden_states(model, contexts, settings.batch_tokens, advance)
            names = _context_names(bank, part)
            _require_finite(states, job.name, names)
            if is_teacher:
                columns = _teacher_columns(contexts, states, own_head, settings.top_k, part)
                _require_numbers(columns, [len(s) for s in states], job.name, names)
            else:
                other = _teacher_states(out, part, states, settings.device)
                columns = _student_columns(
                    other, torch.cat(states), teacher_head, own_head, settings
                )
                _require_numbers(columns, [len(s) for s in states], job.name, names)
            if is_teacher:
                _save_hidden(hidden_file(out, part), torch.cat(states))
            write_parquet(part_file(out, job.name, part), scores_table(columns))
    del model
    gc.collect()


def _part_count(bank: Bank) -> int:
    return -(-len(bank) // PART_CONTEXTS)


def _part_size(part: int, bank: Bank) -> int:
    return min(len(bank), (part + 1) * PART_CONTEXTS) - part * PART_CONTEXTS


def _context_names(bank: Bank, part: int) -> list[str]:
    start = part * PART_CONTEXTS
    return bank.strings("context_id")[start : start + PART_CONTEXTS]


def _read_contexts(bank: Bank, part: int, *, teacher: bool) -> list[Context]:
    """The contexts of a part as a model reads them; a teacher may have a prompt of its own."""
    rows = bank.table.slice(part * PART_CONTEXTS, PART_CONTEXTS).to_pylist()
    return [
        Context(
            prompt=np.asarray(
                (teacher and row["teacher_prompt_ids"]) or row["prompt_ids"], dtype=np.int32
            ),
            response=np.asarray(row["response_ids"], dtype=np.int32),
            valid=np.asarray(row["loss_mask"], dtype=bool),
        )
        for row in rows
    ]


def _teacher_columns(
    contexts: Sequence[Context], states: Sequence[Tensor], head: Tensor, k: int, part: int
) -> dict[str, Any]:
    """Columns of a teacher part, arrays (pos,) and (pos, k)."""
    places = [np.flatnonzero(context.valid) for context in contexts]
    first = part * PART_CONTEXTS
    chunks = []
    for chunk in chunked(torch.cat(list(states))):
        logits = project(chunk, head)
        p = divergence.distribution(logits)
        ids = divergence.top_k(logits, k)
        chunks.append((divergence.entropy(p), ids.int(), p.logprob(ids).float()))
    entropy, top_ids, top_logprob = (_join_chunks(column) for column in zip(*chunks, strict=True))
    return {
        "context": np.repeat(
            np.arange(first, first + len(places), dtype=np.int32), [len(p) for p in places]
        ),
        "position": np.concatenate(places).astype(np.int32),
        "token_id": np.concatenate([c.response[p] for c, p in zip(contexts, places, strict=True)]),
        "entropy": entropy,
        "top_ids": top_ids,
        "top_logprob": top_logprob,
    }


def _student_columns(
    teacher_states: Tensor, states: Tensor, teacher_head: Tensor, head: Tensor, settings: Settings
) -> dict[str, Any]:
    """Columns of a student part, arrays (pos,) and (pos, k)."""
    chunks = [
        compare(project(t, teacher_head), project(s, head), settings.top_k)
        for t, s in zip(chunked(teacher_states), chunked(states), strict=True)
    ]
    return {name: _join_chunks([chunk[name] for chunk in chunks]) for name in chunks[0]}


def compare(teacher_logits: Tensor, student_logits: Tensor, k: int) -> dict[str, Tensor]:
    """Everything stored of a student at positions with logits (pos, vocab) of both models.

    Returns the columns of `run.StudentScores`, (pos,) float64 and (pos, k) int32 or float32.
    """
    t = divergence.distribution(teacher_logits)
    s = divergence.distribution(student_logits)
    teacher_ids = divergence.top_k(teacher_logits, k)
    student_ids = divergence.top_k(student_logits, k)
    return {
        "kl": divergence.kl_divergence(t, s),
        "reverse_kl": divergence.kl_divergence(s, t),
        "entropy": divergence.entropy(s),
        "top_ids": student_ids.int(),
        "top_logprob": s.logprob(student_ids).float(),
        "teacher_logprob": t.logprob(student_ids).float(),
        "logprob_at_teacher": s.logprob(teacher_ids).float(),
    }


def _join_chunks(chunks: Sequence[Tensor]) -> Any:
    return torch.cat(list(chunks)).cpu().numpy()


def _save_hidden(path: Path, hidden: Tensor) -> None:
    with whole_file(path) as partial:
        save_file({"hidden": hidden.contiguous().cpu()}, partial)


def _teacher_states(out: Path, part: int, states: Sequence[Tensor], device: str) -> Tensor:
    """The teacher's stored hidden states of a part, checked to be as many as the student's."""
    file = hidden_file(out, part)
    wanted = sum(len(s) for s in states)
    if not file.is_file():
        raise InputError(
            where=str(file),
            expected="the teacher's hidden states",
            got="no such file",
            fix=f"delete {part_file(out, TEACHER, part)} and run the same command again",
        )
    try:
        hidden: Tensor = load_file(file, device=device)["hidden"]
    except (SafetensorError, KeyError) as error:
        raise InputError(
            where=str(file),
            expected="the teacher's hidden states, whole",
            got=" ".join(str(error).split()),
            fix=f"delete {part_file(out, TEACHER, part)} and run the same command again",
        ) from error
    if len(hidden) != wanted:
        raise InputError(
            where=str(file),
            expected=f"hidden states of {wanted} positions",
            got=str(len(hidden)),
            fix="delete the run and score again",
        )
    return hidden


def _require_finite(states: Sequence[Tensor], model: str, names: Sequence[str]) -> None:
    """Refuses NaN and infinity in a model's hidden states, naming model and context."""
    for name, state in zip(names, states, strict=True):
        if not bool(torch.isfinite(state).all()):
            raise _not_finite(model, name)


def _require_numbers(
    columns: Mapping[str, Any], sizes: Sequence[int], model: str, names: Sequence[str]
) -> None:
    """Refuses NaN and infinity in the divergences, naming model and context."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    for column in columns.keys() & {"kl", "reverse_kl", "entropy"}:
        bad = np.flatnonzero(~np.isfinite(columns[column]))
        if bad.size:
            raise _not_finite(model, names[owner[bad[0]]])


def _not_finite(model: str, context: str) -> InputError:
    return NotFinite(
        where=f"{model}, context {context}",
        expected="finite model output",
        got="NaN or infinity",
        fix="score in float32 (--dtype float32), or check the checkpoint's weights",
    )
