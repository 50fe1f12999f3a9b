"""An experiment: masks x budgets x seeds -> trained arms -> one run over one bank -> report.

    OUT/experiment.json            what it is made of; the same command goes on, another is refused
    OUT/arms/NAME/                 an arm's checkpoint, settings and log; or failed.json
    OUT/run/                       all arms rescored on the bank
    OUT/tables, figures, report    what they did

An arm whose weights are there is done, and a half-trained one goes on from its last state; records
alone, as a repository keeps them, are made anew. Several
arms train at a time in processes of their own (`workers`). An arm that is refused while it trains,
as one whose loss is not finite, is set aside with its reason and reported; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diagnostics.bank.contexts import Bank, read_bank
from diagnostics.bank.prompts import read_prompts
from diagnostics.errors import InputError
from diagnostics.files import read_json, write_json
from diagnostics.interventions.masks import ArmPlan
from diagnostics.interventions.processes import in_processes
from diagnostics.models.files import open_model
from diagnostics.scoring.parts import rank_and_world
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import Run
from diagnostics.scoring.task import Settings
from diagnostics.statistics.analyses.interventions import Arm
from diagnostics.training.distill import LOG_FILE, distill, read_log
from diagnostics.training.settings import (
    SETTINGS_FILE,
    TrainSettings,
    check_pair,
    check_settings,
    check_teacher,
)

PLAN_FILE, FAILED_FILE = "experiment.json", "failed.json"
ANSWERS_FILE = "answers.csv"
RECORDS = (SETTINGS_FILE, LOG_FILE, ANSWERS_FILE)  # what is kept of an arm without its weights
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What is trained on what.

    Fields: `student`, `teacher` MODELs; `bank` path; `prompts` source of the training prompts;
    `arms`; `settings` of every arm, whose selector, budget and seed are the arm's; `top_k` stored
    by the run.
    """

    student: str
    teacher: str
    bank: str
    prompts: str
    arms: tuple[ArmPlan, ...]
    settings: TrainSettings
    top_k: int = 32

    def arm_settings(self, arm: ArmPlan) -> TrainSettings:
        """The settings of one arm."""
        return replace(self.settings, selector=arm.selector, budget=arm.budget, seed=arm.seed)


def train_arms(experiment: Experiment, out: Path, *, workers: int, say: Say) -> None:
    """Trains the arms that are not done. Raises InputError, before any model is loaded, for what
    no arm could be trained with."""
    check(experiment, out)
    waiting = [arm for arm in experiment.arms if not _done(out, arm)]
    started, total = time.monotonic(), len(waiting)
    if len(experiment.arms) > total:
        say(f"{len(experiment.arms) - total} of {len(experiment.arms)} arms are done already")
    for count, (arm, seconds) in enumerate(_train(experiment, out, waiting, workers), 1):
        left = (time.monotonic() - started) / count * (total - count)
        rest = f"{seconds:.0f} s; about {left / 60:.0f} min left"
        say(f"  {count} of {total} arms: {arm.name}, {rest}")


def rescore_arms(experiment: Experiment, out: Path) -> Run:
    """One run of all trained arms over the bank; what was scored is not scored again."""
    trained = {
        arm.name: str(arm_folder(out, arm)) for arm in experiment.arms if is_trained(out, arm)
    }
    if not trained:
        raise InputError(
            where=str(out),
            expected="at least one trained arm",
            got=f"{len(failures(experiment, out))} that failed",
            fix="see failed.json in their folders",
        )
    options = experiment.settings
    settings = Settings(top_k=experiment.top_k, dtype=options.dtype, device=options.device)
    bank = read_bank(Path(experiment.bank))
    return rescore(
        bank, experiment.teacher, experiment.student, trained, out / "run", settings, name=out.name
    )


def trained_arms(experiment: Experiment, out: Path) -> list[Arm]:
    """What is known of each trained arm from its log."""
    return [_arm(out, arm) for arm in experiment.arms if is_trained(out, arm)]


