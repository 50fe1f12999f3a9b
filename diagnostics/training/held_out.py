"""Held-out KL: prompts set aside, their rollouts by theta_0 frozen, the teacher's states kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diagnostics.bank.sample import Samples, end_and_pad, sample_batch
from diagnostics.models.heads import Head
from diagnostics.scoring.divergence import chunked, distribution, kl_divergence
from diagnostics.scoring.hidden import Context, hidden_states

FORWARD_TOKENS = 8192  # in a forward pass without gradient


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as token ids, as the student and as the teacher read it."""

    student: list[int]
    teacher: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Frozen contexts as the student reads them, and the teacher's states (pos, hidden) there."""

    contexts: list[Context]
    targets: list[Tensor]
    teacher_head: Head

    @torch.no_grad()
    def kl(self, student: PreTrainedModel, head: Head) -> float:
        """Mean KL(p_T || p_theta) over the contexts' positions, nats."""
        states = torch.cat(hidden_states(student, self.contexts, FORWARD_TOKENS))
        values = [
            kl_divergence(distribution(self.teacher_head.logits(t)), distribution(head.logits(s)))
            for t, s in zip(chunked(torch.cat(self.targets)), chunked(states), strict=True)
        ]
        return float(torch.cat(values).mean())


def freeze(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    teacher_head: Head,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Encoded],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> HeldOut:
    """Samples one rollout of theta_0 for each held-out prompt and keeps the teacher's states."""
    samples = sample_batch(
        student,
        [prompt.student for prompt in prompts],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        **end_and_pad(tokenizer),
    )
    seen = _contexts(samples, [prompt.teacher for prompt in prompts])
    return HeldOut(
        contexts=_contexts(samples, [prompt.student for prompt in prompts]),
        targets=hidden_states(teacher, seen, FORWARD_TOKENS),
        teacher_head=teacher_head,
    )


def _contexts(samples: Samples, prompts: Sequence[list[int]]) -> list[Context]:
    """Sampled responses after the prompts that one of the models reads."""
    contexts = []
    for row, prompt in enumerate(prompts):
        kept = int(samples.valid[row].sum())
        contexts.append(
            Context(
                prompt=np.asarray(prompt, dtype=np.int32),
                response=samples.response_ids[row, :kept].numpy().astype(np.int32),
                valid=np.ones(kept, dtype=bool),
            )
        )
    return contexts
