"""The design of a study as a terminal shows it: a short table, then plain sentences."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diagnostics.statistics.analyses.design import Design, NumberDesign
from diagnostics.statistics.analyses.headlines import BUDGET, Headline

NAMES: dict[Headline, str] = {
    "gain": "the mean gain",
    "beta": "beta_L - beta_I",
    "beta_q3": "beta_L - beta_I inside Q3",
    "gap": "the support gap in Q3",
    "matched": "the matched gap in Q3",
    "budget": f"the gain of the top {BUDGET:.0%} by D^L less that by KL",
}
HEADS = ("number", "pilot", "+-", "wanted", "prompts", "corr.", "design")
OTHERS = ("rollouts", "positions", "number", "+-", "prompts", "positions in all")


def show(design: Design, console: Console, *, whole: bool = False) -> None:
    """Prints a design; `whole` adds each number's table of rollouts and positions."""
    console.print(Text(opening(design)), soft_wrap=True)
    console.print("", _summary(design), "", sep="\n")
    if whole:
        for number in design.numbers:
            console.print(_others(number), "", sep="\n")
    for sentence in sentences(design):
        console.print(Text(sentence), soft_wrap=True)


def opening(design: Design) -> str:
    """One line of what the pilot is."""
    name = f"checkpoint {design.checkpoint}, " if design.checkpoint else ""
    return (
        f"Pilot: {name}{design.prompts} prompts with {_rollouts(design.rollouts)} of up to "
        f"{design.positions} positions, {design.total_positions} in all; definitions "
        f"{design.definitions}, 95 % intervals"
    )


def sentences(design: Design) -> Iterator[str]:
    """What each number asks for, one paragraph each, and what the pilot cannot tell."""
    for number in design.numbers:
        name = NAMES[number.statistic]
        if number.prompts_needed is None:
            has = number.half_width
            gives = f"; {design.prompts} prompts give about +-{has:.2g}" if has == has else ""
            yield f"No number of prompts for {name}: {number.reason}{gives}."
        else:
            yield f"{_needs(design, number, name)} {_instead(design, number)}".rstrip()
    if design.reason:
        yield f"The pilot has {design.reason}."


def _needs(design: Design, number: NumberDesign, name: str) -> str:
    count = 2 * number.error
    sure = f", give or take {count:.0%} or more" if count == count else ""
    return (
        f"For an interval of +-{number.wanted:.2g} on {name} you need about "
        f"{number.prompts_needed} prompts{sure}, with {_rollouts(design.rollouts)} of up to "
        f"{design.positions} positions; you have {design.prompts}, which give about "
        f"+-{number.half_width:.2g}."
    )


def _instead(design: Design, number: NumberDesign) -> str:
    """Other numbers of rollouts, as long as the pilot's."""
    table = number.table
    rows = table[(table["positions"] == design.positions) & (table["rollouts"] != design.rollouts)]
    said = [f"{_counts(row)} with {_rollouts(row['rollouts'])}" for _, row in rows.iterrows()]
    return f"Or {', '.join(said)}." if said else ""


def _counts(row: pd.Series) -> str:
    low, high = row["prompts_low"], row["prompts"]
    return f"{high}" if low == high else f"{low} to {high}"


def _rollouts(count: float) -> str:
    return "1 rollout" if count == 1 else f"{count:.3g} rollouts"


def _summary(design: Design) -> Table:
    table = _empty(HEADS)
    for number in design.numbers:
        value = number.estimate
        shown = f"{value.estimate:.3g} [{value.low:.2g}, {value.high:.2g}]"
        needed = number.prompts_needed
        table.add_row(
            number.statistic,
            Text(shown if value.low == value.low else _figure(value.estimate, 3)),
            _figure(number.half_width),
            _figure(number.wanted),
            "-" if needed is None else f"{needed}",
            _figure(number.correlation),
            _figure(number.design_effect),
        )
    return table


def _others(number: NumberDesign) -> Table:
    table = _empty(OTHERS, title=number.statistic)
    for _, row in number.table.iterrows():
        known = row["prompts"] is not pd.NA
        table.add_row(
            f"{row['rollouts']:.3g}",
            f"{row['positions']}",
            _figure(row["estimate"], 3),
            _figure(row["half_width"]),
            _counts(row) if known else "-",
            f"{row['total_positions']}" if known else "-",
        )
    return table


def _empty(heads: tuple[str, ...], title: str | None = None) -> Table:
    table = Table(box=None, title=title, title_justify="left", padding=(0, 2, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _figure(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}g}" if value == value else "-"
