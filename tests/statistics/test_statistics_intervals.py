"""Kinds of interval against scipy and slow loops; estimators against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.headlines import HEADLINES, Headline, headline
from diagnostics.statistics.analyses.regression import decomposition_estimator
from diagnostics.statistics.inference.bootstrap import (
    Bootstrap,
    Interval,
    bands,
    bca_interval,
    count_blocks,
    draw_counts,
    draw_values,
    interval,
    intervals,
    standard_error,
)
from diagnostics.statistics.inference.estimators import (
    Difference,
    Estimator,
    Mean,
    estimate,
    influence,
    without_each,
)

EXACT = 1e-10
DERIVATIVE = 1e-5  # central differences of a float64 value with steps of 1e-6

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def wide() -> pd.DataFrame:
    """A table with enough of Q3 in every prompt for all headline numbers."""
    return reference.make_frame(seed=3, prompts=12, rollouts=2, length=40)


def everything(frame: pd.DataFrame, **options: bool) -> Estimator:
    return decomposition_estimator(frame, rows=np.ones(len(frame), dtype=bool), **options)


def a_mean(seed: int, clusters: int = 15) -> Mean:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, clusters).astype(float)
    return Mean(rng.standard_t(3, clusters) * sizes, sizes)


@pytest.mark.parametrize("name", HEADLINES)
def test_gradient_is_the_derivative_of_the_value(wide: pd.DataFrame, name: Headline) -> None:
    check_gradient(headline(wide, name), 0)


@pytest.mark.parametrize("redo", [False, True])
@pytest.mark.parametrize("transform", ["raw", "zscore"])
@pytest.mark.parametrize("index", range(5))
def test_gradient_of_every_regression_number(
    wide: pd.DataFrame, redo: bool, transform: str, index: int
) -> None:
    check_gradient(everything(wide, transform=transform, redo_zscores=redo), index)


def check_gradient(estimator: Estimator, index: int) -> None:
    totals = estimator.sums.sum(axis=0, keepdims=True)
    got = estimator.gradient(totals, index)[0]
    expected = []
    for place in range(totals.shape[1]):
        step = 1e-6 * max(1.0, abs(totals[0, place]))
        up, down = totals.copy(), totals.copy()
        up[0, place] += step
        down[0, place] -= step
        rise = estimator.value(up)[0, index] - estimator.value(down)[0, index]
        expected.append(rise / (2 * step))
    np.testing.assert_allclose(got, expected, rtol=0, atol=DERIVATIVE * np.abs(got).max())


@pytest.mark.parametrize("name", HEADLINES)
def test_influences_sum_to_zero(wide: pd.DataFrame, name: Headline) -> None:
    effects = influence(headline(wide, name), 0)
    assert abs(effects.sum()) < EXACT * np.abs(effects).sum()


def test_standard_error_of_equal_clusters_is_that_of_their_mean() -> None:
    # 20 clusters of one position each: sd (ddof 1) / sqrt(20).
    values = np.random.default_rng(0).normal(size=20)
    got = standard_error(Mean(values, np.ones(20)))
    assert got == pytest.approx(values.std(ddof=1) / math.sqrt(20), rel=1e-12)


def test_without_each_equals_leaving_the_rows_out(wide: pd.DataFrame) -> None:
    split = headline(wide, "budget")
    got = without_each(split)[:, 0]
    for cluster in range(12):
        counts = np.ones((1, 12))
        counts[0, cluster] = 0
        assert got[cluster] == pytest.approx(split.value(counts @ split.sums)[0, 0], abs=EXACT)


@few
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_bca_equals_scipys_on_the_same_draws(seed: int, clusters: int) -> None:
    mean = a_mean(seed, clusters)
    draws = draw_values(mean, Bootstrap(draws=400, seed=seed))[:, 0]

    def statistic(total: np.ndarray, count: np.ndarray, axis: int = -1) -> np.ndarray:
        return total.sum(axis=axis) / count.sum(axis=axis)

    done = SimpleNamespace(bootstrap_distribution=draws)
    wanted = stats.bootstrap(
        (mean.total, mean.count),
        statistic,
        paired=True,
        n_resamples=0,
        bootstrap_result=done,
        method="BCa",
    ).confidence_interval
    got = interval(mean, Bootstrap(draws=400, seed=seed, kind="bca"))
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert got.kind == "bca"


def test_bca_of_a_symmetric_case_is_the_percentile_interval() -> None:
    # Estimate at the median of the draws and a jackknife without skew: no bias, no acceleration.
    draws = np.arange(-500.0, 501.0)
    got = bca_interval(0.0, draws, np.array([-1.0, 0.0, 1.0]))
    assert (got.low, got.high) == pytest.approx((-475, 475), abs=1e-6)


def slow_t(mean: Mean, counts: np.ndarray) -> tuple[float, float]:
    """Bootstrap-t by loops: each draw's own linearised error."""

    def number(weights: np.ndarray) -> tuple[float, float]:
        value = sum(w * t for w, t in zip(weights, mean.total, strict=True)) / sum(
            w * c for w, c in zip(weights, mean.count, strict=True)
        )
        size = sum(w * c for w, c in zip(weights, mean.count, strict=True))
        away = [(t - value * c) / size for t, c in zip(mean.total, mean.count, strict=True)]
        return value, math.sqrt(sum(w * a * a for w, a in zip(weights, away, strict=True)))

    value, error = number(np.ones(len(mean.total)))
    ratios = [(v - value) / e for v, e in map(number, counts)]
    low, high = reference.quantile(ratios, 0.025), reference.quantile(ratios, 0.975)
    return value - high * error, value - low * error


