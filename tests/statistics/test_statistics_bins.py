"""Bins of the gain (Fig. 4D, 5C) against loops, least squares and concatenated rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.bins import Bins, bucket_means, residual_bins
from diagnostics.statistics.analyses.residuals import CONTROLS, ResidualMean, residuals
from diagnostics.statistics.inference.bootstrap import Bootstrap, bands, draw_counts
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Mean, estimate
from diagnostics.statistics.inference.medians import drawn_medians

SUMS = 1e-10  # ratios of sums against means of rows in another order
DERIVATIVE = 1e-5  # central differences of a float64 value with steps of 1e-6

few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def hand_frame(rows: list[tuple], names: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(names))
    return frame.assign(quadrant=3, context_id="c", position=range(len(frame)))


def q3_rows(frame: pd.DataFrame) -> list[dict]:
    return [row for row in frame.to_dict("records") if row["quadrant"] == 3]


def fitted(frame: pd.DataFrame, outcome: str = "gain") -> np.ndarray:
    """Residuals of least squares on a constant and the controls, by numpy's solver."""
    x = np.column_stack([np.ones(len(frame)), frame[list(CONTROLS)]])
    return frame[outcome] - x @ np.linalg.lstsq(x, frame[outcome], rcond=None)[0]


def labelled(frame: pd.DataFrame, column: str, bins: int) -> pd.DataFrame:
    """The number of full-sample edges below each value, as the column `bin`."""
    edges = [reference.quantile(frame[column], i / bins) for i in range(1, bins)]
    return frame.assign(bin=[sum(edge < value for edge in edges) for value in frame[column]])


