"""Commands on banks of frozen rollouts."""

# Imports inside functions are deliberate here: torch takes seconds to import.
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diagnostics.cli.options import (
    BankFile,
    Device,
    DtypeName,
    Model,
    NewTokens,
    PromptColumn,
    Prompts,
    Seed,
    Temperature,
)

app = typer.Typer()


@app.command("build")
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


@app.command("import")
def bank_import(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT", help="trl, verl, slime, nemo-rl, paper, ms-swift or jsonl."
        ),
    ],
    source: Annotated[Path, typer.Argument(help="The trainer's file, or its folder of them.")],
    tokenizer: Annotated[str, typer.Option(help="The student's model or tokenizer folder.")],
    out: Annotated[Path, typer.Option(help="The bank, a Parquet file.")],
    student: Annotated[
        str | None, typer.Option(help="The model that drew the rollouts, where it is known.")
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="5, 1-20, 1,3 or all; default: the first that is there.")
    ] = None,
    num_prompts: Annotated[
        int | None, typer.Option(min=1, help="First so many; default: all.")
    ] = None,
    max_response_tokens: Annotated[
        int | None, typer.Option(min=1, help="Keep so many tokens of a response.")
    ] = None,
) -> None:
    """Freeze rollouts that a trainer wrote."""
    from diagnostics.bank.imports.importer import import_bank

    found = import_bank(
        form,
        source,
        tokenizer,
        out,
        student=student,
        step=step,
        num_prompts=num_prompts,
        max_response_tokens=max_response_tokens,
    )
    prompts = len(set(found.bank.strings("prompt_id")))
    typer.echo(
        f"{out}: {len(found.bank)} contexts of {prompts} prompts, digest {found.bank.digest[:12]}"
    )
    for note in found.notes():
        typer.echo(f"note: {note}", err=True)


@app.command("check")
def bank_check(
    bank: BankFile,
) -> None:
    """Check schema, digest, identities, ids within the vocabulary, and masks."""
    from diagnostics.bank.contexts import check_ids, read_bank

    found = read_bank(bank)
    check_ids(found, found.info.vocabulary, str(bank))
    typer.echo(f"{bank}: {len(found)} contexts, digest {found.digest[:12]}: sound")
