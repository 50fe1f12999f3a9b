"""What every analysis returns: a frozen record that shows itself and becomes a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar

import pandas as pd

from diagnostics.statistics.inference.bootstrap import Interval


class Result:
    """Base of the frozen dataclasses that analyses return."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_frame(self) -> pd.DataFrame:
        """One row; an interval `x` becomes the columns x, x_low and x_high. Frames are left out."""
        return pd.DataFrame([dict(self._cells())])

    def _cells(self) -> Iterator[tuple[str, Any]]:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Interval):
                yield from spread(item.name, value).items()
            elif not isinstance(value, pd.DataFrame):
                yield item.name, value

    def __repr__(self) -> str:
        return _shown(type(self).__name__, {f.name: getattr(self, f.name) for f in fields(self)})


class Tabled(Result):
    """Base of those whose answer is the frame `table`; other fields are about all of it."""

    __slots__ = ()
    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """The table, one line a row of it."""
        return self.table.copy()

    def __repr__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "table"}
        rows = self.table.to_string(index=False, float_format="{:.4g}".format)
        return f"{_shown(type(self).__name__, shown)}\n{rows}"


def _shown(name: str, values: Mapping[str, Any]) -> str:
    width = max(map(len, values))
    return "\n".join([name, *(f"  {key:<{width}}  {_text(v)}" for key, v in values.items())])


def spread(name: str, value: Interval, suffix: str = "") -> dict[str, float]:
    """An interval as three columns."""
    return {
        f"{name}{suffix}": value.estimate,
        f"{name}_low{suffix}": value.low,
        f"{name}_high{suffix}": value.high,
    }


def _text(value: Any) -> str:
    if isinstance(value, pd.DataFrame):
        return f"frame of {len(value)} rows: {', '.join(map(str, value.columns))}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
