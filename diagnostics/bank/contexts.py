"""A context bank in memory and on disk: one row per frozen rollout (CONTRACT, "Bank").

Identity comes from content: `context_id` hashes a row's ids, the digest hashes all rows. Reading a
bank recomputes the digest and refuses a file that was changed. A bank is one Parquet file, or a
folder of part files read in name order as one dataset.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.files import read_parquet, sha256_text, write_parquet
from diagnostics.schema import VERSION_KEY, Column, check_version, conform

SCHEMA_VERSION = 1
DIGEST_KEY, INFO_KEY = b"content_digest", b"bank"
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")
TOKEN_SOURCES = ("generated", "imported", "retokenized")

COLUMNS = (
    Column("context_id", pa.string(), "unique and stable: hash of the row's ids"),
    Column("prompt_id", pa.string(), "the cluster"),
    Column("sample_index", pa.int32(), "which rollout of the prompt"),
    Column("prompt_text", pa.string(), "for reading; the ids are the truth"),
    Column("response_text", pa.string(), "for reading; the ids are the truth"),
    Column("prompt_ids", pa.list_(pa.int32()), "prompt token ids fed to the models"),
    Column("response_ids", pa.list_(pa.int32()), "response token ids fed to the models"),
    Column("loss_mask", pa.list_(pa.bool_()), "valid response positions"),
    Column(
        "sampled_logprob",
        pa.list_(pa.float32()),
        "log p_0 of the sampled token when it was sampled, temperature 1, nats",
        nullable=True,
    ),
    Column(
        "teacher_prompt_ids",
        pa.list_(pa.int32()),
        "a prompt of the teacher's own; the response is the same",
        nullable=True,
    ),
    Column("token_source", pa.string(), "generated, imported or retokenized"),
)
HASHED = ("prompt_id", "sample_index", "prompt_ids", "response_ids", "teacher_prompt_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One frozen rollout before it has an identity. Lists are one entry a token."""

    prompt_id: str
    sample_index: int
    prompt_text: str
    response_text: str
    prompt_ids: list[int]
    response_ids: list[int]
    loss_mask: list[bool]
    sampled_logprob: list[float] | None
    teacher_prompt_ids: list[int] | None
    token_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BankInfo:
    """Where a bank came from; lies in the metadata of every file."""

    student: str
    student_fingerprint: str
    tokenizer_fingerprint: str
    vocabulary: int
    sampling: dict[str, Any]
    seed: int
    prompt_source: str


@dataclass(frozen=True, slots=True)
class Bank:
    """A whole bank. Fields: `table` (contexts x `COLUMNS`); `info`; `digest` of the content."""

    table: pa.Table
    info: BankInfo
    digest: str

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def first(self, count: int) -> Bank:
        """The first `count` contexts as a bank of their own, with a digest of their own."""
        part = self.table.slice(0, count)
        return Bank(table=part, info=self.info, digest=content_digest(part))

    def strings(self, column: str) -> list[str]:
        """A string column as a list, one entry a context."""
        values: list[str] = self.table[column].to_pylist()
        return values

    def ids(self, column: str) -> list[NDArray[np.int32]]:
        """An id column as arrays (length,), one a context; a null is an empty array."""
        return [np.asarray(row or [], dtype=np.int32) for row in self.table[column].to_pylist()]

    def masks(self) -> list[NDArray[np.bool_]]:
        """Valid response positions, arrays (length,), one a context."""
        return [np.asarray(row, dtype=bool) for row in self.table["loss_mask"].to_pylist()]


def write_bank(rollouts: Sequence[Rollout], info: BankInfo, path: Path) -> Bank:
    """Freezes rollouts into one Parquet file at `path` and returns the bank.

    Raises InputError for no rollouts, or for two that have the same identity.
    """
    if not rollouts:
        raise InputError(
            where=str(path), expected="at least one rollout", got="none", fix="give more prompts"
        )
    rows = [{name: getattr(r, name) for name in Rollout.__slots__} for r in rollouts]
    for row in rows:
        row["context_id"] = context_id(row)
    table = conform(_table(rows), COLUMNS, str(path))
    digest = content_digest(table)
    metadata = {
        VERSION_KEY: str(SCHEMA_VERSION).encode(),
        DIGEST_KEY: digest.encode(),
        INFO_KEY: json.dumps(_info_dict(info)).encode(),
        b"libraries": json.dumps(library_versions()).encode(),
    }
    table = table.replace_schema_metadata(metadata)
    _require_sound(table, str(path))
    write_parquet(path, table)
    return Bank(table=table, info=info, digest=digest)


def read_bank(path: Path) -> Bank:
    """Reads a bank and checks schema, digest, identities and masks.

    Raises InputError that names the file (and context) at the first thing that is wrong.
    """
    parts = [_read_part(file) for file in _bank_files(path)]
    _require_one_origin(path, [info for _, info, _ in parts])
    tables = [table for table, _, _ in parts]
    digests = [digest for _, _, digest in parts]
    digest = digests[0] if len(digests) == 1 else sha256_text("\n".join(digests))
    table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables])
    _require_sound(table, str(path))
    return Bank(table=table, info=parts[0][1], digest=digest)


