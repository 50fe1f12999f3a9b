"""Two real positions of a bank for Figure 1A: one learnable, one incompatible.

They are what the selectors `q3+high-dl` and `q3+high-di` keep first: the positions of Q3 with the
largest D^L and D^I, equal ones told apart by the unclipped score, then by the hash of (context,
position). So they are chosen by theta_0 and the teacher alone, before any gain is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.budgets import signals_of
from diagnostics.statistics.selection.selectors import Selector, select
from diagnostics.statistics.tables.measured import Start

EXAMPLES: dict[str, Selector] = {"learnable": "q3+high-dl", "incompatible": "q3+high-di"}
SHOWN_TOKENS = 6
TAIL = 80  # characters of what precedes that are kept
ABOUT = ("disagreement", "compatibility", "kl_0", "entropy", "gain", "learnable", "incompatible")

Texts = Callable[[int], str]


def example_positions(run: Run, frame: pd.DataFrame, start: Start) -> pd.DataFrame:
    """One row a shown token of each example: where it is, probabilities of teacher and student.

    `frame` is one checkpoint's token table, `start` teacher and theta_0 at its K. The tokens are
    the six of largest probability under either. Columns: example, run, checkpoint, top_k,
    context_id, position, `before` (the text until there), the signals and the gain; token_id,
    token, p_teacher, p_student (probabilities), supported (among the student's top K), rolled_out.
    """
    texts = run.token_texts()
    said: Texts = (lambda token: f"⟨{token}⟩") if texts is None else texts.__getitem__
    prompts = run.context_texts()
    rows = []
    for name, selector in EXAMPLES.items():
        index = first_kept(frame, selector)
        context = int(start.teacher.context[index])
        before = _before(start, index, said, "" if prompts is None else prompts.prompts[context])
        row = frame.iloc[index]
        about: dict[str, Any] = {
            "example": name,
            "run": run.name,
            "checkpoint": str(row["checkpoint"]),
        }
        about |= {"top_k": start.k}
        about |= {"context_id": row["context_id"], "position": row["position"], "before": before}
        about |= {column: row[column] for column in ABOUT}
        rows += [about | token for token in shown_tokens(start, index, said)]
    return pd.DataFrame(rows)


def first_kept(frame: pd.DataFrame, selector: Selector) -> int:
    """The row that a selector keeps first.

    Raises InputError for a bank without positions in Q3.
    """
    budget = 1 / (2 * len(frame))  # ceil(1 / 2): one position
    kept = select(selector, budget, signals_of(frame), seed=0)
    return int(np.flatnonzero(kept.mask)[0])


def shown_tokens(start: Start, index: int, said: Texts) -> list[dict[str, Any]]:
    """The tokens of largest probability at a row, under teacher or theta_0, most probable first."""
    teacher, student = start.teacher, start.student
    pairs = _probabilities(student.top_ids, student.teacher_logprob, student.top_logprob, index)
    pairs |= _probabilities(teacher.top_ids, teacher.top_logprob, student.logprob_at_teacher, index)
    supported = set(student.top_ids[index, : start.k].tolist())
    most = sorted(pairs, key=lambda token: (-max(pairs[token]), token))[:SHOWN_TOKENS]
    return [
        {
            "token_id": token,
            "token": said(token),
            "p_teacher": pairs[token][0],
            "p_student": pairs[token][1],
            "supported": token in supported,
            "rolled_out": token == teacher.token_id[index],
        }
        for token in most
    ]


def _probabilities(
    ids: NDArray[np.int32], teacher: NDArray[Any], student: NDArray[Any], index: int
) -> dict[int, tuple[float, float]]:
    """(teacher, student) of each listed token at a row."""
    columns = (ids[index], np.exp(teacher[index]), np.exp(student[index]))
    return {int(i): (float(t), float(s)) for i, t, s in zip(*columns, strict=True)}


def _before(start: Start, index: int, said: Texts, prompt: str) -> str:
    """The end of the text that a row's distribution is conditioned on, of known tokens."""
    owner, ids = start.teacher.context, start.teacher.token_id
    begin = int(np.searchsorted(owner, owner[index]))
    tail = "".join(said(int(token)) for token in ids[max(begin, index - TAIL) : index])
    return f"{prompt}{tail}"[-TAIL:]
