"""What `select_tokens` refuses before it looks at a number, and when it keeps nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from selection_batches import batch, rounded

from diagnostics.errors import InputError
from diagnostics.selection import TokenSignals, check_signals, select_tokens
from diagnostics.statistics.selection.selectors import SELECTORS


def text(*arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        select_tokens(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.0000001, math.nan, math.inf])
@pytest.mark.parametrize("selector", ["full", "random", "teachability"])
def test_a_budget_outside_its_range_is_refused_before_anything(
    selector: str, budget: float
) -> None:
    assert text(selector, budget, None, None) == (
        f"--budget: expected a share of positions in (0, 1], got {budget!r}; write 5 % as 0.05"
    )


def test_an_unknown_selector_is_refused() -> None:
    assert text("tep", 0.1, None, None) == (
        f"--selector: expected one of {', '.join(SELECTORS)}, got 'tep'; choose one of them"
    )


NEEDED = {
    "teachability": ("disagreement", "compatibility"),
    "teachability+entropy": ("entropy", "disagreement", "compatibility"),
    "q3+high-c": ("compatibility", "entropy", "kl"),
    "tip-original": ("entropy", "reverse_kl"),
    "q3-tip": ("kl", "entropy", "vocabulary"),
}


@pytest.mark.parametrize(("selector", "name"), [(s, n) for s, ns in NEEDED.items() for n in ns])
def test_a_signal_that_is_missing_is_named(selector: str, name: str) -> None:
    signals, mask, _ = batch()
    assert text(selector, 0.1, replace(signals, **{name: None}), mask) == (
        f"selector {selector}: expected the signal `{name}`, got none; give it in "
        f"TokenSignals({name}=…), or choose another selector"
    )


def test_a_signal_of_another_shape_is_named() -> None:
    signals, mask, _ = batch()
    assert text("kl", 0.1, signals, mask[:, 1:]) == (
        "selector kl: expected a `disagreement` of the mask's shape (6, 39), got (6, 40); give "
        "signals and mask of the same batch"
    )


def test_a_vocabulary_of_one_token_is_refused() -> None:
    signals, mask, _ = batch()
    assert text("q3-tip", 0.1, replace(signals, vocabulary=1), mask) == (
        "selector q3-tip: expected the signal `vocabulary`, got 1; give it in "
        "TokenSignals(vocabulary=…), or choose another selector"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("one_per_row", [False, True])
def test_a_number_that_is_none_keeps_nothing_where_it_is_needed(
    value: float, one_per_row: bool
) -> None:
    signals, mask, _ = batch(rounded)
    row, time = mask.nonzero()[5].tolist()
    signals.compatibility[row, time] = value
    for selector in SELECTORS:
        found = select_tokens(selector, 0.3, signals, mask, one_per_row=one_per_row)
        needs = "teachability" in selector or selector == "incompatible"
        needs |= selector in ("compatibility", "q3+high-c", "q3+low-c")
        needs |= selector in ("q3+high-dl", "q3+low-dl", "q3+high-di")
        assert found.empty == needs, selector
    with pytest.raises(InputError) as caught:
        check_signals(signals, mask)
    assert str(caught.value) == (
        f"row {row}, position {time}: expected finite scores of student and teacher, got "
        f"compatibility {value}; lower the learning rate, train in float32, or skip the batch"
    )


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (2, 0), (0, 3)])
def test_a_batch_without_valid_positions_keeps_nothing(
    selector: str, shape: tuple[int, int]
) -> None:
    zeros = torch.zeros(shape, dtype=torch.float64)
    names = ("entropy", "disagreement", "compatibility", "kl", "reverse_kl")
    signals = TokenSignals(**dict.fromkeys(names, zeros), vocabulary=9)
    mask = torch.zeros(shape, dtype=torch.bool)
    found = select_tokens(selector, 0.5, signals, mask, one_per_row=True)
    assert found.empty
    assert found.mask.shape == shape
    assert (found.wanted.item(), found.added.item(), found.tied_share.item()) == (0, 0, 0.0)


def test_an_empty_q3_keeps_nothing_and_says_that_it_is_short() -> None:
    # Whoever is confident agrees: low H has low KL. Medians 2.5 and 25; none is low and high.
    signals = TokenSignals(
        entropy=torch.tensor([[1.0, 2, 3, 4]]).double(),
        kl=torch.tensor([[10.0, 20, 30, 40]]).double(),
        disagreement=torch.ones(1, 4, dtype=torch.float64),
    )
    mask = torch.ones(1, 4, dtype=torch.bool)
    found = select_tokens("q3", 0.5, signals, mask, one_per_row=True)
    assert found.empty
    assert (found.wanted.item(), found.short.item(), found.added.item()) == (2, True, 0)
