"""The walls between layers: what imports what, and what stays light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diagnostics

PACKAGE = Path(diagnostics.__file__).parent
HEAVY = ("torch", "transformers")

# Each layer may import from those to its left and from itself; selection, training and alignment
# stand beside the report: training imports selection too.
ORDER = ("models", "bank", "scoring", "statistics", "report")
ALLOWED = {layer: set(ORDER[: place + 1]) for place, layer in enumerate(ORDER)} | {
    "selection": {*ORDER[:4], "selection"},
    "training": {*ORDER[:4], "selection", "training"},
    "alignment": {*ORDER[:4], "alignment"},
    "paper": {"paper"},
    "downstream": {"paper", "statistics", "downstream"},
}
ALLOWED["report"] |= {"paper", "downstream"}
COMMON = {"errors", "files", "progress", "schema"}  # below every layer


def imported(source: str) -> Iterator[str]:
    """Full names of the modules of this package that a source imports, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute in this project"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "diagnostics")


def offences(layer: str, source: str) -> list[str]:
    """Imports that a module of a layer may not have."""
    allowed = ALLOWED[layer] | COMMON | {"__version__"}
    return [name for name in imported(source) if [*name.split("."), ""][1] not in allowed]


def loaded_by(statement: str, *names: str) -> list[str]:
    """Which of the named libraries a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def modules() -> list[tuple[str, Path]]:
    return [(layer, path) for layer in ALLOWED for path in sorted((PACKAGE / layer).rglob("*.py"))]


@pytest.mark.parametrize(
    ("layer", "path"), modules(), ids=lambda x: x.stem if isinstance(x, Path) else x
)
def test_layer_imports_from_its_left_alone(layer: str, path: Path) -> None:
    assert offences(layer, path.read_text(encoding="utf-8")) == []


def test_every_layer_has_modules_to_check() -> None:
    assert {layer for layer, path in modules() if path.stem != "__init__"} == set(ALLOWED)


@pytest.mark.parametrize(
    ("layer", "source", "found"),
    [
        ("models", "from diagnostics.bank.build import x", ["diagnostics.bank.build.x"]),
        ("bank", "def f():\n    import diagnostics.scoring.run", ["diagnostics.scoring.run"]),
        ("scoring", "from diagnostics import statistics", ["diagnostics.statistics"]),
        ("statistics", "if 1:\n  from diagnostics.report import a", ["diagnostics.report.a"]),
        ("report", "from diagnostics.training import masks", ["diagnostics.training.masks"]),
        ("training", "import diagnostics.report.page as p", ["diagnostics.report.page"]),
        ("alignment", "from diagnostics.report import write", ["diagnostics.report.write"]),
        ("alignment", "from diagnostics.training import masks", ["diagnostics.training.masks"]),
        ("report", "from diagnostics.alignment import align", ["diagnostics.alignment.align"]),
        ("report", "from diagnostics.demo import run_demo", ["diagnostics.demo.run_demo"]),
        ("models", "import diagnostics", ["diagnostics"]),
        ("paper", "import diagnostics.downstream.tables", ["diagnostics.downstream.tables"]),
        ("downstream", "from diagnostics.report import views", ["diagnostics.report.views"]),
        ("statistics", "from diagnostics.paper.tables import x", ["diagnostics.paper.tables.x"]),
        ("downstream", "from diagnostics.paper.tables import paper_table", []),
        ("statistics", "from diagnostics.scoring.run import Run\nimport torch", []),
        ("report", "from diagnostics import __version__", []),
    ],
)  # fmt: skip
def test_the_check_of_layers_can_fail(layer: str, source: str, found: list[str]) -> None:
    assert offences(layer, source) == found


INSIDE = ("inference", "tables", "selection", "analyses", "streaming")  # of the statistics


def inner_offences(folder: str, source: str) -> list[str]:
    """Imports of a module of the statistics from a folder to its right."""
    later = INSIDE[INSIDE.index(folder) + 1 :]
    return [n for n in imported(source) if [*n.split("."), ""][2] in later]


@pytest.mark.parametrize("folder", INSIDE)
def test_folders_of_the_statistics_import_from_their_left_alone(folder: str) -> None:
    paths = sorted((PACKAGE / "statistics" / folder).glob("*.py"))
    assert len(paths) > 2
    assert [o for path in paths for o in inner_offences(folder, path.read_text("utf-8"))] == []


def test_every_module_of_the_statistics_lies_in_a_folder() -> None:
    assert [path.stem for path in (PACKAGE / "statistics").glob("*.py")] == ["__init__"]
    assert {path.name for path in (PACKAGE / "statistics").iterdir() if path.is_dir()} - {
        "__pycache__"
    } == set(INSIDE)


@pytest.mark.parametrize(
    ("folder", "source", "found"),
    [
        ("tables", "from diagnostics.statistics.analyses import gaps", 1),
        ("inference", "def f():\n    import diagnostics.statistics.tables.tokens", 1),
        ("analyses", "from diagnostics.statistics.inference.bootstrap import Interval", 0),
    ],
)
def test_the_check_of_folders_can_fail(folder: str, source: str, found: int) -> None:
    assert len(inner_offences(folder, source)) == found


def test_importing_the_package_is_light() -> None:
    assert loaded_by("import diagnostics", *HEAVY, "pandas", "numpy", "pyarrow") == []


def test_statistics_and_report_import_without_torch() -> None:
    names = (
        "statistics.tables.tokens",
        "statistics.analyses.regression",
        "statistics.analyses.gaps",
        "statistics.analyses.budgets",
        "report.contexts.analysis",
        "report.downstream",
        "paper.arithmetic",
    )
    statement = "import " + ", ".join(f"diagnostics.{name}" for name in names)
    assert loaded_by(statement, *HEAVY) == []


def test_the_check_of_lightness_can_fail(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")  # stands in for the library: quick to import
    (tmp_path / "offender.py").write_text("def f():\n    pass\nimport torch\n")
    statement = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import offender"
    assert loaded_by(statement, *HEAVY) == ["torch"]
