"""Commands that report: tables, figures, pages, plans."""

# Imports inside functions are deliberate here: torch takes seconds to import.
from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.cli.options import (
    DefinitionSet,
    Draws,
    Formats,
    RayAddress,
    RayWorkers,
    RunFolder,
    Seed,
    Support,
)

app = typer.Typer()


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
    from diagnostics.report.contexts.plan import show
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
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Runs (or NAME=RUN), report folders as `intervene` writes, lists of evaluations."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    definitions: DefinitionSet = "paper",
    top_k: Annotated[int, typer.Option(min=1, help="Main support size K.")] = 16,
    draws: Draws = 2000,
    seed: Seed = 0,
    interval: Annotated[
        str, typer.Option(help="percentile, bca or studentized: the kind in every table.")
    ] = "percentile",
    redo_cuts: Annotated[
        bool, typer.Option(help="Headline numbers also with norms and cuts redone in each draw.")
    ] = False,
    formats: Formats = None,
) -> None:
    """Write tables, figures, the page and results.json."""
    from diagnostics.report.contexts.analysis import ReportSettings
    from diagnostics.report.sources import parts_of
    from diagnostics.report.tables.formats import check_formats
    from diagnostics.report.write import write_chapters
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
    chosen = check_formats(formats)
    parts = parts_of(sources, settings)
    page = write_chapters(parts.chapters, out, viewers=parts.viewers, formats=chosen)
    typer.echo(f"Report: {page}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A run (or NAME=RUN) or a report folder.")],
    second: Annotated[str, typer.Argument(help="The other: differences are first less second.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison.")],
    definitions: Annotated[
        str | None, typer.Option(help="Of runs; default: the report's beside, or paper.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="K of runs; default: the report's beside, or 16.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="A=B: which go together, if not those of one name.")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="A=B: the same for runs of reports that hold several.")
    ] = None,
    formats: Formats = None,
) -> None:
    """Set two runs or reports side by side, paired where the bank is the same."""
    from rich.console import Console

    from diagnostics.report.comparison.chapter import comparison_chapter, show
    from diagnostics.report.comparison.compare import compare_sides
    from diagnostics.report.comparison.sides import open_sides
    from diagnostics.report.tables.formats import check_formats
    from diagnostics.report.write import write_chapters
    from diagnostics.statistics.tables.definitions import check_definitions

    chosen = check_formats(formats)
    named = None if definitions is None else check_definitions(definitions)
    sides = open_sides([first, second], definitions=named, top_k=top_k)
    found = compare_sides(*sides, runs=run or (), checkpoints=checkpoint or ())
    page = write_chapters([comparison_chapter(found)], out, formats=chosen)
    show(found, Console(width=None if sys.stdout.isatty() else 140))
    typer.echo(f"Comparison: {page}")


@app.command()
def view(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The page, an HTML file.")],
    top_k: Support = 16,
    contexts: Annotated[
        int | None, typer.Option(min=1, help="At most so many in a file; default: what fits.")
    ] = None,
    split: Annotated[
        bool, typer.Option(help="All contexts, in files FILE-01.html, … that link to each other.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Write the token viewer: rollouts as text, coloured by what happened at each token."""
    from diagnostics.report.viewer.page import ViewerSettings, write_viewer, write_viewers
    from diagnostics.scoring.run import open_run

    settings = ViewerSettings(top_k=top_k, contexts=contexts, seed=seed)
    paths = (write_viewers if split else write_viewer)(open_run(run), out, settings)
    for path in paths:
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def downstream(
    results: Annotated[
        Path, typer.Argument(help="A CSV or JSONL list: setting, selector, budget, folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tables.")],
    budget: Annotated[float, typer.Option(help="The budget of tables 3 and 12.")] = 0.1,
    formats: Formats = None,
) -> None:
    """Write tables 3, 4, 11, 12 and 13 of evaluation results, the paper's beside."""
    from diagnostics.files import write_text
    from diagnostics.report.downstream import read_downstream
    from diagnostics.report.tables.formats import check_formats
    from diagnostics.report.write import write_chapters
    from diagnostics.statistics.selection.selectors import check_budget

    check_budget(budget)
    chosen = check_formats(formats)
    records, chapter = read_downstream(results, budget=budget)
    write_text(out / "records.csv", records.to_csv(index=False))
    page = write_chapters([chapter], out, formats=chosen)
    typer.echo(f"Report: {page}: {', '.join(sheet.name for sheet in chapter.sheets)}")


@app.command()
def tables(
    tokens: Annotated[list[Path], typer.Argument(help="Token tables, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")],
    draws: Draws = 2000,
    seed: Seed = 0,
    memory: Annotated[int, typer.Option(min=0, help="MB of columns held in memory.")] = 629,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder of the scratch file for the rest.")
    ] = None,
    ray_workers: RayWorkers = None,
    ray_address: RayAddress = None,
) -> None:
    """Write tables 1, 5, 6, 8 and 9 of token tables of any size, in little memory."""
    from diagnostics.report.contexts.streamed import token_paths, write_stream_tables
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
