"""Signals from logits, hidden states and lists against their definitions in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from doubles import slow_top
from selection_batches import numbers, offline

from diagnostics.errors import InputError
from diagnostics.models.heads import Head
from diagnostics.scoring.pairs import Side, compare
from diagnostics.selection import (
    TokenSignals,
    check_signals,
    describe,
    select_tokens,
    signals_from_logprobs,
    signals_from_states,
    signals_from_top_k,
)
from diagnostics.statistics.selection.selectors import SELECTORS, select
from diagnostics.statistics.tables.support import TopLists, support_features

ROWS, TIME, HIDDEN, VOCABULARY, K = 8, 45, 8, 64, 6
FLOAT32 = 2e-5  # nats, float32 logits of this size against float64
HASHES = torch.arange(ROWS) * 977
NAMES = ("entropy", "disagreement", "compatibility", "kl", "reverse_kl")


def mask_of(seed: int = 0) -> torch.Tensor:
    """More valid positions than one chunk of 256."""
    lengths = torch.randint(30, TIME + 1, (ROWS, 1), generator=torch.Generator().manual_seed(seed))
    return torch.arange(TIME) < lengths


def states() -> tuple[torch.Tensor, torch.Tensor, Head, Head]:
    """Hidden states and heads of student and teacher, who is the student with noise."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(ROWS, TIME, HIDDEN, generator=generator)
    teacher = student + 0.5 * torch.randn(ROWS, TIME, HIDDEN, generator=generator)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    other = weight + 0.3 * torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return student, teacher, Head(weight=weight), Head(weight=other)


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (batch, time, vocab) of student and teacher."""
    student, teacher, head, other = states()
    return student @ head.weight.T, teacher @ other.weight.T


def slow_logs(mask: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (pos, vocab) float64 of student and teacher at valid positions."""
    found = []
    for z in logits():
        rows = z.double()[mask].numpy()
        totals = [math.log(math.fsum(np.exp(row - row.max()))) + row.max() for row in rows]
        found.append(rows - np.array(totals)[:, None])
    return found[0], found[1]


def slow_lists(student: np.ndarray, teacher: np.ndarray) -> TopLists:
    """Top-K lists in float64."""
    ids = [np.array([slow_top(row.tolist(), K) for row in z]) for z in (student, teacher)]
    at = np.take_along_axis
    return TopLists(
        student_ids=ids[0],
        student_logprob=at(student, ids[0], 1),
        teacher_at_student=at(teacher, ids[0], 1),
        teacher_ids=ids[1],
        teacher_logprob=at(teacher, ids[1], 1),
        student_at_teacher=at(student, ids[1], 1),
    )


def slow_signals(mask: torch.Tensor) -> TokenSignals:
    """The signals as the analysis makes them: float64 sums, numpy's support features."""
    student, teacher = slow_logs(mask)
    features = support_features(slow_lists(student, teacher), K)
    values = {
        "entropy": [-math.fsum(math.exp(s) * s for s in row) for row in student],
        "kl": [math.fsum(np.exp(t) * (t - s)) for s, t in zip(student, teacher, strict=True)],
        "reverse_kl": [
            math.fsum(np.exp(s) * (s - t)) for s, t in zip(student, teacher, strict=True)
        ],
        "disagreement": features.disagreement,
        "compatibility": features.compatibility,
    }
    out = {}
    for name, found in values.items():
        out[name] = torch.zeros(mask.shape, dtype=torch.float64)
        out[name][mask] = torch.as_tensor(np.asarray(found))
    return TokenSignals(**out, vocabulary=VOCABULARY)


def assert_near(found: TokenSignals, truth: TokenSignals, mask: torch.Tensor) -> None:
    for name in NAMES:
        mine, theirs = getattr(found, name), getattr(truth, name)
        assert (mine.dtype, mine.shape) == (torch.float64, mask.shape)
        torch.testing.assert_close(mine[mask], theirs[mask], rtol=0, atol=FLOAT32)
    assert found.vocabulary == truth.vocabulary


def test_signals_of_logits_and_of_log_probabilities_are_their_definitions() -> None:
    mask = mask_of()
    student, teacher = logits()
    truth = slow_signals(mask)
    assert_near(signals_from_logprobs(student, teacher, mask, k=K), truth, mask)
    logs = [torch.log_softmax(z, dim=2) for z in (student, teacher)]
    assert_near(signals_from_logprobs(*logs, mask, k=K), truth, mask)


def test_signals_of_states_are_their_definitions() -> None:
    mask = mask_of()
    assert_near(signals_from_states(*states(), mask, k=K), slow_signals(mask), mask)


