"""Tables declared once: a list of typed columns is schema, validator and documentation.

Every file of ours carries a schema version in its Parquet metadata; a reader refuses a newer one.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from diagnostics.errors import InputError

VERSION_KEY = b"schema_version"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Fields: `name`; `type` (Arrow); `meaning` with unit and sign; `nullable`."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow schema of a declared table."""
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in columns])


def check_version(metadata: dict[bytes, bytes] | None, newest: int, where: str) -> None:
    """Refuses a file without a schema version, or with one newer than `newest`."""
    stated = (metadata or {}).get(VERSION_KEY)
    if stated is None or not stated.isdigit() or not 1 <= int(stated) <= newest:
        raise InputError(
            where=where,
            expected=f"schema version 1 to {newest} in the Parquet metadata",
            got="none" if stated is None else stated.decode(errors="replace"),
            fix="write it with this project's commands, or update the project",
        )


def conform(table: pa.Table, columns: tuple[Column, ...], where: str) -> pa.Table:
    """The table with exactly the declared columns and types, in order; others are dropped.

    Raises InputError that names the first column that is missing, of another type, or null where it
    may not be.
    """
    arrays = []
    for column in columns:
        if column.name not in table.column_names:
            raise InputError(
                where=where,
                expected=f"a column `{column.name}` ({column.type})",
                got=f"columns {', '.join(table.column_names)}",
                fix="write the file with this project's commands",
            )
        array = table[column.name]
        try:
            array = array.cast(column.type)
        except pa.ArrowException as error:
            raise InputError(
                where=where,
                expected=f"column `{column.name}` of type {column.type}",
                got=str(array.type),
                fix="convert the column",
            ) from error
        if array.null_count and not column.nullable:
            row = array.is_null().to_pylist().index(True)
            raise InputError(
                where=f"{where}, row {row}",
                expected=f"a value in column `{column.name}`",
                got="null",
                fix="fill or drop the row",
            )
        arrays.append(array)
    return pa.table(arrays, schema=arrow_schema(columns).with_metadata(table.schema.metadata))
