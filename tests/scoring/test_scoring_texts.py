"""A run knows what its ids and contexts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import doubles
import pytest

from diagnostics.bank.contexts import Bank, read_bank
from diagnostics.errors import InputError
from diagnostics.files import read_parquet, sha256_file, write_parquet
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import Run
from diagnostics.scoring.task import Settings
from diagnostics.scoring.texts import contexts_file, vocabulary_file


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


def score(bank: Bank, teacher: str, student: str, out: Path, **options: Any) -> Run:
    return rescore(bank, teacher, student, {}, out, Settings(top_k=4), **options)


@pytest.fixture(scope="module")
def run(bank: Bank, teacher: str, student: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return score(bank, teacher, student, tmp_path_factory.mktemp("texts") / "run")


def test_token_texts_are_the_students(run: Run) -> None:
    texts = run.token_texts()
    assert texts is not None
    assert len(texts) == doubles.VOCABULARY
    assert texts[doubles.END] == "<end>"
    assert texts[6] == " w0"
    assert texts[-1] == "⟨-1⟩"
    assert texts[doubles.VOCABULARY] == f"⟨{doubles.VOCABULARY}⟩"
    assert texts.special.nonzero()[0].tolist() == [doubles.PAD, doubles.END, doubles.UNKNOWN]


def test_context_texts_are_the_banks(run: Run, bank: Bank) -> None:
    texts = run.context_texts()
    assert texts is not None
    assert list(texts.prompts) == bank.strings("prompt_text")
    assert list(texts.responses) == bank.strings("response_text")
    assert run.contexts() == (bank.strings("context_id"), bank.strings("prompt_id"))


def test_older_run_has_no_texts_and_gets_the_same_ones_when_scored_again(
    run: Run, bank: Bank, teacher: str, student: str, tmp_path: Path
) -> None:
    older = score(bank, teacher, student, tmp_path / "run")
    files = vocabulary_file(older.folder), contexts_file(older.folder)
    files[0].unlink()
    write_parquet(files[1], read_parquet(files[1], ["context_id", "prompt_id"]))
    assert older.token_texts() is None
    assert older.context_texts() is None
    assert older.contexts() == run.contexts()
    score(bank, teacher, student, older.folder)
    for file in files:
        assert sha256_file(file) == sha256_file(run.folder / file.name)


def test_student_without_a_tokenizer_makes_a_run_without_token_texts(
    bank: Bank, teacher: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diagnostics.scoring.rescore._check_origin", lambda *_: None)
    found = score(bank, teacher, checkpoint, tmp_path / "run")
    assert found.token_texts() is None
    assert found.context_texts() is not None


def test_table_of_another_kind_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_parquet(vocabulary_file(folder), read_parquet(contexts_file(run.folder)))
    with pytest.raises(InputError, match=r"vocabulary\.parquet: expected a column `token_id`"):
        Run(folder, run.manifest).token_texts()
