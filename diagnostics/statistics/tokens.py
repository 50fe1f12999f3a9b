"""The token table: one row per (checkpoint, context, valid position), set `paper`.

Everything before training is measured at theta_0; only `kl`, `reverse_kl` and the gains know the
checkpoint. The column lists below are schema, validator and documentation at once. A teacher known
by its top-k lists alone leaves the columns in `UNKNOWN` null and adds `BOUND_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.schema import VERSION_KEY, Column, conform
from diagnostics.scoring.run import (
    ListedStudentScores,
    ListedTeacherScores,
    Run,
    StudentScores,
    TeacherScores,
)
from diagnostics.statistics.normalize import norm
from diagnostics.statistics.support import TopLists, compatibility_upper, support_features

SCHEMA_VERSION = 1
RELATIVE_EPSILON = 1e-12

TOKEN_COLUMNS = (
    Column("checkpoint", pa.string(), "which trained checkpoint the gain is of"),
    Column("context_id", pa.string(), "the rollout"),
    Column("prompt_id", pa.string(), "the cluster"),
    Column("position", pa.int32(), "0-based in the response"),
    Column("token_id", pa.int32(), "the response token at that position"),
    Column("kl_0", pa.float64(), "KL(p_T || p_0), whole vocabulary, nats"),
    Column("kl", pa.float64(), "KL(p_T || p_tau), whole vocabulary, nats"),
    Column("gain", pa.float64(), "kl_0 - kl, nats; positive: moved toward the teacher (Eq. 1)"),
    Column("gain_rel", pa.float64(), "gain / (kl_0 + 1e-12); unbounded below where kl_0 is small"),
    Column("reverse_kl_0", pa.float64(), "KL(p_0 || p_T), nats"),
    Column("reverse_kl", pa.float64(), "KL(p_tau || p_T), nats"),
    Column("entropy", pa.float64(), "H of p_0, nats"),
    Column("teacher_entropy", pa.float64(), "H of p_T, nats"),
    Column("disagreement", pa.float64(), "D: KL(p_T || p_0), both renormalised on U, nats (Eq. 9)"),
    Column("compatibility", pa.float64(), "C: teacher mass on the student's top-K (Eq. 10)"),
    Column("compatibility_lower", pa.float64(), "C-hat: teacher mass on both top-Ks (Eq. 17)"),
    Column("overlap", pa.float64(), "shared top-K tokens / K"),
    Column("jaccard", pa.float64(), "shared top-K tokens / tokens in either top-K"),
    Column("shared_teacher_mass", pa.float64(), "teacher mass on both top-Ks"),
    Column("bc_union", pa.float64(), "Bhattacharyya coefficient on U (shown as CBC)"),
    Column("disagreement_norm", pa.float64(), "D~, in [0, 1] (Eq. 11)"),
    Column("compatibility_norm", pa.float64(), "C~, in [0, 1]"),
    Column("entropy_norm", pa.float64(), "H~, in [0, 1]"),
    Column("teacher_entropy_norm", pa.float64(), "H_T~, in [0, 1]"),
    Column("learnable", pa.float64(), "D^L = D~ C~ (Eq. 12)"),
    Column("incompatible", pa.float64(), "D^I = D~ (1 - C~); D^L + D^I = D~"),
    Column("quadrant", pa.int8(), "1 to 4; 3 is low entropy, high kl_0 (section 3.4)"),
    Column("relative_position", pa.float64(), "t / (T - 1) over valid positions, 0 for T = 1"),
)

UNKNOWN = (
    "kl_0",
    "kl",
    "gain",
    "gain_rel",
    "reverse_kl_0",
    "reverse_kl",
    "teacher_entropy",
    "compatibility",
    "compatibility_norm",
    "teacher_entropy_norm",
    "learnable",
    "incompatible",
    "quadrant",
)
BOUND_COLUMNS = (
    Column("kl_0_lower", pa.float64(), "lower bound of KL(p_T || p_0), nats"),
    Column("kl_0_upper", pa.float64(), "upper bound of KL(p_T || p_0), nats"),
    Column("kl_lower", pa.float64(), "lower bound of KL(p_T || p_tau), nats"),
    Column("kl_upper", pa.float64(), "upper bound of KL(p_T || p_tau), nats"),
    Column("teacher_tail_mass", pa.float64(), "teacher mass of all unlisted tokens together"),
    Column("compatibility_upper", pa.float64(), "upper bound of C; C-hat is a lower one"),
    Column("learnable_lower", pa.float64(), "D~ times Norm(C-hat), as live training; no bound"),
)
LISTED_COLUMNS = (
    *(replace(c, nullable=c.name in UNKNOWN) for c in TOKEN_COLUMNS),
    *BOUND_COLUMNS,
)


def quadrants(
    entropy: NDArray[np.float64], kl_0: NDArray[np.float64], quantile: float = 0.5
) -> NDArray[np.int8]:
    """TIP's quadrant of each position, (pos,): both cuts at `quantile`, Q3 owns its borders.

    Q1 high H, high KL; Q2 high H, low KL; Q3 low H (<= cut), high KL (>= cut); Q4 low, low.
    """
    low_entropy = entropy <= np.quantile(entropy, quantile)
    high_kl = kl_0 >= np.quantile(kl_0, quantile)
    return np.where(high_kl, np.where(low_entropy, 3, 1), np.where(low_entropy, 4, 2)).astype(
        np.int8
    )


def token_table(run: Run, k: int, checkpoints: Sequence[str] | None = None) -> pd.DataFrame:
    """The token table of a run at support size `k`, in bank order.

    Raises InputError for a `k` beyond the run's, a run without checkpoints, or an unknown one.
    """
    names = list(run.checkpoints if checkpoints is None else checkpoints)
    unknown = [name for name in names if name not in run.checkpoints]
    if unknown or not names:
        raise InputError(
            where=str(run.folder),
            expected=f"checkpoints among {', '.join(run.checkpoints) or '(none scored)'}",
            got=", ".join(unknown) or "none",
            fix="add one with `diagnostics rescore … --checkpoint NAME=MODEL`",
        )
    pieces = (_listed_pieces if run.listed else _pieces)(run, k, names)
    tables = [pd.DataFrame({c.name: piece[c.name] for c in columns_of(run)}) for piece in pieces]
    whole = pd.concat(tables, ignore_index=True)
    whole["checkpoint"] = pd.Categorical(whole["checkpoint"], categories=names)
    return whole


def columns_of(run: Run) -> tuple[Column, ...]:
    """The columns of a run's token table."""
    return LISTED_COLUMNS if run.listed else TOKEN_COLUMNS


