"""What a choice may not depend on: order of rows, padding, ranks, a trainer's library."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from selection_batches import batch, rounded
from torch.nn.functional import pad

from diagnostics.selection import (
    TokenSignals,
    row_hashes,
    select_tokens,
    signals_from_logprobs,
)
from diagnostics.statistics.selection.selectors import SELECTORS


def ids_of(mask: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 90, mask.shape, generator=generator)


def shifted(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Rows (batch, time) with their padding moved from right to left, and three more of it."""
    moved = [row.roll(int((~valid).sum())) for row, valid in zip(tensor, mask, strict=True)]
    return pad(torch.stack(moved), (3, 0))


@pytest.mark.parametrize("selector", SELECTORS)
def test_permuted_rows_permute_the_mask(selector: str) -> None:
    signals, mask, _ = batch(rounded, seed=1)
    hashes = row_hashes(ids_of(mask), mask)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    found = select_tokens(selector, 0.2, signals, mask, rows=hashes)
    moved = select_tokens(
        selector, 0.2, signals.map(lambda z: z[order]), mask[order], rows=hashes[order]
    )
    assert moved.mask.tolist() == found.mask[order].tolist()
    assert moved.tied_share.item() == found.tied_share.item()


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("one_per_row", [False, True])
def test_side_and_width_of_padding_do_not_matter(selector: str, one_per_row: bool) -> None:
    signals, mask, rows = batch(rounded, seed=2)
    found = select_tokens(selector, 0.2, signals, mask, rows=rows, one_per_row=one_per_row)
    moved = signals.map(lambda z: shifted(torch.where(mask, z, torch.nan), mask))
    moved_mask = shifted(mask, mask)
    got = select_tokens(selector, 0.2, moved, moved_mask, rows=rows, one_per_row=one_per_row)
    assert got.mask[moved_mask].tolist() == found.mask[mask].tolist()
    assert not (got.mask & ~moved_mask).any()


def test_row_hashes_depend_on_the_valid_ids_and_their_places_alone() -> None:
    _, mask, _ = batch(seed=2, rows=40)
    ids = ids_of(mask)
    found = row_hashes(ids, mask)
    assert len(set(found.tolist())) == 40
    noise = torch.where(mask, ids, 77)
    assert row_hashes(shifted(noise, mask), shifted(mask, mask)).tolist() == found.tolist()
    assert row_hashes(ids.flip(0), mask.flip(0)).tolist() == found.flip(0).tolist()
    assert row_hashes(ids.int(), mask).tolist() == found.tolist()


def test_row_hashes_tell_order_length_and_one_token_apart() -> None:
    ids = torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 4], [1, 2, 0], [1, 2, 0], [0, 0, 0]])
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[4, 2] = False
    mask[5] = False
    assert len(set(row_hashes(ids, mask).tolist())) == 6


@pytest.mark.parametrize("selector", SELECTORS)
def test_two_ranks_put_together_are_one_batch(selector: str) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = 2 * torch.randn(2, 8, 30, 50, generator=generator)
    mask = torch.arange(30) < torch.tensor([[30], [4], [17], [1], [25], [9], [22], [13]])
    ids = ids_of(mask)
    whole = signals_from_logprobs(student, teacher, mask)
    ranks = (slice(0, 4), slice(4, 8))
    parts = [signals_from_logprobs(student[r], teacher[r], mask[r]) for r in ranks]
    gathered = TokenSignals(
        **{n: torch.cat([getattr(p, n) for p in parts]) for n, _ in whole.known()},
        vocabulary=whole.vocabulary,
    )
    hashes = torch.cat([row_hashes(ids[r], mask[r]) for r in ranks])
    found = select_tokens(selector, 0.1, gathered, mask, rows=hashes)
    one = select_tokens(selector, 0.1, whole, mask, rows=row_hashes(ids, mask))
    assert found.mask.tolist() == one.mask.tolist()


def test_random_depends_on_seed_and_rollout_not_on_signals() -> None:
    signals, mask, rows = batch()
    first = select_tokens("random", 0.2, signals, mask, rows=rows, seed=1)
    assert select_tokens("random", 0.2, TokenSignals(), mask, rows=rows, seed=1).mask.equal(
        first.mask
    )
    assert not select_tokens("random", 0.2, signals, mask, rows=rows, seed=2).mask.equal(first.mask)


def test_rows_are_named_by_their_index_by_default() -> None:
    signals, mask, _ = batch(rounded)
    found = select_tokens("kl", 0.2, signals, mask)
    assert found.mask.equal(select_tokens("kl", 0.2, signals, mask, rows=torch.arange(6)).mask)


@pytest.mark.slow
def test_it_imports_and_runs_without_a_trainers_library() -> None:
    code = """
import sys
for name in ("trl", "accelerate", "peft", "datasets"):
    sys.modules[name] = None  # import raises ImportError
import torch
from diagnostics.selection import select_tokens, signals_from_logprobs
mask = torch.ones(2, 5, dtype=torch.bool)
signals = signals_from_logprobs(torch.randn(2, 5, 30), torch.randn(2, 5, 30), mask)
print(int(select_tokens("teachability", 0.3, signals, mask).mask.sum()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
