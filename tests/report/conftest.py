"""Fixtures of the report's tests."""

from __future__ import annotations

import pytest
from run_on_disk import write_run

from diagnostics.report import write as writing
from diagnostics.scoring.run import Run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports whose figures are empty drawings and no files: quick, for tests of all the rest."""
    monkeypatch.setattr(writing, "write_figure", lambda *_: "<svg></svg>")
