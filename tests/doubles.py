"""Tiny doubles of everything the toolkit meets: tokenizers, models, banks, and the slow truth.

The models are random Qwen3 networks of a few thousand parameters whose logits have a spread of one
to two nats, so that divergences are far from nought. `slow_*` are the definitions written out in
float64 from the logits of a whole sequence; they use nothing of the package under test.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from diagnostics.bank.contexts import BankInfo, Rollout
from diagnostics.bank.prompts import Prompt
from diagnostics.models.files import tokenizer_fingerprint

PAD, END, UNKNOWN, USER, ASSISTANT, SYSTEM = range(6)
SPECIAL = ("<pad>", "<end>", "<unk>", "<user>", "<assistant>", "<system>")
WORDS = tuple(f"w{index}" for index in range(58))
VOCABULARY = len(SPECIAL) + len(WORDS)
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def word_tokenizer(
    words: Sequence[str] = WORDS, *, chat_template: str | None = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: id = place in `SPECIAL`, then in `words`."""
    table = {token: index for index, token in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.chat_template = chat_template
    return fast


def random_model(
    seed: int,
    *,
    vocabulary: int = VOCABULARY,
    hidden: int = 16,
    layers: int = 1,
    tied: bool = False,
) -> Qwen3ForCausalLM:
    """A random network in float32, the same for the same seed."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        initializer_range=1.5 / math.sqrt(hidden),
        tie_word_embeddings=tied,
        eos_token_id=END,
        pad_token_id=PAD,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).float().eval()


def perturbed(model: Qwen3ForCausalLM, seed: int, scale: float = 0.05) -> Qwen3ForCausalLM:
    """The same network with noise on every parameter: a made-up trained checkpoint."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=noise))
    return model


def save(
    model: PreTrainedModel,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast | None,
    **options: object,
) -> str:
    """Saves a model (and a tokenizer) as users have them; returns the folder as a MODEL."""
    model.save_pretrained(folder, **options)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)


def copy(model: str, folder: Path) -> Path:
    """A copy of a saved model that a test may damage."""
    return Path(shutil.copytree(model, folder))


def bank_info(**changes: object) -> BankInfo:
    """Where a made-up bank came from."""
    origin: dict[str, object] = {
        "student": "student",
        "student_fingerprint": "a" * 64,
        "tokenizer_fingerprint": tokenizer_fingerprint(word_tokenizer()),
        "vocabulary": VOCABULARY,
        "sampling": {"temperature": 1.0},
        "seed": 0,
        "prompt_source": "prompts.jsonl",
    }
    return BankInfo(**(origin | changes))


def rollout(**changes: object) -> Rollout:
    """One sound rollout of two prompt tokens and three response tokens, with changes."""
    fields: dict[str, object] = {
        "prompt_id": "p0",
        "sample_index": 0,
        "prompt_text": "w0 w1",
        "response_text": "w2 w3 w4",
        "prompt_ids": [6, 7],
        "response_ids": [8, 9, 10],
        "loss_mask": [True, True, True],
        "sampled_logprob": [-1.0, -2.0, -0.5],
        "teacher_prompt_ids": None,
        "token_source": "generated",
    }
    return Rollout(**(fields | changes))


# Seven rollouts of five prompts: lengths that differ, one with holes in its mask, one of a single
# token, one with a prompt of the teacher's own. Token 60 is in the fifth alone (index 4).
MARKED_TOKEN, MARKED_CONTEXT = 60, 4
_imported = partial(rollout, sampled_logprob=None, token_source="imported")
ROLLOUTS = (
    _imported(prompt_id="a", prompt_ids=[6, 7], response_ids=[8, 9, 10, 11], loss_mask=[True] * 4),
    _imported(
        prompt_id="a",
        sample_index=1,
        prompt_ids=[6, 7],
        response_ids=[12, 13, 14, 15, 16, 1],
        loss_mask=[True, False, True, True, False, True],
    ),
    _imported(
        prompt_id="b",
        prompt_ids=[20, 21, 22, 23, 24, 25, 26],
        response_ids=[30, 31, 32],
        loss_mask=[True] * 3,
        teacher_prompt_ids=[40, 41, 42],
    ),
    _imported(prompt_id="c", prompt_ids=[50], response_ids=[51], loss_mask=[True]),
    _imported(
        prompt_id="d",
        prompt_ids=[33, 34, MARKED_TOKEN],
        response_ids=[35, 36, 37, 38, 39],
        loss_mask=[True] * 5,
    ),
    _imported(
        prompt_id="d",
        sample_index=1,
        prompt_ids=[33, 34],
        response_ids=[36, 36, 38],
        loss_mask=[False, True, True],
    ),
    _imported(
        prompt_id="e",
        prompt_ids=[43, 44, 45, 46],
        response_ids=list(range(6, 18)),
        loss_mask=[True] * 12,
    ),
)


def prompts_of(count: int) -> list[Prompt]:
    """Prompts of one to four words."""
    texts = [" ".join(f"w{(7 * i + j) % 58}" for j in range(1 + i % 4)) for i in range(count)]
    return [Prompt(prompt_id=f"p{i}", text=text, teacher=None) for i, text in enumerate(texts)]


def slow_model(model: str) -> PreTrainedModel:
    """A saved model in float64."""
    return Qwen3ForCausalLM.from_pretrained(model, dtype=torch.float32).double().eval()


@torch.no_grad()
def slow_logprobs(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """log p(. | prompt, response[:t]) for every t, (response, vocab) float64, without batching."""
    rows = []
    for t in range(len(response)):
        logits = model(torch.tensor([[*prompt, *response[:t]]])).logits[0, -1].double()
        rows.append(torch.log_softmax(logits, dim=0))
    return torch.stack(rows)


def slow_kl(log_p: Tensor, log_q: Tensor) -> float:
    """KL(p || q) = sum of p (log p - log q), one row (vocab,), nats."""
    return sum(math.exp(a) * (a - b) for a, b in zip(log_p.tolist(), log_q.tolist(), strict=True))


def slow_entropy(log_p: Tensor) -> float:
    """H(p) = -sum of p log p, one row (vocab,), nats."""
    return -sum(math.exp(a) * a for a in log_p.tolist())


def slow_top(row: Sequence[float], k: int) -> list[int]:
    """Ids of the k largest entries, largest first, equal ones by lower id."""
    return sorted(range(len(row)), key=lambda index: (-row[index], index))[:k]
