"""A run's manifest: what the run is made of, and the refusal of anything else.

Two commands may add checkpoints to one run at one time: each checkpoint has a stamp, a file of its
own in `checkpoints/`, and whoever writes the manifest lists the stamps that are there. The run's
lock makes every change one step; without locks the stamps alone keep a checkpoint from being lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diagnostics.bank.contexts import library_versions
from diagnostics.errors import InputError
from diagnostics.files import read_json, read_parquet, write_json, write_parquet
from diagnostics.models.files import ModelFiles
from diagnostics.models.pieces import pieces
from diagnostics.scoring.listed import ListedTeacher
from diagnostics.scoring.parts import manifest_lock
from diagnostics.scoring.run import LISTED, SCHEMA_VERSION, START, TEACHER, open_run, part_file
from diagnostics.scoring.task import Task
from diagnostics.scoring.texts import (
    CONTEXT_TEXTS,
    contexts_file,
    has_context_texts,
    vocabulary_file,
    vocabulary_table,
)

FIXED = ("bank.digest", "teacher.fingerprint", "student.fingerprint", "settings", "parts")


def start(task: Task, name: str) -> None:
    """Makes the run of a task, or adds the task's checkpoints to the run that is there.

    Raises InputError that names what differs when the folder holds another run.
    """
    wanted = _describe(task, name)
    _check_folder(task.out)
    with manifest_lock(task.out):
        manifest = _join(task.out, wanted)
        if not (task.out / "manifest.json").is_file():
            _write(task.out, manifest)  # first of all, so that the folder is known as a run
        _write_texts(task)
        for key, stamp in wanted["checkpoints"].items():
            if not _stamp_file(task.out, key).is_file():
                _remove_scores(task.out, key)  # of a process that did not know it was forgotten
                write_json(_stamp_file(task.out, key), stamp)
        _write(task.out, manifest)


def count_parts(out: Path) -> None:
    """Writes into the manifest how many parts of each model lie in the folder now."""
    with manifest_lock(out):
        _write(out, open_run(out).manifest)


def forget(task: Task, name: str) -> None:
    """Takes a refused checkpoint out of the run, so that a mended one may have its name.

    Leaves alone a mended one that is there already.
    """
    if name not in task.checkpoints:
        return
    with manifest_lock(task.out):
        if _known_fingerprint(task.out, name) not in (None, task.checkpoints[name].fingerprint):
            return
        _stamp_file(task.out, name).unlink(missing_ok=True)
        _remove_scores(task.out, name)
        _write(task.out, open_run(task.out).manifest)


@contextmanager
def still_wanted(task: Task, name: str) -> Iterator[None]:
    """Holds the run while a model's scores are written.

    Raises InputError when another process has found the checkpoint's output not finite and took it
    out of the run (`forget`), so that no scores of it come back.
    """
    if name not in task.checkpoints:
        yield
        return
    with manifest_lock(task.out):
        if _known_fingerprint(task.out, name) != task.checkpoints[name].fingerprint:
            raise InputError(
                where=f"checkpoint {name}",
                expected=f"its stamp in {_stamp_file(task.out, name).parent}",
                got="none: another process has taken it out of the run",
                fix="read why on that process's stderr, and run again with a sound checkpoint",
            )
        yield


def _write_texts(task: Task) -> None:
    """Writes what the bank's contexts and ids say, where the run does not hold it yet."""
    file = contexts_file(task.out)
    if not file.is_file() or not has_context_texts(read_parquet(file)):
        contexts = task.bank.table.select(["context_id", "prompt_id", *CONTEXT_TEXTS])
        write_parquet(file, contexts.replace_schema_metadata(None))
    tokenizer = task.student.tokenizer
    if tokenizer is not None and not vocabulary_file(task.out).is_file():
        found = pieces(tokenizer, task.vocabulary)
        table = vocabulary_table((piece.text, piece.special) for piece in found)
        write_parquet(vocabulary_file(task.out), table)


def _stamp_file(out: Path, name: str) -> Path:
    return out / "checkpoints" / f"{name}.json"


def _known_fingerprint(out: Path, name: str) -> str | None:
    """The fingerprint of the model that has a checkpoint's name in the run, if any has."""
    file = _stamp_file(out, name)
    return str(read_json(file)["fingerprint"]) if file.is_file() else None


def _remove_scores(out: Path, name: str) -> None:
    shutil.rmtree(part_file(out, name, 0).parent, ignore_errors=True)


def _write(out: Path, manifest: Mapping[str, Any]) -> None:
    """Writes a manifest with the checkpoints that have stamps, new ones last, and parts counted."""
    files = sorted((out / "checkpoints").glob("*.json"))
    found = {file.stem: read_json(file) for file in files}
    names = dict.fromkeys([*manifest["checkpoints"], *found])
    known = {name: found[name] for name in names if name in found}
    models = (TEACHER, START, *known)
    done = {name: len(list(part_file(out, name, 0).parent.glob("*.parquet"))) for name in models}
    write_json(out / "manifest.json", {**manifest, "checkpoints": known, "parts_done": done})


def _describe(task: Task, name: str) -> dict[str, Any]:
    """What a run is made of."""
    settings = task.settings
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "bank": {"digest": task.bank.digest, "contexts": len(task.bank)},
        "teacher": _stamp(task.teacher),
        "student": _stamp(task.student),
        "checkpoints": {
            key: {**_stamp(files), "step": origin.step, "series": origin.series}
            for (key, files), origin in zip(
                task.checkpoints.items(), task.origins.values(), strict=True
            )
        },
        "settings": {
            "top_k": settings.top_k,
            "dtype": settings.dtype,
            "kernel": settings.kernel,
            "part_contexts": settings.part_contexts,
        },
        "vocabulary": {
            "shared": task.vocabulary,
            "teacher": task.teacher.vocabulary,
            "student": task.student.vocabulary,
        },
        "parts": task.parts,
        "libraries": library_versions(),
    }


def _stamp(files: ModelFiles | ListedTeacher) -> dict[str, Any]:
    stamp = {"model": files.spec, "fingerprint": files.fingerprint}
    if isinstance(files, ModelFiles):
        return {**stamp, "quantization": files.quantization}
    return {**stamp, "kind": LISTED}


def _check_folder(out: Path) -> None:
    """Refuses a folder with files of somebody else."""
    taken = out.is_file() or (
        out.is_dir()
        and not (out / "manifest.json").is_file()
        and any(not path.name.startswith(".") for path in out.iterdir())
    )
    if taken:
        raise InputError(
            where=str(out),
            expected="a new or empty folder, or a run",
            got="a file" if out.is_file() else "other files",
            fix="choose another --out",
        )


def _join(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that may exist already, with new checkpoints added."""
    file = out / "manifest.json"
    if not file.is_file():
        return wanted
    found = open_run(out).manifest
    if not wanted.keys() <= found.keys():
        raise InputError(
            where=str(file),
            expected=f"a run's manifest with {', '.join(wanted)}",
            got=f"{', '.join(found)}",
            fix="choose another --out",
        )
    for key in FIXED:
        here, there = _dig(wanted, key), _dig(found, key)
        if here != there:
            raise _another_run(out, key, there, here)
    for key, stamp in wanted["checkpoints"].items():
        known = _known_fingerprint(out, key)
        if known not in (None, stamp["fingerprint"]):
            raise _another_run(out, f"checkpoint {key}", known, stamp["fingerprint"])
    checkpoints = {**found["checkpoints"], **wanted["checkpoints"]}
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
