"""A bank reads back as it was written, knows when it was changed, and names what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doubles import ROLLOUTS, VOCABULARY, bank_info, rollout

from diagnostics.bank.contexts import (
    COLUMNS,
    check_ids,
    content_digest,
    context_id,
    read_bank,
    write_bank,
)
from diagnostics.errors import InputError
from diagnostics.schema import arrow_schema

# CONTRACT, "Bank": names, order and types that other programs rely on.
CONTRACT = {
    "context_id": pa.string(),
    "prompt_id": pa.string(),
    "sample_index": pa.int32(),
    "prompt_text": pa.string(),
    "response_text": pa.string(),
    "prompt_ids": pa.list_(pa.int32()),
    "response_ids": pa.list_(pa.int32()),
    "loss_mask": pa.list_(pa.bool_()),
    "sampled_logprob": pa.list_(pa.float32()),
    "teacher_prompt_ids": pa.list_(pa.int32()),
    "token_source": pa.string(),
}


def rewrite(path: Path, change: dict[str, list[Any]], *, digest: bool = False) -> None:
    """Replaces whole columns of a bank and keeps its metadata (or mends the digest)."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    for name, values in change.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, table.schema.field(name).type))
    if digest:
        metadata[b"content_digest"] = content_digest(table).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def write(path: Path, *rollouts: Any) -> Path:
    write_bank(rollouts or ROLLOUTS, bank_info(), path)
    return path


def test_file_has_the_columns_of_the_contract(tmp_path: Path) -> None:
    schema = pq.read_schema(write(tmp_path / "bank.parquet"))
    assert dict(zip(schema.names, schema.types, strict=True)) == CONTRACT
    nullable = {field.name for field in schema if field.nullable}
    assert nullable == {"sampled_logprob", "teacher_prompt_ids"}


def test_metadata_of_the_file_says_where_it_came_from(tmp_path: Path) -> None:
    metadata = pq.read_schema(write(tmp_path / "bank.parquet")).metadata
    assert metadata[b"schema_version"] == b"1"
    assert json.loads(metadata[b"bank"]) == asdict(bank_info())
    assert json.loads(metadata[b"libraries"]).keys() >= {"python", "torch", "transformers"}
    assert re.fullmatch(rb"[0-9a-f]{64}", metadata[b"content_digest"])


def test_read_gives_back_what_was_written(tmp_path: Path) -> None:
    rollouts = (*ROLLOUTS, rollout(sampled_logprob=[-0.1, -0.25, -3.0]))
    written = write_bank(rollouts, bank_info(), tmp_path / "bank.parquet")
    found = read_bank(tmp_path / "bank.parquet")
    assert len(found) == len(rollouts)
    assert found.info == bank_info()
    assert found.digest == written.digest
    for row, origin in zip(found.table.to_pylist(), rollouts, strict=True):
        for name in type(origin).__slots__:
            if name != "sampled_logprob":
                assert row[name] == getattr(origin, name)
    # float32 holds 1/10 as its nearest neighbour
    assert found.table["sampled_logprob"].to_pylist()[-1] == [float(np.float32(-0.1)), -0.25, -3.0]
    assert found.table["sampled_logprob"].to_pylist()[0] is None


def test_accessors_give_arrays_in_bank_order(tmp_path: Path) -> None:
    bank = read_bank(write(tmp_path / "bank.parquet"))
    assert bank.strings("prompt_id") == ["a", "a", "b", "c", "d", "d", "e"]
    assert [ids.tolist() for ids in bank.ids("response_ids")] == [r.response_ids for r in ROLLOUTS]
    assert [m.tolist() for m in bank.masks()] == [r.loss_mask for r in ROLLOUTS]
    teachers = bank.ids("teacher_prompt_ids")
    assert teachers[2].tolist() == [40, 41, 42]
    assert all(teachers[index].size == 0 for index in (0, 1, 3, 4, 5, 6))
    assert teachers[0].dtype == np.int32


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.parquet"), write(tmp_path / "2.parquet")
    assert one.read_bytes() == two.read_bytes()


