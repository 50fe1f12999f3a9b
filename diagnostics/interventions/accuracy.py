"""Answers of an experiment's arms on the embedded pair, as the paper's downstream tables.

The first training seed's arms and theta_0 answer the same held-out problems, five times each
(`embedded.evaluate`). An arm's answers are kept in its folder, so that they are asked once.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diagnostics.downstream.records import Arm, check_records
from diagnostics.downstream.tables import downstream_tables
from diagnostics.embedded.evaluate import BASE_ARM, SETTING, embedded_scores
from diagnostics.embedded.pair import STUDENT
from diagnostics.files import write_text
from diagnostics.interventions.experiment import (
    ANSWERS_FILE,
    Experiment,
    Say,
    arm_folder,
    is_trained,
)
from diagnostics.interventions.processes import in_processes
from diagnostics.report.chapters import Sheet
from diagnostics.report.downstream import downstream_sheets

BUDGET = 0.05


def answer_tables(
    experiment: Experiment, out: Path, *, sheets: int, workers: int, say: Say
) -> list[Sheet]:
    """Tables 3, 4, 11, 12 and 13 of the arms of the first seed, with how they are shown.

    Each model answers the first held-out `sheets`.
    """
    first = min(arm.seed for arm in experiment.arms)
    arms = [arm for arm in experiment.arms if arm.seed == first and is_trained(out, arm)]
    jobs = [(BASE_ARM, STUDENT, sheets, out / "arms" / ANSWERS_FILE)]
    for arm in arms:
        whose = Arm(setting=SETTING, selector=arm.selector, budget=arm.budget)
        folder = arm_folder(out, arm)
        jobs.append((whose, folder, sheets, folder / ANSWERS_FILE))
    waiting = [job for job in jobs if not job[-1].is_file()]
    say(f"answers: {len(waiting)} models, {sheets} sheets, 5 times each")
    for _ in in_processes(_answer, waiting, workers):
        pass
    parts = [pd.read_csv(file, keep_default_na=False, na_values=[""]) for *_, file in jobs]
    records = pd.concat(parts, ignore_index=True)
    records["category"] = records["category"].fillna("")
    return list(downstream_sheets(downstream_tables(check_records(records), budget=BUDGET)))


def _answer(arm: Arm, folder: Path, sheets: int, file: Path) -> None:
    write_text(file, embedded_scores(folder, count=sheets, arm=arm).to_csv(index=False))
