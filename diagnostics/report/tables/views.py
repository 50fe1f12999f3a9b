"""How a table is shown to people: which columns, under which headings, in which form.

CSV files hold every column at full precision; the page and the Markdown and LaTeX twins show these
views. A cell is formatted here once for all three. A number that is not above the noise of scoring
carries a dagger, and the note under its table says what that noise is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from diagnostics.report.noise import marked

Kind = Literal["text", "count", "number", "interval", "share", "points", "spread"]

VERDICTS = {"yes": "Yes", "no": "No", "unclear": "Not clear"}
DAGGER = "†"
NOT_MEASURED = "not measured (the run has no noise floor)"

LABELS: dict[Any, str] = {
    True: "yes",
    False: "no",
    "unclear": "not clear",
    "gain": "gain",
    "gain_rel": "relative gain",
    "beta": "β_L − β_I, bank",
    "beta_q3": "β_L − β_I, Q3",
    "gap": "support gap, Q3",
    "matched": "matched gap, Q3",
    "budget": "top 5 % by D^L less by KL",
    "cr3": "CR3",
    "beta by K": "β_L − β_I, bank, by K",
    "beta_q3 by K": "β_L − β_I, Q3, by K",
    "gap by K": "support gap, Q3, by K",
    "gap by proxy": "support gap, Q3, by proxy",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One shown column. Fields: `heading`; `column` of the frame; `kind`; `suffix` of intervals."""

    heading: str
    column: str
    kind: Kind = "number"
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One shown table. Fields: `title`; `caption` that defines every symbol; `columns`."""

    title: str
    caption: str
    columns: tuple[Shown, ...]


def cells(frame: pd.DataFrame, columns: tuple[Shown, ...]) -> pd.DataFrame:
    """The shown columns as text, one row a row of the frame."""
    rows = frame.to_dict("records")
    return pd.DataFrame({c.heading: [cell(row, c) for row in rows] for c in columns})


def cell(row: dict[Any, Any], shown: Shown) -> str:
    """One cell as text; a missing value is a dash, a missing interval is said."""
    if shown.kind == "spread":
        return spread(row[f"{shown.column}_mean"], row.get(f"{shown.column}_sd", math.nan))
    value = row[shown.column + shown.suffix]
    if shown.kind == "text":
        return LABELS.get(value, str(value))
    if pd.isna(value):
        return "–"
    if shown.kind == "count":
        return f"{int(value):,}"
    if shown.kind == "share":
        return percent(value)
    if shown.kind == "points":
        return points(value)
    if shown.kind == "interval":
        low, high = (row[f"{shown.column}_{end}{shown.suffix}"] for end in ("low", "high"))
        known = low == low and marked(row, shown.column, shown.suffix)
        return ended(value, low, high) + (f" {DAGGER}" if known else "")
    return number(value)


def noise_note(frame: pd.DataFrame, columns: tuple[Shown, ...], noise: pd.DataFrame) -> str:
    """What an unchanged checkpoint shows in a table's gains, one sentence a run.

    `noise` is the table of that name. Empty for a table without gains.
    """
    gains = [c for c in columns if f"{c.column}_noise{c.suffix}" in frame]
    if not gains:
        return ""
    several = frame["run"].nunique() > 1
    sentences = []
    for run, rows in frame.groupby("run", sort=False):
        kinds = noise[(noise["run"] == run) & (noise["counts"] == "yes")]["kind"]
        of = f" in {run}" if several else ""
        said = f"({', '.join(kinds)}): {_noise_words(rows, gains)}" if len(kinds) else NOT_MEASURED
        sentences.append(f"Noise of scoring{of} {said}.")
    if any(marked(row, c.column, c.suffix) for row in frame.to_dict("records") for c in gains):
        sentences.append(f"{DAGGER} Not above the noise of scoring.")
    return " ".join(sentences)


def _noise_words(rows: pd.DataFrame, gains: list[Shown]) -> str:
    sizes = [f"{c.heading} {plus_minus(rows[f'{c.column}_noise{c.suffix}'].max())}" for c in gains]
    return f"an unchanged checkpoint comes at most this far from 0: {', '.join(sizes)}"


def plus_minus(noise: float) -> str:
    """A size of noise as ±; said where it was not measured."""
    return f"±{number(noise)}" if noise == noise else "not measured (too few positions)"


def ended(estimate: float, low: float, high: float, reason: str = "") -> str:
    """An estimate with its interval in brackets; why it has none, where it has none."""
    if low == low:
        return f"{number(estimate)} [{number(low)}, {number(high)}]"
    return f"{number(estimate)} (no interval{f': {reason}' if reason else ''})"


def percent(value: float) -> str:
    """A share in per cent: whole where it is whole."""
    whole = abs(value * 100 - round(value * 100)) < 1e-9
    return f"{100 * value:.{0 if whole else 1}f} %"


def points(value: float) -> str:
    """A score or a difference of scores, per cent: two decimals, a real minus sign."""
    return f"{value:.2f}".replace("-", "−")


def spread(mean: float, sd: float) -> str:
    """A mean with its deviation as mean ± sd; without one where there is none."""
    if pd.isna(mean):
        return "–"
    return points(mean) if pd.isna(sd) else f"{points(mean)} ± {points(sd)}"


def number(value: float) -> str:
    """Three significant digits, a real minus sign, no exponent in the usual range."""
    if value == 0:
        return "0"
    size = abs(value)
    if 1e-4 <= size < 1e5:
        text = f"{value:.3f}" if 0.1 <= size < 100 else f"{value:#.3g}".rstrip(".")
    else:
        text = f"{value:.2e}"
    return text.replace("-", "−")
