"""Trains the embedded pair: the tokenizer, the student and the teacher, from nothing.

Run `python -m diagnostics.embedded.pretrain --out DIR` (about 75 minutes on 2 CPU cores). The data
are the sheets of `problems`, made as they are needed and never repeated: a seed gives the stream,
and no held-out prompt is in it. Only solutions carry loss. Matrices are trained with Muon, the rest
with AdamW; the step size is constant after a short warm-up and falls to nought over the last part.
The log beside the weights (`training.json`) holds data, seeds, steps and final losses.

This script is not part of the toolkit's trainer: it makes the models that the demonstration starts
from. On-policy distillation lives in `diagnostics.training`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from diagnostics.embedded.evaluate import accuracy
from diagnostics.embedded.problems import CAREFUL, Author, Sheet, sheets

VOCABULARY = 2048
TOKENIZER_SHEETS = 20_000
END, PAD = "<|endoftext|>", "<|pad|>"
# Qwen's split, with one change: a digit takes the space before it along, one token a digit.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
BUCKET = 16  # batches sorted by length together


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Shape and training of one model of the pair. Sizes in units, rates per step."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    steps: int
    batch: int = 24
    matrix_rate: float = 0.02
    vector_rate: float = 0.004
    warmup: int = 50
    decay_share: float = 0.4
    author: Author = CAREFUL
    seed: int


RECIPES = {
    "student": Recipe(
        hidden=96,
        layers=3,
        heads=3,
        kv_heads=3,
        head_dim=32,
        intermediate=288,
        steps=450,
        author=Author(habit=1.2, careless=True),
        seed=1,
    ),
    "teacher": Recipe(
        hidden=256,
        layers=5,
        heads=4,
        kv_heads=2,
        head_dim=64,
        intermediate=768,
        steps=1000,
        seed=2,
    ),
}
TOKENIZER_SEED, HELD_OUT_SEED = 0, 3
HELD_OUT_SHEETS = 128


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCABULARY` tokens, learned on training sheets only."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    stream = sheets(TOKENIZER_SEED, held_out=False)
    texts = (sheet.prompt + sheet.solution for sheet in islice(stream, TOKENIZER_SHEETS))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 model of the recipe's shape with random weights from its seed."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head_dim,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def encode(sheet: Sheet, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], int]:
    """Token ids of a sheet with its solution and end token, and the prompt's length."""
    prompt = tokenizer.encode(sheet.prompt, add_special_tokens=False)
    solution = tokenizer.encode(sheet.solution, add_special_tokens=False)
    return prompt + solution + [tokenizer.eos_token_id], len(prompt)


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, labels), each (batch, length) int64, padded right; prompts labelled -100."""
    stream = sheets(recipe.seed, held_out=False, author=recipe.author)
    shuffle = random.Random(recipe.seed)
    while True:
        rows = sorted(
            (encode(next(stream), tokenizer) for _ in range(recipe.batch * BUCKET)),
            key=lambda row: len(row[0]),
        )
        groups = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
        shuffle.shuffle(groups)
        for group in groups:
            yield collate(group, tokenizer.pad_token_id)


def collate(group: list[tuple[list[int], int]], pad: int) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as one (ids, labels) pair, each (batch, longest) int64."""
    longest = max(len(ids) for ids, _ in group)
    ids = torch.full((len(group), longest), pad)
    labels = torch.full((len(group), longest), -100)
    for row, (tokens, prompt) in enumerate(group):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
    return ids, labels


def solution_loss(model: Qwen3ForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of the solution tokens; the head runs on their positions only."""
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]  # (batch, length - 1, hidden)
    targets = labels[:, 1:]
    wanted = targets != -100
    logits = model.lm_head(hidden[wanted]).float()
    return torch.nn.functional.cross_entropy(logits, targets[wanted])


def rate_share(step: int, recipe: Recipe) -> float:
    """Share of the full step size at a step: up over `warmup`, flat, then down to 0."""
    decay = max(1, round(recipe.steps * recipe.decay_share))
    return min(1.0, (step + 1) / recipe.warmup, (recipe.steps - step) / decay)


def train(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, out: Path) -> dict[str, object]:
    """Trains one model, saves it in bf16 to `out` and returns its log."""
    model = build_model(recipe, tokenizer)
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    vectors = [p for name, p in named if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(vectors, lr=recipe.vector_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    full_rates = [recipe.matrix_rate, recipe.vector_rate]
    started, tokens, losses = time.time(), 0, []
    stream = batches(recipe, tokenizer)
    for step in range(recipe.steps):
        ids, labels = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            loss = solution_loss(model, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in zip(optimizers, full_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * rate_share(step, recipe)
            optimizer.step()
            optimizer.zero_grad()
        tokens += int((labels != -100).sum())
        losses.append(loss.item())
        if step % 50 == 0 or step == recipe.steps - 1:
            recent = sum(losses[-50:]) / len(losses[-50:])
            elapsed = time.time() - started
            print(
                f"step {step:5d}  loss {recent:.4f}  {tokens / 1e6:.2f}M  {elapsed:.0f} s",
                flush=True,
            )
        if step % 200 == 199:
            save(model, tokenizer, out)
    save(model, tokenizer, out)
    return {
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "solution_tokens": tokens,
        "seconds": round(time.time() - started),
        "final_training_loss": sum(losses[-100:]) / len(losses[-100:]),
    }


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes weights (bf16 safetensors), configuration and tokenizer."""
    copy = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


@torch.no_grad()
def held_out_loss(folder: Path) -> float:
    """Mean cross-entropy (nats a solution token) of a saved model on held-out sheets."""
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    stream = islice(sheets(HELD_OUT_SEED, held_out=True), HELD_OUT_SHEETS)
    ids, labels = collate([encode(sheet, tokenizer) for sheet in stream], tokenizer.pad_token_id)
    return float(solution_loss(model.eval(), ids, labels))


def main() -> None:
    """Trains what is asked for and writes `training.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(RECIPES))
    options = parser.parse_args()
    tokenizer = train_tokenizer()
    log_file = options.out / "training.json"
    log = json.loads(log_file.read_text()) if log_file.exists() else {}
    for name in [options.only] if options.only else ["student", "teacher"]:
        folder = options.out / name
        log[name] = train(RECIPES[name], tokenizer, folder)
        log[name]["held_out_loss"] = held_out_loss(folder)
        log[name]["held_out_accuracy"] = accuracy(folder).share
        log_file.write_text(json.dumps(log, indent=2) + "\n")
        print(json.dumps(log[name], indent=2), flush=True)


if __name__ == "__main__":
    main()
