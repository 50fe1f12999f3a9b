"""Which printed cells of the paper's tables do not follow from its other printed cells.

Every check recomputes a cell from cells of the same paper and allows what rounding may do: half a
unit in the last printed digit of every cell that goes in, carried through the formula, plus half a
unit of the cell itself. The same number printed twice with the same digits must be the same text.
All sums are exact (fractions), so that a difference at the edge of its tolerance is decided right.

Checked: Avg. = mean of the six benchmarks (Tables 3, 4, 12); Table 11 = averages of Table 4; rows
that Tables 3, 4 and 12 share; the two bases of one student (3); gap = beta_L - beta_I (9); gain /
keep (2 at 3 %, 2 at 5 % with Table 10's keep, 8); Table 2's contrast and keep = Table 10's; Jaccard
= overlap (6); Table 6's C mass = Table 1's gap; every estimate within its interval (1, 6, 8, 9).

Not covered: whether a number is right; the text; counts of seeds (`seeds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

import pandas as pd

from diagnostics.paper.tables import PAPER_TABLES, printed_table

Tables = Mapping[str, pd.DataFrame]
Row = Mapping[str, str]

FINDING_COLUMNS = ("table", "row", "column", "check", "printed", "recomputed", "tolerance")
TEACHER_14B = "Qwen3-14B → 1.7B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One printed cell against what the others say.

    Fields: `table`, `row` and `column` name the cell; `check` the rule; `printed` its text;
    `recomputed` the number or text that the rule gives; `tolerance` how far rounding may move it;
    `adds_up` whether they agree.
    """

    table: str
    row: str
    column: str
    check: str
    printed: str
    recomputed: float | str
    tolerance: float
    adds_up: bool


def arithmetic(tables: Tables | None = None) -> pd.DataFrame:
    """The cells that do not add up, one row each, columns FINDING_COLUMNS.

    `tables` as text (`printed_table`); default: the paper's. `printed` is the cell's text,
    `recomputed` what the other cells give in the same unit, `tolerance` what rounding may do.
    """
    found = [asdict(check) for check in checks(tables) if not check.adds_up]
    return pd.DataFrame(found, columns=[*FINDING_COLUMNS])


def checks(tables: Tables | None = None) -> list[Check]:
    """Every comparison that is made, those that add up too; empty cells are passed over."""
    given = {name: printed_table(name) for name in PAPER_TABLES} if tables is None else tables
    rules = (_averages, _shared, _setting, _gaps, _per_keep, _contrasts, _proxies, _intervals)
    return [check for rule in rules for check in rule(given)]


def as_markdown(findings: pd.DataFrame) -> str:
    """The findings as a Markdown table, as `docs/paper-tables.md` shows them."""
    lines = ["| " + " | ".join(FINDING_COLUMNS) + " |", "|" + "---|" * len(FINDING_COLUMNS)]
    for row in findings.to_dict("records"):
        cells = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def half_unit(text: str) -> Fraction:
    """Half a unit in the last printed digit: 1/200 for 0.10, 1/2 for 3."""
    decimals = len(text.partition(".")[2])
    return Fraction(1, 2 * 10**decimals)


def _averages(tables: Tables) -> Iterator[Check]:
    """Avg. is the mean of the benchmarks' printed means (3, 4, 12)."""
    for name in ("table03", "table04", "table12"):
        for row in _rows(tables[name]):
            means = [row[c] for c in row if c.endswith("_mean")]
            spread = sum(map(half_unit, means), Fraction()) / len(means)
            mean = sum(map(Fraction, means), Fraction()) / len(means)
            yield _number(name, row, "average", "mean of the six benchmarks", mean, spread)


def _shared(tables: Tables) -> Iterator[Check]:
    """What is printed in two tables is the same there."""
    three, four = _rows(tables["table03"]), _rows(tables["table04"])
    budgeted = [row for row in three if row["budget"] == "0.10"]
    yield from _same("table04", four, budgeted, "table 3", ("setting", "budget", "selector"))
    yield from _same(
        "table11", _rows(tables["table11"]), four, "table 4", ("setting", "budget", "selector")
    )
    bases = [row for row in three if row["selector"] == "base" and "→ Qwen3-4B" in row["setting"]]
    yield from _same("table03", bases[1:], bases[:1], "the other 4B base", ("selector",))


def _setting(tables: Tables) -> Iterator[Check]:
    """Table 12's rows are those of the setting that it states, in Table 3."""
    twelve, three = _rows(tables["table12"]), _rows(tables["table03"])
    stated = twelve[0]["setting"]
    numbers = [c for c in twelve[0] if c not in ("setting", "budget", "selector")]
    own = {tuple(row[c] for c in ("selector", *numbers)) for row in twelve}
    held = {
        setting: len(own & {tuple(r[c] for c in ("selector", *numbers)) for r in rows})
        for setting, rows in _grouped(three, "setting").items()
    }
    most = max(held, key=lambda setting: (held[setting], setting == stated))
    yield Check(
        table="table12",
        row="all rows shared with table 3",
        column="setting",
        check=f"the setting whose rows of table 3 these are ({held[most]} whole rows)",
        printed=stated,
        recomputed=most if held[most] else "none",
        tolerance=0.0,
        adds_up=most == stated and held[most] > 0,
    )


