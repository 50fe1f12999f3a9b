"""`diagnostics intervene` without models: the paper's interventions on the embedded pair.

All of tables 2, 7 and 10 (10 selectors x 2 budgets x 3 seeds, the Q3 masks and the sweep) over the
demonstration's bank, answers to held-out problems included. `--quick` does a few masks on a bank of
its own in a few minutes. What the arms share was chosen on the held-out KL (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diagnostics.bank.build import build_bank
from diagnostics.bank.sample import Sampling
from diagnostics.embedded.pair import STUDENT, TEACHER, as_model
from diagnostics.embedded.prompts import write_prompts
from diagnostics.interventions.accuracy import answer_tables
from diagnostics.interventions.experiment import Experiment
from diagnostics.interventions.masks import TABLE7, ArmPlan, arms, named_set, product
from diagnostics.interventions.processes import default_workers
from diagnostics.interventions.report import run_experiment
from diagnostics.progress import say
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.tables.formats import DEFAULT_FORMATS, Format
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.training.settings import TrainSettings

DEFAULT_OUT = Path("reports/interventions")
BANK_SEED, TRAINING_SEED, POSITIONS = 10, 11, 192
LEARNING_RATE = 3e-4
QUICK_MASKS = (
    "teachability",
    "kl",
    "random",
    "q3+high-dl",
    "q3+low-dl",
    "q3+high-di",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the experiment on the embedded pair is."""

    contexts: int
    steps: int
    rollouts_per_step: int
    training_prompts: int
    sheets: int
    masks: tuple[ArmPlan, ...]


RARE: tuple[tuple[Selector, float], ...] = tuple(
    (name, 0.004) for name in (*TABLE7, "random")
)  # Q3 is about 1 % of this pair's positions: at 3 % every Q3 mask keeps all of it
FULL = Size(
    contexts=300,
    steps=12,
    rollouts_per_step=12,
    training_prompts=736,
    sheets=20,
    masks=tuple(arms([*named_set("table2"), *RARE, *named_set("table10")], range(3))),
)
QUICK = Size(
    contexts=30,
    steps=4,
    rollouts_per_step=16,
    training_prompts=80,
    sheets=6,
    masks=tuple(arms(product(QUICK_MASKS, [0.05]), range(2))),
)


def run_embedded(
    out: Path,
    *,
    quick: bool = False,
    workers: int | None = None,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> Path:
    """Runs the experiment in `out`, or goes on with it, and returns the page's path."""
    size = QUICK if quick else FULL
    bank, prompts = out / "prompts" / "bank.jsonl", out / "prompts" / "training.jsonl"
    write_prompts(bank, BANK_SEED, size.contexts, held_out=True)
    write_prompts(prompts, TRAINING_SEED, size.training_prompts)
    student, teacher = as_model(STUDENT), as_model(TEACHER)
    if not (out / "bank.parquet").is_file():
        say(f"bank: {size.contexts} rollouts of the student")
        build_bank(student, str(bank), out / "bank.parquet", Sampling(max_new_tokens=POSITIONS))
    experiment = Experiment(
        student=student,
        teacher=teacher,
        bank=str(out / "bank.parquet"),
        prompts=str(prompts),
        arms=size.masks,
        settings=TrainSettings(
            steps=size.steps,
            rollouts_per_step=size.rollouts_per_step,
            max_new_tokens=POSITIONS,
            learning_rate=LEARNING_RATE,
            held_out=8,
        ),
    )
    workers = workers or default_workers("cpu")
    return run_experiment(
        experiment,
        out,
        ReportSettings(),
        workers=workers,
        say=say,
        extra=partial(answer_tables, experiment, out, sheets=size.sheets, workers=workers, say=say),
        formats=formats,
    )
