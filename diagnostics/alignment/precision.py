"""Arithmetic that has derivatives both ways, in float32 or in float64 throughout.

Attention runs in torch's plain form: its fused kernels have no forward-mode derivative. Models ask
for float32 by name inside (norms, softmax, our own heads), also where their weights are float64,
and would round there to 7 digits; under `differentiable(float64)` they get float64 instead. Values
differ from the fused ones by rounding alone, which `align` checks on every position. Not covered:
kernels of a model's own that torch does not see.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from diagnostics.errors import InputError

Precision = Literal["float32", "float64"]
PRECISIONS: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
SMALL = 50_000_000  # parameters up to which `auto` takes float64


def check_precision(name: str) -> Precision | None:
    """The precision of a name, None for `auto`. Raises InputError for another word."""
    for known in get_args(Precision):
        if name == known:
            precision: Precision = known
            return precision
    if name == "auto":
        return None
    raise InputError(
        where="--dtype",
        expected=f"auto, {', '.join(PRECISIONS)}: small steps are lost in fewer digits",
        got=repr(name),
        fix="choose one of them",
    )


def precision_of(asked: Precision | None, model: PreTrainedModel) -> Precision:
    """What was asked; else float64 for a model of at most 50 million parameters, or float32."""
    if asked is not None:
        return asked
    return "float64" if sum(p.numel() for p in model.parameters()) <= SMALL else "float32"


@contextmanager
def differentiable(dtype: torch.dtype) -> Iterator[None]:
    """Attention with derivatives in both modes; in float64 nothing inside is rounded to float32."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if dtype == torch.float64:
            stack.enter_context(_Float64())
        yield


class _Float64(TorchFunctionMode):
    """Every call that names float32 is made with float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        named = {name: _wider(value) for name, value in (kwargs or {}).items()}
        return func(*map(_wider, args), **named)


def _wider(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


def load_forward_mode() -> None:
    """Loads torch's forward-mode rules, which warn of their own use of a deprecated function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))
