"""The words of `--checkpoint`: NAME=MODEL, or NAME=GLOB for the folders that a trainer left.

A glob stands in the last part of a path (`full=out/full/checkpoint-*`, also behind `BASE+`); each
matching folder becomes a checkpoint NAME-STEP of the series NAME, in the order of steps, so that
reports can draw trajectories. Globs in earlier parts of a path are not expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from diagnostics.errors import InputError
from diagnostics.scoring.run import CHECKPOINT_NAME, START, TEACHER

STEP = re.compile(r"[0-9]+$")
TRAINER_FOLDER = re.compile(r"(?:^|[/+])checkpoint-([0-9]+)/*$")
UNFINISHED = (".", "tmp-", "global_step")  # what trainers leave beside or inside checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A trained model to be scored.

    Fields: `spec` a MODEL; `step` of training, None where the name does not tell; `series` the
    trajectory it belongs to, None for one given by itself.
    """

    spec: str
    step: int | None
    series: str | None


def parse_checkpoints(pairs: Sequence[str]) -> dict[str, Checkpoint]:
    """NAME=MODEL and NAME=GLOB words as checkpoints by name, in the order given.

    Raises InputError for another form, a name given twice, or a glob that matches nothing, a
    folder without a step, or two of one step.
    """
    found: dict[str, Checkpoint] = {}
    series: set[str] = set()
    for pair in pairs:
        name, _, spec = pair.partition("=")
        if not spec or name in found or name in series:
            raise _bad_word(pair)
        check_names([name])
        if not _is_glob(spec):
            more = {name: as_checkpoint(spec)}
        else:
            more = _expand(name, spec)
            series.add(name)
        if more.keys() & found.keys():
            raise _bad_word(pair)
        found |= more
    return found


def as_checkpoint(given: str | Checkpoint) -> Checkpoint:
    """A MODEL as a checkpoint: `checkpoint-20` says its step."""
    if isinstance(given, Checkpoint):
        return given
    return Checkpoint(spec=given, step=_own_step(given), series=None)


def check_names(names: Iterable[str]) -> None:
    """Refuses names that are no folder names or are taken. Raises InputError."""
    for name in names:
        if not CHECKPOINT_NAME.fullmatch(name) or name in (TEACHER, START):
            raise InputError(
                where="--checkpoint",
                expected=f"a name of letters, digits, `.`, `_`, `-`, not {TEACHER} or {START}",
                got=repr(name),
                fix="write --checkpoint NAME=MODEL with another name",
            )


def _is_glob(spec: str) -> bool:
    """Whether the last part of a path has a wildcard; what exists under that name is no glob."""
    return any(letter in Path(spec).name for letter in "*?[") and not Path(spec).exists()


def _own_step(spec: str) -> int | None:
    found = TRAINER_FOLDER.search(spec)
    return int(found[1]) if found else None


def _expand(name: str, glob: str) -> dict[str, Checkpoint]:
    """The folders that a glob matches as checkpoints of one series, first step first."""
    base, folders = _matches(glob)
    steps: dict[int, Path] = {}
    for folder in folders:
        number = STEP.search(folder.name)
        if number is None:
            raise _bad_glob(name, glob, "folders that end in a step", f"{folder}")
        step = int(number[0])
        if step in steps:
            raise _bad_glob(name, glob, "one folder a step", f"{steps[step]} and {folder}")
        steps[step] = folder
    if not steps:
        raise _bad_glob(name, glob, "folders that match", "none")
    return {
        f"{name}-{step}": Checkpoint(spec=f"{base}{steps[step]}", step=step, series=name)
        for step in sorted(steps)
    }


def _matches(glob: str) -> tuple[str, list[Path]]:
    """(what stands before the path, as `BASE+`; the folders): the whole as a path comes first."""
    cuts = [0, *(i + 1 for i, letter in enumerate(glob) if letter == "+")]
    for cut in cuts:
        path = Path(glob[cut:])
        skipped = tuple(start for start in UNFINISHED if not path.name.startswith(start))
        folders = [
            folder
            for folder in (sorted(path.parent.iterdir()) if path.parent.is_dir() else ())
            if fnmatchcase(folder.name, path.name)
            and folder.is_dir()
            and not folder.name.startswith(skipped)
        ]
        if folders:
            return glob[:cut], folders
    return "", []


def _bad_word(pair: str) -> InputError:
    return InputError(
        where="--checkpoint",
        expected="NAME=MODEL, each name once",
        got=repr(pair),
        fix="write it as step100=path/to/checkpoint, or full='path/to/checkpoint-*'",
    )


def _bad_glob(name: str, glob: str, expected: str, got: str) -> InputError:
    return InputError(
        where=f"--checkpoint {name}={glob}",
        expected=expected,
        got=got,
        fix="narrow the glob, or name each folder as NAME=MODEL",
    )
