"""Both heads, tile by tile, against float64 from the same hidden states and weights.

The tolerances are those that the project states (docs/performance.md, "Precision").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from doubles import slow_entropy, slow_kl, slow_top
from torch import Tensor

from diagnostics.models.heads import Head
from diagnostics.scoring import pairs
from diagnostics.scoring.pairs import Side, compare
from diagnostics.scoring.reduce import Kernel

VOCABULARY, HIDDEN, K = 5003, 48, 16
KL_ABSOLUTE, KL_RELATIVE = 2e-6, 1e-4
ENTROPY, COMPATIBILITY, GAIN = 2e-5, 2e-6, 4e-6
UNCHANGED = 1e-6  # another tile, chunk, constant or padding
TIE = 1e-5  # log-probabilities nearer than this may change places in a top-k list


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def side(
    seed: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    positions: int = 40,
    spread: float = 3.0,
    **head: Any,
) -> Side:
    """States and a head as a model in `dtype` has them; logits have a deviation of `spread`."""
    weight = normal(seed, VOCABULARY, HIDDEN) * spread / HIDDEN**0.5
    states = normal(seed + 100, positions, HIDDEN)
    return Side(states=states.to(dtype), head=Head(weight=weight.to(dtype), **head))


def near(one: Side, seed: int, size: float) -> Side:
    """The same model moved a little, as training does."""
    moved = one.states.float() + size * normal(seed, *one.states.shape)
    return replace(one, states=moved.to(one.states.dtype))


def truth(one: Side, vocabulary: int = VOCABULARY) -> Tensor:
    """log p (pos, vocab) float64 by the head's formula, written out."""
    head = one.head
    logits = one.states.double() @ head.weight.double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return torch.log_softmax(logits[:, :vocabulary], dim=1)


def kls(p: Tensor, q: Tensor) -> np.ndarray:
    return np.array([slow_kl(a, b) for a, b in zip(p, q, strict=True)])


def run(teacher: Side, student: Side, kernel: Kernel = "auto", **changes: Any) -> dict[str, Any]:
    return compare(
        teacher, student, **({"vocabulary": VOCABULARY, "k": K, "kernel": kernel} | changes)
    )


