"""Files that appear whole or not at all, and their fingerprints.

Every file of ours is written under a temporary name in its own folder, flushed, and renamed. Two
writers of one name leave one whole file; a killed one leaves a `.partial` that nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from diagnostics.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path; on success it becomes `path`, on failure it is removed.

    Raises InputError when the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:  # the latter for a full disk too
        raise _cannot_write(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any], indent: int | None = 1) -> None:
    """Writes a JSON file whole: keys in the order given, NaN refused; one line without indent."""
    between = (",", ":" if indent is None else ": ")
    text = json.dumps(value, indent=indent, separators=between, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file whole (zstd); the same table gives the same bytes."""
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads one Parquet file. Raises InputError when it is missing or damaged."""
    if not path.is_file():
        raise InputError(
            where=str(path), expected="a Parquet file", got="no such file", fix="check the path"
        )
    try:
        return pq.ParquetFile(path).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> InputError:
    """What is said of a Parquet file that cannot be read to its end."""
    return InputError(
        where=str(path),
        expected="a readable Parquet file",
        got=f"damage ({_one_line(error)})",
        fix="write the file again",
    )


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises InputError when it is missing, damaged or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            where=str(path), expected="a JSON file", got="no such file", fix="check the path"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            where=str(path),
            expected="a readable JSON file",
            got=f"damage ({_one_line(error)})",
            fix="write the file again",
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            where=str(path),
            expected="a JSON object",
            got=f"a {type(value).__name__}",
            fix="check that this is the right file",
        )
    return value


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of a UTF-8 text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _cannot_write(path: Path, error: Exception) -> InputError:
    return InputError(
        where=str(path),
        expected="a folder that can be written and has room",
        got=_one_line(error),
        fix="free some space or choose another folder; what was written whole stays valid",
    )
