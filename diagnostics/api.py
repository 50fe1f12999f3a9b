"""What a notebook does with models and figures, a call each: a bank, training, scoring, a report.

Names and words are those of the commands. What is heavy is imported inside, so that naming one of
these loads no model library (docs/python.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from diagnostics.statistics.tables.opened import OpenedRun, open_run

if TYPE_CHECKING:
    from diagnostics.bank.contexts import Bank
    from diagnostics.bank.imports.importer import Imported

Place = Path | str


def read_bank(path: Place) -> Bank:
    """A bank, checked as `bank check` does; `.first(60)` is its first contexts as a bank."""
    from diagnostics.bank import contexts

    return contexts.read_bank(Path(path))


def import_bank(form: str, source: Place, tokenizer: str, out: Place, **options: Any) -> Imported:
    """`bank import`: a trainer's rollouts frozen at `out`; `.notes()` says what was lost.

    `options` are `student`, `step`, `num_prompts` and `max_response_tokens`.
    """
    from diagnostics.bank.imports import importer

    return importer.import_bank(form, source, tokenizer, Path(out), **options)


def train(student: str, teacher: str, prompts: Place, out: Place, **settings: Any) -> pd.DataFrame:
    """`train`: one arm into the folder `out`; its log, a row a step.

    `settings` are the fields of `TrainSettings`, as selector="teachability", budget=0.05.
    """
    from diagnostics.bank.prompts import read_prompts
    from diagnostics.models.files import open_model
    from diagnostics.training.distill import distill
    from diagnostics.training.settings import TrainSettings

    chosen = TrainSettings(**settings)
    sheets = read_prompts(str(prompts))
    return pd.DataFrame(
        distill(open_model(student), open_model(teacher), sheets, chosen, Path(out))
    )


def rescore(
    bank: Bank | Place,
    teacher: str,
    student: str,
    checkpoints: Mapping[str, str],
    out: Place,
    *,
    name: str | None = None,
    **settings: Any,
) -> OpenedRun:
    """`rescore`: scores what the run at `out` does not hold yet, and opens it for analysis.

    `checkpoints` maps names to MODELs, or to globs such as `out/checkpoint-*`, whose folders become
    a series with steps. `settings` are fields of `Settings`, as top_k=32, dtype="bfloat16".
    """
    from diagnostics.scoring.checkpoints import parse_checkpoints
    from diagnostics.scoring.rescore import rescore as score
    from diagnostics.scoring.task import Settings

    contexts = read_bank(bank) if isinstance(bank, Path | str) else bank
    models = parse_checkpoints([f"{key}={model}" for key, model in checkpoints.items()])
    score(contexts, teacher, student, models, Path(out), Settings(**settings), name=name)
    return open_run(Path(out))


def write_report(runs: OpenedRun | Sequence[OpenedRun], out: Place, **settings: Any) -> Path:
    """`report`: tables, figures and the page of runs, in the folder `out`; the page's path.

    `settings` are the fields of `ReportSettings`, as draws=2000, seed=0.
    """
    from diagnostics.report import write
    from diagnostics.report.contexts.analysis import ReportSettings

    opened = [runs] if isinstance(runs, OpenedRun) else runs
    return write.write_report([one.run for one in opened], Path(out), ReportSettings(**settings))


def style_file() -> Path:
    """The matplotlib style of our figures, for `plt.style.use`."""
    from diagnostics.report import figures

    return figures.style_file()
