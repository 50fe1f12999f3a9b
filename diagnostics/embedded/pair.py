"""Where the embedded pair's weights lie."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
TEACHER = WEIGHTS / "teacher"
STUDENT = WEIGHTS / "student"


def as_model(folder: Path) -> str:
    """The folder as a MODEL: relative where it lies below the working folder.

    Banks and reports state their models, and a path of one machine says nothing on another.
    """
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
