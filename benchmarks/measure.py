"""Shared by the parts of `rescoring.py`: clock, table, and the eager way to compute the numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from torch import Tensor

VOCABULARY = 151_936  # Qwen's
TOP_K = 32
AGREEMENT = 1e-4  # nats, between peers

Work = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What each peer took in each round; `of` is the peer that the others are divided by.

    `seconds` are seconds for all positions, or megabytes where `unit` says so.
    """

    title: str
    positions: int
    of: str
    seconds: Mapping[str, Sequence[float]]
    unit: Literal["ms a position", "MB"] = "ms a position"

    def markdown(self) -> str:
        """One row a peer: its median, and the median over rounds of both ratios within a round."""
        scale = 1e3 / self.positions if self.unit == "ms a position" else 1.0
        lines = [
            f"### {self.title}",
            "",
            f"| peer | {self.unit} | {self.of} / this | this / {self.of} |",
            "|---|---|---|---|",
        ]
        for name, found in self.seconds.items():
            over = median(a / b for a, b in zip(found, self.seconds[self.of], strict=True))
            lines.append(f"| {name} | {scale * median(found):.3f} | {1 / over:.2f} | {over:.3f} |")
        return "\n".join([*lines, ""])


def interleaved(peers: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each peer in each round, after one round that warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for count in range(rounds + 1):
        for name, work in peers.items():
            start = time.process_time()
            work()
            if count:
                seconds[name].append(time.process_time() - start)
    return seconds


def eager(teacher: Tensor, student: Tensor) -> dict[str, Tensor]:
    """The same numbers as people compute them now, from whole rows (pos, vocab) float32."""
    log_t, log_s = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    t, s = log_t.exp(), log_s.exp()
    teacher_top, top = log_t.topk(TOP_K, dim=1), log_s.topk(TOP_K, dim=1)
    return {
        "kl": (t * (log_t - log_s)).sum(dim=1),
        "reverse_kl": (s * (log_s - log_t)).sum(dim=1),
        "teacher_entropy": -(t * log_t).sum(dim=1),
        "entropy": -(s * log_s).sum(dim=1),
        "teacher_top_logprob": teacher_top.values,
        "top_logprob": top.values,
        "teacher_logprob": log_t.gather(1, top.indices),
        "logprob_at_teacher": log_s.gather(1, teacher_top.indices),
    }
