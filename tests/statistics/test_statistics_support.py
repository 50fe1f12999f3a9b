"""Support features (Eq. 8-10, 17; Table 6) against sets over whole distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diagnostics.errors import InputError
from diagnostics.statistics.tables.support import TopLists, compatibility_upper, support_features

SUMS = 1e-12  # sums of at most 40 float64 terms, in another order
VOCABULARY = 40
FEATURES = (
    "disagreement",
    "compatibility",
    "compatibility_lower",
    "overlap",
    "jaccard",
    "shared_teacher_mass",
    "bc_union",
)

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (pos, vocab) in float64, row by row."""
    rows = []
    for row in logits:
        top = max(row)
        total = math.log(math.fsum(math.exp(z - top) for z in row))
        rows.append([z - top - total for z in row])
    return np.array(rows)


def ranked(logprob: np.ndarray) -> list[int]:
    """Token ids, most probable first, equal ones by lower id."""
    return sorted(range(len(logprob)), key=lambda v: (-logprob[v], v))


def top_lists(teacher: np.ndarray, student: np.ndarray, stored: int) -> TopLists:
    """What a run stores of whole log-probabilities (pos, vocab)."""
    t_ids = np.array([ranked(row)[:stored] for row in teacher], dtype=np.int32)
    s_ids = np.array([ranked(row)[:stored] for row in student], dtype=np.int32)
    return TopLists(
        student_ids=s_ids,
        student_logprob=np.take_along_axis(student, s_ids, 1),
        teacher_at_student=np.take_along_axis(teacher, s_ids, 1),
        teacher_ids=t_ids,
        teacher_logprob=np.take_along_axis(teacher, t_ids, 1),
        student_at_teacher=np.take_along_axis(student, t_ids, 1),
    )


def slow_features(teacher: np.ndarray, student: np.ndarray, k: int) -> dict[str, float]:
    """The features of one position from whole log-probabilities (vocab,), with sets."""
    t, s = np.exp(teacher), np.exp(student)
    of_student, of_teacher = set(ranked(student)[:k]), set(ranked(teacher)[:k])
    union, shared = of_student | of_teacher, of_student & of_teacher
    mass_t, mass_s = math.fsum(t[v] for v in union), math.fsum(s[v] for v in union)
    divergence = math.fsum(
        t[v] / mass_t * math.log((t[v] / mass_t) / (s[v] / mass_s)) for v in union
    )
    shared_mass = math.fsum(t[v] for v in shared)
    return {
        "disagreement": divergence,
        "compatibility": math.fsum(t[v] for v in of_student),
        "compatibility_lower": shared_mass,
        "overlap": len(shared) / k,
        "jaccard": len(shared) / len(union),
        "shared_teacher_mass": shared_mass,
        "bc_union": math.fsum(math.sqrt(t[v] / mass_t * s[v] / mass_s) for v in union),
    }