KERNELS: tuple[Kernel, ...] = ("compiled", "plain")
CASES = {
    "float32": (side(1, dtype=torch.float32), side(2, dtype=torch.float32)),
    "bfloat16": (side(1), side(2)),
    "capped": (side(1, softcap=30.0), side(2, scale=0.5)),
    "biased": (side(1, bias=normal(7, VOCABULARY)), side(2)),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", list(CASES))
def test_numbers_are_those_of_float64(case: str, kernel: Kernel) -> None:
    teacher, student = CASES[case]
    found = run(teacher, student, kernel)
    log_t, log_s = truth(teacher), truth(student)
    for name, wanted in (("kl", kls(log_t, log_s)), ("reverse_kl", kls(log_s, log_t))):
        assert (np.abs(found[name] - wanted) <= KL_ABSOLUTE + KL_RELATIVE * wanted).all()
    for name, logs in (("teacher_entropy", log_t), ("entropy", log_s)):
        assert np.abs(found[name] - [slow_entropy(row) for row in logs]).max() <= ENTROPY
    mass = np.exp(found["teacher_logprob"].astype(np.float64)).sum(axis=1)
    ids = torch.tensor(found["top_ids"]).long()
    assert np.abs(mass - log_t.gather(1, ids).exp().sum(1).numpy()).max() <= COMPATIBILITY


@pytest.mark.parametrize("kernel", KERNELS)
def test_lists_are_the_top_k_save_for_near_ties(kernel: Kernel) -> None:
    teacher, student = CASES["bfloat16"]
    found = run(teacher, student, kernel)
    for name, logs in (("teacher_ids", truth(teacher)), ("top_ids", truth(student))):
        for ids, row in zip(found[name], logs.tolist(), strict=True):
            wanted = slow_top(row, K)
            for here, there in zip(ids, wanted, strict=True):
                assert here == there or abs(row[here] - row[there]) < TIE


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_gains_of_any_size_are_those_of_float64(size: float, kernel: Kernel) -> None:
    teacher = side(1, dtype=torch.float32)
    start = near(teacher, 3, 0.2)
    after = near(start, 4, size)
    gain = run(teacher, start, kernel)["kl"] - run(teacher, after, kernel)["kl"]
    wanted = kls(truth(teacher), truth(start)) - kls(truth(teacher), truth(after))
    assert np.abs(gain - wanted).max() <= GAIN


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_divergence_is_negative(kernel: Kernel) -> None:
    teacher = side(1, dtype=torch.float32, positions=300)
    for size in (0.0, 1e-6, 1e-4):
        found = run(teacher, near(teacher, 5, size), kernel)
        assert min(found["kl"].min(), found["reverse_kl"].min()) > -1e-7


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("tile", "chunk", "block"), [(7, 256, 1024), (4096, 3, 9), (5003, 1, 40)])
def test_tiles_and_chunks_change_nothing(
    tile: int, chunk: int, block: int, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = side(1, spread=2.0)
    student = near(teacher, 3, 0.5)  # as far apart as a student and its teacher are
    one = run(teacher, student, kernel)
    assert 0.1 < one["kl"].mean() < 1.0
    for name, value in (("TILE", tile), ("CHUNK", chunk), ("BLOCK", block)):
        monkeypatch.setattr(pairs, name, value)
    other = run(teacher, student, kernel)
    for name in ("kl", "reverse_kl", "entropy", "teacher_entropy"):
        assert np.abs(one[name] - other[name]).max() <= UNCHANGED
    assert np.array_equal(one["top_ids"], other["top_ids"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_constant_added_to_all_logits_changes_nothing(kernel: Kernel) -> None:
    """A bias of 1,024 on weights of few bits: float32 logits have room for both."""
    grid = (normal(1, VOCABULARY, 8) * 8).round() / 8
    states = (normal(2, 20, 8) * 4).round() / 4
    plain = Side(states=states, head=Head(weight=grid))
    lifted = replace(plain, head=Head(weight=grid, bias=torch.full((VOCABULARY,), 1024.0)))
    other = Side(states=states.flip(0), head=Head(weight=grid))
    one, two = run(plain, other, kernel), run(lifted, other, kernel)
    for name in ("kl", "reverse_kl", "teacher_entropy", "teacher_top_logprob"):
        assert np.abs(one[name] - two[name]).max() <= UNCHANGED


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("wider", ["teacher", "student"])
def test_padded_vocabulary_is_renormalised_and_its_mass_told(wider: str, kernel: Kernel) -> None:
    shared = 4001
    whole, other = side(1, dtype=torch.float32), side(2, dtype=torch.float32)
    cut = replace(other, head=Head(weight=other.head.weight[:shared]))
    teacher, student = (whole, cut) if wider == "teacher" else (cut, whole)
    found = run(teacher, student, kernel, vocabulary=shared)
    wanted = kls(truth(teacher, shared), truth(student, shared))
    assert (np.abs(found["kl"] - wanted) <= KL_ABSOLUTE + KL_RELATIVE * wanted).all()
    assert found["top_ids"].max() < shared
    beyond = truth(whole)[:, shared:].exp().sum(1).numpy()
    names = ("teacher_dropped", "dropped")
    mine, others = names if wider == "teacher" else names[::-1]
    assert np.abs(found[mine] - beyond).max() <= COMPATIBILITY
    assert beyond.max() > 0.01
    assert np.array_equal(found[others], np.zeros(len(beyond)))


def test_positions_of_two_models_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="expected 40 states of the student, got 39"):
        run(side(1), side(2, positions=39))


@pytest.mark.parametrize("positions", [0, 1, 257])
def test_any_number_of_positions_is_compared(positions: int) -> None:
    teacher, student = side(1, positions=positions), side(2, positions=positions)
    if positions == 0:
        with pytest.raises(ValueError, match="expected at least one position"):
            run(teacher, student)
        return
    found = run(teacher, student)
    assert {len(column) for column in found.values()} == {positions}
