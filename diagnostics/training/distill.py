"""Masked reverse-KL on-policy distillation (paper, section 4.1, Eq. 6-7): one small loop.

Each step: fresh rollouts of the current student, hidden states of both models, a mask, then

    loss = mean over kept positions of KL(p_theta || p_T), nats,

and one AdamW step, its size falling linearly to nought. Prompts, their order and the sampling seeds
depend on `seed` alone, so all arms of an experiment see the same prompts. Some prompts are set
aside: their rollouts by theta_0 are frozen and give the held-out KL(p_T || p_theta) of the log. A
teacher may have a prompt of its own (`teacher_prompt`). Not covered: several devices, adapters,
resuming; a library trainer is to take this loop's place behind the seam in `masks`.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diagnostics.bank.prompts import Prompt
from diagnostics.bank.sample import Samples, encode_prompt, sample_batch
from diagnostics.errors import InputError
from diagnostics.files import write_json, write_text
from diagnostics.models.files import (
    ModelFiles,
    check_one_width,
    check_shared_vocabulary,
    check_top_k,
    require_tokenizer,
    require_trainable,
)
from diagnostics.models.heads import Head, head_of
from diagnostics.models.weights import Dtype, final_hidden, load_weights
from diagnostics.progress import bar
from diagnostics.scoring.divergence import chunked, distribution, kl_divergence
from diagnostics.scoring.hidden import Context, hidden_states
from diagnostics.statistics.selection.selectors import Selector, check_budget
from diagnostics.training.masks import BatchStates, batch_mask

TEACHER_TOKENS = 8192  # in a forward pass without gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One arm. `budget` is the kept share of positions, `top_k` the support of D and C."""

    selector: Selector = "full"
    budget: float = 1.0
    steps: int = 30
    rollouts_per_step: int = 32
    max_new_tokens: int = 192
    temperature: float = 1.0
    learning_rate: float = 1e-3
    top_k: int = 16
    seed: int = 0
    held_out: int = 16
    held_out_every: int = 10
    dtype: Dtype = "float32"
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A prompt as token ids, as the student and as the teacher read it."""

    student: list[int]
    teacher: list[int]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Student (trained) and teacher (frozen) with the student's tokenizer."""

    student: PreTrainedModel
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    teacher_head: Head
    student_shape: Head

    def student_head(self) -> Head:
        """The student's head as it is now, with its gradient."""
        module = self.student.get_output_embeddings()
        return replace(self.student_shape, weight=module.weight, bias=getattr(module, "bias", None))


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(p_theta || p_T) at each position, (pos,) nats, for logits (pos, vocab) (Eq. 6)."""
    log_s = torch.log_softmax(student_logits, dim=1)
    log_t = torch.log_softmax(teacher_logits, dim=1)
    return (log_s.exp() * (log_s - log_t)).sum(dim=1)


def distill(
    student: ModelFiles,
    teacher: ModelFiles,
    prompts: Sequence[Prompt],
    settings: TrainSettings,
    out: Path,
) -> list[dict[str, Any]]:
    """Trains one arm, saves its checkpoint to `out` and returns the log, one entry a step.

    Raises InputError before weights are loaded for a bad budget, vocabularies that differ, too few
    prompts or an `out` in use; during training when the loss is not finite.
    """
    check_budget(settings.budget)
    require_trainable(student)
    check_shared_vocabulary(teacher, student)
    check_one_width(teacher, student)
    _check_room(out, prompts, settings)
    check_top_k(settings.top_k, student.vocabulary)
    tokenizer = require_tokenizer(student)
    models = [load_weights(m, settings.dtype, settings.device) for m in (student, teacher)]
    pair = _Pair(
        student=models[0],
        teacher=models[1],
        tokenizer=tokenizer,
        teacher_head=head_of(models[1], teacher.spec),
        student_shape=head_of(models[0], student.spec),
    )
    encoded = [_encode(prompt, tokenizer) for prompt in prompts]
    frozen = encoded[: settings.held_out]
    samples = _rollouts(pair, frozen, settings, settings.seed)
    held_out = _contexts(samples, [prompt.student for prompt in frozen])
    targets = hidden_states(
        pair.teacher, _contexts(samples, [prompt.teacher for prompt in frozen]), TEACHER_TOKENS
    )
    optimizer = torch.optim.AdamW(
        pair.student.parameters(), lr=settings.learning_rate, weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=settings.steps)
    log: list[dict[str, Any]] = []
    title = f"training {settings.selector}"
    with bar(title, settings.steps) as advance:
        order = _prompt_batches(encoded[settings.held_out :], settings)
        for step in range(settings.steps):
            entry: dict[str, Any] = {"step": step}
            if step % settings.held_out_every == 0:
                entry["held_out_kl"] = held_out_kl(pair, held_out, targets)
            indices, seed = next(order)
            chosen = [encoded[i] for i in indices]
            samples = _rollouts(pair, chosen, settings, seed)
            names = [f"{step}:{i}" for i in indices]
            entry |= _update(pair, chosen, samples, names, settings, optimizer)
            schedule.step()
            log.append(entry)
            advance(1)
    log.append({"step": settings.steps, "held_out_kl": held_out_kl(pair, held_out, targets)})
    _save(pair, student, settings, log, out)
    return log


def _update(
    pair: _Pair,
    prompts: Sequence[_Encoded],
    samples: Samples,
    names: Sequence[str],
    settings: TrainSettings,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """One step on one rollout batch; returns what the log keeps of it."""
    states = _batch_states(pair, prompts, samples, names)
    selection = batch_mask(
        states, settings.selector, settings.budget, settings.top_k, settings.seed
    )
    kept = torch.from_numpy(selection.mask).to(states.student.device)
    teacher_logits = states.teacher_head.logits(states.teacher[kept])
    losses = reverse_kl(states.student_head.logits(states.student[kept]), teacher_logits)
    loss = losses.mean()
    if not bool(torch.isfinite(loss)):
        raise InputError(
            where=f"training {settings.selector}, rollouts {names[0]} to {names[-1]}",
            expected="a finite loss",
            got=str(loss.item()),
            fix="lower --learning-rate, or train in float32",
        )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(pair.student.parameters(), 1.0)
    optimizer.step()
    return {
        "loss": loss.item(),
        "kept": int(kept.sum()),
        "wanted": selection.wanted,
        "keep": float(kept.float().mean()),
        "tied_share": selection.tied_share,
        "mean_length": float(samples.valid.sum(dim=1).float().mean()),
    }


def _batch_states(
    pair: _Pair, prompts: Sequence[_Encoded], samples: Samples, names: Sequence[str]
) -> BatchStates:
    """Hidden states of both models at the batch's valid positions; the student's with gradient."""
    device = pair.student.device
    width = max(len(p) for p in samples.prompt_ids)
    rows, length = samples.response_ids.shape
    ids = torch.zeros(rows, width + length, dtype=torch.int64)
    attention = torch.zeros_like(ids)
    reads = torch.zeros(rows, width + length, dtype=torch.bool)  # states that predict a response
    for row, prompt in enumerate(samples.prompt_ids):
        kept = int(samples.valid[row].sum())
        end = len(prompt) + kept
        ids[row, : len(prompt)] = prompt
        ids[row, len(prompt) : end] = samples.response_ids[row, :kept]
        attention[row, :end] = 1
        reads[row, len(prompt) - 1 : end - 1] = True
    ids, attention, reads = ids.to(device), attention.to(device), reads.to(device)
    seen = _contexts(samples, [prompt.teacher for prompt in prompts])
    teacher = torch.cat(hidden_states(pair.teacher, seen, TEACHER_TOKENS))
    student = final_hidden(pair.student, ids, attention)[reads]
    lengths = samples.valid.sum(dim=1).tolist()
    return BatchStates(
        student=student,
        teacher=teacher,
        student_head=pair.student_head(),
        teacher_head=pair.teacher_head,
        context=[name for name, n in zip(names, lengths, strict=True) for _ in range(n)],
        position=[t for n in lengths for t in range(n)],
    )


def _prompt_batches(
    encoded: Sequence[_Encoded], settings: TrainSettings
) -> Iterator[tuple[list[int], int]]:
    """Endless (prompt indices, sampling seed): prompts shuffled, none twice before all once."""
    rng = random.Random(settings.seed)
    first = settings.held_out
    waiting: list[int] = []
    while True:
        while len(waiting) < settings.rollouts_per_step:
            fresh = list(range(first, first + len(encoded)))
            rng.shuffle(fresh)
            waiting += fresh
        batch = [waiting.pop(0) for _ in range(settings.rollouts_per_step)]
        yield batch, rng.getrandbits(62)


def _rollouts(
    pair: _Pair, prompts: Sequence[_Encoded], settings: TrainSettings, seed: int
) -> Samples:
    end, pad = pair.tokenizer.eos_token_id, pair.tokenizer.pad_token_id
    return sample_batch(
        pair.student,
        [prompt.student for prompt in prompts],
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=seed,
        end=end,
        pad=end if pad is None else pad,
    )


def _encode(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> _Encoded:
    own = encode_prompt(prompt.text, tokenizer)
    teacher = own if prompt.teacher is None else encode_prompt(prompt.teacher, tokenizer)
    return _Encoded(student=own, teacher=teacher)


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


@torch.no_grad()
def held_out_kl(pair: _Pair, contexts: Sequence[Context], targets: Sequence[Tensor]) -> float:
    """Mean KL(p_T || p_theta), nats, over frozen contexts; `targets`: teacher's states."""
    states = torch.cat(hidden_states(pair.student, contexts, TEACHER_TOKENS))
    student_head, teacher_head = pair.student_head(), pair.teacher_head
    values = [
        kl_divergence(distribution(teacher_head.logits(t)), distribution(student_head.logits(s)))
        for t, s in zip(chunked(torch.cat(list(targets))), chunked(states), strict=True)
    ]
    return float(torch.cat(values).mean())


def _check_room(out: Path, prompts: Sequence[Prompt], settings: TrainSettings) -> None:
    if len(prompts) < settings.held_out + settings.rollouts_per_step:
        raise InputError(
            where="--prompts",
            expected=f"at least {settings.held_out} held-out prompts and one batch of "
            f"{settings.rollouts_per_step}",
            got=f"{len(prompts)} prompts",
            fix="give more prompts or smaller batches",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            where=str(out),
            expected="a new or empty folder",
            got="files" if out.is_dir() else "a file",
            fix="choose another --out",
        )


def _save(
    pair: _Pair,
    student: ModelFiles,
    settings: TrainSettings,
    log: Sequence[dict[str, Any]],
    out: Path,
) -> None:
    """Writes weights (in the dtype the student has on disk), settings and log; whole or not."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    stored = student.config.get_text_config().dtype or torch.float32
    pair.student.to(stored).save_pretrained(partial)
    pair.tokenizer.save_pretrained(partial)
    write_json(partial / "training_settings.json", asdict(settings))
    write_text(partial / "training_log.jsonl", "".join(json.dumps(e) + "\n" for e in log))
    if out.exists():
        out.rmdir()
    partial.rename(out)
