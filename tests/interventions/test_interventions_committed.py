"""The committed interventions on the embedded pair: whole, and the tables are of the arms' logs."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from diagnostics.interventions.embedded import FULL
from diagnostics.interventions.masks import SETS
from diagnostics.training.distill import read_log

REPORT = Path(__file__).parents[2] / "reports" / "interventions"
ARMS = {path.parent.name: path.parent for path in REPORT.glob("arms/*/training_log.jsonl")}


def test_every_arm_is_there_with_its_settings_and_log() -> None:
    assert set(ARMS) == {arm.name for arm in FULL.masks}
    for arm in FULL.masks:
        settings = json.loads((ARMS[arm.name] / "training_settings.json").read_text())
        assert (settings["selector"], settings["budget"], settings["seed"]) == (
            arm.selector,
            arm.budget,
            arm.seed,
        )


def test_ten_selectors_at_two_budgets_have_three_seeds_each() -> None:
    table = pd.read_csv(REPORT / "tables" / "table02.csv").set_index(["selector", "budget"])
    assert len(SETS["table2"]) == 20
    for mask in (*SETS["table2"], *SETS["table10"]):
        assert table.loc[mask, "seeds"] == 3


def test_tables_average_the_arms_and_their_logs() -> None:
    arms = pd.read_csv(REPORT / "tables" / "arms.csv").set_index("checkpoint")
    table = pd.read_csv(REPORT / "tables" / "table02.csv")
    for row in table.to_dict("records"):
        names = row["checkpoint"].split(", ")
        logs = [read_log(ARMS[name]) for name in names]
        kept = [sum(e["keep"] for e in log[:-1]) / len(log[:-1]) for log in logs]
        assert row["keep"] == pytest.approx(sum(kept) / len(kept), abs=1e-6)
        assert row["gain"] == pytest.approx(arms.loc[names, "gain"].mean(), abs=1e-9)
        assert row["gain_sd"] == pytest.approx(arms.loc[names, "gain"].std(ddof=1), abs=1e-9)
        assert row["gain_per_keep"] == pytest.approx(row["gain"] / row["keep"], rel=1e-6)


def test_arms_of_one_seed_began_at_the_same_student() -> None:
    starts = {read_log(folder)[0]["held_out_kl"] for folder in ARMS.values()}
    seeds = {arm.seed for arm in FULL.masks}
    assert len(starts) == len(seeds)
