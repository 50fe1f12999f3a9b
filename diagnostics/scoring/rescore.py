"""Scores a bank with a teacher, theta_0 and any number of checkpoints into a run folder.

What is to be done is checked before weights are loaded (`task`, `manifest`). Then, model by model,
this process scores the parts that no other has done (`parts`, `worker`). Processes that `torchrun`
or `accelerate launch` started share a run by that alone.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from diagnostics.bank.contexts import Bank, check_ids
from diagnostics.errors import InputError
from diagnostics.models.files import (
    ModelFiles,
    check_shared_vocabulary,
    check_top_k,
    open_model,
    tokenizer_fingerprint,
)
from diagnostics.models.weights import Dtype, load_weights
from diagnostics.progress import bar
from diagnostics.scoring import manifest
from diagnostics.scoring.beside_lists import ListedWorker, ListKeeper
from diagnostics.scoring.listed import ListedTeacher, is_listed, open_listed
from diagnostics.scoring.parts import clear_locks, unfinished
from diagnostics.scoring.reduce import resolve_kernel
from diagnostics.scoring.run import (
    CHECKPOINT_NAME,
    LISTED,
    START,
    TEACHER,
    Run,
    noise_file,
    open_run,
    part_file,
)
from diagnostics.scoring.task import Settings, Task
from diagnostics.scoring.worker import Job, NotFinite, Worker


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

    Args: `teacher` is a MODEL, or names lists (`listed`); `checkpoints` maps names to MODELs;
    `name` is how reports call the run.
    Raises InputError before any weights are loaded when models, bank and run do not fit together,
    and during scoring when a model's output is not finite, naming checkpoint and context.
    """
    task = plan(bank, teacher, student, checkpoints, out, settings)
    manifest.start(task, name or out.name)
    for job in jobs(task):
        _score(task, job)
        manifest.count_parts(out)
    for dtype in task.settings.noise_dtypes:
        _score_noise(task, dtype)
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
    teacher_files = None if is_listed(teacher) else open_model(teacher)
    student_files = open_model(student)
    reference = teacher_files or student_files
    trained = {key: open_model(spec) for key, spec in checkpoints.items()}
    for other in (student_files, *trained.values()):
        check_shared_vocabulary(reference, other)
    vocabulary = min(reference.vocabulary, student_files.vocabulary)
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
    """The models of a task in the order they are scored: each needs what those before leave."""
    named: dict[str, ModelFiles | ListedTeacher]
    named = {TEACHER: task.teacher, START: task.student, **task.checkpoints}
    return [Job(name, files) for name, files in named.items()]


def _score(task: Task, job: Job) -> None:
    """Scores the parts of one model that no process has done; loads it only if there are any."""
    worker: Worker | ListedWorker | ListKeeper | None = None
    with (
        closing(_todo(task, job)) as todo,
        bar(f"scoring {job.name}", len(task.bank)) as advance,
    ):
        for part in todo:
            worker = worker or _worker(task, job)
            try:
                worker.score(part, advance)
            except NotFinite:
                manifest.forget(task.out, job.name)
                raise
    if job.name == START and not task.listed and not noise_file(task.out, "batch").is_file():
        worker = worker or _worker(task, job)
        assert isinstance(worker, Worker), "only a run of lists has other workers"
        worker.noise("batch")
    del worker
    _free()


def _worker(task: Task, job: Job) -> Worker | ListedWorker | ListKeeper:
    """What scores the parts of a job, its model loaded."""
    if not isinstance(job.files, ModelFiles):
        return ListKeeper(task, job.files)
    model = _load(task, job.files)
    if task.listed:
        return ListedWorker(task, job.name, job.files, model)
    return Worker(task, job, model)


def _load(task: Task, files: ModelFiles) -> PreTrainedModel:
    return load_weights(files, task.settings.dtype, task.settings.device)


def _todo(task: Task, job: Job) -> Generator[int]:
    return unfinished(task.out, job.name, task.parts, lambda part: job.done(task.out, part))


def _score_noise(task: Task, dtype: Dtype) -> None:
    """The noise floor of another dtype: theta_0 loaded in it, against the same teacher."""
    if dtype == task.settings.dtype or noise_file(task.out, dtype).is_file():
        return
    model = load_weights(task.student, dtype, task.settings.device)
    Worker(task, Job(START, task.student), model).noise(dtype)
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
