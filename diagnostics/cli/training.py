"""Commands that train: one arm, or masks x budgets x seeds."""

# Imports inside functions are deliberate here: torch takes seconds to import.
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diagnostics.cli.options import (
    Device,
    DtypeName,
    Formats,
    HeldOut,
    LearningRate,
    MicroBatch,
    Model,
    NewTokens,
    PromptColumn,
    Prompts,
    RolloutsPerStep,
    Seed,
    Steps,
    Support,
    Temperature,
    TrlOptions,
)

app = typer.Typer()


@app.command()
def train(
    student: Model,
    teacher: Model,
    prompts: Prompts,
    selector: Annotated[
        str, typer.Option(help="Which positions carry loss; another word lists all.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    budget: Annotated[float, typer.Option(help="Share of positions kept, as 0.05.")] = 1.0,
    loss: Annotated[
        str, typer.Option(help="reverse_kl (whole vocabulary) or sampled_token.")
    ] = "reverse_kl",
    steps: Steps = 30,
    rollouts_per_step: RolloutsPerStep = 32,
    micro_batch: MicroBatch = None,
    max_new_tokens: NewTokens = 192,
    temperature: Temperature = 1.0,
    one_per_rollout: Annotated[
        bool, typer.Option(help="Keep a position of each rollout, as the public scripts do.")
    ] = False,
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between states to resume from.")
    ] = 50,
    lora_rank: Annotated[
        int | None, typer.Option(min=1, help="Train a LoRA adapter of this rank.")
    ] = None,
    trl: TrlOptions = None,
    learning_rate: LearningRate = 1e-3,
    top_k: Support = 16,
    held_out: HeldOut = 16,
    seed: Seed = 0,
    num_prompts: Annotated[
        int | None, typer.Option(min=1, help="First so many; default: all.")
    ] = None,
    prompt_column: PromptColumn = "prompt",
    device: Device = "auto",
    dtype: DtypeName = "float32",
) -> None:
    """Masked on-policy distillation: one arm; run again it goes on from its last saved state."""
    from diagnostics.bank.prompts import read_prompts
    from diagnostics.models.files import open_model
    from diagnostics.models.weights import resolve_device, resolve_dtype
    from diagnostics.statistics.selection.selectors import check_budget, check_selector
    from diagnostics.training.distill import distill
    from diagnostics.training.settings import (
        TrainSettings,
        check_loss,
        check_teacher,
        parse_options,
    )

    check_budget(budget)
    check_teacher(teacher, [check_selector(selector)])
    chosen = resolve_device(device)
    settings = TrainSettings(
        selector=check_selector(selector),
        budget=budget,
        loss=check_loss(loss),
        steps=steps,
        rollouts_per_step=rollouts_per_step,
        micro_batch=micro_batch,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        learning_rate=learning_rate,
        top_k=top_k,
        one_per_rollout=one_per_rollout,
        seed=seed,
        held_out=held_out,
        save_every=save_every,
        lora_rank=lora_rank,
        device=chosen,
        dtype=resolve_dtype(dtype, chosen),
        trl=parse_options(trl or []),
    )
    log = distill(
        open_model(student),
        open_model(teacher),
        read_prompts(prompts, column=prompt_column, limit=num_prompts),
        settings,
        out,
    )
    first, last = log[0]["held_out_kl"], log[-1]["held_out_kl"]
    typer.echo(f"{out}: held-out KL {first:.4f} -> {last:.4f} nats in {steps} steps")


@app.command()
def intervene(
    out: Annotated[
        Path, typer.Option(help="Folder of arms, run and report; an existing one goes on.")
    ] = Path("reports/interventions"),
    student: Annotated[str | None, typer.Option(help="A model folder or Hub id.")] = None,
    teacher: Annotated[str | None, typer.Option(help="A model folder or Hub id.")] = None,
    bank: Annotated[Path | None, typer.Option(help="The bank that arms are rescored on.")] = None,
    prompts: Annotated[str | None, typer.Option(help="Training prompts, as for `train`.")] = None,
    masks: Annotated[
        str, typer.Option("--set", help="table2, table7, table10 or paper: all three.")
    ] = "paper",
    selector: Annotated[
        list[str] | None, typer.Option(help="Instead of a set, as often as needed.")
    ] = None,
    budget: Annotated[
        list[float] | None, typer.Option(help="Budgets of these selectors, as 0.05.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every mask: 0, 1, …")] = 3,
    quick: Annotated[
        bool, typer.Option(help="Embedded pair: a few masks in a few minutes.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Arms trained at a time; default: a core each on CPU.")
    ] = None,
    steps: Steps = 30,
    rollouts_per_step: RolloutsPerStep = 32,
    micro_batch: MicroBatch = None,
    max_new_tokens: NewTokens = 192,
    learning_rate: LearningRate = 1e-3,
    held_out: HeldOut = 16,
    top_k: Support = 16,
    draws: Annotated[int, typer.Option(min=100, help="Bootstrap draws of the report.")] = 2000,
    device: Device = "auto",
    dtype: DtypeName = "float32",
    trl: TrlOptions = None,
    formats: Formats = None,
) -> None:
    """Train masks x budgets x seeds, rescore them on one bank, report what each mask did.

    Without models: the embedded pair. Run again it goes on where it was.
    """
    from diagnostics.interventions.embedded import run_embedded
    from diagnostics.report.tables.formats import check_formats

    chosen_formats = check_formats(formats)
    given = (student, teacher, bank, prompts)
    if not any(given):
        page = run_embedded(out, quick=quick, workers=workers, formats=chosen_formats)
        typer.echo(f"Report: {page}")
        return
    if student is None or teacher is None or bank is None or prompts is None or quick:
        raise typer.BadParameter(
            "give --student, --teacher, --bank and --prompts (and no --quick), or none of them"
        )
    from diagnostics.interventions.experiment import Experiment
    from diagnostics.interventions.masks import arms, named_set, product
    from diagnostics.interventions.processes import default_workers
    from diagnostics.interventions.report import run_experiment
    from diagnostics.models.weights import resolve_device, resolve_dtype
    from diagnostics.progress import say
    from diagnostics.report.contexts.analysis import ReportSettings
    from diagnostics.training.settings import TrainSettings, parse_options

    chosen = resolve_device(device)
    wanted = product(selector or [], budget or []) if selector or budget else named_set(masks)
    settings = TrainSettings(
        steps=steps,
        rollouts_per_step=rollouts_per_step,
        micro_batch=micro_batch,
        max_new_tokens=max_new_tokens,
        learning_rate=learning_rate,
        held_out=held_out,
        top_k=top_k,
        device=chosen,
        dtype=resolve_dtype(dtype, chosen),
        trl=parse_options(trl or []),
    )
    experiment = Experiment(
        student=student,
        teacher=teacher,
        bank=str(bank),
        prompts=prompts,
        arms=tuple(arms(wanted, range(seeds))),
        settings=settings,
    )
    page = run_experiment(
        experiment,
        out,
        ReportSettings(top_k=top_k, draws=draws),
        workers=workers or default_workers(chosen),
        say=say,
        formats=chosen_formats,
    )
    typer.echo(f"Report: {page}")
