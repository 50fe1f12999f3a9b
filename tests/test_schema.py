"""Declared tables: order, types and nulls are enforced, newer files refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from diagnostics.errors import InputError
from diagnostics.schema import VERSION_KEY, Column, arrow_schema, check_version, conform

COLUMNS = (
    Column("id", pa.string(), "a name"),
    Column("count", pa.int32(), "how many"),
    Column("note", pa.string(), "may be null", nullable=True),
)


def table(**changes: pa.Array) -> pa.Table:
    columns = {
        "note": pa.array(["n", None]),
        "extra": pa.array([0.5, 0.5]),
        "count": pa.array([1, 2], pa.int64()),
        "id": pa.array(["a", "b"]),
    }
    return pa.table(columns | changes)


def test_conforming_orders_casts_drops_and_keeps_metadata() -> None:
    result = conform(table().replace_schema_metadata({"k": "v"}), COLUMNS, "here")
    assert result.schema.equals(arrow_schema(COLUMNS))
    assert result.to_pydict() == {"id": ["a", "b"], "count": [1, 2], "note": ["n", None]}
    assert result.schema.metadata == {b"k": b"v"}


def test_missing_column_is_named() -> None:
    with pytest.raises(InputError) as caught:
        conform(table().drop_columns(["count"]), COLUMNS, "here")
    assert str(caught.value) == (
        "here: expected a column `count` (int32), got columns note, extra, id; "
        "write the file with this project's commands"
    )


@pytest.mark.parametrize(
    "values", [pa.array(["x", "y"]), pa.array([2**40, 1]), pa.array([[1], [2]])]
)
def test_wrong_type_is_named(values: pa.Array) -> None:
    with pytest.raises(InputError) as caught:
        conform(table(count=values), COLUMNS, "here")
    assert str(caught.value) == (
        f"here: expected column `count` of type int32, got {values.type}; convert the column"
    )


def test_null_is_named_by_row() -> None:
    with pytest.raises(InputError) as caught:
        conform(table(id=pa.array(["a", None])), COLUMNS, "here")
    assert str(caught.value) == (
        "here, row 1: expected a value in column `id`, got null; fill or drop the row"
    )


def test_null_is_named_by_row_across_chunks() -> None:
    whole = pa.concat_tables([table(), table(count=pa.array([3, None]))])
    with pytest.raises(InputError, match="here, row 3: expected a value in column `count`"):
        conform(whole, COLUMNS, "here")


@pytest.mark.parametrize("stated", [b"1", b"2"])
def test_known_versions_pass(stated: bytes) -> None:
    check_version({VERSION_KEY: stated}, 2, "here")


@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        ({VERSION_KEY: b"3"}, "3"),
        ({VERSION_KEY: b"-1"}, "-1"),
        ({VERSION_KEY: b"0"}, "0"),
        ({VERSION_KEY: b"one"}, "one"),
        ({}, "none"),
        (None, "none"),
    ],
)
def test_other_versions_are_refused(metadata: dict[bytes, bytes] | None, shown: str) -> None:
    with pytest.raises(InputError) as caught:
        check_version(metadata, 2, "here")
    assert str(caught.value) == (
        f"here: expected schema version 1 to 2 in the Parquet metadata, got {shown}; "
        "write it with this project's commands, or update the project"
    )
