"""Scores a bank with a teacher, theta_0 and any number of checkpoints into a run folder.

What is to be done is checked before weights are loaded (`task`, `manifest`). Then, model by model,
this process scores the parts that no other has done (`parts`, `worker`). Processes that `torchrun`
or `accelerate launch` started share a run by that alone.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from diagnostics.bank.contexts import Bank, check_ids
from diagnostics.errors import InputError
from diagnostics.models.files import (
    ModelFiles,
    check_shared_vocabulary,
    check_top_k,
    open_model,
    tokenizer_fingerprint,
)
from diagnostics.models.weights import load_weights
from diagnostics.progress import bar
from diagnostics.scoring import manifest
from diagnostics.scoring.parts import clear_locks, unfinished
from diagnostics.scoring.reduce import resolve_kernel
from diagnostics.scoring.run import CHECKPOINT_NAME, START, TEACHER, Run, open_run
from diagnostics.scoring.task import Settings, Task
from diagnostics.scoring.worker import Job, NotFinite, Worker, device_errors


def rescore(
    bank: Bank,
    teacher: str,
    student: str,
    checkpoints: Mapping[str, str],
    out: Path,
    settings: Settings,
    *,
    name: str | None = None,
    runner: Callable[[Task], Runner] | None = None,
) -> Run:
    """Scores what the run at `out` does not hold yet, and returns the run.

    Args: `checkpoints` maps names to MODELs; `name` is how reports call the run; `runner` makes
    what scores the parts (`cluster.OnRay`), default this process.
    Raises InputError before any weights are loaded when models, bank and run do not fit together,
    and during scoring when a model's output is not finite, naming checkpoint and context.
    """
    task = plan(bank, teacher, student, checkpoints, out, settings)
    manifest.start(task, name or out.name)
    with closing((runner or Scorer)(task)) as scorer:
        for job in jobs(task):
            scorer.run(job, job.parts(task))
            manifest.count_parts(out)
    clear_locks(out)
    return open_run(out)


def plan(
    bank: Bank,
    teacher: str,
    student: str,
    checkpoints: Mapping[str, str],
    out: Path,
    settings: Settings,
) -> Task:
    """Opens every model and checks that all fit together; loads no weights."""
    _check_names(checkpoints)
    teacher_files, student_files = open_model(teacher), open_model(student)
    trained = {key: open_model(spec) for key, spec in checkpoints.items()}
    for other in (student_files, *trained.values()):
        check_shared_vocabulary(teacher_files, other)
    vocabulary = min(teacher_files.vocabulary, student_files.vocabulary)
    _check_widths(trained, vocabulary)
    _check_origin(bank, student_files)
    check_ids(bank, vocabulary, f"bank {bank.digest[:12]}")
    check_top_k(settings.top_k, teacher_files)
    return Task(
        out=out,
        bank=bank,
        teacher=teacher_files,
        student=student_files,
        checkpoints=trained,
        vocabulary=vocabulary,
        settings=replace(settings, kernel=resolve_kernel(settings.kernel, settings.device)),
    )


def jobs(task: Task) -> list[Job]:
    """What is scored, in order: each job needs what those before it leave.

    theta_0's noise floors follow theta_0: in another batch shape, and in other dtypes.
    """
    dtype = task.settings.dtype
    others = [other for other in task.settings.noise_dtypes if other != dtype]
    return [
        Job(TEACHER, task.teacher, dtype),
        Job(START, task.student, dtype),
        Job("batch", task.student, dtype, noise=True),
        *(Job(other, task.student, other, noise=True) for other in others),
        *(Job(name, files, dtype) for name, files in task.checkpoints.items()),
    ]


class Runner(Protocol):
    """What scores the parts of jobs, one job after the other."""

    def run(self, job: Job, parts: Sequence[int]) -> None:
        """Ends when all of these parts of a job are done."""

    def close(self) -> None:
        """Lets go of models and processes."""


class Scorer:
    """Scores parts of a task's jobs; loads a model when a part asks for it and keeps the last."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._worker: Worker | None = None

    def run(self, job: Job, parts: Sequence[int]) -> None:
        """Scores the parts that no other process has done.

        Raises InputError when a device is lost, memory or disk run out, or the model's output is
        not finite; a checkpoint is then taken out of the run. What was scored before stays.
        """
        out, title = self.task.out, f"scoring {'noise floor ' * job.noise}{job.name}"
        total = len(self.task.noise_rows() if job.noise else self.task.bank)
        lock = f"noise-{job.name}" if job.noise else f"part-{job.name}"
        with (
            device_errors(self.task.settings.device),
            closing(unfinished(out, lock, parts, lambda part: job.done(out, part))) as todo,
            bar(title, total) as advance,
        ):
            for part in todo:
                try:
                    self._worker_for(job).score(part, advance)
                except NotFinite:
                    manifest.forget(self.task, job.name)
                    raise

    def _worker_for(self, job: Job) -> Worker:
        last = self._worker
        if last and last.job == job:
            return last
        same = last and (last.job.files, last.job.dtype) == (job.files, job.dtype)
        model = last.model if last and same else None
        self._worker = last = None
        if model is None:
            _free()
            model = load_weights(job.files, job.dtype, self.task.settings.device)
        self._worker = Worker(self.task, job, model)
        return self._worker

    def close(self) -> None:
        """Lets go of the model."""
        self._worker = None
        _free()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _check_widths(checkpoints: Mapping[str, ModelFiles], vocabulary: int) -> None:
    """Refuses a checkpoint that lacks ids that teacher and theta_0 share."""
    for key, files in checkpoints.items():
        if files.vocabulary < vocabulary:
            raise InputError(
                where=f"checkpoint {key} ({files.spec})",
                expected=f"at least {vocabulary} rows of logits, as teacher and theta_0 have",
                got=str(files.vocabulary),
                fix="choose a checkpoint of this student",
            )


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


def _check_names(checkpoints: Mapping[str, str]) -> None:
    for key in checkpoints:
        if not CHECKPOINT_NAME.fullmatch(key) or key in (TEACHER, START):
            raise InputError(
                where="--checkpoint",
                expected=f"a name of letters, digits, `.`, `_`, `-`, not {TEACHER} or {START}",
                got=repr(key),
                fix="write --checkpoint NAME=MODEL with another name",
            )


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
