"""From an experiment to its report: trains, rescores and reports what is not there yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from diagnostics.interventions.experiment import (
    Experiment,
    Say,
    failures,
    rescore_arms,
    train_arms,
    trained_arms,
)
from diagnostics.report.chapters import Sheet
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.live.arms import report_arms
from diagnostics.report.tables.formats import DEFAULT_FORMATS, Format
from diagnostics.report.write import write_chapters
from diagnostics.training.settings import TrainSettings


def run_experiment(
    experiment: Experiment,
    out: Path,
    settings: ReportSettings,
    *,
    workers: int,
    say: Say,
    extra: Callable[[], Iterable[Sheet]] = tuple,
    formats: Sequence[Format] = DEFAULT_FORMATS,
) -> Path:
    """Trains what is not trained, rescores what is not rescored, reports; the page's path.

    `extra` makes further tables of trained arms.
    """
    say(f"training {len(experiment.arms)} arms, {workers} at a time")
    train_arms(experiment, out, workers=workers, say=say)
    say(f"rescoring them on {experiment.bank}")
    run = rescore_arms(experiment, out)
    more = tuple(extra())
    say("report")
    chapter = report_arms(
        run,
        trained_arms(experiment, out),
        settings,
        extra=more,
        missing=failures(experiment, out),
        training=shared_settings(experiment.settings),
    )
    return write_chapters([chapter], out, formats=formats)


def shared_settings(settings: TrainSettings) -> dict[str, object]:
    """What all arms of an experiment share, for its report."""
    own = ("selector", "budget", "seed")
    return {name: getattr(settings, name) for name in settings.__slots__ if name not in own}
