"""A model's output head, taken apart from its body: hidden states in, logits in float32 out.

What a family does to its logits after the matrix product is read off the model's own forward pass,
not off a list of names: the head's output is replaced by known numbers, and what leaves the model
is compared with them. A factor (Cohere, Granite, Falcon-H1), a soft cap (Gemma), a bias and rows
that are cut off are honoured; anything else is refused. The same test shows that the head is fed
the body's final hidden state. Nothing is loaded here.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from diagnostics.errors import InputError
from diagnostics.files import whole_file
from diagnostics.models.adapters import effective_head
from diagnostics.models.weights import final_hidden

LARGEST = 1e4  # size of the known logits that are sent through a model
CLOSE = 1e-5  # how well a factor and a cap must explain what comes out, relative
SAME = 1e-2  # how near the head's input is to the last hidden state, of its largest entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Logits of a model from its final hidden states.

    logits = cap(scale * (hidden @ weight^T + bias)), cap(x) = softcap * tanh(x / softcap).
    Fields: `weight` (vocab, hidden), in the dtype that the model holds; `bias` (vocab,) or None;
    `scale`; `softcap` or None for no cap.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    @property
    def vocabulary(self) -> int:
        """Rows: the width of the logits."""
        return len(self.weight)

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits (pos, vocab) float32 for hidden states (pos, hidden), into `out` where given.

        The product is taken in float32: logits rounded to bf16 put errors of 2e-2 nats into KL.
        """
        product = _product(hidden, self.weight, out)
        if self.bias is not None:
            product = product.add_(self.bias.float())
        if self.scale != 1.0:
            product = product.mul_(self.scale)
        if self.softcap is not None:
            capped = product.div_(self.softcap).tanh_()  # which its own derivative is made of
            product = capped * self.softcap if capped.requires_grad else capped.mul_(self.softcap)
        return product

    def rows(self, first: int, last: int) -> Head:
        """The head of token ids `first` to `last` - 1; on the CPU its weights are float32."""
        weight = self.weight[first:last]
        if weight.device.type == "cpu":
            weight = weight.float()
        bias = None if self.bias is None else self.bias[first:last]
        return Head(weight=weight, bias=bias, scale=self.scale, softcap=self.softcap)


def head_of(model: PreTrainedModel, name: str) -> Head:
    """The head of a loaded model, which `name` names in errors.

    Raises InputError where the model's own logits are not what a `Head` can say.
    """
    weight, bias = effective_head(model, name)
    scale, softcap, rows = _transform(model, name, len(weight))
    bias = None if bias is None else bias[:rows]
    return Head(weight=weight[:rows], bias=bias, scale=scale, softcap=softcap)


def save_head(head: Head, path: Path) -> None:
    """Writes a head whole, bit by bit as it is."""
    tensors = {"weight": head.weight.contiguous().cpu()}
    if head.bias is not None:
        tensors["bias"] = head.bias.contiguous().cpu()
    words = {
        "transform": json.dumps([head.scale, head.softcap])
    }  # one key: its bytes stay the same
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata=words)


def load_head(path: Path, device: str) -> Head:
    """Reads a head that `save_head` wrote. Raises InputError when it is missing or damaged."""
    try:
        with safe_open(path, framework="pt", device=device) as file:
            scale, softcap = json.loads(file.metadata()["transform"])
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return Head(
            weight=tensors["weight"],
            bias=tensors.get("bias"),
            scale=scale,
            softcap=softcap,
        )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            where=str(path),
            expected="the teacher's output head, whole",
            got=" ".join(str(error).split()),
            fix="delete the run's folder `hidden` and run the same command again",
        ) from error


def _product(hidden: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    if hidden.device.type == "cuda" and hidden.dtype == weight.dtype != torch.float32:
        return torch.mm(hidden, weight.T, out_dtype=torch.float32)
    return torch.mm(hidden.float(), weight.float().T, out=out)


@torch.no_grad()
def _transform(model: PreTrainedModel, name: str, width: int) -> tuple[float, float | None, int]:
    """(scale, softcap, rows) of a model, by sending known numbers through its forward pass."""
    fed: list[Tensor] = []

    def replaced(_: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        fed.append(args[0])
        return known_logits(output.shape[-1]).to(output.device).expand(output.shape).clone()

    ids = torch.tensor([[1, 2]], device=model.device)  # 0 is often padding, of no embedding
    seen = torch.ones_like(ids)
    handle = model.get_output_embeddings().register_forward_hook(replaced)
    try:
        came = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[0, -1]
    finally:
        handle.remove()
    if not fed:
        raise _unknown_head(model, name, "a head that its forward pass does not call")
    states = final_hidden(model, ids, seen)[0, -1].double().cpu()
    off = (fed[0][0, -1].double().cpu() - states).abs().max()
    if off > SAME * states.abs().max():
        raise _unknown_head(model, name, "a head that is fed something else than the last norm")
    sent = known_logits(width)[: len(came)]
    explained = _explain(sent.double(), came.double().cpu())
    if explained is None:
        raise _unknown_head(model, name, "logits that are changed in some other way")
    return *explained, len(came)


def known_logits(width: int) -> Tensor:
    """Numbers (width,) float32 of both signs, from 1e-3 to `LARGEST` in size, mixed."""
    sizes = torch.logspace(-3, math.log10(LARGEST), width)
    signs = torch.ones(width).index_fill_(0, torch.arange(0, width, 2), -1.0)
    mixed = torch.randperm(width, generator=torch.Generator().manual_seed(0))
    return (sizes * signs)[mixed]


def _explain(sent: Tensor, came: Tensor) -> tuple[float, float | None] | None:
    """(scale, softcap) with came = softcap * tanh(scale * sent / softcap); None: no such."""
    small, large = int(sent.abs().argmin()), int(sent.abs().argmax())
    scale = float(came[large] / sent[large])
    slope = float(came[small] / sent[small])  # a cap does not show in small numbers
    cap = None
    if abs(scale - slope) > CLOSE * abs(slope):
        scale, cap = slope, _cap(slope * abs(float(sent[large])), abs(float(came[large])))
    if abs(scale - 1.0) < CLOSE:
        scale = 1.0
    found = sent * scale if cap is None else cap * torch.tanh(sent * scale / cap)
    fits = (found - came).abs() <= CLOSE * came.abs() + 1e-9
    return (scale, cap) if bool(fits.all()) else None


def _cap(before: float, after: float) -> float:
    """The c with after = c tanh(before / c), by bisection: the right side grows with c."""
    low, high = after, 1e12
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if middle * math.tanh(before / middle) < after else (low, middle)
    return round(low, 4)


def _unknown_head(model: PreTrainedModel, name: str, got: str) -> InputError:
    return InputError(
        where=name,
        expected="logits = cap(scale * (last hidden state @ head + bias))",
        got=f"{model.config.model_type} with {got}",
        fix="choose another model; this family cannot be scored exactly",
    )
