"""Gaps inside Q3 (Tables 1 and 6, Fig. 4D) against loops, sets and concatenated rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.gaps import (
    MEDIAN,
    QUARTILES,
    TERTILES,
    in_q3,
    matched_gap,
    support_gap,
)
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, draw_counts

SUMS = 1e-10  # ratios of sums against means of rows in another order
COVARIATES = ("entropy_norm", "disagreement_norm", "relative_position")
PROXIES = ("compatibility", "overlap", "jaccard", "learnable")


def q3_rows(frame: pd.DataFrame) -> list[dict]:
    return [row for row in frame.to_dict("records") if row["quadrant"] == 3]


def slow_gap(rows: list[dict], proxy: str, low: float, high: float, outcome: str = "gain") -> float:
    """Mean of rows at or above `high` less that of rows at or below `low`."""
    above = [row[outcome] for row in rows if row[proxy] >= high]
    below = [row[outcome] for row in rows if row[proxy] <= low]
    return math.fsum(above) / len(above) - math.fsum(below) / len(below)


def slow_pairs(frame: pd.DataFrame, proxy: str) -> list[tuple[dict, dict]]:
    """(high, nearest low) of every high position, prompt by prompt, with a double loop."""
    pairs = []
    rows = sorted(q3_rows(frame), key=lambda r: (r["prompt_id"], r["context_id"], r["position"]))
    for prompt in sorted({row["prompt_id"] for row in rows}):
        here = [row for row in rows if row["prompt_id"] == prompt]
        middle = reference.quantile([row[proxy] for row in here], 0.5)
        for high in here:
            if not high[proxy] > middle:
                continue
            best, nearest = math.inf, None
            for low in here:
                if low[proxy] > middle:
                    continue
                distance = math.fsum((high[c] - low[c]) ** 2 for c in COVARIATES)
                if distance < best:  # an equal distance keeps the earlier one
                    best, nearest = distance, low
            assert nearest is not None
            pairs.append((high, nearest))
    return pairs


def bounds(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def hand_frame(rows: list[tuple], names: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(names))
    defaults = {
        "quadrant": 3,
        "context_id": "c",
        "position": range(len(frame)),
        "entropy_norm": 0.0,
        "disagreement_norm": 0.0,
        "relative_position": 0.0,
    }
    return frame.assign(**{k: v for k, v in defaults.items() if k not in frame})


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("outcome", ["gain", "gain_rel"])
def test_gap_equals_the_slow_definition(
    frame: pd.DataFrame, counts: np.ndarray, proxy: str, outcome: str
) -> None:
    rows = q3_rows(frame)
    low, high = (reference.quantile([r[proxy] for r in rows], q) for q in (1 / 3, 2 / 3))
    got = support_gap(frame, proxy, Bootstrap(counts=counts), outcome=outcome)
    assert got.gap.estimate == pytest.approx(slow_gap(rows, proxy, low, high, outcome), abs=SUMS)
    assert got.proxy == proxy
    assert got.n_positions == len(rows)
    assert got.n_high == sum(r[proxy] >= high for r in rows)
    assert got.n_low == sum(r[proxy] <= low for r in rows)
    tied = sum(r[proxy] in (low, high) for r in rows)
    assert got.tied_share == pytest.approx(tied / len(rows), abs=SUMS)


@pytest.mark.parametrize("proxy", PROXIES)
def test_gap_interval_equals_concatenated_rows_with_cuts_of_the_full_sample(
    frame: pd.DataFrame, counts: np.ndarray, proxy: str
) -> None:
    values = [r[proxy] for r in q3_rows(frame)]
    low, high = (reference.quantile(values, q) for q in (1 / 3, 2 / 3))
    draws = reference.brute_force(frame, counts, lambda f: slow_gap(q3_rows(f), proxy, low, high))
    got = support_gap(frame, proxy, Bootstrap(counts=counts)).gap
    assert (got.low, got.high) == pytest.approx(reference.percentiles(draws), abs=SUMS)


def test_tertiles_are_inclusive_by_hand() -> None:
    # Proxy 1..7: the tertiles are at indices 2 and 4, the values 3 and 5. High: 5, 6, 7; low: 1,
    # 2, 3. Gains are squares: (25 + 36 + 49) / 3 - (1 + 4 + 9) / 3 = 32. Two of seven are tied.
    frame = hand_frame(
        [("ab"[i % 2], float(i), float(i * i)) for i in range(1, 8)], ("prompt_id", "c_", "gain")
    )
    got = support_gap(frame, "c_", Bootstrap(counts=np.ones((3, 2))))
    assert bounds(got.gap) == pytest.approx((32, 32, 32), abs=SUMS)
    assert (got.n_high, got.n_low, got.n_positions) == (3, 3, 7)
    assert got.tied_share == pytest.approx(2 / 7, abs=SUMS)


def test_value_on_both_cuts_counts_on_both_sides_by_hand() -> None:
    # Proxy 0, 1, 1, 1, 1, 2: both tertiles are 1. High: four ones and the 2; low: 0 and the ones.
    # Gains 10, 1, 1, 1, 1, 4: (4 + 4) / 5 - (10 + 4) / 5 = -1.2; four of six are tied.
    frame = hand_frame(
        [("a", 0, 10), ("b", 1, 1), ("a", 1, 1), ("b", 1, 1), ("a", 1, 1), ("b", 2, 4)],
        ("prompt_id", "c_", "gain"),
    )
    got = support_gap(frame, "c_", Bootstrap(counts=np.ones((2, 2))))
    assert got.gap.estimate == pytest.approx(-1.2, abs=SUMS)
    assert (got.n_high, got.n_low) == (5, 5)
    assert got.tied_share == pytest.approx(4 / 6, abs=SUMS)


@pytest.mark.parametrize(
    ("cuts", "gap", "high", "low", "tied"),
    [
        # Proxy 1..8, gains squares. The median is 4.5: (25 + 36 + 49 + 64 - 1 - 4 - 9 - 16) / 4.
        (MEDIAN, 36.0, 4, 4, 0.0),
        # Quartiles at indices 1.75 and 5.25, 2.75 and 6.25: (49 + 64) / 2 - (1 + 4) / 2.
        (QUARTILES, 54.0, 2, 2, 0.0),
        # Tertiles at indices 7/3 and 14/3, 3.33 and 5.67: (36 + 49 + 64) / 3 - (1 + 4 + 9) / 3.
        (TERTILES, 45.0, 3, 3, 0.0),
        # All of it: the largest less the least, each on its cut.
        ((0.0, 1.0), 63.0, 1, 1, 0.25),
    ],
)
def test_splits_by_hand(
    cuts: tuple[float, float], gap: float, high: int, low: int, tied: float
) -> None:
    rows = [("ab"[i % 2], float(i), float(i * i)) for i in range(1, 9)]
    frame = hand_frame(rows, ("prompt_id", "c_", "gain"))
    got = support_gap(frame, "c_", Bootstrap(counts=np.ones((2, 2))), cuts=cuts)
    assert got.gap.estimate == pytest.approx(gap, abs=SUMS)
    assert (got.n_high, got.n_low, got.tied_share) == (high, low, tied)


def test_median_of_an_odd_number_counts_on_both_sides_by_hand() -> None:
    # Proxy 1, 2, 3, gains 1, 10, 100: the 2 is the median, high (10 + 100) / 2, low (1 + 10) / 2.
    frame = hand_frame([("a", 1, 1), ("b", 2, 10), ("a", 3, 100)], ("prompt_id", "c_", "gain"))
    got = support_gap(frame, "c_", Bootstrap(counts=np.ones((2, 2))), cuts=MEDIAN)
    assert got.gap.estimate == pytest.approx(49.5, abs=SUMS)
    assert (got.n_high, got.n_low, got.tied_share) == (2, 2, pytest.approx(1 / 3))


@pytest.mark.parametrize("cuts", [(0.6, 0.4), (-0.1, 0.5), (0.5, 1.1), (math.nan, 0.5)])
def test_cuts_that_are_no_two_quantiles_are_refused(
    frame: pd.DataFrame, cuts: tuple[float, float]
) -> None:
    with pytest.raises(InputError) as caught:
        support_gap(frame, "overlap", cuts=cuts)
    assert str(caught.value) == (
        "gap by overlap: expected two quantiles from 0 to 1, the lower one first, got "
        f"{cuts[0]:g} and {cuts[1]:g}; give (1/3, 2/3) for tertiles, (0.5, 0.5) for a median split"
    )


def test_positions_outside_q3_play_no_part(frame: pd.DataFrame, counts: np.ndarray) -> None:
    outside = frame["quadrant"] != 3
    changed = frame.assign(
        gain=frame["gain"].mask(outside, 1e6), overlap=frame["overlap"].mask(outside, -5.0)
    )
    for gap in (support_gap, matched_gap):
        assert (
            gap(changed, "overlap", Bootstrap(counts=counts)).gap
            == gap(frame, "overlap", Bootstrap(counts=counts)).gap
        )


def test_other_cuts_are_taken_as_given(frame: pd.DataFrame, counts: np.ndarray) -> None:
    rows = q3_rows(frame)
    low, high = (reference.quantile([r["compatibility"] for r in rows], q) for q in (0.1, 0.9))
    got = support_gap(frame, "compatibility", Bootstrap(counts=counts), cuts=(0.1, 0.9)).gap
    expected = slow_gap(rows, "compatibility", low, high)
    assert got.estimate == pytest.approx(expected, abs=SUMS)


def test_overlap_gap_is_jaccard_gap(frame: pd.DataFrame, counts: np.ndarray) -> None:
    overlap, jaccard = (
        support_gap(frame, name, Bootstrap(counts=counts)) for name in ("overlap", "jaccard")
    )
    assert overlap.gap == jaccard.gap
    assert (overlap.n_high, overlap.n_low) == (jaccard.n_high, jaccard.n_low)
    assert overlap.tied_share == jaccard.tied_share
    matched = [
        matched_gap(frame, name, Bootstrap(counts=counts)) for name in ("overlap", "jaccard")
    ]
    assert matched[0].gap == matched[1].gap


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.integers(0, 16), min_size=4, max_size=64).filter(lambda m: len(set(m)) > 1),
    st.sampled_from([16, 32, 50]),
)
def test_overlap_gap_is_jaccard_gap_for_any_counts(shared: list[int], k: int) -> None:
    m = np.array(shared)
    frame = hand_frame(
        [("ab"[i % 2], float(i) ** 1.5) for i in range(len(m))], ("prompt_id", "gain")
    )
    frame = frame.assign(overlap=m / k, jaccard=m / (2 * k - m))
    one, two = (
        support_gap(frame, name, Bootstrap(counts=np.ones((2, 2))))
        for name in ("overlap", "jaccard")
    )
    assert (one.gap, one.n_high, one.n_low) == (two.gap, two.n_high, two.n_low)
    assert one.tied_share == two.tied_share


@pytest.mark.parametrize("gap", [support_gap, matched_gap])
@pytest.mark.parametrize("proxy", ["compatibility", "overlap"])
def test_permuted_rows_give_the_same_gap(
    frame: pd.DataFrame, counts: np.ndarray, gap: Callable, proxy: str
) -> None:
    here, there = (
        gap(f, proxy, Bootstrap(counts=counts)) for f in (frame, reference.permuted(frame, seed=4))
    )
    assert bounds(there.gap) == pytest.approx(bounds(here.gap), abs=SUMS)


@pytest.mark.parametrize("gap", [support_gap, matched_gap])
def test_relabelled_prompts_keep_the_point_estimate(
    frame: pd.DataFrame, counts: np.ndarray, gap: Callable
) -> None:
    here, there = (
        gap(f, "compatibility", Bootstrap(counts=counts))
        for f in (frame, reference.relabelled(frame))
    )
    assert there.gap.estimate == pytest.approx(here.gap.estimate, abs=SUMS)


@pytest.mark.parametrize("gap", [support_gap, matched_gap])
def test_gain_that_is_the_same_everywhere_has_gap_zero(
    frame: pd.DataFrame, counts: np.ndarray, gap: Callable
) -> None:
    # 0 for an unchanged checkpoint, 0.25 for one that improved every position alike.
    for gain in (0.0, 0.25):
        got = gap(frame.assign(gain=gain), "compatibility", Bootstrap(counts=counts)).gap
        assert bounds(got) == pytest.approx((0, 0, 0), abs=SUMS)


@pytest.mark.parametrize("gap", [support_gap, matched_gap])
def test_constant_added_to_the_gain_keeps_the_gap(
    frame: pd.DataFrame, counts: np.ndarray, gap: Callable
) -> None:
    here = gap(frame, "compatibility", Bootstrap(counts=counts)).gap
    there = gap(frame.assign(gain=frame["gain"] + 3), "compatibility", Bootstrap(counts=counts)).gap
    assert bounds(there) == pytest.approx(bounds(here), abs=SUMS)


def test_mirrored_proxy_turns_the_gap(frame: pd.DataFrame, counts: np.ndarray) -> None:
    mirrored = frame.assign(mirror=-frame["compatibility"])
    here, there = (
        support_gap(mirrored, n, Bootstrap(counts=counts)).gap for n in ("compatibility", "mirror")
    )
    assert bounds(there) == pytest.approx((-here.estimate, -here.high, -here.low), abs=SUMS)


@pytest.mark.parametrize("gap", [support_gap, matched_gap])
def test_one_prompt_has_no_interval(frame: pd.DataFrame, gap: Callable) -> None:
    got = gap(
        frame.assign(prompt_id="only"),
        "compatibility",
        Bootstrap(counts=draw_counts(1, 20, seed=0)),
    ).gap
    assert math.isfinite(got.estimate)
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert got.reason == "1 prompt: no interval from one cluster"


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_constant_proxy_is_refused(frame: pd.DataFrame, counts: np.ndarray, value: float) -> None:
    flat = frame["overlap"].mask(frame["quadrant"] == 3, value)
    with pytest.raises(InputError) as caught:
        support_gap(frame.assign(overlap=flat), "overlap", Bootstrap(counts=counts))
    assert str(caught.value) == (
        f"gap by overlap: expected a proxy that varies in Q3, got {value:g} everywhere; "
        "choose a smaller support size or another proxy"
    )


def test_table_without_q3_is_refused(frame: pd.DataFrame, counts: np.ndarray) -> None:
    none = frame.assign(quadrant=np.int8(4))
    calls = (
        lambda: in_q3(none),
        lambda: support_gap(none, "overlap", Bootstrap(counts=counts)),
        lambda: matched_gap(none, "overlap", Bootstrap(counts=counts)),
    )
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == (
            "token table: expected positions in Q3 (low entropy, high KL), got none; "
            "score more contexts"
        )


@pytest.mark.parametrize("proxy", PROXIES)
def test_matched_gap_equals_a_double_loop(
    frame: pd.DataFrame, counts: np.ndarray, proxy: str
) -> None:
    pairs = slow_pairs(frame, proxy)
    got = matched_gap(frame, proxy, Bootstrap(counts=counts))
    expected = math.fsum(high["gain"] - low["gain"] for high, low in pairs) / len(pairs)
    assert got.gap.estimate == pytest.approx(expected, abs=SUMS)
    assert got.pairs == len(pairs)
    contributing = {high["prompt_id"] for high, _ in pairs}
    assert got.prompt_share == pytest.approx(len(contributing) / 10, abs=SUMS)


def test_matched_interval_equals_concatenated_pairs(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    # Pairs are made within a prompt, so a drawn prompt brings its pairs along.
    pairs = pd.DataFrame(
        [(h["prompt_id"], h["gain"] - w["gain"]) for h, w in slow_pairs(frame, "compatibility")],
        columns=["prompt_id", "difference"],
    )
    assert pairs["prompt_id"].nunique() == 10
    draws = reference.brute_force(pairs, counts, lambda f: f["difference"].mean())
    got = matched_gap(frame, "compatibility", Bootstrap(counts=counts)).gap
    assert (got.low, got.high) == pytest.approx(reference.percentiles(draws), abs=SUMS)


def test_matched_pairs_by_hand() -> None:
    # Prompt a: proxies 1, 2, 3, 9; median 2.5. High 3 at H~ 0.0 is nearest to the low at 0.1
    # (gain 1), high 9 at 0.9 to the low at 0.7 (gain 2). Differences 5 - 1 and 7 - 2: mean 4.5.
    # Prompt b: constant proxy, no pair. Prompt c: outside Q3. One of three prompts contributes.
    frame = hand_frame(
        [
            ("a", 3, 1.0, 0.1, 1.0),
            ("a", 3, 2.0, 0.7, 2.0),
            ("a", 3, 3.0, 0.0, 5.0),
            ("a", 3, 9.0, 0.9, 7.0),
            ("b", 3, 4.0, 0.5, 100.0),
            ("b", 3, 4.0, 0.6, 200.0),
            ("c", 4, 5.0, 0.5, 300.0),
        ],
        ("prompt_id", "quadrant", "proxy", "entropy_norm", "gain"),
    )
    got = matched_gap(frame, "proxy", Bootstrap(counts=np.ones((2, 3))))
    assert bounds(got.gap) == pytest.approx((4.5, 4.5, 4.5), abs=SUMS)
    assert got.pairs == 2
    assert got.prompt_share == pytest.approx(1 / 3, abs=SUMS)


@pytest.mark.parametrize("seed", range(4))
def test_equal_distances_take_the_earlier_context_and_position(seed: int) -> None:
    # The high position lies between two lows at distance 0.25 (exact in binary); context c1 comes
    # before c2, so the partner has gain 1 in whatever order the rows stand.
    frame = pd.DataFrame(
        {
            "prompt_id": ["a", "a", "a", "b", "b"],
            "context_id": ["c2", "c1", "c1", "c3", "c3"],
            "position": [0, 4, 7, 0, 1],
            "quadrant": 3,
            "proxy": [1.0, 2.0, 3.0, 1.0, 2.0],
            "entropy_norm": [0.25, 0.75, 0.5, 0.0, 0.0],
            "disagreement_norm": 0.0,
            "relative_position": 0.0,
            "gain": [9.0, 1.0, 11.0, 0.0, 0.0],
        }
    )
    got = matched_gap(reference.permuted(frame, seed), "proxy", Bootstrap(counts=np.ones((2, 2))))
    assert got.gap.estimate == pytest.approx((11 - 1 + 0 - 0) / 2, abs=SUMS)


def test_a_low_position_may_be_the_partner_of_several(frame: pd.DataFrame) -> None:
    # One low position (proxy 1 and its twin far away), two highs beside it: with replacement.
    rows = [("a", 1.0, 0.0, 1.0), ("a", 1.0, 1.0, 50.0), ("a", 2.0, 0.1, 2.0), ("a", 3.0, 0.2, 4.0)]
    rows += [("b", 1.0, 0.0, 0.0), ("b", 2.0, 0.0, 0.0)]
    table = hand_frame(rows, ("prompt_id", "proxy", "entropy_norm", "gain"))
    got = matched_gap(table, "proxy", Bootstrap(counts=np.ones((2, 2))))
    assert got.pairs == 3
    assert got.gap.estimate == pytest.approx((1 + 3 + 0) / 3, abs=SUMS)


def test_proxy_that_never_rises_above_its_prompt_median_is_refused(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    with pytest.raises(InputError) as caught:
        matched_gap(frame.assign(overlap=0.5), "overlap", Bootstrap(counts=counts))
    assert str(caught.value) == (
        "matched gap by overlap: expected a prompt with Q3 positions above and not above its "
        "median, got none; score longer or more contexts"
    )


@pytest.mark.parametrize("proxy", ["compatibility", "overlap"])
def test_balance_equals_means_over_the_pairs(
    frame: pd.DataFrame, counts: np.ndarray, proxy: str
) -> None:
    pairs = slow_pairs(frame, proxy)
    in_pairs = {(h["context_id"], h["position"]) for h, _ in pairs}
    rows = q3_rows(frame)
    low = [r for r in rows if (r["context_id"], r["position"]) not in in_pairs]
    got = matched_gap(frame, proxy, Bootstrap(counts=counts)).balance
    assert tuple(got["covariate"]) == COVARIATES
    for _, line in got.iterrows():
        name = line["covariate"]
        high_mean = math.fsum(h[name] for h, _ in pairs) / len(pairs)
        low_mean = math.fsum(r[name] for r in low) / len(low)
        matched_mean = math.fsum(w[name] for _, w in pairs) / len(pairs)
        assert line["high_mean"] == pytest.approx(high_mean, abs=SUMS)
        assert line["low_mean"] == pytest.approx(low_mean, abs=SUMS)
        assert line["matched_low_mean"] == pytest.approx(matched_mean, abs=SUMS)
        spread = np.std([r[name] for r in rows])  # one standard deviation for both columns: Q3's
        assert line["difference_before"] == pytest.approx((high_mean - low_mean) / spread, abs=SUMS)
        after = (high_mean - matched_mean) / spread
        assert line["difference_after"] == pytest.approx(after, abs=SUMS)


def test_constant_covariate_has_balance_zero(frame: pd.DataFrame, counts: np.ndarray) -> None:
    flat = frame.assign(relative_position=0.5)
    line = matched_gap(flat, "compatibility", Bootstrap(counts=counts)).balance.set_index(
        "covariate"
    )
    got = line.loc["relative_position", ["difference_before", "difference_after"]]
    assert got.tolist() == pytest.approx([0, 0], abs=SUMS)
