"""Which settings a figure shows, and what they are called.

A setting is a checkpoint of a run (and its teacher). Up to six are shown; of more, the first
checkpoint of each run. The paper's rows stand beside as settings of the source `paper`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from diagnostics.paper.tables import paper_table
from diagnostics.report.contexts.analysis import Results
from diagnostics.report.figures.style import NAME_LENGTH, shown

RUN, PAPER = "run", "paper"
SETTING = ["source", "run", "teacher", "checkpoint"]
MANY, SHORTER = 6, 16
PAPER_TEACHER = r"Qwen3-(\w+)"


def ours(results: Results, table: str, columns: Sequence[str], noise: str = "") -> pd.DataFrame:
    """Rows of a table for the settings that figures show: who, its `columns`, and its noise, the
    column `noise` of the table; no rows where the report lacks the table."""
    frame = results.tables.get(table)
    if frame is None:
        return pd.DataFrame(columns=[*SETTING, *columns, "noise"])
    rows = frame[_is_shown(frame)]
    return _arranged(rows.assign(source=RUN, teacher=_teachers(results, rows)), columns, noise)


def papers(table: str, columns: Sequence[str]) -> pd.DataFrame:
    """The paper's rows in the same form; where it names no setting, that is empty."""
    frame = paper_table(table)
    frame = frame.assign(
        source=PAPER,
        run=PAPER,
        teacher=frame["setting"].str.extract(PAPER_TEACHER)[0] if "setting" in frame else "",
        checkpoint=frame.get("context", ""),
    )
    return _arranged(frame, columns, "")


def present(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The panels that a run has rows for."""
    return {name: frame for name, frame in frames.items() if (frame["source"] == RUN).any()}


def first(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first setting."""
    return frame[frame["source"].eq(RUN) & _same(frame, frame.iloc[0])] if len(frame) else frame


def first_name(frame: pd.DataFrame) -> str:
    """A line with the first setting's name, for a panel of it alone beside this panel of several;
    empty beside a panel of one."""
    names = [name for name, _ in settings_in(frame)]
    return f"\n{names[0]}" if len(names) > 1 else ""


def stacked(*frames: pd.DataFrame) -> pd.DataFrame:
    """Frames of one form below each other, empty ones left out."""
    return pd.concat([f for f in frames if len(f)], ignore_index=True)


def settings_in(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(label, rows) of each setting of runs, in order; a label has the parts that tell them
    apart, the checkpoint at least."""
    runs = frame[frame["source"] == RUN]
    told = [part for part in SETTING[1:] if runs[part].nunique() > 1] or ["checkpoint"]
    length = NAME_LENGTH if len(told) < 3 else SHORTER
    groups = runs.groupby(SETTING, sort=False, observed=True)
    return [
        (" / ".join(shown(rows[part].iloc[0], length) for part in told), rows) for _, rows in groups
    ]


def papers_in(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(label, rows) of each of the paper's settings."""
    rows = frame[frame["source"] == PAPER]
    return [
        (" ".join(filter(None, ("paper", ", ".join(filter(None, key[2:]))))), part)
        for key, part in rows.groupby(SETTING, sort=False)
    ]


def common(*frames: pd.DataFrame) -> str:
    """What all settings of some frames share, for a line over the figure."""
    rows = pd.concat([f[f["source"] == RUN] if "source" in f else f for f in frames])
    words = {"run": "run: ", "teacher": "teacher: ", "checkpoint": "checkpoint: ", "top_k": "K = "}
    known = {c: rows[c].dropna().unique() for c in words if c in rows}
    same = [(c, values[0]) for c, values in known.items() if len(values) == 1 and values[0] != ""]
    return "   ".join(
        f"{words[c]}{shown(f'{value:g}' if c == 'top_k' else value)}" for c, value in same
    )


def teacher_name(model: str) -> str:
    """A model's short name: the last part of its path or Hub id, without a revision."""
    return PurePosixPath(model).name.split("@")[0] or model


def _teachers(results: Results, rows: pd.DataFrame) -> list[str]:
    names = {run["name"]: teacher_name(run["teacher"]["model"]) for run in results.runs}
    return [names[run] for run in rows["run"]]


def _is_shown(frame: pd.DataFrame) -> pd.Series:
    pairs = frame[["run", "checkpoint"]].drop_duplicates()
    if len(pairs) > MANY:
        pairs = pairs.drop_duplicates("run")
    wanted = set(pairs.itertuples(index=False, name=None))
    listed = [who in wanted for who in zip(frame["run"], frame["checkpoint"], strict=True)]
    return pd.Series(listed, index=frame.index)


def _arranged(frame: pd.DataFrame, columns: Sequence[str], noise: str) -> pd.DataFrame:
    measured = frame.get(noise, np.nan)
    chosen = frame.assign(noise=measured)[[*SETTING, *(c for c in columns if c in frame), "noise"]]
    return chosen.reset_index(drop=True)


def _same(frame: pd.DataFrame, row: pd.Series) -> pd.Series:
    return (frame[SETTING] == row[SETTING]).all(axis=1)
