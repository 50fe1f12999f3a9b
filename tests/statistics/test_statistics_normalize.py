"""Norm (Eq. 11) by hand, against a slow loop, and its identities."""

from __future__ import annotations

import numpy as np
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.statistics.tables.normalize import min_max, norm, stretched

ROUNDING = 1e-12  # float64 arithmetic in another order
EPSILON_EFFECT = 1e-9  # eps = 1e-12 in the denominator is not scaled along with z

values = st.lists(st.integers(-1000, 1000), min_size=2, max_size=60).map(
    lambda z: np.array(z, dtype=np.float64)
)
few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def test_quantiles_on_whole_indices_by_hand() -> None:
    # 0..20: indices 20 * 0.05 = 1 and 20 * 0.95 = 19, so Q05 = 1, Q95 = 19 and the range is 18.
    z = np.arange(21.0)
    expected = [0.0, 0.0, *[i / 18 for i in range(1, 18)], 1.0, 1.0]
    np.testing.assert_allclose(norm(z), expected, rtol=0, atol=ROUNDING)


def test_quantiles_between_indices_interpolate_linearly_by_hand() -> None:
    # Sorted 0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100; index 0.5: Q05 = 0.5; index 9.5: Q95 = 90.5.
    z = np.array([100.0, 0, 81, 1, 64, 4, 49, 9, 36, 16, 25])
    expected = [1, 0, 80.5 / 90, 0.5 / 90, 63.5 / 90, 3.5 / 90, 48.5 / 90, 8.5 / 90, 35.5 / 90]
    expected += [15.5 / 90, 24.5 / 90]
    np.testing.assert_allclose(norm(z), expected, rtol=0, atol=ROUNDING)


def test_unclipped_values_leave_the_unit_interval_by_hand() -> None:
    z = np.arange(21.0)
    np.testing.assert_allclose(stretched(z), (z - 1) / 18, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.25, 1e6])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_constant_signal_gives_zero(value: float, count: int) -> None:
    assert norm(np.full(count, value)).tolist() == [0.0] * count


def test_range_below_epsilon_gives_zero() -> None:
    # Q95 - Q05 = 18 steps of 5e-14 = 9e-13 < 1e-12.
    assert norm(np.arange(21) * 5e-14).tolist() == [0.0] * 21


def test_range_just_above_epsilon_is_divided_by_range_plus_epsilon() -> None:
    # Step 2e-12 / 18: range 2e-12, denominator 3e-12; Q95 maps to 2/3, the largest to 19/18 * 2/3.
    got = norm(np.arange(21) * (2e-12 / 18))
    assert got[19] == pytest.approx(2 / 3, abs=1e-6)  # a range of 2e-12 keeps about 10 digits
    assert got[20] == pytest.approx(19 / 27, abs=1e-6)


def test_outliers_inside_a_constant_bulk_do_not_widen_the_range() -> None:
    # One value of 101 is beyond both quantiles: Q05 = Q95 = 3, so every position gets 0.
    z = np.full(101, 3.0)
    z[50] = 1e9
    assert norm(z).tolist() == [0.0] * 101


@few
@given(values)
def test_equals_the_slow_definition(z: np.ndarray) -> None:
    np.testing.assert_allclose(norm(z), reference.norm(z), rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(stretched(z), reference.stretched(z), rtol=1e-12, atol=ROUNDING)


@few
@given(values, st.floats(0.1, 50), st.floats(-100, 100))
def test_unchanged_by_an_increasing_affine_map(z: np.ndarray, scale: float, shift: float) -> None:
    np.testing.assert_allclose(norm(scale * z + shift), norm(z), rtol=0, atol=EPSILON_EFFECT)


@few
@given(values)
def test_mirrored_signal_gives_the_complement(z: np.ndarray) -> None:
    low, high = np.quantile(z, [0.05, 0.95])
    expected = 1 - norm(z) if high > low else np.zeros(len(z))
    np.testing.assert_allclose(norm(-z), expected, rtol=0, atol=EPSILON_EFFECT)


@few
@given(values, st.randoms(use_true_random=False))
def test_permuted_rows_give_permuted_values(z: np.ndarray, random: object) -> None:
    order = list(range(len(z)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert norm(z[order]).tolist() == norm(z)[order].tolist()


@few
@given(values)
def test_keeps_order_and_stays_in_the_unit_interval(z: np.ndarray) -> None:
    got = norm(z)[np.argsort(z, kind="stable")]
    assert (np.diff(got) >= 0).all()
    assert got.min() >= 0
    assert got.max() <= 1


def test_min_max_by_hand() -> None:
    assert min_max(np.array([3.0, 1.0, 2.0, 5.0])).tolist() == [0.5, 0.0, 0.25, 1.0]


@few
@given(values)
def test_min_max_spans_zero_to_one_or_is_zero(z: np.ndarray) -> None:
    got = min_max(z)
    ends = (0.0, 0.0) if z.min() == z.max() else (0.0, 1.0)
    assert (got.min(), got.max()) == ends
    np.testing.assert_array_equal(np.argsort(got, kind="stable"), np.argsort(z, kind="stable"))
