"""Problem sheets as a prompts file, the way users bring theirs."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from diagnostics.embedded.problems import sheets
from diagnostics.files import write_text


def write_prompts(path: Path, seed: int, count: int, *, held_out: bool = False) -> None:
    """The first `count` sheets of a seed as JSONL with `prompt` and `answers`."""
    chosen = islice(sheets(seed, held_out=held_out), count)
    rows = [{"prompt": sheet.prompt, "answers": list(sheet.answers)} for sheet in chosen]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
