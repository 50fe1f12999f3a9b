"""A teacher's lists: what is refused, and a file of them read for a bank."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diagnostics.bank.contexts import Bank, read_bank
from diagnostics.errors import InputError
from diagnostics.scoring.lists import ListFile, TopKLists, read_lists

VOCABULARY, LISTED = 64, 5
FLOAT32 = 1e-6  # log-probabilities of a few nats as float32
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


@pytest.fixture
def rows(bank: Bank) -> Rows:
    """One sound list of `LISTED` tokens at every valid position, in bank order."""
    rng = np.random.default_rng(3)
    found: Rows = []
    for name, mask in zip(bank.strings("context_id"), bank.masks(), strict=True):
        for position in np.flatnonzero(mask).tolist():
            p = rng.dirichlet(np.full(VOCABULARY, 0.1))
            ids = np.argsort(-p)[:LISTED].tolist()
            logprobs = [math.log(p[i]) for i in ids]
            found.append(
                {
                    "context_id": name,
                    "position": position,
                    "token_ids": ids,
                    "logprobs": logprobs,
                }
            )
    return found


def write(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path, bank: Bank, top_k: int = LISTED) -> ListFile:
    return read_lists(path, bank, vocabulary=VOCABULARY, top_k=top_k)


def refusal(path: Path, bank: Bank, rows: Rows, top_k: int = LISTED) -> str:
    with pytest.raises(InputError) as caught:
        read(write(path, rows), bank, top_k)
    return str(caught.value)


def test_each_context_gets_its_lists_in_order(bank: Bank, rows: Rows, tmp_path: Path) -> None:
    found = read(write(tmp_path / "lists.parquet", rows), bank)
    names = bank.strings("context_id")
    picked = [names[4], names[1]]
    for name, lists in zip(picked, found.lists(picked, [None, None]), strict=True):
        mine = [row for row in rows if row["context_id"] == name]
        assert lists.ids.tolist() == [row["token_ids"] for row in mine]
        logprobs = [row["logprobs"] for row in mine]
        np.testing.assert_allclose(lists.logprob, logprobs, rtol=0, atol=FLOAT32)
        tail = [1 - math.fsum(map(math.exp, row["logprobs"])) for row in mine]
        np.testing.assert_allclose(lists.tail_mass, tail, rtol=0, atol=FLOAT32)


def test_order_of_rows_does_not_matter(bank: Bank, rows: Rows, tmp_path: Path) -> None:
    one = read(write(tmp_path / "a.parquet", rows), bank)
    other = read(write(tmp_path / "b.parquet", rows[::-1]), bank)
    assert one.everything.ids.tolist() == other.everything.ids.tolist()
    assert one.everything.logprob.tolist() == other.everything.logprob.tolist()


def test_rows_of_other_positions_and_contexts_are_left(
    bank: Bank, rows: Rows, tmp_path: Path
) -> None:
    # The second context's position 1 is masked; no response has a position 12, or one below 0.
    more = [rows[4] | {"position": p, "logprobs": [-1.0] * LISTED} for p in (1, 12, 24, -12, -1)]
    more += [rows[0] | {"position": p} for p in (12, -1)] + [rows[0] | {"context_id": "another"}]
    found = read(write(tmp_path / "more.parquet", more + rows), bank)
    alone = read(write(tmp_path / "alone.parquet", rows), bank)
    assert found.everything.ids.tolist() == alone.everything.ids.tolist()


def test_shorter_lists_are_padded(bank: Bank, rows: Rows, tmp_path: Path) -> None:
    rows[2] |= {"token_ids": rows[2]["token_ids"][:3], "logprobs": rows[2]["logprobs"][:3]}
    found = read(write(tmp_path / "ragged.parquet", rows), bank, top_k=3)
    assert found.width == LISTED
    assert found.everything.ids[2].tolist() == [*rows[2]["token_ids"], -1, -1]
    assert found.everything.logprob[2, 3:].tolist() == [-math.inf, -math.inf]
    tail = 1 - math.fsum(map(math.exp, rows[2]["logprobs"]))
    assert found.everything.tail_mass[2] == pytest.approx(tail, abs=FLOAT32)


def test_equal_probabilities_stand_by_lower_id(bank: Bank, rows: Rows, tmp_path: Path) -> None:
    rows[0] |= {"token_ids": [9, 7, 30, 4, 11], "logprobs": [-1.5, -1.5, -2.0, -2.0, -2.0]}
    found = read(write(tmp_path / "tied.parquet", rows), bank)
    assert found.everything.ids[0].tolist() == [7, 9, 4, 11, 30]


def test_a_sum_over_one_by_rounding_is_scaled_to_one(
    bank: Bank, rows: Rows, tmp_path: Path
) -> None:
    p = [0.5, 0.3, 0.1, 0.06, 0.04009]  # sums to 1.00009
    rows[0] |= {"logprobs": [math.log(x) for x in p]}
    found = read(write(tmp_path / "rounded.parquet", rows), bank)
    scaled = [math.log(x / 1.00009) for x in p]
    np.testing.assert_allclose(found.everything.logprob[0], scaled, rtol=0, atol=FLOAT32)
    assert found.everything.tail_mass[0] == pytest.approx(0, abs=FLOAT32)


@pytest.mark.parametrize("listed", [3, 7, 11, 41])
def test_tail_mass_is_never_below_nought(listed: int) -> None:
    logprob = np.full((1, listed), math.log(1 / listed), dtype=np.float32)
    logprob = np.nextafter(logprob, np.float32(0))  # a sum over 1 by rounding
    lists = TopKLists(ids=np.arange(listed, dtype=np.int32)[None], logprob=logprob)
    assert lists.tail_mass.tolist() == [0.0]


def test_fingerprint_is_of_the_file(bank: Bank, rows: Rows, tmp_path: Path) -> None:
    path = write(tmp_path / "lists.parquet", rows)
    assert read(path, bank).fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def changed(row: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[row].update(values)


# Row 6 is the third valid position of the second context, whose mask leaves out 1 and 4.
SOUND = [-1.0, -2.0, -3.0, -4.0, -5.0]
FAULTS = [
    (
        changed(6, token_ids=[1, 2, 3, 4], logprobs=SOUND[:4]),
        "a list of at least 5 tokens (--top-k), got 4; "
        "rescore with a smaller --top-k, or write longer lists",
    ),
    (
        changed(6, token_ids=[], logprobs=[]),
        "a list of at least 5 tokens (--top-k), got 0; "
        "rescore with a smaller --top-k, or write longer lists",
    ),
    (
        changed(6, token_ids=[1, 2, 3, 4, 64], logprobs=SOUND),
        "token ids from 0 to 63, got 64; use a teacher of the student's tokenizer",
    ),
    (
        changed(6, token_ids=[1, 2, -3, 4, 6], logprobs=SOUND),
        "token ids from 0 to 63, got -3; use a teacher of the student's tokenizer",
    ),
    (
        changed(6, token_ids=[1, 2, None, 4, 6], logprobs=SOUND),
        "token ids from 0 to 63, got -1; use a teacher of the student's tokenizer",
    ),
    (
        changed(6, token_ids=[30, 2, 3, 4, 2], logprobs=SOUND),
        "each token once in a list, got token 2 twice; write each token once",
    ),
    (
        changed(6, logprobs=[0.25, -2.0, -3.0, -4.0, -5.0]),
        "log-probabilities of at most 0, got 0.25; write natural logarithms of probabilities",
    ),
    (
        changed(6, logprobs=[-1.0, -2.0, math.nan, -4.0, -5.0]),
        "log-probabilities of at most 0, got nan; write natural logarithms of probabilities",
    ),
    (
        changed(6, logprobs=[-1.0, -2.0, None, -4.0, -5.0]),
        "log-probabilities of at most 0, got nan; write natural logarithms of probabilities",
    ),
    (
        changed(6, logprobs=[-1.0, -3.0, -2.0, -4.0, -5.0]),
        "the most probable token first, got -3 before -2; sort each list by probability",
    ),
    (
        changed(6, logprobs=[-0.5, -0.75, -3.0, -4.0, -5.0]),
        "probabilities that sum to at most 1, got 1.153738; "
        "write natural logarithms of probabilities at temperature 1",
    ),
    (
        changed(6, logprobs=[-1.0, -2.0, -3.0, -math.inf, -math.inf]),
        "log-probabilities from before any top-k or top-p filter, got a token of probability 0, "
        "and 0.446998 of the mass unlisted; write the lists without sampling filters, "
        "or shorter ones",
    ),
    (
        changed(6, logprobs=SOUND[:4]),
        "5 logprobs, as many as token_ids, got 4; write one log-probability for each token",
    ),
    (
        changed(6, logprobs=[*SOUND, -6.0]),
        "5 logprobs, as many as token_ids, got 6; write one log-probability for each token",
    ),
    (
        lambda rows: rows.pop(6),
        "one list for every valid position of the bank, got none; "
        "write the teacher's lists of this bank, each position once",
    ),
    (
        lambda rows: rows.append(rows[6]),
        "one list for every valid position of the bank, got 2; "
        "write the teacher's lists of this bank, each position once",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), FAULTS, ids=range(len(FAULTS)))
def test_a_fault_is_refused_with_its_context_and_position(
    change: Callable[[Rows], None], text: str, bank: Bank, rows: Rows, tmp_path: Path
) -> None:
    name = bank.strings("context_id")[1]
    assert (rows[6]["context_id"], rows[6]["position"]) == (name, 3)
    change(rows)
    path = tmp_path / "faulty.parquet"
    assert refusal(path, bank, rows) == f"{path}, context {name}, position 3: expected {text}"


def test_the_sums_of_the_faults_by_hand() -> None:
    assert math.exp(-0.5) + math.exp(-0.75) + sum(map(math.exp, SOUND[2:])) == pytest.approx(
        1.153738, abs=5e-7
    )
    assert 1 - sum(map(math.exp, SOUND[:3])) == pytest.approx(0.446998, abs=5e-7)


def test_tokens_without_probability_are_taken_where_no_mass_is_missing(
    bank: Bank, rows: Rows, tmp_path: Path
) -> None:
    rows[0] |= {"logprobs": [math.log(0.75), math.log(0.25), -9999.0, -math.inf, -math.inf]}
    found = read(write(tmp_path / "certain.parquet", rows), bank)
    assert found.everything.tail_mass[0] == pytest.approx(0, abs=FLOAT32)


def test_null_list_is_refused(bank: Bank, rows: Rows, tmp_path: Path) -> None:
    rows[3]["logprobs"] = None
    path = tmp_path / "null.parquet"
    assert refusal(path, bank, rows) == (
        f"{path}, row 3: expected a value in column `logprobs`, got null; fill or drop the row"
    )


def test_missing_column_is_refused(bank: Bank, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "columns.parquet"
    assert refusal(path, bank, [{"context_id": r["context_id"]} for r in rows]) == (
        f"{path}: expected columns context_id, position, token_ids, logprobs, got context_id; "
        "write a row for each position, as docs/top-k-teachers.md shows"
    )


def test_missing_file_is_refused(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    with pytest.raises(InputError) as caught:
        read(path, bank)
    assert str(caught.value) == (
        f"{path}: expected a Parquet file, got no such file; check the path"
    )
