"""Slow definitions in float64 that the statistics are held to, and synthetic token tables.

Written from DEFINITIONS with plain loops; nothing here imports the code under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

SUPPORT = 8  # K of the synthetic overlap and Jaccard columns


def quantile(values: Sequence[float], q: float) -> float:
    """The linear-interpolation quantile: between the sorted values around index (n - 1) q."""
    ordered = sorted(float(v) for v in values)
    index = (len(ordered) - 1) * q
    below = math.floor(index)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (index - below)


def stretched(values: Sequence[float]) -> list[float]:
    """(z - Q05) / (Q95 - Q05 + 1e-12), all 0 where the range is below 1e-12."""
    low, high = quantile(values, 0.05), quantile(values, 0.95)
    if high - low < 1e-12:
        return [0.0 for _ in values]
    return [(float(z) - low) / (high - low + 1e-12) for z in values]


def norm(values: Sequence[float]) -> list[float]:
    """Eq. 11: `stretched`, clipped to [0, 1]."""
    return [min(max(z, 0.0), 1.0) for z in stretched(values)]


def quadrant(entropy: float, kl_0: float, entropy_cut: float, kl_cut: float) -> int:
    """Section 3.4: low means H <= cut, high means KL_0 >= cut."""
    if entropy <= entropy_cut:
        return 3 if kl_0 >= kl_cut else 4
    return 1 if kl_0 >= kl_cut else 2


def make_frame(seed: int, prompts: int = 10, rollouts: int = 2, length: int = 22) -> pd.DataFrame:
    """A synthetic token table of one checkpoint, in bank order.

    Prompt and context ids are not in sorted order, rollouts differ in length, and the gain depends
    on D^L, on the prompt and on noise.
    """
    rng = np.random.default_rng(seed)
    rows = []
    labels = rng.permutation(prompts)
    for prompt in labels:
        effect = rng.normal(scale=0.2)
        for rollout in range(rollouts):
            size = int(rng.integers(length // 2, length + 1))
            context = f"c{rng.integers(1_000_000):06d}-{prompt}-{rollout}"
            for position in range(size):
                entropy, kl_0 = rng.gamma(1.5), rng.gamma(1.2)
                shared = int(rng.integers(0, SUPPORT + 1))
                rows.append(
                    {
                        "checkpoint": "step10",
                        "context_id": context,
                        "prompt_id": f"p{prompt:03d}",
                        "position": position,
                        "kl_0": kl_0,
                        "entropy": entropy,
                        "teacher_entropy": 0.3 * entropy + rng.gamma(1.0),
                        "disagreement": 0.7 * kl_0 + 0.3 * rng.gamma(1.0),
                        "compatibility": float(rng.beta(2.0, 1.0)),
                        "overlap": shared / SUPPORT,
                        "jaccard": shared / (2 * SUPPORT - shared),
                        "relative_position": position / (size - 1),
                        "noise": effect + rng.normal(scale=0.3),
                    }
                )
    frame = pd.DataFrame(rows)
    for name in ("entropy", "teacher_entropy", "disagreement", "compatibility"):
        frame[f"{name}_norm"] = norm(frame[name])
    frame["learnable"] = frame["disagreement_norm"] * frame["compatibility_norm"]
    frame["incompatible"] = frame["disagreement_norm"] * (1 - frame["compatibility_norm"])
    cuts = quantile(frame["entropy"], 0.5), quantile(frame["kl_0"], 0.5)
    frame["quadrant"] = [
        quadrant(h, d, *cuts) for h, d in zip(frame["entropy"], frame["kl_0"], strict=True)
    ]
    frame["quadrant"] = frame["quadrant"].astype("int8")
    frame["gain"] = 0.6 * frame["learnable"] + frame.pop("noise")
    frame["gain_rel"] = frame["gain"] / (frame["kl_0"] + 1e-12)
    return frame


def permuted(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same rows in another order, with the index that goes with it."""
    return frame.iloc[np.random.default_rng(seed).permutation(len(frame))]


def relabelled(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with prompts renamed one to one, so that they sort the other way round."""
    names = sorted(set(frame["prompt_id"]))
    renamed = dict(zip(names, reversed([f"z{i:04d}" for i in range(len(names))]), strict=True))
    return frame.assign(prompt_id=[renamed[name] for name in frame["prompt_id"]])


def drawn_frame(frame: pd.DataFrame, counts: np.ndarray) -> pd.DataFrame:
    """One bootstrap draw: the rows of each prompt concatenated as often as it was drawn.

    `counts` (clusters,) goes with the sorted prompt ids.
    """
    names = sorted(set(frame["prompt_id"]))
    pieces = []
    for name, times in zip(names, counts, strict=True):
        pieces.extend([frame[frame["prompt_id"] == name]] * int(times))
    return pd.concat(pieces, ignore_index=True)


def brute_force(
    frame: pd.DataFrame, counts: np.ndarray, statistic: Callable[[pd.DataFrame], float]
) -> np.ndarray:
    """A statistic of each draw's concatenated rows, (draws,), for counts (draws, clusters)."""
    return np.array([statistic(drawn_frame(frame, row)) for row in counts])


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """The ends of the 95 % percentile interval."""
    return quantile(draws, 0.025), quantile(draws, 0.975)
