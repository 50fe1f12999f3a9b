"""What is done with one model of a run: hidden states, then both heads, then files.

The teacher's worker leaves hidden states and the head; no other worker loads the teacher. theta_0's
worker writes the teacher's columns beside its own, since one pass over both heads gives both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from diagnostics.errors import InputError
from diagnostics.files import whole_file, write_parquet
from diagnostics.models.files import ModelFiles
from diagnostics.models.heads import head_of, load_head, save_head
from diagnostics.models.weights import Dtype
from diagnostics.progress import Advance
from diagnostics.scoring.hidden import Context, hidden_states, one_by_one, out_of_memory
from diagnostics.scoring.listed import ListedTeacher
from diagnostics.scoring.manifest import still_wanted
from diagnostics.scoring.pairs import STUDENT_COLUMNS, TEACHER_COLUMNS, Side, compare
from diagnostics.scoring.run import (
    START,
    TEACHER,
    head_file,
    hidden_file,
    noise_file,
    part_file,
    scores_table,
)
from diagnostics.scoring.task import Task


class NotFinite(InputError):
    """A model's output is not finite."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to be scored: its name in the run, its files, the dtype that it runs in.

    `files` of a teacher may be its lists. `noise`: the job scores theta_0 once more, for the noise
    floor, and is one part.
    """

    name: str
    files: ModelFiles | ListedTeacher
    dtype: Dtype
    noise: bool = False

    def parts(self, task: Task) -> list[int]:
        """The parts of the job that are not on disk."""
        count = 1 if self.noise else task.parts
        return [part for part in range(count) if not self.done(task.out, part)]

    def done(self, out: Path, part: int) -> bool:
        """Whether everything that this job writes of a part is there."""
        if self.noise:
            return noise_file(out, self.name).is_file()
        if self.name == TEACHER and isinstance(self.files, ModelFiles):
            return hidden_file(out, part).is_file() and head_file(out).is_file()
        mine = part_file(out, self.name, part).is_file()
        return mine and (self.name != START or part_file(out, TEACHER, part).is_file())


class Worker:
    """Scores parts of one job with a model that is loaded once."""

    def __init__(self, task: Task, job: Job, model: PreTrainedModel) -> None:
        self.task, self.job, self.model = task, job, model
        self.head = head_of(model, job.files.spec)
        if job.name == TEACHER:
            save_head(self.head, head_file(task.out))
        self.teacher_head = load_head(head_file(task.out), str(self.head.weight.device))

    def score(self, part: int, advance: Advance) -> None:
        """Scores one part and writes its files.

        Raises NotFinite, naming model and context; InputError when the disk is full, or another
        process has taken the checkpoint out of the run. What was scored before stays.
        """
        if self.job.noise:
            self._noise(advance)
            return
        contexts = self.task.contexts(part, teacher=self.job.name == TEACHER)
        states = hidden_states(self.model, contexts, self.task.settings.batch_tokens, advance)
        require_finite(states, self.job.name, self.task.names(part))
        if self.job.name == TEACHER:
            _save_hidden(hidden_file(self.task.out, part), torch.cat(states))
            return
        found = self._compare(teacher_states(self.task.out, part, contexts), states)
        require_numbers(found, states, self.job.name, self.task.names(part))
        if self.job.name == START:
            table = places(contexts, self.task.rows(part)) | _named(found, TEACHER_COLUMNS)
            write_parquet(part_file(self.task.out, TEACHER, part), scores_table(table))
        table = _named(found, STUDENT_COLUMNS)
        with still_wanted(self.task, self.job.name):
            write_parquet(part_file(self.task.out, self.job.name, part), scores_table(table))

    def _noise(self, advance: Advance) -> None:
        """Scores theta_0's contexts of the noise floor once more, each alone, and writes them.

        In the dtype of the run (kind `batch`) what differs is the shape of the batch; a model that
        was loaded in another dtype gives that dtype's kind.
        """
        wanted = set(self.task.noise_rows())
        model = f"{START} for the noise floor ({self.job.name})"
        tables = []
        for part in range(self.task.parts):
            rows = self.task.rows(part)
            keep = [place for place, row in enumerate(rows) if row in wanted]
            if not keep:
                continue
            contexts = self.task.contexts(part, teacher=False)
            states = one_by_one(self.model, [contexts[place] for place in keep])
            names = [self.task.names(part)[place] for place in keep]
            require_finite(states, model, names)
            ends = np.cumsum([0, *(int(c.valid.sum()) for c in contexts)])
            other = teacher_states(self.task.out, part, contexts)
            found = self._compare(
                torch.cat([other[ends[place] : ends[place + 1]] for place in keep]), states
            )
            require_numbers(found, states, model, names)
            columns = places([contexts[place] for place in keep], [rows[place] for place in keep])
            del columns["token_id"]
            tables.append(columns | {name: found[name] for name in ("kl", "reverse_kl", "entropy")})
            advance(len(keep))
        joined = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
        write_parquet(noise_file(self.task.out, self.job.name), scores_table(joined))

    def _compare(self, teacher: Tensor, states: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
        settings = self.task.settings
        return compare(
            Side(states=teacher, head=self.teacher_head),
            Side(states=torch.cat(list(states)), head=self.head),
            self.task.vocabulary,
            settings.top_k,
            settings.kernel,
        )


def teacher_states(folder: Path, part: int, contexts: Sequence[Context]) -> Tensor:
    """The teacher's stored hidden states of a run's part (pos, hidden), one a valid position.

    `contexts` are the part's. Raises InputError where the file is damaged or of other positions.
    """
    file = hidden_file(folder, part)
    wanted = sum(int(c.valid.sum()) for c in contexts)
    try:
        hidden: Tensor = load_file(file)["hidden"]
    except (SafetensorError, KeyError, OSError) as error:
        raise InputError(
            where=str(file),
            expected="the teacher's hidden states, whole",
            got=" ".join(str(error).split()),
            fix="delete this file and run the same command again",
        ) from error
    if len(hidden) != wanted:
        raise InputError(
            where=str(file),
            expected=f"hidden states of {wanted} positions",
            got=str(len(hidden)),
            fix="delete this file and run the same command again",
        )
    return hidden


def places(contexts: Sequence[Context], rows: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Columns that say where each position is: `context`, `position`, `token_id`, (pos,) int32."""
    valid = [np.flatnonzero(context.valid) for context in contexts]
    tokens = [c.response[p] for c, p in zip(contexts, valid, strict=True)]
    return {
        "context": np.repeat(np.asarray(rows, dtype=np.int32), [len(p) for p in valid]),
        "position": np.concatenate(valid).astype(np.int32),
        "token_id": np.concatenate(tokens).astype(np.int32),
    }


