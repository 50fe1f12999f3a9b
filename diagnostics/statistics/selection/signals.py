"""The signals that selectors rank positions by, and the identity that breaks their last ties.

One record for a bank's token table and for a rollout batch; a signal that a caller does not know is
None, and a selector that needs it refuses. Nothing is normalised here: that is the rules'.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ADDED = 0x9E3779B97F4A7C15 - 2**64  # as int64
_FACTORS = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_SLACK = 1e-6  # nats, how far rounding may lift H above log V


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What selectors rank by, each (pos,); None where the caller does not know it.

    Fields: `entropy` H of theta_0, nats; `disagreement` D, nats; `compatibility` C; `identity`
    (pos,) uint64, a hash of (context, position) that is unique with certainty enough to break ties;
    `kl_0` KL(p_T || p_0) and `reverse_kl_0` KL(p_0 || p_T), nats; `q3` bool, True in quadrant 3;
    `vocabulary` V, one number.
    """

    entropy: Floats
    disagreement: Floats
    compatibility: Floats
    identity: NDArray[np.uint64]
    kl_0: Floats | None = None
    reverse_kl_0: Floats | None = None
    q3: Mask | None = None
    vocabulary: int | None = None


def identities(context_ids: pd.Series, positions: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Stable 64-bit hashes of (context, position), (pos,), the same on every machine."""
    codes, names = pd.factorize(context_ids)
    return identities_from(context_hashes(names)[codes], positions)


def context_hashes(names: Iterable[str]) -> NDArray[np.uint64]:
    """A hash of each context id, (contexts,)."""
    digests = [hashlib.blake2b(str(n).encode(), digest_size=8).digest() for n in names]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def identities_from(hashes: NDArray[np.uint64], positions: NDArray[np.int32]) -> NDArray[np.uint64]:
    """`identities` from each row's context hash, (pos,)."""
    return _mix(hashes + _mix(positions.astype(np.uint64)))


def uniform(identity: NDArray[np.uint64], seed: int) -> Floats:
    """Random numbers (pos,), uniform over [0, 2^64], of each identity and the seed alone."""
    return _mix(identity + seed_hash(seed)).astype(np.float64)


def seed_hash(seed: int) -> NDArray[np.uint64]:
    """What `uniform` adds to an identity, (1,)."""
    return _mix(np.array([seed % 2**64], dtype=np.uint64))


def needed(name: str, signal: str, signals: Signals) -> Any:
    """The signal that selector `name` needs.

    Raises InputError where it is missing, not finite, or a vocabulary too small for the entropies.
    """
    value = getattr(signals, signal)
    if value is None:
        raise InputError(
            where=f"selector {name}",
            expected=f"the signal `{signal}`",
            got="none",
            fix=f"give it in Signals({signal}=…), or choose another selector",
        )
    if signal == "vocabulary":
        _check_vocabulary(name, value, signals.entropy)
    elif signal != "q3" and not (finite := np.isfinite(value)).all():
        raise InputError(
            where=f"selector {name}",
            expected=f"a finite `{signal}` at every position",
            got=f"{value[~finite][0]} at row {np.flatnonzero(~finite)[0]}",
            fix="choose a selector that does without it, or score the context again",
        )
    return value


def _check_vocabulary(name: str, size: int, entropy: Floats) -> None:
    highest = float(entropy.max())
    if size < 2 or math.log(size) < highest - _SLACK:
        raise InputError(
            where=f"selector {name}",
            expected=f"a `vocabulary` of which {highest:.4g} nats of entropy can be had",
            got=str(size),
            fix="give the size of the vocabulary that both models share",
        )


def scattered(x: Any) -> Any:
    """The finaliser of splitmix64: a bijection of 64-bit integers that scatters them.

    On int64 arrays or tensors, whose arithmetic wraps around; what a shift to the right brings in
    at the top is taken out again.
    """
    x = x + _ADDED
    x = (x ^ ((x >> 30) & (1 << 34) - 1)) * _FACTORS[0]
    x = (x ^ ((x >> 27) & (1 << 37) - 1)) * _FACTORS[1]
    return x ^ ((x >> 31) & (1 << 33) - 1)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.asarray(scattered(x.view(np.int64)).view(np.uint64))
