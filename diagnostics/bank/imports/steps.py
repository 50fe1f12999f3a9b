"""Which steps of a trainer a bank is made of.

A bank holds rollouts of one student. Step by step a trainer's student changes, so without a word
the first step on disk is taken: the student that is nearest to theta_0.
"""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.errors import InputError

ALL = "all"


def choose_steps(there: Sequence[int], wanted: str | None, where: str) -> list[int]:
    """The steps to take of those `there`: the first, or those that `wanted` names.

    `wanted` is `all`, or numbers and ranges as `5`, `1-20`, `1,3,5-7`. Raises InputError for other
    words, and where a single number or a whole range is not there.
    """
    known = sorted(set(there))
    if wanted is None or wanted == ALL:
        return known if wanted == ALL else known[:1]
    ranges = _ranges(wanted)
    missing = [r for r in ranges if not any(step in r for step in known)]
    if missing:
        raise InputError(
            where=f"--step {wanted}",
            expected=f"steps of {where}: {shown_steps(known)}",
            got=shown_steps([missing[0][0], missing[0][-1]]),
            fix="choose among them",
        )
    return [step for step in known if any(step in r for r in ranges)]


def shown_steps(steps: Sequence[int]) -> str:
    """Steps in few words: all of a handful, else how many and from where to where."""
    if not steps:
        return "none"
    if len(set(steps)) <= 6:
        return ", ".join(map(str, dict.fromkeys(steps)))
    return f"{len(steps)} steps from {steps[0]} to {steps[-1]}"


def _ranges(wanted: str) -> list[range]:
    found = []
    for part in wanted.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last if dash else first)
        if not all(n.isdecimal() and len(n) < 12 for n in numbers) or int(first) > int(numbers[1]):
            raise InputError(
                where="--step",
                expected="`all`, or numbers and ranges as 5, 1-20 or 1,3,5-7",
                got=repr(wanted),
                fix="name steps that way",
            )
        found.append(range(int(first), int(numbers[1]) + 1))
    return found
