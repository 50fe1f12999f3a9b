"""Divergences against their definitions in float64, the order of KL's arguments, and ties."""

from __future__ import annotations

import math

import pytest
import torch
from doubles import slow_entropy, slow_kl, slow_top
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.scoring import divergence
from diagnostics.scoring.divergence import CHUNK, chunked, distribution, entropy, kl_divergence

# float32 terms with float64 sums: each term is off by at most about 1e-7 of its size
RELATIVE, ABSOLUTE = 1e-6, 1e-6
SHAPES = [(1, 2), (3, 7), (5, 1), (2, 1001), (17, 64)]


def logits(shape: tuple[int, int], scale: float, seed: int) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def logs(values: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(values.double(), dim=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 40.0])
def test_kl_is_its_definition(shape: tuple[int, int], scale: float) -> None:
    p, q = logits(shape, scale, 0), logits(shape, scale, 1)
    found = kl_divergence(distribution(p), distribution(q))
    assert found.dtype == torch.float64
    truth = [slow_kl(a, b) for a, b in zip(logs(p), logs(q), strict=True)]
    assert found.tolist() == pytest.approx(truth, rel=RELATIVE, abs=ABSOLUTE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 40.0])
def test_entropy_is_its_definition(shape: tuple[int, int], scale: float) -> None:
    p = logits(shape, scale, 2)
    truth = [slow_entropy(row) for row in logs(p)]
    assert entropy(distribution(p)).tolist() == pytest.approx(truth, rel=RELATIVE, abs=ABSOLUTE)


@pytest.mark.parametrize("shape", SHAPES)
def test_logprob_is_its_definition(shape: tuple[int, int]) -> None:
    p = logits(shape, 5.0, 3)
    ids = torch.tensor([[0, shape[1] - 1, shape[1] // 2]] * shape[0])
    found = distribution(p).logprob(ids)
    assert torch.allclose(found, logs(p).gather(1, ids), rtol=RELATIVE, atol=ABSOLUTE)


def test_order_of_the_arguments_of_kl() -> None:
    p = distribution(torch.tensor([[0.5, 0.5]]).log())
    q = distribution(torch.tensor([[0.9, 0.1]]).log())
    # KL(p||q) = .5 ln(.5/.9) + .5 ln(.5/.1) = .5 (-.5877867) + .5 (1.6094379) = .5108256
    assert kl_divergence(p, q).item() == pytest.approx(0.5108256, abs=ABSOLUTE)
    # KL(q||p) = .9 ln(.9/.5) + .1 ln(.1/.5) = .9 (.5877867) + .1 (-1.6094379) = .3680642
    assert kl_divergence(q, p).item() == pytest.approx(0.3680642, abs=ABSOLUTE)


@pytest.mark.parametrize("size", [1, 2, 64, 5000])
def test_uniform_has_entropy_log_of_its_size(size: int) -> None:
    found = entropy(distribution(torch.full((1, size), 3.0))).item()
    assert found == pytest.approx(math.log(size), abs=ABSOLUTE)


def test_kl_of_a_distribution_with_itself_is_exactly_nought() -> None:
    p = distribution(logits((9, 333), 10.0, 4))
    assert kl_divergence(p, p).tolist() == [0.0] * 9


def test_certain_distribution_has_no_entropy_and_finite_divergence() -> None:
    certain = distribution(torch.tensor([[0.0, -200.0, -200.0]]))  # exp(-200) underflows
    uniform = distribution(torch.zeros(1, 3))
    assert entropy(certain).item() == 0.0
    assert kl_divergence(certain, uniform).item() == pytest.approx(math.log(3), abs=ABSOLUTE)
    # KL(u||c) = -ln 3 - (0 - 200 - 200) / 3 = 132.23472
    assert kl_divergence(uniform, certain).item() == pytest.approx(132.234721, rel=RELATIVE)


@pytest.mark.parametrize("constant", [-512.0, 64.0, 1024.0])
def test_adding_a_constant_to_logits_changes_nothing(constant: float) -> None:
    # on a grid of 1/64 the sum is exact in float32, so the two inputs mean the same
    p, q = ((logits((6, 50), 3.0, s) * 64).round() / 64 for s in (5, 6))
    before = kl_divergence(distribution(p), distribution(q))
    after = kl_divergence(distribution(p + constant), distribution(q - constant))
    assert (before - after).abs().max() < ABSOLUTE
    moved = entropy(distribution(p + constant)) - entropy(distribution(p))
    assert moved.abs().max() < ABSOLUTE
    assert torch.equal(divergence.top_k(p + constant, 7), divergence.top_k(p, 7))


def test_small_divergences_keep_their_digits() -> None:
    """Gains of late training are small: at KL near 1e-5 the error stays below 1e-7."""
    p = logits((20, 2000), 3.0, 7)
    q = p + 0.005 * logits((20, 2000), 1.0, 8)
    found = kl_divergence(distribution(p), distribution(q))
    truth = torch.tensor([slow_kl(a, b) for a, b in zip(logs(p), logs(q), strict=True)])
    assert truth.max() < 1e-4
    assert (found - truth).abs().max() < 1e-7


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_ties_go_to_the_lower_id_also_at_the_cut(k: int) -> None:
    row = [1.0, 3.0, 2.0, 3.0, 2.0]
    # by value: 1 and 3 (3.0), then 2 and 4 (2.0), then 0
    assert divergence.top_k(torch.tensor([row]), k).tolist() == [[1, 3, 2, 4, 0][:k]]


@pytest.mark.parametrize("k", [1, 16, 100])
def test_all_equal_gives_the_first_ids(k: int) -> None:
    assert divergence.top_k(torch.zeros(3, 1000), k).tolist() == [list(range(k))] * 3


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 12).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-2, 2), min_size=width, max_size=width), min_size=1, max_size=5
        )
    ),
    data=st.data(),
)
def test_top_k_is_the_sort_by_value_then_id(rows: list[list[int]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(rows[0])))
    found = divergence.top_k(torch.tensor(rows, dtype=torch.float32), k)
    assert found.tolist() == [slow_top(row, k) for row in rows]


@pytest.mark.parametrize("k", [1, 4, 33])
def test_top_k_is_the_head_of_any_larger_one(k: int) -> None:
    values = logits((40, 70), 1.0, 9).mul(2).round()  # many ties
    assert torch.equal(divergence.top_k(values, 64)[:, :k], divergence.top_k(values, k))


@pytest.mark.parametrize("k", [0, -1, 6])
def test_support_beyond_the_vocabulary_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"expected k from 1 to 5, got {k}"):
        divergence.top_k(torch.zeros(2, 5), k)


@pytest.mark.parametrize("rows", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_chunks_hold_every_row_once_in_order(rows: int) -> None:
    states = torch.arange(rows)[:, None]
    pieces = list(chunked(states))
    assert [i for piece in pieces for i in piece[:, 0].tolist()] == list(range(rows))
    assert all(1 <= len(piece) <= CHUNK for piece in pieces)
