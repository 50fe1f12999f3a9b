"""The page that shows the selector to trainers runs, and its table of teachers is true."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

import diagnostics.selection
from diagnostics.errors import InputError
from diagnostics.selection import TokenSignals, select_tokens
from diagnostics.statistics.selection.selectors import SELECTORS

PAGE = Path(__file__).parents[2] / "docs" / "selector.md"
TEACHERS = {  # a row of the table, by its first words: what is known
    "logits": {field.name for field in fields(TokenSignals)},
    "its top K, and": {"disagreement", "compatibility", "entropy"},
    "its log-probability": {"entropy"},
}


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_runs_and_names_all_that_is_public() -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", text(), flags=re.DOTALL):
        exec(compile(snippet, str(PAGE), "exec"), names)
        if "loss = " in snippet:
            assert len([line for line in snippet.splitlines() if " = " in line]) == 3
            assert names["kept"].mask.sum() == names["kept"].wanted == 2
    assert set(names["numbers"]) >= {"keep", "tied_share", "q1", "q4", "kept_disagreement"}
    assert names["batch"]["response_mask"].sum() == 2
    assert sum(int(row.sum()) for row in names["loss_masks"]) == 4  # ceil(0.1 * 33)
    assert [len(row) for row in names["loss_masks"]] == names["lengths"]
    unnamed = [name for name in diagnostics.selection.__all__ if name not in text()]
    assert unnamed == ["Kept", "TokenSignals"]  # functions return them


def usable(known: set[str]) -> set[str]:
    """Selectors that do not refuse signals of which only some are known."""
    z = torch.rand(3, 9, dtype=torch.float64)
    given = {name: 50 if name == "vocabulary" else z for name in known}
    mask = torch.ones(3, 9, dtype=torch.bool)
    found = set()
    for selector in SELECTORS:
        try:
            select_tokens(selector, 0.5, TokenSignals(**given), mask)
        except InputError:
            continue
        found.add(selector)
    return found


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_table_of_teachers_is_what_is_refused(teacher: str) -> None:
    row = next(line for line in text().splitlines() if line.startswith(f"| {teacher}"))
    cell = row.split("|")[3]
    named = set(SELECTORS) if "all 17" in cell else set(re.findall(r"`([^`]+)`", cell))
    assert usable(TEACHERS[teacher]) == named
