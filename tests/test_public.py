"""What a notebook gets from `import diagnostics`, and the page that shows it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import run_on_disk
from test_layers import HEAVY, loaded_by

import diagnostics as fcd
from diagnostics.statistics.inference.results import Result

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
MOVED = {"full-5": 0.05, "full-10": 0.1, "full-20": 0.2, "mask-20": 0.15}


@pytest.mark.parametrize("name", fcd._PUBLIC)
def test_public_name_is_that_of_its_module(name: str) -> None:
    made = getattr(fcd, name)
    assert made is getattr(import_module(fcd._PUBLIC[name]), name)
    assert made.__doc__
    assert name in dir(fcd)


def test_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'diagnostics' has no attribute 'decomposed'"):
        _ = fcd.decomposed
    assert not hasattr(fcd, "decomposed")


def test_naming_everything_loads_no_model_library() -> None:
    statement = "import diagnostics as f\n[getattr(f, name) for name in f._PUBLIC]"
    assert loaded_by(statement, *HEAVY, "matplotlib", "statsmodels") == []
    assert loaded_by("import diagnostics as f\nf.Bootstrap", "numpy") == ["numpy"]


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_page_runs_and_names_all_that_is_public(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_on_disk, "STORED_K", 16)
    monkeypatch.chdir(tmp_path)
    origins = {n: {"step": int(n.split("-")[1]), "series": n.split("-")[0]} for n in MOVED}
    for seed, name in enumerate(("small", "other-teacher")):
        run_on_disk.write_run(
            Path("runs", name), name=name, seed=seed, prompts=12, checkpoints=MOVED, origins=origins
        )
    names: dict[str, Any] = {}
    for snippet in snippets():
        exec(compile(snippet, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert shown.startswith("Run small\n")
    assert "Decomposition\n" in shown
    assert isinstance(names["pooled"], Result)
    text = PAGE.read_text(encoding="utf-8")
    unnamed = [name for name in fcd._PUBLIC if f"fcd.{name}(" not in text]
    assert unnamed == ["definitions_differ"]  # a report shows it