def test_context_id_is_stable() -> None:
    row = {name: getattr(rollout(), name) for name in type(rollout()).__slots__}
    by_hand = '["p0", 0, [6, 7], [8, 9, 10], null]'  # prompt, sample, three lists of ids
    assert context_id(row) == hashlib.sha256(by_hand.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_id": "p1"},
        {"sample_index": 1},
        {"prompt_ids": [6, 8]},
        {"response_ids": [8, 9, 11]},
        {"teacher_prompt_ids": [6, 7]},
        {"prompt_ids": [6, 7, 8], "response_ids": [9, 10, 11]},
    ],
)
def test_context_id_follows_the_ids(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "bank.parquet", rollout(), rollout(**change))
    first, second = read_bank(path).strings("context_id")
    assert first != second


@pytest.mark.parametrize(
    "change", [{"prompt_text": "other"}, {"response_text": "other"}, {"sampled_logprob": None}]
)
def test_context_id_ignores_what_is_for_reading(tmp_path: Path, change: dict[str, Any]) -> None:
    one = write(tmp_path / "1.parquet", rollout())
    two = write(tmp_path / "2.parquet", rollout(**change))
    assert read_bank(one).strings("context_id") == read_bank(two).strings("context_id")
    assert read_bank(one).digest != read_bank(two).digest


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("response_ids", [[8, 9, 11]]),
        ("prompt_text", ["w0 w9"]),
        ("loss_mask", [[True, False, True]]),
        ("sampled_logprob", [[-1.0, -2.0, -0.25]]),
        ("sampled_logprob", [None]),
        ("token_source", ["imported"]),
    ],
)
def test_changed_content_is_refused_by_digest(
    tmp_path: Path, column: str, values: list[Any]
) -> None:
    path = write(tmp_path / "bank.parquet", rollout())
    stated = read_bank(path).digest
    rewrite(path, {column: values})
    with pytest.raises(InputError) as caught:
        read_bank(path)
    assert str(caught.value).startswith(f"{path}: expected content of digest {stated[:12]}, got ")
    assert "changed after it was written" in str(caught.value)


def test_changed_row_order_is_refused_by_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "bank.parquet")
    table = pq.read_table(path)
    pq.write_table(table.take([1, 0, *range(2, len(ROLLOUTS))]), path)
    with pytest.raises(InputError, match="expected content of digest"):
        read_bank(path)


def test_digest_does_not_depend_on_the_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "bank.parquet")
    digest = read_bank(path).digest
    pq.write_table(pq.read_table(path), path, compression="none", row_group_size=2)
    assert read_bank(path).digest == digest


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bank.parquet")
    table = pq.read_table(path)
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"schema_version": b"2"}), path
    )
    with pytest.raises(InputError, match=r"expected schema version 1 to 1 .*, got 2"):
        read_bank(path)


def test_foreign_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "bank.parquet")
    with pytest.raises(InputError, match=r"bank.parquet: expected schema version .*, got none"):
        read_bank(tmp_path / "bank.parquet")


def test_bank_without_origin_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bank.parquet")
    table = pq.read_table(path)
    metadata = {k: v for k, v in table.schema.metadata.items() if k != b"bank"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match=r"expected the bank's origin .* got KeyError"):
        read_bank(path)


def test_folder_of_parts_is_one_dataset_in_name_order(tmp_path: Path) -> None:
    write(tmp_path / "parts" / "b.parquet", *ROLLOUTS[3:])
    write(tmp_path / "parts" / "a.parquet", *ROLLOUTS[:3])
    (tmp_path / "parts" / "notes.txt").write_text("no part")
    folder, file = read_bank(tmp_path / "parts"), read_bank(write(tmp_path / "whole.parquet"))
    assert folder.table.to_pylist() == file.table.to_pylist()
    assert folder.info == file.info


def test_folder_of_one_part_has_the_digest_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "parts" / "a.parquet")
    assert read_bank(tmp_path / "parts").digest == read_bank(path).digest


