"""Scores from EvalScope output folders (`reports/MODEL/DATASET.json`).

An evaluation's folder is named by its time and holds `configs`, `predictions`, `reviews` and
`reports`; a folder of several such folders is several evaluations (seeds). A metric's score is over
all of its problems; where a report tells several categories apart, or several subsets of one, they
are the benchmark's categories. The seed stands in `configs/task_config*.yaml`. EvalScope rounds
scores to four decimals, so a score is exact to 0.005 per cent.

Not covered: `predictions` and `reviews`; collections, whose report is one table of many data sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diagnostics.downstream.harness import missing_tasks
from diagnostics.downstream.metrics import Unit, Wanted, main_metric, percent
from diagnostics.downstream.records import Score
from diagnostics.errors import InputError
from diagnostics.files import read_json

SEED = re.compile(r"^(?:  )?seed: *(\d+) *$", re.MULTILINE)  # top level and generation_config


def evalscope_files(folder: Path) -> list[Path]:
    """The reports below a folder, oldest evaluation first."""
    return [p for p in sorted(folder.rglob("*.json")) if p.parent.parent.name == "reports"]


def read_evalscope(
    folder: Path, wanted: Sequence[Wanted] = (), *, seed: int | None = None, unit: Unit = "fraction"
) -> list[Score]:
    """Every score of a folder, or of the data sets wanted; `seed` overrides what the files say.

    Raises InputError, naming file and data set, for a folder without reports or of two models, a
    data set that is missing, without a clear metric, NaN, or without one seed.
    """
    files = evalscope_files(folder)
    models = {path.parent.name for path in files}
    if len(models) != 1:
        raise InputError(
            where=str(folder),
            expected="reports/MODEL/DATASET.json of EvalScope, of one model",
            got=f"reports of {', '.join(sorted(models))}" if models else "none",
            fix="name the folder of an evaluation of one model",
        )
    found: list[Score] = []
    for path in files:
        report = read_json(path)
        name = str(report.get("dataset_name") or path.stem)
        tasks = [t for t in wanted or [Wanted(task=name, benchmark=name)] if t.task == name]
        found += [score for task in tasks for score in _scores(path, report, task, seed, unit)]
    missing_tasks(wanted, found, str(folder))
    return found


def _scores(
    path: Path, report: dict[str, Any], task: Wanted, seed: int | None, unit: Unit
) -> Iterator[Score]:
    metrics = {str(metric.get("name")): metric for metric in report.get("metrics") or []}
    chosen = main_metric(metrics, task.metric, f"{path}, {task.task}")
    seed = _seed(path) if seed is None else seed
    for category, part in [("", metrics[chosen]), *_categories(metrics[chosen])]:
        where = f"{path}, {category or task.task}"
        yield Score(
            benchmark=task.benchmark,
            category=category,
            seed=seed,
            value=percent(part.get("score"), unit, where, chosen),
            total=part["num"] if isinstance(part.get("num"), int) else None,
            metric=chosen,
            source=str(path),
        )


def _categories(metric: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Categories with their names, or the subsets of a single one; none where there is one."""
    categories = [c for c in metric.get("categories") or [] if c.get("num")]
    if len(categories) > 1:
        return [(_category_name(c["name"]), c) for c in categories]
    subsets = [s for c in categories for s in c.get("subsets") or [] if not s.get("is_aggregate")]
    return [(str(s["name"]), s) for s in subsets] if len(subsets) > 1 else []


def _category_name(name: str | list[str]) -> str:
    return name if isinstance(name, str) else "/".join(name)


def _seed(report: Path) -> int:
    """The one seed that the evaluation's configuration states."""
    configs = sorted((report.parents[2] / "configs").glob("task_config*.yaml"))
    seeds = {int(s) for path in configs for s in SEED.findall(path.read_text(encoding="utf-8"))}
    if len(seeds) != 1:
        raise InputError(
            where=str(report),
            expected="one seed in configs/task_config*.yaml of its evaluation",
            got=", ".join(map(str, sorted(seeds))) or "none",
            fix="state the seed in the list of results",
        )
    return seeds.pop()
