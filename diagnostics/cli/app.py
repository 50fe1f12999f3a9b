"""The console command `diagnostics` (CONTRACT, "Commands").

Commands only unpack and pass on. Exit status 0: done; 1: bad input, one line on stderr; 2: wrong
usage. Heavy imports are inside the commands, so that `--help` is quick.
"""

# Imports inside functions are deliberate here: torch takes seconds to import.
from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.errors import InputError

app = typer.Typer(
    help="Fixed-context diagnostics: which teacher signals can a student learn?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
bank_app = typer.Typer(help="Banks of frozen rollouts.", no_args_is_help=True)
app.add_typer(bank_app, name="bank")

Model = Annotated[str, typer.Option(help="A model folder or Hub id (owner/name@revision).")]
Teacher = Annotated[
    str,
    typer.Option(help="A model folder or Hub id, topk:FILE.parquet, or http://host:port/v1#model."),
]
Prompts = Annotated[str, typer.Option(help="JSONL, CSV or Parquet file, or a Hub dataset.")]
PromptColumn = Annotated[str, typer.Option(help="The column that holds the prompt.")]
Seed = Annotated[int, typer.Option(min=0, help="Every random choice follows from it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
DtypeName = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Temperature = Annotated[float, typer.Option(min=0.01, help="Sampling temperature.")]
DefinitionSet = Annotated[
    str, typer.Option(help="paper or released; +leakage takes H and C of the checkpoint.")
]
NewTokens = Annotated[int, typer.Option(min=1, help="Longest response.")]

Steps = Annotated[int, typer.Option(min=1, help="Optimizer steps of an arm.")]
RolloutsPerStep = Annotated[int, typer.Option(min=1, help="Fresh rollouts a step.")]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Of those in one forward pass of a rank.")
]
LearningRate = Annotated[float, typer.Option(min=0.0, help="AdamW step size.")]
HeldOut = Annotated[int, typer.Option(min=1, help="Prompts set aside for held-out KL.")]
Support = Annotated[int, typer.Option(min=1, help="Support size K of D and C.")]
TrlOptions = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE of TRL's DistillationConfig, as use_vllm=true."),
]


def main() -> None:
    """Runs the command line; a user's mistake ends in one line and exit status 1."""
    try:
        app()
    except InputError as error:
        print(f"diagnostics: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports/demo"),
    quick: Annotated[bool, typer.Option(help="30 contexts and short training.")] = False,
    seed: Seed = 0,
) -> None:
    """The whole protocol at the paper's size on the embedded pair.

    The bank goes to banks/demo.parquet when --out is left alone, else into --out.
    """
    from diagnostics.demo import run_demo

    page = run_demo(out, quick=quick, seed=seed)
    typer.echo(f"Report: {page}")


@bank_app.command("build")
def bank_build(
    student: Model,
    prompts: Prompts,
    out: Annotated[Path, typer.Option(help="The bank, a Parquet file.")],
    num_prompts: Annotated[
        int | None, typer.Option(min=1, help="First so many; default: all.")
    ] = None,
    samples_per_prompt: Annotated[int, typer.Option(min=1, help="Rollouts of each prompt.")] = 1,
    max_new_tokens: NewTokens = 192,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    prompt_column: PromptColumn = "prompt",
    batch: Annotated[int, typer.Option(min=1, help="Rollouts sampled together.")] = 100,
    device: Device = "auto",
    dtype: DtypeName = "auto",
) -> None:
    """Sample rollouts of the student and freeze them."""
    from diagnostics.bank.build import build_bank
    from diagnostics.bank.sample import Sampling
    from diagnostics.models.weights import resolve_device, resolve_dtype

    chosen = resolve_device(device)
    bank = build_bank(
        student,
        prompts,
        out,
        Sampling(
            samples_per_prompt=samples_per_prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch=batch,
        ),
        num_prompts=num_prompts,
        prompt_column=prompt_column,
        device=chosen,
        dtype=resolve_dtype(dtype, chosen),
    )
    typer.echo(f"{out}: {len(bank)} contexts, digest {bank.digest[:12]}")


@bank_app.command("check")
def bank_check(
    bank: Annotated[Path, typer.Argument(help="A bank: a Parquet file or a folder of them.")],
) -> None:
    """Check schema, digest, identities, ids within the vocabulary, and masks."""
    from diagnostics.bank.contexts import check_ids, read_bank

    found = read_bank(bank)
    check_ids(found, found.info.vocabulary, str(bank))
    typer.echo(f"{bank}: {len(found)} contexts, digest {found.digest[:12]}: sound")


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
) -> None:
    """Train masks x budgets x seeds, rescore them on one bank, report what each mask did.

    Without models: the embedded pair. Run again it goes on where it was.
    """
    from diagnostics.interventions.embedded import run_embedded

    given = (student, teacher, bank, prompts)
    if not any(given):
        page = run_embedded(out, quick=quick, workers=workers)
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
    from diagnostics.report.analysis import ReportSettings
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
    )
    typer.echo(f"Report: {page}")