def test_studentized_mean_equals_a_slow_loop() -> None:
    mean, counts = a_mean(4), draw_counts(15, 200, seed=2)
    got = interval(mean, Bootstrap(counts=counts, kind="studentized"))
    assert (got.low, got.high) == pytest.approx(slow_t(mean, counts), abs=EXACT)


@pytest.mark.parametrize("kind", ["percentile", "bca", "studentized"])
def test_scaled_outcome_scales_every_kind_and_a_mirror_turns_it(kind: str) -> None:
    mean, bootstrap = a_mean(8), Bootstrap(draws=300, seed=1, kind=kind)
    here = interval(mean, bootstrap)
    there = interval(Mean(-3 * mean.total, mean.count), bootstrap)
    assert (there.low, there.high) == pytest.approx((-3 * here.high, -3 * here.low), abs=1e-9)


@pytest.mark.parametrize("kind", ["percentile", "bca", "studentized"])
def test_every_kind_of_many_normal_clusters_is_near_the_normal_interval(kind: str) -> None:
    # 300 clusters: mean +- 1.96 s / sqrt(300), up to the noise of 4,000 draws and of skew.
    values = np.random.default_rng(5).normal(size=300)
    got = interval(Mean(values, np.ones(300)), Bootstrap(draws=4000, kind=kind))
    half = 1.96 * values.std() / math.sqrt(300)
    assert got.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert got.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_bands_equal_a_slow_loop_and_hold_every_draw_band_together() -> None:
    family = [a_mean(seed) for seed in (1, 2, 3)]
    bootstrap = Bootstrap(draws=500, seed=3)
    draws = np.hstack([draw_values(e, bootstrap) for e in family])
    values = [estimate(e)[0] for e in family]
    spread = draws.std(axis=0, ddof=1)
    worst = [
        max(abs(d - v) / s for d, v, s in zip(row, values, spread, strict=True)) for row in draws
    ]
    factor = reference.quantile(worst, 0.95)
    got = bands(family, bootstrap)
    for band, value, sd in zip(got, values, spread, strict=True):
        assert (band.low, band.high) == pytest.approx((value - factor * sd, value + factor * sd))
        assert band.kind == "simultaneous"
    inside = [all(b.low <= d <= b.high for b, d in zip(got, row, strict=True)) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=1 / 500)


def test_band_of_one_number_is_narrower_than_that_of_a_family() -> None:
    family, bootstrap = [a_mean(seed) for seed in range(6)], Bootstrap(draws=500)
    (alone,) = bands(family[:1], bootstrap)
    together = bands(family, bootstrap)[0]
    assert together.high - together.low > alone.high - alone.low


