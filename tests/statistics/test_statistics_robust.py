"""CR1 to CR3 against statsmodels, clubSandwich, Stata, pyfixest, whole hat matrices and refits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import eigh
from statsmodels.datasets import grunfeld

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.formulas import formula_estimator
from diagnostics.statistics.analyses.headlines import headline
from diagnostics.statistics.inference.bootstrap import standard_error
from diagnostics.statistics.inference.estimators import Difference, Mean
from diagnostics.statistics.inference.least_squares import (
    Contrast,
    LeastSquares,
    cross_sums,
    standardized,
)
from diagnostics.statistics.inference.robust import (
    ROBUST,
    RobustKind,
    robust_error,
    robust_interval,
    robust_table,
)

EXACT = 1e-9  # p x p pieces against n x n matrices
PRINTED = 2e-10  # Stata's numbers are quoted to ten digits after the point

CLUBSANDWICH: dict[str, Any] = json.loads(
    (Path(__file__).parent / "clubsandwich.json").read_text(encoding="utf-8")
)
few = settings(max_examples=20, deadline=None, derandomize=True, database=None)

NAMES = ("entropy_norm", "learnable", "incompatible", "relative_position")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return reference.make_frame(seed=21, prompts=8, rollouts=2, length=14)


def estimator_of(rows: pd.DataFrame, names: Sequence[str] = NAMES) -> LeastSquares:
    owner = np.unique(rows["prompt_id"], return_inverse=True)[1]
    columns = [rows[name].to_numpy() - rows[name].mean() for name in (*names, "gain")]
    contrasts = [Contrast(name=n, model="all", weights={n: 1.0}) for n in names]
    contrasts += [Contrast(name="pair", model="all", weights={names[1]: 1.0, names[2]: -1.0})]
    contrasts += [Contrast(name="r2", model="all", weights={}, over="")]
    return LeastSquares(
        predictors=tuple(names),
        sums=standardized(cross_sums(columns, owner, owner.max() + 1), names),
        models={"all": tuple(names)},
        contrasts=tuple(contrasts),
    )


def design(
    rows: pd.DataFrame, names: Sequence[str] = NAMES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[1, z-scored predictors], outcome and cluster numbers of the rows."""
    x = rows[list(names)].to_numpy()
    x = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    return x, rows["gain"].to_numpy(), np.unique(rows["prompt_id"], return_inverse=True)[1]


def weights_of(index: int) -> np.ndarray:
    """c of a number: one coefficient, or learnable less incompatible."""
    c = np.zeros(5)
    if index == 4:
        c[2], c[3] = 1, -1
    else:
        c[index + 1] = 1
    return c


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """A power of a symmetric matrix, its null space left out."""
    values, vectors = eigh(matrix)
    kept = values > 1e-8
    return (vectors[:, kept] * values[kept] ** exponent) @ vectors[:, kept].T


def slow_cr2(rows: pd.DataFrame, index: int) -> tuple[float, float]:
    """CR2 and Satterthwaite degrees of freedom with whole n x n matrices."""
    x, y, owner = design(rows)
    bread = np.linalg.inv(x.T @ x)
    residual_maker = np.eye(len(x)) - x @ bread @ x.T
    residuals, c = residual_maker @ y, weights_of(index)
    variance, effects = 0.0, []
    for cluster in range(owner.max() + 1):
        mine = owner == cluster
        adjust = power(residual_maker[np.ix_(mine, mine)], -0.5)
        row = c @ bread @ x[mine].T @ adjust  # (n_g,)
        variance += float(row @ residuals[mine]) ** 2
        effects.append(residual_maker[:, mine] @ row)  # the effect as a function of errors
    covariance = np.array(effects) @ np.array(effects).T
    return math.sqrt(variance), float(np.trace(covariance) ** 2 / (covariance**2).sum())


@pytest.mark.parametrize("index", range(5))
def test_cr1_equals_statsmodels(rows: pd.DataFrame, index: int) -> None:
    x, y, owner = design(rows)
    fitted = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": owner}, use_t=True)
    wanted = fitted.t_test(weights_of(index))
    got = robust_error(estimator_of(rows), index, "cr1")
    assert got.error == pytest.approx(float(wanted.sd[0, 0]), rel=EXACT)
    assert got.degrees == 7
    value = float(wanted.effect[0])
    assert got.p_value(value) == pytest.approx(float(wanted.pvalue), rel=1e-6)
    low, high = wanted.conf_int()[0]
    interval = robust_interval(estimator_of(rows), "cr1", index)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=EXACT)


