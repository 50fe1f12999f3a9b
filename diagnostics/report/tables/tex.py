r"""Tables in LaTeX: booktabs, ASCII alone, for pdfLaTeX, XeLaTeX and LuaLaTeX alike.

Symbols become math (β_L is `$\beta_L$`), everything else is escaped, and a letter that no package
of ours can set is written as its code point, so that a table compiles whatever a run is called.
A table that is wider than the line is shrunk to it, turned on its side where that would be too
small, and one that is longer than a page is a `longtable` in a size that fits.
Not covered: alignment at the decimal point.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from diagnostics.report.tables.views import Shown, View

GREEK = {
    letter: "\\" + unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")
    for letter in "αβγδεζηθικλμνξπρστυφχψω"
} | {
    letter: "\\" + unicodedata.name(letter).split()[-1].title().replace("Lamda", "Lambda")
    for letter in "ΓΔΘΛΞΠΣΦΨΩ"
}
MATH = GREEK | {
    "−": "-",
    "×": r"\times",
    "±": r"\pm",
    "·": r"\cdot",
    "≥": r"\geq",
    "≤": r"\leq",
    "≈": r"\approx",
    "≠": r"\neq",
    "→": r"\to",
    "∞": r"\infty",
    "∩": r"\cap",
    "∪": r"\cup",
    "∈": r"\in",
    "√": r"\surd",
    "‖": r"\|",
    "⌈": r"\lceil",
    "⌉": r"\rceil",
    "⌊": r"\lfloor",
    "⌋": r"\rfloor",
    "²": "^2",
    "³": "^3",
    "†": r"^{\dagger}",
}
TEXT = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\`{}",
    "-": "-{}",  # two of them are no dash
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "ß": r"{\ss}",
    "æ": r"{\ae}",
    "Æ": r"{\AE}",
    "ø": r"{\o}",
    "Ø": r"{\O}",
    "œ": r"{\oe}",
    "ł": r"{\l}",
    "Ł": r"{\L}",
    **{character: f"\\{character}" for character in "{}$&#%_"},
}
ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
TILDE = "\u0303"  # over a letter: normalised
_GREEK = "".join(GREEK)
_MARKS = r"(?:[_^][A-Za-z0-9])"
PIECE = re.compile(
    r"(?P<power>−?\d+\.\d+e[−+-]\d+)"
    r"|(?P<negative>−\d+(?:,\d{3})*(?:\.\d+)?)"
    rf"|(?P<letter>[A-Za-z]{TILDE}{_MARKS}*²?"
    rf"|[{_GREEK}](?:{_MARKS}+|[A-Z](?![A-Za-z]))?²?"
    rf"|(?<![A-Za-z0-9_^])(?:theta|[A-Za-z]){_MARKS}+(?![A-Za-z0-9_^])"
    r"|(?<![A-Za-z0-9])[A-Z]²)"
    rf"|(?P<symbol>[{re.escape(''.join(MATH))}])"
    r"|(?P<blank>\s+)"
    r"|(?P<other>.)",
    re.DOTALL,
)

LINE, PAGE = 345.0, 550.0  # a line and a page of the article class at 10 pt
LONG, LONG_TURNED = 36, 18  # rows that one page holds, and one on its side
WIDEST_TEXT = 180.0  # width of a column of texts that is not broken into lines, at 10 pt
SMALLEST = 0.62  # a table that would be shrunk further is turned
WIDTHS = {  # of characters at 10 pt, in points; of others `CHARACTER`
    **dict.fromkeys(".,:;[]iljft'", 3.0),
    **dict.fromkeys(" -()", 3.6),
    **dict.fromkeys("−±×%", 8.2),
    **dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZmw", 7.4),
}
CHARACTER = 5.3
GAP, GAP_STACKED = 8.0, 4.0  # between columns
SIZES = {
    "small": 0.925,
    "footnotesize": 0.85,
    "scriptsize": 0.8,
    "tiny": 0.68,
}  # of letters' widths


def tex_text(text: str) -> str:
    """Text as LaTeX that any engine sets: ASCII alone, symbols as math, the rest escaped."""
    out: list[str] = []
    before = False
    for math, piece in _pieces(unicodedata.normalize("NFC", text)):
        if math and before:
            out[-1] = f"{out[-1][:-1]} {piece}$"
        else:
            out.append(f"${piece}$" if math else piece)
        before = math
    return re.sub(r"-\{\}(?!-)", "-", "".join(out)).strip()


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """(whether it is math, LaTeX) of each piece."""
    for found in PIECE.finditer(text):
        kind, piece = str(found.lastgroup), found[0]
        if kind == "blank":
            yield False, " "
        elif kind == "other":
            yield False, _text(piece)
        else:
            yield True, _math(kind, piece)


def _math(kind: str, piece: str) -> str:
    if kind == "power":
        value, exponent = piece.replace("−", "-").split("e")
        return rf"{value}\times 10^{{{int(exponent)}}}"
    if kind == "negative":
        return piece.replace("−", "-").replace(",", "{,}")
    if kind == "symbol":
        return MATH[piece]
    tilded = re.sub(f"(.){TILDE}", r"\\tilde{\1}", piece).replace("theta", r"\theta")
    letters = "".join(f"{MATH[c]} " if c in GREEK else MATH.get(c, c) for c in tilded)
    return re.sub(r" (?![A-Za-z])", "", letters)


def _text(character: str) -> str:
    if character in TEXT:
        return TEXT[character]
    if " " <= character <= "~":
        return character
    return _accented(character) or f"{{[}}U+{ord(character):04X}{{]}}"


def _accented(character: str) -> str:
    """A Latin letter with one accent; empty for any other character."""
    base, *marks = list(unicodedata.normalize("NFD", character))
    plain = base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in ACCENTS
    return rf"\{ACCENTS[marks[0]]}{{{base}}}" if plain else ""


PACKAGES = (
    "% for pdfLaTeX, XeLaTeX or LuaLaTeX, in one column; its document needs\n"
    "% \\usepackage{array,booktabs,graphicx,longtable,lscape}\n"
)
ALIKE = ("run", "checkpoint", "top_k", "setting", "context")


def latex(
    table: pd.DataFrame, columns: Sequence[Shown], view: View, note: str = "", label: str = ""
) -> str:
    """A LaTeX table of text cells, one a column of `columns`, with its caption and note.

    Its label is `tab:` and `label`. A run, checkpoint, K or setting that all rows share is said
    under the table: a column of it would cost width.
    """
    table, columns, alike = _without_alike(table, columns)
    said = tex_text(" ".join(filter(None, (alike, note))))
    laid = _lay(table)
    wide = laid.stacked and not laid.fits
    make = _shrunk if wide or not laid.long else _long
    body = make(table, columns, _caption(view, label), said, laid.stacked)
    gap = f"{(GAP_STACKED if laid.stacked else GAP) / 2:g}"
    inner = f"\\begingroup\\{laid.size}\\setlength{{\\tabcolsep}}{{{gap}pt}}\n{body}\\endgroup\n"
    side = f"\\begin{{landscape}}\n{inner}\\end{{landscape}}\n" if laid.turned else inner
    return PACKAGES + side


@dataclass(frozen=True, slots=True, kw_only=True)
class _Laid:
    """How a table stands. Fields: `size` of letters; `turned` on its side; `long`, over pages;
    `stacked`: intervals under their numbers; `fits` its page's width."""

    size: str
    turned: bool
    long: bool
    stacked: bool = False
    fits: bool = True


