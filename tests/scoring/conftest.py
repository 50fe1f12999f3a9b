"""Fixtures of the tests that score in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def task(bank_file: Path, teacher: str, student: str, checkpoint: str) -> dict[str, Any]:
    """What is scored, as words: bank, teacher, student, one checkpoint."""
    models = {"teacher": teacher, "student": student, "checkpoints": {"step1": checkpoint}}
    return {"bank": str(bank_file), **models}


@pytest.fixture(scope="session")
def whole(task: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to, in seven parts, by one process of its own."""
    import processes

    out = tmp_path_factory.mktemp("whole") / "run"
    processes.complete(task, out)
    return out
