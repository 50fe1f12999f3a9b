"""Exact top-N (Table 8): what selectors keep has gained, against sorting one row at a time."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.budgets import selections, signals_of, top_n, top_ns
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_counts
from diagnostics.statistics.selection.selectors import SELECTORS, select

SUMS = 1e-10  # ratios of sums against means of rows in another order
RANKED = (
    "teachability",
    "kl",
    "entropy",
    "tip",
    "compatibility",
    "incompatible",
    "random",
)


def slow_choice(frame: pd.DataFrame, name: str, budget: float) -> list[int]:
    """Row numbers that a selector keeps: sorted by score, then by the unclipped score."""
    h, d, c = (reference.stretched(frame[s]) for s in ("entropy", "disagreement", "compatibility"))
    kept = math.ceil(Fraction(str(budget)) * len(frame))

    def clip(z: float) -> float:
        return min(max(z, 0.0), 1.0)

    def key(i: int) -> tuple[float, float]:
        hi, di, ci = clip(h[i]), clip(d[i]), clip(c[i])
        table = {
            "teachability": (di * ci, max(d[i], 0) * max(c[i], 0)),
            "kl": (di, d[i]),
            "entropy": (hi, h[i]),
            "tip": (1 - (1 - hi) * (1 - di), h[i] + d[i]),
            "compatibility": (ci, c[i]),
            "incompatible": (di * (1 - ci), max(d[i], 0) * max(1 - c[i], 0)),
        }
        return table[name]

    return sorted(range(len(frame)), key=key, reverse=True)[:kept]


@pytest.mark.parametrize("name", RANKED[:-1])
@pytest.mark.parametrize("budget", [0.03, 0.1, 0.5])
def test_row_of_table_8_equals_the_slow_definition(
    frame: pd.DataFrame, counts: np.ndarray, name: str, budget: float
) -> None:
    rows = frame.iloc[slow_choice(frame, name, budget)]
    got = top_n(frame, name, budget, Bootstrap(counts=counts))
    gain = math.fsum(rows["gain"]) / len(rows)
    assert (got.selector, got.budget, got.n_kept) == (name, budget, len(rows))
    assert got.gain.estimate == pytest.approx(gain, abs=SUMS)
    assert got.gain_per_keep == pytest.approx(gain / budget, abs=SUMS / budget)
    assert got.q3_share == pytest.approx((rows["quadrant"] == 3).sum() / len(rows), abs=SUMS)
    for column in ("entropy_norm", "disagreement_norm", "compatibility_norm"):
        expected = math.fsum(rows[column]) / len(rows)
        assert getattr(got, column) == pytest.approx(expected, abs=SUMS)


@pytest.mark.parametrize("name", ["teachability", "entropy"])
def test_interval_equals_concatenated_rows_of_the_kept(
    frame: pd.DataFrame, counts: np.ndarray, name: str
) -> None:
    kept = np.zeros(len(frame), dtype=bool)
    kept[slow_choice(frame, name, 0.5)] = True
    labelled = frame.assign(kept=kept)
    draws = reference.brute_force(labelled, counts, lambda f: f["gain"][f["kept"]].mean())
    got = top_n(frame, name, 0.5, Bootstrap(counts=counts)).gain
    assert (got.low, got.high) == pytest.approx(reference.percentiles(draws), abs=SUMS)


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("budget", [0.03, 0.2])
def test_permuted_rows_give_the_same_row(
    frame: pd.DataFrame, counts: np.ndarray, name: str, budget: float
) -> None:
    other = reference.permuted(frame, seed=8)
    here, there = (top_n(f, name, budget, Bootstrap(counts=counts), seed=2) for f in (frame, other))
    assert there.n_kept == here.n_kept
    assert there.tied_share == here.tied_share
    for field in ("q3_share", "gain_per_keep", "entropy_norm", "disagreement_norm"):
        assert getattr(there, field) == pytest.approx(getattr(here, field), abs=SUMS)
    ends = [(t.gain.estimate, t.gain.low, t.gain.high) for t in (here, there)]
    assert ends[1] == pytest.approx(ends[0], abs=SUMS, nan_ok=True)
    assert there.gain.reason == here.gain.reason


@pytest.mark.parametrize("name", RANKED)
def test_relabelled_prompts_keep_the_point_estimate(
    frame: pd.DataFrame, counts: np.ndarray, name: str
) -> None:
    here, there = (
        top_n(f, name, 0.2, Bootstrap(counts=counts)) for f in (frame, reference.relabelled(frame))
    )
    assert there.gain.estimate == pytest.approx(here.gain.estimate, abs=SUMS)


@pytest.mark.parametrize("name", [*RANKED, "full"])
def test_whole_budget_gives_the_mean_of_all_positions(
    frame: pd.DataFrame, counts: np.ndarray, name: str
) -> None:
    got = top_n(frame, name, 1.0, Bootstrap(counts=counts))
    assert got.n_kept == len(frame)
    assert got.gain.estimate == pytest.approx(frame["gain"].mean(), abs=SUMS)
    assert got.gain_per_keep == pytest.approx(frame["gain"].mean(), abs=SUMS)
    assert got.tied_share == 0


def test_unchanged_checkpoint_gains_nothing(frame: pd.DataFrame, counts: np.ndarray) -> None:
    got = top_n(frame.assign(gain=0.0), "teachability", 0.5, Bootstrap(counts=counts))
    assert (got.gain.estimate, got.gain.low, got.gain.high, got.gain_per_keep) == (0, 0, 0, 0)


def test_outcome_does_not_change_what_is_kept(frame: pd.DataFrame, counts: np.ndarray) -> None:
    gain, relative = (
        top_n(frame, "tip", 0.1, Bootstrap(counts=counts), outcome=outcome)
        for outcome in ("gain", "gain_rel")
    )
    assert (gain.q3_share, gain.entropy_norm) == (relative.q3_share, relative.entropy_norm)
    rows = frame.iloc[slow_choice(frame, "tip", 0.1)]
    assert relative.gain.estimate == pytest.approx(rows["gain_rel"].mean(), rel=SUMS)


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_many_selectors_and_budgets_at_once_equal_one_at_a_time(
    frame: pd.DataFrame, kind: str
) -> None:
    bootstrap = Bootstrap(draws=80, kind=kind)
    together = top_ns(frame, selections(frame, ["kl", "tip"], [0.2, 0.5]), bootstrap)
    alone = [top_n(frame, s, b, bootstrap) for s in ("kl", "tip") for b in (0.2, 0.5)]
    for one, other in zip(together, alone, strict=True):
        assert (one.selector, one.budget, one.n_kept) == (
            other.selector,
            other.budget,
            other.n_kept,
        )
        here, there = one.gain, other.gain
        assert (here.low, here.high) == pytest.approx((there.low, there.high), abs=SUMS)


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with what selectors of other papers need."""
    return frame.assign(reverse_kl_0=0.5 * frame["kl_0"] + 0.1 * frame["disagreement"])


