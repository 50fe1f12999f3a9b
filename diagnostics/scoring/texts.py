"""What a run's ids and contexts say, for people to read. No torch here.

    RUN/vocabulary.parquet   token_id, text (null where the tokenizer has no such id), special
    RUN/contexts.parquet     prompt_text and response_text, beside the ids of contexts

Both are for reading alone: numbers rest on ids. Runs of earlier versions, and students without a
tokenizer, have neither; `rescore` run again adds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from diagnostics.files import read_parquet
from diagnostics.schema import Column, arrow_schema, conform

VOCABULARY_COLUMNS = (
    Column("token_id", pa.int32(), "0 to V - 1, one row each"),
    Column("text", pa.string(), "the token in running text, leading space included", nullable=True),
    Column("special", pa.bool_(), "a control token, as the end of a turn"),
)
CONTEXT_TEXTS = ("prompt_text", "response_text")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTexts:
    """Every token id's text.

    Fields: `texts`, one entry an id, None where the tokenizer has no such id; `special` (vocab,).
    """

    texts: Sequence[str | None]
    special: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, token_id: int) -> str:
        """The token's text; `⟨id⟩` for an id without one."""
        known = 0 <= token_id < len(self.texts)
        text = self.texts[token_id] if known else None
        return id_text(token_id) if text is None else text


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextTexts:
    """The bank's texts, one entry a context, bank order."""

    prompts: Sequence[str]
    responses: Sequence[str]


def id_text(token_id: int) -> str:
    """What stands for a token whose text is not known."""
    return f"⟨{token_id}⟩"


def vocabulary_file(folder: Path) -> Path:
    """Where a run's token texts lie."""
    return folder / "vocabulary.parquet"


def contexts_file(folder: Path) -> Path:
    """Where a run's contexts lie."""
    return folder / "contexts.parquet"


def vocabulary_table(rows: Iterable[tuple[str | None, bool]]) -> pa.Table:
    """The table of (text, special) of ids 0, 1, …"""
    texts, special = zip(*rows, strict=True)
    columns = {"token_id": range(len(texts)), "text": texts, "special": special}
    schema = arrow_schema(VOCABULARY_COLUMNS)
    return pa.table({name: list(values) for name, values in columns.items()}, schema=schema)


def read_token_texts(folder: Path) -> TokenTexts | None:
    """A run's token texts; None where it has none. Raises InputError for a damaged file."""
    file = vocabulary_file(folder)
    if not file.is_file():
        return None
    table = conform(read_parquet(file), VOCABULARY_COLUMNS, str(file))
    special = np.asarray(table["special"].to_numpy(), dtype=bool)
    return TokenTexts(texts=table["text"].to_pylist(), special=special)


def read_context_texts(folder: Path) -> ContextTexts | None:
    """A run's prompts and responses as text; None where it has none."""
    table = read_parquet(contexts_file(folder))
    if not has_context_texts(table):
        return None
    prompts, responses = (table[name].to_pylist() for name in CONTEXT_TEXTS)
    return ContextTexts(prompts=prompts, responses=responses)


def has_context_texts(table: pa.Table) -> bool:
    """Whether a table of contexts holds their texts."""
    return set(CONTEXT_TEXTS) <= set(table.column_names)
