"""How many rows the Markdown and LaTeX twins of a table hold, without the paper's below it."""

from __future__ import annotations

import re


def md_rows(text: str) -> int:
    """Rows of our Markdown table, its head not counted."""
    ours = text.split(", the paper's\n")[0]
    return sum(line.startswith("| ") for line in ours.splitlines()) - 1


def tex_rows(text: str) -> int:
    """Rows of our LaTeX table, its heads not counted."""
    ours = text.split(", the paper's}]")[0]
    rows = [part.split(r"\bottomrule")[0] for part in ours.split("\\midrule\n")[1:]]
    if r"\endfirsthead" in ours:
        rows = [ours.split("\\endfoot\n")[1].split(r"\end{longtable}")[0]]
    return sum(len(re.findall(r"\\\\(?:\[3pt\])?$", part, re.MULTILINE)) for part in rows)
