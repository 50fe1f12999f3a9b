"""The noise floor: gains of an unchanged checkpoint, and what a claim must exceed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from statistics_reference import brute_force, make_frame, percentiles, quantile

from diagnostics.errors import InputError
from diagnostics.files import write_parquet
from diagnostics.scoring.run import Run, noise_file
from diagnostics.statistics.analyses.noise import (
    counts_against,
    farthest,
    find_rows,
    in_noise,
    noise_floor,
    unchanged_tokens,
)
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, draw_counts

SAME = 1e-12  # float64 sums in another order
FRAME = make_frame(seed=4, prompts=6)
CONTEXTS = list(dict.fromkeys(FRAME["context_id"]))
PROMPT_OF = dict(zip(FRAME["context_id"], FRAME["prompt_id"], strict=True))


def run_with_noise(folder: Path, rows: list[int], change: np.ndarray, kind: str = "batch") -> Run:
    """A run whose theta_0, scored again at rows of FRAME, has a KL that is larger by `change`."""
    chosen = FRAME.iloc[rows]
    columns = {
        "context": np.array([CONTEXTS.index(c) for c in chosen["context_id"]], np.int32),
        "position": chosen["position"].to_numpy(np.int32),
        "kl": chosen["kl_0"].to_numpy() + change,
        "reverse_kl": chosen["kl_0"].to_numpy(),
        "entropy": chosen["entropy"].to_numpy(),
    }
    write_parquet(noise_file(folder, kind), pa.table(columns))
    prompts = [PROMPT_OF[c] for c in CONTEXTS]
    contexts = pa.table({"context_id": CONTEXTS, "prompt_id": prompts})
    write_parquet(folder / "contexts.parquet", contexts)
    return Run(folder=folder, manifest={})


def rows_of(*contexts: int) -> list[int]:
    names = [CONTEXTS[c] for c in contexts]
    return np.flatnonzero(FRAME["context_id"].isin(names)).tolist()


def test_unchanged_gain_is_first_kl_less_second_kl(tmp_path: Path) -> None:
    rows = rows_of(0, 2, 7)
    change = np.random.default_rng(0).normal(size=len(rows)) * 1e-3
    table = unchanged_tokens(FRAME, run_with_noise(tmp_path, rows, change))
    assert list(table.index) == rows
    np.testing.assert_allclose(table["gain"], -change, rtol=0, atol=1e-15)
    expected = -change / (FRAME["kl_0"].to_numpy()[rows] + 1e-12)
    np.testing.assert_allclose(table["gain_rel"], expected, rtol=1e-9)
    np.testing.assert_array_equal(table["kl"], FRAME["kl_0"].to_numpy()[rows] + change)


def test_unchanged_table_keeps_every_signal_of_theta_0(tmp_path: Path) -> None:
    rows = rows_of(1, 3)
    table = unchanged_tokens(FRAME, run_with_noise(tmp_path, rows, np.ones(len(rows))))
    kept = [c for c in FRAME.columns if c not in ("kl", "gain", "gain_rel", "reverse_kl")]
    pd.testing.assert_frame_equal(table[kept], FRAME.iloc[rows][kept])


def test_positions_in_another_order_find_their_own_rows(tmp_path: Path) -> None:
    rows = rows_of(5, 0)[::-1]
    change = np.arange(len(rows)) * 1e-2
    table = unchanged_tokens(FRAME, run_with_noise(tmp_path, rows, change))
    assert list(table.index) == rows
    np.testing.assert_allclose(table["gain"], -change, atol=1e-15)


def test_find_rows_gives_each_its_row_and_minus_one_for_none() -> None:
    context, position = np.array([2, 0, 0, 1]), np.array([0, 5, 0, 5])
    found = find_rows(context, position, np.array([0, 1, 2, 2, 9]), np.array([5, 5, 0, 1, 0]))
    assert found.tolist() == [1, 3, 0, -1, -1]


def test_floor_is_the_quantiles_of_sizes_and_the_signed_mean(tmp_path: Path) -> None:
    rows = list(range(len(FRAME)))
    change = np.random.default_rng(1).standard_t(3, len(rows)) * 1e-3
    table = unchanged_tokens(FRAME, run_with_noise(tmp_path, rows, change))
    counts = draw_counts(6, draws=60, seed=2)
    floor = noise_floor("batch", table, Bootstrap(counts=counts))
    sizes = [abs(float(c)) for c in change]
    for q in (50, 90, 99):
        assert getattr(floor, f"q{q}") == pytest.approx(quantile(sizes, q / 100), rel=SAME)
    assert floor.max == pytest.approx(max(sizes), rel=SAME)
    assert (floor.kind, floor.n_contexts, floor.n_positions) == ("batch", 12, len(FRAME))
    assert floor.mean.estimate == pytest.approx(-change.mean(), rel=1e-9)
    drawn = brute_force(table, counts, lambda draw: float(draw["gain"].mean()))
    low, high = percentiles(drawn)
    assert (floor.mean.low, floor.mean.high) == pytest.approx((low, high), rel=1e-9)


def test_floor_of_one_prompt_has_a_mean_without_an_interval(tmp_path: Path) -> None:
    rows = np.flatnonzero(FRAME["prompt_id"] == FRAME["prompt_id"].iloc[0]).tolist()
    table = unchanged_tokens(FRAME, run_with_noise(tmp_path, rows, np.full(len(rows), 1e-3)))
    floor = noise_floor("batch", table, Bootstrap(counts=draw_counts(1, draws=60, seed=2)))
    assert floor.mean.estimate == pytest.approx(-1e-3)
    assert np.isnan([floor.mean.low, floor.mean.high]).all()
    assert floor.mean.reason == "1 prompt: no interval from one cluster"


@pytest.mark.parametrize("fault", ["none", "other position", "nan", "infinity"])
def test_second_scores_that_do_not_fit_are_refused(tmp_path: Path, fault: str) -> None:
    rows = [] if fault == "none" else rows_of(1)
    change = np.zeros(len(rows))
    if fault in ("nan", "infinity"):
        change[2] = {"nan": np.nan, "infinity": np.inf}[fault]
    run = run_with_noise(tmp_path, rows, change)
    frame = FRAME.drop(index=rows[-1]) if fault == "other position" else FRAME
    with pytest.raises(InputError) as caught:
        unchanged_tokens(frame, run)
    assert str(caught.value) == str(
        InputError(
            where=str(tmp_path / "noise" / "batch"),
            expected="finite scores at positions of the run",
            got="none, other positions, NaN or infinity",
            fix="delete that folder and run the same `diagnostics rescore` again",
        )
    )


@pytest.mark.parametrize(
    ("kind", "dtype", "counts"),
    [
        ("batch", "float32", True),
        ("batch", "bfloat16", True),
        ("float32", "bfloat16", True),
        ("float32", "float16", True),
        ("float16", "bfloat16", True),  # 11 significant bits against 8
        ("bfloat16", "float16", False),
        ("bfloat16", "float32", False),
        ("float16", "float32", False),
    ],
)
def test_a_dtype_counts_when_it_is_finer_than_the_runs(kind: str, dtype: str, counts: bool) -> None:
    assert counts_against(kind, dtype) is counts


def test_farthest_is_the_largest_end_of_any_interval() -> None:
    none = Interval(5.0, np.nan, np.nan, "one cluster")
    assert farthest([Interval(0.0, -0.3, 0.1), Interval(0.1, 0.0, 0.2), none]) == 0.3
    assert np.isnan(farthest([none]))
    assert np.isnan(farthest([]))


# Intervals against a noise of 0.1: (low, high, verdict, only the noise keeps it from being clear).
CLAIMS = [
    (0.2, 0.3, "yes", False),
    (-0.3, -0.2, "no", False),
    (0.05, 0.3, "unclear", True),  # above 0, not above the noise
    (-0.3, -0.05, "unclear", True),
    (0.1, 0.3, "unclear", True),  # reaches the noise exactly
    (-0.05, 0.05, "unclear", True),  # all of it within the noise
    (-0.1, 0.1, "unclear", True),
    (-0.05, 0.3, "unclear", False),  # holds 0 and reaches beyond: not clear without noise either
    (np.nan, np.nan, "unclear", False),
]


@pytest.mark.parametrize(("low", "high", "verdict", "lost"), CLAIMS)
def test_a_claim_lies_wholly_beyond_the_noise(
    low: float, high: float, verdict: str, lost: bool
) -> None:
    value = Interval((low + high) / 2, low, high)
    assert value.verdict(0.1) == verdict
    assert in_noise(value, 0.1) is lost


@pytest.mark.parametrize(("low", "high"), [claim[:2] for claim in CLAIMS])
def test_noise_that_was_not_measured_takes_nothing_away(low: float, high: float) -> None:
    value = Interval((low + high) / 2, low, high)
    assert value.verdict(np.nan) == value.verdict()
    assert in_noise(value, np.nan) is False


def test_a_gain_of_exactly_0_without_noise_is_not_above_it() -> None:
    assert in_noise(Interval(0.0, 0.0, 0.0), 0.0)
