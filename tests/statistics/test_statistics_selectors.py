"""Selectors: scores against loops, exact budgets, ties, and what the choice may depend on."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.selection.selectors import (
    SELECTORS,
    check_selector,
    keep_count,
    scores,
    select,
    select_many,
)
from diagnostics.statistics.selection.signals import Signals, identities

ROUNDING = 1e-12  # float64 arithmetic in another order
PAPER_POSITIONS = 57_600
SCORED = (
    "teachability",
    "teachability+entropy",
    "kl",
    "entropy",
    "tip",
    "compatibility",
    "incompatible",
)
RANKED = (*SCORED, "q3-tip", "random")
IN_Q3 = ("q3", "q3+high-c", "q3+low-c", "q3+high-dl", "q3+low-dl", "q3+high-di")
RULED = (*SCORED, *IN_Q3, "tip-original", "q3-tip")
VOCABULARY = 50_000
BUDGETS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def make_signals(seed: int, count: int = 400) -> Signals:
    rng = np.random.default_rng(seed)
    entropy = np.minimum(rng.gamma(1.0, size=count), 10.0)
    disagreement = rng.gamma(1.0, size=count)
    compatibility = rng.beta(2.0, 1.0, size=count)
    identity = rng.permutation(np.arange(count, dtype=np.uint64) * np.uint64(977))
    kl_0 = disagreement + rng.gamma(0.5, size=count)
    cuts = reference.quantile(entropy, 0.5), reference.quantile(kl_0, 0.5)
    return Signals(
        entropy=entropy,
        disagreement=disagreement,
        compatibility=compatibility,
        identity=identity,
        kl_0=kl_0,
        reverse_kl_0=rng.gamma(0.7, size=count),
        q3=np.array(
            [reference.quadrant(h, k, *cuts) == 3 for h, k in zip(entropy, kl_0, strict=True)]
        ),
        vocabulary=VOCABULARY,
    )


def reordered(signals: Signals, order: np.ndarray) -> Signals:
    fields = {name: getattr(signals, name) for name in Signals.__slots__}
    return Signals(**{k: v[order] if isinstance(v, np.ndarray) else v for k, v in fields.items()})


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
        elif name == "teachability+entropy":
            out.append(h + d * c - h * d * c)
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


@pytest.mark.parametrize("name", [*RULED, "random"])
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
        signals = replace(signals, **coarse)
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
        "from diagnostics.statistics.selection.signals import identities\n"
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


def test_selectors_of_the_definitions_are_known() -> None:
    assert set(SELECTORS) == {*RULED, "random", "full"}
    assert len(SELECTORS) == 17


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


def slow_rank(name: str, signals: Signals) -> list[tuple[float, float, int]]:
    """(score, tie-break, hash) of each position, smallest first; plain numbers."""
    h_, d_, c_ = (
        reference.stretched(z)
        for z in (signals.entropy, signals.disagreement, signals.compatibility)
    )
    kl = [float(z) for z in signals.kl_0]
    low, high = min(kl), reference.quantile(kl, 0.98)

    def scaled(values: np.ndarray) -> list[float]:
        least, most = min(values), max(values)
        return [(z - least) / (most - least) for z in values]

    raw_h, raw_d = scaled(signals.entropy), scaled(signals.reverse_kl_0)

    def clip(z: float) -> float:
        return min(max(z, 0.0), 1.0)

    def beyond(a: float, b: float) -> float:
        return a * b if a > 0 and b > 0 else min(a, 0.0) + min(b, 0.0)

    def either(a: float, b: float) -> float:
        return 1 - (1 - a) * (1 - b)

    out = []
    for row, (h, d, c) in enumerate(zip(h_, d_, c_, strict=True)):
        hn, dn, cn = clip(h), clip(d), clip(c)
        top, bottom = (dn * cn, beyond(d, c)), (dn * (1 - cn), beyond(d, 1 - c))
        raw = (raw_h[row], raw_d[row])
        sure = 1 - signals.entropy[row] / math.log(VOCABULARY)
        score, tie = {
            "teachability": top,
            "teachability+entropy": (either(hn, dn * cn), h + beyond(d, c)),
            "kl": (dn, d),
            "entropy": (hn, h),
            "tip": (either(hn, dn), h + d),
            "compatibility": (cn, c),
            "incompatible": bottom,
            "q3": (dn, d),
            "q3+high-c": (cn, c),
            "q3+low-c": (-cn, -c),
            "q3+high-dl": top,
            "q3+low-dl": (-top[0], -top[1]),
            "q3+high-di": bottom,
            "tip-original": (either(*raw), sum(raw)),
            "q3-tip": (
                (min(kl[row], high) - low) / (high - low) * sure,
                (kl[row] - low) / (high - low) * sure,
            ),
        }[name]
        out.append((-score, -tie, int(signals.identity[row])))
    return out


def slow_kept(name: str, budget: float, signals: Signals) -> list[int]:
    """Rows that a selector keeps, first ones first: everything sorted in plain Python."""
    keys = slow_rank(name, signals)
    exact = Fraction(str(budget)) * len(keys)
    wanted = math.floor(exact) if name == "tip-original" else math.ceil(exact)
    rows = [r for r in range(len(keys)) if name not in IN_Q3 or signals.q3[r]]
    return sorted(rows, key=keys.__getitem__)[:wanted]


@pytest.mark.parametrize("name", RULED)
@pytest.mark.parametrize("budget", [0.01, 0.1, 0.6, 0.97])
def test_kept_positions_equal_a_plain_sort(name: str, budget: float) -> None:
    signals = make_signals(seed=30)
    got = select(name, budget, signals, seed=0)
    expected = slow_kept(name, budget, signals)
    assert np.flatnonzero(got.mask).tolist() == sorted(expected)
    assert got.share == len(expected) / 400


@pytest.mark.parametrize("name", RULED)
def test_all_budgets_at_once_equal_one_at_a_time(name: str) -> None:
    signals = make_signals(seed=31)
    unsorted_ = (0.1, 0.01, 0.5, 0.03, 0.1)
    many = select_many(name, unsorted_, signals, seed=0)
    for budget, got in zip(unsorted_, many, strict=True):
        alone = select(name, budget, signals, seed=0)
        np.testing.assert_array_equal(got.mask, alone.mask)
        assert replace(got, mask=alone.mask) == replace(alone, mask=alone.mask)


def lexsorted(name: str, budget: float, signals: Signals) -> tuple[np.ndarray, float]:
    """Mask and tied share by a full sort of all keys of the positions that may be kept."""
    rows = np.flatnonzero(signals.q3) if name in IN_Q3 else np.arange(len(signals.identity))
    score, tie_break = (z[rows] for z in scores(name, signals, seed=1))
    order = np.lexsort((signals.identity[rows], -tie_break, -score))
    wanted = keep_count(budget, len(signals.identity), floor=name == "tip-original")
    mask = np.zeros(len(signals.identity), dtype=bool)
    mask[rows[order[:wanted]]] = True
    kept, dropped = score[order[:wanted]], score[order[wanted:]]
    at_cut = int((kept == kept[-1]).sum()) if kept[-1] in dropped else 0
    return mask, at_cut / len(kept)


@few
@given(
    st.sampled_from([*RULED, "random"]),
    st.integers(2, 120),
    st.integers(1, 4),
    st.integers(1, 100),
    st.integers(0, 10_000),
)
def test_partition_equals_the_full_sort_under_massive_ties(
    name: str, count: int, levels: int, percent: int, seed: int
) -> None:
    budget = percent / 100
    if name == "tip-original" and percent * count < 100:
        budget = 1.0
    rng = np.random.default_rng(seed)
    coarse = {
        key: rng.integers(0, levels, size=count) / 4.0
        for key in ("entropy", "disagreement", "compatibility", "kl_0", "reverse_kl_0")
    }
    q3 = rng.integers(0, 2, size=count) == 1
    q3[rng.integers(count)] = True
    identity = rng.permutation(count).astype(np.uint64)
    signals = Signals(**coarse, identity=identity, q3=q3, vocabulary=VOCABULARY)
    got = select(name, budget, signals, seed=1)
    mask, tied = lexsorted(name, budget, signals)
    np.testing.assert_array_equal(got.mask, mask)
    assert got.tied_share == pytest.approx(tied, abs=ROUNDING)


@pytest.mark.parametrize("name", IN_Q3)
def test_q3_selectors_keep_q3_alone_at_the_same_count_as_all_others(name: str) -> None:
    signals = make_signals(seed=32)
    got = select(name, 0.05, signals, seed=0)
    assert got.mask.sum() == got.wanted == 20
    assert signals.q3[got.mask].all()
    assert not got.short


@pytest.mark.parametrize("name", IN_Q3)
def test_short_q3_is_kept_whole_and_said(name: str) -> None:
    signals = replace(make_signals(seed=33), q3=np.arange(400) % 40 == 0)
    got = select(name, 0.05, signals, seed=0)
    np.testing.assert_array_equal(got.mask, signals.q3)
    assert (got.wanted, got.short, got.tied_share, got.share) == (20, True, 0.0, 10 / 400)


def test_q3_of_exactly_n_positions_is_not_short() -> None:
    signals = replace(make_signals(seed=33), q3=np.arange(400) % 20 == 0)
    got = select("q3", 0.05, signals, seed=0)
    assert got.mask.sum() == 20
    assert not got.short


@pytest.mark.parametrize(("down", "up"), [("q3+high-c", "q3+low-c"), ("q3+high-dl", "q3+low-dl")])
@pytest.mark.parametrize("part", [1, 7, 30])
def test_high_and_low_ends_of_q3_share_it_out(down: str, up: str, part: int) -> None:
    signals = make_signals(seed=34)
    inside = int(signals.q3.sum())
    high = select(down, part / 400, signals, seed=0).mask
    low = select(up, (inside - part) / 400, signals, seed=0).mask
    assert not (high & low).any()
    np.testing.assert_array_equal(high | low, signals.q3)


def test_low_dl_ties_at_the_floor_are_ordered_by_what_lies_below_it_by_hand() -> None:
    # All of Q3 has C below its 5 % quantile, so D^L is 0 there: lower C is kept first.
    compatibility = np.r_[np.full(90, 0.8), np.linspace(0.9, 1.0, 6), 0.04, 0.01, 0.03, 0.02]
    q3 = np.arange(100) >= 96
    disagreement = np.r_[np.linspace(0.0, 1.0, 96), np.full(4, 0.5)]
    signals = replace(only(disagreement), compatibility=compatibility, q3=q3)
    got = select("q3+low-dl", 0.02, signals, seed=0)
    assert np.flatnonzero(got.mask).tolist() == [97, 99]
    assert got.tied_share == 1.0


def test_tip_original_by_hand() -> None:
    # h = 0, .5, 1, 0 and d = .5, .5, 0, 1 give soft-ors .5, .75, 1, 1, of equal sums 1 at the top.
    signals = Signals(
        entropy=np.array([1.0, 2.0, 3.0, 1.0]),
        disagreement=np.zeros(4),
        compatibility=np.zeros(4),
        identity=np.array([3, 2, 1, 0], dtype=np.uint64),
        reverse_kl_0=np.array([2.0, 2.0, 0.0, 4.0]),
    )
    assert scores("tip-original", signals, seed=0)[0].tolist() == [0.5, 0.75, 1.0, 1.0]
    got = select("tip-original", 0.49, signals, seed=0)  # 1.96 positions, rounded down
    assert np.flatnonzero(got.mask).tolist() == [3]
    assert (got.wanted, got.tied_share) == (1, 1.0)


@pytest.mark.parametrize(
    ("budget", "total", "expected"), [(0.05, 57_600, 2880), (0.03, 101, 3), (0.29, 100, 29)]
)
def test_tip_original_keeps_the_floor_of_the_written_budget(
    budget: float, total: int, expected: int
) -> None:
    signals = make_signals(seed=35, count=total)
    assert select("tip-original", budget, signals, seed=0).mask.sum() == expected


def test_tip_original_ignores_units() -> None:
    signals = make_signals(seed=36)
    changed = replace(
        signals, entropy=4 * signals.entropy + 2, reverse_kl_0=0.5 * signals.reverse_kl_0
    )
    kept = [select("tip-original", 0.1, s, seed=0).mask.tolist() for s in (signals, changed)]
    assert kept[0] == kept[1]


def test_q3_tip_by_hand() -> None:
    # KL 0..50: its 98 % quantile is 49, so 49 and 50 both scale to 1; H = 0 but for two rows.
    vocabulary = 16
    entropy = np.zeros(51)
    entropy[50], entropy[40] = math.log(4), math.log(16)
    signals = replace(
        only(np.zeros(51)), entropy=entropy, kl_0=np.arange(51.0), vocabulary=vocabulary
    )
    score, _ = scores("q3-tip", signals, seed=0)
    expected = np.arange(51.0) / 49
    expected[50], expected[40] = 0.5, 0.0
    np.testing.assert_allclose(score, expected, rtol=0, atol=ROUNDING)


def test_q3_tip_ties_beyond_the_clip_are_broken_by_the_whole_kl() -> None:
    kl_0 = np.r_[np.zeros(90), np.full(8, 1.0), 2.0, 3.0]  # 98 % quantile: index 97.02, so 1.02
    signals = replace(only(np.zeros(100)), entropy=np.zeros(100), kl_0=kl_0, vocabulary=10)
    got = select("q3-tip", 0.01, signals, seed=0)
    assert np.flatnonzero(got.mask).tolist() == [99]
    assert got.tied_share == 1.0


def test_teachability_with_entropy_ties_are_broken_by_the_unclipped_sum() -> None:
    signals = make_signals(seed=13)
    h, d, c = (
        reference.stretched(z)
        for z in (signals.entropy, signals.disagreement, signals.compatibility)
    )
    top = [row for row in range(400) if h[row] >= 1 or min(d[row], c[row]) >= 1]
    below = [min(d[row], 0) + min(c[row], 0) for row in range(400)]
    unclipped = [max(d[row], 0) * max(c[row], 0) or below[row] for row in range(400)]
    expected = sorted(top, key=lambda row: h[row] + unclipped[row])[-12:]  # 3 % of 400
    assert set(expected) != set(sorted(top, key=h.__getitem__)[-12:])
    got = select("teachability+entropy", 0.03, signals, seed=0)
    assert set(np.flatnonzero(got.mask)) == set(expected)
    assert got.tied_share == 1.0


def test_teachability_with_entropy_is_tip_with_learnable_disagreement() -> None:
    signals = make_signals(seed=37)
    h, s = (scores(name, signals, 0)[0] for name in ("entropy", "teachability"))
    both, _ = scores("teachability+entropy", signals, 0)
    np.testing.assert_allclose(1 - both, (1 - h) * (1 - s), rtol=0, atol=ROUNDING)


OWNERS = np.repeat([f"rollout {i}" for i in range(40)], 10)


def slow_with_one_of_each(name: str, budget: float, signals: Signals) -> set[int]:
    """The kept rows, and of each rollout without one its first, Q3 before the rest."""
    keys = slow_rank(name, signals)
    kept = set(slow_kept(name, budget, signals))
    for owner in set(OWNERS):
        rows = [row for row in range(400) if OWNERS[row] == owner]
        if not kept & set(rows):
            outside = [name in IN_Q3 and not signals.q3[row] for row in range(400)]
            kept.add(min(rows, key=lambda row: (outside[row], *keys[row])))
    return kept


@pytest.mark.parametrize("name", RULED)
@pytest.mark.parametrize("budget", [0.03, 0.3])
def test_at_least_one_of_each_rollout_equals_the_slow_loop(name: str, budget: float) -> None:
    signals = make_signals(seed=38)
    plain = select(name, budget, signals, seed=0)
    got = select(name, budget, signals, seed=0, at_least_one_of=OWNERS)
    assert set(np.flatnonzero(got.mask)) == slow_with_one_of_each(name, budget, signals)
    assert got.added == got.mask.sum() - plain.mask.sum()
    assert got.share == got.mask.sum() / 400
    assert (got.wanted, got.tied_share) == (plain.wanted, plain.tied_share)


@pytest.mark.parametrize("name", [*RANKED, *IN_Q3])
def test_every_rollout_keeps_a_position_and_none_is_taken_away(name: str) -> None:
    signals = make_signals(seed=39)
    plain = select(name, 0.03, signals, seed=0)
    got = select(name, 0.03, signals, seed=0, at_least_one_of=OWNERS)
    assert set(OWNERS[got.mask]) == set(OWNERS)
    assert not (plain.mask & ~got.mask).any()
    assert got.added == 40 - len(set(OWNERS[plain.mask]))


def test_nominal_three_percent_becomes_more_by_hand() -> None:
    # 100 positions in rollouts of 50, 30 and 20; the three largest lie in the first, and each of
    # the others adds its largest: 5 %.
    values = np.r_[np.arange(50.0) + 50, np.arange(30.0), np.arange(20.0)]
    owners = np.repeat([0, 1, 2], [50, 30, 20])
    got = select("kl", 0.03, only(values), seed=0, at_least_one_of=owners)
    assert np.flatnonzero(got.mask).tolist() == [47, 48, 49, 79, 99]
    assert (got.wanted, got.added, got.share) == (3, 2, 0.05)


def test_a_rollout_without_q3_keeps_its_first_position_outside_q3() -> None:
    signals = make_signals(seed=40)
    q3 = signals.q3 & (OWNERS != "rollout 7")
    got = select("q3", 0.03, replace(signals, q3=q3), seed=0, at_least_one_of=OWNERS)
    outside = np.flatnonzero(got.mask & ~q3)
    assert set(OWNERS[outside]) == set(OWNERS) - set(OWNERS[q3])
    (row,) = outside[OWNERS[outside] == "rollout 7"]
    assert signals.disagreement[row] == signals.disagreement[OWNERS == "rollout 7"].max()


def test_whole_budget_adds_nothing_for_any_rollout() -> None:
    got = select("kl", 1.0, make_signals(seed=41), seed=0, at_least_one_of=OWNERS)
    assert (got.added, got.share) == (0, 1.0)
    full = select("full", 0.5, make_signals(seed=41), seed=0, at_least_one_of=OWNERS)
    assert (full.added, full.wanted, full.share) == (0, 400, 1.0)


def test_names_of_rollouts_do_not_matter() -> None:
    signals = make_signals(seed=42)
    codes = np.repeat(np.arange(40)[::-1], 10)
    kept = [
        select("tip", 0.03, signals, seed=0, at_least_one_of=owners).mask.tolist()
        for owners in (OWNERS, codes, pd.Series(OWNERS).astype("category"))
    ]
    assert kept[0] == kept[1] == kept[2]


def test_position_without_a_rollout_is_refused() -> None:
    owners = np.array(["a", "b", None, "a"], dtype=object)
    with pytest.raises(InputError) as caught:
        select("kl", 0.5, only(np.arange(4.0)), seed=0, at_least_one_of=owners)
    assert str(caught.value) == (
        "at_least_one_of: expected the rollout of every position, got none at row 2; name it"
    )


@pytest.mark.parametrize(
    ("name", "signal"),
    [
        *((name, "q3") for name in IN_Q3),
        ("tip-original", "reverse_kl_0"),
        ("q3-tip", "kl_0"),
        ("q3-tip", "vocabulary"),
    ],
)
def test_selector_without_its_signal_is_refused_by_name(name: str, signal: str) -> None:
    with pytest.raises(InputError) as caught:
        select(name, 0.5, replace(make_signals(seed=43), **{signal: None}), seed=0)
    assert str(caught.value) == (
        f"selector {name}: expected the signal `{signal}`, got none; "
        f"give it in Signals({signal}=…), or choose another selector"
    )


@pytest.mark.parametrize("name", [*SCORED, "random", "full"])
def test_selectors_of_three_signals_need_no_others(name: str) -> None:
    assert select(name, 0.5, only(np.arange(10.0)), seed=0).mask.any()


@pytest.mark.parametrize(
    ("name", "signal"),
    [("teachability", "compatibility"), ("tip-original", "reverse_kl_0"), ("q3", "disagreement")],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_signal_that_is_not_finite_is_refused_with_its_row(
    name: str, signal: str, bad: float
) -> None:
    signals = make_signals(seed=44)
    getattr(signals, signal)[17] = bad
    with pytest.raises(InputError) as caught:
        select(name, 0.5, signals, seed=0)
    assert str(caught.value) == (
        f"selector {name}: expected a finite `{signal}` at every position, got {bad} at row 17; "
        "choose a selector that does without it, or score the context again"
    )


def test_signal_that_a_selector_does_not_need_may_be_unknown() -> None:
    signals = replace(make_signals(seed=45), compatibility=np.full(400, math.nan))
    assert select("kl", 0.5, signals, seed=0).mask.sum() == 200


@pytest.mark.parametrize("vocabulary", [1, 7])
def test_vocabulary_too_small_for_the_entropies_is_refused(vocabulary: int) -> None:
    entropy = np.array([0.0, math.log(8)])
    signals = replace(
        only(np.zeros(2)), entropy=entropy, kl_0=np.array([0.0, 1.0]), vocabulary=vocabulary
    )
    with pytest.raises(InputError) as caught:
        select("q3-tip", 0.5, signals, seed=0)
    assert str(caught.value) == (
        "selector q3-tip: expected a `vocabulary` of which 2.079 nats of entropy can be had, "
        f"got {vocabulary}; give the size of the vocabulary that both models share"
    )
    assert select("q3-tip", 0.5, replace(signals, vocabulary=8), seed=0).wanted == 1


@pytest.mark.parametrize("name", IN_Q3)
def test_empty_q3_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        select(name, 0.5, replace(make_signals(seed=46), q3=np.zeros(400, dtype=bool)), seed=0)
    assert str(caught.value) == (
        f"selector {name}: expected at least one position in Q3, got none of 400; "
        "give more positions, or choose a selector that ranks all of them"
    )


def test_budget_that_rounds_down_to_nothing_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        select("tip-original", 0.002, make_signals(seed=47), seed=0)
    assert str(caught.value) == (
        "selector tip-original: expected a budget that keeps at least one position, "
        "got 0.002 of 400, rounded down to 0; raise --budget, or choose a selector that rounds up"
    )


@pytest.mark.parametrize("name", SELECTORS)
def test_no_positions_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        select(name, 0.5, reordered(make_signals(seed=48), np.arange(0)), seed=0)
    assert str(caught.value) == (
        f"selector {name}: expected at least one position, got none; "
        "give a bank or a batch with valid positions"
    )


def test_every_budget_is_checked_before_any_is_cut() -> None:
    with pytest.raises(InputError, match=r"got 1\.5; write 5 % as 0\.05"):
        select_many("full", [0.5, 1.5], make_signals(seed=49), seed=0)
