"""The one exception that a user's mistake raises, and the sentence it must make.

Commands turn it into one line on stderr and exit status 1; everything else is a bug and keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TypeVar

Word = TypeVar("Word", bound=str)


class InputError(Exception):
    """Bad input: says where, what was expected, what came and what to do.

    The four parts are required, so that no message can leave one out.
    """

    def __init__(self, *, where: str, expected: str, got: str, fix: str) -> None:
        self.where = where
        self.expected = expected
        self.got = got
        self.fix = fix
        super().__init__(f"{where}: expected {expected}, got {got}; {fix}")


def one_of(name: str, known: Sequence[Word], where: str) -> Word:
    """The known word that `name` is. Raises InputError, listing them, for another one."""
    for word in known:
        if name == word:
            return word
    raise InputError(
        where=where,
        expected=f"one of {', '.join(known)}",
        got=repr(name),
        fix="choose one of them",
    )


def require_packages(extra: str, *packages: str, where: str) -> None:
    """Refuses when a package of an extra is not installed: raises InputError, naming the extra."""
    for package in packages:
        if find_spec(package) is None:
            raise InputError(
                where=where,
                expected=f"the package {package}",
                got="none installed",
                fix=f"pip install 'fixed-context-diagnostics[{extra}]'",
            )
