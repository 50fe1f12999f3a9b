"""Bounds of KL from a teacher's top-k list, against KL of whole distributions in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from diagnostics.scoring.bounds import ROWS, Bounds, compare_lists, kl_bounds
from diagnostics.scoring.divergence import distribution

SUMS = 1e-12  # float64 sums of at most 60 terms, in another order
FLOAT32 = 2e-6  # float32 logits and log-probabilities of a few nats
VOCABULARY = 30


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities (pos, vocab) float64, row by row with exact sums."""
    rows = []
    for row in logits.double().tolist():
        top = max(row)
        total = math.log(math.fsum(math.exp(z - top) for z in row))
        rows.append([z - top - total for z in row])
    return torch.tensor(rows, dtype=torch.float64)


def slow_kl(teacher: list[float], student: list[float]) -> float:
    """KL(p_T || p) of one position from log-probabilities (vocab,); p_T may be 0."""
    terms = ((math.exp(t), t - s) for t, s in zip(teacher, student, strict=True))
    return math.fsum(p * ratio for p, ratio in terms if p > 0)


def truths(teacher: Tensor, student: Tensor) -> Tensor:
    pairs = zip(teacher.tolist(), student.tolist(), strict=True)
    return torch.tensor([slow_kl(t, s) for t, s in pairs], dtype=torch.float64)


