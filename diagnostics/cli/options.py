"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Draws = Annotated[int, typer.Option(min=100, help="Bootstrap draws.")]
RayWorkers = Annotated[int | None, typer.Option(min=1, help="Work on so many workers of a Ray.")]
RayAddress = Annotated[
    str | None, typer.Option(help="The Ray cluster; default: one on this machine.")
]
BankFile = Annotated[Path, typer.Argument(help="A bank: a Parquet file or a folder of them.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.")]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="csv, md, tex, parquet: several with commas, or repeated."),
]
