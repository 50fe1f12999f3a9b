"""TRL's DistillationTrainer with token selection: one generated batch in, one mask, the same loss.

`MaskedDistillationTrainer` adds one thing to TRL's trainer. When a batch of rollouts is there, it
measures both models on it, lets `diagnostics.selection` choose positions over all ranks, and hands
the mask on in TRL's own `tool_mask`, the positions of a completion that carry loss; TRL's loss is
then divided by the number of kept positions (paper, Eq. 7), all ranks and accumulation steps
counted. The teacher runs once a batch: its states go with the rollouts, so a teacher may have a
prompt of its own. Generation (transformers or vLLM), accelerate, FSDP, DeepSpeed, adapters and
checkpoints are TRL's. Two losses: full-vocabulary reverse KL (Eq. 6), TRL's chunked one, and its
sampled-token estimator (`sampled_token_loss`).

Randomness: before each generation every rank seeds torch from (seed, step, rank), so arms of one
seed draw with the same noise and a resumed run goes on as if it had never stopped. vLLM draws with
seeds of its own. Not covered: images, tools.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import DistillationTrainer
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer.utils import pad

from diagnostics.errors import InputError
from diagnostics.models.heads import Head
from diagnostics.selection import (
    Kept,
    TokenSignals,
    describe,
    row_hashes,
    select_tokens,
    signals_from_states,
)
from diagnostics.training.held_out import HeldOut
from diagnostics.training.settings import TrainSettings

VOCABULARY_TILE = 32768  # ids of a head's product that exist at one time
AGREEMENT = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}  # relative, of two reverse KLs


def sampled_token_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Per-position loss (pos,) whose gradient estimates that of KL(p_theta || p_T) (Eq. 6).

    `student` and `teacher` (pos,) are log p_theta(y) and log p_T(y) of the sampled tokens, nats.
    The estimate of the value is l = log p_theta(y) - log p_T(y). Its own gradient has mean 0 over
    y, so it is used as a cost: l' = sg(l) log p_theta(y) - sg(l) sg(log p_theta(y)) + sg(l) has the
    value l and the gradient l grad log p_theta(y), whose mean over y is grad KL.
    """
    cost = (student - teacher).detach()
    return cost * (student - student.detach()) + cost


