"""Each token id's text, as it stands in running text: what a person reads where models read ids.

A tokenizer's decoder says how its pieces become text. Three ways are known: letters that stand for
bytes (byte-level BPE), a sign for the space with bytes written `<0x0A>` (SentencePiece), and words
with `##` where one goes on (WordPiece). Bytes that are no whole letter are shown as `\\xe2`. Not
covered: turning ids back into the exact text of a rollout; several pieces may share a letter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACE = "\u2581"  # SentencePiece's sign for a space
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A token. Fields: `text`, None for an id that the tokenizer lacks; `special` control token."""

    text: str | None
    special: bool


def pieces(tokenizer: PreTrainedTokenizerBase, size: int) -> list[Piece]:
    """The pieces of ids 0 to `size` - 1; an added token is its own text."""
    known = {index: piece for piece, index in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    special = {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    read = _reader(tokenizer)

    def text(index: int) -> str | None:
        if index in added or index in special:
            return str(added[index].content) if index in added else known.get(index)
        return read(known[index]) if index in known else None

    return [Piece(text=text(index), special=index in special) for index in range(size)]


def _reader(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """How a piece of this tokenizer becomes text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _from_sentencepiece
    if backend.decoder is None:
        return " {}".format  # words, joined by spaces
    steps = set(_steps(json.loads(backend.decoder.__getstate__())))
    if "ByteLevel" in steps:
        return _from_byte_letters
    return _from_wordpiece if "WordPiece" in steps else _from_sentencepiece


def _steps(decoder: dict[str, Any]) -> Iterator[str]:
    """The names of a decoder's steps."""
    yield decoder["type"]
    for inner in decoder.get("decoders", []):
        yield from _steps(inner)


def _from_byte_letters(piece: str) -> str:
    table = _byte_letters()
    if not all(letter in table for letter in piece):
        return piece
    return _readable(bytes(table[letter] for letter in piece))


def _from_sentencepiece(piece: str) -> str:
    byte = BYTE.fullmatch(piece)
    return _readable(bytes.fromhex(byte[1])) if byte else piece.replace(SPACE, " ")


def _from_wordpiece(piece: str) -> str:
    return piece[2:] if piece.startswith("##") else f" {piece}"


def _readable(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


@cache
def _byte_letters() -> dict[str, int]:
    """The byte that each letter of byte-level BPE stands for.

    Printable Latin-1 letters stand for themselves; the other bytes, in order, for U+0100 onward.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }
