"""A run's manifest: what the run is made of, and the refusal of anything else.

Every change is made under the run's lock, from what the file says then, so that two commands may
add checkpoints to one run at one time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diagnostics.bank.contexts import library_versions
from diagnostics.errors import InputError
from diagnostics.files import write_json, write_parquet
from diagnostics.models.files import ModelFiles
from diagnostics.scoring.listed import ListedTeacher
from diagnostics.scoring.parts import manifest_lock
from diagnostics.scoring.run import LISTED, SCHEMA_VERSION, START, TEACHER, open_run, part_file
from diagnostics.scoring.task import Task

FIXED = ("bank.digest", "teacher.fingerprint", "student.fingerprint", "settings", "parts")


def start(task: Task, name: str) -> None:
    """Makes the run of a task, or adds the task's checkpoints to the run that is there.

    Raises InputError that names what differs when the folder holds another run.
    """
    wanted = _describe(task, name)
    _check_folder(task.out)
    with manifest_lock(task.out):
        manifest = _join(task.out, wanted)
        contexts = task.bank.table.select(["context_id", "prompt_id"])
        if not (task.out / "contexts.parquet").is_file():
            write_parquet(task.out / "contexts.parquet", contexts.replace_schema_metadata(None))
        _write(task.out, manifest)


def count_parts(out: Path) -> None:
    """Writes into the manifest how many parts of each model lie in the folder now."""
    with manifest_lock(out):
        _write(out, dict(open_run(out).manifest))


def forget(out: Path, name: str) -> None:
    """Takes a refused checkpoint out of the run, so that a mended one may have its name."""
    with manifest_lock(out):
        manifest = dict(open_run(out).manifest)
        if manifest["checkpoints"].pop(name, None):
            shutil.rmtree(part_file(out, name, 0).parent, ignore_errors=True)
            _write(out, manifest)


def _write(out: Path, manifest: dict[str, Any]) -> None:
    models = (TEACHER, START, *manifest["checkpoints"])
    done = {name: len(list(part_file(out, name, 0).parent.glob("*.parquet"))) for name in models}
    write_json(out / "manifest.json", {**manifest, "parts_done": done})


def _describe(task: Task, name: str) -> dict[str, Any]:
    """What a run is made of."""
    settings = task.settings
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "bank": {"digest": task.bank.digest, "contexts": len(task.bank)},
        "teacher": _stamp(task.teacher),
        "student": _stamp(task.student),
        "checkpoints": {key: _stamp(files) for key, files in task.checkpoints.items()},
        "settings": {
            "top_k": settings.top_k,
            "dtype": settings.dtype,
            "kernel": settings.kernel,
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
    return stamp if isinstance(files, ModelFiles) else {**stamp, "kind": LISTED}


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
