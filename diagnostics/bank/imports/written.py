"""One rollout as a trainer wrote it, and the checks of the values in it.

Nothing here knows a format. A value that is not what it must be is refused with the file and the
row it stands in: a bank made of guesses would be scored without complaint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diagnostics.bank.prompts import Messages
from diagnostics.errors import InputError

NEAR_ZERO = 1e-3  # a log-probability that a half-precision sampler rounded upwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A rollout before it is in a bank. None: the file does not say.

    Fields: `where` file and row; `step` of the trainer; `prompt` and `response` as text, `prompt`
    also as messages; `prompt_ids` and `response_ids` their token ids; `loss_mask` and `logprobs`
    (nats), one entry a response token; `skipped` why the row is no rollout to learn from.
    """

    where: str
    step: int | None = None
    prompt: str | Messages | None = None
    response: str | None = None
    prompt_ids: list[int] | None = None
    response_ids: list[int] | None = None
    loss_mask: list[bool] | None = None
    logprobs: list[float] | None = None
    prompt_id: str | None = None
    teacher_prompt: str | Messages | None = None
    skipped: str | None = None

    def cut(self, longest: int | None) -> Written:
        """The rollout with its first `longest` response tokens; ids must be known."""
        if longest is None or self.response_ids is None or len(self.response_ids) <= longest:
            return self
        return replace(
            self,
            response_ids=self.response_ids[:longest],
            loss_mask=None if self.loss_mask is None else self.loss_mask[:longest],
            logprobs=None if self.logprobs is None else self.logprobs[:longest],
        )


def bad_value(where: str, expected: str, value: object) -> InputError:
    """What is said of a value that a row may not hold."""
    shown = "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
    return InputError(where=where, expected=expected, got=shown, fix="drop or mend the row")


def field(row: Mapping[str, Any], name: str, where: str) -> Any:
    """A value that a row must have."""
    if row.get(name) is None:
        raise InputError(
            where=where,
            expected=f"a value in `{name}`",
            got=f"fields {', '.join(map(str, row))[:160] or '(none)'}",
            fix="check that this is the format the file was written in",
        )
    return row[name]


def text(value: Any, where: str, name: str) -> str:
    """A text that can be encoded; half a surrogate pair, as broken JSON may hold, cannot."""
    if not isinstance(value, str):
        raise bad_value(where, f"text in `{name}`", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            where=where,
            expected=f"whole Unicode characters in `{name}`",
            got=f"half a surrogate pair at character {error.start}",
            fix="drop or mend the row",
        ) from error
    return value


def whole_number(value: Any, where: str, name: str) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise bad_value(where, f"a whole number from 0 in `{name}`", value)
    return value


def token_ids(value: Any, where: str, name: str) -> list[int]:
    """Token ids: whole numbers from 0 in a list, an array or a tensor."""
    return [whole_number(item, where, name) for item in listed(value, where, name)]


def listed(value: Any, where: str, name: str) -> list[Any]:
    """A list of values; arrays and tensors become lists."""
    found = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(found, list | tuple):
        raise bad_value(where, f"a list in `{name}`", value)
    return list(found)


def mask(value: Any, length: int, where: str, name: str) -> list[bool]:
    """A loss mask of zeros and ones (or booleans), `length` long."""
    items = _of_length(value, length, where, name)
    for item in items:
        if not isinstance(item, bool | int | float) or item not in (0, 1):
            raise bad_value(where, f"zeros and ones in `{name}`", item)
    return [bool(item) for item in items]


def logprobs(value: Any, length: int, where: str, name: str) -> list[float]:
    """Log-probabilities in nats, `length` long: numbers of at most 0."""
    items = _of_length(value, length, where, name)
    for item in items:
        number = isinstance(item, int | float) and not isinstance(item, bool)
        if not number or not math.isfinite(item) or item > NEAR_ZERO:
            raise bad_value(where, f"log-probabilities of at most 0 in `{name}`", item)
    return [min(float(item), 0.0) for item in items]


def _of_length(value: Any, length: int, where: str, name: str) -> list[Any]:
    items = listed(value, where, name)
    if len(items) != length:
        raise InputError(
            where=where,
            expected=f"{length} entries in `{name}`, one a response token",
            got=str(len(items)),
            fix="drop or mend the row",
        )
    return items


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with the line it stands in; empty lines are passed over."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}, line {number}", json_object(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            where=str(path),
            expected="a readable JSONL file in UTF-8",
            got=" ".join(str(error).split())[:120],
            fix="check the path, or write the file again",
        ) from error


def json_object(line: str, where: str) -> dict[str, Any]:
    """One JSON object. Raises InputError for damage and for anything else."""
    value = json_value(line, where)
    if not isinstance(value, dict):
        raise bad_value(where, "a JSON object", value)
    return value


def json_value(line: str, where: str) -> Any:
    """One JSON value. Raises InputError for damage, and for nesting beyond all sense."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            where=where,
            expected="JSON",
            got=f"damage ({' '.join(str(error).split())[:120]})",
            fix="drop or mend the row",
        ) from error