@pytest.mark.parametrize("selector", SELECTORS)
def test_logits_to_mask_equals_the_offline_path(selector: str) -> None:
    mask = mask_of()
    signals = signals_from_logprobs(*logits(), mask, k=K)
    known = offline(slow_signals(mask), mask, HASHES)
    for budget in (0.05, 0.2, 0.5):
        found = select_tokens(selector, budget, signals, mask, rows=HASHES)
        truth = select(selector, budget, known, 0)
        assert found.mask[mask].tolist() == truth.mask.tolist()
        assert numbers(found, mask)[2:4] == (truth.wanted, truth.short)


def test_signals_of_states_are_those_of_rescoring_bit_for_bit() -> None:
    mask = mask_of()
    student, teacher, head, other = states()
    found = signals_from_states(student, teacher, head, other, mask, k=K)
    mine = Side(states=student[mask], head=head)
    truth = compare(Side(states=teacher[mask], head=other), mine, VOCABULARY, K, "auto")
    for name in ("entropy", "kl", "reverse_kl"):
        assert getattr(found, name)[mask].tolist() == truth[name].tolist()


def test_ids_beyond_the_shared_vocabulary_are_left_out() -> None:
    mask = mask_of()
    student, teacher, head, other = states()
    wider = Head(weight=torch.cat([other.weight, 9 * torch.ones(5, HIDDEN)]))
    found = signals_from_states(student, teacher, head, wider, mask, k=K, vocabulary=VOCABULARY)
    truth = signals_from_states(student, teacher, head, other, mask, k=K)
    assert_near(found, truth, mask)


def test_what_is_not_valid_may_be_anything_and_nothing_has_a_gradient() -> None:
    mask = mask_of()
    student, teacher = logits()
    truth = signals_from_logprobs(student, teacher, mask, k=K)
    noisy = torch.where(mask[..., None], student, torch.nan).requires_grad_()
    found = signals_from_logprobs(noisy, teacher, mask, k=K)
    for name in NAMES:
        assert getattr(found, name).equal(getattr(truth, name))
        assert not getattr(found, name).requires_grad


def test_tokens_without_mass_in_both_models_change_nothing() -> None:
    mask = mask_of()
    padded = [torch.cat([z, z.new_full((ROWS, TIME, 3), -torch.inf)], dim=2) for z in logits()]
    found = signals_from_logprobs(*padded, mask, k=K)
    truth = signals_from_logprobs(*logits(), mask, k=K)
    for name in NAMES:
        torch.testing.assert_close(getattr(found, name), getattr(truth, name), rtol=0, atol=FLOAT32)