def test_selections_equal_one_selector_at_one_budget(frame: pd.DataFrame) -> None:
    table = whole(frame)
    found = selections(table, SELECTORS, (0.03, 0.2), seed=4, vocabulary=50_000)
    assert list(found) == [(name, budget) for name in SELECTORS for budget in (0.03, 0.2)]
    for (name, budget), got in found.items():
        alone = select(name, budget, signals_of(table, 50_000), seed=4)
        np.testing.assert_array_equal(got.mask, alone.mask)


def test_selections_may_keep_one_position_of_each_rollout(frame: pd.DataFrame) -> None:
    got = selections(frame, ["kl"], [0.03], one_per_rollout=True)["kl", 0.03]
    assert set(frame["context_id"][got.mask]) == set(frame["context_id"])
    assert got.mask.sum() == got.wanted + got.added > got.wanted


@pytest.mark.parametrize("column", ["kl_0", "reverse_kl_0", "quadrant"])
@pytest.mark.parametrize("how", ["absent", "null"])
def test_column_that_a_table_does_not_know_is_an_unknown_signal(
    frame: pd.DataFrame, column: str, how: str
) -> None:
    null = pd.array([None] * len(frame), dtype="Int8" if column == "quadrant" else "Float64")
    table = whole(frame).drop(columns=column)
    table = table if how == "absent" else table.assign(**{column: null})
    field = "q3" if column == "quadrant" else column
    assert getattr(signals_of(table), field) is None
    assert getattr(signals_of(whole(frame)), field) is not None


