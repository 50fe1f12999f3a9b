"""A run on disk: what was scored, by which models, and how to read it back. No torch here.

    RUN/manifest.json                bank digest, models, settings
    RUN/contexts.parquet             context_id, prompt_id, texts, in bank order
    RUN/vocabulary.parquet           each token id's text, where the student has a tokenizer
    RUN/scores/MODEL/00000.parquet   one row a valid position, parts in bank order
    RUN/hidden/00000.safetensors     the teacher's final hidden states, as its head gets them
    RUN/hidden/head.safetensors      the teacher's head
    RUN/noise/KIND/00000.parquet     theta_0 once more at some contexts: the noise floor

Part files are written whole, so a part that is there is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.files import read_json, read_parquet
from diagnostics.scoring.texts import (
    ContextTexts,
    TokenTexts,
    contexts_file,
    read_context_texts,
    read_token_texts,
)

SCHEMA_VERSION = 2
TEACHER, START = "teacher", "theta_0"
BATCH = "batch"  # the kind of noise that every run has
LISTED = "top_k"  # the `kind` of a teacher known by its top-k lists alone
CHECKPOINT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherScores:
    """The teacher at every valid position, bank order.

    Fields: `context` (pos,) index into the bank; `position` (pos,) 0-based in the response;
    `token_id` (pos,); `entropy` (pos,) nats; `top_ids` (pos, k), most probable first;
    `top_logprob` (pos, k) nats; `dropped` (pos,) probability mass on ids that the student lacks.
    """

    context: Ids
    position: Ids
    token_id: Ids
    entropy: Floats
    top_ids: Ids
    top_logprob: Floats
    dropped: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentScores:
    """theta_0 or a checkpoint at every valid position, bank order; nats.

    Fields: `kl` (pos,) KL(p_T || p); `reverse_kl` (pos,) KL(p || p_T); `entropy` (pos,);
    `top_ids` (pos, k); `top_logprob` (pos, k) its own log-probabilities there;
    `teacher_logprob` (pos, k) the teacher's there; `logprob_at_teacher` (pos, k) its own at the
    teacher's top-k; `dropped` (pos,) probability mass on ids that the teacher lacks.
    """

    kl: Floats
    reverse_kl: Floats
    entropy: Floats
    top_ids: Ids
    top_logprob: Floats
    teacher_logprob: Floats
    logprob_at_teacher: Floats
    dropped: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScores:
    """theta_0 scored a second time, at a sample of contexts, bank order; nats.

    Fields: `context` (pos,) index into the bank; `position` (pos,) 0-based in the response; `kl`
    (pos,) KL(p_T || p_0); `reverse_kl` (pos,) KL(p_0 || p_T); `entropy` (pos,) of p_0.
    """

    context: Ids
    position: Ids
    kl: Floats
    reverse_kl: Floats
    entropy: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTeacherScores:
    """A teacher known by its top-k lists alone, at every valid position, bank order.

    Fields: `context`, `position`, `token_id` as in `TeacherScores`; `top_ids` (pos, k), -1 where a
    list is shorter; `top_logprob` (pos, k) nats, -inf there; `tail_mass` (pos,) its probability of
    all unlisted tokens together. k is the width of the lists, the run's `top_k` or more.
    """

    context: Ids
    position: Ids
    token_id: Ids
    top_ids: Ids
    top_logprob: Floats
    tail_mass: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedStudentScores:
    """theta_0 or a checkpoint beside a teacher of known lists, bank order; nats.

    Fields: `kl_lower`, `kl_upper` (pos,) bounds of KL(p_T || p); `entropy` (pos,); `top_ids`
    (pos, k); `top_logprob` (pos, k) its own there; `teacher_logprob` (pos, k) the teacher's there,
    -inf where unlisted; `logprob_at_teacher` (pos, width of the lists) its own at the teacher's,
    -inf where a list is shorter.
    """

    kl_lower: Floats
    kl_upper: Floats
    entropy: Floats
    top_ids: Ids
    top_logprob: Floats
    teacher_logprob: Floats
    logprob_at_teacher: Floats


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder with its manifest; arrays are read when asked for."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def top_k(self) -> int:
        """The largest support size that was stored."""
        return int(self.manifest["settings"]["top_k"])

    @property
    def name(self) -> str:
        """How reports call the run."""
        return str(self.manifest["name"])

    @property
    def checkpoints(self) -> list[str]:
        """Trained checkpoints, in the order they were added."""
        return list(self.manifest["checkpoints"])

    @property
    def steps(self) -> dict[str, int | None]:
        """Training step of each checkpoint, in the order they were added; None where unknown."""
        stamps = self.manifest["checkpoints"]
        return {name: stamp.get("step") for name, stamp in stamps.items()}

    @property
    def series(self) -> dict[str, str | None]:
        """The trajectory that each checkpoint belongs to; None for one given by itself."""
        stamps = self.manifest["checkpoints"]
        return {name: stamp.get("series") for name, stamp in stamps.items()}

    @property
    def bank_digest(self) -> str:
        """The digest of the bank that was scored."""
        return str(self.manifest["bank"]["digest"])

    @property
    def noise_kinds(self) -> list[str]:
        """Kinds of scoring noise that were measured, sorted (`batch` first); may be none."""
        return sorted(f.parent.name for f in self.folder.glob(str(noise_file(Path(), "*"))))

    @property
    def listed(self) -> bool:
        """Whether the teacher is known by its top-k lists alone."""
        return bool(self.manifest["teacher"].get("kind") == LISTED)

    def contexts(self) -> tuple[list[str], list[str]]:
        """(context_id, prompt_id), one entry a context, bank order."""
        table = read_parquet(contexts_file(self.folder), ["context_id", "prompt_id"])
        return table["context_id"].to_pylist(), table["prompt_id"].to_pylist()

    def token_texts(self) -> TokenTexts | None:
        """Every token id's text; None where the run has none (older, or no tokenizer)."""
        return read_token_texts(self.folder)

    def context_texts(self) -> ContextTexts | None:
        """Prompts and responses as text, bank order; None where an older run has none."""
        return read_context_texts(self.folder)

    @property
    def parts(self) -> int:
        """How many parts the bank was cut into."""
        return int(self.manifest["parts"])

    def teacher(self, part: int | None = None) -> TeacherScores:
        """The teacher's scores, of one part or of all. Raises InputError when parts are missing."""
        return TeacherScores(**self._arrays(TEACHER, TeacherScores.__slots__, part))

    def student(self, name: str = START, part: int | None = None) -> StudentScores:
        """Scores of theta_0 or of a checkpoint. Raises InputError when parts are missing."""
        return StudentScores(**self._arrays(name, StudentScores.__slots__, part))

    def divergences(self, name: str, part: int | None = None) -> tuple[Floats, Floats]:
        """KL(p_T || p) and KL(p || p_T) of a student, (pos,) each, nats, without its top-k lists.

        Raises InputError when parts are missing.
        """
        found = self._arrays(name, ("kl", "reverse_kl"), part)
        return found["kl"], found["reverse_kl"]

    def noise(self, kind: str = BATCH) -> NoiseScores:
        """Scores of theta_0 from a second time. Raises InputError when `kind` was not measured."""
        if kind not in self.noise_kinds:
            raise InputError(
                where=str(self.folder / "noise"),
                expected=f"a kind among {', '.join(self.noise_kinds) or '(none measured)'}",
                got=kind,
                fix="measure it with `diagnostics rescore`",
            )
        return NoiseScores(**part_columns([noise_file(self.folder, kind)], NoiseScores.__slots__))

    def dropped(self, model: str) -> Floats:
        """Probability mass of a model on ids outside the shared vocabulary, (pos,), bank order.

        Raises InputError when parts are missing.
        """
        values: Floats = self._arrays(model, ("dropped",))["dropped"]
        return values

    def listed_teacher(self, part: int | None = None) -> ListedTeacherScores:
        """The scores of a teacher known by its lists. Raises InputError when parts are missing."""
        return ListedTeacherScores(**self._arrays(TEACHER, ListedTeacherScores.__slots__, part))

    def listed_student(self, name: str = START, part: int | None = None) -> ListedStudentScores:
        """Scores beside such a teacher. Raises InputError when parts are missing."""
        return ListedStudentScores(**self._arrays(name, ListedStudentScores.__slots__, part))

    def _arrays(
        self, model: str, names: tuple[str, ...], part: int | None = None
    ) -> dict[str, Any]:
        files = self._files(model)
        return part_columns(files if part is None else [files[part]], names)

    def _files(self, model: str) -> list[Path]:
        """The scored parts of a model, all of them."""
        count = self.parts
        files = [part_file(self.folder, model, part) for part in range(count)]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(
                where=str(missing[0]),
                expected=f"all {count} scored parts of {model}",
                got=f"{count - len(missing)}",
                fix="run the same `diagnostics rescore` again: it goes on where it stopped",
            )
        return files


