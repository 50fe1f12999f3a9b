"""Scores from lm-evaluation-harness output folders (0.4: `results_*.json`).

A folder may hold several files: several seeds, several tasks. A task that belongs to a group is a
category of the group where the group has a metric of its own; a group without one stands for its
tasks. The seed is torch's, which sampling follows (`config.torch_seed`).

Not covered: `samples_*.jsonl`; the seed of a server or an engine that samples by its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diagnostics.downstream.metrics import Unit, Wanted, main_metric, percent
from diagnostics.downstream.records import Score
from diagnostics.errors import InputError
from diagnostics.files import read_json


def harness_files(folder: Path) -> list[Path]:
    """The result files below a folder, oldest name first; a file is itself."""
    return [folder] if folder.is_file() else sorted(folder.rglob("results_*.json"))


def read_harness(
    folder: Path, wanted: Sequence[Wanted] = (), *, seed: int | None = None, unit: Unit = "fraction"
) -> list[Score]:
    """Every score of a folder, or of the tasks wanted; `seed` overrides what the files say.

    Raises InputError, naming file and task, for a folder without results or of two models, a task
    that is missing, without a clear metric, lower-is-better, NaN, or without a seed.
    """
    found: list[Score] = []
    models: dict[str, Path] = {}
    for path in harness_files(folder):
        content = read_json(path)
        if not isinstance(content.get("results"), dict) or not content["results"]:
            raise _not_results(path)
        models.setdefault(str(content.get("model_name")), path)
        found += _scores(path, content, wanted, seed, unit)
    if not models:
        raise InputError(
            where=str(folder),
            expected="results_*.json of lm-evaluation-harness",
            got="none",
            fix="name the folder that --output_path made",
        )
    if len(models) > 1:
        raise InputError(
            where=str(folder),
            expected="results of one model",
            got=", ".join(models),
            fix="name the folder of one of them",
        )
    missing_tasks(wanted, found, str(folder))
    return found


def missing_tasks(wanted: Sequence[Wanted], found: Sequence[Score], where: str) -> None:
    """Refuses when a wanted task has no score, naming the task."""
    for task in wanted:
        if task.benchmark not in {score.benchmark for score in found}:
            raise InputError(
                where=where,
                expected=f"results of the task {task.task}",
                got="none",
                fix="evaluate it, or take it out of `tasks`",
            )


def _scores(
    path: Path, content: dict[str, Any], wanted: Sequence[Wanted], seed: int | None, unit: Unit
) -> Iterator[Score]:
    seed = _seed(path, content) if seed is None else seed
    for task in wanted or [Wanted(task=t, benchmark=t) for t in _whole_tasks(content)]:
        if task.task not in content["results"]:
            continue
        where = f"{path}, {task.task}"
        metric = main_metric(_metrics(content, task.task), task.metric, where)
        _check_direction(content, task.task, metric, where)
        for name in (task.task, *_subtasks(content, task.task)):
            value = _metrics(content, name).get(metric)
            yield Score(
                benchmark=task.benchmark,
                category="" if name == task.task else name,
                seed=seed,
                value=percent(value, unit, f"{path}, {name}", metric),
                total=_total(content, name),
                metric=metric,
                source=str(path),
            )


def _whole_tasks(content: dict[str, Any]) -> list[str]:
    """Tasks that belong to no group, and groups; tasks of a group that has no metric."""
    groups = {g: tasks for g, tasks in content.get("group_subtasks", {}).items() if tasks}
    with_metric = {g for g in groups if g in content["results"] and _metrics(content, g)}
    inside = {task for g in with_metric for task in groups[g]}
    return [
        t for t in content["results"] if t not in inside and (t not in groups or t in with_metric)
    ]


def _subtasks(content: dict[str, Any], task: str) -> list[str]:
    """The tasks of a group that have results, themselves without tasks."""
    tasks = content.get("group_subtasks", {}).get(task) or []
    return [t for t in tasks if t in content["results"]]


def _metrics(content: dict[str, Any], task: str) -> dict[str, Any]:
    """Metric keys (`acc,none`) and values of a task, without errors, names and lengths."""
    return {
        key: value
        for key, value in content["results"][task].items()
        if "," in key and key.strip(" ,") and not key.partition(",")[0].endswith("_stderr")
    }


def _check_direction(content: dict[str, Any], task: str, metric: str, where: str) -> None:
    """Refuses a metric of which less is better: it is no score."""
    directions = content.get("higher_is_better", {}).get(task) or {}
    if directions.get(metric.partition(",")[0]) is False:
        raise InputError(
            where=where,
            expected="a metric of which more is better",
            got=metric,
            fix="name another in `tasks`, as TASK:METRIC",
        )


def _seed(path: Path, content: dict[str, Any]) -> int:
    seed = (content.get("config") or {}).get("torch_seed")
    if not isinstance(seed, int):
        raise InputError(
            where=str(path),
            expected="config.torch_seed",
            got=repr(seed),
            fix="state the seed in the list of results",
        )
    return seed


def _total(content: dict[str, Any], task: str) -> int | None:
    """Problems a task was evaluated on; a group's are its tasks'."""
    parts = _subtasks(content, task) or [task]
    samples = content.get("n-samples") or {}
    counts = [(samples.get(part) or {}).get("effective") for part in parts]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if len(known) == len(parts) else None


def _not_results(path: Path) -> InputError:
    return InputError(
        where=str(path),
        expected="an object `results` with at least one task",
        got="none",
        fix="run the evaluation again; this file is not one of lm-evaluation-harness 0.4",
    )