@pytest.mark.parametrize("index", range(5))
def test_cr2_equals_the_definition_with_whole_matrices(rows: pd.DataFrame, index: int) -> None:
    error, degrees = slow_cr2(rows, index)
    got = robust_error(estimator_of(rows), index, "cr2")
    assert (got.error, got.degrees) == pytest.approx((error, degrees), rel=EXACT)


def test_cr2_where_one_prompt_alone_determines_a_direction(rows: pd.DataFrame) -> None:
    # A predictor that varies in one prompt only: 1 - leverage is 0 there, pseudo-inverted.
    first = rows["prompt_id"] == min(rows["prompt_id"])
    changed = rows.assign(relative_position=rows["relative_position"].where(first, 0.25))
    error, degrees = slow_cr2(changed, 1)
    got = robust_error(estimator_of(changed), 1, "cr2")
    assert (got.error, got.degrees) == pytest.approx((error, degrees), rel=1e-6)


@pytest.mark.parametrize("index", range(5))
def test_cr3_equals_refits_without_each_prompt(rows: pd.DataFrame, index: int) -> None:
    x, y, owner = design(rows)
    whole = np.linalg.lstsq(x, y, rcond=None)[0]
    away = [
        weights_of(index) @ (np.linalg.lstsq(x[owner != g], y[owner != g], rcond=None)[0] - whole)
        for g in range(8)
    ]
    wanted = math.sqrt(7 / 8 * math.fsum(a * a for a in away))
    got = robust_error(estimator_of(rows), index, "cr3")
    assert got.error == pytest.approx(wanted, rel=EXACT)
    assert got.degrees == 7


def test_welch_is_cr2_of_two_groups_with_a_cluster_a_row() -> None:
    # With every row a cluster and one group indicator, CR2 is Welch's two-sample t: its error and
    # its degrees of freedom (Imbens and Kolesar 2016, doi:10.1162/REST_a_00552, section II.B).
    rng = np.random.default_rng(0)
    y = rng.normal(size=11)
    group = np.array([1.0] * 4 + [0.0] * 7)
    rows = pd.DataFrame({"g": group, "gain": y})
    spread = group.std()
    sums = cross_sums([group - group.mean(), y - y.mean()], np.arange(11), 11)
    estimator = LeastSquares(
        predictors=("g",),
        sums=standardized(sums, ("g",)),
        models={"all": ("g",)},
        contrasts=(Contrast(name="g", model="all", weights={"g": 1 / spread}),),
    )
    one, two = (rows["gain"][rows["g"] == g] for g in (1.0, 0.0))
    welch = stats.ttest_ind(one, two, equal_var=False)
    got = robust_error(estimator, 0, "cr2")
    assert got.error == pytest.approx(math.sqrt(one.var() / 4 + two.var() / 7), rel=EXACT)
    assert got.p_value(one.mean() - two.mean()) < 1
    # Satterthwaite under equal variances: (s/4 + s/7)^2 / ((s/4)^2/3 + (s/7)^2/6).
    wanted = (1 / 4 + 1 / 7) ** 2 / ((1 / 4) ** 2 / 3 + (1 / 7) ** 2 / 6)
    assert got.degrees == pytest.approx(wanted, rel=EXACT)
    assert math.isfinite(welch.df)


def test_mean_of_equal_clusters_has_the_error_and_interval_of_a_t_test() -> None:
    values = np.random.default_rng(1).normal(size=12)
    mean = Mean(values, np.ones(12))
    wanted = stats.ttest_1samp(values, 0.0)
    low, high = wanted.confidence_interval(0.95)
    for kind in ("cr1", "cr3"):  # the jackknife of a mean of equals is its textbook error
        got = robust_interval(mean, kind)
        assert (got.low, got.high) == pytest.approx((low, high), rel=EXACT)
        error = robust_error(mean, 0, kind)
        assert error.p_value(values.mean()) == pytest.approx(wanted.pvalue, rel=EXACT)


@pytest.mark.parametrize("name", ["gain", "gap", "matched", "budget", "beta", "beta_q3"])
@pytest.mark.parametrize("kind", ["cr1", "cr3"])
def test_every_headline_number_has_both(name: str, kind: RobustKind) -> None:
    frame = reference.make_frame(seed=3, prompts=12, rollouts=2, length=40)
    got = robust_interval(headline(frame, name), kind)
    assert got.low < got.estimate < got.high
    assert got.kind == kind


