"""Variance between and within prompts: by hand, by slow loops, and against statsmodels."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.components import (
    components,
    half_width,
    prompts_needed,
)

NEAR = 1e-12  # sums in another order


def effects_of(values: np.ndarray) -> np.ndarray:
    """Influences of rollouts on their mean, for values (rollouts,)."""
    return (values - values.mean()) / len(values)


def drawn(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values of rollouts whose prompts differ (sd 2) as they do themselves (sd 1), and owners."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return 2 * rng.normal(size=len(sizes))[owner] + rng.normal(size=len(owner)), owner


def test_two_prompts_of_two_rollouts_by_hand() -> None:
    # Values 1, 3 and 7, 9: means 2 and 8. MSW = (1+1+1+1) / 2 = 2; MSB = 2 (9 + 9) / 1 = 36.
    # within = 2, between = (36 - 2) / 2 = 17; variance of the mean 36 / 4 = 9, times 2 prompts 18.
    found = components(effects_of(np.array([1.0, 3.0, 7.0, 9.0])), np.array([0, 0, 1, 1]))
    assert found.within == pytest.approx(2, rel=NEAR)
    assert found.between == pytest.approx(17, rel=NEAR)
    assert found.as_pilot == pytest.approx(18, rel=NEAR)
    assert found.correlation == pytest.approx(17 / 19, rel=NEAR)
    assert found.variance(4) == (pytest.approx(17.5), pytest.approx(17.5))
    assert (found.prompts, found.rollouts, found.error) == (2, 2.0, 0.0)


def test_prompts_that_differ_less_than_their_rollouts_have_nothing_in_common() -> None:
    # Values 1, 9 and 2, 8: means 5 and 5. Pooled over 3 degrees of freedom: (16+16+9+9) / 3.
    found = components(effects_of(np.array([1.0, 9.0, 2.0, 8.0])), np.array([0, 0, 1, 1]))
    assert (found.between, found.correlation) == (0.0, 0.0)
    assert found.within == pytest.approx(50 / 3, rel=NEAR)
    assert found.as_pilot == pytest.approx(25 / 3, rel=NEAR)


@pytest.mark.parametrize("rollouts", [2, 3, 5])
def test_equal_prompts_are_statsmodels_mixed_model(rollouts: int) -> None:
    values, owner = drawn([rollouts] * 12)
    found = components(effects_of(values), owner)
    table = pd.DataFrame({"y": values, "one": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels on its own optimiser
        fitted = sm.MixedLM(table["y"], table[["one"]], groups=owner).fit(reml=True)
    assert found.within == pytest.approx(fitted.scale, rel=1e-4)
    assert found.between == pytest.approx(float(fitted.cov_re.iloc[0, 0]), rel=1e-3)
    assert found.as_pilot == pytest.approx(found.between + found.within / rollouts, rel=NEAR)
    assert found.as_pilot / 12 == pytest.approx(float(fitted.bse_fe.iloc[0]) ** 2, rel=1e-3)


def test_unequal_prompts_are_the_analysis_of_variance() -> None:
    sizes = [1, 4, 2, 7, 3, 1, 2]
    values, owner = drawn(sizes, seed=3)
    inside = outside = weights = 0.0
    for prompt, size in enumerate(sizes):
        own = values[owner == prompt]
        inside += sum((value - own.mean()) ** 2 for value in own)
        outside += size * (own.mean() - values.mean()) ** 2
        weights += size**2
    msw, msb = inside / (20 - 7), outside / (7 - 1)
    found = components(effects_of(values), owner)
    assert found.within == pytest.approx(msw, rel=NEAR)
    assert found.between == pytest.approx((msb - msw) / ((20 - weights / 20) / 6), rel=NEAR)
    sums = [effects_of(values)[owner == prompt].sum() for prompt in range(7)]
    assert found.as_pilot == pytest.approx(7 * 7 / 6 * sum(s * s for s in sums), rel=NEAR)
    assert found.rollouts == pytest.approx(20 / 7)


def test_unequal_components_are_right_in_the_mean() -> None:
    found = [
        components(effects_of(v), o) for v, o in (drawn([1, 2, 4, 5] * 8, s) for s in range(300))
    ]
    assert np.mean([one.between for one in found]) == pytest.approx(4, rel=0.05)
    assert np.mean([one.within for one in found]) == pytest.approx(1, rel=0.05)


def test_one_rollout_a_prompt_has_bounds_alone() -> None:
    values, owner = drawn([1] * 9)
    found = components(effects_of(values), owner)
    assert np.isnan([found.between, found.within, found.correlation]).all()
    assert found.as_pilot == pytest.approx(values.var(ddof=1), rel=NEAR)
    assert found.variance(1) == (found.as_pilot, found.as_pilot)
    assert found.variance(4) == (found.as_pilot / 4, found.as_pilot)


@pytest.mark.parametrize("rollouts", [1, 2])
def test_variance_is_the_geometric_mean_with_the_jackknife(rollouts: int) -> None:
    values, owner = drawn([rollouts] * 9)
    plain = components(effects_of(values), owner)
    same = components(effects_of(values), owner, plain.as_pilot / 9)
    more = components(effects_of(values), owner, 4 * plain.as_pilot / 9)
    for name in ("as_pilot", "between", "within"):
        value = getattr(plain, name)
        assert getattr(same, name) == pytest.approx(value, rel=NEAR, nan_ok=True)
        assert getattr(more, name) == pytest.approx(2 * value, rel=NEAR, nan_ok=True)
    assert more.correlation == pytest.approx(plain.correlation, nan_ok=True)


def test_error_of_normal_prompts_is_that_of_a_standard_deviation() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=200_000)
    # A sample standard deviation of n normal values has the relative error 1 / sqrt(2 n).
    error = components(effects, np.arange(len(effects))).error
    assert error == pytest.approx(1 / np.sqrt(2 * len(effects)), rel=0.02)


def test_no_spread_has_no_error() -> None:
    found = components(np.zeros(6), np.array([0, 0, 1, 1, 2, 2]), 0.0)
    assert (found.as_pilot, found.between, found.within) == (0.0, 0.0, 0.0)
    assert np.isnan([found.error, found.correlation]).all()


def test_one_prompt_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        components(np.array([1.0, -1.0]), np.array([0, 0]))
    assert str(caught.value) == (
        "design of a study: expected a pilot of two prompts or more, got 1; "
        "build a bank of more prompts; 30 or more say how wide intervals are"
    )


@pytest.mark.parametrize("prompts", [2, 3, 5, 30, 101, 10**6])
def test_half_width_is_scipys_t_interval(prompts: int) -> None:
    low, high = stats.t.interval(0.95, prompts - 1, loc=0, scale=np.sqrt(4.0 / prompts))
    assert half_width(4.0, prompts) == pytest.approx((high - low) / 2, rel=1e-9)


@given(
    variance=st.floats(1e-6, 1e6, allow_nan=False),
    wanted=st.floats(1e-2, 1e3, allow_nan=False),
)
def test_prompts_needed_are_the_fewest(variance: float, wanted: float) -> None:
    count = prompts_needed(variance, wanted)
    assert half_width(variance, count) <= wanted
    assert count == 2 or half_width(variance, count - 1) > wanted


def test_half_width_by_hand() -> None:
    # 25 prompts, variance times prompts 4: standard error 0.4; t(24) = 2.0639.
    assert half_width(4.0, 25) == pytest.approx(2.0639 * 0.4, rel=1e-4)
