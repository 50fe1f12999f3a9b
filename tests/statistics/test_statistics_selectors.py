"""Selectors: scores against loops, exact budgets, ties, and what the choice may depend on."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.selectors import (
    SELECTORS,
    Signals,
    check_selector,
    identities,
    keep_count,
    scores,
    select,
)

ROUNDING = 1e-12  # float64 arithmetic in another order
PAPER_POSITIONS = 57_600
SCORED = ("teachability", "kl", "entropy", "tip", "compatibility", "incompatible")
RANKED = (*SCORED, "random")
BUDGETS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def make_signals(seed: int, count: int = 400) -> Signals:
    rng = np.random.default_rng(seed)
    return Signals(
        entropy=rng.gamma(1.0, size=count),
        disagreement=rng.gamma(1.0, size=count),
        compatibility=rng.beta(2.0, 1.0, size=count),
        identity=rng.permutation(np.arange(count, dtype=np.uint64) * np.uint64(977)),
    )


def reordered(signals: Signals, order: np.ndarray) -> Signals:
    return Signals(**{name: getattr(signals, name)[order] for name in Signals.__slots__})


def only(disagreement: list[float] | np.ndarray, identity: np.ndarray | None = None) -> Signals:
    """Signals that differ in disagreement alone."""
    count = len(disagreement)
    ids = np.arange(count, dtype=np.uint64) if identity is None else identity
    flat = np.linspace(0.0, 1.0, count)
    return Signals(
        entropy=flat,
        disagreement=np.asarray(disagreement, dtype=np.float64),
        compatibility=flat,
        identity=ids,
    )


def slow_scores(name: str, signals: Signals) -> list[float]:
    """DEFINITIONS, section 6, one position at a time."""
    h_, d_, c_ = (
        reference.norm(z) for z in (signals.entropy, signals.disagreement, signals.compatibility)
    )
    out = []
    for h, d, c in zip(h_, d_, c_, strict=True):
        if name == "teachability":
            out.append(d * c)
        elif name == "kl":
            out.append(d)
        elif name == "entropy":
            out.append(h)
        elif name == "tip":
            out.append(h + d - h * d)
        elif name == "compatibility":
            out.append(c)
        else:
            out.append(d - d * c)  # D^I = D~ - D^L
    return out


@pytest.mark.parametrize("name", SCORED)
def test_score_equals_the_slow_formula(name: str) -> None:
    signals = make_signals(seed=1)
    score, _ = scores(name, signals, seed=0)
    np.testing.assert_allclose(score, slow_scores(name, signals), rtol=0, atol=ROUNDING)


def test_learnable_and_incompatible_scores_sum_to_disagreement() -> None:
    signals = make_signals(seed=2)
    parts = [scores(name, signals, 0)[0] for name in ("teachability", "incompatible")]
    np.testing.assert_allclose(sum(parts), scores("kl", signals, 0)[0], rtol=0, atol=ROUNDING)


def test_tip_is_the_complement_of_both_complements() -> None:
    signals = make_signals(seed=3)
    h, d = (scores(name, signals, 0)[0] for name in ("entropy", "kl"))
    tip, _ = scores("tip", signals, 0)
    np.testing.assert_allclose(1 - tip, (1 - h) * (1 - d), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("budget", [0.2, 0.5])
def test_kept_positions_score_at_least_as_high_as_dropped_ones(name: str, budget: float) -> None:
    signals = make_signals(seed=4)
    kept = select(name, budget, signals, seed=0).mask
    score = np.array(slow_scores(name, signals))
    assert score[kept].min() >= score[~kept].max() - ROUNDING


@pytest.mark.parametrize("name", SCORED)
def test_affine_change_of_the_signals_keeps_the_choice(name: str) -> None:
    signals = make_signals(seed=5)
    changed = Signals(
        entropy=4 * signals.entropy + 3,
        disagreement=0.5 * signals.disagreement + 8,
        compatibility=2 * signals.compatibility - 1,
        identity=signals.identity,
    )
    for budget in (0.03, 0.2):
        kept = [select(name, budget, s, seed=0).mask.tolist() for s in (signals, changed)]
        assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("budget", "total", "expected"),
    [
        (0.05, PAPER_POSITIONS, 2880),  # 0.05 * 57600 in binary is a hair more
        (0.1, PAPER_POSITIONS, 5760),
        (0.03, PAPER_POSITIONS, 1728),
        (0.07, 100, 7),  # 0.07 * 100 is 7.000000000000001 in float64
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996
        (0.05, 101, 6),
        (0.05, 1, 1),
        (1.0, 17, 17),
        (1, 17, 17),
        (1e-07, 50, 1),
    ],
)
def test_keeps_the_ceiling_of_the_written_budget(budget: float, total: int, expected: int) -> None:
    assert keep_count(budget, total) == expected


@few
@given(st.integers(1, 1000), st.integers(1, 100_000))
def test_keep_count_equals_exact_fractions(thousandths: int, total: int) -> None:
    exact = Fraction(thousandths, 1000) * total
    assert keep_count(thousandths / 1000, total) == math.ceil(exact)


@pytest.mark.parametrize("budget", [0.05, 0.3])
def test_keep_count_takes_a_numpy_budget_as_the_same_decimal(budget: float) -> None:
    assert keep_count(np.float64(budget), PAPER_POSITIONS) == keep_count(budget, PAPER_POSITIONS)


@pytest.mark.parametrize("name", RANKED)
def test_paper_size_keeps_exactly_2880_at_five_percent(name: str) -> None:
    signals = make_signals(seed=6, count=PAPER_POSITIONS)
    assert select(name, 0.05, signals, seed=0).mask.sum() == 2880


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("budget", BUDGETS)
def test_keeps_exactly_the_ceiling(name: str, budget: float) -> None:
    signals = make_signals(seed=7, count=333)
    expected = math.ceil(Fraction(str(budget)) * 333)
    assert select(name, budget, signals, seed=0).mask.sum() == expected


@pytest.mark.parametrize("name", RANKED)
def test_smaller_budget_keeps_a_subset(name: str) -> None:
    signals = make_signals(seed=8)
    masks = [select(name, budget, signals, seed=0).mask for budget in BUDGETS]
    for small, large in pairwise(masks):
        assert not (small & ~large).any()


def test_full_keeps_every_position_and_no_tie_decides() -> None:
    got = select("full", 1.0, make_signals(seed=9), seed=0)
    assert got.mask.all()
    assert got.tied_share == 0


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("budget", [0.02, 0.2])
@pytest.mark.parametrize("levels", [None, 4, 1])
def test_permuted_rows_keep_the_same_positions(
    name: str, budget: float, levels: int | None
) -> None:
    signals = make_signals(seed=10, count=200)
    if levels is not None:  # many or only exact ties, which the hash must break
        coarse = {
            key: np.floor(levels * (getattr(signals, key) % 1.0))
            for key in ("entropy", "disagreement", "compatibility")
        }
        signals = Signals(**coarse, identity=signals.identity)
    kept = select(name, budget, signals, seed=3)
    order = np.random.default_rng(0).permutation(200)
    again = select(name, budget, reordered(signals, order), seed=3)
    np.testing.assert_array_equal(again.mask, kept.mask[order])
    assert again.tied_share == kept.tied_share


def test_clipped_ties_are_broken_by_the_unclipped_score_by_hand() -> None:
    # 0..39: Q95 = 37.05, so 38 and 39 both score 1; the larger one is kept although it comes last.
    got = select("kl", 0.025, only(np.arange(40.0)), seed=0)
    assert np.flatnonzero(got.mask).tolist() == [39]
    assert got.tied_share == 1.0


def test_no_tied_share_where_all_tied_positions_are_kept_by_hand() -> None:
    got = select("kl", 0.05, only(np.arange(40.0)), seed=0)
    assert np.flatnonzero(got.mask).tolist() == [38, 39]
    assert got.tied_share == 0.0


def test_tied_share_is_the_share_of_kept_positions_at_a_cut_score_by_hand() -> None:
    # Ten each of 0..9, keep 25: all nines, all eights, and 5 of the sevens: 5 / 25.
    values = np.repeat(np.arange(10.0), 10)
    got = select("kl", 0.25, only(values), seed=0)
    kept = values[got.mask]
    assert [(kept == v).sum() for v in (9, 8, 7)] == [10, 10, 5]
    assert got.tied_share == 0.2


@pytest.mark.parametrize("name", SCORED)
def test_unclipped_tie_break_ranks_the_clipped_top_by_its_raw_signal(name: str) -> None:
    # All three signals rise together (for `incompatible`, C falls), so every score is clipped to 1
    # for the top 5 % and the raw signal alone orders those positions.
    z = np.random.default_rng(5).permutation(np.arange(200.0))
    compatibility = -z if name == "incompatible" else z
    signals = Signals(
        entropy=z,
        disagreement=z,
        compatibility=compatibility,
        identity=make_signals(1, 200).identity,
    )
    got = select(name, 0.02, signals, seed=0)
    assert sorted(z[got.mask].tolist()) == [196, 197, 198, 199]
    assert got.tied_share == 1.0


def test_tip_of_a_clipped_signal_is_exactly_one() -> None:
    # The soft-or of 1 and anything is 1: rounding may not rank positions that are tied.
    signals = make_signals(seed=13)
    top = np.array(reference.norm(signals.entropy)) == 1
    assert top.sum() == 20
    assert scores("tip", signals, seed=0)[0][top].tolist() == [1.0] * 20


def test_tip_ties_of_a_clipped_signal_are_broken_by_the_unclipped_sum() -> None:
    signals = make_signals(seed=13)
    h, d = (reference.stretched(z) for z in (signals.entropy, signals.disagreement))
    top = [row for row in range(400) if max(h[row], d[row]) >= 1]
    expected = sorted(top, key=lambda row: h[row] + d[row])[-12:]  # 3 % of 400
    got = select("tip", 0.03, signals, seed=0)
    assert set(np.flatnonzero(got.mask)) == set(expected)
    assert got.tied_share == 1.0


@pytest.mark.parametrize("name", ["teachability", "incompatible"])
def test_clipped_products_are_broken_by_the_unclipped_product(name: str) -> None:
    # Six positions lie beyond Q95 in D and beyond Q95 (or below Q05) in C, so all score 1. D rises
    # over them while the other factor falls, so their product is in neither factor's order.
    rows = np.arange(100, 106)
    signals = make_signals(seed=14, count=200)
    far = np.array([60.0, 50.0, 30.0, 24.0, 9.0, 5.0])
    signals.disagreement[rows] = [20.0, 25.0, 60.0, 65.0, 100.0, 120.0]
    signals.compatibility[rows] = -far if name == "incompatible" else far
    d, c = (np.array(reference.stretched(z)) for z in (signals.disagreement, signals.compatibility))
    product = (d * (1 - c if name == "incompatible" else c))[rows]
    expected = rows[np.argsort(product)[-3:]]
    assert set(expected) not in ({100, 101, 102}, {103, 104, 105})
    got = select(name, 0.015, signals, seed=0)  # 3 of 200
    assert set(np.flatnonzero(got.mask)) == set(expected)
    assert got.tied_share == 1.0


def test_hash_spreads_undecided_positions_over_contexts_and_positions() -> None:
    # 40 contexts of 50 positions, all tied, 20 % kept: about 10 a context and 80 a fifth.
    contexts = pd.Series([f"context {i}" for i in range(40) for _ in range(50)])
    positions = np.tile(np.arange(50, dtype=np.int32), 40)
    flat = np.zeros(2000)
    ids = identities(contexts, positions)
    signals = Signals(entropy=flat, disagreement=flat, compatibility=flat, identity=ids)
    kept = select("kl", 0.2, signals, seed=0).mask
    per_context = kept.reshape(40, 50).sum(axis=1)
    assert per_context.max() <= 24  # five standard deviations of 2.8 above 10
    assert per_context.min() >= 1
    per_fifth = np.bincount(positions[kept] // 10, minlength=5)
    assert abs(per_fifth - 80).max() <= 40  # five standard deviations of 8


@pytest.mark.parametrize("name", SCORED)
def test_constant_signals_are_decided_by_identity_alone(name: str) -> None:
    count = 100
    ids = np.random.default_rng(7).permutation(count).astype(np.uint64)
    flat = np.full(count, 0.1)
    signals = Signals(entropy=flat, disagreement=flat, compatibility=flat, identity=ids)
    got = select(name, 0.1, signals, seed=0)
    sorted_rows = np.argsort(ids)
    in_order = select(name, 0.1, reordered(signals, sorted_rows), seed=0)
    assert set(ids[got.mask]) == set(ids[sorted_rows][in_order.mask])
    assert got.mask.sum() == 10
    assert got.tied_share == 1.0


def test_random_depends_on_seed_and_identity_alone() -> None:
    first, second = make_signals(seed=20), make_signals(seed=21)
    other = Signals(
        entropy=second.entropy,
        disagreement=second.disagreement,
        compatibility=second.compatibility,
        identity=first.identity,
    )
    kept = [select("random", 0.1, s, seed=4).mask.tolist() for s in (first, other)]
    assert kept[0] == kept[1]


def test_random_order_of_two_positions_ignores_all_others() -> None:
    signals = make_signals(seed=22)
    score, _ = scores("random", signals, seed=1)
    part, _ = scores("random", reordered(signals, np.arange(50, 90)), seed=1)
    assert part.tolist() == score[50:90].tolist()


def test_random_choices_of_different_seeds_overlap_by_chance() -> None:
    # 20,000 positions at 10 %: 200 expected in both, standard deviation about 13.
    signals = make_signals(seed=23, count=20_000)
    one, two = (select("random", 0.1, signals, seed=s).mask for s in (0, 1))
    assert abs(int((one & two).sum()) - 200) < 70


def test_random_is_uniform_over_positions_of_a_context() -> None:
    # 200 contexts of 100 positions: each tenth of the response holds a tenth of the kept ones.
    contexts = pd.Series([f"context {i}" for i in range(200) for _ in range(100)])
    positions = np.tile(np.arange(100, dtype=np.int32), 200)
    flat = np.zeros(len(positions))
    signals = Signals(
        entropy=flat,
        disagreement=flat,
        compatibility=flat,
        identity=identities(contexts, positions),
    )
    kept = select("random", 0.1, signals, seed=2).mask
    tenths = np.bincount(positions[kept] // 10, minlength=10)
    assert tenths.sum() == 2000
    assert abs(tenths - 200).max() < 70  # five standard deviations of about 13.4


@pytest.mark.parametrize("name", SCORED)
def test_seed_matters_to_random_alone(name: str) -> None:
    signals = make_signals(seed=24)
    kept = [select(name, 0.1, signals, seed=s).mask.tolist() for s in (0, 1)]
    assert kept[0] == kept[1]
    drawn = [select("random", 0.1, signals, seed=s).mask.tolist() for s in (0, 1)]
    assert drawn[0] != drawn[1]


def test_identities_are_unique_over_contexts_and_positions() -> None:
    contexts = pd.Series([f"c{i}" for i in range(100) for _ in range(64)])
    positions = np.tile(np.arange(64, dtype=np.int32), 100)
    assert len(set(identities(contexts, positions).tolist())) == 6400


def test_identity_of_a_position_ignores_other_rows_and_the_column_type() -> None:
    contexts = pd.Series(["b", "a", "b", "c"])
    positions = np.array([0, 0, 1, 7], dtype=np.int32)
    whole = identities(contexts, positions).tolist()
    backwards = identities(contexts[::-1], positions[::-1]).tolist()
    assert backwards == whole[::-1]
    assert identities(contexts[2:3], positions[2:3]).tolist() == whole[2:3]
    labels = contexts.astype(pd.CategoricalDtype(["c", "z", "b", "a"]))
    assert identities(labels, positions).tolist() == whole


def test_identities_are_the_same_in_another_process() -> None:
    code = (
        "import numpy as np, pandas as pd\n"
        "from diagnostics.statistics.selectors import identities\n"
        "print(identities(pd.Series(['x', 'y']), np.array([3, 4], dtype=np.int32)).tolist())\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = identities(pd.Series(["x", "y"]), np.array([3, 4], dtype=np.int32)).tolist()
    assert there.stdout.strip() == str(here)


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("budget", [0.0, -0.1, 1.0000001, 5.0, math.inf, math.nan])
def test_budget_outside_zero_to_one_is_refused(name: str, budget: float) -> None:
    with pytest.raises(InputError) as caught:
        select(name, budget, make_signals(seed=0, count=10), seed=0)
    assert str(caught.value) == (
        f"--budget: expected a share of positions in (0, 1], got {budget!r}; write 5 % as 0.05"
    )


def test_selectors_of_the_paper_are_known() -> None:
    assert {*SCORED, "random", "full"} <= set(SELECTORS)


@pytest.mark.parametrize("name", SELECTORS)
def test_known_selector_is_given_back(name: str) -> None:
    assert check_selector(name) == name


@pytest.mark.parametrize("name", ["", "Teachability", "tips", "kl "])
def test_unknown_selector_is_refused_with_all_names(name: str) -> None:
    with pytest.raises(InputError) as caught:
        check_selector(name)
    assert str(caught.value) == (
        f"--selector: expected one of {', '.join(SELECTORS)}, got {name!r}; choose one of them"
    )