def random_pair(seed: int, positions: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Whole log-probabilities (pos, vocab) of a teacher and a student that resembles it."""
    rng = np.random.default_rng(seed)
    shared = 2 * rng.normal(size=(positions, VOCABULARY))
    teacher = log_softmax(shared + rng.normal(size=shared.shape))
    return teacher, log_softmax(shared + rng.normal(size=shared.shape))


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize(
    ("k", "stored"), [(1, 1), (1, 16), (4, 4), (4, 16), (7, 40), (VOCABULARY, VOCABULARY)]
)
def test_equals_sets_over_whole_distributions(feature: str, k: int, stored: int) -> None:
    teacher, student = random_pair(seed=k)
    got = getattr(support_features(top_lists(teacher, student, stored), k), feature)
    expected = [slow_features(t, s, k)[feature] for t, s in zip(teacher, student, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=SUMS)


@few
@given(
    arrays(np.float64, (3, 9), elements=st.integers(-4, 4).map(float)),
    arrays(np.float64, (3, 9), elements=st.integers(-4, 4).map(float)),
    st.integers(1, 9),
)
def test_equals_sets_where_probabilities_tie(t: np.ndarray, s: np.ndarray, k: int) -> None:
    teacher, student = log_softmax(t), log_softmax(s)
    got = support_features(top_lists(teacher, student, 9), k)
    for row in range(3):
        for feature, value in slow_features(teacher[row], student[row], k).items():
            assert getattr(got, feature)[row] == pytest.approx(value, abs=SUMS), feature


def test_two_tokens_by_hand() -> None:
    # Teacher (0.7, 0.2, 0.1), student (0.1, 0.6, 0.3), K = 1: S^S = {1}, S^T = {0}, U = {0, 1}.
    # On U the teacher is (7/9, 2/9), the student (1/7, 6/7).
    teacher, student = np.log([[0.7, 0.2, 0.1]]), np.log([[0.1, 0.6, 0.3]])
    got = support_features(top_lists(teacher, student, 3), 1)
    d = 7 / 9 * math.log(49 / 9) + 2 / 9 * math.log(7 / 27)
    assert got.disagreement[0] == pytest.approx(d, abs=SUMS)
    assert got.compatibility[0] == pytest.approx(0.2, abs=SUMS)
    assert got.compatibility_lower[0] == 0
    assert got.overlap[0] == 0
    assert got.jaccard[0] == 0
    assert got.shared_teacher_mass[0] == 0
    assert got.bc_union[0] == pytest.approx(math.sqrt(1 / 9) + math.sqrt(12 / 63), abs=SUMS)


def test_disagreement_is_teacher_against_student_not_the_reverse() -> None:
    # K = 2 is the whole vocabulary: KL((0.9, 0.1) || (0.5, 0.5)) = 0.368, the reverse is 0.511.
    teacher, student = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    got = support_features(top_lists(teacher, student, 2), 2).disagreement[0]
    assert got == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), abs=SUMS)


@pytest.mark.parametrize("k", [1, 4, VOCABULARY])
def test_equal_models_agree_wholly(k: int) -> None:
    teacher, _ = random_pair(seed=3)
    got = support_features(top_lists(teacher, teacher, VOCABULARY), k)
    np.testing.assert_allclose(got.disagreement, 0, atol=SUMS)
    np.testing.assert_allclose(got.bc_union, 1, atol=SUMS)
    np.testing.assert_array_equal(got.overlap, 1)
    np.testing.assert_array_equal(got.jaccard, 1)
    np.testing.assert_array_equal(got.compatibility, got.compatibility_lower)


def test_whole_vocabulary_gives_the_whole_divergence_and_all_mass() -> None:
    teacher, student = random_pair(seed=8)
    got = support_features(top_lists(teacher, student, VOCABULARY), VOCABULARY)
    whole = (np.exp(teacher) * (teacher - student)).sum(axis=1)
    np.testing.assert_allclose(got.disagreement, whole, rtol=0, atol=SUMS)
    np.testing.assert_allclose(got.compatibility, 1, atol=SUMS)
    np.testing.assert_array_equal(got.jaccard, 1)


@few
@given(st.integers(0, 10_000), st.integers(1, VOCABULARY))
def test_bounds_and_the_lower_bound_of_compatibility(seed: int, k: int) -> None:
    teacher, student = random_pair(seed, positions=4)
    got = support_features(top_lists(teacher, student, k), k)
    assert (got.compatibility_lower <= got.compatibility).all()
    assert (got.disagreement >= -SUMS).all()
    for name in FEATURES[1:]:
        assert (getattr(got, name) >= 0).all(), name
        assert (getattr(got, name) <= 1 + SUMS).all(), name


@few
@given(st.integers(0, 10_000), st.integers(1, VOCABULARY - 1))
def test_compatibility_grows_with_the_support(seed: int, k: int) -> None:
    teacher, student = random_pair(seed, positions=4)
    lists = top_lists(teacher, student, VOCABULARY)
    smaller, larger = support_features(lists, k), support_features(lists, k + 1)
    assert (larger.compatibility > smaller.compatibility).all()


@pytest.mark.parametrize("k", [1, 3, 16])
def test_jaccard_is_overlap_over_two_less_overlap(k: int) -> None:
    teacher, student = random_pair(seed=1, positions=50)
    got = support_features(top_lists(teacher, student, 16), k)
    np.testing.assert_allclose(got.jaccard, got.overlap / (2 - got.overlap), rtol=1e-14, atol=0)


def test_positions_beyond_one_block_equal_positions_alone() -> None:
    teacher, student = random_pair(seed=6, positions=40)
    one = top_lists(teacher, student, 3)
    many = TopLists(**{n: np.tile(getattr(one, n), (110, 1)) for n in TopLists.__slots__})
    got, expected = support_features(many, 3), support_features(one, 3)  # 4400 positions
    for name in FEATURES:
        np.testing.assert_array_equal(getattr(got, name), np.tile(getattr(expected, name), 110))


@pytest.mark.parametrize("k", [-1, 0, 5, 40])
def test_support_beyond_the_lists_is_refused(k: int) -> None:
    teacher, student = random_pair(seed=2)
    with pytest.raises(InputError) as caught:
        support_features(top_lists(teacher, student, 4), k)
    assert str(caught.value) == (
        f"--top-k: expected a support size from 1 to 4, the run's --top-k, got {k}; "
        "choose a smaller one, or rescore with a larger --top-k"
    )


def listed(teacher: np.ndarray, student: np.ndarray, stored: int, width: int) -> TopLists:
    """What is stored beside a teacher that lists `width` tokens and nothing else."""
    whole, own = top_lists(teacher, student, width), top_lists(teacher, student, stored)
    known = (own.student_ids[:, :, None] == whole.teacher_ids[:, None, :]).any(axis=2)
    return TopLists(
        student_ids=own.student_ids,
        student_logprob=own.student_logprob,
        teacher_at_student=np.where(known, own.teacher_at_student, -np.inf),
        teacher_ids=whole.teacher_ids,
        teacher_logprob=whole.teacher_logprob,
        student_at_teacher=whole.student_at_teacher,
    )


def slow_listed(teacher: np.ndarray, student: np.ndarray, k: int, width: int) -> dict[str, float]:
    """The features of one position, tokens outside the teacher's list counting as 0."""
    known = set(ranked(teacher)[:width])
    t = {v: math.exp(teacher[v]) if v in known else 0.0 for v in range(len(teacher))}
    s = np.exp(student)
    of_student, of_teacher = set(ranked(student)[:k]), set(ranked(teacher)[:k])
    union, shared = of_student | of_teacher, of_student & of_teacher
    mass_t, mass_s = math.fsum(t[v] for v in union), math.fsum(s[v] for v in union)
    ratios = {v: (t[v] / mass_t, s[v] / mass_s) for v in union}
    shared_mass = math.fsum(t[v] for v in shared)
    return {
        "disagreement": math.fsum(p * math.log(p / q) for p, q in ratios.values() if p > 0),
        "compatibility_lower": shared_mass,
        "overlap": len(shared) / k,
        "jaccard": len(shared) / len(union),
        "shared_teacher_mass": shared_mass,
        "bc_union": math.fsum(math.sqrt(p * q) for p, q in ratios.values()),
    }


@pytest.mark.parametrize(("k", "stored", "width"), [(1, 1, 1), (4, 4, 4), (4, 16, 16), (4, 8, 20)])
def test_a_listed_teacher_equals_sets_with_unlisted_tokens_at_nought(
    k: int, stored: int, width: int
) -> None:
    teacher, student = random_pair(seed=width)
    got = support_features(listed(teacher, student, stored, width), k)
    for row, (t, s) in enumerate(zip(teacher, student, strict=True)):
        for feature, value in slow_listed(t, s, k, width).items():
            assert getattr(got, feature)[row] == pytest.approx(value, abs=SUMS), feature


@pytest.mark.parametrize("k", [1, 5, 16])
def test_a_teacher_that_lists_everything_equals_one_that_is_known(k: int) -> None:
    teacher, student = random_pair(seed=4)
    lists = listed(teacher, student, 16, VOCABULARY)
    known = support_features(top_lists(teacher, student, 16), k)
    got = support_features(lists, k)
    for feature in FEATURES:
        expected = getattr(known, feature)
        np.testing.assert_allclose(getattr(got, feature), expected, rtol=0, atol=SUMS)
    upper = compatibility_upper(lists, np.zeros(len(teacher)), k)
    np.testing.assert_allclose(upper, known.compatibility, rtol=0, atol=SUMS)


@few
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 12))
def test_compatibility_lies_between_its_bounds(seed: int, k: int, longer: int) -> None:
    teacher, student = random_pair(seed, positions=6)
    lists = listed(teacher, student, k, k + longer)
    tail = 1 - np.exp(lists.teacher_logprob).sum(axis=1)
    truth = [slow_features(t, s, k)["compatibility"] for t, s in zip(teacher, student, strict=True)]
    assert (support_features(lists, k).compatibility_lower <= np.array(truth) + SUMS).all()
    assert (np.array(truth) <= compatibility_upper(lists, tail, k) + SUMS).all()