def test_signals_are_the_columns_of_the_table(frame: pd.DataFrame) -> None:
    table = whole(frame)
    got = signals_of(table, vocabulary=7)
    for name in ("entropy", "disagreement", "compatibility", "kl_0", "reverse_kl_0"):
        np.testing.assert_array_equal(getattr(got, name), table[name])
    assert got.q3.tolist() == [q == 3 for q in table["quadrant"]]
    assert got.vocabulary == 7


def test_short_q3_is_said_and_its_gain_is_by_the_share_kept(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    q3 = frame["quadrant"] == 3
    got = top_n(frame, "q3", 0.9, Bootstrap(counts=counts))
    assert (got.short, got.n_kept, got.q3_share) == (True, q3.sum(), 1.0)
    mean = math.fsum(frame["gain"][q3]) / q3.sum()
    assert got.gain_per_keep == pytest.approx(mean / (q3.sum() / len(frame)), abs=SUMS)
    assert not top_n(frame, "q3", 0.03, Bootstrap(counts=counts)).short


def test_gain_of_one_per_rollout_is_by_the_share_kept(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    kept = selections(frame, ["kl"], [0.03], one_per_rollout=True)
    (got,) = top_ns(frame, kept, Bootstrap(counts=counts))
    share = got.n_kept / len(frame)
    assert share > 0.03
    assert got.gain_per_keep == pytest.approx(got.gain.estimate / share, abs=SUMS / share)


def test_random_rows_differ_by_seed_and_repeat(frame: pd.DataFrame, counts: np.ndarray) -> None:
    first, again, other = (
        top_n(frame, "random", 0.2, Bootstrap(counts=counts), seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first.gain.estimate != other.gain.estimate


def test_one_kept_position_has_no_interval_because_draws_lack_it(frame: pd.DataFrame) -> None:
    # One of 335 positions: a prompt is missing from a draw with probability 0.9^10 = 0.35.
    counts = draw_counts(10, 200, seed=1)
    row = slow_choice(frame, "kl", 0.001)[0]
    prompt = sorted(set(frame["prompt_id"])).index(frame["prompt_id"].iloc[row])
    missing = int((counts[:, prompt] == 0).sum())
    got = top_n(frame, "kl", 0.001, Bootstrap(counts=counts))
    assert got.n_kept == 1
    assert got.gain.estimate == pytest.approx(frame["gain"].iloc[row], abs=SUMS)
    assert math.isnan(got.gain.low)
    assert got.gain.reason == f"{missing} of 200 draws have too few positions"


def test_one_prompt_has_no_interval(frame: pd.DataFrame) -> None:
    got = top_n(
        frame.assign(prompt_id="only"), "kl", 0.2, Bootstrap(counts=draw_counts(1, 20, seed=0))
    ).gain
    assert math.isnan(got.low)
    assert got.reason == "1 prompt: no interval from one cluster"


def test_budget_outside_zero_to_one_is_refused(frame: pd.DataFrame, counts: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        top_n(frame, "kl", 1.5, Bootstrap(counts=counts))
    assert str(caught.value) == (
        "--budget: expected a share of positions in (0, 1], got 1.5; write 5 % as 0.05"
    )