def random_pair(seed: int, positions: int = 40, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities (pos, vocab) of a teacher, and logits of a student that resembles it."""
    rng = torch.Generator().manual_seed(seed)
    shape = (positions, VOCABULARY)
    shared = spread * torch.randn(shape, generator=rng, dtype=torch.float64)
    t, s = (shared + torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    return log_softmax(t), s


def lists(teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and log-probabilities (pos, k) of the teacher's most probable tokens."""
    ids = teacher.argsort(dim=1, descending=True, stable=True)[:, :k]
    return ids, teacher.gather(1, ids)


def bounds(teacher: Tensor, logits: Tensor, k: int) -> Bounds:
    return kl_bounds(*lists(teacher, k), distribution(logits))


def by_hand(listed: dict[int, float], student: list[float]) -> tuple[float, float]:
    """Bounds of one position, from probabilities."""
    ids = torch.tensor([list(listed)])
    logprob = torch.tensor([[math.log(p) for p in listed.values()]], dtype=torch.float64)
    logits = torch.tensor([student], dtype=torch.float64).log()
    found = kl_bounds(ids, logprob, distribution(logits))
    return found.lower.item(), found.upper.item()


@pytest.mark.parametrize("k", [1, 2, 5, 16, 29, VOCABULARY])
@pytest.mark.parametrize("spread", [0.1, 2.0, 8.0])
def test_truth_lies_between(k: int, spread: float) -> None:
    teacher, logits = random_pair(seed=k, spread=spread)
    found, truth = bounds(teacher, logits, k), truths(teacher, log_softmax(logits))
    assert (found.lower <= truth + SUMS).all()
    assert (truth <= found.upper + SUMS).all()


@pytest.mark.parametrize("k", [1, 3, 10])
def test_every_teacher_with_the_list_lies_between(k: int) -> None:
    # Mass moved between unlisted tokens, none above the smallest listed: the bounds do not move.
    teacher, logits = random_pair(seed=5, positions=10)
    found, student = bounds(teacher, logits, k), log_softmax(logits)
    ids, logprob = lists(teacher, k)
    rng = torch.Generator().manual_seed(1)
    listed = torch.zeros_like(teacher, dtype=torch.bool).scatter(1, ids, True)
    tried = 0
    for _ in range(50):
        weight = torch.rand(teacher.shape, generator=rng, dtype=torch.float64) ** 2
        tail = weight.masked_fill(listed, 0.0)
        tail *= (1 - logprob.exp().sum(1, keepdim=True)) / tail.sum(1, keepdim=True)
        allowed = tail.amax(1) <= logprob[:, -1].exp()
        other = torch.where(listed, teacher, tail.log())
        truth = truths(other, student)
        assert (found.lower <= truth + SUMS)[allowed].all()
        assert (truth <= found.upper + SUMS)[allowed].all()
        tried += int(allowed.sum())
    assert tried > 50


def test_bounds_by_hand() -> None:
    # m = 0.3, c = 0.2: one token at 0.2, one at 0.1, on the two least probable unlisted tokens.
    lower, upper = by_hand({0: 0.5, 1: 0.2}, [0.2, 0.1, 0.4, 0.2, 0.1])
    known = 0.5 * math.log(2.5) + 0.2 * math.log(2)
    assert lower == pytest.approx(known + 0.3 * math.log(0.3 / 0.7), abs=SUMS)
    assert upper == pytest.approx(known + 0.2 * math.log(2) + 0.1 * math.log(0.5), abs=SUMS)


def test_lower_bound_is_attained_by_a_tail_like_the_students() -> None:
    student = [0.2, 0.1, 0.4, 0.2, 0.1]
    teacher = [0.5, 0.2, 0.3 * 4 / 7, 0.3 * 2 / 7, 0.3 * 1 / 7]
    lower, _ = by_hand({0: 0.5, 1: 0.2}, student)
    truth = slow_kl([math.log(p) for p in teacher], [math.log(p) for p in student])
    assert lower == pytest.approx(truth, abs=SUMS)


def test_upper_bound_is_attained_where_the_student_expects_least() -> None:
    student = [0.2, 0.1, 0.4, 0.2, 0.1]
    _, upper = by_hand({0: 0.5, 1: 0.2}, student)
    teacher = [math.log(0.5), math.log(0.2), -math.inf, math.log(0.1), math.log(0.2)]
    assert upper == pytest.approx(slow_kl(teacher, [math.log(p) for p in student]), abs=SUMS)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_upper_bound_is_the_best_of_all_extreme_points(k: int) -> None:
    # Every order of the unlisted tokens, filled to c one after the other until m is spent.
    rng = torch.Generator().manual_seed(k)
    p = torch.randn(8, 7, generator=rng, dtype=torch.float64).softmax(1)
    logits = 2 * torch.randn(8, 7, generator=rng, dtype=torch.float64)
    found, student = bounds(p.log(), logits, k), log_softmax(logits)
    for row in range(8):
        ids = p[row].argsort(descending=True)[:k].tolist()
        rest, c = [v for v in range(7) if v not in ids], p[row, ids[-1]].item()
        best = -math.inf
        for order in itertools.permutations(rest):
            left, teacher = 1 - math.fsum(p[row, ids].tolist()), {v: p[row, v].item() for v in ids}
            for v in order:
                teacher[v] = min(c, left)
                left -= teacher[v]
            logs = [math.log(teacher[v]) if teacher[v] > 1e-15 else -math.inf for v in range(7)]
            best = max(best, slow_kl(logs, student[row].tolist()))
        assert found.upper[row].item() == pytest.approx(best, abs=SUMS)


@pytest.mark.parametrize("k", [VOCABULARY - 1, VOCABULARY])
def test_list_of_the_whole_vocabulary_gives_kl_itself(k: int) -> None:
    # One unlisted token has all of the tail, so nothing is unknown either.
    teacher, logits = random_pair(seed=2)
    found, truth = bounds(teacher, logits, k), truths(teacher, log_softmax(logits))
    torch.testing.assert_close(found.lower, truth, rtol=0, atol=SUMS)
    torch.testing.assert_close(found.upper, truth, rtol=0, atol=SUMS)


def test_longer_lists_give_tighter_bounds() -> None:
    teacher, logits = random_pair(seed=3)
    widths = [bounds(teacher, logits, k) for k in range(1, VOCABULARY + 1)]
    for loose, tight in itertools.pairwise(widths):
        assert (loose.lower <= tight.lower + SUMS).all()
        assert (tight.upper <= loose.upper + SUMS).all()


def test_upper_is_at_most_the_whole_tail_on_the_least_probable_token() -> None:
    teacher, logits = random_pair(seed=4)
    ids, logprob = lists(teacher, 5)
    student = log_softmax(logits)
    known = (logprob.exp() * (logprob - student.gather(1, ids))).sum(1)
    tail = 1 - logprob.exp().sum(1)
    least = student.scatter(1, ids, torch.inf).amin(1)
    assert (bounds(teacher, logits, 5).upper < known + tail * (logprob[:, -1] - least)).all()


@pytest.mark.parametrize(("dtype", "gap"), [(torch.float64, 60.0), (torch.float32, 120.0)])
def test_a_tail_of_the_student_far_below_rounding_keeps_its_digits(
    dtype: torch.dtype, gap: float
) -> None:
    # The student's unlisted mass is 3 e^-gap of its total: lost in 1 - sum, and at 120 no float32.
    student = torch.tensor([[0.0, -gap, -gap, -gap]], dtype=dtype)
    listed = torch.tensor([[0.9]], dtype=torch.float64).log()  # m = 0.1, c = 0.9
    found = kl_bounds(torch.tensor([[0]]), listed, distribution(student))
    log_z = math.log1p(3 * math.exp(-gap))
    known = 0.9 * (math.log(0.9) + log_z)
    lower = known + 0.1 * (math.log(0.1) - math.log(3) + gap + log_z)
    assert found.lower.item() == pytest.approx(lower, abs=SUMS)
    upper = known + 0.1 * (math.log(0.1) + gap + log_z)
    assert found.upper.item() == pytest.approx(upper, abs=SUMS)


def test_a_tail_that_is_a_multiple_of_the_smallest_listed() -> None:
    # m = 0.5, c = 0.25: two tokens at 0.25 and nothing left, whatever the rounding of m / c.
    lower, upper = by_hand({0: 0.25, 1: 0.25}, [0.1, 0.2, 0.3, 0.25, 0.15])
    known = 0.25 * (math.log(2.5) + math.log(1.25))
    tail = 0.25 * (math.log(0.25 / 0.15) + math.log(0.25 / 0.25))
    assert upper == pytest.approx(known + tail, abs=SUMS)
    assert lower == pytest.approx(known + 0.5 * math.log(0.5 / 0.7), abs=SUMS)


def test_tokens_of_no_probability_in_the_list_leave_no_tail() -> None:
    lower, upper = by_hand({0: 0.75, 1: 0.25, 3: 5e-324}, [0.5, 0.25, 0.125, 0.125])
    truth = 0.75 * math.log(1.5)
    assert lower == pytest.approx(truth, abs=SUMS)
    assert upper == pytest.approx(truth, abs=SUMS)


@pytest.mark.parametrize("lost", [1e-7, 2e-7, 3e-7, 5e-7, 7e-7, 1.1e-6, 1.3e-6])
def test_mass_lost_to_rounding_of_a_peaked_list_is_spread_over_all_others(lost: float) -> None:
    # Listed 1 - lost and c = 1e-12: three tokens of at most 1e-12 cannot hold what is missing.
    lower, upper = by_hand({0: 1 - lost, 1: 1e-12}, [0.9, 0.05, 0.02, 0.02, 0.01])
    known = (1 - lost) * math.log((1 - lost) / 0.9) + 1e-12 * math.log(1e-12 / 0.05)
    each = lost / 3
    spread = each * (2 * math.log(each / 0.02) + math.log(each / 0.01))
    assert lower == pytest.approx(known + lost * math.log(lost / 0.05), abs=5e-11)
    assert upper == pytest.approx(known + spread, abs=5e-11)  # m is lost - 1e-12


def test_padded_lists_equal_lists_alone() -> None:
    teacher, logits = random_pair(seed=6, positions=6)
    ids, logprob = lists(teacher, 9)
    sizes = [9, 1, 4, 8, 2, 6]
    beyond = torch.arange(9) >= torch.tensor(sizes)[:, None]
    padded = kl_bounds(
        ids.masked_fill(beyond, -1), logprob.masked_fill(beyond, -torch.inf), distribution(logits)
    )
    for row, size in enumerate(sizes):
        alone = bounds(teacher[row : row + 1], logits[row : row + 1], size)
        assert padded.lower[row].item() == pytest.approx(alone.lower.item(), abs=SUMS)
        assert padded.upper[row].item() == pytest.approx(alone.upper.item(), abs=SUMS)


def test_positions_together_equal_positions_alone() -> None:
    teacher, logits = random_pair(seed=7, positions=2 * ROWS + 3)
    found = bounds(teacher, logits, 4)
    for row in range(len(logits)):
        alone = bounds(teacher[row : row + 1], logits[row : row + 1], 4)
        assert found.lower[row] == alone.lower[0]
        assert found.upper[row].item() == pytest.approx(alone.upper.item(), abs=SUMS)


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    teacher, logits = random_pair(seed=8)
    found, shifted = bounds(teacher, logits, 4), bounds(teacher, logits + 50, 4)
    torch.testing.assert_close(found.lower, shifted.lower, rtol=0, atol=SUMS)
    torch.testing.assert_close(found.upper, shifted.upper, rtol=0, atol=SUMS)


@pytest.mark.parametrize("k", [1, 8])
def test_float32_equals_float64(k: int) -> None:
    teacher, logits = random_pair(seed=9)
    ids, logprob = lists(teacher, k)
    found = kl_bounds(ids, logprob.float(), distribution(logits.float()))
    wide = kl_bounds(ids, logprob, distribution(logits))
    torch.testing.assert_close(found.lower, wide.lower, rtol=0, atol=FLOAT32)
    torch.testing.assert_close(found.upper, wide.upper, rtol=0, atol=FLOAT32)


def test_stored_columns_are_the_students_own_and_what_the_list_tells() -> None:
    teacher, logits = random_pair(seed=10, positions=5)
    ids, logprob = lists(teacher, 6)
    ids[0, 4:], logprob[0, 4:] = -1, -torch.inf
    columns = compare_lists(ids, logprob.float(), logits.float(), 3)
    student = log_softmax(logits)
    for row in range(5):
        mine = sorted(range(VOCABULARY), key=lambda v: (-student[row, v].item(), v))[:3]
        assert columns["top_ids"][row].tolist() == mine
        known = {int(v): p for v, p in zip(ids[row], logprob[row].tolist(), strict=True)}
        expected = {
            "top_logprob": [student[row, v].item() for v in mine],
            "teacher_logprob": [known.get(v, -math.inf) for v in mine],
            "logprob_at_teacher": [
                student[row, v].item() if v >= 0 else -math.inf for v in ids[row].tolist()
            ],
        }
        for name, values in expected.items():
            assert columns[name][row].tolist() == pytest.approx(values, abs=FLOAT32), name
        entropy = -math.fsum(math.exp(x) * x for x in student[row].tolist())
        assert columns["entropy"][row].item() == pytest.approx(entropy, abs=FLOAT32)
    found = kl_bounds(ids, logprob.float(), distribution(logits.float()))
    assert columns["kl_lower"].tolist() == found.lower.tolist()
    assert columns["kl_upper"].tolist() == found.upper.tolist()