def failures(experiment: Experiment, out: Path) -> dict[str, str]:
    """Why arms failed, by name."""
    files = {arm.name: arm_folder(out, arm) / FAILED_FILE for arm in experiment.arms}
    return {name: read_json(f)["reason"] for name, f in files.items() if f.is_file()}


def check(experiment: Experiment, out: Path) -> None:
    """Refuses an experiment that cannot be done, and another one in `out`; loads no weights."""
    check_teacher(experiment.teacher, [arm.selector for arm in experiment.arms])
    student, teacher = open_model(experiment.student), open_model(experiment.teacher)
    check_pair(student, teacher)
    prompts = read_prompts(experiment.prompts)
    for arm in experiment.arms:
        check_settings(student, prompts, experiment.arm_settings(arm))
    bank: Bank = read_bank(Path(experiment.bank))
    record = {
        "student": student.fingerprint,
        "teacher": teacher.fingerprint,
        "bank": bank.digest,
        "prompts": experiment.prompts,
        "settings": replace(experiment.settings, seed=0).as_json(),
    }
    begun = out / PLAN_FILE
    if begun.is_file():
        before = read_json(begun)
        changed = [key for key, value in record.items() if before.get(key) != value]
        if changed:
            raise InputError(
                where=str(begun),
                expected="the experiment that was begun in this folder",
                got=f"another: {', '.join(changed)} changed",
                fix="choose another --out, or delete the folder",
            )
    if rank_and_world()[0] == 0:
        write_json(begun, record | {"arms": [asdict(arm) for arm in experiment.arms]})


def _train(
    experiment: Experiment, out: Path, waiting: Sequence[ArmPlan], workers: int
) -> Iterator[tuple[ArmPlan, float]]:
    """Trains arms, `workers` at a time; yields each with its seconds as it is done."""
    alone = rank_and_world()[1] > 1
    jobs = [(experiment, out, arm) for arm in waiting]
    for (_, _, arm), seconds in in_processes(_train_one, jobs, 1 if alone else workers):
        yield arm, seconds


def _train_one(experiment: Experiment, out: Path, arm: ArmPlan) -> float:
    """Trains one arm in this process; a refusal during training is kept beside the others."""
    folder, started = arm_folder(out, arm), time.monotonic()
    for name in RECORDS:
        (folder / name).unlink(missing_ok=True)
    try:
        distill(
            open_model(experiment.student),
            open_model(experiment.teacher),
            read_prompts(experiment.prompts),
            experiment.arm_settings(arm),
            folder,
        )
    except InputError as error:
        write_json(folder / FAILED_FILE, asdict(arm) | {"reason": str(error)})
    return time.monotonic() - started


def arm_folder(out: Path, arm: ArmPlan) -> Path:
    """Where an arm's checkpoint, settings and log lie."""
    return out / "arms" / arm.name


def is_trained(out: Path, arm: ArmPlan) -> bool:
    """Whether an arm's checkpoint is there, weights and all."""
    folder = arm_folder(out, arm)
    return (folder / LOG_FILE).is_file() and any(folder.glob("*.safetensors"))


def _done(out: Path, arm: ArmPlan) -> bool:
    return is_trained(out, arm) or (arm_folder(out, arm) / FAILED_FILE).is_file()


def _arm(out: Path, arm: ArmPlan) -> Arm:
    log = read_log(arm_folder(out, arm))
    steps = [entry for entry in log if "keep" in entry]
    return Arm(
        checkpoint=arm.name,
        selector=arm.selector,
        budget=arm.budget,
        seed=arm.seed,
        keep=sum(entry["keep"] for entry in steps) / len(steps),
        held_out_kl=log[-1]["held_out_kl"],
        skipped=int(sum(entry["skipped"] for entry in steps)),
        q3_share=_mean([entry["q3"] for entry in steps if entry["keep"]]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
