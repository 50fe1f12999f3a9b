"""Where the embedded pair's weights lie."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
TEACHER = WEIGHTS / "teacher"
STUDENT = WEIGHTS / "student"
