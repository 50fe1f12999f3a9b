"""`make reports`: everything in reports/ from banks/ and what is stored, as one readable script.

    banks/demo.parquet, demo-checkpoints     -> run -> reports/demo
    that run, and two more banks with theirs -> reports/paper, with the interventions' chapter:
                                                all 13 tables and 5 figures of the paper
    reports/interventions/results.json       -> its tables, figures and page
    banks/demo.parquet                       -> reports/alignment

Runs lie in build/runs and are scored once. Not covered: the interventions' trainings, which are
`diagnostics intervene` (51 minutes); their stored numbers are drawn and written anew. A bank that
is missing is sampled again, which on other numbers of threads gives other rollouts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diagnostics.alignment.align import align
from diagnostics.alignment.measure import AlignSettings
from diagnostics.bank.build import build_bank
from diagnostics.bank.contexts import read_bank
from diagnostics.bank.sample import Sampling
from diagnostics.demo import ARMS, DEFAULT_BANK, DEFAULT_CHECKPOINTS, DEFAULT_OUT
from diagnostics.embedded.pair import STUDENT, TEACHER, as_model
from diagnostics.embedded.prompts import write_prompts
from diagnostics.progress import say
from diagnostics.report.alignment import write_alignment
from diagnostics.report.chapters import read_record
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.sources import parts_of
from diagnostics.report.write import write_chapters
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.task import Settings

RUNS = Path("build/runs")
INTERVENTIONS, ALIGNMENT = Path("reports/interventions"), Path("reports/alignment")
WHOLE = Path("reports/paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A bank and what is rescored on it.

    Fields: `name` of the run; `bank`; `checkpoints` of the demonstration; `prompts` and
    `prompt_seed` of held-out problems, `sampling`: how it was made, where it is missing.
    """

    name: str
    bank: Path
    checkpoints: tuple[str, ...]
    prompts: int
    prompt_seed: int
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=192))


SETTINGS = (
    Setting(
        name="demo",
        bank=DEFAULT_BANK,
        checkpoints=tuple(name for name, _, _ in ARMS),
        prompts=300,
        prompt_seed=10,
    ),
    Setting(
        name="other prompts",
        bank=Path("banks/other-prompts.parquet"),
        checkpoints=("full",),
        prompts=100,
        prompt_seed=20,
    ),
    Setting(
        name="temperature 0.7",
        bank=Path("banks/temperature-07.parquet"),
        checkpoints=("full",),
        prompts=50,
        prompt_seed=21,
        sampling=Sampling(max_new_tokens=192, temperature=0.7, samples_per_prompt=2),
    ),
)


def main() -> None:
    """Rebuilds every folder of reports/."""
    runs = [str(scored(setting)) for setting in SETTINGS]
    say(f"report: {DEFAULT_OUT}")
    report(runs[:1], DEFAULT_OUT)
    say(f"report: {INTERVENTIONS}, from its stored numbers")
    write_chapters(read_record(INTERVENTIONS), INTERVENTIONS)
    say(f"report: {WHOLE}, every table and figure of the paper")
    report([*runs, str(INTERVENTIONS)], WHOLE)
    say(f"report: {ALIGNMENT}")
    align_demo(ALIGNMENT)


def scored(setting: Setting) -> Path:
    """The run of a setting, scored where it is not there yet."""
    out = RUNS / setting.bank.stem
    student, teacher = as_model(STUDENT), as_model(TEACHER)
    if not setting.bank.is_file():
        prompts = out.with_suffix(".jsonl")
        write_prompts(prompts, setting.prompt_seed, setting.prompts, held_out=True)
        build_bank(student, str(prompts), setting.bank, setting.sampling)
    models = {name: str(DEFAULT_CHECKPOINTS / name) for name in setting.checkpoints}
    say(f"run: {setting.name}")
    bank = read_bank(setting.bank)
    return rescore(bank, teacher, student, models, out, Settings(), name=setting.name).folder


def report(given: list[str], out: Path) -> None:
    """The report of runs and stored reports."""
    parts = parts_of(given, ReportSettings())
    write_chapters(parts.chapters, out, viewers=parts.viewers)


def align_demo(out: Path) -> None:
    """Proposition 1 on the demonstration's bank."""
    bank = read_bank(DEFAULT_BANK)
    found = align(bank, as_model(TEACHER), as_model(STUDENT), out, AlignSettings())
    write_alignment(out, found.positions, found.tables, found.record)


if __name__ == "__main__":
    main()
