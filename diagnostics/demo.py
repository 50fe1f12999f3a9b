"""`diagnostics demo`: the whole protocol on the embedded pair, as one readable script.

    held-out prompts -> bank (300 rollouts x 192 positions of the student)
    training prompts -> three masked distillations: full, teachability 5 %, random 5 %
    bank + teacher + theta_0 + three checkpoints -> run -> report

`--quick` does the same with 30 contexts and fewer, smaller steps. What it makes lies under the
report's folder, and is made anew each time.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diagnostics.bank.build import build_bank
from diagnostics.bank.prompts import read_prompts
from diagnostics.bank.sample import Sampling
from diagnostics.embedded.pair import STUDENT, TEACHER, as_model
from diagnostics.embedded.prompts import write_prompts
from diagnostics.errors import InputError
from diagnostics.files import write_text
from diagnostics.models.files import open_model
from diagnostics.progress import say
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.write import write_report
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.task import Settings
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.training.distill import distill
from diagnostics.training.settings import TrainSettings

DEFAULT_OUT = Path("reports/demo")
DEFAULT_BANK = Path("banks/demo.parquet")
DEFAULT_CHECKPOINTS = Path("banks/demo-checkpoints")
PROMPT_SEED, TRAINING_SEED = 10, 11
LEARNING_RATE = 3e-4  # 1e-3 makes the held-out KL rise again (docs/log.md)
MARKER = "made-by-demo.txt"
OWN = ("checkpoints", "prompts", "run", "bank.parquet")
ARMS: tuple[tuple[str, Selector, float], ...] = (
    ("full", "full", 1.0),
    ("teachability-05", "teachability", 0.05),
    ("random-05", "random", 0.05),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a demonstration is."""

    contexts: int
    positions: int
    steps: int
    rollouts_per_step: int
    training_prompts: int


FULL = Size(contexts=300, positions=192, steps=40, rollouts_per_step=16, training_prompts=736)
QUICK = Size(contexts=30, positions=192, steps=4, rollouts_per_step=16, training_prompts=80)


def run_demo(out: Path, *, quick: bool = False, seed: int = 0) -> Path:
    """Runs the protocol into `out` and returns the page's path.

    Raises InputError when `out` holds files that no demonstration made.
    """
    size = QUICK if quick else FULL
    student, teacher = as_model(STUDENT), as_model(TEACHER)
    _clear(out)
    committed = out == DEFAULT_OUT and not quick
    bank_file = DEFAULT_BANK if committed else out / "bank.parquet"
    trained = DEFAULT_CHECKPOINTS if committed else out / "checkpoints"
    shutil.rmtree(trained, ignore_errors=True)
    write_prompts(out / "prompts" / "bank.jsonl", PROMPT_SEED, size.contexts, held_out=True)
    write_prompts(out / "prompts" / "training.jsonl", TRAINING_SEED, size.training_prompts)
    with _step(f"bank: {size.contexts} rollouts of the student"):
        sampling = Sampling(max_new_tokens=size.positions, seed=seed)
        bank = build_bank(student, str(out / "prompts" / "bank.jsonl"), bank_file, sampling)
    prompts = read_prompts(str(out / "prompts" / "training.jsonl"))
    checkpoints = {}
    for name, selector, budget in ARMS:
        with _step(f"training: {selector}, {budget:.0%} of positions, {size.steps} steps"):
            folder = trained / name
            settings = TrainSettings(
                selector=selector,
                budget=budget,
                steps=size.steps,
                rollouts_per_step=size.rollouts_per_step,
                max_new_tokens=size.positions,
                learning_rate=LEARNING_RATE,
                held_out_every=10,
                seed=seed,
            )
            log = distill(open_model(student), open_model(teacher), prompts, settings, folder)
            checkpoints[name] = str(_without_tokenizer(folder))
            say(f"  held-out KL {log[0]['held_out_kl']:.4f} -> {log[-1]['held_out_kl']:.4f} nats")
    with _step("rescoring: teacher, theta_0 and three checkpoints"):
        run = rescore(bank, teacher, student, checkpoints, out / "run", Settings(), name="demo")
    with _step("report"):
        return write_report([run], out, ReportSettings(seed=seed))


def _clear(out: Path) -> None:
    """Removes what an earlier demonstration left; refuses a folder of something else."""
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise InputError(
            where=str(out),
            expected="a new or empty folder, or an earlier demo's",
            got="other files",
            fix="choose another --out",
        )
    write_text(out / MARKER, "Made by `diagnostics demo`, and made anew by the next one.\n")
    for name in OWN:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _without_tokenizer(folder: Path) -> Path:
    """A checkpoint without its copy of the student's tokenizer, so that reports stay small."""
    for file in [*folder.glob("tokenizer*"), *folder.glob("chat_template*")]:
        file.unlink()
    return folder


@contextmanager
def _step(title: str) -> Iterator[None]:
    """Says what begins, then how long it took and the process's peak memory so far."""
    say(title)
    started = time.monotonic()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"  {time.monotonic() - started:.0f} s, peak memory so far {peak:.0f} MB")