def test_band_of_a_number_without_draws_says_so_and_leaves_the_others() -> None:
    # The second mean has rows in prompt 0 alone; 0.96^... of the draws lack it.
    rare = Mean(np.eye(15)[0], np.eye(15)[0])
    bootstrap = Bootstrap(draws=200, seed=0)
    whole, lacking = bands([a_mean(1), rare], bootstrap)
    missing = int((draw_counts(15, 200, 0)[:, 0] == 0).sum())
    assert whole == bands([a_mean(1)], bootstrap)[0]
    assert math.isnan(lacking.low)
    assert lacking.reason == f"{missing} of 200 draws have too few positions"


@few
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
def test_size_of_blocks_changes_no_draw(clusters: int, draws: int, size: int, seed: int) -> None:
    whole = draw_counts(clusters, draws, seed)
    pieces = np.concatenate(list(count_blocks(clusters, draws, seed, size)))
    assert pieces.tolist() == whole.tolist()


def test_totals_in_blocks_equal_totals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = a_mean(2)
    kinds = ("percentile", "bca", "studentized")
    once = [interval(mean, Bootstrap(draws=101, kind=kind)) for kind in kinds]
    monkeypatch.setattr("diagnostics.statistics.inference.bootstrap.KEPT", 0)
    monkeypatch.setattr("diagnostics.statistics.inference.bootstrap.BLOCK", 15 * 7)
    for kind, expected in zip(kinds, once, strict=True):
        got = interval(mean, Bootstrap(draws=101, kind=kind))
        assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("kind", ["percentile", "bca", "studentized"])
def test_one_prompt_has_no_interval_of_any_kind(kind: str) -> None:
    got = interval(Mean(np.array([3.0]), np.array([2.0])), Bootstrap(draws=50, kind=kind))
    assert (got.estimate, got.kind) == (1.5, kind)
    assert math.isnan(got.low)
    assert got.reason == "1 prompt: no interval from one cluster"
    assert bands([Mean(np.array([3.0]), np.array([2.0]))], Bootstrap())[0].reason == got.reason


def test_bca_without_a_value_for_one_prompt_left_out_says_so() -> None:
    counts = np.array([[1.0, 1, 1], [2, 1, 0], [1, 2, 0]])
    got = interval(
        Mean(np.array([1.0, 0, 0]), np.array([2.0, 0, 0])), Bootstrap(counts=counts, kind="bca")
    )
    assert math.isnan(got.low)
    assert got.reason == "no value without one of 1 prompts"


def test_bca_with_every_draw_on_one_side_says_so() -> None:
    got = bca_interval(5.0, np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0]))
    assert math.isnan(got.high)
    assert got.reason == "every draw lies on one side of the estimate"


def test_studentized_draw_without_spread_says_so() -> None:
    # A draw of one prompt three times has no spread between prompts.
    counts = np.array([[3.0, 0, 0], [1, 1, 1], [2, 1, 0]])
    mean = Mean(np.array([1.0, 2.0, 4.0]), np.ones(3))
    got = interval(mean, Bootstrap(counts=counts, kind="studentized"))
    assert math.isnan(got.low)
    assert got.reason == "1 of 3 draws have no spread"


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        Bootstrap(kind="normal")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "bootstrap: expected a kind of interval among percentile, bca, studentized, got 'normal'; "
        "choose one of them"
    )


def test_difference_is_paired_and_its_gradient_is_both(wide: pd.DataFrame) -> None:
    one, two = headline(wide, "gain"), headline(wide, "gap")
    pair = Difference(one, two)
    check_gradient(pair, 0)
    bootstrap = Bootstrap(draws=50)
    expected = draw_values(one, bootstrap) - draw_values(two, bootstrap)
    np.testing.assert_allclose(draw_values(pair, bootstrap), expected, atol=EXACT)


def refit(rows: pd.DataFrame, scaled: bool) -> list[float]:
    """beta_L and beta_I of the decomposed model with z-scores of these very rows."""
    names = ["entropy_norm", "relative_position", "teacher_entropy_norm"]
    names += ["learnable", "incompatible"]
    design = rows[names].to_numpy()
    design = (design - design.mean(axis=0)) / design.std(axis=0)
    y = rows["gain"].to_numpy()
    y = (y - y.mean()) / y.std() if scaled else y
    full = np.column_stack([np.ones(len(rows)), design])
    beta = np.linalg.lstsq(full, y, rcond=None)[0]
    return [float(beta[4]), float(beta[5])]