def test_upper_bound_of_compatibility_by_hand() -> None:
    # The teacher lists 0.4, 0.2, 0.1 on tokens 0, 1, 2 and leaves 0.3. The student's best are 1, 5,
    # 2, 6: K = 1 knows 0.2; K = 2 adds an unlisted token, at most 0.1; K = 4 knows 0.3, adds 0.2.
    lists = TopLists(
        student_ids=np.array([[1, 5, 2, 6]], dtype=np.int32),
        student_logprob=np.log([[0.4, 0.3, 0.1, 0.1]]),
        teacher_at_student=np.array([[math.log(0.2), -np.inf, math.log(0.1), -np.inf]]),
        teacher_ids=np.array([[0, 1, 2, -1]], dtype=np.int32),
        teacher_logprob=np.array([[*np.log([0.4, 0.2, 0.1]), -np.inf]]),
        student_at_teacher=np.array([[*np.log([0.05, 0.4, 0.1]), -np.inf]]),
    )
    for k, expected in ((1, 0.2), (2, 0.3), (3, 0.4), (4, 0.5)):
        assert compatibility_upper(lists, np.array([0.3]), k)[0] == pytest.approx(expected)
    # All unlisted tokens together have no more than the tail.
    assert compatibility_upper(lists, np.array([0.15]), 4)[0] == pytest.approx(0.45)


def test_support_beyond_the_teachers_lists_is_refused() -> None:
    teacher, student = random_pair(seed=2)
    with pytest.raises(InputError) as caught:
        support_features(listed(teacher, student, 8, 3), 4)
    assert str(caught.value) == (
        "--top-k: expected a support size from 1 to 3, the run's --top-k, got 4; "
        "choose a smaller one, or rescore with a larger --top-k"
    )
