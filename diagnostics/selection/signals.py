"""The signals of a batch as tensors, and the check that they are numbers.

What they are made from is in `scoring` and `lists`; nothing is normalised here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError

_SLACK = 1e-6  # nats, how far rounding may lift H above log V


@dataclass(frozen=True, kw_only=True)
class TokenSignals:
    """What selectors rank by, each (batch, time) float64; None where it is not known.

    Fields: `entropy` H of the student, nats; `disagreement` D, nats (Eq. 9); `compatibility` C
    (Eq. 10), or its lower bound (Eq. 17); `kl` KL(p_T || p) and `reverse_kl` KL(p || p_T) over the
    whole vocabulary, nats; `vocabulary` V, one number. Values at positions that are not valid mean
    nothing.
    """

    entropy: Tensor | None = None
    disagreement: Tensor | None = None
    compatibility: Tensor | None = None
    kl: Tensor | None = None
    reverse_kl: Tensor | None = None
    vocabulary: int | None = None

    def map(self, fn: Callable[[Tensor], Tensor]) -> TokenSignals:
        """`fn` of each tensor: to gather them over ranks, to move or to cut them."""
        changed: dict[str, Any] = {name: fn(tensor) for name, tensor in self.known()}
        return replace(self, **changed)

    def known(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of what is known."""
        for field in fields(self):
            found = getattr(self, field.name)
            if isinstance(found, Tensor):
                yield field.name, found


def check_signals(signals: TokenSignals, mask: Tensor) -> None:
    """Refuses signals that are not finite at a valid position; waits for the device once.

    Raises InputError that names the first such row and position, and for a vocabulary too small for
    the entropies.
    """
    known = dict(signals.known())
    if known:
        finite = torch.stack([tensor.isfinite() for tensor in known.values()]).all(dim=0)
        bad = (~finite & mask).nonzero()[:1].tolist()
        if bad:
            row, position = bad[0]
            values = ((name, float(known[name][row, position])) for name in known)
            name, value = next((n, v) for n, v in values if not math.isfinite(v))
            raise InputError(
                where=f"row {row}, position {position}",
                expected="finite scores of student and teacher",
                got=f"{name} {value}",
                fix="lower the learning rate, train in float32, or skip the batch",
            )
    if signals.vocabulary is not None and signals.entropy is not None:
        _check_vocabulary(signals.vocabulary, signals.entropy, mask)


def _check_vocabulary(size: int, entropy: Tensor, mask: Tensor) -> None:
    highest = float(torch.where(mask, entropy, 0.0).amax()) if mask.numel() else 0.0
    if size < 2 or math.log(size) < highest - _SLACK:
        raise InputError(
            where="signals",
            expected=f"a `vocabulary` of which {highest:.4g} nats of entropy can be had",
            got=str(size),
            fix="give the size of the vocabulary that both models share",
        )