def _lay(table: pd.DataFrame) -> _Laid:
    """The largest way to set a table that fits."""
    turned = _width(table, "footnotesize") * SMALLEST > LINE
    if len(table) <= (LONG_TURNED if turned else LONG):
        return _Laid(size="footnotesize", turned=turned, long=False)
    narrow = table.map(_longest_line)
    for turn, stacked in ((False, False), (True, False), (True, True)):
        for size in SIZES:
            shape, gap = (narrow, GAP_STACKED) if stacked else (table, GAP)
            needed = _width(shape, size, gap)
            if needed <= (PAGE if turn else LINE) and (size != "tiny" or stacked):
                return _Laid(size=size, turned=turn, long=True, stacked=stacked)
    return _Laid(size="tiny", turned=True, long=True, stacked=True, fits=False)


def _caption(view: View, label: str) -> str:
    """Title and caption; the document counts its own tables."""
    title = re.sub(r"^Table \d+: ", "", view.title)
    title = title[:1].upper() + title[1:]
    whole = tex_text(f"{title}. {view.caption}")
    return f"\\caption[{{{tex_text(title)}}}]{{{whole}}}\\label{{tab:{label}}}"


def _shrunk(
    table: pd.DataFrame, columns: Sequence[Shown], caption: str, note: str, stacked: bool
) -> str:
    """Tables of a page each, shrunk to the line where they are wider."""
    under = f"\\par\\smallskip\\parbox{{\\linewidth}}{{{note}}}\n" if note else ""
    rows = LONG_TURNED // 2 if stacked else LONG
    parts = [table[start : start + rows] for start in range(0, max(len(table), 1), rows)]
    again = "\\addtocounter{table}{-1}\\caption[]{Continued.}"
    floats = [
        _float(part, columns, again if i else caption, stacked) for i, part in enumerate(parts)
    ]
    return "".join(floats).removesuffix(END) + under + END


