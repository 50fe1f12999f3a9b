"""Bins, buckets, trajectories and pooled gaps of a report, against its other numbers."""

from __future__ import annotations

import numpy as np
import pytest
from run_on_disk import write_run

from diagnostics.report.contexts.analysis import ReportSettings, Results, analyse
from diagnostics.report.contexts.trends import BUCKETED
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.headlines import HEADLINES

SETTINGS = ReportSettings(top_k=4, draws=100, seed=3)
SAME = 1e-9
STEPS = {
    "full-10": {"step": 10, "series": "full"},
    "full-20": {"step": 20, "series": "full"},
    "alone": {"step": None, "series": None},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two runs over banks with the same prompts; the first has two steps."""
    folder = tmp_path_factory.mktemp("trends")
    moved = {"full-10": 0.1, "full-20": 0.3, "alone": 0.2}
    first = write_run(folder / "a", name="a", checkpoints=moved, origins=STEPS)
    other = {"digest": "c" * 64, "contexts": 48}
    second = write_run(folder / "b", name="b", seed=5, checkpoints={"one": 0.3}, bank=other)
    return analyse([first, second], SETTINGS)


def test_bins_are_of_the_first_checkpoint_and_hold_every_position(results: Results) -> None:
    table = results.tables["bins"]
    lead = set(zip(table["run"], table["checkpoint"], strict=True))
    assert lead == {("a", "full-10"), ("b", "one")}
    for _, rows in table.groupby(["run", "signal"]):
        assert rows["n"].sum() == 1440
        weighed = (rows["residual"] * rows["n"]).sum()  # residuals of least squares sum to 0
        assert weighed == pytest.approx(0, abs=SAME * 1440)
        assert (rows["band_low"] <= rows["residual_low"]).mean() > 0.5
        assert rows["median"].notna().all()
        assert rows["median_low"].isna().all()


def test_buckets_hold_the_positions_and_the_gain_of_q3(results: Results) -> None:
    quadrants = results.tables["quadrants"]
    for (run, checkpoint, _), rows in results.tables["buckets"].groupby(
        ["run", "checkpoint", "signal"]
    ):
        q3 = quadrants[
            (quadrants["run"] == run)
            & (quadrants["checkpoint"] == checkpoint)
            & (quadrants["quadrant"] == 3)
        ].iloc[0]
        assert rows["n"].sum() == q3["n_positions"]
        mean = (rows["gain"] * rows["n"]).sum() / rows["n"].sum()
        assert mean == pytest.approx(q3["gain"], abs=SAME)
    assert set(results.tables["buckets"]["signal"]) == set(BUCKETED)


def test_trajectory_has_the_intervals_of_its_checkpoints_step_by_step(results: Results) -> None:
    table = results.tables["trajectory"]
    assert set(table["run"]) == {"a"}
    assert list(table["step"][:2]) == [10, 20]
    assert "alone" not in set(table["checkpoint"])
    known = results.tables["intervals"].set_index(["run", "checkpoint", "statistic", "outcome"])
    for row in table.to_dict("records"):
        there = known.loc["a", row["checkpoint"], row["statistic"], "gain"]
        got = (row["estimate"], row["estimate_low"], row["estimate_high"])
        wanted = (there["percentile"], there["percentile_low"], there["percentile_high"])
        assert got == pytest.approx(wanted, abs=SAME)
    for name in HEADLINES:
        rows = table[table["statistic"] == name]
        change = rows["estimate"].iloc[1] - rows["estimate"].iloc[0]
        assert rows["change"].iloc[0] == pytest.approx(change, abs=SAME)


def test_pooled_gap_weighs_positions_or_settings(results: Results) -> None:
    table = results.tables["pooled"]
    gaps = table[table["number"] == "gap"].set_index("setting")
    for run, checkpoint in (("a", "full-10"), ("b", "one")):
        row = results.tables["table01"]
        row = row[(row["run"] == run) & (row["checkpoint"] == checkpoint) & (row["top_k"] == 4)]
        assert gaps.loc[f"{run} / {checkpoint}", "gap"] == pytest.approx(row["gap"].iloc[0])
    each = gaps["gap"].iloc[2:]
    assert gaps.loc["mean over settings", "gap"] == pytest.approx(each.mean(), abs=SAME)
    assert each.min() <= gaps.loc["all positions", "gap"] <= each.max()
    assert 0 <= gaps.loc["all positions", "q_p"] <= 1
    assert np.isnan(gaps["q"].iloc[2:]).all()


def test_one_run_without_steps_has_neither_trajectory_nor_pooled_gap(small_run: Run) -> None:
    assert {"trajectory", "pooled"}.isdisjoint(analyse([small_run], SETTINGS).tables)


def test_every_row_of_these_tables_can_be_shown(results: Results) -> None:
    from diagnostics.report.contexts.captions import VIEWS
    from diagnostics.report.tables.views import cells

    for name in ("trajectory", "pooled", "bins", "buckets"):
        shown = cells(results.tables[name], VIEWS[name].columns)
        assert len(shown) == len(results.tables[name])
