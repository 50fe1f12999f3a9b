"""Fixtures of the whole suite: tiny models on disk, made once a session, and a frozen bank."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before the Hub's client is imported: no test needs a network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads wait for each other on tensors this small


def pytest_collection_finish() -> None:
    """Sets the imported libraries aside: a collection of garbage takes 0.4 s with them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def teacher(models_folder: Path) -> str:
    """Wider and deeper than the student, with tied embeddings."""
    import doubles

    model = doubles.random_model(1, hidden=32, layers=2, tied=True)
    return doubles.save(model, models_folder / "teacher", doubles.word_tokenizer())


@pytest.fixture(scope="session")
def student(models_folder: Path) -> str:
    """theta_0, with a head of its own."""
    import doubles

    return doubles.save(
        doubles.random_model(2), models_folder / "student", doubles.word_tokenizer()
    )


@pytest.fixture(scope="session")
def checkpoint(models_folder: Path) -> str:
    """theta_tau: the student with noise on its weights, saved without a tokenizer."""
    import doubles

    model = doubles.perturbed(doubles.random_model(2), seed=3)
    return doubles.save(model, models_folder / "checkpoint", None)


@pytest.fixture(scope="session")
def stranger(models_folder: Path) -> str:
    """A model whose tokenizer swaps two words: ids 9 and 10."""
    import doubles

    words = list(doubles.WORDS)
    words[3], words[4] = words[4], words[3]
    return doubles.save(
        doubles.random_model(4), models_folder / "stranger", doubles.word_tokenizer(words)
    )


@pytest.fixture(scope="session")
def broken(models_folder: Path) -> str:
    """The student with NaN in the embedding of one token: only contexts that hold it break."""
    import doubles
    import torch

    model = doubles.random_model(2)
    with torch.no_grad():
        model.get_input_embeddings().weight[doubles.MARKED_TOKEN] = torch.nan
    return doubles.save(model, models_folder / "broken", doubles.word_tokenizer())


@pytest.fixture(scope="session")
def bank_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`doubles.ROLLOUTS` as a bank on disk."""
    import doubles

    from diagnostics.bank.contexts import write_bank

    path = tmp_path_factory.mktemp("bank") / "bank.parquet"
    write_bank(doubles.ROLLOUTS, doubles.bank_info(), path)
    return path


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs the console command in this process: (exit status, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        from diagnostics.cli.app import main

        monkeypatch.setattr(sys, "argv", ["diagnostics", *map(str, words)])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run
