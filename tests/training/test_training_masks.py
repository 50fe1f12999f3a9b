"""The mask of a rollout batch: exact budgets, and the same selection that the analysis makes."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from doubles import slow_top

from diagnostics.errors import InputError
from diagnostics.models.heads import Head
from diagnostics.statistics.selection.selectors import SELECTORS
from diagnostics.training.masks import BatchStates, batch_mask, batch_signals

POSITIONS, VOCABULARY, HIDDEN, K = 300, 64, 8, 6  # more positions than one chunk of 256
IN_Q3 = tuple(name for name in SELECTORS if name.startswith("q3") and name != "q3-tip")
EXACT = tuple(name for name in SELECTORS if name not in (*IN_Q3, "full", "tip-original"))
FLOAT32 = 2e-5  # nats, float32 logits of this size against float64


def states(seed: int = 0, positions: int = POSITIONS, rollout: int = 30) -> BatchStates:
    """States of rollouts of `rollout` tokens; the teacher is the student with noise."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    student, head = draw(positions, HIDDEN), draw(VOCABULARY, HIDDEN)
    return BatchStates(
        student=student,
        teacher=student + 0.5 * draw(positions, HIDDEN),
        student_head=Head(weight=head),
        teacher_head=Head(weight=head + 0.3 * draw(VOCABULARY, HIDDEN)),
        context=[f"0:{i // rollout}" for i in range(positions)],
        position=[i % rollout for i in range(positions)],
    )


def log_probabilities(batch: BatchStates) -> tuple[np.ndarray, np.ndarray]:
    """(student, teacher), (pos, vocab) float64, nats."""
    student, teacher = (
        torch.log_softmax(hidden.double() @ head.double().T, dim=1).numpy()
        for hidden, head in (
            (batch.student, batch.student_head.weight),
            (batch.teacher, batch.teacher_head.weight),
        )
    )
    return student, teacher


def offline_teachability(batch: BatchStates, budget: float) -> set[int]:
    """DEFINITIONS, sections 2 and 6, written out in float64 from the whole distributions."""
    logs = log_probabilities(batch)
    disagreement, compatibility = [], []
    for log_s, log_t in zip(*logs, strict=True):
        top_s, top_t = (slow_top(log.tolist(), K) for log in (log_s, log_t))
        union = sorted({*top_s, *top_t})
        p_t, p_s = (np.exp(log[union]) / np.exp(log[union]).sum() for log in (log_t, log_s))
        disagreement.append(sum(t * math.log(t / s) for t, s in zip(p_t, p_s, strict=True)))
        compatibility.append(sum(math.exp(log_t[v]) for v in top_s))
    scaled = []
    for values in (disagreement, compatibility):
        low, high = np.quantile(values, 0.05), np.quantile(values, 0.95)
        scaled.append((np.asarray(values) - low) / (high - low + 1e-12))
    d, c = scaled
    score = np.clip(d, 0, 1) * np.clip(c, 0, 1)
    unclipped = np.maximum(d, 0) * np.maximum(c, 0)
    order = sorted(range(len(score)), key=lambda i: (-score[i], -unclipped[i]))
    kept = math.ceil(Fraction(str(budget)) * len(score))
    last, next_ = order[kept - 1], order[kept]
    # the cut falls between scores that float32 arithmetic cannot confuse
    assert (score[last] - score[next_] or unclipped[last] - unclipped[next_]) > 1e-4
    return set(order[:kept])


@pytest.mark.parametrize("selector", EXACT)
@pytest.mark.parametrize("budget", [0.03, 0.05, 0.1, 0.333, 0.5, 1.0])
@pytest.mark.parametrize("positions", [POSITIONS, 257, 20, 1])
def test_mask_keeps_exactly_the_budget(selector: str, budget: float, positions: int) -> None:
    found = batch_mask(states(positions=positions), selector, budget, K, seed=0)
    assert found.mask.shape == (positions,)
    assert found.mask.sum() == math.ceil(Fraction(str(budget)) * positions)


@pytest.mark.parametrize("selector", IN_Q3)
@pytest.mark.parametrize("budget", [0.03, 0.1, 0.9])
def test_q3_mask_lies_in_q3_and_is_all_of_it_where_it_is_short(
    selector: str, budget: float
) -> None:
    q3 = batch_signals(states(), K).q3
    found = batch_mask(states(), selector, budget, K, seed=0)
    wanted = math.ceil(Fraction(str(budget)) * POSITIONS)
    assert q3[found.mask].all()
    assert found.mask.sum() == min(wanted, q3.sum())
    assert (found.wanted, found.short) == (wanted, q3.sum() < wanted)


@pytest.mark.parametrize(("budget", "kept"), [(0.333, 99), (0.05, 15), (0.01, 3)])
def test_tip_original_mask_rounds_down(budget: float, kept: int) -> None:
    assert batch_mask(states(), "tip-original", budget, K, seed=0).mask.sum() == kept


