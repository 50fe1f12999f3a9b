"""Whether a record is valid by the schema of results.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from diagnostics.report.json_schema import stored_schema


def faults(record: dict[str, Any]) -> list[str]:
    """Where a record breaks the schema, and how."""
    found = Draft202012Validator(stored_schema()).iter_errors(record)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in found]


def faults_of(folder: Path) -> list[str]:
    """The same of a report folder."""
    return faults(json.loads((folder / "results.json").read_text(encoding="utf-8")))
