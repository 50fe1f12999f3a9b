"""The statistics stand on arrays and tables alone: importing them loads no model library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import diagnostics

COMPILED = (  # imported when used: they load numba
    "inference.medians_compiled",
    "streaming.ranks_compiled",
    "analyses.redraw_compiled",
    "streaming.keys_compiled",
    "streaming.sums_compiled",
)
FOLDER = Path(diagnostics.__file__).parent / "statistics"
FOUND = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("[a-z]*.py")
}
MODULES = tuple(sorted(FOUND - set(COMPILED)))


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Modules that a fresh interpreter holds after importing all of the statistics."""
    imports = "; ".join(f"import diagnostics.statistics.{name}" for name in MODULES)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "library",
    ["torch", "transformers", "tokenizers", "matplotlib", "scipy", "patsy", "numba", "ray"],
)
def test_statistics_import_without(library: str, loaded: set[str]) -> None:
    assert library not in loaded


@pytest.mark.parametrize("library", ["numpy", "pandas", "diagnostics.statistics.tables.tokens"])
def test_the_check_sees_what_is_imported(library: str, loaded: set[str]) -> None:
    assert library in loaded