def test_signals_of_a_batch_are_their_definitions() -> None:
    batch = states()
    got = batch_signals(batch, K)
    entropies, kls, reverses = [], [], []
    for s, t in zip(*log_probabilities(batch), strict=True):
        entropies.append(-math.fsum(math.exp(a) * a for a in s))
        kls.append(math.fsum(math.exp(b) * (b - a) for a, b in zip(s, t, strict=True)))
        reverses.append(math.fsum(math.exp(a) * (a - b) for a, b in zip(s, t, strict=True)))
    np.testing.assert_allclose(got.entropy, entropies, rtol=0, atol=FLOAT32)
    np.testing.assert_allclose(got.kl_0, kls, rtol=0, atol=FLOAT32)
    np.testing.assert_allclose(got.reverse_kl_0, reverses, rtol=0, atol=FLOAT32)
    middle = float(np.median(entropies)), float(np.median(kls))
    expected = [h <= middle[0] and k >= middle[1] for h, k in zip(entropies, kls, strict=True)]
    assert got.q3.tolist() == expected
    assert got.vocabulary == VOCABULARY


@pytest.mark.parametrize("selector", ["kl", "q3", "random", "tip-original"])
def test_one_per_rollout_adds_to_the_mask_what_each_rollout_lacks(selector: str) -> None:
    batch = states()
    plain = batch_mask(batch, selector, 0.01, K, seed=0)
    found = batch_mask(batch, selector, 0.01, K, seed=0, one_per_rollout=True)
    rollouts = np.asarray(batch.context)
    assert not (plain.mask & ~found.mask).any()
    assert set(rollouts[found.mask]) == set(rollouts)
    assert found.added == 10 - len(set(rollouts[plain.mask]))


@pytest.mark.parametrize("selector", ["random", "full"])
def test_masks_that_need_no_models_look_at_no_logits(selector: str) -> None:
    batch = replace(states(), student=torch.empty(0), teacher=torch.empty(0))
    kept = batch_mask(batch, selector, 0.1, K, seed=0).mask
    assert np.array_equal(kept, batch_mask(states(), selector, 0.1, K, seed=0).mask)


@pytest.mark.parametrize("budget", [0.05, 1.0])
def test_full_keeps_every_position(budget: float) -> None:
    assert batch_mask(states(), "full", budget, K, seed=0).mask.all()


@pytest.mark.parametrize("budget", [0.03, 0.1, 0.5])
@pytest.mark.parametrize("seed", [0, 2])
def test_teachability_mask_is_the_offline_selection(budget: float, seed: int) -> None:
    batch = states(seed)
    found = batch_mask(batch, "teachability", budget, K, seed=0).mask
    assert set(np.flatnonzero(found).tolist()) == offline_teachability(batch, budget)


@pytest.mark.parametrize("selector", SELECTORS)
def test_mask_does_not_depend_on_the_order_of_rows(selector: str) -> None:
    batch = states()
    order = np.random.default_rng(0).permutation(POSITIONS)
    shuffled = BatchStates(
        student=batch.student[order],
        teacher=batch.teacher[order],
        student_head=batch.student_head,
        teacher_head=batch.teacher_head,
        context=[batch.context[i] for i in order],
        position=[batch.position[i] for i in order],
    )
    straight = batch_mask(batch, selector, 0.1, K, seed=0).mask
    assert np.array_equal(batch_mask(shuffled, selector, 0.1, K, seed=0).mask, straight[order])


def test_random_mask_follows_seed_and_place_not_the_models() -> None:
    one, other = states(0), states(1)
    first = batch_mask(one, "random", 0.1, K, seed=0).mask
    assert np.array_equal(first, batch_mask(other, "random", 0.1, K, seed=0).mask)
    assert not np.array_equal(first, batch_mask(one, "random", 0.1, K, seed=1).mask)


def test_entropy_mask_keeps_the_most_uncertain_positions() -> None:
    batch = states()
    log_s = torch.log_softmax(batch.student.double() @ batch.student_head.weight.double().T, dim=1)
    entropy = -(log_s.exp() * log_s).sum(dim=1).numpy()
    found = batch_mask(batch, "entropy", 0.1, K, seed=0).mask
    assert set(np.flatnonzero(found)) == set(np.argsort(-entropy)[:30])


def test_mask_carries_no_gradient() -> None:
    batch = states(positions=10)
    batch.student.requires_grad_(True)
    batch_mask(batch, "teachability", 0.5, K, seed=0)
    assert batch.student.grad is None


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.01, float("nan")])
def test_budget_out_of_range_is_refused(budget: float) -> None:
    with pytest.raises(InputError, match=r"--budget: expected a share of positions in \(0, 1\]"):
        batch_mask(states(positions=10), "kl", budget, K, seed=0)


@pytest.mark.parametrize("selector", ["teachability", "q3", "tip-original"])
def test_scores_that_are_not_finite_are_refused_with_their_rollout(selector: str) -> None:
    batch = states()
    batch.teacher[270, 0] = torch.nan
    with pytest.raises(InputError) as caught:
        batch_mask(batch, selector, 0.1, K, seed=0)
    assert str(caught.value) == (
        "rollout 0:9, position 0: expected finite scores of student and teacher, got KL nan; "
        "lower --learning-rate, or train in float32"
    )
