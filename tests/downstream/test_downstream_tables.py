"""Tables 3, 4, 11, 12 and 13 from records, against arithmetic by hand; and how they are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluations import write_harness

from diagnostics.downstream.records import Arm, Score, check_records, to_records
from diagnostics.downstream.tables import category_deltas, downstream_tables, summary
from diagnostics.errors import InputError
from diagnostics.paper.tables import paper_table
from diagnostics.report.downstream import downstream_chapter, read_downstream
from diagnostics.report.write import write_chapters


def arm_of(selector: str, budget: float | None, setting: str = "pair") -> Arm:
    return Arm(setting=setting, selector=selector, budget=budget)


def records(arms: Mapping[Arm, Mapping[str, list[float]]]) -> pd.DataFrame:
    """Records of scores by arm and `benchmark` or `benchmark/category`, seeds 0, 1, …"""
    frames = []
    for arm, values in arms.items():
        scores = [
            Score(
                benchmark=name.partition("/")[0],
                category=name.partition("/")[2],
                seed=seed,
                value=value,
                total=10,
                metric="acc",
                source="f",
            )
            for name, several in values.items()
            for seed, value in enumerate(several)
        ]
        frames.append(to_records(arm, scores))
    return check_records(pd.concat(frames, ignore_index=True))


SWEEP = {
    arm_of("tip", 0.1): {"a": [1.0, 2.0, 6.0], "b": [10.0, 10.0, 10.0]},
    arm_of("kl", 0.1): {"a": [4.0], "b": [8.0]},
    arm_of("tip", 0.05): {"a": [2.0, 4.0], "b": [0.0, 1.0]},
    arm_of("full", 1.0): {"a": [5.0, 7.0], "b": [1.0, 3.0]},
    arm_of("base", None): {"a": [1.0, 3.0], "b": [2.0, 2.0]},
}


def test_mean_deviation_and_average_by_hand() -> None:
    table = downstream_tables(records(SWEEP))["table03"]
    assert list(table) == [
        "setting", "budget", "selector", "average", "a_mean", "a_sd", "b_mean", "b_sd", "seeds",
        "missing",
    ]  # fmt: skip
    assert table["selector"].tolist() == ["base", "full", "tip"]
    tip = table.iloc[2]
    # mean of 1, 2, 6 is 3; deviations -2, -1, 3: 14 / (3 - 1) = 7; average (3 + 10) / 2
    assert (tip["a_mean"], tip["b_sd"], tip["average"], tip["seeds"]) == (3.0, 0.0, 6.5, 3)
    assert tip["a_sd"] == pytest.approx(math.sqrt(7))
    assert np.isnan(table.loc[0, "budget"])
    assert table.loc[1, "budget"] == 1.0


def test_each_table_has_its_rows() -> None:
    tables = downstream_tables(records(SWEEP))
    rows = {n: list(zip(t["selector"], t["budget"], strict=True)) for n, t in tables.items()}
    assert rows["table04"] == rows["table11"] == [("tip", 0.05), ("tip", 0.1), ("kl", 0.1)]
    assert rows["table12"] == [("tip", 0.1), ("kl", 0.1)]
    assert "table13" not in tables  # no categories
    at_five = downstream_tables(records(SWEEP), budget=0.05)
    assert at_five["table12"]["budget"].tolist() == [0.05]


def test_one_seed_has_no_deviation() -> None:
    kl = downstream_tables(records(SWEEP))["table12"].iloc[1]
    assert (kl["a_mean"], kl["average"], kl["seeds"]) == (4.0, 6.0, 1)
    assert np.isnan(kl["a_sd"])


def test_an_arm_that_lacks_a_benchmark_has_no_average() -> None:
    table = downstream_tables(records(SWEEP | {arm_of("q3", 0.1): {"b": [3.0]}}))["table12"]
    lacking = table.iloc[2]
    assert np.isnan(lacking["average"])
    assert np.isnan(lacking["a_mean"])
    assert (lacking["b_mean"], lacking["missing"]) == (3.0, "a")


def test_categories_are_less_the_base_of_their_setting_by_hand() -> None:
    table = category_deltas(
        records(
            {
                arm_of("base", None): {"m": [5.0, 5.0], "m/x": [2.0, 4.0], "m/y": [6.0, 6.0]},
                arm_of("tip", 0.1): {"m": [5.0, 5.0], "m/x": [1.0, 2.0], "m/y": [9.0, 7.0]},
                arm_of("tip", 0.1, "alone"): {"m/x": [1.0], "m/y": [1.0]},
            }
        )
    )
    row = table.iloc[0]
    # x: 1.5 - 3 = -1.5, variances 0.5 and 2; y: 8 - 6 = 2, variances 2 and 0
    assert (row["x_mean"], row["y_mean"], row["average"]) == (-1.5, 2.0, 0.25)
    assert row["x_sd"] == pytest.approx(math.sqrt(2.5))
    assert row["y_sd"] == pytest.approx(math.sqrt(2))
    assert (table.loc[1, "missing"], np.isnan(table.loc[1, "average"])) == ("base", True)


def test_categories_of_two_benchmarks_keep_their_benchmarks_name() -> None:
    both = {"m/x": [1.0], "n/x": [2.0]}
    table = category_deltas(records({arm_of("base", None): both, arm_of("kl", 0.1): both}))
    assert [c for c in table if c.endswith("_mean")] == ["m/x_mean", "n/x_mean"]


def test_the_papers_cells_as_records_give_its_averages() -> None:
    printed = paper_table(4)
    benchmarks = [c[:-5] for c in printed if c.endswith("_mean")]
    arms = {
        arm_of(row["selector"], row["budget"], row["setting"]): {
            b: [row[f"{b}_mean"]] for b in benchmarks
        }
        for row in printed.to_dict("records")
    }
    table = downstream_tables(records(arms))["table11"]
    assert list(table.columns[:-2]) == list(printed.columns)
    merged = table.merge(paper_table(11), on=["setting", "budget", "selector"])
    assert len(merged) == 32
    assert np.allclose(merged["average_x"], merged["average_y"], atol=0.01 + 1e-9)


def test_summary_forgets_the_order_of_rows() -> None:
    frame = records(SWEEP)
    keys = ["selector", "budget", "benchmark"]
    first, second = (
        summary(f).sort_values(keys, ignore_index=True) for f in (frame, frame.iloc[::-1])
    )
    pd.testing.assert_frame_equal(first, second)


def test_a_score_that_is_no_percentage_is_refused() -> None:
    frame = records(SWEEP)
    frame.loc[3, "value"] = np.nan
    with pytest.raises(InputError) as caught:
        check_records(frame)
    assert str(caught.value) == (
        "f: expected a score of b from 0 to 100 per cent, got nan; evaluate it again, or state the "
        "unit"
    )
    with pytest.raises(InputError) as caught:
        check_records(frame.iloc[:0])
    assert str(caught.value) == (
        "records: expected at least one score, got none; name result folders"
    )


def write(arms: Mapping[Arm, Mapping[str, list[float]]], out: Path) -> dict[str, Any]:
    """The report of some arms; what its results.json holds."""
    write_chapters([downstream_chapter(records(arms))], out)
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_files_show_ours_and_say_what_is_missing(tmp_path: Path) -> None:
    found = write(SWEEP | {arm_of("q3", 0.1): {"b": [3.0]}}, tmp_path)
    assert list(found["tables"]) == ["table03", "table04", "table11", "table12"]
    ours = (tmp_path / "tables" / "table12.md").read_text(encoding="utf-8")
    assert "| pair | 10 % | tip | 6.50 | 3.00 ± 2.65 | 10.00 ± 0.00 |" in ours
    assert "| pair | 10 % | kl | 6.00 | 4.00 | 8.00 |" in ours
    assert "| pair | 10 % | q3 | – | – | 3.00 |" in ours
    assert "No average, because these are missing: pair / q3 / 0.1: a." in ours
    eleven = (tmp_path / "tables" / "table11.md").read_text(encoding="utf-8")
    assert "| setting | budget | selector | average |" in eleven
    assert "| pair | 5 % | tip | 1.75 |" in eleven
    written = pd.read_csv(tmp_path / "tables" / "table04.csv", keep_default_na=True)
    made = [row["average"] for row in found["tables"]["table04"]]
    assert np.allclose(written["average"], np.array(made, dtype=float), equal_nan=True)
    assert "\\begin{tabular}" in (tmp_path / "tables" / "table04.tex").read_text(encoding="utf-8")


def test_the_papers_tables_stand_beside_ours(tmp_path: Path) -> None:
    paper = pd.DataFrame(write(SWEEP, tmp_path)["paper"]["table04"])
    pd.testing.assert_frame_equal(paper, paper_table(4), check_dtype=False)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "23.34 ± 3.34" in page.split('id="table12"')[1]


def test_a_budget_that_no_arm_has_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        downstream_chapter(records(SWEEP), budget=0.3)
    assert str(caught.value) == (
        "--budget: expected a budget of the results: 0.05, 0.1, got 0.3; choose the one of Tables "
        "3 and 12"
    )


def test_the_json_holds_every_number(tmp_path: Path) -> None:
    stored = write(SWEEP, tmp_path)
    assert (stored["ddof"], stored["downstream_budget"]) == (1, 0.1)
    assert stored["chapters"][0]["making"]["metrics"] == {"a": "acc", "b": "acc"}
    assert stored["tables"]["table03"][0]["budget"] is None
    averages = downstream_tables(records(SWEEP))["table04"]["average"].tolist()
    assert [r["average"] for r in stored["tables"]["table04"]] == averages
    assert len(stored["paper"]["table03"]) == 24


def test_a_list_becomes_tables(tmp_path: Path) -> None:
    write_harness(tmp_path / "base")
    write_harness(tmp_path / "kl", results={"sums": {"exact_match,strict-match": 0.75}})
    (tmp_path / "list.csv").write_text(
        "setting,selector,budget,folder\npair,base,,base\npair,kl,0.1,kl\n"
    )
    _, chapter = read_downstream(tmp_path / "list.csv")
    tables = {sheet.name: sheet.frame for sheet in chapter.sheets}
    assert tables["table12"]["sums_mean"].tolist() == [75.0]
    assert tables["table03"]["average"].tolist() == [25.0]
