"""The console command `diagnostics` (CONTRACT, "Commands").

Commands only unpack and pass on, one file a kind. Exit status 0: done; 1: bad input, one line on
stderr; 2: wrong usage. Heavy imports are inside the commands, so that `--help` is quick.
"""

# Imports inside functions are deliberate here: torch takes seconds to import.
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.cli import banks, reporting, scoring, training
from diagnostics.cli.options import Seed
from diagnostics.errors import InputError

app = typer.Typer(
    help="Fixed-context diagnostics: which teacher signals can a student learn?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


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


app.add_typer(banks.app, name="bank", help="Banks of frozen rollouts.", no_args_is_help=True)
for commands in (training, scoring, reporting):
    app.add_typer(commands.app)
