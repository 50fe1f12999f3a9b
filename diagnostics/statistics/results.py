"""What every analysis returns: a frozen record that shows itself and becomes a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar

import pandas as pd

from diagnostics.statistics.bootstrap import Interval


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
        shown = [(item.name, getattr(self, item.name)) for item in fields(self)]
        width = max(len(name) for name, _ in shown)
        lines = [f"  {name:<{width}}  {_text(value)}" for name, value in shown]
        return "\n".join([type(self).__name__, *lines])


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
