"""A report says what its tables say, in the contract's columns, on a page that loads nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import require_alone
from run_on_disk import write_run
from twins import md_rows, tex_rows

from diagnostics.errors import InputError
from diagnostics.report.chapters import record
from diagnostics.report.contexts.analysis import ReportSettings, Results, analyse
from diagnostics.report.contexts.chapter import contexts_chapter
from diagnostics.report.figures import PLANS
from diagnostics.report.page import render_page, symbols
from diagnostics.report.tables.views import number
from diagnostics.report.write import write_report
from diagnostics.scoring.run import Run
from diagnostics.statistics.inference.bootstrap import Interval

SETTINGS = ReportSettings(top_k=4, draws=200, seed=3)

# CONTRACT.md, "Table columns", written out.
CONTRACT_COLUMNS = {
    "table01": "top_k n_contexts n_positions n_q3 gap gap_low gap_high matched_gap "
    "matched_gap_low matched_gap_high",
    "table05": "n_contexts n_prompts n_positions use",
    "table06": "top_k proxy n_positions gap gap_low gap_high tied_share",
    "table08": "top_k selector budget n_kept gain gain_low gain_high gain_per_keep q3_share "
    "entropy_norm disagreement_norm compatibility_norm tied_share",
    "table09": "top_k scope n_positions n_q3 beta_l beta_i gap gap_low gap_high "
    "delta_r2_decomposed delta_r2_compatibility",
}


@pytest.fixture(scope="module")
def results(small_run: Run) -> Results:
    return analyse([small_run], SETTINGS)


@pytest.fixture(scope="module")
def folder(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report([small_run], out, SETTINGS)
    return out


@pytest.mark.parametrize("name", CONTRACT_COLUMNS)
def test_csv_has_the_contracts_columns_with_run_and_checkpoint_first(
    folder: Path, name: str
) -> None:
    table = pd.read_csv(folder / "tables" / f"{name}.csv")
    wanted = CONTRACT_COLUMNS[name].split()
    assert list(table.columns[: 2 + len(wanted)])[:2] == ["run", "checkpoint"]
    assert set(wanted) <= set(table.columns)
    assert not table[wanted].isna().any().any()


@pytest.mark.parametrize("name", CONTRACT_COLUMNS)
def test_every_table_has_its_twins(folder: Path, name: str) -> None:
    rows = len(pd.read_csv(folder / "tables" / f"{name}.csv"))
    markdown = (folder / "tables" / f"{name}.md").read_text()
    latex = (folder / "tables" / f"{name}.tex").read_text()
    assert md_rows(markdown) == rows
    assert tex_rows(latex) == rows
    assert r"\toprule" in latex


@pytest.mark.parametrize("suffix", ["png", "pdf"])
@pytest.mark.parametrize("name", PLANS)
def test_figures_are_written(folder: Path, name: str, suffix: str) -> None:
    start = (folder / "figures" / f"{name}.{suffix}").read_bytes()[:4]
    assert start == {"png": b"\x89PNG", "pdf": b"%PDF"}[suffix]


def test_results_json_holds_the_csv_numbers_and_their_origin(folder: Path) -> None:
    record = json.loads((folder / "results.json").read_text())
    assert (record["definitions"], record["seed"], record["draws"]) == ("paper", 3, 200)
    assert record["runs"][0]["bank_digest"] == "b" * 64
    assert len(record["runs"][0]["run_digest"]) == 64
    for name in CONTRACT_COLUMNS:
        stored = pd.DataFrame(record["tables"][name])
        written = pd.read_csv(folder / "tables" / f"{name}.csv")
        assert set(written.pop("definitions")) == {"paper"}
        pd.testing.assert_frame_equal(stored, written, check_dtype=False, rtol=1e-12)


@pytest.mark.parametrize("name", CONTRACT_COLUMNS)
def test_every_twin_of_a_table_names_its_definition_set(folder: Path, name: str) -> None:
    for suffix in ("md", "tex"):
        assert "Definitions: paper." in (folder / "tables" / f"{name}.{suffix}").read_text()


@pytest.mark.parametrize("name", PLANS)
def test_every_figure_names_its_definition_set(folder: Path, name: str) -> None:
    assert b"definitions: paper" in (folder / "figures" / f"{name}.png").read_bytes()
    assert b"definitions: paper" in (folder / "figures" / f"{name}.pdf").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_same_report_written_twice_has_the_same_numbers(
    small_run: Run, folder: Path, tmp_path: Path
) -> None:
    write_report([small_run], tmp_path, SETTINGS)
    assert (tmp_path / "results.json").read_text() == (folder / "results.json").read_text()


def test_page_loads_nothing_and_runs_its_own_script_alone(folder: Path) -> None:
    assert len(require_alone(folder / "report.html").scripts) == 2  # page, token viewer


@pytest.mark.usefixtures("undrawn")
def test_names_in_the_page_are_never_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", name="<img src=x>&", prompts=6)
    write_report([run], tmp_path / "report", SETTINGS)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<img" not in page
    assert "&lt;img src=x&gt;&amp;" in page


@pytest.mark.slow
def test_a_page_of_six_checkpoints_opens_with_the_first_ones_quadrants(tmp_path: Path) -> None:
    run = write_run(tmp_path, prompts=6, checkpoints={f"step{i}": 0.1 * i for i in range(1, 7)})
    page = render_page([contexts_chapter(analyse([run], SETTINGS))], {})
    section = re.search('<section id="quadrants".*?</section>', page, re.DOTALL)
    assert section
    assert "All 24 rows" in section.group()
    lead = section.group().split("<details ")[0]
    assert (lead.count("step1"), lead.count("step2")) == (4, 0)


def test_answers_say_what_their_intervals_say(results: Results) -> None:
    table = results.tables["table09"]
    row = table[(table.checkpoint == "one") & (table.scope == "all") & (table.top_k == 4)].iloc[0]
    for outcome, suffix in (("gain", ""), ("gain_rel", "_rel")):
        answer = next(
            a
            for a in results.answers
            if (a.checkpoint, a.question, a.outcome) == ("one", "beta", outcome)
        )
        assert answer.value.estimate == pytest.approx(row[f"gap{suffix}"], rel=1e-12)
        assert (answer.value.kind, answer.value.reason) == ("cr3", "")
        assert answer.verdict() == answer.value.verdict(answer.noise)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.2, "yes"), (-0.2, -0.1, "no"), (-0.1, 0.1, "unclear"), (np.nan, np.nan, "unclear")],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(
    low: float, high: float, verdict: str
) -> None:
    assert Interval(0.0, low, high).verdict() == verdict


def test_checkpoint_gain_is_the_difference_of_mean_kls(results: Results) -> None:
    table = results.tables["checkpoints"]
    assert np.allclose(table["gain"], table["kl_0"] - table["kl"], atol=1e-12)


def test_quadrant_shares_add_up(results: Results) -> None:
    shares = results.tables["quadrants"].groupby("checkpoint")["share"].sum()
    assert np.allclose(shares, 1.0)


def test_the_papers_figures_stand_beside_ours(results: Results) -> None:
    beside = record([contexts_chapter(results)])["paper"]
    assert list(beside) == ["table01", "table05", "table06", "table08", "table09"]
    assert [row["gap"] for row in beside["table09"]] == [0.041, 0.044, 0.044]
    assert len(beside["table08"]) == 12


def test_numbers_that_give_no_goal_say_why_and_others_how_many_prompts_more(
    results: Results,
) -> None:
    design = results.tables["design"].assign(prompts_needed=None, reason="0 lies in it")
    design = design.astype({"prompts_needed": object})
    none = replace(results, tables=results.tables | {"design": design})
    card = contexts_chapter(none).cards[-1]
    assert {(r.word, r.remarks) for r in card.replies} == {("No goal", ("0 lies in it",))}
    some = design.assign(prompts=24.0, prompts_needed=[20.0, 24.0, 25.0, 1024.0, 7.0, 30.0])
    card = contexts_chapter(replace(results, tables=results.tables | {"design": some})).cards[-1]
    words = ["Enough", "Enough", "+1 prompt", "+1,000 prompts", "", "+6 prompts"]
    said = dict(zip(some["statistic"], words, strict=True))
    asked = ("beta", "beta_q3", "gap", "budget")
    assert [r.word for r in card.replies] == [said[name] for name in asked]


def test_one_prompt_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, prompts=1)
    with pytest.raises(InputError, match="expected at least two prompts: one cluster has no inter"):
        analyse([run], SETTINGS)


def test_k_beyond_the_run_is_refused(small_run: Run) -> None:
    with pytest.raises(
        InputError, match="expected --top-k from 1 to 8, what the run stored, got 9"
    ):
        analyse([small_run], ReportSettings(top_k=9))


def test_two_runs_of_one_name_are_refused(small_run: Run) -> None:
    with pytest.raises(InputError, match="expected runs of different names, got small, small"):
        analyse([small_run, small_run], SETTINGS)


def test_two_runs_stand_side_by_side(small_run: Run, tmp_path: Path) -> None:
    other = write_run(tmp_path, name="other", seed=1, prompts=8)
    table = analyse([small_run, other], SETTINGS).tables["table05"]
    assert list(table["run"]) == ["small", "small", "other", "other"]
    assert list(table["n_prompts"]) == [24, 24, 8, 8]
    assert set(table["use"]) == {"boundary only"}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_report_of_the_set_released_says_so_and_has_its_d(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", prompts=6)
    settings = ReportSettings(top_k=4, draws=100, definitions="released")
    page = write_report([run], tmp_path / "report", settings)
    record = json.loads((page.parent / "results.json").read_text())
    assert record["definitions"] == "released"
    signals = pd.DataFrame(record["tables"]["signals"]).set_index(["top_k", "signal"])["mean"]
    assert signals[4, "disagreement"] == signals[4, "kl_0"] == run.student().kl.mean()


def test_symbols_are_set_and_text_is_escaped() -> None:
    assert symbols("D^L < β_I") == "D<sup>L</sup> &lt; β<sub>I</sub>"
    assert symbols("table_08 x^L") == "table_08 x^L"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.1234, "−0.123"),
        (12.3456, "12.346"),
        (0.00123, "0.00123"),
        (1e-9, "1.00e−09"),
    ],
)
def test_numbers_have_three_digits_and_a_real_minus(value: float, text: str) -> None:
    assert number(value) == text
