"""What runs models, as a notebook calls it: the commands' words, and the commands' results."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import pytest
from doubles import ROLLOUTS, bank_info, copy

import diagnostics as fcd
from diagnostics.bank.contexts import read_bank, write_bank
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.task import Settings


@pytest.fixture
def kit(bank_file: Path, teacher: str, student: str, checkpoint: str) -> SimpleNamespace:
    return SimpleNamespace(bank=bank_file, teacher=teacher, student=student, trained=checkpoint)


def test_the_first_contexts_are_a_bank_of_their_own(tmp_path: Path) -> None:
    write_bank(ROLLOUTS, bank_info(), tmp_path / "whole.parquet")
    fewer = write_bank(ROLLOUTS[:3], bank_info(), tmp_path / "fewer.parquet")
    first = fcd.read_bank(str(tmp_path / "whole.parquet")).first(3)
    assert first.digest == fewer.digest == read_bank(tmp_path / "fewer.parquet").digest
    assert first.strings("context_id") == fewer.strings("context_id")
    assert len(fcd.read_bank(tmp_path / "whole.parquet").first(99)) == len(ROLLOUTS)


def test_rescore_takes_paths_and_globs_and_opens_the_run(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    for step in (20, 3):
        copy(kit.trained, tmp_path / f"checkpoint-{step}")
    models = {"full": str(tmp_path / "checkpoint-*"), "last": kit.trained}
    run = fcd.rescore(
        kit.bank, kit.teacher, kit.student, models, tmp_path / "run", name="mine", top_k=4
    )
    assert (run.name, run.run.top_k) == ("mine", 4)
    assert run.steps == {"full-3": 3, "full-20": 20, "last": None}
    one = rescore(
        read_bank(kit.bank), kit.teacher, kit.student, {}, tmp_path / "own", Settings(top_k=4)
    )
    assert one.manifest["bank"] == run.run.manifest["bank"]


def test_imported_rollouts_are_scored(kit: SimpleNamespace, tmp_path: Path) -> None:
    row = {"prompt": "w1 w2", "response": "w3 w4"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "bank.parquet"
    found = fcd.import_bank("jsonl", str(tmp_path / "rows.jsonl"), kit.student, str(out))
    models = {"last": kit.trained}
    run = fcd.rescore(str(out), kit.teacher, kit.student, models, tmp_path / "run", top_k=4)
    assert run.run.manifest["bank"]["digest"] == found.bank.digest
    assert len(run.tokens(k=4)) == 2


def test_the_style_is_one_that_matplotlib_reads() -> None:
    style = mpl.rc_params_from_file(fcd.style_file(), use_default_template=False)
    assert style["axes.spines.top"] is False
    assert "figure.facecolor" not in style  # the caller's ground stays