END = "\\end{table}\n"


def _float(table: pd.DataFrame, columns: Sequence[Shown], caption: str, stacked: bool) -> str:
    return (
        f"\\begin{{table}}[tbp]\\centering\n{caption}\n\\smallskip\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{_spec(table, columns)}}}\n"
        f"\\toprule\n{_row(table.columns)}\\midrule\n"
        f"{_rows(table, stacked)}\\bottomrule\n\\end{{tabular}}}}\n{END}"
    )


def _long(
    table: pd.DataFrame, columns: Sequence[Shown], caption: str, note: str, stacked: bool
) -> str:
    """A table of several pages, its head on each."""
    head = f"\\toprule\n{_row(table.columns)}\\midrule\n"
    again = f"\\multicolumn{{{len(columns)}}}{{l}}{{Table \\thetable, continued}}\\tabularnewline\n"
    under = f"\\noindent {note}\\par\n" if note else ""
    return (
        f"\\setlength{{\\LTcapwidth}}{{\\linewidth}}\n"
        f"\\begin{{longtable}}{{{_spec(table, columns)}}}\n{caption}\\tabularnewline\n"
        f"{head}\\endfirsthead\n{again}{head}\\endhead\n\\bottomrule\n\\endfoot\n"
        f"{_rows(table, stacked)}\\end{{longtable}}\n{under}"
    )


def _rows(table: pd.DataFrame, stacked: bool) -> str:
    return "".join(_row(cells, stacked) for cells in table.itertuples(index=False))


def _row(cells: Sequence[str], stacked: bool = False) -> str:
    """One line; a bracket after a line's end would be taken as a length."""
    line = " & ".join(_stacked(cell) if stacked else tex_text(cell) for cell in cells)
    end = "\\\\[3pt]" if stacked else "\\\\"
    return f"{'{}' if line[:1] in ('[', '*') else ''}{line} {end}\n"


def _stacked(cell: str) -> str:
    """A cell with its interval under its number."""
    value, bracket, ends = cell.partition(" [")
    if not bracket:
        return tex_text(cell)
    return f"\\shortstack[r]{{{tex_text(value)}\\cr {{[}}{tex_text(ends)}}}"


def _longest_line(cell: str) -> str:
    """The longer line of a stacked cell."""
    value, bracket, ends = cell.partition(" [")
    return max(value, bracket[1:] + ends, key=_points)


def _spec(table: pd.DataFrame, columns: Sequence[Shown]) -> str:
    """Texts to the left, broken into lines where long, and numbers to the right."""
    broken = f">{{\\raggedright\\arraybackslash}}p{{{WIDEST_TEXT / 10:g}em}}"
    spec = []
    for shown, width in zip(columns, _widths(table), strict=True):
        left = broken if width > WIDEST_TEXT else "l"
        spec.append(left if shown.kind == "text" else "r")
    return f"@{{}}{''.join(spec)}@{{}}"


def _widths(table: pd.DataFrame) -> list[float]:
    """Width of each column's widest cell at 10 pt, in points."""
    return [max(map(_points, (str(name), *table[name]))) for name in table]


def _points(text: str) -> float:
    return sum(WIDTHS.get(character, CHARACTER) for character in text)


def _width(table: pd.DataFrame, size: str, gap: float = GAP) -> float:
    """About how wide a table is, in points."""
    letters = sum(min(width, WIDEST_TEXT) for width in _widths(table))
    return letters * SIZES[size] + gap * (len(table.columns) - 1)


def _without_alike(
    table: pd.DataFrame, columns: Sequence[Shown]
) -> tuple[pd.DataFrame, list[Shown], str]:
    """A table without columns that say who in each row alike, the others, and what they said."""
    alike = [c for c in columns if c.column in ALIKE and table[c.heading].nunique() == 1]
    if len(table) < 2 or len(alike) > len(columns) - 2:
        return table, list(columns), ""
    said = "; ".join(f"{c.heading}: {table[c.heading].iloc[0]}" for c in alike)
    kept = [c for c in columns if c not in alike]
    return table[[c.heading for c in kept]], kept, f"All rows: {said}." if said else ""