@app.command()
def rescore(
    bank: Annotated[Path, typer.Argument(help="A bank: a Parquet file or a folder of them.")],
    teacher: Teacher,
    student: Model,
    out: Annotated[Path, typer.Option(help="Folder of the run; an existing one goes on.")],
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="NAME=MODEL or NAME=GLOB, as often as needed.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="How reports call the run.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Largest support size to store.")] = 32,
    device: Device = "auto",
    dtype: DtypeName = "auto",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens in a forward pass.")] = 8192,
    device_map: Annotated[
        str | None, typer.Option(help="auto: spread a model over several devices.")
    ] = None,
    kernel: Annotated[str, typer.Option(help="auto, compiled (numba) or plain (torch).")] = "auto",
    noise_dtype: Annotated[
        list[str] | None, typer.Option(help="Score theta_0 in this dtype too: its noise floor.")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key of a teacher's server.")
    ] = "OPENAI_API_KEY",
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Score on so many workers of a Ray.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="The Ray cluster; default: one on this machine.")
    ] = None,
) -> None:
    """Score a bank with teacher, theta_0 and checkpoints; run again to resume or to add."""
    from diagnostics.bank.contexts import read_bank
    from diagnostics.models.weights import resolve_device, resolve_dtype
    from diagnostics.scoring.checkpoints import parse_checkpoints
    from diagnostics.scoring.parts import rank_and_world
    from diagnostics.scoring.reduce import check_kernel
    from diagnostics.scoring.rescore import rescore as score
    from diagnostics.scoring.task import Settings

    chosen = device if ray_workers and device != "auto" else resolve_device(device)
    settings = Settings(
        top_k=top_k,
        dtype=resolve_dtype(dtype, chosen),
        device=chosen,
        device_map=device_map,
        batch_tokens=batch_tokens,
        kernel=check_kernel(kernel),
        noise_dtypes=tuple(resolve_dtype(word, chosen) for word in noise_dtype or []),
        key_variable=api_key_env,
    )
    models = parse_checkpoints(checkpoint or [])
    runner = None
    if ray_workers:
        from diagnostics.scoring.cluster import OnRay

        runner = partial(OnRay, workers=ray_workers, address=ray_address)
    run = score(read_bank(bank), teacher, student, models, out, settings, name=name, runner=runner)
    scored = ", ".join(run.checkpoints) or "no checkpoints yet"
    if rank_and_world()[0] == 0:
        typer.echo(f"{out}: {run.manifest['bank']['contexts']} contexts; {scored}")


@app.command("align")
def align_bank(
    bank: Annotated[Path, typer.Argument(help="A bank: a Parquet file or a folder of them.")],
    teacher: Model,
    student: Model,
    out: Annotated[Path, typer.Option(help="Folder of tables, figure and the run they rest on.")],
    top_k: Support = 16,
    step_size: Annotated[
        float | None, typer.Option(help="Learning rate of the steps; default: 0.1 % of the loss.")
    ] = None,
    budget: Annotated[float, typer.Option(help="Share that selectors keep, as 0.05.")] = 0.05,
    pairs: Annotated[int, typer.Option(min=1, help="Positions that Prop. 1 is tried at.")] = 32,
    pair_contexts: Annotated[
        int, typer.Option(min=1, help="Contexts of the loss that their steps reduce.")
    ] = 20,
    draws: Annotated[int, typer.Option(min=100, help="Bootstrap draws.")] = 2000,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32 or float64; auto: float64 for small students.")
    ] = "auto",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens in a pass.")] = 8192,
) -> None:
    """How each token's gradient stands to the bank's (Proposition 1)."""
    from diagnostics.alignment.align import align
    from diagnostics.alignment.measure import AlignSettings
    from diagnostics.alignment.precision import check_precision
    from diagnostics.bank.contexts import read_bank
    from diagnostics.models.weights import resolve_device
    from diagnostics.report.alignment import write_alignment

    settings = AlignSettings(
        top_k=top_k,
        step_size=step_size,
        precision=check_precision(dtype),
        batch_tokens=batch_tokens,
        device=resolve_device(device),
        pairs=pairs,
        pair_contexts=pair_contexts,
        budget=budget,
        draws=draws,
        seed=seed,
    )
    found = align(read_bank(bank), teacher, student, out, settings)
    page = write_alignment(out, found.positions, found.tables, found.record)
    typer.echo(f"{page}: {len(found.positions)} positions")


