"""A teacher known only by its top-k lists: the forms of `--teacher` that name one.

    topk:FILE.parquet               lists in a file (`lists.py`)
    http://host:port/v1#model       a server that gives prompt log-probabilities (`server.py`)

Such a teacher gives D, C-hat and bounds of KL (`bounds.py`), and no KL, no gain and no C.
"""

from __future__ import annotations

from pathlib import Path

from diagnostics.bank.contexts import Bank
from diagnostics.scoring.lists import FILE, ListFile, read_lists
from diagnostics.scoring.server import KEY_VARIABLE, Server, open_server

ADDRESSES = ("http://", "https://")

ListedTeacher = ListFile | Server
"""Has `spec`, `fingerprint`, `vocabulary`, `width` (columns of every list) and `lists`."""


def is_listed(spec: str) -> bool:
    """Whether a `--teacher` names lists rather than a model."""
    return spec.startswith((FILE, *ADDRESSES))


def open_listed(
    spec: str,
    bank: Bank,
    *,
    vocabulary: int,
    top_k: int,
    key_variable: str = KEY_VARIABLE,
    known: str | None = None,
) -> ListedTeacher:
    """Opens lists of at least `top_k` tokens of a vocabulary, at every valid position of a bank.

    A server's key is read from the environment variable `key_variable`; one whose lists a run holds
    already is not asked, its fingerprint being `known`. Raises InputError as `read_lists` and
    `open_server` do.
    """
    if spec.startswith(FILE):
        return read_lists(Path(spec.removeprefix(FILE)), bank, vocabulary=vocabulary, top_k=top_k)
    return open_server(
        spec, vocabulary=vocabulary, top_k=top_k, key_variable=key_variable, known=known
    )
