"""Final hidden states of every valid response position, in length-bucketed batches.

The hidden state that predicts response token t of a context stands at input position
`prompt + t - 1`, so the last response token is never fed. A batch holds rollouts of like length,
at most `batch_tokens` tokens with padding. Rollouts that share a prompt run through it once, where
the model keeps its past as plain keys and values (`shares_prompts`). A batch that does not fit into
memory is halved and tried again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from diagnostics.errors import InputError
from diagnostics.models.weights import final_hidden
from diagnostics.progress import Advance, silent

Group = list[int]  # indices of contexts that run together
Forward = Callable[[PreTrainedModel, Sequence["Context"]], list[Tensor]]
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


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
        """Tokens fed to a model: all but the last response token."""
        return len(self.prompt) + len(self.response) - 1

    @property
    def suffix(self) -> NDArray[np.int32]:
        """The tokens whose states predict the response, (response,)."""
        return np.concatenate([self.prompt[-1:], self.response[:-1]])


def length_buckets(lengths: Sequence[int], batch_tokens: int) -> list[Group]:
    """Groups of indices, longest first, with rows x longest <= batch_tokens in each.

    Among all ways to cut the sorted rows, the one that feeds the fewest tokens, where a group of
    its own costs as much as `batch_tokens` / 32 more. A single row longer than `batch_tokens` is a
    group of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the rows before, and where their last
    for stop in range(1, len(order) + 1):  # group begins
        choices = []
        for start in range(stop - 1, -1, -1):
            fed = (stop - start) * lengths[order[start]]
            if fed > batch_tokens and stop - start > 1:
                break
            choices.append((best[start][0] + fed + batch_tokens / 32, start))
        best.append(min(choices))
    groups: list[Group] = []
    stop = len(order)
    while stop:
        start = best[stop][1]
        groups.insert(0, order[start:stop])
        stop = start
    return groups


def prompt_buckets(
    contexts: Sequence[Context], families: Sequence[Group], batch_tokens: int
) -> list[Group]:
    """Groups of indices that hold a family, the rollouts of one prompt, or as many as fit.

    In each, prompts x longest prompt + rollouts x longest response <= batch_tokens, unless a single
    rollout is longer. Prompts of like length go together, longest first.
    """
    groups: list[Group] = []
    prompts, widest, longest = 0, 0, 0  # of the group that is being filled
    for family in sorted(families, key=lambda f: (-len(contexts[f[0]].prompt), f)):
        new = True
        for index in family:
            prompt, response = len(contexts[index].prompt), len(contexts[index].response)
            rows = len(groups[-1]) + 1 if groups else 1
            needed = (prompts + new) * max(widest, prompt) + rows * max(longest, response)
            if not groups or needed > batch_tokens:
                groups.append([])
                prompts, widest, longest, new = 0, 0, 0, True
            groups[-1].append(index)
            prompts, new = prompts + new, False
            widest, longest = max(widest, prompt), max(longest, response)
    return groups


def _families(contexts: Sequence[Context]) -> list[Group]:
    """Indices of the rollouts of each prompt."""
    families: dict[bytes, Group] = {}
    for index, context in enumerate(contexts):
        families.setdefault(context.prompt.tobytes(), []).append(index)
    return list(families.values())


def shares_prompts(model: PreTrainedModel) -> bool:
    """Whether a prompt's past may be computed once and read by several rollouts.

    True where every layer keeps plain keys and values of all positions; not for sliding windows,
    recurrent layers or caches of a model's own.
    """
    try:
        layers = DynamicCache(config=model.config).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


