"""Samples rollouts of the student, the one way for banks and for training.

Sampling is plain: temperature alone, no top-k, no nucleus. The log-probability that is kept is of
the untempered distribution (temperature 1, nats), taken from the logits the token was drawn from.
The same seed, prompts and batch size on one machine give the same rollouts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jinja2
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from diagnostics.bank.contexts import Rollout
from diagnostics.bank.prompts import Messages, Prompt
from diagnostics.errors import InputError
from diagnostics.progress import Advance, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How rollouts are drawn. `batch` rows are generated together."""

    samples_per_prompt: int = 1
    max_new_tokens: int = 192
    temperature: float = 1.0
    seed: int = 0
    batch: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One batch of rollouts as tensors.

    Fields: `prompt_ids` list of (prompt,) int64; `response_ids` (batch, length) int64, meaningless
    after the end; `valid` (batch, length) bool, the end token included; `logprob` (batch, length)
    float32, nats, temperature 1.
    """

    prompt_ids: list[Tensor]
    response_ids: Tensor
    valid: Tensor
    logprob: Tensor


class _SampledLogprobs(LogitsProcessor):  # type: ignore[misc]
    """Notes, a step later, the log-probability of each token that was drawn.

    `generate` would keep every step's scores, (steps, batch, vocab); this keeps one step's.
    """

    def __init__(self) -> None:
        self.taken: list[Tensor] = []
        self.pending: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.settle(input_ids[:, -1])
        self.pending = torch.log_softmax(scores.float(), dim=-1)
        if not bool(torch.isfinite(self.pending).all()):
            raise InputError(
                where="sampling",
                expected="finite model output",
                got="NaN or infinity",
                fix="check the model's weights, or use float32",
            )
        return scores

    def settle(self, drawn: Tensor) -> None:
        """Gathers the pending distribution at the tokens `drawn` (batch,)."""
        if self.pending is not None:
            self.taken.append(self.pending.gather(1, drawn[:, None])[:, 0])
            self.pending = None


def encode_prompt(text: str | Messages, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt: text as it is, messages through the chat template.

    Raises InputError when messages come and the tokenizer has no chat template.
    """
    rendered = render_prompt(text, tokenizer)
    return list(tokenizer(rendered, add_special_tokens=isinstance(text, str))["input_ids"])


def render_prompt(text: str | Messages, tokenizer: PreTrainedTokenizerBase, **options: bool) -> str:
    """A prompt as one text; `options` go to the chat template. Raises InputError as above."""
    if isinstance(text, str):
        return text
    if tokenizer.chat_template is None:
        raise InputError(
            where="prompts",
            expected="a tokenizer with a chat template, as prompts are chat messages",
            got="a tokenizer without one",
            fix="use an instruction-tuned model, or give prompts as text",
        )
    try:
        return str(
            tokenizer.apply_chat_template(
                text, add_generation_prompt=True, tokenize=False, **options
            )
        )
    except jinja2.TemplateError as error:
        raise InputError(
            where="prompts",
            expected="messages that the tokenizer's chat template takes",
            got=" ".join(str(error).split()),
            fix="mend the messages, or give prompts as text",
        ) from error


@contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Sets aside what a model's generation_config.json asks for, as repetition penalties."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


@torch.no_grad()
def sample_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    end: int | None,
    pad: int,
) -> Samples:
    """One rollout for each prompt (token ids), drawn together from one seed.

    `end` is the id that closes a response (None: none does); `pad` fills the left of short prompts.
    """
    device = model.device
    width = max(len(ids) for ids in prompts)
    ids = torch.full((len(prompts), width), pad, device=device)
    attention = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(list(prompt), device=device)
        attention[row, width - len(prompt) :] = 1
    noted = _SampledLogprobs()
    with (
        _plain_generation(model),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=ids,
            attention_mask=attention,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            eos_token_id=end,
            logits_processor=LogitsProcessorList([noted]),
        )
    noted.settle(output[:, -1])
    response = output[:, width:]
    ended = torch.zeros_like(response, dtype=torch.bool) if end is None else response == end
    valid = (ended.long().cumsum(dim=1) - ended.long()) == 0  # nothing ended before this token
    return Samples(
        prompt_ids=[torch.tensor(list(prompt)) for prompt in prompts],
        response_ids=response.cpu(),
        valid=valid.cpu(),
        logprob=torch.stack(noted.taken, dim=1).cpu(),
    )


def end_and_pad(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """`end` and `pad` of `sample_batch`: a tokenizer without padding pads with its end token."""
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return {"end": end, "pad": end if pad is None else pad}


def sample_rollouts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    advance: Advance = silent,
) -> list[Rollout]:
    """Rollouts of every prompt, prompt by prompt and sample by sample, in the prompts' order."""
    taken: Counter[str] = Counter()
    jobs = []
    encoded, teachers = {}, {}
    for prompt in prompts:
        for _ in range(sampling.samples_per_prompt):
            jobs.append((prompt, taken[prompt.prompt_id]))
            taken[prompt.prompt_id] += 1
        encoded[id(prompt)] = _tokens(prompt.text, prompt, tokenizer)
        teachers[id(prompt)] = (
            None if prompt.teacher is None else _tokens(prompt.teacher, prompt, tokenizer)
        )
    seeds = random.Random(sampling.seed)
    rollouts: list[Rollout] = []
    for start in range(0, len(jobs), sampling.batch):
        group = jobs[start : start + sampling.batch]
        samples = sample_batch(
            model,
            [encoded[id(prompt)] for prompt, _ in group],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=seeds.getrandbits(62),
            **end_and_pad(tokenizer),
        )
        for row, (prompt, index) in enumerate(group):
            rollouts.append(_rollout(samples, row, prompt, index, tokenizer, teachers[id(prompt)]))
        advance(len(group))
    return rollouts


def _tokens(text: str | Messages, prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids = encode_prompt(text, tokenizer)
    if not ids:
        raise InputError(
            where=f"prompt {prompt.prompt_id}",
            expected="a prompt of at least one token",
            got="none",
            fix="drop or mend the prompt",
        )
    return ids


def _rollout(
    samples: Samples,
    row: int,
    prompt: Prompt,
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    teacher: list[int] | None,
) -> Rollout:
    length = int(samples.valid[row].sum())
    prompt_ids = samples.prompt_ids[row].tolist()
    response_ids = samples.response_ids[row, :length].tolist()
    return Rollout(
        prompt_id=prompt.prompt_id,
        sample_index=index,
        prompt_text=tokenizer.decode(prompt_ids),
        response_text=tokenizer.decode(response_ids),
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        loss_mask=[True] * length,
        sampled_logprob=samples.logprob[row, :length].tolist(),
        teacher_prompt_ids=teacher,
        token_source="generated",
    )
