"""The placebo: pairs shuffled within prompts, and what the headline numbers are after that."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statistics_reference import make_frame, permuted

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.placebo import MOVED, placebo, shuffled_tables, sources
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.selection.signals import identities, uniform
from diagnostics.statistics.tables.definitions import RELEASED, state

FRAME = make_frame(seed=11)
FEW = Bootstrap(draws=200, seed=1)
PAIR = ["learnable", "incompatible"]
PLACE = ["context_id", "position"]


def placed(frame: pd.DataFrame) -> dict[tuple[str, int], tuple[float, ...]]:
    """What each position holds after a shuffle."""
    keys = zip(frame["context_id"], frame["position"], strict=True)
    return dict(zip(keys, frame[list(MOVED)].itertuples(index=False, name=None), strict=True))


def slow_source(frame: pd.DataFrame, seed: int, index: int) -> list[int]:
    """The i-th position of a prompt by identity gives to the i-th by the seeded hash."""
    identity = identities(frame["context_id"], frame["position"].to_numpy())
    drawn = uniform(identity, int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))
    source = [-1] * len(frame)
    for prompt in set(frame["prompt_id"]):
        rows = [i for i, p in enumerate(frame["prompt_id"]) if p == prompt]
        givers = sorted(rows, key=lambda i: int(identity[i]))
        takers = sorted(rows, key=lambda i: float(drawn[i]))
        for giver, taker in zip(givers, takers, strict=True):
            source[taker] = giver
    return source


def test_sources_equal_a_slow_loop_over_prompts() -> None:
    for index, source in enumerate(sources(FRAME, 3, seed=5)):
        assert source.tolist() == slow_source(FRAME, 5, index)


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_shuffle_moves_each_pair_once_and_within_its_prompt(seed: int) -> None:
    (source,) = sources(FRAME, 1, seed)
    assert sorted(source.tolist()) == list(range(len(FRAME)))
    owner = FRAME["prompt_id"].to_numpy()
    assert (owner[source] == owner).all()


def test_d_and_c_move_as_a_pair_and_all_else_stays() -> None:
    before = FRAME.groupby("prompt_id")[list(MOVED)].apply(lambda f: sorted(map(tuple, f.values)))
    for table in shuffled_tables(FRAME, 3, seed=0):
        after = table.groupby("prompt_id")[list(MOVED)].apply(
            lambda f: sorted(map(tuple, f.values))
        )
        assert after.tolist() == before.tolist()
        stays = [name for name in FRAME.columns if name not in MOVED]
        pd.testing.assert_frame_equal(table[stays], FRAME[stays])
        moved = (table[PAIR].to_numpy() != FRAME[PAIR].to_numpy()).any(axis=1)
        assert moved.mean() > 0.8


def test_unsorted_rows_get_the_same_pairs_as_sorted_ones() -> None:
    for other in (permuted(FRAME, 1), FRAME.iloc[::-1], permuted(FRAME, 2).reset_index(drop=True)):
        tables = zip(shuffled_tables(FRAME, 2, 7), shuffled_tables(other, 2, 7), strict=True)
        for ours, theirs in tables:
            assert placed(ours) == placed(theirs)


def test_shuffles_differ_from_each_other_and_by_seed() -> None:
    made = [placed(table) for seed in (0, 1) for table in shuffled_tables(FRAME, 3, seed)]
    assert all(made[i] != made[j] for i in range(6) for j in range(i))
    assert made[0] == placed(next(iter(shuffled_tables(FRAME, 1, 0))))


def slow_gap(frame: pd.DataFrame) -> float:
    """beta_L - beta_I by statsmodels."""
    names = ["entropy_norm", "relative_position", "teacher_entropy_norm", *PAIR]
    z = (frame[names] - frame[names].mean()) / frame[names].std(ddof=0)
    fitted = sm.OLS(frame["gain"], sm.add_constant(z)).fit().params
    return float(fitted["learnable"] - fitted["incompatible"])


def test_regression_placebo_equals_statsmodels_on_shuffled_tables() -> None:
    found = placebo(FRAME, "beta", FEW, shuffles=4, seed=3)
    slow = [slow_gap(table) for table in shuffled_tables(FRAME, 4, seed=3)]
    np.testing.assert_allclose(found.values["estimate"], slow, rtol=0, atol=1e-10)
    assert found.mean == pytest.approx(math.fsum(slow) / 4, abs=1e-10)
    assert found.sd == pytest.approx(np.std(slow, ddof=1), abs=1e-10)
    assert found.real.estimate == pytest.approx(slow_gap(FRAME), abs=1e-10)


def test_budget_placebo_equals_sorting_shuffled_tables() -> None:
    found = placebo(FRAME, "budget", FEW, shuffles=3, seed=3)
    count = math.ceil(0.05 * len(FRAME))
    for value, table in zip(
        found.values["estimate"], shuffled_tables(FRAME, 3, seed=3), strict=True
    ):
        d, c = table["disagreement"], table["compatibility"]
        scores = ((table["learnable"], d * c), (table["disagreement_norm"], d))
        by_dl, by_kl = (
            sorted(table.index, key=lambda i, s=score, b=beyond: (-s[i], -b[i]))[:count]
            for score, beyond in scores
        )
        expected = table["gain"][by_dl].mean() - table["gain"][by_kl].mean()
        assert value == pytest.approx(expected, abs=1e-12)


def test_share_counts_intervals_that_do_not_hold_zero() -> None:
    found = placebo(FRAME, "beta", FEW, shuffles=6)
    holds = [low <= 0 <= high for _, _, low, high in found.values.itertuples(index=False)]
    assert found.excludes_zero == pytest.approx(1 - sum(holds) / 6)
    assert found.values["shuffle"].tolist() == [1, 2, 3, 4, 5, 6]


def test_an_effect_of_where_support_is_vanishes_and_its_real_value_stays() -> None:
    # The synthetic gain is 0.6 D^L, a prompt effect and noise.
    frame = make_frame(seed=2, prompts=40)
    found = placebo(frame, "beta", FEW)
    assert found.real.low > 0
    assert abs(found.mean) < found.real.estimate / 5
    assert found.real.estimate > found.mean + 4 * found.sd


def test_a_number_that_knows_no_support_is_left_as_it_is() -> None:
    found = placebo(FRAME, "gain", FEW, shuffles=2)
    assert found.mean == found.real.estimate
    assert found.sd == 0.0


def test_the_outcome_and_the_set_are_named() -> None:
    stated = state(FRAME.copy(), RELEASED)
    found = placebo(stated, "gain", FEW, outcome="gain_rel", shuffles=2)
    assert (found.definitions, found.outcome) == ("released", "gain_rel")
    assert found.real.estimate == pytest.approx(FRAME["gain_rel"].mean())
    assert placebo(FRAME, "gain", FEW, shuffles=2).definitions == "not stated"
    row = found.to_frame()
    assert list(row.columns) == [
        "headline",
        "definitions",
        "outcome",
        "real",
        "real_low",
        "real_high",
        "shuffles",
        "mean",
        "sd",
        "excludes_zero",
    ]


def test_one_prompt_has_no_share() -> None:
    alone = FRAME[FRAME["prompt_id"] == FRAME["prompt_id"].iloc[0]]
    found = placebo(alone, "gain", FEW, shuffles=2)
    assert math.isnan(found.excludes_zero)
    assert found.real.reason == "1 prompt: no interval from one cluster"


def test_a_single_shuffle_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        placebo(FRAME, "beta", FEW, shuffles=1)
    assert str(caught.value) == (
        "placebo: expected at least two shuffles, got 1; leave it at 20, or ask for more"
    )


def test_prompts_of_a_single_position_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        placebo(FRAME.drop_duplicates("prompt_id"), "gain", FEW)
    assert str(caught.value) == (
        "placebo: expected a prompt with at least two positions, got none: nothing can be shuffled "
        "within prompts; score longer or more rollouts"
    )
