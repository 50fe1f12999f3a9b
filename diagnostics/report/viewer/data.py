"""What the viewer shows of a run, as arrays: measures, kept positions and most probable tokens.

`measure` takes every position of the run, as norms and quadrants belong to the whole bank; `show`
then reads the most probable tokens of chosen contexts alone, part by part. The definition set is
`paper`, always. Not covered: a teacher known by its lists, beside whom no gain can be had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.scoring.run import START, TEACHER, Run
from diagnostics.scoring.texts import TokenTexts, id_text
from diagnostics.statistics.analyses.budgets import selections
from diagnostics.statistics.analyses.shown import PAPER_SELECTORS
from diagnostics.statistics.selection.selectors import Selector
from diagnostics.statistics.tables.tokens import require_gain, token_table

MEASURES = ("learnable", "incompatible", "compatibility", "kl_0", "entropy")
BUDGETS = (0.03, 0.05, 0.1)
MOST = 5  # most probable tokens shown of each model

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Every valid position of a run, bank order.

    Fields: `context` (pos,) index into the bank; `position`, `token_id`, `quadrant` (pos,);
    `measures` (pos,) by the names of `MEASURES`, in nats or none; `gain` and `kl` (checkpoint, pos)
    nats; `kept` (pos,), bit i set where `masks[i]` (selector, budget) keeps the position.
    """

    run: Run
    top_k: int
    context: Ids
    position: Ids
    token_id: Ids
    quadrant: NDArray[np.uint8]
    measures: dict[str, Floats]
    gain: Floats
    kl: Floats
    kept: NDArray[np.uint32]
    masks: tuple[tuple[Selector, float], ...]

    @property
    def contexts(self) -> int:
        """How many contexts the run has."""
        return int(self.run.manifest["bank"]["contexts"])

    def mean_gain(self, checkpoint: int = 0) -> Floats:
        """Mean gain of each context under a checkpoint, (context,), nats; nan where empty."""
        counts = np.bincount(self.context, minlength=self.contexts)
        sums = np.bincount(self.context, self.gain[checkpoint], self.contexts)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Chosen contexts of a run.

    Fields: `measured` their positions alone; `contexts` indices into the bank, bank order;
    `models` names, teacher and theta_0 first; `top_ids`, `top_prob` (model, most, pos), most
    probable first.
    """

    measured: Measured
    contexts: tuple[int, ...]
    models: tuple[str, ...]
    top_ids: Ids
    top_prob: Floats

    def token_ids(self) -> Ids:
        """The ids that occur, most frequent first."""
        ids, counts = np.unique(
            np.r_[self.measured.token_id, self.top_ids.ravel()], return_counts=True
        )
        return np.asarray(ids[np.argsort(-counts, kind="stable")], dtype=np.int32)


def measure(run: Run, top_k: int, seed: int = 0) -> Measured:
    """Every position's measures at support size `top_k`.

    Raises InputError for a teacher known by its lists, a run without checkpoints, or a `top_k`
    beyond the run's.
    """
    require_gain(run)
    frame = token_table(run, top_k)
    names = run.checkpoints
    count = len(frame) // len(names)
    start = frame.iloc[:count]
    kept, masks = _kept(start, seed, int(run.manifest["vocabulary"]["shared"]))
    return Measured(
        run=run,
        top_k=top_k,
        context=_places(start, run.contexts()[0]),
        position=start["position"].to_numpy(dtype=np.int32),
        token_id=start["token_id"].to_numpy(dtype=np.int32),
        quadrant=start["quadrant"].to_numpy(dtype=np.uint8),
        measures={name: start[name].to_numpy(dtype=np.float64) for name in MEASURES},
        gain=frame["gain"].to_numpy(dtype=np.float64).reshape(len(names), count),
        kl=frame["kl"].to_numpy(dtype=np.float64).reshape(len(names), count),
        kept=kept,
        masks=masks,
    )


def show(measured: Measured, contexts: Sequence[int]) -> Shown:
    """What the viewer shows of these contexts (indices into the bank)."""
    chosen = tuple(sorted(contexts))
    rows = np.isin(measured.context, chosen)
    models = (TEACHER, START, *measured.run.checkpoints)
    tops = [_tops(measured.run, model, rows) for model in models]
    return Shown(
        measured=_rows(measured, rows),
        contexts=chosen,
        models=models,
        top_ids=np.stack([ids for ids, _ in tops]),
        top_prob=np.stack([prob for _, prob in tops]),
    )


def evenly_by_gain(measured: Measured, wanted: int) -> list[int]:
    """`wanted` contexts, evenly over the ranks of the first checkpoint's mean gain, bank order.

    Those with the least and the most gain are among them; contexts without positions are not.
    """
    means = measured.mean_gain()
    ranked = np.argsort(means, kind="stable")[: int(np.isfinite(means).sum())]
    places = np.linspace(0, len(ranked) - 1, min(wanted, len(ranked))).round().astype(int)
    return sorted(int(i) for i in ranked[np.unique(places)])


def text_of(texts: TokenTexts | None, token_id: int) -> str:
    """A token's text; `⟨id⟩` where the run does not know it."""
    return id_text(token_id) if texts is None else texts[token_id]


def _places(frame: pd.DataFrame, names: Sequence[str]) -> Ids:
    """The bank's index of each row's context, (pos,)."""
    index = {name: place for place, name in enumerate(names)}
    codes = frame["context_id"].cat.codes.to_numpy()
    known = np.array([index[name] for name in frame["context_id"].cat.categories], np.int32)
    return np.asarray(known[codes], dtype=np.int32)


def _kept(
    frame: pd.DataFrame, seed: int, vocabulary: int
) -> tuple[NDArray[np.uint32], tuple[tuple[Selector, float], ...]]:
    """A bit a mask, (pos,), and what the bits mean."""
    found = selections(frame, PAPER_SELECTORS, BUDGETS, seed, vocabulary=vocabulary)
    bits = np.zeros(len(frame), dtype=np.uint32)
    for place, selection in enumerate(found.values()):
        bits |= selection.mask.astype(np.uint32) << np.uint32(place)
    return bits, tuple(found)


def _rows(measured: Measured, rows: NDArray[np.bool_]) -> Measured:
    return replace(
        measured,
        context=measured.context[rows],
        position=measured.position[rows],
        token_id=measured.token_id[rows],
        quadrant=measured.quadrant[rows],
        measures={name: values[rows] for name, values in measured.measures.items()},
        gain=measured.gain[:, rows],
        kl=measured.kl[:, rows],
        kept=measured.kept[rows],
    )


def _tops(run: Run, model: str, rows: NDArray[np.bool_]) -> tuple[Ids, Floats]:
    """Ids and probabilities of a model's most probable tokens at `rows`, (most, pos) each."""
    ids, logprobs, first = [], [], 0
    for part in range(run.parts):
        scores = run.teacher(part) if model == TEACHER else run.student(model, part)
        here = rows[first : first + len(scores.top_ids)]
        first += len(here)
        ids.append(scores.top_ids[here, :MOST].T)
        logprobs.append(scores.top_logprob[here, :MOST].T)
    return np.concatenate(ids, axis=1), np.exp(np.concatenate(logprobs, axis=1))
