"""A student and a teacher in float64, and the slow truth about them.

The truth is torch's own reverse mode, one position and one context at a time, on a model whose
every float32 is made float64 by replacing the names that its code asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import doubles
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from diagnostics.alignment.frozen import Batch
from diagnostics.alignment.student import Student
from diagnostics.models.heads import head_of
from diagnostics.scoring.hidden import Context

Gradient = dict[str, Tensor]


@contextmanager
def in_float64() -> Iterator[None]:
    """`torch.float32` and `Tensor.float` mean float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(Tensor, "float", Tensor.double)
        yield


def frozen_contexts() -> list[Context]:
    """The rollouts of `doubles` as a student reads them."""
    return [
        Context(
            prompt=np.asarray(r.prompt_ids, dtype=np.int32),
            response=np.asarray(r.response_ids, dtype=np.int32),
            valid=np.asarray(r.loss_mask, dtype=bool),
        )
        for r in doubles.ROLLOUTS
    ]


@dataclass(frozen=True)
class Truth:
    """Two models and the ids both have."""

    student: PreTrainedModel
    teacher: PreTrainedModel
    vocabulary: int

    def logprobs(self, model: PreTrainedModel, context: Context) -> Tensor:
        """(valid, vocabulary), from the model's own logits over the whole sequence."""
        ids = torch.tensor([[*context.prompt.tolist(), *context.response.tolist()]])
        with in_float64():
            logits = model(ids).logits[0, len(context.prompt) - 1 : -1, : self.vocabulary]
        return torch.log_softmax(logits[torch.from_numpy(context.valid)], dim=1)

    def divergences(self, context: Context) -> tuple[Tensor, Tensor]:
        """(KL(p_T || p), KL(p || p_T)), (valid,) each, with gradient."""
        s = self.logprobs(self.student, context)
        with torch.no_grad():
            t = self.logprobs(self.teacher, context)
        return (t.exp() * (t - s)).sum(dim=1), (s.exp() * (s - t)).sum(dim=1)

    def loss(self, contexts: list[Context]) -> Tensor:
        """L_fix: the mean over all positions."""
        return torch.cat([self.divergences(c)[0] for c in contexts]).mean()

    def gradient(self, value: Tensor) -> Tensor:
        """By every parameter, as one vector."""
        parts = torch.autograd.grad(value, list(self.student.parameters()), retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    @contextmanager
    def moved(self, step: Tensor) -> Iterator[None]:
        """The student at theta_0 + step."""
        before = [p.detach().clone() for p in self.student.parameters()]
        place = 0
        with torch.no_grad():
            for parameter in self.student.parameters():
                size = parameter.numel()
                parameter.add_(step[place : place + size].view_as(parameter))
                place += size
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, old in zip(self.student.parameters(), before, strict=True):
                    parameter.copy_(old)


@dataclass(frozen=True)
class Pair:
    """What is tested, beside the truth: two copies of the same student."""

    student: Student
    truth: Truth
    contexts: list[Context]
    batch: Callable[..., Batch]

    def slopes(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        """(alignment_kl, alignment) of batches along grad L_fix of all contexts."""
        count = sum(int(c.valid.sum()) for c in self.contexts)
        everything = self.student.gradient([self.batch(*range(len(self.contexts)))], "kl")
        direction = {name: g / count for name, g in everything.items()}
        found = [self.student.slopes(direction, batch)[1] for batch in batches]
        return torch.cat([f.kl for f in found]), torch.cat([f.reverse_kl for f in found])


def make_pair(
    *,
    tied: bool = False,
    same: bool = False,
    wide: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Pair:
    """`wide`: ids that the teacher has beyond the student's; `same`: the teacher is the student."""
    width = doubles.VOCABULARY + wide
    made = [doubles.random_model(2, tied=tied, layers=2).double() for _ in range(2)]
    teacher = made[1] if same else doubles.random_model(1, hidden=32, vocabulary=width).double()
    contexts = frozen_contexts()
    truth = Truth(made[1], teacher, doubles.VOCABULARY)

    def states(context: Context) -> Tensor:
        ids = torch.tensor([[*context.prompt.tolist(), *context.response.tolist()]])
        with torch.no_grad(), in_float64():
            hidden = teacher.model(ids).last_hidden_state[0, len(context.prompt) - 1 : -1]
        return hidden[torch.from_numpy(context.valid)]

    def batch(*rows: int) -> Batch:
        return Batch(
            rows=rows,
            names=tuple(f"context-{row}" for row in rows),
            contexts=tuple(contexts[row] for row in rows),
            teacher=torch.cat([states(contexts[row]) for row in rows]),
        )

    head = head_of(teacher, "teacher")
    student = Student(made[0].to(dtype), "student", head, doubles.VOCABULARY)
    return Pair(student, truth, contexts, batch)