@app.command()
def tokens(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(help="The table, a Parquet file.")],
    top_k: Annotated[int, typer.Option(min=1, help="Support size K.")] = 16,
    definitions: DefinitionSet = "paper",
) -> None:
    """Write the token table: one row per checkpoint, context and valid position."""
    from diagnostics.scoring.run import open_run
    from diagnostics.statistics.tables.definitions import definition_set
    from diagnostics.statistics.tables.token_files import write_tokens

    rows = write_tokens(out, open_run(run), top_k, definition_set(definitions))
    typer.echo(f"{out}: {rows} rows")


@app.command()
def plan(
    run: Annotated[Path, typer.Argument(help="A run folder: the pilot.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Whose gain; needed where the run has several.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Support size K.")] = 16,
    width: Annotated[
        float | None, typer.Option(help="How far intervals may reach to either side, nats.")
    ] = None,
    relative: Annotated[
        float | None, typer.Option(help="The same as a share of each number (0.5).")
    ] = None,
    statistic: Annotated[
        list[str] | None, typer.Option(help="A headline number, as often as needed; default: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Every alternative, a CSV file.")] = None,
) -> None:
    """From a pilot run: how many prompts, rollouts and positions an interval asks for."""
    from rich.console import Console

    from diagnostics.files import write_text
    from diagnostics.report.plan import show
    from diagnostics.scoring.run import open_run
    from diagnostics.statistics.analyses.design import plan as plan_study
    from diagnostics.statistics.analyses.headlines import HEADLINES

    design = plan_study(
        open_run(run),
        checkpoint=checkpoint,
        k=top_k,
        statistics=statistic or tuple(HEADLINES),
        width=width,
        relative=relative,
    )
    if out:
        write_text(out, design.alternatives().to_csv(index=False))
    show(design, Console(width=None if sys.stdout.isatty() else 120), whole=bool(statistic))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    definitions: DefinitionSet = "paper",
    top_k: Annotated[int, typer.Option(min=1, help="Main support size K.")] = 16,
    draws: Annotated[int, typer.Option(min=100, help="Bootstrap draws.")] = 2000,
    seed: Seed = 0,
    interval: Annotated[
        str, typer.Option(help="percentile, bca or studentized: the kind in every table.")
    ] = "percentile",
    redo_cuts: Annotated[
        bool, typer.Option(help="Headline numbers also with norms and cuts redone in each draw.")
    ] = False,
) -> None:
    """Write tables, figures, the page and results.json."""
    from diagnostics.report.analysis import ReportSettings
    from diagnostics.report.write import write_report
    from diagnostics.scoring.run import open_run
    from diagnostics.statistics.inference.bootstrap import check_kind
    from diagnostics.statistics.tables.definitions import check_definitions

    settings = ReportSettings(
        definitions=check_definitions(definitions),
        top_k=top_k,
        draws=draws,
        seed=seed,
        interval=check_kind(interval),
        redo_cuts=redo_cuts,
    )
    page = write_report([open_run(run) for run in runs], out, settings)
    typer.echo(f"Report: {page}")


@app.command()
def downstream(
    results: Annotated[
        Path, typer.Argument(help="A CSV or JSONL list: setting, selector, budget, folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tables.")],
    budget: Annotated[float, typer.Option(help="The budget of tables 3 and 12.")] = 0.1,
) -> None:
    """Write tables 3, 4, 11, 12 and 13 of evaluation results, the paper's beside."""
    from diagnostics.report.downstream import run_downstream
    from diagnostics.statistics.selection.selectors import check_budget

    check_budget(budget)
    written = run_downstream(results, out, budget=budget)
    typer.echo(f"{out}: {', '.join(written)}")


@app.command()
def tables(
    tokens: Annotated[list[Path], typer.Argument(help="Token tables, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")],
    draws: Annotated[int, typer.Option(min=100, help="Bootstrap draws.")] = 2000,
    seed: Seed = 0,
    memory: Annotated[int, typer.Option(min=0, help="MB of columns held in memory.")] = 629,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder of the scratch file for the rest.")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Read the files on so many workers of a Ray.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="The Ray cluster; default: one on this machine.")
    ] = None,
) -> None:
    """Write tables 1, 5, 6, 8 and 9 of token tables of any size, in little memory."""
    from diagnostics.report.streamed import token_paths, write_stream_tables
    from diagnostics.statistics.inference.bootstrap import Bootstrap
    from diagnostics.statistics.streaming.team import StreamSettings

    files = token_paths(tokens)
    settings = StreamSettings(seed=seed, memory=memory * 10**6, scratch=scratch)
    team = None
    if ray_workers:
        from diagnostics.statistics.streaming.cluster import RayTeam

        team = partial(RayTeam, workers=ray_workers, address=ray_address)
    bootstrap = Bootstrap(draws=draws, seed=seed)
    found = write_stream_tables(files, out, settings, bootstrap, team=team)
    positions = int(found["table05"]["n_positions"].sum())
    typer.echo(f"{out}: {', '.join(found)} of {positions} positions")