def to_arrow(frame: pd.DataFrame, run: Run, k: int) -> pa.Table:
    """The token table as it is written, with its definition set and origin in the metadata."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(
        {
            VERSION_KEY: str(SCHEMA_VERSION).encode(),
            b"definitions": b"paper",
            b"top_k": str(k).encode(),
            b"bank_digest": str(run.manifest["bank"]["digest"]).encode(),
        }
    )
    return conform(table, columns_of(run), "token table")


def derived(raw: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The columns that depend on a population: normalised signals, D^L, D^I and quadrants.

    `raw` holds the raw signals (pos,) of that population, by column name.
    """
    disagreement = norm(np.asarray(raw["disagreement"]))
    compatibility = norm(np.asarray(raw["compatibility"]))
    learnable = disagreement * compatibility
    return {
        "disagreement_norm": disagreement,
        "compatibility_norm": compatibility,
        "entropy_norm": norm(np.asarray(raw["entropy"])),
        "teacher_entropy_norm": norm(np.asarray(raw["teacher_entropy"])),
        "learnable": learnable,
        "incompatible": disagreement - learnable,
        "quadrant": quadrants(np.asarray(raw["entropy"]), np.asarray(raw["kl_0"])),
    }


def relative_position(context: NDArray[np.int32]) -> NDArray[np.float64]:
    """t / (T - 1) of each row, (pos,), for rows grouped by `context` (pos,); 0 where T = 1."""
    starts = np.flatnonzero(np.r_[True, context[1:] != context[:-1]])
    lengths = np.diff(np.r_[starts, len(context)])
    within = np.arange(len(context)) - np.repeat(starts, lengths)
    last = np.repeat(np.maximum(lengths - 1, 1), lengths)
    return np.asarray(within / last, dtype=np.float64)