def redrawn(frame: pd.DataFrame, counts: np.ndarray, fit: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and median of `left` in each bin of each draw, (draws, bins) each; `fit` anew or not."""

    def one(drawn: pd.DataFrame) -> pd.DataFrame:
        drawn = drawn.assign(left=fitted(drawn)) if fit else drawn
        return drawn.groupby("bin")["left"].agg(["mean", "median"])

    made = reference.brute_force(frame, counts, one)
    return made[:, :, 0], made[:, :, 1]


def check_ends(table: pd.DataFrame, name: str, draws: np.ndarray) -> None:
    """The interval of each bin is the percentiles of its draws, (draws, bins)."""
    expected = [reference.percentiles(column) for column in draws.T]
    got = table[[f"{name}_low", f"{name}_high"]].to_numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=SUMS)


def slow_buckets(rows: list[dict], column: str, buckets: int) -> list[list[dict]]:
    """Rows by the number of quantile edges below their value: equal values stay together."""
    values = [row[column] for row in rows]
    edges = [reference.quantile(values, i / buckets) for i in range(1, buckets)]
    out: list[list[dict]] = [[] for _ in range(buckets)]
    for row in rows:
        out[sum(edge < row[column] for edge in edges)].append(row)
    return out


@pytest.mark.parametrize("column", ["compatibility", "overlap"])
@pytest.mark.parametrize("buckets", [4, 10])
def test_buckets_equal_the_slow_definition(
    frame: pd.DataFrame, counts: np.ndarray, column: str, buckets: int
) -> None:
    made = bucket_means(frame, column, Bootstrap(counts=counts), buckets=buckets)
    got = made.to_frame()
    slow = slow_buckets(q3_rows(frame), column, buckets)
    filled = [(i + 1, rows) for i, rows in enumerate(slow) if rows]
    shown = ["gain", "gain_low", "gain_high", "median", "median_low", "median_high"]
    assert list(got.columns) == ["bucket", "n", column, *shown]
    assert got["bucket"].tolist() == [i for i, _ in filled]
    assert got["n"].tolist() == [len(rows) for _, rows in filled]
    middles = [math.fsum(r[column] for r in rows) / len(rows) for _, rows in filled]
    gains = [math.fsum(r["gain"] for r in rows) / len(rows) for _, rows in filled]
    np.testing.assert_allclose(got[column], middles, rtol=0, atol=SUMS)
    np.testing.assert_allclose(got["gain"], gains, rtol=0, atol=SUMS)
    medians = [np.median([r["gain"] for r in rows]) for _, rows in filled]
    np.testing.assert_allclose(got["median"], medians, rtol=0, atol=SUMS)
    values = [r[column] for r in q3_rows(frame)]
    edges = {reference.quantile(values, i / buckets) for i in range(1, buckets)}
    assert made.tied_share == sum(v in edges for v in values) / len(values)


def test_quartiles_of_eight_values_by_hand() -> None:
    # Edges of 1..8: 2.75, 4.5, 6.25, so two positions a bucket, and gains are squares.
    frame = hand_frame(
        [("ab"[i % 2], float(i), float(i * i)) for i in range(1, 9)], ("prompt_id", "x", "gain")
    )
    got = bucket_means(frame, "x", Bootstrap(counts=np.ones((2, 2)))).table
    assert got["n"].tolist() == [2, 2, 2, 2]
    assert got["x"].tolist() == [1.5, 3.5, 5.5, 7.5]
    assert got["gain"].tolist() == [2.5, 12.5, 30.5, 56.5]


def test_value_on_an_edge_belongs_to_the_lower_bucket_by_hand() -> None:
    # 0..4 has its quartiles at 1, 2 and 3: buckets {0, 1}, {2}, {3}, {4}.
    frame = hand_frame([("ab"[i % 2], float(i), 1.0) for i in range(5)], ("prompt_id", "x", "gain"))
    got = bucket_means(frame, "x", Bootstrap(counts=np.ones((2, 2))))
    assert got.table["n"].tolist() == [2, 1, 1, 1]
    assert got.tied_share == 3 / 5


def test_bucket_means_weighted_by_size_give_the_mean(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    got = bucket_means(frame, "overlap", Bootstrap(counts=counts)).table
    whole = np.mean([row["gain"] for row in q3_rows(frame)])
    assert (got["gain"] * got["n"]).sum() / got["n"].sum() == pytest.approx(whole, abs=SUMS)


@few
@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 9))
def test_drawn_medians_equal_numpys_of_repeated_rows(seed: int, size: int, clusters: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 20, size) / 4  # many ties
    owner = rng.integers(0, clusters, size)
    counts = draw_counts(clusters, 30, seed)
    got = drawn_medians(values, owner, counts)
    for row, middle in zip(counts.astype(int), got, strict=True):
        repeated = np.repeat(values, row[owner])
        assert middle == np.median(repeated) if len(repeated) else math.isnan(middle)


def test_medians_of_hand_made_buckets_and_their_trend() -> None:
    # Two buckets of x: gains 1, 2, 9 and 4, 6. Means 4 and 5, medians 2 and 5; slope and
    # top less bottom are 5 - 4 = 1 for buckets 1 and 2.
    rows = [("a", 1.0, 1.0), ("b", 1.0, 2.0), ("a", 1.0, 9.0), ("b", 2.0, 4.0), ("a", 2.0, 6.0)]
    frame = hand_frame(rows, ("prompt_id", "x", "gain"))
    got = bucket_means(frame, "x", Bootstrap(counts=np.ones((2, 2))), buckets=2)
    assert got.table["median"].tolist() == [2, 5]
    assert got.table["gain"].tolist() == [4, 5]
    assert (got.slope.estimate, got.top_less_bottom.estimate) == (1, 1)
    assert got.tied_share == 3 / 5  # the median of x is 1


def test_slope_of_four_buckets_by_hand() -> None:
    # Means 2.5, 12.5, 30.5, 56.5 over 1..4: weights -0.3, -0.1, 0.1, 0.3 give 16.2 + 1.8.
    rows = [("ab"[i % 2], float(i), float(i * i)) for i in range(1, 9)]
    got = bucket_means(
        hand_frame(rows, ("prompt_id", "x", "gain")), "x", Bootstrap(counts=np.ones((2, 2)))
    )
    assert got.slope.estimate == pytest.approx(18.0, abs=SUMS)
    assert got.top_less_bottom.estimate == pytest.approx(54.0, abs=SUMS)


def test_trend_and_median_intervals_equal_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    everywhere = np.ones(len(frame), dtype=bool)
    got = bucket_means(frame, "learnable", Bootstrap(counts=counts), buckets=3, scope=everywhere)
    named = bucket_means(frame, "learnable", Bootstrap(counts=counts), buckets=3, scope="all")
    pd.testing.assert_frame_equal(got.table, named.table)
    rows = labelled(frame, "learnable", 3).assign(left=frame["gain"])
    means, medians = redrawn(rows, counts, fit=False)
    ends = means[:, 2] - means[:, 0]
    for value, slow in ((got.slope, ends / 2), (got.top_less_bottom, ends)):
        assert (value.low, value.high) == pytest.approx(reference.percentiles(slow), abs=SUMS)
    check_ends(got.table, "gain", means)
    check_ends(got.table, "median", medians)


@pytest.mark.parametrize("column", ["learnable", "incompatible", "compatibility_norm"])
@pytest.mark.parametrize("outcome", ["gain", "gain_rel"])
def test_residual_bins_equal_numpys_least_squares(
    frame: pd.DataFrame, counts: np.ndarray, column: str, outcome: str
) -> None:
    got = residual_bins(frame, column, Bootstrap(counts=counts), outcome=outcome).to_frame()
    rows = labelled(frame, column, 10).assign(left=fitted(frame, outcome))
    slow = rows.groupby("bin")["left"].agg(["mean", "median", "size"])
    scale = rows["left"].abs().max()
    assert got["bucket"].tolist() == (slow.index + 1).tolist()
    assert got["n"].tolist() == slow["size"].tolist()
    np.testing.assert_allclose(got["residual"], slow["mean"], rtol=0, atol=SUMS * scale)
    np.testing.assert_allclose(got["median"], slow["median"], rtol=0, atol=SUMS * scale)


def test_residual_intervals_equal_a_regression_of_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    got = residual_bins(frame, "learnable", Bootstrap(counts=counts), bins=4)
    means, medians = redrawn(labelled(frame, "learnable", 4), counts, fit=True)
    check_ends(got.table, "residual", means)
    check_ends(got.table, "median", medians)
    slope = means @ (np.arange(4) - 1.5) / 5
    ends = (got.slope.low, got.slope.high)
    assert ends == pytest.approx(reference.percentiles(slope), abs=SUMS)


def test_held_residuals_have_intervals_of_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    got = residual_bins(frame, "learnable", Bootstrap(counts=counts), bins=4, refit=False)
    rows = labelled(frame, "learnable", 4).assign(left=fitted(frame))
    means, medians = redrawn(rows, counts, fit=False)
    check_ends(got.table, "residual", means)
    check_ends(got.table, "median", medians)


def test_bands_hold_every_pointwise_centre_and_are_those_of_the_family(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    got = residual_bins(
        frame, "learnable", Bootstrap(counts=counts), bins=4, simultaneous=True, refit=False
    ).table
    clusters, left = prompt_clusters(frame), fitted(frame).to_numpy()
    bins = labelled(frame, "learnable", 4)["bin"].to_numpy()
    family = [
        Mean(clusters.subset(bins == b).sums(left[bins == b]), clusters.subset(bins == b).sizes())
        for b in range(4)
    ]
    expected = bands(family, Bootstrap(counts=counts))
    np.testing.assert_allclose(got["band_low"], [e.low for e in expected], rtol=0, atol=SUMS)
    np.testing.assert_allclose(got["band_high"], [e.high for e in expected], rtol=0, atol=SUMS)


def a_residual_mean(frame: pd.DataFrame) -> ResidualMean:
    everywhere = np.ones(len(frame), dtype=bool)
    made = residuals(frame, CONTROLS, everywhere, frame["gain"].to_numpy(), prompt_clusters(frame))
    return made.mean((frame["learnable"] > 0.3).to_numpy())


def test_gradient_of_a_residual_mean_is_its_derivative(frame: pd.DataFrame) -> None:
    made = a_residual_mean(frame)
    totals = made.sums.sum(axis=0, keepdims=True)
    got, expected = made.gradient(totals, 0)[0], []
    for place in range(totals.shape[1]):
        step = 1e-6 * max(1.0, abs(totals[0, place]))
        up, down = totals.copy(), totals.copy()
        up[0, place] += step
        down[0, place] -= step
        expected.append((made.value(up)[0, 0] - made.value(down)[0, 0]) / (2 * step))
    np.testing.assert_allclose(got, expected, rtol=0, atol=DERIVATIVE * np.abs(got).max())
    assert estimate(made)[0] == pytest.approx(fitted(frame)[frame["learnable"] > 0.3].mean())


@pytest.mark.parametrize("kind", ["bca", "studentized"])
def test_other_kinds_of_interval_hold_the_estimate(frame: pd.DataFrame, kind: str) -> None:
    got = residual_bins(frame, "learnable", Bootstrap(draws=400, kind=kind), bins=4).table
    assert (got["residual_low"] < got["residual"]).all()
    assert (got["residual"] < got["residual_high"]).all()


def test_residuals_are_free_of_what_they_were_taken_from(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    # A gain that gets a linear function of the controls on top has the same residuals.
    more = 3.0 + 2.0 * frame["entropy_norm"] - frame["relative_position"]
    moved = frame.assign(gain=frame["gain"] + more)
    here, there = (residual_bins(f, "learnable", Bootstrap(counts=counts)) for f in (frame, moved))
    pd.testing.assert_frame_equal(here.table, there.table, rtol=0, atol=1e-9)


def test_permuted_rows_give_the_same_bins(frame: pd.DataFrame, counts: np.ndarray) -> None:
    here, there = (
        residual_bins(f, "overlap", Bootstrap(counts=counts))
        for f in (frame, reference.permuted(frame, seed=4))
    )
    pd.testing.assert_frame_equal(here.table, there.table, rtol=0, atol=SUMS)
    assert here.tied_share == there.tied_share


def test_duplicated_bank_has_the_same_residuals(frame: pd.DataFrame, counts: np.ndarray) -> None:
    twice = pd.concat([frame, frame.assign(prompt_id="z" + frame["prompt_id"])])
    everywhere = np.ones(len(frame), dtype=bool)
    one = residuals(frame, CONTROLS, everywhere, frame["gain"].to_numpy(), prompt_clusters(frame))
    two = residuals(
        twice, CONTROLS, np.tile(everywhere, 2), twice["gain"].to_numpy(), prompt_clusters(twice)
    )
    np.testing.assert_allclose(two.values, np.tile(one.values, 2), rtol=0, atol=SUMS)


def test_one_prompt_has_no_interval(frame: pd.DataFrame) -> None:
    one = frame[frame["prompt_id"] == frame["prompt_id"].iloc[0]]
    got = residual_bins(one, "learnable", bins=2)
    assert got.table[["residual_low", "median_high"]].isna().all(axis=None)
    assert got.slope.reason == "1 prompt: no interval from one cluster"


def test_one_filled_bucket_has_no_trend(frame: pd.DataFrame, counts: np.ndarray) -> None:
    got = bucket_means(frame, "overlap", Bootstrap(counts=counts), edges=[-1.0])
    assert math.isnan(got.slope.estimate)
    assert got.slope.reason == "one bin has all positions"


REFUSED = {
    "constant": (
        lambda f: bucket_means(f.assign(overlap=0.5), "overlap"),
        "bins of overlap: expected a column that varies in the scope, got 0.5 everywhere; "
        "choose another one",
    ),
    "no rows": (
        lambda f: residual_bins(f, "overlap", scope=np.zeros(len(f), dtype=bool)),
        "bins of overlap: expected positions in the scope, got none; choose a wider scope",
    ),
    "one bin": (
        lambda f: residual_bins(f, "overlap", bins=1),
        "bins of overlap: expected at least two bins, got 1; ask for 4 or 10",
    ),
    "constant control": (
        lambda f: residual_bins(f.assign(relative_position=0.25)),
        "regression: expected `relative_position` to vary over the scope, got 0.25 everywhere; "
        "score more contexts, or choose another scope or support size",
    ),
    "collinear": (
        lambda f: residual_bins(f.assign(teacher_entropy_norm=1 - f["entropy_norm"])),
        "regression: expected independent predictors among entropy_norm, disagreement_norm, "
        "relative_position, teacher_entropy_norm, got `teacher_entropy_norm`, which the ones "
        "before it determine; score more contexts, or choose another scope or support size",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(frame: pd.DataFrame, name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        call(frame)
    assert str(caught.value) == message


@pytest.mark.parametrize("column", ["learnable", "gain"])
def test_nan_names_the_context(frame: pd.DataFrame, column: str) -> None:
    values = frame[column].where(np.arange(len(frame)) != 7)
    place = frame.iloc[7]
    with pytest.raises(InputError) as caught:
        residual_bins(frame.assign(**{column: values}))
    assert str(caught.value) == (
        f"token table, context {place['context_id']}, position {place['position']}: "
        f"expected a finite `{column}`, got nan; score that context again, or drop it"
    )


def test_bins_show_themselves(frame: pd.DataFrame, counts: np.ndarray) -> None:
    got = residual_bins(frame, "learnable", Bootstrap(counts=counts), bins=3)
    assert isinstance(got, Bins)
    lines = repr(got).splitlines()
    assert lines[0] == "Bins"
    assert lines[1].split() == ["column", "learnable"]
    assert lines[-4].split()[:4] == ["bucket", "n", "learnable", "residual"]
    copied = got.to_frame()
    copied["n"] = 0
    assert (got.table["n"] > 0).all()
