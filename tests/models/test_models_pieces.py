"""A token's text is what the tokenizer's own decoder makes of it."""

from __future__ import annotations

import pytest
from doubles import SPECIAL, WORDS, word_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from diagnostics.models.pieces import Piece, pieces
from diagnostics.models.pieces import _byte_letters as byte_letters


def tokenizer_of(vocabulary: dict[str, int], decoder: decoders.Decoder) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def letters(text: str) -> str:
    """A text in the letters of byte-level BPE."""
    names = {byte: letter for letter, byte in byte_letters().items()}
    return "".join(names[byte] for byte in text.encode())


def test_byte_letters_are_those_of_the_library() -> None:
    ours = {letter: byte for letter, byte in byte_letters().items() if byte < 128}
    assert set(byte_letters().values()) == set(range(256))
    assert set(byte_letters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert decoders.ByteLevel().decode(list(ours)) == "".join(map(chr, ours.values()))
    assert letters(" café\n") == "ĠcafÃ©Ċ"


@pytest.mark.parametrize(
    "text", [" der", "\n\n", "é", " 漢字", "🙂", "</script>", "\u202e", "\x00"]
)
def test_byte_level_text_equals_the_decoders(text: str) -> None:
    tokenizer = tokenizer_of({"<unk>": 0, letters(text): 1}, decoders.ByteLevel())
    assert pieces(tokenizer, 2)[1] == Piece(text=text, special=False)
    assert tokenizer.decode([1]) == text


def test_bytes_of_a_broken_letter_are_shown_in_hex() -> None:
    broken = letters("é🙂")[:-1]  # the last byte of four is missing
    tokenizer = tokenizer_of({"<unk>": 0, broken: 1}, decoders.ByteLevel())
    assert pieces(tokenizer, 2)[1].text == "é\\xf0\\x9f\\x99"


def test_sentencepiece_signs_are_spaces_and_bytes() -> None:
    decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    vocabulary = {"<unk>": 0, "▁the": 1, "<0x0A>": 2, "<0xE2>": 3, "ing": 4, "▁▁": 5}
    found = pieces(tokenizer_of(vocabulary, decoder), 6)
    assert [p.text for p in found[1:]] == [" the", "\n", "\\xe2", "ing", "  "]


def test_wordpieces_that_go_on_have_no_space() -> None:
    found = pieces(tokenizer_of({"<unk>": 0, "play": 1, "##ing": 2}, decoders.WordPiece()), 3)
    assert "".join(p.text or "" for p in found[1:]) == " playing"


def test_word_level_special_tokens_and_ids_without_a_piece() -> None:
    found = pieces(word_tokenizer(), len(SPECIAL) + len(WORDS) + 2)
    assert [p.text for p in found] == [
        *SPECIAL[:3],
        *(f" {word}" for word in (*SPECIAL[3:], *WORDS)),
        None,
        None,
    ]
    assert [p.special for p in found[:4]] == [True, True, True, False]


def test_added_tokens_are_their_own_text() -> None:
    tokenizer = tokenizer_of({"<unk>": 0, "Ġa": 1}, decoders.ByteLevel())
    tokenizer.add_tokens(["<think>"])
    tokenizer.add_special_tokens({"eos_token": "<|Ġend|>"})
    assert pieces(tokenizer, 4)[1:] == [
        Piece(text=" a", special=False),
        Piece(text="<think>", special=False),
        Piece(text="<|Ġend|>", special=True),
    ]
