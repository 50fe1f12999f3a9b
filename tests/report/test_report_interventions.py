"""The report of trained masks says what its tables say, gain and contrast under their own names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from pages import require_alone
from run_on_disk import write_run
from schema_check import faults_of
from twins import md_rows, tex_rows

from diagnostics.report.chapters import Chapter, Sheet
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.figures import figure_style
from diagnostics.report.live.analysis import LiveResults, analyse_arms
from diagnostics.report.live.arms import NOTHING, report_arms
from diagnostics.report.live.figures import (
    FIGURES,
    budget_curve,
    curves,
    figure3b_live,
    figure4,
    selectors,
)
from diagnostics.report.tables.views import Shown, View
from diagnostics.report.write import write_chapters
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.budgets import top_n
from diagnostics.statistics.analyses.interventions import Arm
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.statistics.tables.tokens import token_table

SETTINGS = ReportSettings(top_k=4, draws=60, seed=3)

# CONTRACT.md, "Table columns", written out.
CONTRACT_COLUMNS = {
    "table02": "selector budget keep gain gain_low gain_high gain_per_keep contrast contrast_low "
    "contrast_high q3_share seeds",
    "table07": "mask keep gain gain_low gain_high contrast matched_gap learnable incompatible "
    "compatibility",
    "table08": "top_k selector budget n_kept gain gain_low gain_high gain_per_keep q3_share "
    "entropy_norm disagreement_norm compatibility_norm tied_share",
    "table10": "selector budget keep gain gain_sd contrast contrast_sd matched_gap seeds",
}
MASKS: tuple[tuple[Selector, float], ...] = (
    ("full", 1.0),
    ("teachability", 0.05),
    ("teachability", 0.1),
    ("teachability", 0.2),
    ("random", 0.05),
    ("random", 0.1),
    ("q3+high-dl", 0.05),
    ("q3+low-dl", 0.05),
    ("q3+high-di", 0.05),
)
ARMS = tuple(
    Arm(
        checkpoint=f"{selector}-{budget:g}-{seed}",
        selector=selector,
        budget=budget,
        seed=seed,
        keep=budget,
        held_out_kl=0.6,
    )
    for selector, budget in MASKS
    for seed in (0, 1)
)
MISSING = {"kl-0.05-0": "the loss was <NaN> at step 3"}
EXTRA = Sheet(
    name="table03",
    frame=pd.DataFrame(
        {"setting": ["a <b> pair"], "budget": [0.1], "selector": ["full"], "average": [41.5]}
    ),
    view=View(
        "Table 3: downstream",
        "Exact accuracy.",
        (Shown("setting", "setting", "text"), Shown("average", "average")),
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    moves = {a.checkpoint: 0.1 + 0.02 * place for place, a in enumerate(ARMS)}
    return write_run(tmp_path_factory.mktemp("run"), prompts=10, checkpoints=moves)


@pytest.fixture(scope="module")
def analysed(run: Run) -> Callable[..., LiveResults]:
    keys = ("missing", "training")
    return lambda arms=ARMS: analyse_arms(run, arms, SETTINGS, **dict.fromkeys(keys, NOTHING))


@pytest.fixture(scope="module")
def results(analysed: Callable[..., LiveResults]) -> LiveResults:
    return analysed()


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    chapter = report_arms(
        run, ARMS, SETTINGS, extra=[EXTRA], missing=MISSING, training={"steps": 40}
    )
    assert write_chapters([chapter], out) == out / "report.html"
    return out


def dots(axis: Axes) -> list[tuple[float, float]]:
    """Filled or hollow estimates on an axis, in the order they were drawn."""
    lines = [line for line in axis.get_lines() if line.get_marker() == "o"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


@pytest.mark.parametrize("name", CONTRACT_COLUMNS)
def test_csv_has_the_contracts_columns_with_run_and_checkpoint_first(
    folder: Path, name: str
) -> None:
    table = pd.read_csv(folder / "tables" / f"{name}.csv")
    wanted = CONTRACT_COLUMNS[name].split()
    assert list(table.columns[:2]) == ["run", "checkpoint"]
    assert set(wanted) <= set(table.columns)
    assert not table[wanted].isna().any().any()


@pytest.mark.parametrize("name", [*CONTRACT_COLUMNS, "targets", "arms", "mask_answers", "missing"])
def test_every_table_has_its_twins(folder: Path, name: str) -> None:
    rows = len(pd.read_csv(folder / "tables" / f"{name}.csv"))
    markdown = (folder / "tables" / f"{name}.md").read_text()
    latex = (folder / "tables" / f"{name}.tex").read_text()
    assert md_rows(markdown) == rows
    assert tex_rows(latex) == rows
    assert "Definitions: paper." in markdown


def test_results_json_holds_the_csv_numbers_and_their_origin(folder: Path) -> None:
    record = json.loads((folder / "results.json").read_text())
    assert (record["definitions"], record["seed"], record["draws"]) == ("paper", 3, 60)
    assert record["chapters"][0]["making"] == {"steps": 40}
    assert record["runs"][0]["bank_digest"] == "b" * 64
    assert [arm["seed"] for arm in record["runs"][0]["arms"]] == [0, 1] * len(MASKS)
    for name in CONTRACT_COLUMNS:
        stored = pd.DataFrame(record["tables"][name])
        written = pd.read_csv(folder / "tables" / f"{name}.csv")
        assert set(written.pop("definitions")) == {"paper"}
        pd.testing.assert_frame_equal(
            stored.fillna(np.nan).replace("", np.nan), written, check_dtype=False, rtol=1e-12
        )


def test_results_json_is_valid_by_its_schema(folder: Path) -> None:
    assert faults_of(folder) == []


def test_rows_name_every_checkpoint_they_are_averaged_over(results: LiveResults) -> None:
    row = results.tables["table02"].set_index(["selector", "budget"]).loc[("random", 0.1)]
    assert row["checkpoint"] == "random-0.1-0, random-0.1-1"
    assert row["seeds"] == 2


def test_gain_is_the_mean_and_contrast_another_number(results: LiveResults, run: Run) -> None:
    table = results.tables["table02"].set_index(["selector", "budget"])
    arms = results.tables["arms"].set_index("checkpoint")
    for name, arm in arms.iterrows():
        gain = token_table(run, 4, [str(name)])["gain"]
        assert arm["gain"] == pytest.approx(gain.mean(), rel=1e-9)
    for mask, row in table.iterrows():
        own = arms[(arms["selector"] == mask[0]) & (arms["budget"] == mask[1])]
        assert row["gain"] == pytest.approx(own["gain"].mean(), rel=1e-9)
        assert row["contrast"] == pytest.approx(own["contrast"].mean(), rel=1e-9)
        assert row["gain"] != pytest.approx(row["contrast"], rel=1e-3)


def test_table_10_has_every_selector_of_several_budgets_and_no_other(results: LiveResults) -> None:
    table = results.tables["table10"]
    wanted = [("teachability", b) for b in (0.05, 0.1, 0.2)] + [("random", b) for b in (0.05, 0.1)]
    assert list(zip(table["selector"], table["budget"], strict=True)) == wanted


def test_table_7_has_the_three_q3_masks(results: LiveResults) -> None:
    assert list(results.tables["table07"]["mask"]) == ["q3+high-dl", "q3+low-dl", "q3+high-di"]


def test_table_8_of_one_seed_is_top_n_of_the_full_checkpoint(
    run: Run, analysed: Callable[..., LiveResults]
) -> None:
    table = analysed([a for a in ARMS if a.seed == 0]).tables["table08"]
    row = table[(table["selector"] == "teachability") & (table["budget"] == 0.1)].iloc[0]
    found = top_n(token_table(run, 4, ["full-1-0"]), "teachability", 0.1, SETTINGS.bootstrap)
    assert (row["gain"], row["gain_low"]) == pytest.approx((found.gain.estimate, found.gain.low))
    assert row["n_kept"] == found.n_kept


def test_differences_of_gain_are_those_of_the_table(results: LiveResults) -> None:
    table = results.tables["table02"].set_index(["selector", "budget"])
    row = table.loc[("teachability", 0.1)]
    random, full = table.loc[("random", 0.1)]["gain"], table.loc[("full", 1.0)]["gain"]
    assert row["vs_random"] == pytest.approx(row["gain"] - random, abs=1e-12)
    assert row["vs_full"] == pytest.approx(row["gain"] - full, abs=1e-12)
    assert np.isnan(table.loc[("teachability", 0.2)]["vs_random"])


def test_noise_stands_beside_gains_and_twice_beside_their_differences(
    results: LiveResults,
) -> None:
    table = results.tables["targets"]
    noise = results.tables["table02"]["gain_noise"]
    assert (noise > 0).all()
    assert results.noise["gain"] == noise.max()
    assert np.allclose(table["vs_random_noise"], 2 * noise.max())
    assert "Noise of scoring (batch)" in results.note_of("targets")


def test_one_seed_shows_a_dash_for_its_deviation(analysed: Callable[..., LiveResults]) -> None:
    few = analysed([a for a in ARMS if a.seed == 0])
    assert few.tables["table02"]["gain_sd"].isna().all()
    said = [reply.word for one in few.asked for reply in one.card.replies]
    assert "Not known" in said


def test_answers_name_the_mask_with_the_largest_gain_at_each_budget(results: LiveResults) -> None:
    table = results.tables["table02"]
    for budget, reply in zip((0.05, 0.1), results.asked[0].card.replies, strict=True):
        rows = table[(table["budget"] == budget) & (table["selector"] != "full")]
        assert reply.word == rows.loc[rows["gain"].idxmax(), "selector"]
        assert any("than random" in r for r in reply.remarks) or reply.word == "random"
        best = rows.loc[rows["gain"].idxmax()]
        drawn = [reply.estimate, reply.low, reply.high]
        assert drawn == pytest.approx([best["gain"], best["gain_low"], best["gain_high"]], rel=1e-9)


def test_the_card_of_peaks_says_the_budget_with_the_largest_gain(results: LiveResults) -> None:
    table = results.tables["table10"]
    own = table[table["selector"] == "teachability"]
    reply = next(r for r in results.asked[2].card.replies if r.outcome == "teachability, gain")
    best = own.loc[own["gain"].idxmax(), "budget"]
    assert reply.word == f"{100 * best:g} %"


def test_masks_that_were_not_trained_have_no_table_figure_or_question(
    run: Run, tmp_path: Path
) -> None:
    arms = [a for a in ARMS if a.mask in (("teachability", 0.1), ("random", 0.1))]
    write_chapters([report_arms(run, arms, SETTINGS)], tmp_path)
    drawn = sorted(p.stem for p in (tmp_path / "figures").glob("*.png"))
    assert drawn == ["selectors"]
    names = {p.stem for p in (tmp_path / "tables").glob("*.csv")}
    assert names == {"table02", "targets", "arms", "mask_answers", "noise"}
    page = (tmp_path / "report.html").read_text()
    assert "full was not trained here" in page
    assert "budget curve peak" not in page


def test_the_forest_shows_gains_largest_first(results: LiveResults) -> None:
    with figure_style():
        figure = selectors(results.drawn)
    table = results.tables["table02"]
    assert results.budgets == (0.05,)  # 10 % has fewer than half of its masks
    rows = table[(table["budget"] == 0.05)].sort_values("gain")
    (axis,) = figure.axes
    assert [x for x, _ in dots(axis)] == pytest.approx(list(rows["gain"]))
    assert [label.get_text() for label in axis.get_yticklabels()] == list(rows["selector"])
    seeds = np.concatenate([c.get_offsets()[:, 0] for c in axis.collections])
    arms = results.tables["arms"]
    own = arms[arms["budget"] == 0.05]["gain"]
    assert sorted(seeds) == pytest.approx(sorted(own))


@pytest.mark.parametrize(("panel", "number"), [(0, "gain"), (1, "contrast")])
def test_figure_3b_shows_table_7_and_each_seed(
    results: LiveResults, panel: int, number: str
) -> None:
    with figure_style():
        figure = figure3b_live(results.drawn)
    axis = figure.axes[panel]
    assert [y for _, y in dots(axis)] == pytest.approx(list(results.tables["table07"][number]))
    assert sum(len(c.get_offsets()) for c in axis.collections) == 6


@pytest.mark.parametrize(("panel", "number"), [(0, "gain"), (1, "contrast")])
def test_the_curve_shows_selectors_of_three_budgets_over_log_budget(
    results: LiveResults, panel: int, number: str
) -> None:
    table = results.tables["table10"]
    assert curves(table) == ["teachability"]
    with figure_style():
        figure = budget_curve(results.drawn)
    axis = figure.axes[panel]
    assert axis.get_xscale() == "log"
    rows = table[table["selector"] == "teachability"]
    assert dots(axis) == [pytest.approx(p) for p in zip(rows["budget"], rows[number], strict=True)]


def test_figure_4_shows_gains_and_per_keep_of_table_8(results: LiveResults) -> None:
    with figure_style():
        figure = figure4(results.drawn)
    table = results.tables["table08"]
    own = table[table["budget"] == 0.05].set_index("selector")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert set(labels) == set(own.index)
    for axis, column in zip(figure.axes, ("gain", "gain_per_keep"), strict=True):
        found = dict(p for line in axis.get_lines() if line.get_marker() == "o" for p in xy(line))
        assert found == pytest.approx({y: own[column][name] for y, name in enumerate(labels)})


def xy(line: Line2D) -> Iterator[tuple[float, float]]:
    """(y, x) of a line's points."""
    return zip(line.get_ydata(), line.get_xdata(), strict=True)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_written_and_in_the_page(folder: Path, name: str) -> None:
    assert (folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "figures" / f"{name}.pdf").read_bytes()[:4] == b"%PDF"
    assert f'<figure id="{name}" ' in (folder / "report.html").read_text()


def test_page_loads_nothing_and_runs_its_own_script_alone(folder: Path) -> None:
    assert len(require_alone(folder / "report.html").scripts) == 1


def test_the_page_names_missing_arms_and_extra_tables_and_escapes_them(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "1 arm has no numbers. kl-0.05-0: the loss was &lt;NaN&gt; at step 3." in page
    assert "Table 3: downstream" in page
    assert "a &lt;b&gt; pair" in page
    assert "<NaN>" not in page


def test_names_in_the_page_are_never_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", name="<img src=x>&", prompts=6, checkpoints={"a": 0.3})
    arm = replace(ARMS[2], checkpoint="a")
    chapter = report_arms(run, [arm], SETTINGS, missing={"<b>": "x"}, training={"<i>": "<u>"})
    page = write_chapters([chapter], tmp_path).read_text()
    assert "<img" not in page
    assert "&lt;img src=x&gt;&amp;" in page
    assert not re.search("<[bu]>|<i>", page)


def test_an_extra_table_of_a_taken_name_gets_one_of_its_own(run: Run, tmp_path: Path) -> None:
    chapter: Chapter = report_arms(run, ARMS, SETTINGS, extra=[replace(EXTRA, name="table02")])
    write_chapters([chapter], tmp_path)
    own = pd.read_csv(tmp_path / "tables" / "table02_interventions.csv")
    assert own["average"].tolist() == [41.5]
    assert "gain" in pd.read_csv(tmp_path / "tables" / "table02.csv")
