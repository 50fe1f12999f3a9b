"""Quantiles of streams against np.quantile, to the last bit, and against sorting."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.streaming.quantiles import stream_quantiles
from diagnostics.statistics.streaming.ranks import COLLECTED, RankSearch, ordered, unordered
from diagnostics.statistics.streaming.sketch import Sketch

PROBABILITIES = (0.0, 0.01, 0.05, 1 / 3, 0.5, 2 / 3, 0.95, 1.0)
TINY = 5e-324  # the least denormal


def chunks(values: np.ndarray, size: int) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    return lambda: ({"x": values[i : i + size]} for i in range(0, max(len(values), 1), size))


def streams() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "normal": rng.normal(size=3000),
        "one": np.array([7.5]),
        "two": np.array([-1.0, 3.0]),
        "all equal": np.full(2000, 0.1),
        "nearly all equal": np.r_[np.full(2000, 1.0), np.nextafter(1.0, 2), np.nextafter(1.0, 0)],
        "half tied": np.r_[np.ones(1000), rng.random(1000)],
        "few values": rng.integers(0, 17, 3000) / 16,
        "denormal and negative": np.repeat([TINY, -TINY, 2 * TINY, 0.0, -1e-310, 1e-310], 70),
        "signed zeros": np.repeat([0.0, -0.0, 1.0], 200),
        "every magnitude": np.exp(rng.uniform(-700, 700, 3000)) * rng.choice([-1, 1], 3000),
        "sorted": np.arange(2000.0),
    }


@pytest.mark.parametrize("name", streams())
@pytest.mark.parametrize("limit", [0, 5, COLLECTED])
def test_quantiles_are_numpys_bit_for_bit(name: str, limit: int) -> None:
    """Whatever may be collected: nothing, so that every bit is counted; little; all."""
    values = streams()[name]
    got = stream_quantiles(chunks(values, 501), {"x": PROBABILITIES}, limit)["x"]
    assert np.array_equal(got, np.quantile(values, PROBABILITIES))


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=60),
    probability=st.floats(0, 1),
    size=st.integers(1, 70),
    limit=st.sampled_from([0, 3, COLLECTED]),
)
def test_any_floats_in_any_chunks(
    values: list[float], probability: float, size: int, limit: int
) -> None:
    array = np.array(values)
    got = stream_quantiles(chunks(array, size), {"x": [probability]}, limit)["x"]
    assert got[0] == np.quantile(array, probability)


def test_permuted_stream_has_the_same_quantiles() -> None:
    values = streams()["every magnitude"]
    other = np.random.default_rng(1).permutation(values)
    here, there = (
        stream_quantiles(chunks(v, 100), {"x": PROBABILITIES})["x"] for v in (values, other)
    )
    assert np.array_equal(here, there)


def test_ordered_words_sort_as_floats_do_and_come_back() -> None:
    values = streams()["every magnitude"]
    assert np.array_equal(np.argsort(ordered(values)), np.argsort(values))
    assert np.array_equal(unordered(ordered(values)), values)
    assert ordered(np.array([-0.0])) == ordered(np.array([0.0]))


@pytest.mark.parametrize("limit", [0, 40, COLLECTED])
@pytest.mark.parametrize("parts", [1, 3])
def test_ranks_of_three_words_are_those_of_sorting(limit: int, parts: int) -> None:
    """Scores tied in sixteenths, tie-breaks in quarters, identities; read in parts that merge."""
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 17, 4000) / 16, rng.integers(0, 5, 4000) / 4
    third = rng.permutation(4000).astype(np.uint64)
    order = np.lexsort((third, second, first))
    ranks = [0, 1, 1999, 2000, 3998, 3999]
    search = RankSearch(words=3, limit=limit)

    def read() -> None:
        for rows in np.array_split(np.arange(4000), parts):
            part = search.fresh()

            def rest(chosen: np.ndarray, rows: np.ndarray = rows) -> tuple[np.ndarray, np.ndarray]:
                return ordered(second[rows][chosen]), third[rows][chosen]

            part.add(first[rows], rest)
            search.merge(part)

    read()
    search.seek(ranks)
    while not search.done:
        read()
        search.advance()
    for rank in ranks:
        row = order[rank]
        assert search.value(rank) == first[row]
        assert search.found[rank][1:] == (int(ordered(second[row : row + 1])[0]), int(third[row]))


def test_one_pass_more_suffices_without_massive_ties() -> None:
    search = RankSearch()
    values = streams()["normal"]
    search.add(values)
    search.seek([1000])
    search.add(values)
    assert search.advance()
    assert search.value(1000) == np.sort(values)[1000]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = np.arange(20.0)
    values[13] = bad
    with pytest.raises(InputError) as caught:
        stream_quantiles(chunks(values, 6), {"x": [0.5]})
    assert str(caught.value) == (
        f"quantiles of x: expected finite values, got {bad} in row 13; "
        "score that context again, or drop it"
    )


def test_empty_stream_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        stream_quantiles(chunks(np.empty(0), 6), {"x": [0.5]})
    assert str(caught.value) == (
        "quantiles of x: expected at least one value, got no value at all; "
        "score that context again, or drop it"
    )


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("name", ["normal", "few values", "all equal", "sorted", "one"])
@pytest.mark.parametrize("error", [0.01, 0.1])
def test_sketch_keeps_its_bound(name: str, error: float, parts: int) -> None:
    """Also when parts of the stream were seen by sketches of their own, and merged."""
    values = np.tile(streams()[name], 20)
    sketch = Sketch(error)
    for rows in np.array_split(values, parts):
        part = sketch.fresh()
        for chunk in np.array_split(rows, 7):
            part.add(chunk)
        sketch.merge(part)
    got = sketch.quantiles(PROBABILITIES)
    assert sketch.rank_error <= error
    for q, value in zip(PROBABILITIES, got, strict=True):
        asked = round(q * (len(values) - 1))
        first, last = (values < value).sum(), (values <= value).sum() - 1
        off = max(first - asked, asked - last, 0)
        assert off <= sketch.rank_error * len(values)


def test_sketch_of_few_values_is_exact() -> None:
    values = streams()["normal"][:1001]
    sketch = Sketch(0.01)
    sketch.add(values)
    assert sketch.rank_error == 0
    assert np.array_equal(sketch.quantiles([0.0, 0.25, 1.0]), np.sort(values)[[0, 250, 1000]])


def test_sketch_refuses_an_error_out_of_range_and_nan() -> None:
    with pytest.raises(InputError) as caught:
        Sketch(0.7)
    assert str(caught.value) == (
        "quantile sketch: expected an error above 0 and under 0.5, as a share of all ranks, got "
        "0.7; choose 0.001, or leave it out for exact quantiles"
    )
    with pytest.raises(InputError) as caught:
        Sketch(0.1).add(np.array([0.0, np.nan]))
    assert str(caught.value) == (
        "quantile sketch, value 1: expected finite values, got nan; "
        "score that context again, or drop it"
    )
