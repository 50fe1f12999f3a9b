"""Clusters and the cluster bootstrap against concatenated rows of the same draws."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diagnostics.errors import InputError
from diagnostics.statistics.inference.bootstrap import (
    Bootstrap,
    Interval,
    difference,
    draw_counts,
    interval,
    percentile_interval,
)
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Mean, ratio

BRUTE = 1e-10  # ratios of sums against means of concatenated rows

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def means_of(frame: pd.DataFrame, rows: np.ndarray) -> Mean:
    clusters = prompt_clusters(frame)
    gain = frame["gain"].to_numpy()
    return Mean(clusters.sums(np.where(rows, gain, 0.0)), clusters.sums(rows.astype(float)))


def test_several_rollouts_of_a_prompt_are_one_cluster(frame: pd.DataFrame) -> None:
    clusters = prompt_clusters(frame)
    assert clusters.count == 10
    assert frame["context_id"].nunique() == 20
    assert list(clusters.names) == sorted(set(frame["prompt_id"]))
    assert [clusters.names[code] for code in clusters.of_row] == frame["prompt_id"].tolist()


def test_cluster_sums_equal_a_loop(frame: pd.DataFrame) -> None:
    clusters = prompt_clusters(frame)
    expected = [
        math.fsum(g for g, p in zip(frame["gain"], frame["prompt_id"], strict=True) if p == name)
        for name in sorted(set(frame["prompt_id"]))
    ]
    np.testing.assert_allclose(clusters.sums(frame["gain"].to_numpy()), expected, atol=BRUTE)


def test_subset_of_rows_keeps_the_numbering_of_clusters(frame: pd.DataFrame) -> None:
    clusters = prompt_clusters(frame)
    rows = np.arange(40, 60)
    part = clusters.subset(rows)
    assert part.count == clusters.count
    assert part.names[part.of_row].tolist() == frame["prompt_id"].to_numpy()[rows].tolist()


@pytest.mark.parametrize("categories", [["b", "c", "a"], ["c", "unused", "b", "a"]])
def test_numbering_is_by_sorted_prompt_id_for_any_column_type(categories: list[str]) -> None:
    labels = pd.Categorical(["c", "a", "b", "a"], categories=categories)
    clusters = prompt_clusters(pd.DataFrame({"prompt_id": labels}))
    assert list(clusters.names) == ["a", "b", "c"]
    assert clusters.of_row.tolist() == [2, 0, 1, 0]


def test_missing_prompt_id_column_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError) as caught:
        prompt_clusters(frame.drop(columns="prompt_id"))
    assert str(caught.value) == (
        "token table: expected a prompt_id in every row: it is the cluster, got no such column; "
        "write the table with `diagnostics tokens`"
    )


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA])
def test_null_prompt_id_is_refused(frame: pd.DataFrame, null: object) -> None:
    names = frame["prompt_id"].astype(object).tolist()
    names[7] = null
    with pytest.raises(InputError) as caught:
        prompt_clusters(frame.assign(prompt_id=pd.Series(names, dtype=object)))
    assert str(caught.value) == (
        "token table: expected a prompt_id in every row: it is the cluster, got a null; "
        "write the table with `diagnostics tokens`"
    )


@few
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**32))
def test_every_draw_takes_as_many_prompts_as_there_are(n: int, draws: int, seed: int) -> None:
    got = draw_counts(n, draws, seed)
    assert got.shape == (draws, n)
    assert (got.sum(axis=1) == n).all()
    assert (got >= 0).all()
    assert (got == np.floor(got)).all()


def test_draws_are_reproducible_and_differ_by_seed() -> None:
    first = draw_counts(20, 50, seed=9)
    assert first.tolist() == draw_counts(20, 50, seed=9).tolist()
    assert first.tolist() != draw_counts(20, 50, seed=10).tolist()
    assert len({tuple(row) for row in first}) == 50


def test_draws_are_with_replacement_and_even() -> None:
    # Each count is Binomial(25, 1/25): P(0) = 0.96^25 = 0.360; the mean over 4000 draws is 1 with
    # standard error 0.98 / sqrt(4000) = 0.0155.
    got = draw_counts(25, 4000, seed=0)
    assert abs(got.mean(axis=0) - 1).max() < 5 * 0.0155
    assert (got == 0).mean() == pytest.approx(stats.binom(25, 1 / 25).pmf(0), abs=0.01)


def test_mean_interval_equals_concatenated_rows(frame: pd.DataFrame, counts: np.ndarray) -> None:
    got = interval(means_of(frame, np.ones(len(frame), dtype=bool)), Bootstrap(counts=counts))
    draws = reference.brute_force(frame, counts, lambda f: f["gain"].mean())
    low, high = reference.percentiles(draws)
    assert got.estimate == pytest.approx(frame["gain"].mean(), abs=BRUTE)
    assert (got.low, got.high) == pytest.approx((low, high), abs=BRUTE)
    assert got.reason == ""


def test_difference_interval_equals_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    first = (frame["compatibility"] > 0.7).to_numpy()
    second = (frame["compatibility"] < 0.5).to_numpy()

    def statistic(drawn: pd.DataFrame) -> float:
        one = drawn["gain"][drawn["compatibility"] > 0.7].mean()
        return float(one - drawn["gain"][drawn["compatibility"] < 0.5].mean())

    got = difference(means_of(frame, first), means_of(frame, second), Bootstrap(counts=counts))
    low, high = reference.percentiles(reference.brute_force(frame, counts, statistic))
    assert got.estimate == pytest.approx(statistic(frame), abs=BRUTE)
    assert (got.low, got.high) == pytest.approx((low, high), abs=BRUTE)


def test_difference_of_a_mean_and_itself_is_zero_in_every_draw(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    side = means_of(frame, np.ones(len(frame), dtype=bool))
    assert difference(side, side, Bootstrap(counts=counts)) == Interval(0.0, 0.0, 0.0)


def test_permuted_rows_give_the_same_interval(frame: pd.DataFrame, counts: np.ndarray) -> None:
    other = reference.permuted(frame, seed=2)
    whole = np.ones(len(frame), dtype=bool)
    here, there = (interval(means_of(f, whole), Bootstrap(counts=counts)) for f in (frame, other))
    assert (there.estimate, there.low, there.high) == pytest.approx(
        (here.estimate, here.low, here.high), abs=BRUTE
    )


def test_prompt_column_type_does_not_change_the_interval(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    names = list(dict.fromkeys(frame["prompt_id"]))  # in order of appearance, which is not sorted
    assert names != sorted(names)
    other = frame.assign(prompt_id=pd.Categorical(frame["prompt_id"], categories=names))
    whole = np.ones(len(frame), dtype=bool)
    here, there = (interval(means_of(f, whole), Bootstrap(counts=counts)) for f in (frame, other))
    assert (there.low, there.high) == pytest.approx((here.low, here.high), abs=BRUTE)


def test_relabelled_prompts_keep_the_point_estimate(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    whole = np.ones(len(frame), dtype=bool)
    other = interval(means_of(reference.relabelled(frame), whole), Bootstrap(counts=counts))
    assert other.estimate == pytest.approx(frame["gain"].mean(), abs=BRUTE)


def test_interval_of_many_equal_clusters_is_near_the_normal_one() -> None:
    # 150 clusters of one position: the percentile interval is about mean +- 1.96 s / sqrt(n).
    values = np.random.default_rng(3).normal(size=150)
    got = interval(Mean(values, np.ones(150)), Bootstrap(counts=draw_counts(150, 4000, seed=1)))
    half = 1.96 * values.std() / math.sqrt(150)
    assert got.low == pytest.approx(values.mean() - half, abs=0.1 * half)  # Monte Carlo, 4000 draws
    assert got.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_pooled_mean_weighs_positions_not_prompts_by_hand() -> None:
    # Prompts with gains (1, 1, 1) and (5): pooled (3 + 5) / 4 = 2, not (1 + 5) / 2 = 3.
    # Draws: first twice 1, one of each 2, second twice 5; quantiles of (1, 2, 5) at 0.025, 0.975.
    counts = np.array([[2.0, 0], [1, 1], [0, 2]])
    got = interval(Mean(np.array([3.0, 5]), np.array([3.0, 1])), Bootstrap(counts=counts))
    assert got.estimate == 2
    assert (got.low, got.high) == pytest.approx((1.05, 4.85), abs=BRUTE)


def test_one_prompt_has_no_interval_for_a_mean() -> None:
    got = interval(
        Mean(np.array([3.0]), np.array([2.0])), Bootstrap(counts=draw_counts(1, 100, seed=0))
    )
    assert got.estimate == 1.5
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert got.reason == "1 prompt: no interval from one cluster"


def test_one_prompt_has_no_interval_for_a_difference() -> None:
    first, second = Mean(np.array([3.0]), np.array([2.0])), Mean(np.array([1.0]), np.array([4.0]))
    got = difference(first, second, Bootstrap(counts=draw_counts(1, 100, seed=0)))
    assert got.estimate == 1.25
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert got.reason == "1 prompt: no interval from one cluster"


def test_empty_side_of_a_draw_gives_no_interval() -> None:
    # Only prompt 0 has positions on the first side: draws 1 and 2 lack it.
    counts = np.array([[2.0, 0, 1], [0, 1, 2], [0, 3, 0], [1, 1, 1]])
    first = Mean(np.array([4.0, 0, 0]), np.array([2.0, 0, 0]))
    second = Mean(np.array([1.0, 1, 1]), np.array([1.0, 1, 1]))
    for got in (
        interval(first, Bootstrap(counts=counts)),
        difference(first, second, Bootstrap(counts=counts)),
    ):
        assert math.isnan(got.low)
        assert math.isnan(got.high)
        assert got.reason == "2 of 4 draws have too few positions"
    assert difference(first, second, Bootstrap(counts=counts)).estimate == 1.0
    assert difference(second, first, Bootstrap(counts=counts)).estimate == -1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_draw_without_a_value_gives_no_interval(bad: float) -> None:
    got = percentile_interval(0.5, np.array([1.0, bad, 2.0]))
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert got.reason == "1 of 3 draws have too few positions"


def test_percentile_ends_by_hand() -> None:
    # 0..1000 shuffled: the 2.5 % and 97.5 % quantiles are 25 and 975.
    draws = np.random.default_rng(0).permutation(np.arange(1001.0))
    got = percentile_interval(3.0, draws)
    assert (got.low, got.high) == pytest.approx((25, 975), abs=1e-9)
    assert got.estimate == 3.0


def test_ratio_is_nan_over_zero_and_warns_nothing() -> None:
    got = ratio(np.array([1.0, 0.0, 3.0]), np.array([2.0, 0.0, 0.0]))
    np.testing.assert_array_equal(got, [0.5, np.nan, np.nan])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, "yes"),
        (-0.2, -0.1, "no"),
        (-0.1, 0.1, "unclear"),
        (0.0, 0.1, "unclear"),
        (-0.1, 0.0, "unclear"),
        (math.nan, math.nan, "unclear"),
    ],
)
def test_verdict_is_the_side_of_zero_that_holds_the_interval(
    low: float, high: float, verdict: str
) -> None:
    assert Interval(0.0, low, high).verdict() == verdict