def _pieces(run: Run, k: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The columns of each checkpoint; those that know teacher and theta_0 only are made once."""
    start, teacher = run.student(), run.teacher()
    support = support_features(_lists(teacher, start), k)
    shared = _places(run, teacher) | {
        "kl_0": start.kl,
        "reverse_kl_0": start.reverse_kl,
        "entropy": start.entropy,
        "teacher_entropy": teacher.entropy,
        **{name: getattr(support, name) for name in type(support).__slots__},
    }
    shared |= derived(shared)
    for name in names:
        after = run.student(name)
        gain = start.kl - after.kl
        yield shared | {
            "checkpoint": pd.Categorical.from_codes(np.zeros(len(gain), np.int8), [name]),
            "kl": after.kl,
            "reverse_kl": after.reverse_kl,
            "gain": gain,
            "gain_rel": gain / (start.kl + RELATIVE_EPSILON),
        }


def _listed_pieces(run: Run, k: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The same beside a teacher known by its lists: what they do not tell is null."""
    start, teacher = run.listed_student(), run.listed_teacher()
    lists = _lists(teacher, start)
    support = support_features(lists, k)
    disagreement = norm(support.disagreement)
    count = len(teacher.context)
    shared = _places(run, teacher) | {
        **{name: getattr(support, name) for name in type(support).__slots__},
        **dict.fromkeys(UNKNOWN, np.full(count, np.nan)),
        "quadrant": pd.array([None] * count, dtype="Int8"),
        "entropy": start.entropy,
        "entropy_norm": norm(start.entropy),
        "disagreement_norm": disagreement,
        "kl_0_lower": start.kl_lower,
        "kl_0_upper": start.kl_upper,
        "teacher_tail_mass": teacher.tail_mass,
        "compatibility_upper": compatibility_upper(lists, teacher.tail_mass, k),
        "learnable_lower": disagreement * norm(support.compatibility_lower),
    }
    for name in names:
        after = run.listed_student(name)
        yield shared | {
            "checkpoint": pd.Categorical.from_codes(np.zeros(count, np.int8), [name]),
            "kl_lower": after.kl_lower,
            "kl_upper": after.kl_upper,
        }


def _places(run: Run, teacher: TeacherScores | ListedTeacherScores) -> dict[str, Any]:
    """The columns that say where each row is."""
    context_ids, prompt_ids = run.contexts()
    return {
        "context_id": pd.Categorical.from_codes(teacher.context, context_ids),
        "prompt_id": _labels(prompt_ids, teacher.context),
        "position": teacher.position,
        "token_id": teacher.token_id,
        "relative_position": relative_position(teacher.context),
    }


def _lists(
    teacher: TeacherScores | ListedTeacherScores, start: StudentScores | ListedStudentScores
) -> TopLists:
    return TopLists(
        student_ids=start.top_ids,
        student_logprob=start.top_logprob,
        teacher_at_student=start.teacher_logprob,
        teacher_ids=teacher.top_ids,
        teacher_logprob=teacher.top_logprob,
        student_at_teacher=start.logprob_at_teacher,
    )


def _labels(values: Sequence[str], codes: NDArray[np.int32]) -> pd.Categorical:
    """Repeated strings as a categorical, (pos,), for row codes into `values`."""
    unique, inverse = np.unique(np.asarray(values, dtype=object), return_inverse=True)
    return pd.Categorical.from_codes(inverse[codes], unique)