def _gaps(tables: Tables) -> Iterator[Check]:
    """gap = beta_L - beta_I (9)."""
    for row in _rows(tables["table09"]):
        spread = half_unit(row["beta_l"]) + half_unit(row["beta_i"])
        gap = Fraction(row["beta_l"]) - Fraction(row["beta_i"])
        yield _number("table09", row, "gap", "beta_L - beta_I", gap, spread)


def _per_keep(tables: Tables) -> Iterator[Check]:
    """Gain over the share kept (2 by its own keep, else Table 10's; 8 by the exact budget)."""
    swept = {(r["selector"], r["budget"]): r["keep"] for r in _rows(tables["table10"])}
    for row in _rows(tables["table02"]):
        keep = row["keep"] or swept.get((row["selector"], row["budget"]), "")
        if keep and row["contrast"]:
            said = "contrast / keep" if row["keep"] else "contrast / table 10's keep"
            ratio, spread = _ratio(row["contrast"], keep, half_unit(keep))
            yield _number("table02", row, "contrast_per_keep", said, ratio, spread)
    for row in _rows(tables["table08"]):
        ratio, spread = _ratio(row["gain"], row["budget"], Fraction())
        yield _number("table08", row, "gain_per_keep", "gain / budget", ratio, spread)


def _contrasts(tables: Tables) -> Iterator[Check]:
    """Table 2's contrast and keep are Table 10's."""
    two, ten = _rows(tables["table02"]), _rows(tables["table10"])
    yield from _same("table02", two, ten, "table 10", ("selector", "budget"))


def _proxies(tables: Tables) -> Iterator[Check]:
    """Jaccard is a monotone function of overlap; C mass of Q3 is Table 1's gap (14B, 1.7B)."""
    six = _rows(tables["table06"])
    overlap = [row for row in six if row["proxy"] == "overlap"]
    jaccard = [row for row in six if row["proxy"] == "jaccard"]
    yield from _same("table06", jaccard, overlap, "overlap", ("top_k",))
    mass = [row for row in six if row["proxy"] == "compatibility"]
    one = [
        {c: v for c, v in row.items() if c != "n_positions"}  # Q3 alone there, the bank here
        for row in _rows(tables["table01"])
        if row["setting"] == TEACHER_14B
    ]
    yield from _same("table06", mass, one, "table 1", ("setting", "top_k"))


def _intervals(tables: Tables) -> Iterator[Check]:
    """Every estimate lies within its printed interval."""
    for name in ("table01", "table06", "table08", "table09"):
        for row in _rows(tables[name]):
            column = "gain" if "gain_low" in row else "gap"
            ends = (f"{column}_low", column, f"{column}_high")
            low, here, high = (Fraction(row[c]) for c in ends)
            inside = min(max(here, low), high)
            yield _number(name, row, column, "within its interval", inside, Fraction())


def _same(
    name: str, rows: Sequence[Row], others: Sequence[Row], where: str, keys: tuple[str, ...]
) -> Iterator[Check]:
    """Cells of rows and columns that two lists share; equal digits must be equal text."""
    known = {tuple(row[k] for k in keys): row for row in others}
    for row in rows:
        other = known.get(tuple(row[k] for k in keys))
        for column, text in row.items() if other else ():
            twin = other.get(column, "") if other else ""
            if column in (*keys, "setting", "proxy", "selector") or not (text and twin):
                continue
            alike = half_unit(text) == half_unit(twin)
            spread = -half_unit(text) if alike else half_unit(twin)
            yield _number(name, row, column, f"the same as in {where}", Fraction(twin), spread)


def _number(
    name: str, row: Row, column: str, check: str, recomputed: Fraction, spread: Fraction
) -> Check:
    """A check of a number; `spread` is what rounding of the cells that went in may do."""
    tolerance = spread + half_unit(row[column])
    keys = ("setting", "context", "top_k", "proxy", "selector", "budget")
    return Check(
        table=name,
        row=", ".join(row[key] for key in keys if row.get(key)),
        column=column,
        check=check,
        printed=row[column],
        recomputed=float(recomputed),
        tolerance=float(tolerance),
        adds_up=abs(Fraction(row[column]) - recomputed) <= tolerance,
    )


def _ratio(above: str, below: str, half: Fraction) -> tuple[Fraction, Fraction]:
    """above / below, and the most that rounding of both may move it; `half` is of `below`."""
    a, b, ha = Fraction(above), Fraction(below), half_unit(above)
    ends = [(a + i * ha) / (b + j * half) for i in (-1, 1) for j in (-1, 1)]
    return a / b, max(abs(end - a / b) for end in ends)


def _rows(frame: pd.DataFrame) -> list[dict[str, str]]:
    return [{str(k): str(v) for k, v in row.items()} for row in frame.to_dict("records")]


def _grouped(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


if __name__ == "__main__":
    print(as_markdown(arithmetic()))