def open_run(folder: Path) -> Run:
    """Opens a run. Raises InputError when there is none, or it is of a newer schema."""
    manifest = read_json(folder / "manifest.json")
    found = manifest.get("schema_version")
    if found != SCHEMA_VERSION:
        raise InputError(
            where=str(folder / "manifest.json"),
            expected=f"schema_version {SCHEMA_VERSION}",
            got=str(found),
            fix="give a run folder that this version wrote: update the project, or score again",
        )
    return Run(folder=folder, manifest=manifest)


def part_file(folder: Path, model: str, part: int) -> Path:
    """Where a model's scores of one part lie."""
    return folder / "scores" / model / f"{part:05d}.parquet"


def hidden_file(folder: Path, part: int) -> Path:
    """Where the teacher's hidden states of one part lie."""
    return folder / "hidden" / f"{part:05d}.safetensors"


def head_file(folder: Path) -> Path:
    """Where the teacher's head lies."""
    return folder / "hidden" / "head.safetensors"


def noise_file(folder: Path, kind: str) -> Path:
    """Where theta_0's second scores lie: `kind` is `batch` (another batch shape) or a dtype."""
    return folder / "noise" / kind / "00000.parquet"


def scores_table(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Arrow table of arrays (pos,) and (pos, k); the latter as fixed-size lists."""
    arrays = {}
    for name, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        two_axes = values.ndim == 2
        arrays[name] = (
            pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if two_axes else flat
        )
    return pa.table(arrays)


def part_columns(files: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    """Columns of part files one after the other, as arrays (pos,) and (pos, k)."""
    table = pa.concat_tables([read_parquet(file, list(names)) for file in files])
    return {name: _array(table[name].combine_chunks()) for name in names}


def _array(column: pa.Array) -> NDArray[Any]:
    """A column as (pos,) or (pos, k); floats as float64."""
    listed = pa.types.is_fixed_size_list(column.type)
    flat = column.flatten() if listed else column
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
    return values.reshape(-1, column.type.list_size) if listed else values
