"""What `diagnostics plan` prints and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_on_disk import write_run

from diagnostics.report.contexts.plan import opening, sentences
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.design import UNCLEAR, Design, plan
from diagnostics.statistics.tables.tokens import token_table

Command = Callable[..., tuple[int, str, str]]
K = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """24 prompts, two rollouts each of 30 positions, checkpoints `one` and `two`."""
    return write_run(tmp_path_factory.mktemp("plan") / "run")


@pytest.fixture(scope="module")
def design(run: Run) -> Design:
    return plan(run, checkpoint="one", k=K, width=0.02, statistics=["gain", "beta"])


def test_sentences_say_the_designs_numbers(design: Design) -> None:
    said = list(sentences(design))
    assert len(said) == 2
    number = design.numbers[1]
    table = number.table[number.table["positions"] == 30].set_index("rollouts")["prompts"]
    assert said[1] == (
        f"For an interval of +-0.02 on beta_L - beta_I you need about {number.prompts_needed} "
        f"prompts, give or take {2 * number.error:.0%} or more, with 2 rollouts of up to 30 "
        f"positions; you have 24, which give about +-{number.half_width:.2g}. "
        f"Or {table[1.0]} with 1 rollout, {table[4.0]} with 4 rollouts, {table[8.0]} with "
        "8 rollouts."
    )


def test_the_opening_says_what_the_pilot_is(design: Design) -> None:
    assert opening(design) == (
        "Pilot: checkpoint one, 24 prompts with 2 rollouts of up to 30 positions, 1440 in all; "
        "definitions paper, 95 % intervals"
    )


def test_bounds_are_said_as_ranges(run: Run) -> None:
    frame = token_table(run, K, ["one"])
    frame = frame[
        frame.groupby("prompt_id", observed=True)["context_id"].transform("first")
        == frame["context_id"]
    ]
    design = plan(frame, width=0.02, statistics=["gain"])
    first, last = sentences(design)
    table = design.numbers[0].table
    bounds = table[(table["positions"] == 30) & (table["rollouts"] == 4)].iloc[0]
    assert f" {bounds['prompts_low']} to {bounds['prompts']} with 4 rollouts" in first
    assert " with 1 rollout of up to 30 positions; you have 24" in first
    assert last == (
        "The pilot has one rollout a prompt: variance between prompts and between rollouts of one "
        "cannot be told apart, so more rollouts have bounds alone."
    )


def test_a_number_without_prompts_says_why(design: Design) -> None:
    number = replace(design.numbers[1], prompts_needed=None, reason=UNCLEAR)
    (said,) = sentences(replace(design, numbers=(number,)))
    assert said == (
        "No number of prompts for beta_L - beta_I: 0 lies in the pilot's interval, so a share of "
        f"the number is no goal; ask for a width; 24 prompts give about +-{number.half_width:.2g}."
    )


def test_the_command_prints_a_table_and_sentences(command: Command, run: Run) -> None:
    status, said, error = command("plan", run.folder, "--checkpoint", "one", "--top-k", K)
    assert (status, error) == (0, "")
    lines = said.splitlines()
    whole = plan(run, checkpoint="one", k=K)
    assert lines[0] == opening(whole)
    assert lines[2].split() == ["number", "pilot", "+-", "wanted", "prompts", "corr.", "design"]
    assert [line.split()[0] for line in lines[3:9]] == [n.statistic for n in whole.numbers]
    assert lines[10:] == list(sentences(whole))


def test_a_named_statistic_shows_every_alternative(command: Command, run: Run) -> None:
    words = ["--checkpoint", "one", "--top-k", K, "--statistic", "gain", "--width", 0.02]
    status, said, _ = command("plan", run.folder, *words)
    assert status == 0
    (number,) = plan(run, checkpoint="one", k=K, statistics=["gain"], width=0.02).numbers
    rows = [line.split() for line in said.splitlines()]
    for row in number.table.itertuples():
        shown = [f"{row.rollouts:.0f}", f"{row.positions}", f"{row.estimate:.3g}"]
        shown += [f"{row.half_width:.2g}", f"{row.prompts}", f"{row.total_positions}"]
        assert shown in rows


def test_the_file_holds_every_alternative(command: Command, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "plan.csv"
    words: list[Any] = ["--checkpoint", "two", "--top-k", K, "--relative", 0.25, "--out", out]
    assert command("plan", run.folder, *words)[0] == 0
    expected = plan(run, checkpoint="two", k=K, relative=0.25).alternatives()
    found = pd.read_csv(out, keep_default_na=True)
    assert list(found) == list(expected)
    assert len(found) == 6 * 4 * 4  # numbers, lengths, rollouts
    pd.testing.assert_series_equal(found["half_width"], expected["half_width"], rtol=1e-12)
    assert list(tmp_path.iterdir()) == [out]
