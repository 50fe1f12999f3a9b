"""Final hidden states of every valid response position, in length-bucketed batches.

The hidden state that predicts response token t of a context stands at input position
`prompt + t - 1`. Batches hold rollouts of like length, at most `batch_tokens` tokens with padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from diagnostics.models.weights import final_hidden
from diagnostics.progress import Advance, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One frozen context as a model reads it.

    Fields: `prompt` (prompt,) int32; `response` (response,) int32; `valid` (response,) bool.
    """

    prompt: NDArray[np.int32]
    response: NDArray[np.int32]
    valid: NDArray[np.bool_]

    @property
    def length(self) -> int:
        """Tokens fed to a model."""
        return len(self.prompt) + len(self.response)


def length_buckets(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Groups of indices, longest first, so that rows x longest <= batch_tokens in each.

    A single row longer than `batch_tokens` is a group of its own.
    """
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if room == 0:
            groups.append([])
            room = max(1, batch_tokens // max(1, lengths[index]))
        groups[-1].append(index)
        room -= 1
    return groups


@torch.no_grad()
def hidden_states(
    model: PreTrainedModel,
    contexts: Sequence[Context],
    batch_tokens: int,
    advance: Advance = silent,
) -> list[Tensor]:
    """Hidden states (valid positions, hidden) of each context, in the contexts' order.

    They keep the dtype and device that the model ran in.
    """
    states: dict[int, Tensor] = {}
    for group in length_buckets([c.length for c in contexts], batch_tokens):
        ids, attention = _pad([contexts[i] for i in group])
        hidden = final_hidden(model, ids.to(model.device), attention.to(model.device))
        for row, index in enumerate(group):
            context = contexts[index]
            first = len(context.prompt) - 1
            window = hidden[row, first : first + len(context.response)]
            states[index] = window[torch.from_numpy(context.valid).to(window.device)]
        advance(len(group))
    return [states[index] for index in range(len(contexts))]


def _pad(group: Sequence[Context]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, each (rows, longest) int64, padded on the right."""
    longest = max(context.length for context in group)
    ids = torch.zeros(len(group), longest, dtype=torch.int64)
    attention = torch.zeros_like(ids)
    for row, context in enumerate(group):
        tokens = np.concatenate([context.prompt, context.response]).astype(np.int64)
        ids[row, : len(tokens)] = torch.from_numpy(tokens)
        attention[row, : len(tokens)] = 1
    return ids, attention
