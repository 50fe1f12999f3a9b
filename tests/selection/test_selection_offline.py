"""What is kept equals what the analysis's selectors keep, bit for bit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_batches import CHANGES, batch, expected, numbers, offline, owners

from diagnostics.errors import InputError
from diagnostics.selection import select_tokens
from diagnostics.selection.counts import MOST, kept_count, neighbours, written_ratio
from diagnostics.selection.identity import identities, uniform, unsigned_order
from diagnostics.selection.scales import quantiles, scales
from diagnostics.statistics.selection.rules import SCALES
from diagnostics.statistics.selection.selectors import SELECTORS, keep_count, select
from diagnostics.statistics.selection.signals import (
    identities_from,
    seed_hash,
)
from diagnostics.statistics.selection.signals import (
    uniform as numpy_uniform,
)

BUDGETS = (0.03, 0.05, 0.1, 1 / 3, 0.1 + 0.2, 1.0)
SEEDS = (0, 7, -1, 2**63, 2**64 + 3)
many = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("one_per_row", [False, True])
def test_kept_equals_the_offline_selection(selector: str, change: str, one_per_row: bool) -> None:
    for seed in range(2):
        signals, mask, rows = batch(CHANGES[change], seed)
        known = offline(signals, mask, rows)
        of = owners(mask) if one_per_row else None
        for budget in BUDGETS:
            options = {"rows": rows, "seed": seed, "one_per_row": one_per_row}
            found = select_tokens(selector, budget, signals, mask, **options)
            try:
                truth = expected(select(selector, budget, known, seed, at_least_one_of=of))
            except InputError:  # an empty Q3, or floor(rho N) of 0
                assert found.empty
            else:
                assert numbers(found, mask) == truth


@pytest.mark.parametrize("selector", ["teachability", "random", "q3+low-dl"])
def test_kept_equals_the_offline_selection_of_a_bank_of_the_papers_size(selector: str) -> None:
    signals, _, rows = batch(rows=300, time=192)
    mask = torch.ones(300, 192, dtype=torch.bool)
    found = select_tokens(selector, 0.05, signals, mask, rows=rows)
    assert found.wanted.item() == found.mask.sum().item() == 2880
    truth = select(selector, 0.05, offline(signals, mask, rows), 0)
    assert numbers(found, mask) == expected(truth)


@many
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.lists(st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.95, 0.98, 1.0]), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_quantiles_are_numpys_bit_for_bit(z: list[float], qs: list[float], others: int) -> None:
    whole = torch.tensor([math.nan] * others + z, dtype=torch.float64)
    found = quantiles(whole, torch.arange(len(whole)) >= others, *qs)
    assert [q.item() for q in found] == np.quantile(np.array(z), qs).tolist()


@many
@given(st.lists(st.sampled_from([0.0, 1e-13, 0.25, 0.5, 3.0]), min_size=1, max_size=80))
def test_scalings_are_numpys_bit_for_bit(z: list[float]) -> None:
    array = np.array(z)
    mine = scales(torch.ones(len(z), dtype=torch.bool))
    for name, scale in SCALES.items():
        for a, b in zip(mine[name](torch.from_numpy(array)), scale(array), strict=True):
            assert a.tolist() == b.tolist(), name


@many
@given(
    st.one_of(st.floats(1e-300, 1.0), st.decimals("0.0001", 1, places=4).map(float)),
    st.integers(0, 2**31 - 1),
)
def test_counts_are_those_of_the_written_decimal(budget: float, total: int) -> None:
    for floor in (False, True):
        found = kept_count(torch.tensor(total), written_ratio(budget, floor=floor), floor=floor)
        assert found.item() == keep_count(budget, total, floor=floor)


@pytest.mark.parametrize(
    ("budget", "total", "wanted"),
    [(0.05, 57_600, 2880), (0.1 + 0.2, 10, 4), (0.3, 10, 3), (1e-17, 10**9, 1)],
)
def test_counts_by_hand(budget: float, total: int, wanted: int) -> None:
    found = kept_count(torch.tensor(total), written_ratio(budget, floor=False), floor=False)
    assert found.item() == wanted


def test_neighbours_are_those_of_all_fractions_of_small_denominators() -> None:
    for most in (1, 2, 7, 12):
        known = {Fraction(p, q) for q in range(1, most + 1) for p in range(q + 1)}
        for x in (Fraction(n, 997) for n in range(1, 997)):
            below, above = neighbours(x, most)
            assert below == max(f for f in known if f < x)
            assert above == min(f for f in known if f > x)
    assert MOST * MOST + MOST < 2**63  # what `kept_count` multiplies and adds


@pytest.mark.parametrize("seed", SEEDS)
def test_identities_and_random_numbers_are_numpys_bit_for_bit(seed: int) -> None:
    _, mask, rows = batch(rows=50)
    found = identities(rows, mask)
    names = np.repeat(rows.numpy().view(np.uint64), 40)
    truth = identities_from(names, np.tile(np.arange(40, dtype=np.int32), 50))
    assert found.flatten().numpy().view(np.uint64).tolist() == truth.tolist()
    assert uniform(found.flatten(), seed).tolist() == numpy_uniform(truth, seed).tolist()
    assert unsigned_order(found.flatten()).argsort().tolist() == np.argsort(truth).tolist()


def test_splitmix64_of_the_seed_0_is_the_published_sequence() -> None:
    # The first output of the generator with state 0, from its author's reference code
    assert seed_hash(0).tolist() == [0xE220A8397B1DCDAF]
