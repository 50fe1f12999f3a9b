"""What an analysis takes: the token table of one checkpoint, or an opened run narrowed to one.

`on_table` is the one line that makes a function of a table take a run as well (`opened`). A table
of several checkpoints is refused by name: numbers over all of them together answer no question.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

import pandas as pd

from diagnostics.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


class HasTable(Protocol):
    """An opened run."""

    def table(self, k: int | None = None, checkpoint: str | None = None) -> pd.DataFrame:
        """The token table of one checkpoint, not to be changed."""

    def tokens(self, k: int | None = None, checkpoint: str | None = None) -> pd.DataFrame:
        """The token table of the chosen checkpoint, or of all."""


Source: TypeAlias = pd.DataFrame | HasTable


def as_frame(source: Source, checkpoint: str | None = None, k: int | None = None) -> pd.DataFrame:
    """The token table of one checkpoint.

    `checkpoint` and `k` choose from a run; of a table they choose a checkpoint's rows. Raises
    InputError for several checkpoints and none chosen, one that is not there, or anything else
    than a table or an opened run.
    """
    if not isinstance(source, pd.DataFrame):
        if not hasattr(source, "table"):
            raise InputError(
                where="analysis",
                expected="a token table or an opened run",
                got=type(source).__name__,
                fix="open a run with `open_run(folder)`, or read a table with `read_tokens(file)`",
            )
        return source.table(k, checkpoint)
    if "checkpoint" not in source:
        return source
    names = [str(name) for name in source["checkpoint"].unique()]
    if checkpoint is not None and checkpoint in names:
        return source[source["checkpoint"] == checkpoint]
    if checkpoint is not None or len(names) > 1:
        raise _not_one(names, checkpoint)
    return source


def on_table(
    analysis: Callable[Concatenate[pd.DataFrame, P], R],
) -> Callable[Concatenate[Source, P], R]:
    """Makes an analysis of one checkpoint's table take an opened run too, as its first argument."""

    @wraps(analysis)
    def taking(frame: Source, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return analysis(as_frame(frame), *args, **kwargs)

    return taking


def require_one(names: list[str], chosen: str | None, where: str) -> str:
    """The one checkpoint of a run that is meant. Raises InputError for several and none chosen."""
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen is None or chosen not in names:
        raise _not_one(names, chosen, where)
    return chosen


def _not_one(names: list[str], chosen: str | None, where: str = "token table") -> InputError:
    if chosen is None:
        return InputError(
            where=where,
            expected="one checkpoint",
            got=", ".join(names),
            fix=f'choose one with run.at("{names[0]}") or frame[frame["checkpoint"] == …]',
        )
    return InputError(
        where=where,
        expected=f"a checkpoint among {', '.join(names) or '(none scored)'}",
        got=repr(chosen),
        fix="choose one of them",
    )
