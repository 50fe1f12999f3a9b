"""Where a token table comes from: its bank, its K and its quadrants, said in `frame.attrs`.

They stand beside the definition set (`definitions`), survive what analyses do with frames, and are
lost with it when tables of different origin are joined. What sets tables side by side asks here
whether they may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.tables.definitions import Definitions, require_one_set

TOP_K, BANK, QUADRANTS = "top_k", "bank_digest", "quadrant_quantile"
MEDIAN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Fields: `definitions`; `top_k` and `quantile` of the quadrants; None where it is not said."""

    definitions: Definitions
    top_k: int | None
    quantile: float


def stamp(frame: pd.DataFrame, top_k: int, bank: str) -> pd.DataFrame:
    """The token table, which from now on says its K and the digest of its bank."""
    frame.attrs |= {TOP_K: top_k, BANK: bank}
    return frame


def bank_of(frame: pd.DataFrame) -> str | None:
    """The digest of a table's bank, None where it is not said."""
    said = frame.attrs.get(BANK)
    return None if said is None else str(said)


def require_median(frame: pd.DataFrame, where: str) -> None:
    """Refuses a table with quadrants at another cut than the median, where they are made anew."""
    quantile = frame.attrs.get(QUADRANTS, MEDIAN)
    if quantile != MEDIAN:
        raise InputError(
            where=where,
            expected="quadrants cut at the median, as they are redone in each draw",
            got=f"cut at the quantile {quantile:g}",
            fix="take intervals whose cuts stay, or the table as it was made",
        )


def require_one_origin(frames: Sequence[pd.DataFrame], where: str) -> Origin:
    """What all tables have in common.

    Raises InputError that names what differs: the definition set, K, or where quadrants are cut.
    """
    definitions = require_one_set(frames, where)
    top_k = _one([frame.attrs.get(TOP_K) for frame in frames], where, "one K", "the same K")
    quantiles = [frame.attrs.get(QUADRANTS, MEDIAN) for frame in frames]
    quantile = _one(quantiles, where, "quadrants cut at one quantile", "the same quantile")
    assert quantile is not None
    return Origin(
        definitions=definitions,
        top_k=None if top_k is None else int(top_k),
        quantile=float(quantile),
    )


def _one(found: list[float | None], where: str, expected: str, same: str) -> float | None:
    """The one value that is said; tables that do not say any agree with all."""
    said = list(dict.fromkeys(value for value in found if value is not None))
    if len(said) > 1:
        raise InputError(
            where=where,
            expected=f"token tables of {expected}",
            got=", ".join(f"{value:g}" for value in said),
            fix=f"make all of them with {same}",
        )
    return said[0] if said else None
