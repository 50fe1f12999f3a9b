"""Trajectories over training steps against each checkpoint's own numbers and concatenated rows."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import run_on_disk
import statistics_reference as reference

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.headlines import Headline, headline
from diagnostics.statistics.analyses.trajectory import trajectory
from diagnostics.statistics.inference.bootstrap import Bootstrap, bands, draw_counts, interval
from diagnostics.statistics.tables.opened import OpenedRun, open_run

SUMS = 1e-10  # ratios of sums against means of rows in another order
CHECKPOINTS = {"full-20": 0.2, "full-5": 0.05, "full-10": 0.1, "mask-5": 0.05, "alone": 0.3}
ORIGINS = {
    "full-20": {"step": 20, "series": "full"},
    "full-5": {"step": 5, "series": "full"},
    "full-10": {"step": 10, "series": "full"},
    "mask-5": {"step": 5, "series": "mask"},
    "alone": {"step": None, "series": None},
}
ORDER = ["full-5", "full-10", "full-20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    folder = tmp_path_factory.mktemp("run")
    run_on_disk.write_run(folder, checkpoints=CHECKPOINTS, origins=ORIGINS)
    return open_run(folder, k=4)


@pytest.mark.parametrize("name", get_args(Headline))
def test_points_are_each_checkpoints_own_in_order_of_steps(run: OpenedRun, name: Headline) -> None:
    bootstrap = Bootstrap(draws=300)
    got = trajectory(run, name, bootstrap, series="full")
    assert got.table["step"].tolist() == [5, 10, 20]
    assert got.table["checkpoint"].tolist() == ORDER
    parts = [headline(run.at(checkpoint), name) for checkpoint in ORDER]
    for place, joint in enumerate(bands(parts, bootstrap)):
        line, own = got.table.loc[place], interval(parts[place], bootstrap)
        expected = [own.estimate, own.low, own.high, joint.low, joint.high]
        shown = line[["estimate", "low", "high", "band_low", "band_high"]].tolist()
        assert shown == pytest.approx(expected, abs=SUMS)


def test_change_is_paired_and_equals_concatenated_rows(run: OpenedRun) -> None:
    counts = draw_counts(24, 60, 3)
    got = trajectory(run, "gain", Bootstrap(counts=counts), series="full")
    first, last = (run.tokens(checkpoint=name) for name in ("full-5", "full-20"))
    both = first.assign(change=last["gain"].to_numpy() - first["gain"].to_numpy())
    both = both.astype({"prompt_id": str})[["prompt_id", "change"]]
    draws = reference.brute_force(both, counts, lambda f: f["change"].mean())
    assert got.change.estimate == pytest.approx(both["change"].mean(), abs=SUMS)
    ends = (got.change.low, got.change.high)
    assert ends == pytest.approx(reference.percentiles(draws), abs=SUMS)


def test_bands_are_wider_than_the_intervals(run: OpenedRun) -> None:
    table = trajectory(run, "beta", series="full").table
    assert (table["band_high"] - table["band_low"] > table["high"] - table["low"]).all()


def test_table_with_steps_equals_the_run(run: OpenedRun) -> None:
    steps = {"full-5": 5, "full-10": 10, "full-20": 20}
    here, there = trajectory(run, "gap", series="full"), trajectory(run, "gap", steps=steps)
    pd.testing.assert_frame_equal(here.table, there.table)
    whole = run.tokens()
    shuffled = whole.iloc[np.random.default_rng(0).permutation(len(whole))]
    for source in (whole, shuffled):
        made = trajectory(source, "matched", steps=steps).table
        expected = trajectory(run, "matched", series="full").table
        pd.testing.assert_frame_equal(made, expected, rtol=0, atol=SUMS)


def test_steps_given_choose_checkpoints_of_a_run(run: OpenedRun) -> None:
    got = trajectory(run, "gain", steps={"alone": 30, "mask-5": 5})
    assert got.table["checkpoint"].tolist() == ["mask-5", "alone"]
    assert got.n_positions == len(run.tokens(checkpoint="alone"))


def test_a_function_stands_in_a_headlines_place(run: OpenedRun) -> None:
    got = trajectory(run, lambda frame: headline(frame, "gap"), series="full")
    expected = trajectory(run, "gap", series="full")
    assert got.number == "<lambda>"
    pd.testing.assert_frame_equal(got.table, expected.table)


def less_rows(run: OpenedRun) -> pd.DataFrame:
    frame = run.tokens()
    return frame.drop(frame.index[frame["checkpoint"] == "full-10"][:2])


REFUSED = {
    "several series": (
        lambda run: trajectory(run),
        "trajectory: expected one series of checkpoints, got full, mask; "
        "choose one with series=… or steps={…}",
    ),
    "unknown series": (
        lambda run: trajectory(run, series="mark"),
        "trajectory: expected a series among full, mask, got 'mark'; choose one of them",
    ),
    "one checkpoint": (
        lambda run: trajectory(run, series="mask"),
        "trajectory: expected at least two checkpoints with steps, got mask-5; score the "
        "checkpoints of several steps, or give steps={checkpoint: step, …}",
    ),
    "no steps of a table": (
        lambda run: trajectory(run.tokens()),
        "trajectory: expected steps of a table's checkpoints, got none; "
        "give steps={checkpoint: step, …}",
    ),
    "two of one step": (
        lambda run: trajectory(run, steps={"full-5": 5, "mask-5": 5}),
        "trajectory: expected one checkpoint a step, got full-5 and mask-5 at step 5; "
        "choose them with steps={…}",
    ),
    "unknown checkpoint": (
        lambda run: trajectory(run.tokens(), steps={"full-5": 5, "full-6": 6}),
        "token table: expected a checkpoint among full-20, full-5, full-10, mask-5, alone, got "
        "'full-6'; choose one of them",
    ),
    "other rows": (
        lambda run: trajectory(less_rows(run), steps={"full-5": 5, "full-10": 6}),
        "trajectory, checkpoint full-10: expected the same positions in both, got 2 that one of "
        "them lacks, 1,438 in both; score the same bank whole, or ask for `intersect=True`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(run: OpenedRun, name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        call(run)
    assert str(caught.value) == message


def test_run_without_steps_is_refused(tmp_path: Path) -> None:
    run_on_disk.write_run(tmp_path, prompts=4)
    with pytest.raises(InputError) as caught:
        trajectory(open_run(tmp_path, k=4))
    assert str(caught.value) == (
        "trajectory: expected at least two checkpoints with steps, got none; score the "
        "checkpoints of several steps, or give steps={checkpoint: step, …}"
    )


def test_checkpoints_given_by_themselves_are_a_series(tmp_path: Path) -> None:
    origins = {"one": {"step": 10, "series": None}, "two": {"step": 5, "series": None}}
    run_on_disk.write_run(tmp_path, prompts=4, origins=origins)
    got = trajectory(open_run(tmp_path, k=4))
    assert got.table["checkpoint"].tolist() == ["two", "one"]


def test_trajectory_shows_itself(run: OpenedRun) -> None:
    got = trajectory(run, "gain", series="full")
    lines = repr(got).splitlines()
    assert lines[0] == "Trajectory"
    assert lines[-4].split()[:3] == ["step", "checkpoint", "estimate"]
    pd.testing.assert_frame_equal(got.to_frame(), got.table)
