"""Ranking by partition: the same rows that a sort of all keys would take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.statistics.selection.ranking import first, tied_share, with_one_of_each

few = settings(max_examples=100, deadline=None, derandomize=True, database=None)
small = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40
)


def columns(rows: list[tuple[int, int, int]]) -> list[np.ndarray]:
    a, b, c = (np.array(column) for column in zip(*rows, strict=True))
    return [a.astype(np.float64), b.astype(np.float64), c.astype(np.uint64)]


@few
@given(small, st.data())
def test_first_equals_a_stable_sort_by_all_keys(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(rows)))
    order = sorted(range(len(rows)), key=lambda i: [-z for z in rows[i]])[:count]
    assert np.flatnonzero(first(columns(rows), count)).tolist() == sorted(order)


@few
@given(small, st.data())
def test_one_of_each_group_is_its_first_by_a_stable_sort(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    size = len(rows)
    groups = data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    kept = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    expected = set(np.flatnonzero(kept))
    for group in set(groups):
        members = [i for i in range(size) if groups[i] == group]
        if not any(kept[i] for i in members):
            expected.add(min(members, key=lambda i: [-z for z in rows[i]]))
    got = with_one_of_each(columns(rows), np.array(kept), np.array(groups))
    assert set(np.flatnonzero(got)) == expected


def test_kept_rows_are_not_changed_in_place() -> None:
    kept = np.array([True, False])
    with_one_of_each([np.array([1.0, 2.0])], kept, np.array([0, 1]))
    assert kept.tolist() == [True, False]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([True, True, False, False], 0.5),  # of two kept, the one that equals 2 was a choice
        ([True, True, True, False], 0.0),  # both twos are kept
        ([True, False, False, False], 0.0),
    ],
)
def test_tied_share_by_hand(kept: list[bool], expected: float) -> None:
    assert tied_share(np.array([3.0, 2.0, 2.0, 1.0]), np.array(kept)) == expected