class MaskedDistillationTrainer(DistillationTrainer):  # type: ignore[misc]
    """TRL's trainer whose loss is over the positions that a selector keeps.

    Rows of the dataset hold `prompt` and `teacher_prompt`, lists of token ids.
    """

    def __init__(
        self,
        *args: Any,
        arm: TrainSettings,
        student_head: Head,
        teacher_head: Head,
        held_out: HeldOut,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._arm = arm
        self._student_head, self._teacher_head = student_head, teacher_head
        self._held_out = held_out
        self._teacher_states: Tensor | None = None
        self._checked = False
        self._skip = False

    def _tokenize_prompts(
        self, prompts: list[list[int]]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Prompts are token ids already: what a bank's student reads, and training's, is one."""
        return prompts, None, {}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch of rollouts, with a mask, the teacher's states and the measured KL."""
        rank = self.accelerator.process_index
        torch.manual_seed(_noise_seed(self._arm.seed, self.state.global_step, rank))
        batch = self._rollouts(inputs)
        prompts = [row["teacher_prompt"] for row in inputs]
        with torch.no_grad(), self.accelerator.autocast():
            batch["teacher_states"] = self._states(self.teacher_model, batch, prompts)
            signals = self._signals(batch)
        valid = batch["completion_mask"].bool()
        ids, seen = _whole(batch)
        kept, own = self._select(signals, valid, row_hashes(ids, seen.bool()))
        batch["tool_mask"] = own.to(batch["completion_mask"].dtype)
        batch["num_items_in_batch"] = kept.mask.sum()
        batch["reverse_kl"] = signals.reverse_kl
        return batch

    def _rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch. Raises InputError where the student's distribution is not finite."""
        try:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        except RuntimeError as error:  # of torch.multinomial
            if "probability tensor" not in str(error):
                raise
            raise self._not_finite("finite probabilities", "NaN or infinity") from error
        return batch

    def _not_finite(self, expected: str, got: str) -> InputError:
        return InputError(
            where=f"training {self._arm.selector}, step {self.state.global_step}",
            expected=expected,
            got=got,
            fix="lower --learning-rate, or train in float32",
        )

    def _signals(self, batch: dict[str, Any]) -> TokenSignals:
        """Signals (batch, time) of the current student, its head's weights gathered."""
        student = self.accelerator.unwrap_model(self.model_wrapped)
        found: TokenSignals = self._forward_redirection(
            self.model_wrapped, student, self._measure, student, batch
        )
        return found

    def _measure(self, student: PreTrainedModel, batch: dict[str, Any]) -> TokenSignals:
        teacher = self.accelerator.unwrap_model(self.teacher_model)
        return signals_from_states(
            self._hidden(student, batch),
            batch["teacher_states"],
            self._head(student, self._student_head),
            self._head(teacher, self._teacher_head),
            batch["completion_mask"].bool(),
            k=self._arm.top_k,
        )

    def _select(self, signals: TokenSignals, valid: Tensor, rows: Tensor) -> tuple[Kept, Tensor]:
        """What is kept of the rollouts of all ranks, and this rank's part of the mask."""
        gather, count = self.accelerator.gather, len(valid)
        alike = self.accelerator.pad_across_processes
        everywhere = signals.map(lambda z: gather(alike(z, dim=1)))
        every_valid = gather(alike(valid, dim=1))
        kept = select_tokens(
            self._arm.selector,
            self._arm.budget,
            everywhere,
            every_valid,
            rows=gather(rows),
            seed=self._arm.seed + self.state.global_step,
            one_per_row=self._arm.one_per_rollout,
        )
        self._skip = bool(kept.empty)
        noted = {"skipped": float(self._skip), "wanted": float(kept.wanted)}
        noted |= describe(kept, everywhere, every_valid) | {"kept": float(kept.mask.sum())}
        self.note(**noted)
        start = self.accelerator.process_index * count
        return kept, kept.mask[start : start + count, : valid.shape[1]]

    def note(self, **values: float) -> None:
        """Puts numbers into the log entry of the step."""
        for name, value in values.items():
            self._metrics["train"][name].append(value)

    def _states(
        self, model: torch.nn.Module, batch: dict[str, Any], prompts: list[list[int]]
    ) -> Tensor:
        """Final hidden states (batch, time, hidden) of a frozen model after prompts of its own."""
        ids = [torch.tensor(prompt, device=batch["prompt_ids"].device) for prompt in prompts]
        seen = [torch.ones_like(prompt) for prompt in ids]
        own = {
            "prompt_ids": pad(ids, padding_value=self._tokenizer.pad_token_id, padding_side="left"),
            "prompt_mask": pad(seen, padding_value=0, padding_side="left"),
        }
        unwrapped = self.accelerator.unwrap_model(model)
        model.eval()
        found: Tensor = self._forward_redirection(
            model, unwrapped, self._hidden, unwrapped, batch | own
        )
        return found

    def _hidden(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Hidden states that predict each completion token, micro-batch by micro-batch."""
        ids, seen = _whole(batch)
        size = self.args.per_device_train_batch_size
        length = batch["completion_ids"].size(1)
        ask = super()._get_last_hidden_state
        pieces = zip(torch.split(ids, size), torch.split(seen, size), strict=True)
        return torch.cat([ask(model, rows, attention, length) for rows, attention in pieces])

    def _head(self, model: PreTrainedModel, shape: Head) -> Head:
        """The head as it is now; FSDP's shards are gathered."""
        module = model.get_output_embeddings()
        weight, bias = module.weight, getattr(module, "bias", None)
        if isinstance(weight, torch.distributed.tensor.DTensor):
            weight = weight.full_tensor()
            bias = None if bias is None else bias.full_tensor()
        rows = shape.vocabulary
        return replace(shape, weight=weight[:rows], bias=None if bias is None else bias[:rows])

    def _get_last_hidden_state(self, unwrapped_model: Any, *args: Any, **options: Any) -> Tensor:
        """TRL's, but the teacher's states of this batch are there already."""
        known, self._teacher_states = self._teacher_states, None
        if known is not None and unwrapped_model is self.accelerator.unwrap_model(
            self.teacher_model
        ):
            return known
        self._teacher_states = known
        states: Tensor = super()._get_last_hidden_state(unwrapped_model, *args, **options)
        return states

    def _compute_loss(
        self, unwrapped_student: Any, inputs: dict[str, Any], num_items_in_batch: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """TRL's loss over the kept positions, or the sampled-token estimator's."""
        if self._arm.loss == "reverse_kl":
            self._teacher_states = inputs["teacher_states"]
            found: tuple[Tensor, Tensor, Tensor] = super()._compute_loss(
                unwrapped_student, inputs, num_items_in_batch
            )
            return found
        return self._sampled(unwrapped_student, inputs, num_items_in_batch)

    def _sampled(
        self, student: Any, inputs: dict[str, Any], count: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        keep = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        teacher = self.accelerator.unwrap_model(self.teacher_model)
        states = super()._get_last_hidden_state(
            student, *_whole(inputs), inputs["completion_ids"].size(1)
        )
        drawn = inputs["completion_ids"][keep]
        ours, entropy = _logprob(states[keep], self._head(student, self._student_head), drawn)
        theirs, _ = _logprob(
            inputs["teacher_states"][keep], self._head(teacher, self._teacher_head), drawn
        )
        loss = sampled_token_loss(ours, theirs).sum() + 0.0 * states.sum()
        return loss / count, entropy.sum().detach(), keep.sum()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """TRL's; a loss that is not finite, or that is not of the mask it was given, is refused."""
        found = super().compute_loss(model, inputs, *args, **options)
        loss = found[0] if isinstance(found, tuple) else found
        if not bool(torch.isfinite(loss)):
            raise self._not_finite("a finite loss", str(loss.item()))
        if not self._checked and self._arm.loss == "reverse_kl":
            self._check_loss(float(loss.detach()), inputs)
            self._checked = True
        return found

    def _check_loss(self, loss: float, inputs: dict[str, Any]) -> None:
        """Refuses a model whose logits TRL takes to be others than they are."""
        keep = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        count = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        expected = float(inputs["reverse_kl"][keep].sum() / count)
        room = AGREEMENT[self._arm.dtype]
        if abs(loss - expected) > room * (abs(expected) + room):
            raise InputError(
                where=f"training {self._arm.selector}, first step",
                expected=f"a loss of {expected:.6g}, the mean reverse KL of the kept positions",
                got=f"{loss:.6g} from TRL",
                fix="these models change their logits in a way that TRL does not know; "
                "train them with another trainer and `rescore` its checkpoints",
            )

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """TRL's; after a batch of which nothing was kept the optimizer has nothing to do."""
        loss: Tensor = super().training_step(*args, **options)
        if self._skip:
            self.model.zero_grad(set_to_none=True)
        return loss

    @torch.no_grad()  # outside the wrapper: DDP gets ready for a backward pass that would not come
    def held_out_kl(self) -> float:
        """Held-out KL(p_T || p_theta), nats, of the student as it is now."""
        student = self.accelerator.unwrap_model(self.model_wrapped)
        training = student.training
        student.eval()
        try:
            found: float = self._forward_redirection(
                self.model_wrapped, student, self._held_out_kl, student
            )
            return found
        finally:
            student.train(training)

    def _held_out_kl(self, student: PreTrainedModel) -> float:
        return self._held_out.kl(student, self._head(student, self._student_head))


def _noise_seed(*numbers: int) -> int:
    """One seed of 63 bits from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _whole(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (batch, prompt + time)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)


def _logprob(states: Tensor, head: Head, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probability of the drawn tokens, entropy), each (pos,), nats, a tile at a time."""
    logprob, entropy, *_ = ChunkedLogProbFunction.apply(
        states,
        head.weight,
        head.bias,
        drawn,
        1.0,
        VOCABULARY_TILE,
        head.softcap,
        head.scale,
        ("entropy",),
    )
    return logprob, entropy