def _named(
    found: Mapping[str, NDArray[Any]], columns: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    return {name: found[source] for name, source in columns.items()}


def _save_hidden(path: Path, hidden: Tensor) -> None:
    with whole_file(path) as partial:
        save_file({"hidden": hidden.contiguous().cpu()}, partial)


def require_finite(states: Sequence[Tensor], model: str, names: Sequence[str]) -> None:
    """Refuses NaN and infinity in a model's hidden states, naming model and context."""
    for name, state in zip(names, states, strict=True):
        if not bool(torch.isfinite(state).all()):
            raise _not_finite(model, name)


def require_numbers(
    columns: Mapping[str, NDArray[Any]], states: Sequence[Tensor], model: str, names: Sequence[str]
) -> None:
    """Refuses NaN and infinity in divergences and their bounds, naming model and context."""
    owner = np.repeat(np.arange(len(states)), [len(state) for state in states])
    divergences = ("teacher_entropy", "entropy", "kl", "reverse_kl", "kl_lower", "kl_upper")
    for column in (name for name in divergences if name in columns):
        bad = np.flatnonzero(~np.isfinite(columns[column]))
        if bad.size:
            blamed = TEACHER if column == "teacher_entropy" else model
            raise _not_finite(blamed, names[owner[bad[0]]])


def _not_finite(model: str, context: str) -> InputError:
    return NotFinite(
        where=f"{model}, context {context}",
        expected="finite model output",
        got="NaN or infinity",
        fix="score in float32 (--dtype float32), or check the checkpoint's weights",
    )


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Turns a device that is lost or has too little memory into an InputError that says so."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())[:120]
        if out_of_memory(error):
            raise InputError(
                where=device,
                expected="memory for a model, its head and one block of logits",
                got=text or type(error).__name__,
                fix="use a device with more memory, --dtype bfloat16, or --device-map auto",
            ) from error
        if isinstance(error, torch.AcceleratorError) or "CUDA error" in text:
            raise InputError(
                where=device,
                expected="a device that works",
                got=text,
                fix="run the same command again when it does: every part scored so far is kept",
            ) from error
        raise
