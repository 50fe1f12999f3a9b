"""Synthetic token tables from a known process, for studies of intervals and designs.

Prompts differ in level, in how fast they learn, in their number of rollouts and in length;
rollouts of a prompt share its effects; neighbouring positions resemble each other. Signals are
log-normal (D, KL, H) or logistic (C), D and H correlated so that Q3 holds about 7 % of positions,
as in the paper. The gain of a position, nats, is

    effect_l D C + effect_i D (1 - C) + D (effects of prompt and rollout) + noise

with all effects and noise Student's t. Normalised columns and quadrants are those of the drawn
bank (`tokens.derived`), as in a real one. Not covered: tokens, other checkpoints, ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.statistics.tables.measured import RELATIVE_EPSILON, relative_position
from diagnostics.statistics.tables.tokens import derived

Floats = NDArray[np.float64]

SIGNALS = 4  # latent signals: D, H, H_T, C
SHARED = 0.9  # correlation of latent D and H; Q3's share is arccos(SHARED) / 2 pi = 7 %
OF_PROMPT = 0.3  # share of a latent signal's variance that all positions of a prompt have in common


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Which rollout and prompt each row is of.

    Fields: `prompt` (rollouts,) of each rollout; `context` (pos,) int32 and `position` (pos,)
    int32 of each row, grouped by rollout.
    """

    prompt: NDArray[np.int64]
    context: NDArray[np.int32]
    position: NDArray[np.int32]


def synthetic_bank(
    rng: np.random.Generator,
    prompts: int,
    rollouts: int,
    positions: int,
    *,
    prompt_sd: float = 0.2,
    rollout_sd: float = 0.1,
    serial: float = 0.5,
    tail_df: float = np.inf,
    effect_l: float = 0.3,
    effect_i: float = 0.2,
    unequal: bool = False,
) -> pd.DataFrame:
    """The token table of a bank of `prompts` x `rollouts` x `positions`, in bank order.

    `prompt_sd` and `rollout_sd`: deviations, between prompts and between rollouts of one, of the
    gain per nat of D; `serial`: correlation of neighbouring positions; `tail_df`: degrees of
    freedom (above 2; inf is normal) of everything random in the gain; `effect_l`, `effect_i`: gain
    per nat of D inside and outside the support. With `unequal` a prompt has 1 to 2 `rollouts` - 1
    rollouts, and a rollout a quarter to seven quarters of `positions`; both are means.
    """
    places = _places(rng, prompts, rollouts, positions, unequal)
    width = int(places.position.max()) + 1
    where = places.context, places.position
    rows = len(places.prompt)
    common = rng.normal(size=(prompts, SIGNALS))[places.prompt]
    own = np.stack([_series(rng.normal(size=(rows, width)), serial) for _ in range(SIGNALS)])
    latent = (np.sqrt(OF_PROMPT) * common.T[:, :, None] + np.sqrt(1 - OF_PROMPT) * own)[:, *where]
    raw = _signals(latent)
    slope_l, slope_i = (prompt_sd * _t(rng, tail_df, prompts)[places.prompt] for _ in range(2))
    of_rollout = rollout_sd * _t(rng, tail_df, rows)
    noise = _series(_t(rng, tail_df, (rows, width)), serial)[where]
    d, c = raw["disagreement"], raw["compatibility"]
    inside = effect_l + (slope_l + of_rollout)[places.context]
    outside = effect_i + (slope_i + of_rollout)[places.context]
    raw["gain"] = d * (c * inside + (1 - c) * outside) + 0.3 * np.sqrt(d) * noise
    raw["gain_rel"] = raw["gain"] / (raw["kl_0"] + RELATIVE_EPSILON)
    return pd.DataFrame(_labels(places, prompts) | raw | derived(raw))


def _places(
    rng: np.random.Generator, prompts: int, rollouts: int, positions: int, unequal: bool
) -> Places:
    if unequal:
        counts = rng.integers(1, 2 * rollouts, prompts)
        total = int(counts.sum())
        lengths = rng.integers(positions // 4, positions + 3 * positions // 4 + 1, total)
    else:
        counts = np.full(prompts, rollouts)
        lengths = np.full(prompts * rollouts, positions)
    context = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    return Places(
        prompt=np.repeat(np.arange(prompts), counts),
        context=context.astype(np.int32),
        position=(np.arange(len(context)) - starts[context]).astype(np.int32),
    )


def _labels(places: Places, prompts: int) -> dict[str, object]:
    """The columns that say where each row is."""
    contexts = [f"c{index:06d}" for index in range(len(places.prompt))]
    names = [f"p{index:06d}" for index in range(prompts)]
    return {
        "context_id": pd.Categorical.from_codes(places.context, contexts),
        "prompt_id": pd.Categorical.from_codes(places.prompt[places.context], names),
        "position": places.position,
        "relative_position": relative_position(places.context),
    }


def _signals(latent: Floats) -> dict[str, Floats]:
    """Raw signals (pos,) from latent normal ones (signals, pos)."""
    d, h, h_t, c = latent
    h = SHARED * d + np.sqrt(1 - SHARED**2) * h
    return {
        "disagreement": np.exp(d - 2.0),
        "kl_0": np.exp(d - 2.0) * 1.1,
        "entropy": np.exp(h - 1.0),
        "teacher_entropy": np.exp(0.7 * h + 0.7 * h_t - 1.0),
        "compatibility": 1 / (1 + np.exp(-1.5 - 1.5 * c)),
    }


def _series(innovations: Floats, serial: float) -> Floats:
    """AR(1) along the last axis with the innovations' own variance, (rollouts, positions)."""
    out = innovations.copy()
    for t in range(1, out.shape[1]):
        out[:, t] = serial * out[:, t - 1] + np.sqrt(1 - serial**2) * innovations[:, t]
    return out


def _t(rng: np.random.Generator, df: float, size: int | tuple[int, ...]) -> Floats:
    """Student's t scaled to variance 1; normal where df is infinite."""
    if np.isinf(df):
        return rng.normal(size=size)
    return np.asarray(rng.standard_t(df, size) / np.sqrt(df / (df - 2)))
