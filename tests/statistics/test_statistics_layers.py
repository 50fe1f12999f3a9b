"""The statistics stand on arrays and tables alone: importing them loads no model library."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = (
    "bootstrap",
    "budgets",
    "clusters",
    "columns",
    "definitions",
    "differ",
    "design",
    "formulas",
    "gaps",
    "measured",
    "noise",
    "normalize",
    "overlap",
    "placebo",
    "ranking",
    "redraw",
    "regression",
    "robust",
    "rules",
    "selectors",
    "signals",
    "support",
    "token_files",
    "tokens",
)


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
    "library", ["torch", "transformers", "tokenizers", "matplotlib", "scipy", "patsy"]
)
def test_statistics_import_without(library: str, loaded: set[str]) -> None:
    assert library not in loaded


@pytest.mark.parametrize("library", ["numpy", "pandas", "diagnostics.statistics.tokens"])
def test_the_check_sees_what_is_imported(library: str, loaded: set[str]) -> None:
    assert library in loaded
