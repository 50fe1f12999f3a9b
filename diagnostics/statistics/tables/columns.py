"""The columns of the token table, declared once: schema, validator and documentation.

A teacher known by its top-k lists alone leaves the columns in `UNKNOWN` null and adds
`BOUND_COLUMNS`. What `disagreement`, `entropy` and `compatibility` mean is said here for the set
`paper`; another set's departures are in its name (`statistics/tables/definitions.py`).
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from diagnostics.schema import Column
from diagnostics.scoring.run import Run

SCHEMA_VERSION = 1

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


def columns_of(run: Run) -> tuple[Column, ...]:
    """The columns of a run's token table."""
    return LISTED_COLUMNS if run.listed else TOKEN_COLUMNS