def test_one_prompt_has_no_interval(rows: pd.DataFrame) -> None:
    got = robust_interval(estimator_of(rows.assign(prompt_id="only")), "cr2", 1)
    assert math.isnan(got.low)
    assert got.reason == "1 prompt: no interval from one cluster"


def test_one_prompt_has_no_error() -> None:
    with pytest.raises(InputError) as caught:
        robust_error(Mean(np.array([1.0]), np.array([1.0])), 0, "cr1")
    assert str(caught.value) == (
        "cluster-robust error: expected at least two prompts, got 1; build a bank of more prompts"
    )


def test_cr2_of_r2_is_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(InputError) as caught:
        robust_error(estimator_of(rows), 5, "cr2")
    assert str(caught.value) == (
        "cluster-robust error: expected a coefficient for cr2, got r2; ask for cr1 or cr3"
    )
    assert robust_interval(estimator_of(rows), "cr2", 5).reason == "cr2 is of coefficients alone"


def test_jackknife_without_a_value_is_refused() -> None:
    # The second mean has rows in one prompt alone.
    pair = Difference(Mean(np.ones(3), np.ones(3)), Mean(np.eye(3)[0], np.eye(3)[0]))
    with pytest.raises(InputError) as caught:
        robust_error(pair, 0, "cr3")
    assert str(caught.value) == (
        "cluster-robust error: expected a value of mean without any one prompt, got none without "
        "one of 1 prompts; ask for cr1, or build a bank of more prompts"
    )
    assert robust_interval(pair, "cr3").reason == "no value without one of 1 prompts"


def test_equal_prompts_have_no_spread_and_no_interval() -> None:
    got = robust_interval(Mean(np.full(4, 2.0), np.full(4, 2.0)), "cr1")
    assert got.reason == "no spread between prompts"


def clubsandwich_case(name: str) -> tuple[LeastSquares, dict[str, dict[str, float]]]:
    case = CLUBSANDWICH[name]
    table = pd.DataFrame({key: value for key, value in case.items() if isinstance(value, list)})
    table["prompt_id"] = [f"p{cluster:02d}" for cluster in table["cluster"]]
    return formula_estimator(case["formula"], table), case["terms"]


@pytest.mark.parametrize("name", ["singletons_present", "absorbed_fe_did"])
def test_cr2_and_its_degrees_equal_clubsandwich(name: str) -> None:
    # R's package; source in the file. Clusters of one row, and a design in which every cluster
    # alone determines its own mean, so that I - H_gg is singular and pseudo-inverted.
    estimator, terms = clubsandwich_case(name)
    table = robust_table(estimator, ("cr2",)).set_index("name")
    for term, wanted in terms.items():
        got = table.loc[term]
        assert got["estimate"] == pytest.approx(wanted["coef"], rel=1e-12)
        assert got["error"] ** 2 == pytest.approx(wanted["variance"], rel=1e-12)
        assert got["degrees"] == pytest.approx(wanted["degrees"], rel=1e-12)


def wavy() -> tuple[pd.DataFrame, np.ndarray]:
    """The 20 rows of dfadjust's test and their three clusters.

    github.com/kolesarm/Robust-Small-Sample-Standard-Errors, tests/testthat/test_clustervar.R, which
    quotes Stata's `reg y x, cluster(clusters)`, `reg y x, r` and `reg y x, vce(hc2)`.
    """
    one, two = np.arange(1, 11), np.arange(2, 12)
    table = pd.DataFrame(
        {
            "y": np.concatenate([np.cos(np.arange(10)), np.tan(one)]),
            "x": np.concatenate([np.sin(one), np.sin(two)]),
        }
    )
    return table, np.array([2, 1, 3, 2, 2, 3, 3, 1, 1, 2] * 2)


@pytest.mark.parametrize(
    ("kind", "own", "errors"),
    [
        ("cr1", False, (0.4827602183, 0.1814501834)),
        ("cr1", True, (0.4278077455, 0.4392155956)),  # a cluster a row: HC1
        ("cr2", True, (0.4227339762, 0.4421048122)),  # a cluster a row: HC2
    ],
)
def test_errors_equal_statas(kind: RobustKind, own: bool, errors: tuple[float, float]) -> None:
    table, clusters = wavy()
    names = np.arange(20) if own else clusters
    estimator = formula_estimator("y ~ x", table.assign(prompt_id=[f"{n:02d}" for n in names]))
    got = robust_table(estimator, (kind,))
    assert got["estimate"][:2].tolist() == pytest.approx([-0.4456202905, 0.3241183110], abs=PRINTED)
    assert got["error"][:2].tolist() == pytest.approx(errors, abs=PRINTED)


