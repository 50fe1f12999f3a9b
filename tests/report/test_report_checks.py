"""The tables that say how far a report can be trusted, against other tables and slow ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from diagnostics.report.contexts.analysis import ReportSettings, Results, analyse
from diagnostics.report.contexts.checks import PLACEBOS
from diagnostics.report.contexts.rows import TABLE_SELECTORS
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.headlines import HEADLINES
from diagnostics.statistics.analyses.shown import PROXIES
from diagnostics.statistics.inference.bootstrap import DRAWN

SETTINGS = ReportSettings(top_k=4, draws=200, seed=3)
SAME = 1e-9  # the same number by two ways


@pytest.fixture(scope="module")
def results(small_run: Run) -> Results:
    return analyse([small_run], SETTINGS)


def row_of(table: pd.DataFrame, **wanted: object) -> pd.Series:
    mask = np.logical_and.reduce([(table[k] == v).to_numpy() for k, v in wanted.items()])
    (index,) = np.flatnonzero(mask)
    return table.iloc[index]


def test_every_checkpoint_headline_and_outcome_has_a_row_of_intervals(results: Results) -> None:
    table = results.tables["intervals"]
    keys = set(zip(table["checkpoint"], table["statistic"], table["outcome"], strict=True))
    assert keys == {
        (c, h, o) for c in ("one", "two") for h in HEADLINES for o in ("gain", "gain_rel")
    }
    assert len(table) == len(keys)
    for kind in (*DRAWN, "cr1", "cr3"):
        assert (table[f"{kind}_low"] <= table[f"{kind}_high"]).all()
    for name in HEADLINES:  # a difference of two means has no CR2
        known = table[table["statistic"] == name]["cr2_low"].notna()
        assert known.all() if name not in ("gap", "budget") else not known.any()


def test_answers_have_the_interval_of_the_recommended_kind(results: Results) -> None:
    assert set(results.tables["intervals"]["recommended"]) == {"cr3"}
    for answer in results.answers:
        row = row_of(
            results.tables["intervals"],
            checkpoint=answer.checkpoint,
            statistic=answer.question,
            outcome=answer.outcome,
        )
        assert answer.value.kind == "cr3"
        got = (answer.value.low, answer.value.high)
        assert got == pytest.approx((row["cr3_low"], row["cr3_high"]), abs=SAME)


@pytest.mark.parametrize(
    ("statistic", "table", "column", "where"),
    [
        ("beta", "table09", "gap", {"scope": "all"}),
        ("beta_q3", "table09", "gap", {"scope": "q3"}),
        ("gap", "table01", "gap", {}),
        ("matched", "table01", "matched_gap", {}),
        ("gain", "checkpoints", "gain", None),
    ],
)
@pytest.mark.parametrize(("outcome", "suffix"), [("gain", ""), ("gain_rel", "_rel")])
def test_percentile_intervals_are_those_of_the_papers_tables(
    results: Results,
    statistic: str,
    table: str,
    column: str,
    where: dict[str, str] | None,
    outcome: str,
    suffix: str,
) -> None:
    got = row_of(
        results.tables["intervals"], checkpoint="two", statistic=statistic, outcome=outcome
    )
    here = {} if where is None else {"top_k": 4, **where}
    there = row_of(results.tables[table], checkpoint="two", **here)
    for end in ("", "_low", "_high"):
        assert got[f"percentile{end}"] == pytest.approx(there[f"{column}{end}{suffix}"], abs=SAME)


def test_t_interval_of_a_mean_is_that_of_statsmodels(results: Results) -> None:
    # A regression on a constant, clustered; statsmodels' factor has (N - 1) / (N - 1) = 1 besides.
    tokens = results.tokens[results.tokens["checkpoint"] == "one"]
    groups = np.unique(tokens["prompt_id"].astype(str), return_inverse=True)[1]
    fitted = sm.OLS(tokens["gain"].to_numpy(), np.ones(len(tokens))).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    got = row_of(results.tables["intervals"], checkpoint="one", statistic="gain", outcome="gain")
    low, high = fitted.conf_int()[0]
    assert (got["cr1_low"], got["cr1_high"]) == pytest.approx((low, high), rel=1e-6)


def test_bands_hold_the_numbers_of_table_9_and_every_family(results: Results) -> None:
    table = results.tables["bands"]
    assert set(table["family"]) == {
        "beta by K",
        "beta_q3 by K",
        "gap by K",
        "gap by proxy",
        "gain by selector at 5 %",
    }
    got = row_of(table, checkpoint="one", family="beta by K", member="K = 4")
    there = row_of(results.tables["table09"], checkpoint="one", top_k=4, scope="all")
    assert got["value"] == pytest.approx(there["gap"], abs=SAME)
    assert got["value_low"] == pytest.approx(there["gap_low"], abs=SAME)
    assert (table["band_low"] <= table["value"]).all()
    assert (table["band_high"] >= table["value"]).all()
    proxies = table[(table["family"] == "gap by proxy") & (table["checkpoint"] == "one")]
    assert list(proxies["member"]) == list(PROXIES)


def test_band_of_a_family_of_several_is_wider_than_the_mean_pointwise_interval(
    results: Results,
) -> None:
    for _, family in results.tables["bands"].groupby(["checkpoint", "family"]):
        alone = (family["value_high"] - family["value_low"]).mean()
        together = (family["band_high"] - family["band_low"]).mean()
        assert together > alone


def test_placebo_has_the_answers_number_beside_shuffles_of_it(results: Results) -> None:
    table = results.tables["placebo"]
    assert list(table["statistic"]) == list(PLACEBOS)
    assert set(table["checkpoint"]) == {"one"}
    for name in PLACEBOS:
        (answer,) = (
            a
            for a in results.answers
            if (a.checkpoint, a.question, a.outcome) == ("one", name, "gain")
        )
        got = row_of(table, statistic=name)
        assert got["real"] == pytest.approx(answer.value.estimate, abs=SAME)
        assert got["smallest"] <= got["mean"] <= got["largest"]


def test_first_row_of_definitions_is_the_reports_own_numbers(results: Results) -> None:
    table = results.tables["definitions_differ"]
    assert table["definitions"].iloc[0] == "paper"
    assert table["definitions"].iloc[-1] == "released+leakage"
    own = row_of(table, definitions="paper")
    for name in HEADLINES:
        there = row_of(
            results.tables["intervals"], checkpoint="one", statistic=name, outcome="gain"
        )
        assert own[name] == pytest.approx(there["percentile"], abs=SAME)
        assert own[f"{name}_change"] == 0
        assert own[f"{name}_same"] == "yes"
    leaked = row_of(table, definitions="paper+leakage")
    assert leaked["gain"] == own["gain"]
    assert leaked["beta"] != own["beta"]


def test_overlap_equals_shared_over_all_of_the_kept_positions(results: Results) -> None:
    table = results.tables["selector_overlap"].set_index("selector")
    assert list(table.index) == list(TABLE_SELECTORS)
    matrix = table[[f"jaccard {name}" for name in table.index]].to_numpy()
    np.testing.assert_array_equal(np.diagonal(matrix), 1)
    np.testing.assert_array_equal(matrix, matrix.T)
    # D^L and D^I sort by clipped signals: take both top lists apart by their unclipped scores.
    tokens = results.tokens[results.tokens["checkpoint"] == "one"].reset_index(drop=True)
    kept = -(-len(tokens) // 20)
    by_kl = set(tokens["disagreement"].nlargest(kept).index)
    by_entropy = set(tokens["entropy"].nlargest(kept).index)
    wanted = len(by_kl & by_entropy) / len(by_kl | by_entropy)
    assert table.loc["kl", "jaccard entropy"] == pytest.approx(wanted)


def test_redone_intervals_are_there_when_asked_for_and_differ_from_held_cuts(
    small_run: Run, results: Results
) -> None:
    asked = ReportSettings(top_k=4, draws=200, seed=3, redo_cuts=True)
    table = analyse([small_run], asked).tables["intervals"]
    assert results.tables["intervals"]["redone"].isna().all()
    for name in ("gain", "beta", "beta_q3", "gap"):
        row = row_of(table, checkpoint="one", statistic=name, outcome="gain")
        assert row["redone"] == pytest.approx(row["percentile"], abs=SAME)
        same = row["redone_low"] == pytest.approx(row["percentile_low"], abs=SAME)
        assert same == (name == "gain")  # a mean over the bank has no cuts to redo
    for name in ("matched", "budget"):
        assert np.isnan(row_of(table, checkpoint="one", statistic=name, outcome="gain")["redone"])


@pytest.mark.parametrize("kind", ["bca", "studentized"])
def test_kind_of_interval_is_that_of_every_table(small_run: Run, kind: str) -> None:
    chosen = ReportSettings(top_k=4, draws=200, seed=3, interval=kind)
    made = analyse([small_run], chosen).tables
    for name, column, where in (("table01", "gap", {}), ("table09", "gap", {"scope": "all"})):
        got = row_of(made[name], checkpoint="two", top_k=4, **where)
        statistic = "gap" if name == "table01" else "beta"
        there = row_of(made["intervals"], checkpoint="two", statistic=statistic, outcome="gain")
        assert got[f"{column}_low"] == pytest.approx(there[f"{kind}_low"], abs=SAME)
        assert got[f"{column}_low"] != pytest.approx(there["percentile_low"], abs=SAME)
