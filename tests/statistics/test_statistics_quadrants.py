"""TIP's quadrants (section 3.4) and relative positions, by hand and against loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.gaps import support_gap
from diagnostics.statistics.analyses.redraw import redrawn
from diagnostics.statistics.tables.measured import relative_position
from diagnostics.statistics.tables.quadrants import quadrant_shares, with_quadrants
from diagnostics.statistics.tables.tokens import quadrants


def test_four_corners_by_hand() -> None:
    # Medians 2.5 and 2.5: low H is 1 or 2, high KL is 3 or 4.
    entropy = np.array([4.0, 3, 1, 2])
    kl_0 = np.array([4.0, 1, 3, 2])
    assert quadrants(entropy, kl_0).tolist() == [1, 2, 3, 4]


def test_ties_at_the_median_go_to_low_entropy_and_high_kl_by_hand() -> None:
    # Median of H is 2, of KL_0 is 5; both are inclusive, so (2, 5) lies in Q3.
    entropy = np.array([1.0, 2, 2, 3, 3])
    kl_0 = np.array([5.0, 5, 1, 9, 2])
    assert quadrants(entropy, kl_0).tolist() == [3, 3, 4, 1, 2]


def test_constant_signals_put_all_positions_in_q3() -> None:
    assert quadrants(np.full(6, 0.1), np.full(6, 0.3)).tolist() == [3] * 6


def test_column_is_int8() -> None:
    assert quadrants(np.arange(4.0), np.arange(4.0)).dtype == np.int8


def test_other_quantile_cuts_both_signals_by_hand() -> None:
    # Quantile 0.8 of 0..10 is 8: H <= 8 is low, KL_0 >= 8 is high.
    values = np.arange(11.0)
    assert quadrants(values, values, quantile=0.8).tolist() == [4] * 8 + [3, 1, 1]


@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.9])
def test_equals_the_slow_definition(quantile: float) -> None:
    rng = np.random.default_rng(4)
    entropy, kl_0 = rng.gamma(1.0, size=201), rng.gamma(1.0, size=201)
    cuts = reference.quantile(entropy, quantile), reference.quantile(kl_0, quantile)
    expected = [reference.quadrant(h, d, *cuts) for h, d in zip(entropy, kl_0, strict=True)]
    assert quadrants(entropy, kl_0, quantile).tolist() == expected


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_at_least_half_is_low_in_entropy_and_half_high_in_kl(pairs: list[tuple[int, int]]) -> None:
    entropy, kl_0 = np.array(pairs, dtype=np.float64).T
    got = quadrants(entropy, kl_0)
    assert np.isin(got, [3, 4]).mean() >= 0.5
    assert np.isin(got, [1, 3]).mean() >= 0.5


def test_shares_of_distinct_values_by_hand() -> None:
    # H rises 0..9, KL_0 falls: the five low in H are the five high in KL_0.
    got = quadrants(np.arange(10.0), np.arange(10.0)[::-1])
    assert [(got == q).mean() for q in (1, 2, 3, 4)] == [0.0, 0.5, 0.5, 0.0]


def test_relative_position_counts_within_each_context_by_hand() -> None:
    context = np.array([0, 0, 0, 1, 2, 2, 5, 5, 5, 5, 5], dtype=np.int32)
    expected = [0, 0.5, 1, 0, 0, 1, 0, 0.25, 0.5, 0.75, 1]
    assert relative_position(context).tolist() == expected


def test_relative_position_of_one_position_is_zero() -> None:
    assert relative_position(np.zeros(1, dtype=np.int32)).tolist() == [0.0]


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_table_with_other_quadrants_has_those_of_its_rows(
    frame: pd.DataFrame, quantile: float
) -> None:
    cuts = [reference.quantile(frame[name], quantile) for name in ("entropy", "kl_0")]
    expected = [
        reference.quadrant(h, d, *cuts)
        for h, d in zip(frame["entropy"], frame["kl_0"], strict=True)
    ]
    before = frame["quadrant"].copy()
    made = with_quadrants(frame, quantile)
    assert made["quadrant"].tolist() == expected
    assert made.attrs["quadrant_quantile"] == quantile
    assert frame["quadrant"].equals(before)
    shares = quadrant_shares(made)
    assert shares.quantile == quantile
    assert shares.table["n"].tolist() == [expected.count(q) for q in (1, 2, 3, 4)]
    assert shares.table["share"].sum() == pytest.approx(1.0, abs=1e-12)
    assert shares.q3_share == expected.count(3) / len(expected)


def test_quadrants_at_the_median_are_the_tables_own(frame: pd.DataFrame) -> None:
    assert with_quadrants(frame)["quadrant"].equals(frame["quadrant"])


def test_analyses_run_at_another_cut_by_hand() -> None:
    # H and KL_0 both 0..9, cut at the 80 % quantile, 7.2: low H and high KL_0 never meet, but with
    # KL_0 turned around, 9 and 8 have H 0 and 1. Gains 5 and 7 there, high C first: 5 - 7.
    frame = pd.DataFrame(
        {
            "prompt_id": list("ab") * 5,
            "entropy": np.arange(10.0),
            "kl_0": np.arange(10.0)[::-1],
            "compatibility": [0.9, 0.1, *[0.5] * 8],
            "gain": [5.0, 7.0, *[0.0] * 8],
        }
    )
    made = with_quadrants(frame, 0.8)
    assert quadrant_shares(made).table["n"].tolist() == [0, 2, 2, 6]
    assert support_gap(made, "compatibility").gap.estimate == -2.0


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.5, math.nan])
def test_quantile_beyond_the_table_is_refused(frame: pd.DataFrame, quantile: float) -> None:
    with pytest.raises(InputError) as caught:
        with_quadrants(frame, quantile)
    assert str(caught.value) == (
        f"quadrants: expected a quantile between 0 and 1, got {quantile:g}; "
        "give 0.5 for the median, 0.8 for the upper fifth"
    )


def test_nan_in_the_plane_names_the_context(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=f"context {frame['context_id'].iloc[3]}, position"):
        with_quadrants(frame.assign(kl_0=frame["kl_0"].where(np.arange(len(frame)) != 3)))


def test_cuts_redone_in_each_draw_are_the_medians_alone(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError) as caught:
        redrawn(with_quadrants(frame, 0.8))
    assert str(caught.value) == (
        "bootstrap that redoes cuts: expected quadrants cut at the median, as they are redone in "
        "each draw, got cut at the quantile 0.8; "
        "take intervals whose cuts stay, or the table as it was made"
    )
