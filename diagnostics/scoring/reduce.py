"""Placeholder until the online reducer lands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from diagnostics.scoring import divergence

TILE, CHUNK = 4096, 256
Kernel = Literal["auto", "compiled", "plain"]


@dataclass
class PairSums:
    k: int
    t: list[Tensor] = field(default_factory=list)
    s: list[Tensor] = field(default_factory=list)


def pair_sums(positions: int, k: int, device: Any, kernel: Kernel = "auto") -> PairSums:
    return PairSums(k)


def resolve_kernel(kernel: Kernel, device: str) -> Kernel:
    return "plain"


def add_tile(sums: PairSums, teacher: Tensor, student: Tensor, first: int) -> None:
    sums.t.append(teacher.clone())
    sums.s.append(student.clone())


def finish(sums: PairSums) -> dict[str, Tensor]:
    tl, sl = torch.cat(sums.t, 1), torch.cat(sums.s, 1)
    t, s = divergence.distribution(tl), divergence.distribution(sl)
    ti, si = divergence.top_k(tl, sums.k), divergence.top_k(sl, sums.k)
    return {
        "teacher_entropy": divergence.entropy(t),
        "kl": divergence.kl_divergence(t, s),
        "reverse_kl": divergence.kl_divergence(s, t),
        "entropy": divergence.entropy(s),
        "teacher_ids": ti.int(),
        "top_ids": si.int(),
        "teacher_top_logprob": t.logprob(ti).float(),
        "top_logprob": s.logprob(si).float(),
        "teacher_logprob": t.logprob(si).float(),
        "logprob_at_teacher": s.logprob(ti).float(),
        "teacher_log_total": t.log_total + tl.amax(1).double(),
        "log_total": s.log_total + sl.amax(1).double(),
    }