@pytest.mark.parametrize("transform", ["raw", "zscore"])
def test_zscores_redone_in_the_draw_equal_refits_of_its_rows(
    frame: pd.DataFrame, counts: np.ndarray, transform: str
) -> None:
    estimator = everything(frame, transform=transform, redo_zscores=True)
    got = draw_values(estimator, Bootstrap(counts=counts))[:, :2]
    expected = [refit(reference.drawn_frame(frame, row), transform == "zscore") for row in counts]
    np.testing.assert_allclose(got, expected, rtol=EXACT, atol=EXACT)


def test_columns_centred_anywhere_give_the_same_regression(frame: pd.DataFrame) -> None:
    from diagnostics.statistics.analyses.regression import decomposition_from, regression_columns
    from diagnostics.statistics.inference.clusters import prompt_clusters
    from diagnostics.statistics.inference.least_squares import cross_sums

    rows = np.ones(len(frame), dtype=bool)
    columns = regression_columns(frame, rows, "gain")
    clusters = prompt_clusters(frame)
    shifted = [values - 0.3 for values in columns.values()]
    moved = decomposition_from(cross_sums(shifted, clusters.of_row, clusters.count))
    np.testing.assert_allclose(estimate(moved), estimate(everything(frame)), atol=1e-11)


def test_sums_of_parts_add_up_to_the_sums_of_the_whole(frame: pd.DataFrame) -> None:
    from diagnostics.statistics.inference.clusters import prompt_clusters
    from diagnostics.statistics.inference.least_squares import cross_sums

    clusters = prompt_clusters(frame)
    columns = [frame[name].to_numpy() for name in ("entropy_norm", "learnable", "gain")]
    whole = cross_sums(columns, clusters.of_row, clusters.count)
    part = np.arange(len(frame)) % 3
    pieces = [
        cross_sums([c[part == p] for c in columns], clusters.of_row[part == p], clusters.count)
        for p in range(3)
    ]
    np.testing.assert_allclose(sum(pieces), whole, rtol=1e-12)
    first = min(frame["prompt_id"])
    rows = frame[frame["prompt_id"] == first]
    assert whole[0, 0] == len(rows)
    assert whole[0, 3] == pytest.approx(rows["gain"].sum(), abs=EXACT)
    assert whole[0, -1] == pytest.approx((rows["gain"] ** 2).sum(), abs=EXACT)


def test_whole_bank_twice_under_new_prompts_keeps_estimates_and_shrinks_errors(
    wide: pd.DataFrame,
) -> None:
    # Twice as many clusters of the same content: the linearised error falls by sqrt(2), up to the
    # factor G / (G - 1): sqrt((24 / 23) / (12 / 11) / 2).
    copy = wide.assign(prompt_id="z" + wide["prompt_id"], context_id="z" + wide["context_id"])
    twice = pd.concat([wide, copy], ignore_index=True)
    for name in ("gain", "beta", "beta_q3", "gap"):
        here, there = headline(wide, name), headline(twice, name)
        assert estimate(there)[0] == pytest.approx(estimate(here)[0], abs=1e-9)
        shrink = standard_error(there) / standard_error(here)
        assert shrink == pytest.approx(math.sqrt((24 / 23) / (12 / 11) / 2), abs=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", HEADLINES)
def test_value_that_is_not_finite_is_refused_with_its_context(
    wide: pd.DataFrame, name: Headline, value: float
) -> None:
    broken = wide.assign(gain=np.full(len(wide), value))
    with pytest.raises(
        InputError, match=rf"context c\d+-.*: expected a finite `gain`, got {value}"
    ):
        headline(broken, name)


def test_fits_of_many_kinds_come_with_one_name_each(frame: pd.DataFrame) -> None:
    estimator = everything(frame)
    got = intervals(estimator, Bootstrap(draws=50, kind="bca"))
    assert len(got) == len(estimator.names) == 5
    assert all(isinstance(i, Interval) and i.low <= i.high for i in got)
    only = replace(estimator, contrasts=estimator.contrasts[2:3])
    assert interval(only, Bootstrap(draws=50, kind="bca")) == got[2]
