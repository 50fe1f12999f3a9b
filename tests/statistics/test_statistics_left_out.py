"""Intervals from values without each prompt, against scipy's t tests and the robust errors."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import statistics_reference as reference
from scipy import stats

from diagnostics.statistics.analyses.headlines import Headline, headline
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Difference, Mean
from diagnostics.statistics.inference.left_out import (
    LeftOut,
    apart_difference,
    jackknife_error,
    left_out,
    own_interval,
    paired_difference,
)
from diagnostics.statistics.inference.robust import robust_interval

SUMS = 1e-9  # totals less one cluster against closed forms


def mean_of(values: np.ndarray, prompts: list[str] | None = None) -> LeftOut:
    """The mean of one value a prompt."""
    named = prompts or [f"p{i:03d}" for i in range(len(values))]
    return left_out(Mean(values, np.ones(len(values))), np.array(named, dtype=object))


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    first = rng.normal(size=15)
    return first, 0.7 * first + rng.normal(0.3, 0.5, size=15)


def test_paired_equals_scipys_paired_t(samples: tuple[np.ndarray, np.ndarray]) -> None:
    found = paired_difference(*map(mean_of, samples))
    truth = stats.ttest_rel(*samples).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(truth), rel=SUMS)


def test_apart_equals_welchs_t(samples: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = samples[0], 3 * samples[1][:9]
    found = apart_difference(mean_of(first), mean_of(second))
    truth = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(truth), rel=SUMS)


def test_own_equals_scipys_t_of_one_sample(samples: tuple[np.ndarray, np.ndarray]) -> None:
    found = own_interval(mean_of(samples[0]))
    truth = stats.ttest_1samp(samples[0], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(truth), rel=SUMS)
    assert jackknife_error(mean_of(samples[0])) == pytest.approx(stats.sem(samples[0]), rel=SUMS)


@pytest.mark.parametrize("name", get_args(Headline))
@pytest.mark.parametrize("outcome", ["gain", "gain_rel"])
def test_own_equals_cr3_of_the_sums(name: Headline, outcome: str) -> None:
    frame = reference.make_frame(seed=3, prompts=12, rollouts=2, length=40)
    made = headline(frame, name, outcome)
    found = own_interval(left_out(made, prompt_clusters(frame).names))
    truth = robust_interval(made, "cr3")
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (truth.estimate, truth.low, truth.high), rel=1e-7
    )


def test_paired_equals_cr3_of_the_difference_where_prompts_differ() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 5))
    names = np.array(list("abcdefg"), dtype=object)
    one = mean_of(first, list("abcde"))
    two = mean_of(second, list("cdefg"))
    placed = [np.zeros((7, 2)), np.zeros((7, 2))]
    placed[0][:5], placed[1][2:] = np.c_[first, np.ones(5)], np.c_[second, np.ones(5)]
    whole = Difference(*(Mean(p[:, 0], p[:, 1]) for p in placed))
    truth = robust_interval(whole, "cr3")
    found = paired_difference(one, two)
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high), rel=SUMS)
    assert list(left_out(whole.first, names).prompts) == list("abcde")


def test_a_number_less_itself_is_0_without_width(samples: tuple[np.ndarray, np.ndarray]) -> None:
    found = paired_difference(mean_of(samples[0]), mean_of(samples[0].copy()))
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    assert found.reason == "identical"


def test_no_interval_is_said_never_0() -> None:
    one, two = mean_of(np.array([1.0])), mean_of(np.array([1.0, 2.0, 4.0]))
    shifted = mean_of(np.array([2.0, 3.0, 5.0]))
    for found, reason in (
        (own_interval(one), "1 prompt: no interval from one cluster"),
        (apart_difference(two, one), "1 prompt: no interval from one cluster"),
        (paired_difference(shifted, two), "no spread between prompts"),
    ):
        assert np.isnan([found.low, found.high]).all()
        assert found.reason == reason
    assert paired_difference(shifted, two).estimate == 1
