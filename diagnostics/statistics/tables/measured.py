"""What a run says of positions at one K, before a definition set and a population are chosen.

Raw columns alone, of the whole bank or of one of its parts; norms and quadrants, which depend on
the bank, are made of them in `tokens`. `choose` is the one place where a set decides which
measurement a column holds. Not covered: any set but `paper` beside a teacher known by its lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.scoring.run import (
    ListedStudentScores,
    ListedTeacherScores,
    Run,
    StudentScores,
    TeacherScores,
)
from diagnostics.statistics.tables.columns import UNKNOWN
from diagnostics.statistics.tables.definitions import Definitions
from diagnostics.statistics.tables.support import (
    SupportFeatures,
    TopLists,
    compatibility_upper,
    support_features,
)

RELATIVE_EPSILON = 1e-12

Columns = dict[str, Any]
Contexts = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Teacher and theta_0 at one support size `k`.

    Fields: their scores, `teacher` and `student`; `columns` of the token table by name, (pos,)
    each, `disagreement` that of Eq. 9 and `compatibility` that of Eq. 10.
    """

    k: int
    teacher: TeacherScores
    student: StudentScores
    columns: Columns

    def at(self, k: int) -> Start:
        """The same at another support size, without reading again."""
        if k == self.k:
            return self
        features = support_features(_lists(self.teacher, self.student), k)
        return replace(self, k=k, columns=self.columns | _by_name(features))


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """A trained checkpoint. Fields: `columns` of the token table that know it, (pos,) each; `own`
    its entropy, compatibility and compatibility_lower, empty unless they were asked for."""

    columns: Columns
    own: Columns = field(default_factory=dict)


def measure_start(run: Run, k: int, contexts: Contexts, part: int | None = None) -> Start:
    """Teacher and theta_0 at support size `k`; `contexts` are the run's."""
    start, teacher = run.student(part=part), run.teacher(part)
    columns = places(contexts, teacher) | {
        "kl_0": start.kl,
        "reverse_kl_0": start.reverse_kl,
        "entropy": start.entropy,
        "teacher_entropy": teacher.entropy,
        **_by_name(support_features(_lists(teacher, start), k)),
    }
    return Start(k=k, teacher=teacher, student=start, columns=columns)


def measure_after(
    run: Run, k: int, name: str, start: Start, part: int | None = None, *, own: bool = False
) -> After:
    """A checkpoint, with its `own` H and C only where asked: at the teacher's top-k lists, the
    teacher's probabilities at the checkpoint's own top-k are stored with it."""
    kl_0 = start.columns["kl_0"]
    kl, reverse_kl = run.divergences(name, part)
    gain = kl_0 - kl
    columns = {
        "checkpoint": pd.Categorical.from_codes(np.zeros(len(gain), np.int8), [name]),
        "kl": kl,
        "reverse_kl": reverse_kl,
        "gain": gain,
        "gain_rel": gain / (kl_0 + RELATIVE_EPSILON),
    }
    if not own:
        return After(columns=columns)
    after = run.student(name, part)
    features = support_features(_lists(start.teacher, after), k)
    leaked = {
        "entropy": after.entropy,
        "compatibility": features.compatibility,
        "compatibility_lower": features.compatibility_lower,
    }
    return After(columns=columns, own=leaked)


def choose(start: Start, after: After, definitions: Definitions) -> Columns:
    """The raw columns under a set, by name.

    C-hat goes with C to the checkpoint; the other proxies of support stay theta_0's.
    """
    models = {"theta_0": start.columns, "checkpoint": after.own}
    supported = models[definitions.compatibility_from]
    lower = definitions.compatibility == "lower"
    by_kl = definitions.disagreement == "kl_0"
    chosen = {
        "disagreement": start.columns["kl_0" if by_kl else "disagreement"],
        "entropy": models[definitions.entropy_from]["entropy"],
        "compatibility": supported["compatibility_lower" if lower else "compatibility"],
        "compatibility_lower": supported["compatibility_lower"],
    }
    return start.columns | after.columns | chosen


def measure_listed(
    run: Run, k: int, name: str, contexts: Contexts, part: int | None = None
) -> Columns:
    """The raw columns beside a teacher known by its lists: what they do not tell is null."""
    start, teacher = run.listed_student(part=part), run.listed_teacher(part)
    after = run.listed_student(name, part)
    lists = _lists(teacher, start)
    count = len(teacher.context)
    return places(contexts, teacher) | {
        **_by_name(support_features(lists, k)),
        **dict.fromkeys(UNKNOWN, np.full(count, np.nan)),
        "quadrant": pd.array([None] * count, dtype="Int8"),
        "entropy": start.entropy,
        "kl_0_lower": start.kl_lower,
        "kl_0_upper": start.kl_upper,
        "teacher_tail_mass": teacher.tail_mass,
        "compatibility_upper": compatibility_upper(lists, teacher.tail_mass, k),
        "checkpoint": pd.Categorical.from_codes(np.zeros(count, np.int8), [name]),
        "kl_lower": after.kl_lower,
        "kl_upper": after.kl_upper,
    }


def places(contexts: Contexts, teacher: TeacherScores | ListedTeacherScores) -> Columns:
    """The columns that say where each row is."""
    codes = teacher.context
    first, end = (int(codes.min()), int(codes.max()) + 1) if len(codes) else (0, 0)
    names, prompts = (values[first:end] for values in contexts)
    return {
        "context_id": pd.Categorical.from_codes(codes - first, names),
        "prompt_id": _labels(prompts, codes - first),
        "position": teacher.position,
        "token_id": teacher.token_id,
        "relative_position": relative_position(codes),
    }


def relative_position(context: NDArray[np.int32]) -> NDArray[np.float64]:
    """t / (T - 1) of each row, (pos,), for rows grouped by `context` (pos,); 0 where T = 1."""
    starts = np.flatnonzero(np.r_[True, context[1:] != context[:-1]])
    lengths = np.diff(np.r_[starts, len(context)])
    within = np.arange(len(context)) - np.repeat(starts, lengths)
    last = np.repeat(np.maximum(lengths - 1, 1), lengths)
    return np.asarray(within / last, dtype=np.float64)


def _lists(
    teacher: TeacherScores | ListedTeacherScores, student: StudentScores | ListedStudentScores
) -> TopLists:
    return TopLists(
        student_ids=student.top_ids,
        student_logprob=student.top_logprob,
        teacher_at_student=student.teacher_logprob,
        teacher_ids=teacher.top_ids,
        teacher_logprob=teacher.top_logprob,
        student_at_teacher=student.logprob_at_teacher,
    )


def _by_name(features: SupportFeatures) -> Columns:
    return {name: getattr(features, name) for name in SupportFeatures.__slots__}


def _labels(values: Sequence[str], codes: NDArray[np.int32]) -> pd.Categorical:
    """Repeated strings as a categorical, (pos,), for row codes into `values`."""
    unique, inverse = np.unique(np.asarray(values, dtype=object), return_inverse=True)
    return pd.Categorical.from_codes(inverse[codes], unique)
