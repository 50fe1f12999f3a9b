"""Prompts from a JSONL, CSV or Parquet file or a Hub dataset, as a user's files have them.

A prompt is text, taken as it is, or a list of chat messages, rendered with the tokenizer's chat
template. Not covered: images and tools in messages.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from diagnostics.errors import InputError

Messages = list[dict[str, str]]
SUFFIXES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt. `text` and `teacher` are plain text or chat messages; `teacher` may be None."""

    prompt_id: str
    text: str | Messages
    teacher: str | Messages | None


def read_prompts(source: str, *, column: str = "prompt", limit: int | None = None) -> list[Prompt]:
    """The first `limit` prompts of a source, in its order.

    Raises InputError when the source cannot be read, lacks the column, holds a prompt that is no
    text (naming the row), or has fewer rows than asked for.
    """
    rows = _read_rows(source, limit)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if rows and column not in columns:
        raise InputError(
            where=source,
            expected=f"a column `{column}`",
            got=f"columns {', '.join(map(str, columns))}",
            fix="name it with --prompt-column",
        )
    if not rows or (limit is not None and len(rows) < limit):
        raise InputError(
            where=source,
            expected=f"at least {limit or 1} prompts",
            got=str(len(rows)),
            fix="ask for fewer with --num-prompts or give a larger file",
        )
    return [
        _prompt(row, column, f"{source}, row {index}") for index, row in enumerate(rows[:limit])
    ]


def _prompt(row: dict[Any, Any], column: str, where: str) -> Prompt:
    text = prompt_text(row.get(column), where, column)
    teacher = row.get("teacher_prompt")
    given = row.get("prompt_id")
    return Prompt(
        prompt_id=content_identity(text) if _absent(given) else str(given),
        text=text,
        teacher=None if _absent(teacher) else prompt_text(teacher, where, "teacher_prompt"),
    )


def content_identity(content: str | Messages | list[int]) -> str:
    """The `prompt_id` of a prompt that has none given: 16 hex digits of its text or token ids."""
    text = json.dumps(content, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompt_text(value: Any, where: str, column: str) -> str | Messages:
    """A prompt's value as text or messages. Raises InputError for anything else."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        return [{"role": m["role"], "content": m["content"]} for m in value]
    shown = (
        "empty text" if isinstance(value, str) else f"a {type(value).__name__}: {str(value)[:40]}"
    )
    raise InputError(
        where=where,
        expected=f"text or a list of chat messages in `{column}`",
        got=shown,
        fix="drop or mend the row",
    )


def _is_message(value: Any) -> bool:
    keys = ("role", "content")
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _read_rows(source: str, limit: int | None) -> list[dict[str, Any]]:
    path = Path(source)
    if path.suffix in SUFFIXES:
        return _read_file(path, limit)
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(
            where=source,
            expected=f"a file ending in {', '.join(SUFFIXES)} or a Hub dataset (owner/name)",
            got="another kind of file" if path.exists() else "no such file",
            fix="check the path",
        )
    return _read_hub(source, limit)


def _read_jsonl(path: Path, limit: int | None) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice((x for x in lines if x.strip()), limit)]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {index} is no JSON object")
    return list(rows)


def _read_file(path: Path, limit: int | None) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".jsonl":
            return _read_jsonl(path, limit)
        if path.suffix == ".csv":
            frame = pd.read_csv(path, nrows=limit, dtype=str, keep_default_na=False, na_values=[""])
            return list(frame.to_dict("records"))
        return list(pq.ParquetFile(path).read().to_pylist())
    except FileNotFoundError as error:
        raise InputError(
            where=str(path), expected="a prompt file", got="no such file", fix="check the path"
        ) from error
    except (ValueError, OSError) as error:  # pandas' parsers and pyarrow raise ValueError kinds
        raise InputError(
            where=str(path),
            expected=f"a readable {path.suffix[1:]} file",
            got=f"damage ({' '.join(str(error).split())[:120]})",
            fix="write the file again",
        ) from error


def _read_hub(source: str, limit: int | None) -> list[dict[str, Any]]:
    """The training split of a Hub dataset; needs the extra `[hub]`."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            where=source,
            expected="the package `datasets` for a Hub dataset",
            got="it is not installed",
            fix='pip install "fixed-context-diagnostics[hub]", or give a file',
        ) from error
    name, _, revision = source.partition("@")
    split = "train" if limit is None else f"train[:{limit}]"
    try:
        rows = load_dataset(name, split=split, revision=revision or None).to_list()
    except Exception as error:  # the Hub client raises many kinds; all mean "not to be had"
        raise InputError(
            where=source,
            expected="a dataset that the Hub has, with a split `train`",
            got=" ".join(str(error).split())[:160],
            fix="check the name and the network, or give a file",
        ) from error
    return list(rows)