@torch.no_grad()
def hidden_states(
    model: PreTrainedModel,
    contexts: Sequence[Context],
    batch_tokens: int,
    advance: Advance = silent,
) -> list[Tensor]:
    """Hidden states (valid positions, hidden) of each context, in the contexts' order.

    They keep the dtype and device that the model ran in. Raises InputError where a single rollout
    does not fit into memory.
    """
    families = _families(contexts)
    shared = [f for f in families if len(f) > 1] if shares_prompts(model) else []
    alone = sorted(set(range(len(contexts))) - {index for family in shared for index in family})
    work: list[tuple[Group, Forward]] = [
        (group, _with_shared_prompts) for group in prompt_buckets(contexts, shared, batch_tokens)
    ]
    buckets = length_buckets([contexts[i].length for i in alone], batch_tokens)
    work += [([alone[place] for place in bucket], whole_rollouts) for bucket in buckets]
    states: dict[int, Tensor] = {}
    while work:
        group, forward = work.pop(0)
        found = _fit(model, forward, [contexts[i] for i in group])
        if found is None:
            half = -(-len(group) // 2)
            work[:0] = [(group[:half], forward), (group[half:], forward)]
            continue
        states.update(zip(group, found, strict=True))
        advance(len(group))
    return [states[index] for index in range(len(contexts))]


@torch.no_grad()
def one_by_one(model: PreTrainedModel, contexts: Sequence[Context]) -> list[Tensor]:
    """Hidden states as `hidden_states` gives them, in another batch shape.

    Each rollout runs alone, with 16 tokens of padding, so that no product has the shape it has in a
    batch. What differs is rounding: the noise floor of scoring.
    """
    return [whole_rollouts(model, [context], padding=16)[0] for context in contexts]


def _fit(
    model: PreTrainedModel, forward: Forward, contexts: Sequence[Context]
) -> list[Tensor] | None:
    """The states, or None when the batch must be halved."""
    try:
        return forward(model, contexts)
    except (RuntimeError, MemoryError) as error:  # torch raises RuntimeError on the CPU
        if not out_of_memory(error):
            raise
        if len(contexts) == 1:
            raise InputError(
                where=f"a rollout of {contexts[0].length} tokens",
                expected=f"memory for one forward pass on {model.device}",
                got=" ".join(str(error).split())[:120] or type(error).__name__,
                fix="use a device with more memory, --dtype bfloat16, or --device-map auto",
            ) from error
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    rows = len(contexts)
    print(
        f"diagnostics: {rows} rollouts do not fit into memory; going on with {-(-rows // 2)} "
        "(a smaller --batch-tokens avoids this)",
        file=sys.stderr,
    )
    return None


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out; on the CPU only torch's text tells."""
    short = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return short or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def whole_rollouts(
    model: PreTrainedModel, contexts: Sequence[Context], padding: int = 0
) -> list[Tensor]:
    """Hidden states (valid, hidden) of each context, prompt and response in one row of one batch.

    `padding` tokens more on the right. Gradients flow where they are on.
    """
    rows = [np.concatenate([c.prompt, c.response[:-1]]) for c in contexts]
    ids, attention = _pad(rows, max(map(len, rows)) + padding)
    hidden = final_hidden(model, ids.to(model.device), attention.to(model.device))
    return [_valid(hidden[row, len(c.prompt) - 1 : c.length], c) for row, c in enumerate(contexts)]


def _with_shared_prompts(model: PreTrainedModel, contexts: Sequence[Context]) -> list[Tensor]:
    """Each prompt but its last token once; then a row a rollout on top of its prompt's past."""
    places: dict[bytes, int] = {}
    owner = [places.setdefault(c.prompt.tobytes(), len(places)) for c in contexts]
    prompts = [np.frombuffer(words, dtype=np.int32)[:-1] for words in places]
    longest = max(map(len, prompts))
    if longest == 0:
        return whole_rollouts(model, contexts)
    ids, seen = _pad(prompts, longest, left=True)
    ids, seen = ids.to(model.device), seen.to(model.device)
    body = model.get_decoder()
    past = body(
        input_ids=ids,
        attention_mask=seen,
        position_ids=(seen.cumsum(1) - 1).clamp(min=0),
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
    ).past_key_values
    index = torch.tensor(owner, device=model.device)
    past.batch_select_indices(index)
    rows, attention = _pad([c.suffix for c in contexts], max(len(c.response) for c in contexts))
    rows, attention = rows.to(model.device), attention.to(model.device)
    start = seen.sum(1)[index, None]
    hidden = body(
        input_ids=rows,
        attention_mask=torch.cat([seen[index], attention], dim=1),
        position_ids=start + torch.arange(rows.shape[1], device=model.device),
        past_key_values=past,
        use_cache=True,
    ).last_hidden_state
    return [_valid(hidden[row, : len(c.response)], c) for row, c in enumerate(contexts)]


def _valid(window: Tensor, context: Context) -> Tensor:
    """The rows (valid, hidden) of a response's states (response, hidden)."""
    return window[torch.from_numpy(context.valid).to(window.device)]


def _pad(
    rows: Sequence[NDArray[np.int32]], width: int, *, left: bool = False
) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, each (rows, width) int64, padded on the right or the left."""
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    attention = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        place = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        ids[row, place] = torch.from_numpy(tokens.astype(np.int64))
        attention[row, place] = 1
    return ids, attention
