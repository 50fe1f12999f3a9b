"""Notebooks as a reader finds them: run in order, outputs whole, and the same when run again."""

from __future__ import annotations

import base64
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copy
from typing import Any

import nbformat
import pytest
from execute import HERE, notebooks

ROOT = HERE.parent
NUMBER = re.compile(r"(?<![\w.-])-?\d+\.?\d*(?:e[+-]?\d+)?")
RULES = re.compile(r"\s+|-{2,}")  # white space and rules follow the width of numbers
PATHS = re.compile(r"/(?:work|tmp|home|root|Users|usr|opt|var)/|[A-Z]:\\\\")

# (relative, absolute) difference of numbers from the committed ones, for other machines and
# versions of the libraries. Sums in another order differ in the last digits of a float32. Training
# draws rollouts: where one token falls otherwise, so do all later steps.
ROUNDING, TRAINING = (0.02, 2e-3), (0.5, 0.4)
TOLERANCE = {"03-checkpoints-over-training.ipynb": TRAINING}

every = pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)


def code(path: Path) -> list[Any]:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def said(cell: Any) -> str:
    """The text that a cell shows."""
    shown = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return "\n".join(shown)


def pictures(cell: Any) -> list[bytes]:
    found = [o["data"]["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    return [base64.b64decode(png) for png in found]


def difference(got: str, kept: str, relative: float, absolute: float) -> str:
    """What differs between two texts beyond the tolerance of their numbers; empty if nothing."""
    words = [RULES.sub(" ", NUMBER.sub("#", text)).strip() for text in (got, kept)]
    if words[0] != words[1]:
        return f"{words[0]!r} is not {words[1]!r}"
    pairs = zip(NUMBER.findall(got), NUMBER.findall(kept), strict=True)
    far = [
        f"{a} is not {b}"
        for a, b in pairs
        if not math.isclose(float(a), float(b), rel_tol=relative, abs_tol=absolute)
    ]
    return ", ".join(far)


def test_there_are_notebooks() -> None:
    assert len(notebooks()) == 4
    listed = (HERE / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in notebooks() if f"]({p.name})" not in listed] == []


@every
def test_cells_ran_once_in_order_and_none_failed(path: Path) -> None:
    cells = code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {(o.output_type, o.get("name")) for cell in cells for o in cell.outputs}
    assert kinds <= {("stream", "stdout"), ("execute_result", None), ("display_data", None)}


@every
def test_nothing_of_the_machine_is_left(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert PATHS.findall(text) == []
    assert path.stat().st_size < 300_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.metadata for cell in notebook.cells] == [{}] * len(notebook.cells)


@every
def test_cells_that_draw_show_one_picture_of_a_readable_size(path: Path) -> None:
    drawing = [cell for cell in code(path) if "plt.subplots" in cell.source]
    assert drawing
    for cell in code(path):
        assert len(pictures(cell)) == (cell in drawing)
    for png in (png for cell in drawing for png in pictures(cell)):
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
        assert 400 <= width <= 900
        assert 150 <= height <= 500
        assert len(png) > 5_000  # no empty axes


@every
def test_a_notebook_opens_with_its_question_and_ends_with_your_pair(path: Path) -> None:
    first, *_, last = nbformat.read(path, as_version=4).cells
    assert re.match(r"# [^\n]+\n\n\*\*Question: [^*]+\?\*\*", first.source)
    assert last.source.startswith("## With your own ")


@pytest.mark.slow
@every
def test_run_again_a_notebook_says_the_same(path: Path, tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    for file in (path, HERE / "execute.py"):
        copy(file, tmp_path / "notebooks")
    for name in ("diagnostics", "banks"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "notebooks" / "execute.py"), path.name],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tolerance = TOLERANCE.get(path.name, ROUNDING)
    again = code(tmp_path / "notebooks" / path.name)
    for cell, kept in zip(again, code(path), strict=True):
        assert cell.source == kept.source
        assert difference(said(cell), said(kept), *tolerance) == ""
        assert len(pictures(cell)) == len(pictures(kept))


@pytest.mark.parametrize(
    ("got", "kept", "found"),
    [
        ("gain  0.100 [0.09, 1e-3]", "gain 0.101 [0.09, 0.001]", ""),
        ("gain 0.1", "gain 0.2", "0.1 is not 0.2"),
        ("gain -0.1", "gain 0.1", "-0.1 is not 0.1"),
        ("gain 0.1 yes", "gain 0.1 unclear", "'gain # yes' is not 'gain # unclear'"),
        ("gain 0.1", "gain 0.1 0.1", "'gain #' is not 'gain # #'"),
        ("full-4 (step 4)", "full-5 (step 4)", "'full-4 (step #)' is not 'full-5 (step #)'"),
    ],
)
def test_the_comparison_sees_what_differs(got: str, kept: str, found: str) -> None:
    assert difference(got, kept, 0.02, 2e-3) == found