def test_digest_of_a_folder_changes_with_any_part(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    write(folder / "a.parquet", *ROLLOUTS[:3])
    write(folder / "b.parquet", *ROLLOUTS[3:])
    digest = read_bank(folder).digest
    write(folder / "b.parquet", *ROLLOUTS[4:])
    assert read_bank(folder).digest != digest


def test_folder_names_the_part_that_was_changed(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ROLLOUTS[0])
    path = write(tmp_path / "b.parquet", rollout())
    rewrite(path, {"prompt_text": ["other"]})
    with pytest.raises(InputError, match=r"b.parquet: expected content of digest"):
        read_bank(tmp_path)


def test_one_context_in_two_parts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", *ROLLOUTS[:2])
    write(tmp_path / "b.parquet", ROLLOUTS[1])
    with pytest.raises(InputError, match=r"row 2, context .*: expected unique context ids"):
        read_bank(tmp_path)


def test_folder_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got a folder without Parquet files"):
        read_bank(tmp_path)


def test_no_rollouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected at least one rollout, got none"):
        write_bank([], bank_info(), tmp_path / "bank.parquet")
    assert list(tmp_path.iterdir()) == []


UNSOUND = [
    ({"loss_mask": [True, True]}, "expected a mask of 3, got 2"),
    ({"loss_mask": [False] * 3}, "expected at least one valid response position, got none"),
    ({"response_ids": [], "loss_mask": []}, "at least one valid response position, got none"),
    ({"prompt_ids": []}, "expected a prompt of at least one token, got an empty prompt"),
    ({"sampled_logprob": [-1.0]}, "expected 3 sampled log-probabilities, got 1"),
    ({"token_source": "guessed"}, "generated, imported, retokenized, got 'guessed'"),
]


@pytest.mark.parametrize(("change", "complaint"), UNSOUND)
def test_unsound_rollout_is_not_written(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=f"row 1, context [0-9a-f]{{16}}: .*{complaint}"):
        write(tmp_path / "bank.parquet", ROLLOUTS[0], rollout(**change))
    assert list(tmp_path.iterdir()) == []


def test_same_identity_twice_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1, .* got the same identity twice"):
        write(tmp_path / "bank.parquet", rollout(), rollout(prompt_text="other"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("loss_mask", [[False] * 3], "expected at least one valid response position, got none"),
        ("response_ids", [[8, 9, 11]], "expected a context_id made from the row's ids"),
        ("context_id", ["0" * 16], "context 0000000000000000: expected a context_id made from"),
    ],
)
def test_unsound_row_is_refused_even_with_a_fitting_digest(
    tmp_path: Path, column: str, values: list[Any], complaint: str
) -> None:
    path = write(tmp_path / "bank.parquet", rollout())
    rewrite(path, {column: values}, digest=True)
    with pytest.raises(InputError, match=complaint):
        read_bank(path)


@pytest.mark.parametrize("column", ["prompt_ids", "response_ids", "teacher_prompt_ids"])
@pytest.mark.parametrize("bad", [-1, VOCABULARY, 2**31 - 1])
def test_ids_outside_the_vocabulary_name_the_context(tmp_path: Path, column: str, bad: int) -> None:
    path = write(tmp_path / "b.parquet", ROLLOUTS[0], rollout(**{column: [6, bad, 7]}))
    bank = read_bank(path)
    context = bank.strings("context_id")[1]
    with pytest.raises(InputError) as caught:
        check_ids(bank, VOCABULARY, "bank")
    assert str(caught.value) == (
        f"bank, context {context}, {column}: expected token ids from 0 to {VOCABULARY - 1}, "
        f"got {bad}; use the model and tokenizer that the bank was made with"
    )


def test_ids_at_the_ends_of_the_vocabulary_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "b.parquet", rollout(response_ids=[0, VOCABULARY - 1, 1]))
    check_ids(read_bank(path), VOCABULARY, "bank")


def test_declared_columns_are_the_schema() -> None:
    assert arrow_schema(COLUMNS).names == list(CONTRACT)
    assert all(column.meaning for column in COLUMNS)
