"""Scores a bank with a teacher, theta_0 and any number of checkpoints into a run folder.

What is to be done is checked before weights are loaded (`task`, `manifest`). Then, model by model,
this process scores the parts that no other has done (`parts`, `worker`). Processes that `torchrun`
or `accelerate launch` started share a run by that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from diagnostics.bank.contexts import Bank, check_ids
from diagnostics.errors import InputError
from diagnostics.models.files import (
    ModelFiles,
    check_shared_vocabulary,
    check_top_k,
    open_model,
    shared_vocabulary,
    tokenizer_fingerprint,
)
from diagnostics.models.weights import Dtype, Loader, read_ahead
from diagnostics.progress import bar
from diagnostics.scoring import manifest
from diagnostics.scoring.beside_lists import ListedWorker, ListKeeper
from diagnostics.scoring.checkpoints import Checkpoint, as_checkpoint, check_names
from diagnostics.scoring.listed import ListedTeacher, is_listed, open_listed
from diagnostics.scoring.parts import clear_locks, unfinished
from diagnostics.scoring.reduce import resolve_kernel
from diagnostics.scoring.run import BATCH, LISTED, START, TEACHER, Run, open_run, part_file
from diagnostics.scoring.task import Settings, Task
from diagnostics.scoring.worker import Job, NotFinite, Worker, device_errors


def rescore(
    bank: Bank,
    teacher: str,
    student: str,
    checkpoints: Mapping[str, str | Checkpoint],
    out: Path,
    settings: Settings,
    *,
    name: str | None = None,
    runner: Callable[[Task], Runner] | None = None,
) -> Run:
    """Scores what the run at `out` does not hold yet, and returns the run.

    Args: `teacher` is a MODEL, or names lists (`listed`); `checkpoints` maps names to MODELs, or
    to `Checkpoint`s, which know their step; `name` is how reports call the run; `runner` makes what
    scores the parts (`cluster.OnRay`), default this process.
    Raises InputError before any weights are loaded when models, bank and run do not fit together,
    and during scoring when a model's output is not finite, naming checkpoint and context.
    """
    task = plan(bank, teacher, student, checkpoints, out, settings)
    try:
        manifest.start(task, name or out.name)
        with closing((runner or Scorer)(task)) as scorer:
            for job in jobs(task):
                scorer.run(job, job.parts(task))
                manifest.count_parts(out)
    finally:
        clear_locks(out)
    return open_run(out)


def plan(
    bank: Bank,
    teacher: str,
    student: str,
    checkpoints: Mapping[str, str | Checkpoint],
    out: Path,
    settings: Settings,
) -> Task:
    """Opens every model and checks that all fit together; loads no weights."""
    check_names(checkpoints)
    origins = {key: as_checkpoint(given) for key, given in checkpoints.items()}
    teacher_files = None if is_listed(teacher) else open_model(teacher)
    student_files = open_model(student)
    reference = teacher_files or student_files
    trained = {key: open_model(origin.spec) for key, origin in origins.items()}
    for other in (student_files, *trained.values()):
        check_shared_vocabulary(reference, other)
    vocabulary = shared_vocabulary([reference, student_files])
    _check_widths(trained, vocabulary)
    _check_origin(bank, student_files)
    check_ids(bank, vocabulary, f"bank {bank.digest[:12]}")
    check_top_k(settings.top_k, vocabulary)
    task = Task(
        out=out,
        bank=bank,
        teacher=reference,
        student=student_files,
        checkpoints=trained,
        origins=origins,
        vocabulary=vocabulary,
        settings=replace(settings, kernel=resolve_kernel(settings.kernel, settings.device)),
    )
    return task if teacher_files else _with_lists(task, teacher)


def _with_lists(task: Task, teacher: str) -> Task:
    """The task with a teacher known by its lists; what belongs to gain alone is refused."""
    if task.settings.noise_dtypes:
        raise InputError(
            where="--noise-dtype",
            expected="a teacher whose whole distribution is known: the noise floor is of gain",
            got=teacher,
            fix="leave the option out",
        )
    source = open_listed(
        teacher,
        task.bank,
        vocabulary=task.vocabulary,
        top_k=task.settings.top_k,
        key_variable=task.settings.key_variable,
        known=_known_lists(task, teacher),
    )
    return replace(task, teacher=source, settings=replace(task.settings, kernel="plain"))


def _known_lists(task: Task, teacher: str) -> str | None:
    """The fingerprint of a teacher all of whose lists the run holds already, else None."""
    if not (task.out / "manifest.json").is_file():
        return None
    stamp = open_run(task.out).manifest["teacher"]
    whole = all(part_file(task.out, TEACHER, part).is_file() for part in range(task.parts))
    same = stamp.get("kind") == LISTED and stamp["model"] == teacher
    return str(stamp["fingerprint"]) if same and whole else None


def jobs(task: Task) -> list[Job]:
    """What is scored, in order: each job needs what those before it leave.

    theta_0's noise floors follow theta_0: in another batch shape, and in other dtypes.
    """
    dtype = task.settings.dtype
    others = [other for other in task.settings.noise_dtypes if other != dtype]
    noise = [
        Job(BATCH, task.student, dtype, noise=True),
        *(Job(other, task.student, other, noise=True) for other in others),
    ]
    return [
        Job(TEACHER, task.teacher, dtype),
        Job(START, task.student, dtype),
        *(() if task.listed else noise),  # the noise floor is of gain
        *(Job(name, files, dtype) for name, files in task.checkpoints.items()),
    ]


class Runner(Protocol):
    """What scores the parts of jobs, one job after the other."""

    def run(self, job: Job, parts: Sequence[int]) -> None:
        """Ends when all of these parts of a job are done."""

    def close(self) -> None:
        """Lets go of models and processes."""


class Scorer:
    """Scores parts of a task's jobs; loads a model when a part asks for it and keeps the last.

    Models of one base and dtype share it: adapters are swapped (`weights.Loader`).
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._worker: Worker | ListedWorker | ListKeeper | None = None
        self._job: Job | None = None
        self._loader: tuple[Dtype, Loader] | None = None

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

    def close(self) -> None:
        """Lets go of the model."""
        self._worker = self._job = None
        if self._loader is not None:
            self._loader[1].close()
            self._loader = None

    def _worker_for(self, job: Job) -> Worker | ListedWorker | ListKeeper:
        if self._worker is None or self._job != job:
            self._worker = None  # before the next model is loaded
            self._worker = self._made(job)
            self._job = job
        return self._worker

    def _made(self, job: Job) -> Worker | ListedWorker | ListKeeper:
        """What scores the parts of a job, its model loaded and the next one's files read ahead."""
        if isinstance(job.files, ListedTeacher):
            return ListKeeper(self.task, job.files)
        if self._loader is None or self._loader[0] != job.dtype:
            self.close()
            settings = self.task.settings
            self._loader = job.dtype, Loader(job.dtype, settings.device, settings.device_map)
        model = self._loader[1].load(job.files)
        order = jobs(self.task)
        for other in order[order.index(job) + 1 :][:1]:
            if isinstance(other.files, ModelFiles) and other.parts(self.task):
                read_ahead(other.files)
        return (ListedWorker if self.task.listed else Worker)(self.task, job, model)


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
