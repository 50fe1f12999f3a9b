"""The eager way to compute the numbers of rescoring, and the sizes that its benchmarks share."""

from __future__ import annotations

from torch import Tensor

VOCABULARY = 151_936  # Qwen's
TOP_K = 32
AGREEMENT = 1e-4  # nats, between peers


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