def test_cr3_of_a_cluster_a_row_is_hc3_with_the_jackknifes_factor() -> None:
    table, _ = wavy()
    fitted = sm.OLS(table["y"], sm.add_constant(table["x"])).fit(cov_type="HC3")
    estimator = formula_estimator("y ~ x", table.assign(prompt_id=[f"{n:02d}" for n in range(20)]))
    got = robust_table(estimator, ("cr3",))["error"][:2]
    assert got.tolist() == pytest.approx((fitted.bse * math.sqrt(19 / 20)).tolist(), rel=EXACT)


def test_cr1_and_cr3_of_grunfelds_firms_equal_pyfixest() -> None:
    # pyfixest 0.60.0: feols("invest ~ value + capital", vcov={"CRV1": "firm"}), and
    # {"CRV3": "firm"} with ssc(k_adj=False, G_adj=False), which is the sum of squares about the
    # full sample without the factor (G - 1) / G; statsmodels' data, 11 firms.
    crv1 = [18.136279992710474, 0.016200445437142313, 0.08547781688466209]
    crv3 = [32.508033099925235, 0.017492769135294958, 0.15365242854433991]
    table = grunfeld.load_pandas().data.rename(columns={"firm": "prompt_id"})
    got = robust_table(formula_estimator("invest ~ value + capital", table)).set_index("kind")
    assert got.loc["cr1", "error"].tolist()[:3] == pytest.approx(crv1, rel=EXACT)
    wanted = [error * math.sqrt(10 / 11) for error in crv3]
    assert got.loc["cr3", "error"].tolist()[:3] == pytest.approx(wanted, rel=EXACT)


def test_term_that_one_prompt_alone_determines_has_no_error(rows: pd.DataFrame) -> None:
    first = rows["prompt_id"] == min(rows["prompt_id"])
    changed = estimator_of(rows.assign(relative_position=rows["relative_position"].where(first, 0)))
    for kind in ROBUST:
        assert robust_interval(changed, kind, 3).reason == "no value without one of 1 prompts"
        assert robust_interval(changed, kind, 1).reason == ""
    with pytest.raises(InputError) as caught:
        robust_error(changed, 3, "cr1")
    assert str(caught.value) == (
        "cluster-robust error: expected a value of relative_position without any one prompt, got "
        "none without one of 1 prompts; build a bank of more prompts"
    )


def test_jackknife_of_a_coefficient_needs_no_level_of_another(rows: pd.DataFrame) -> None:
    # Without the first prompt relative_position is constant; learnable's refit leaves it out.
    first = (rows["prompt_id"] == min(rows["prompt_id"])).to_numpy()
    changed = rows.assign(relative_position=rows["relative_position"].where(first, 0.0))
    x, y, owner = design(changed)
    whole = np.linalg.lstsq(x, y, rcond=None)[0][2]
    away = [
        np.linalg.lstsq(x[owner != g][:, :-1] if g == 0 else x[owner != g], y[owner != g])[0][2]
        for g in range(8)
    ]
    wanted = math.sqrt(7 / 8 * math.fsum((a - whole) ** 2 for a in away))
    assert robust_error(estimator_of(changed), 1, "cr3").error == pytest.approx(wanted, rel=1e-7)


def test_mean_is_a_model_of_a_constant(rows: pd.DataFrame) -> None:
    owner = np.unique(rows["prompt_id"], return_inverse=True)[1]
    mean = Mean(np.bincount(owner, rows["gain"]), np.bincount(owner).astype(float))
    model = formula_estimator("gain ~ 1", rows)
    fitted = sm.OLS(rows["gain"], np.ones(len(rows))).fit(
        cov_type="cluster", cov_kwds={"groups": owner}, use_t=True
    )
    assert robust_error(mean, 0, "cr1").error == pytest.approx(fitted.bse.iloc[0], rel=EXACT)
    assert robust_error(mean, 0, "cr1").error == pytest.approx(standard_error(mean), rel=EXACT)
    for kind in ROBUST:
        here, there = robust_error(mean, 0, kind), robust_error(model, 0, kind)
        assert (here.error, here.degrees) == pytest.approx((there.error, there.degrees), rel=EXACT)


