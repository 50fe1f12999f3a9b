"""Forward-mode alignment against one backward pass a position, and what it must be equal to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from slow_alignment import Pair, make_pair
from torch import Tensor, nn

from diagnostics.alignment.frozen import Batch
from diagnostics.alignment.steps import bank_order, numbers, token_steps, values_at
from diagnostics.alignment.student import inner
from diagnostics.errors import InputError

EXACT = 1e-10  # of the largest: two orders of the same float64 sums
SINGLE = 2e-4  # of the largest: float32 through two layers, both ways
ALL = range(7)
LENGTH = 1e-3  # of a step, in parameter space


def close(found: Tensor, truth: Tensor, tolerance: float) -> bool:
    return bool(((found - truth).abs() <= tolerance * truth.abs().max()).all())


def slow_slopes(pair: Pair) -> tuple[Tensor, Tensor]:
    """(alignment_kl, alignment) of every position: inner products of two backward passes."""
    bank = pair.truth.gradient(pair.truth.loss(pair.contexts))
    rows = [
        [torch.dot(bank, pair.truth.gradient(value)) for value in values]
        for context in pair.contexts
        for values in zip(*pair.truth.divergences(context), strict=True)
    ]
    kl, reverse = torch.tensor(rows, dtype=torch.float64).T
    return kl, reverse


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"wide": 5}], ids=str)
def test_alignment_is_the_inner_product_of_backward_passes(options: dict[str, int]) -> None:
    pair = make_pair(**options)
    for found, truth in zip(pair.slopes(pair.batch(*ALL)), slow_slopes(pair), strict=True):
        assert close(found, truth, EXACT)


def test_alignment_in_float32_is_that_in_float64() -> None:
    single, double = make_pair(dtype=torch.float32), make_pair()
    for found, truth in zip(
        single.slopes(single.batch(*ALL)), double.slopes(double.batch(*ALL)), strict=True
    ):
        assert close(found, truth, SINGLE)


def test_values_are_the_divergences_of_the_models_own_logits() -> None:
    pair = make_pair(wide=5)
    found = pair.student.values(pair.student.parameters, pair.batch(*ALL))
    with torch.no_grad():
        truth = [pair.truth.divergences(context) for context in pair.contexts]
    assert close(found.kl, torch.cat([kl for kl, _ in truth]), EXACT)
    assert close(found.reverse_kl, torch.cat([reverse for _, reverse in truth]), EXACT)


def test_tied_weights_are_one_parameter() -> None:
    tied, untied = make_pair(tied=True).student, make_pair().student
    names = {name for name in untied.parameters if name not in tied.parameters}
    assert names == {"model.lm_head.weight"}


def test_shape_and_order_of_batches_do_not_matter() -> None:
    pair = make_pair()
    whole = bank_order(slopes_of(pair, [pair.batch(*ALL)]))
    parts = [pair.batch(6, 2), pair.batch(0), pair.batch(5, 1, 3), pair.batch(4)]
    cut = bank_order(slopes_of(pair, parts))
    for name, values in whole.items():
        np.testing.assert_allclose(cut[name], values, rtol=0, atol=1e-12 * abs(values).max())


def slopes_of(pair: Pair, batches: list[Batch]) -> list[tuple[Batch, dict[str, np.ndarray]]]:
    direction = pair.student.gradient(batches, "kl")
    return [(batch, numbers(pair.student.slopes(direction, batch)[1])) for batch in batches]


def test_mean_slope_of_kl_is_the_squared_norm_of_its_gradient() -> None:
    pair = make_pair()
    kl, _ = pair.slopes(pair.batch(*ALL))
    total = pair.student.gradient([pair.batch(*ALL)], "kl")
    assert float(kl.mean()) == pytest.approx(inner(total, total) / len(kl) ** 2, rel=1e-12)


def test_a_teacher_equal_to_the_student_aligns_with_nothing() -> None:
    pair = make_pair(same=True)
    for slopes in pair.slopes(pair.batch(*ALL)):
        assert float(slopes.abs().max()) < 1e-25


def test_realised_gain_tends_to_the_slope_in_proportion_to_the_step() -> None:
    pair = make_pair()
    batch = pair.batch(*ALL)
    count = len(batch.teacher)
    direction = {n: g / count for n, g in pair.student.gradient([batch], "kl").items()}
    start, slope = (numbers(found) for found in pair.student.slopes(direction, batch))
    for name in ("kl", "reverse_kl"):
        errors = []
        for eta in (2e-3, 1e-3, 5e-4):
            after = values_at(pair.student, pair.student.stepped(eta, direction), [batch], "")
            errors.append(np.abs((start[name] - after[name]) / eta - slope[name]).mean())
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
        assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


def test_a_single_tokens_step_is_that_of_proposition_1() -> None:
    pair = make_pair(tied=True)
    frozen = [pair.batch(1, 4), pair.batch(2)]  # valid: 4 of 6, 5, 3
    chosen = [pair.contexts[row] for row in (1, 4, 2)]
    count = sum(int(c.valid.sum()) for c in chosen)
    bank = {n: g / count for n, g in pair.student.gradient(frozen, "kl").items()}
    table = token_steps(pair.student, frozen, bank, LENGTH, [2, 6, 9])
    assert list(table["context_id"][::2]) == ["context-1", "context-4", "context-2"]
    assert list(table["position"][::2]) == [3, 2, 0]  # the third valid of 0, 2, 3, 5
    start = pair.truth.loss(chosen)
    gradient = pair.truth.gradient(start)
    for index, (context, place) in enumerate([(1, 2), (4, 2), (2, 0)]):
        token = pair.truth.gradient(pair.truth.divergences(pair.contexts[context])[1][place])
        for half, share in enumerate((1, 0.5)):
            row = table.iloc[2 * index + half]
            eta = share * LENGTH / float(token.norm())
            with pair.truth.moved(-eta * token):
                after = pair.truth.loss(chosen).item()
            inner_product = float(torch.dot(gradient, token))
            assert row["step_size"] == pytest.approx(eta, rel=1e-9)
            assert row["alignment"] == pytest.approx(inner_product, rel=1e-9)
            assert row["alignment_bank"] == pytest.approx(inner_product, rel=1e-9)
            assert row["gradient_norm"] == pytest.approx(float(token.norm()), rel=1e-9)
            assert row["realised"] == pytest.approx(start.item() - after, abs=1e-13)
            assert row["remainder"] == pytest.approx(row["realised"] - eta * inner_product)
        whole, half_step = table["remainder"].iloc[2 * index : 2 * index + 2]
        assert whole / half_step == pytest.approx(4, rel=0.1)  # second order
    bound = table["smoothness"] * (table["step_size"] * table["gradient_norm"]) ** 2 / 2
    np.testing.assert_allclose(bound, table["remainder"].abs(), rtol=1e-12)


def test_a_position_alone_is_its_context_cut_off_after_it() -> None:
    pair = make_pair()
    batch = pair.batch(0, 1)
    alone = batch.alone(6)  # 4 of the first, then 0, 2, 3 and 5 of the second
    assert (alone.names, list(alone.contexts[0].response)) == (("context-1",), [12, 13, 14, 15])
    assert alone.contexts[0].valid.tolist() == [False, False, False, True]
    assert torch.equal(alone.teacher, batch.teacher[6:7])
    found = pair.student.values(pair.student.parameters, batch).kl[6]
    cut = pair.student.values(pair.student.parameters, alone).kl
    assert float(cut[0]) == pytest.approx(float(found), rel=1e-12)


def test_numbers_that_are_not_finite_name_their_context() -> None:
    pair = make_pair()
    batch = pair.batch(0, 2)
    broken = replace(batch, teacher=batch.teacher.clone())
    broken.teacher[5] = torch.nan  # the second of the second context
    said = (
        "context-2: expected finite numbers, got nan; lower --step-size, take --dtype float64, or "
        "check the student's weights"
    )
    with pytest.raises(InputError) as error:
        values_at(pair.student, pair.student.parameters, [broken], "a step of 1")
    assert str(error.value) == f"a step of 1, context {said}"
    with pytest.raises(InputError) as error:
        pair.student.gradient([broken], "kl")
    assert str(error.value) == f"gradient of student, context {said}"


def test_a_layer_without_forward_mode_is_refused() -> None:
    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(context: object, grad: Tensor) -> Tensor:
            return grad

    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Backward.apply(x)

    pair = make_pair()
    batch = pair.batch(0)
    direction = pair.student.gradient([batch], "kl")
    pair.student._body.model.model.norm = Norm()
    with pytest.raises(InputError) as error:
        pair.student.slopes(direction, batch)
    said = str(error.value)
    assert said.startswith("student: expected layers that have a forward-mode derivative, got In ")
    assert said.endswith("; this family's own kernels stand in the way: choose another student")