def check_ids(bank: Bank, vocabulary: int, where: str) -> None:
    """Refuses a bank with a token id outside 0..vocabulary-1, naming context and id."""
    for column in ("prompt_ids", "response_ids", "teacher_prompt_ids"):
        for context, row in zip(bank.strings("context_id"), bank.ids(column), strict=True):
            outside = row[(row < 0) | (row >= vocabulary)]
            if outside.size:
                raise InputError(
                    where=f"{where}, context {context}, {column}",
                    expected=f"token ids from 0 to {vocabulary - 1}",
                    got=str(int(outside[0])),
                    fix="use the model and tokenizer that the bank was made with",
                )


def context_id(row: dict[str, Any]) -> str:
    """The identity of a row: 16 hex digits over the fields in `HASHED`."""
    content = json.dumps([row[name] for name in HASHED])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def content_digest(table: pa.Table) -> str:
    """SHA-256 over every column of every row, in order; independent of the Parquet encoding."""
    digest = hashlib.sha256()
    names = [column.name for column in COLUMNS]
    for row in table.select(names).to_pylist():
        digest.update(json.dumps([row[name] for name in names]).encode())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python, this project and the libraries that make the numbers."""
    names = ("fixed-context-diagnostics", *LIBRARIES)
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    types = {column.name: column.type for column in COLUMNS}
    return pa.table({name: pa.array([r[name] for r in rows], types[name]) for name in types})


def _info_dict(info: BankInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in BankInfo.__slots__}


def _bank_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise InputError(
                where=str(path),
                expected="a bank: a Parquet file or a folder of them",
                got="a folder without Parquet files",
                fix="check the path",
            )
        return files
    return [path]


def _read_part(path: Path) -> tuple[pa.Table, BankInfo, str]:
    table = read_parquet(path)
    metadata = table.schema.metadata or {}
    check_version(metadata, SCHEMA_VERSION, str(path))
    table = conform(table, COLUMNS, str(path))
    stated = metadata.get(DIGEST_KEY, b"").decode(errors="replace")
    found = content_digest(table)
    if stated != found:
        raise InputError(
            where=str(path),
            expected=f"content of digest {stated[:12] or '(none stated)'}",
            got=f"digest {found[:12]}",
            fix="the file was changed after it was written: build or copy the bank again",
        )
    try:
        info = BankInfo(**json.loads(metadata[INFO_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            where=str(path),
            expected="the bank's origin under the Parquet metadata key `bank`",
            got=type(error).__name__,
            fix="write the bank with `diagnostics bank build`",
        ) from error
    return table, info, found


def _require_one_origin(path: Path, infos: Sequence[BankInfo]) -> None:
    """Refuses part files of different students or tokenizers in one folder."""
    for key in ("student_fingerprint", "tokenizer_fingerprint", "vocabulary"):
        found = {getattr(info, key) for info in infos}
        if len(found) > 1:
            raise InputError(
                where=str(path),
                expected=f"part files of one {key}",
                got=", ".join(str(value)[:12] for value in sorted(found, key=str)),
                fix="keep each student's bank in a folder of its own",
            )


def _require_sound(table: pa.Table, where: str) -> None:
    """Identities fit and are unique; masks fit responses and keep something; prompts not empty."""
    seen: set[str] = set()
    for index, row in enumerate(table.to_pylist()):
        here = f"{where}, row {index}, context {row['context_id']}"
        fault = _fault(row, seen)
        if fault is not None:
            expected, got = fault
            raise InputError(where=here, expected=expected, got=got, fix="build the bank again")
        seen.add(row["context_id"])


def _fault(row: dict[str, Any], seen: set[str]) -> tuple[str, str] | None:
    """What is wrong with one row, as (expected, got)."""
    length = len(row["response_ids"])
    logprobs = row["sampled_logprob"]
    checks = (
        (row["context_id"] == context_id(row), "a context_id made from the row's ids", "another"),
        (row["context_id"] not in seen, "unique context ids", "the same identity twice"),
        (len(row["prompt_ids"]) > 0, "a prompt of at least one token", "an empty prompt"),
        (len(row["loss_mask"]) == length, f"a mask of {length}", f"{len(row['loss_mask'])}"),
        (any(row["loss_mask"]), "at least one valid response position", "none"),
        (
            logprobs is None or len(logprobs) == length,
            f"{length} sampled log-probabilities",
            f"{len(logprobs or [])}",
        ),
        (
            row["token_source"] in TOKEN_SOURCES,
            f"a token_source among {', '.join(TOKEN_SOURCES)}",
            repr(row["token_source"]),
        ),
    )
    return next(((expected, got) for ok, expected, got in checks if not ok), None)
