"""Overlap of kept sets, against Python's own sets."""

from __future__ import annotations

import numpy as np
import pytest

from diagnostics.errors import InputError
from diagnostics.statistics.selection.overlap import overlap

ROUNDING = 1e-15  # one division against another


def masks(seed: int, count: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"set {i}": rng.random(count) < share for i, share in enumerate((0.02, 0.3, 0.3, 1.0))}


def test_jaccard_equals_python_sets() -> None:
    kept, q3 = masks(seed=0), np.arange(300) % 3 == 0
    got = overlap(kept, q3)
    sets = [set(np.flatnonzero(mask)) for mask in kept.values()]
    inside = set(np.flatnonzero(q3))
    expected = [[len(a & b) / len(a | b) for b in sets] for a in sets]
    np.testing.assert_allclose(got.jaccard, expected, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(
        got.q3_share, [len(a & inside) / len(a) for a in sets], rtol=0, atol=ROUNDING
    )
    assert got.n_kept.tolist() == [len(a) for a in sets]
    assert got.names == tuple(kept)


def test_jaccard_is_symmetric_with_ones_on_its_diagonal() -> None:
    got = overlap(masks(seed=1)).jaccard
    np.testing.assert_array_equal(got, got.T)
    assert np.diag(got).tolist() == [1.0] * 4


def test_permuted_positions_have_the_same_overlap() -> None:
    kept, order = masks(seed=2), np.random.default_rng(3).permutation(300)
    here, there = overlap(kept), overlap({name: mask[order] for name, mask in kept.items()})
    np.testing.assert_array_equal(here.jaccard, there.jaccard)


def test_equal_and_disjoint_sets_by_hand() -> None:
    half = np.arange(10) < 5
    got = overlap({"a": half, "b": half, "c": ~half})
    assert got.jaccard.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert got.q3_share is None


def test_empty_set_is_refused_by_name() -> None:
    with pytest.raises(InputError) as caught:
        overlap({"kl": np.ones(3, dtype=bool), "q3": np.zeros(3, dtype=bool)})
    assert str(caught.value) == (
        "selector overlap, q3: expected at least one kept position, got none; "
        "leave it out or raise its budget"
    )


def test_no_sets_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        overlap({})
    assert str(caught.value) == "selector overlap: expected kept sets, got none; name selectors"


def test_frame_has_a_row_and_a_column_for_each_set() -> None:
    kept = masks(seed=4)
    got = overlap(kept, np.ones(300, dtype=bool))
    frame = got.to_frame().set_index("selector")
    assert list(frame) == ["n_kept", "q3_share", *(f"jaccard {name}" for name in kept)]
    assert frame.loc["set 1", "jaccard set 2"] == got.jaccard[1, 2]
    assert frame["q3_share"].tolist() == [1.0] * 4
    assert overlap(kept).to_frame()["q3_share"].isna().all()
