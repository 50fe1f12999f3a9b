"""Cells of the page's tables: their texts are the views', their values the frame's in full."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from diagnostics.report.assets import asset, policy
from diagnostics.report.page import prose
from diagnostics.report.tables.grids import grid, parts, plain_grid
from diagnostics.report.tables.views import Shown, cells

FRAME = pd.DataFrame(
    {
        "run": ["r", "r"],
        "k": [8, 16],
        "selector": ["kl", "random"],
        "gain": [0.1 + 0.2, -1e-9],
        "gain_low": [0.1, math.nan],
        "gain_high": [0.5, math.nan],
        "score_mean": [41.5, math.nan],
        "score_sd": [1.25, math.nan],
        "use": ["main", "boundary only"],
    }
)
COLUMNS = (
    Shown("run", "run", "text"),
    Shown("K", "k", "count"),
    Shown("selector", "selector", "text"),
    Shown("gain", "gain", "interval"),
    Shown("score", "score", "spread"),
    Shown("use", "use", "text"),
)


def test_texts_are_those_of_the_other_forms() -> None:
    made = grid(FRAME, COLUMNS)
    assert [[c.text for c in row] for row in made.rows] == cells(FRAME, COLUMNS).values.tolist()
    assert len(made) == 2


def test_values_are_the_frames_to_the_last_bit() -> None:
    made = grid(FRAME, COLUMNS)
    values = [[c.value for c in row] for row in made.rows]
    assert values[0] == ["", "8", "", "0.30000000000000004 0.1 0.5", "41.5 1.25", ""]
    assert values[1] == ["", "16", "", "-1e-09 nan nan", "", ""]
    assert [parts(c) for c in COLUMNS[3:5]] == [("", "_low", "_high"), ("_mean", "_sd")]


def test_the_leading_text_is_the_first_that_differs_before_the_numbers() -> None:
    assert grid(FRAME, COLUMNS).lead == 2
    assert grid(FRAME, COLUMNS[:2] + COLUMNS[3:]).lead == 0  # `use` stands behind the numbers
    assert grid(FRAME.head(1), COLUMNS).lead == 0


def test_a_plain_grid_joins_ends_and_leaves_empty_columns_out() -> None:
    frame = FRAME.drop(columns=["score_mean", "score_sd"]).assign(empty=np.nan, own=[True, False])
    made = plain_grid(frame)
    assert [(c.column, c.kind) for c in made.columns] == [
        ("run", "text"),
        ("k", "count"),
        ("selector", "text"),
        ("gain", "interval"),
        ("use", "text"),
        ("own", "text"),
    ]


def test_a_policy_names_each_script_and_allows_no_load() -> None:
    said = policy(["page.js"])
    assert said.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in said.split("style-src")[0]
    assert policy([]).split("; ")[1] == "script-src 'none'"
    assert "<" not in asset("page.css")


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("KL_0 at c_t", "KL<sub>0</sub> at c_t"),
        ("p_T < p_0", "p<sub>T</sub> &lt; p<sub>0</sub>"),
        ("`diagnostics plan` <b>", "<code>diagnostics plan</code> &lt;b&gt;"),
        ("0.1 [0.05, 0.2]", "0.1 [0.05,\u00a00.2]"),
        ("95 % of 10 %", "95\u00a0% of 10\u00a0%"),
        ("table_08 and map_0", "table_08 and map_0"),
    ],
)
def test_prose_sets_symbols_commands_and_intervals(text: str, markup: str) -> None:
    assert prose(text) == markup