def test_redone_zscores_count_in_cr1_and_in_the_jackknife(rows: pd.DataFrame) -> None:
    estimator = replace(estimator_of(rows), redo=True)
    x, y, owner = design(rows)
    away = []
    for g in range(8):
        kept = x[owner != g]
        kept = np.column_stack(
            [kept[:, 0], (kept - kept.mean(axis=0))[:, 1:] / kept.std(axis=0)[1:]]
        )
        away.append(np.linalg.lstsq(kept, y[owner != g])[0][2])
    whole = np.linalg.lstsq(x, y)[0][2]
    wanted = math.sqrt(7 / 8 * math.fsum((a - whole) ** 2 for a in away))
    assert robust_error(estimator, 1, "cr3").error == pytest.approx(wanted, rel=EXACT)
    assert robust_error(estimator, 1, "cr1").error == standard_error(estimator, 1)
    assert robust_interval(estimator, "cr2", 1).reason == "cr2 is of coefficients alone"


def test_prompts_without_rows_do_not_count(rows: pd.DataFrame) -> None:
    estimator = estimator_of(rows)
    padded = replace(
        estimator, sums=np.vstack([estimator.sums, np.zeros((5, estimator.sums.shape[1]))])
    )
    for kind, index in [("cr1", 1), ("cr2", 1), ("cr3", 1), ("cr1", 5), ("cr3", 5)]:
        here, there = robust_error(estimator, index, kind), robust_error(padded, index, kind)
        assert (there.error, there.degrees) == pytest.approx((here.error, here.degrees), rel=1e-12)


def test_as_many_columns_as_rows_have_no_error() -> None:
    # x's coefficient is y_3 - y_2, a row of each prompt.
    table = pd.DataFrame({"y": [1.0, 2, 4], "x": [1.0, 2, 3], "z": [1.0, 0, 0]})
    estimator = formula_estimator("y ~ x + z", table.assign(prompt_id=["a", "a", "b"]))
    got = robust_interval(estimator, "cr1", 1)
    assert (got.estimate, got.reason) == (pytest.approx(2), "no value without one of 2 prompts")


def test_collinear_model_has_no_value(rows: pd.DataFrame) -> None:
    estimator = estimator_of(rows)
    lost = replace(estimator, models={"all": (*NAMES, NAMES[0])})
    assert robust_interval(lost, "cr2").reason == "no value"


@pytest.mark.parametrize("kind", ROBUST)
def test_table_holds_the_errors_and_intervals(rows: pd.DataFrame, kind: RobustKind) -> None:
    estimator = estimator_of(rows)
    table = robust_table(estimator)
    assert table.columns.tolist() == (
        ["name", "kind", "estimate", "low", "high", "error", "degrees", "p", "reason"]
    )
    assert table["name"].tolist() == [n for n in estimator.names for _ in ROBUST]
    for index in range(5):
        got = table[table["kind"] == kind].iloc[index]
        error, interval = (
            robust_error(estimator, index, kind),
            robust_interval(estimator, kind, index),
        )
        assert (got["error"], got["degrees"]) == pytest.approx((error.error, error.degrees))
        assert (got["low"], got["high"]) == pytest.approx((interval.low, interval.high))
        assert got["p"] == pytest.approx(error.p_value(interval.estimate))


@few
@given(st.integers(0, 10**6), st.floats(0.01, 50), st.floats(-30, 30))
def test_order_names_and_units_change_no_t(seed: int, scale: float, shift: float) -> None:
    rows = reference.make_frame(seed=21, prompts=8, rollouts=2, length=14)
    changed = reference.permuted(reference.relabelled(rows), seed)
    changed = changed.assign(incompatible=scale * changed["incompatible"] + shift)
    text = "gain ~ learnable + incompatible + entropy_norm"
    here, there = (robust_table(formula_estimator(text, f)) for f in (rows, changed))
    inner = here["name"] != "Intercept"
    for column in ("degrees", "p"):
        np.testing.assert_allclose(there[column][inner], here[column][inner], rtol=1e-6)


@pytest.mark.parametrize("kind", ["cr2", "cr3"])
def test_every_row_twice_changes_neither_error_nor_degrees(
    rows: pd.DataFrame, kind: RobustKind
) -> None:
    twice = pd.concat([rows, rows])
    here, there = (robust_error(estimator_of(f), 1, kind) for f in (rows, twice))
    assert (there.error, there.degrees) == pytest.approx((here.error, here.degrees), rel=EXACT)
