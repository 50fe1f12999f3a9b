"""Commands that score a bank: models, gradients, the token table."""

# Imports inside functions are deliberate here: torch takes seconds to import.
from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.cli.options import (
    BankFile,
    DefinitionSet,
    Device,
    Draws,
    DtypeName,
    Model,
    RayAddress,
    RayWorkers,
    RunFolder,
    Seed,
    Support,
    Teacher,
)

app = typer.Typer()


@app.command()
def rescore(
    bank: BankFile,
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
    ray_workers: RayWorkers = None,
    ray_address: RayAddress = None,
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
    bank: BankFile,
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
    draws: Draws = 2000,
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
    run: RunFolder,
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
