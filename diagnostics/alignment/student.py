"""A student as a function of its parameters: divergences from the teacher, and their derivatives.

    backward   sum over positions of one divergence -> its gradient by every parameter
    forward    one direction in parameter space -> the slope of every position's divergences

Both go through the body (`torch.func.functional_call`) and through the head that `models.heads`
found, cut to the shared vocabulary, so a head that is tied to the embedding is one parameter with
one tangent. Logits exist for `CHUNK` positions at one time. Every parameter counts, as in full
training; adapters and quantised weights are refused before (`align`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from transformers import PreTrainedModel

from diagnostics.alignment.frozen import Batch
from diagnostics.alignment.precision import differentiable, load_forward_mode
from diagnostics.errors import InputError
from diagnostics.models.heads import Head, head_of
from diagnostics.scoring.divergence import chunked, distribution, kl_divergence
from diagnostics.scoring.hidden import whole_rollouts

Parameters = Mapping[str, Tensor]
Divergence = Literal["kl", "reverse_kl"]
NO_FORWARD_MODE = ("forward ad", "forward mode", "functorch", "jvp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergences:
    """Of a batch's positions, or their slopes along a direction; nats.

    Fields: `kl` (pos,) KL(p_T || p_theta), whose mean over the bank is L_fix; `reverse_kl` (pos,)
    KL(p_theta || p_T), the OPD loss l_t of Eq. 6.
    """

    kl: Tensor
    reverse_kl: Tensor


class Student:
    """theta_0 beside a teacher's head, over the first `vocabulary` token ids.

    Attributes: `parameters` by name, each once; `dtype` of all arithmetic, that of the model.
    """

    def __init__(
        self, model: PreTrainedModel, name: str, teacher_head: Head, vocabulary: int
    ) -> None:
        load_forward_mode()
        self.name, self.vocabulary = name, vocabulary
        self._body = _Body(model.requires_grad_(False))
        self.parameters: dict[str, Tensor] = dict(self._body.named_parameters())
        self.dtype = next(iter(self.parameters.values())).dtype
        self._shape = head_of(model, name)
        module = model.get_output_embeddings()
        self._weight = self._named(module.weight)
        self._bias = None if self._shape.bias is None else self._named(module.bias)
        self._teacher_head = self._cut(
            replace(
                teacher_head,
                weight=teacher_head.weight.to(self.dtype),
                bias=None if teacher_head.bias is None else teacher_head.bias.to(self.dtype),
            )
        )

    def values(self, parameters: Parameters, batch: Batch) -> Divergences:
        """Divergences (pos,) float64 of a batch at some parameters, without gradient."""
        with torch.no_grad(), differentiable(self.dtype):
            return Divergences(**self._divergences(parameters, batch))

    def slopes(self, direction: Parameters, batch: Batch) -> tuple[Divergences, Divergences]:
        """Divergences (pos,) at theta_0, and their derivatives along `direction`: one forward pass.

        Raises InputError for a student with a layer that has no forward-mode derivative.
        """
        try:
            with differentiable(self.dtype):
                value, slope = jvp(  # type: ignore[misc]
                    lambda parameters: self._divergences(parameters, batch),
                    (self.parameters,),
                    (dict(direction),),
                )
        except (NotImplementedError, RuntimeError) as error:
            text = " ".join(str(error).split())
            if not any(words in text.lower() for words in NO_FORWARD_MODE):
                raise
            raise InputError(
                where=self.name,
                expected="layers that have a forward-mode derivative",
                got=text[:200],
                fix="this family's own kernels stand in the way: choose another student",
            ) from error
        return Divergences(**value), Divergences(**slope)

    def gradient(self, frozen: Iterable[Batch], of: Divergence) -> dict[str, Tensor]:
        """Gradient of the sum over all positions of one divergence, by parameter name.

        Raises InputError that names the context where it is not finite.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        for batch in frozen:
            with torch.enable_grad(), differentiable(self.dtype):
                hidden = self._hidden(leaves, batch)
                cut = hidden.detach().requires_grad_()
                for student, teacher in self._chunks(cut, batch):
                    found = self._compare(leaves, student, teacher)
                    found[of].sum().backward()  # type: ignore[no-untyped-call]
                assert cut.grad is not None
                require_finite(cut.grad.sum(dim=1), batch, f"gradient of {self.name}")
                hidden.backward(cut.grad)  # type: ignore[no-untyped-call]
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in leaves.items()}

    def stepped(self, size: float, gradient: Parameters) -> dict[str, Tensor]:
        """theta_0 - size * gradient."""
        return {name: p - size * gradient[name] for name, p in self.parameters.items()}

    def _divergences(self, parameters: Parameters, batch: Batch) -> dict[str, Tensor]:
        hidden = self._hidden(parameters, batch)
        pieces = [self._compare(parameters, s, t) for s, t in self._chunks(hidden, batch)]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _hidden(self, parameters: Parameters, batch: Batch) -> Tensor:
        """Hidden states (pos, hidden) at the batch's valid positions."""
        states: Tensor = functional_call(self._body, dict(parameters), (batch,))
        return states

    def _chunks(self, hidden: Tensor, batch: Batch) -> Iterable[tuple[Tensor, Tensor]]:
        teacher = batch.teacher.to(hidden.device, self.dtype)
        return zip(chunked(hidden), chunked(teacher), strict=True)

    def _compare(self, parameters: Parameters, s: Tensor, t: Tensor) -> dict[str, Tensor]:
        bias = None if self._bias is None else parameters[self._bias]
        head = self._cut(replace(self._shape, weight=parameters[self._weight], bias=bias))
        student = distribution(head.logits(s))
        teacher = distribution(self._teacher_head.logits(t))
        return {
            "kl": kl_divergence(teacher, student),
            "reverse_kl": kl_divergence(student, teacher),
        }

    def _cut(self, head: Head) -> Head:
        with differentiable(self.dtype):
            return head.rows(0, self.vocabulary)

    def _named(self, parameter: Tensor) -> str:
        """The name of the head's parameter; that of the embedding where both are one."""
        found = [name for name, own in self.parameters.items() if own is parameter]
        if not found:
            raise InputError(
                where=self.name,
                expected="a head whose weights are parameters",
                got="numbers made on the way",
                fix="choose another student",
            )
        return found[0]


class _Body(nn.Module):
    """Hidden states of a batch as a module's forward pass, which `functional_call` asks for."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return torch.cat(whole_rollouts(self.model, batch.contexts))


def inner(a: Parameters, b: Parameters) -> float:
    """<a, b> over all parameters, summed in float64."""
    return float(sum((a[name].double() * b[name].double()).sum() for name in a))


def require_finite(values: Tensor, batch: Batch, what: str) -> None:
    """Refuses NaN and infinity at a batch's positions (pos,), naming the context."""
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        raise InputError(
            where=f"{what}, context {batch.names[batch.owner(int(bad[0]))[0]]}",
            expected="finite numbers",
            got=str(float(values[bad[0]])),
            fix="lower --step-size, take --dtype float64, or check the student's weights",
        )