def lists(mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Lists (batch, time, k) of all positions, also of those that are not valid."""
    everything = torch.ones_like(mask)
    flat = slow_lists(*slow_logs(everything))
    return {
        name: torch.as_tensor(getattr(flat, name)).view(ROWS, TIME, K)
        for name in TopLists.__slots__
    }


def test_signals_of_lists_are_those_of_whole_distributions() -> None:
    mask = mask_of()
    truth = slow_signals(torch.ones_like(mask))
    found = signals_from_top_k(
        **lists(mask),
        entropy=truth.entropy.float(),
        kl=truth.kl,
        reverse_kl=truth.reverse_kl,
        vocabulary=VOCABULARY,
    )
    assert_near(found, truth, mask)


def test_a_teachers_own_lists_give_the_lower_bound_of_compatibility() -> None:
    mask = torch.ones_like(mask_of())
    given = lists(mask)
    del given["teacher_at_student"]
    found = signals_from_top_k(**given, compatibility="lower")
    slow_c, slow_d = [], []
    for log_s, log_t in zip(*slow_logs(mask), strict=True):
        top_s, top_t = (slow_top(log.tolist(), K) for log in (log_s, log_t))
        slow_c.append(math.fsum(math.exp(log_t[v]) for v in {*top_s} & {*top_t}))  # Eq. 17
        t = np.array([math.exp(log_t[v]) for v in top_t])  # what is unlisted counts as nothing
        of_union = math.fsum(math.exp(log_s[v]) for v in {*top_s, *top_t})
        s = np.array([math.exp(log_s[v]) for v in top_t]) / of_union
        slow_d.append(math.fsum(t / t.sum() * np.log(t / t.sum() / s)))
    assert found.compatibility.flatten().tolist() == pytest.approx(slow_c, abs=1e-12)
    assert found.disagreement.flatten().tolist() == pytest.approx(slow_d, abs=1e-12)
    exact = signals_from_top_k(**lists(mask)).compatibility
    assert (found.compatibility <= exact).all()
    assert (found.entropy, found.kl, found.reverse_kl, found.vocabulary) == (None,) * 4


def test_ends_of_short_lists_are_no_tokens() -> None:
    ids = torch.tensor([[[5, -1]]])
    logprob = torch.tensor([[[-0.1, -torch.inf]]])
    found = signals_from_top_k(ids, logprob, ids, logprob, compatibility="lower")
    assert found.compatibility.item() == pytest.approx(math.exp(-0.1), abs=1e-7)


def test_described_by_hand() -> None:
    # Medians of the five valid positions: H 3, KL 30. Kept: the second (Q3), the third (on both
    # medians: Q3) and the fifth (high H, high KL: Q1).
    signals = TokenSignals(
        entropy=torch.tensor([[1.0, 2, 3], [4, 5, 99]]).double(),
        kl=torch.tensor([[10.0, 40, 30], [20, 50, 0]]).double(),
        disagreement=torch.tensor([[10.0, 40, 30], [20, 50, 99]]).double(),
    )
    mask = torch.tensor([[True, True, True], [True, True, False]])
    kept = select_tokens("kl", 0.6, signals, mask)
    assert kept.mask.tolist() == [[False, True, True], [False, True, False]]
    found = describe(kept, signals, mask)
    unknown = {"kept_compatibility", "dropped_compatibility"}
    assert all(math.isnan(found.pop(name)) for name in unknown)
    assert found == pytest.approx(
        {
            "keep": 0.6,
            "tied_share": 0.0,
            "q1": 1 / 3,
            "q2": 0.0,
            "q3": 2 / 3,
            "q4": 0.0,
            "kept_disagreement": 40.0,
            "dropped_disagreement": 15.0,
            "kept_entropy": 10 / 3,
            "dropped_entropy": 2.5,
        }
    )


def test_described_without_entropy_has_no_quadrants() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = describe(select_tokens("full", 1.0, TokenSignals(), mask), TokenSignals(), mask)
    assert found.pop("keep") == 1.0
    assert found.pop("tied_share") == 0.0
    assert len(found) == 10
    assert all(math.isnan(value) for value in found.values())


def raises(call: object, text: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == text


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    mask = mask_of()
    student, teacher = logits()
    broken = teacher.clone()
    broken[2, 7, 3] = torch.nan
    raises(
        lambda: signals_from_logprobs(student, broken, mask, k=K),
        "row 2, position 7: expected finite scores of student and teacher, got disagreement nan; "
        "lower the learning rate, train in float32, or skip the batch",
    )
    raises(
        lambda: signals_from_logprobs(student, teacher[..., :60], mask, k=K),
        "vocabularies: expected 64 token ids of the teacher, as the student has, got 60; use "
        "models of one tokenizer, and give the ids that they share",
    )
    raises(
        lambda: signals_from_logprobs(student, teacher, mask, k=65),
        "k: expected a support size from 1 to 64, got 65; choose a smaller one",
    )
    raises(
        lambda: signals_from_logprobs(student, teacher, mask[:, 1:], k=K),
        "student: expected a tensor of 3 axes that begins as the mask does, (8, 44), got "
        "(8, 45, 64); give the same positions of both models, padding included",
    )
    narrow = Head(weight=states()[3].weight[:60])
    raises(
        lambda: signals_from_states(*states()[:3], narrow, mask, k=K),
        "vocabularies: expected 64 token ids of the teacher, as the student has, got 60; use "
        "models of one tokenizer, and give the ids that they share",
    )


def test_lists_that_do_not_suffice_are_refused_by_name() -> None:
    given = lists(mask_of())
    without = {name: z for name, z in given.items() if name != "teacher_at_student"}
    raises(
        lambda: signals_from_top_k(**without),
        "signals_from_top_k: expected `teacher_at_student`, the teacher's numbers at the student's "
        'tokens, got none; ask the teacher for them, or give compatibility="lower" for the bound '
        "of Eq. 17",
    )
    raises(
        lambda: signals_from_top_k(**given | {"teacher_ids": given["teacher_ids"][..., :4]}),
        "teacher_ids: expected the shape of `student_ids`, (batch, time, k): (8, 45, 6), got "
        "(8, 45, 4); cut both models' lists to one length, and give the same positions",
    )
    raises(
        lambda: signals_from_top_k(**given, entropy=torch.zeros(3)),
        "entropy: expected the shape of `student_ids`, (batch, time): (8, 45), got (3,); cut both "
        "models' lists to one length, and give the same positions",
    )
    at = "student_at_teacher"
    unknown = signals_from_top_k(**{name: z for name, z in given.items() if name != at})
    raises(
        lambda: select_tokens("teachability", 0.1, unknown, mask_of()),
        "selector teachability: expected the signal `disagreement`, got none; give it in "
        "TokenSignals(disagreement=…), or choose another selector",
    )


def test_a_vocabulary_too_small_for_the_entropies_is_refused() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    signals = TokenSignals(entropy=torch.tensor([[1.0, 3.0]]).double(), vocabulary=10)
    raises(
        lambda: check_signals(signals, mask),
        "signals: expected a `vocabulary` of which 3 nats of entropy can be had, got 10; give the "
        "size of the vocabulary that both models share",
    )
    check_signals(TokenSignals(entropy=signals.entropy, vocabulary=21), mask)  # log 21 > 3
