"""CR1 to CR3 against statsmodels, against whole hat matrices, and against refits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
import statsmodels.api as sm
from scipy import stats
from scipy.linalg import eigh

from diagnostics.errors import InputError
from diagnostics.statistics.estimators import Mean
from diagnostics.statistics.headlines import headline
from diagnostics.statistics.least_squares import (
    Contrast,
    LeastSquares,
    cross_sums,
    standardized,
)
from diagnostics.statistics.robust import RobustKind, robust_error, robust_interval

EXACT = 1e-9  # p x p pieces against n x n matrices

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


def test_jackknife_without_a_value_is_refused() -> None:
    mean = Mean(np.array([2.0, 0.0]), np.array([1.0, 0.0]))
    with pytest.raises(InputError) as caught:
        robust_error(mean, 0, "cr3")
    assert str(caught.value) == (
        "cluster-robust error: expected a value of mean without any one prompt, got none without "
        "one of 1 prompts; ask for cr1, or build a bank of more prompts"
    )


def test_equal_prompts_have_no_spread_and_no_interval() -> None:
    got = robust_interval(Mean(np.full(4, 2.0), np.full(4, 2.0)), "cr1")
    assert got.reason == "no spread between prompts"
