"""Trained masks, rescored on one bank: what each did to the student (DEFINITIONS, section 7).

An arm is one training with a mask: a selector, a budget and a seed. Every number here is linear in
the gains of positions, so the arms of a mask are averaged over seeds at each position first, and an
interval is over prompts. It knows nothing of seeds: the standard deviation over them stands beside
it, NaN for one seed. What is paired is paired over prompts and, where both masks have the seed,
over seeds (Tables 2, 7, 10).

`gain` is the mean gain over the whole bank. `contrast`, inside Q3 the high-C third's gain less the
low-C third's, is what the paper's tables print as "bootstrap gain"; a student that improved every
position alike has gain > 0 and contrast 0. Not covered: definition sets that leak, since what a
mask aims at is then another thing for each checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.progress import Advance, silent
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.budgets import selections
from diagnostics.statistics.analyses.gaps import masked_mean
from diagnostics.statistics.analyses.headlines import Shared
from diagnostics.statistics.analyses.noise import unchanged_tokens
from diagnostics.statistics.inference.estimators import Estimator, estimate
from diagnostics.statistics.selection.selectors import (
    Selection,
    Selector,
    check_budget,
    check_selector,
)
from diagnostics.statistics.tables.definitions import PAPER, Definitions
from diagnostics.statistics.tables.measured import RELATIVE_EPSILON, measure_after, measure_start
from diagnostics.statistics.tables.tokens import require_checkpoints, require_gain, token_tables
from diagnostics.statistics.tables.values import Outcome, require_finite

Floats = NDArray[np.float64]
Mask = tuple[Selector, float]
Number = Literal["gain", "on_target", "off_target", "contrast", "matched_gap"]
NUMBERS: tuple[Number, ...] = get_args(Number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One training with a mask, whose checkpoint was rescored.

    Fields: `checkpoint` its name in the run; `selector`; `budget` that was asked for, 1 for `full`;
    `seed`; `keep` share of positions that carried loss, mean over training steps; `held_out_kl`
    nats, the last value of the training log; `skipped` batches that the mask left empty;
    `q3_share` of the positions that carried loss, by Q3 of their own batch, None where unknown.
    """

    checkpoint: str
    selector: Selector
    budget: float
    seed: int
    keep: float
    held_out_kl: float
    skipped: int = 0
    q3_share: float | None = None

    @property
    def mask(self) -> Mask:
        """Selector and budget."""
        return self.selector, self.budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """The gains of arms on one bank.

    Fields: `arms`; `gains` (arms, pos) nats; `shared` what they share, its frame holding theta_0's
    signals (its gains are the first arm's); `targets` what each mask's own selector keeps on the
    bank at its budget, which no arm was trained on.
    """

    arms: tuple[Arm, ...]
    gains: Floats = field(repr=False)
    shared: Shared = field(repr=False)
    targets: Mapping[Mask, Selection] = field(repr=False)

    @property
    def masks(self) -> dict[Mask, list[int]]:
        """The arms of each mask, as rows of `gains`, in the order they were given."""
        found: dict[Mask, list[int]] = {}
        for row, arm in enumerate(self.arms):
            found.setdefault(arm.mask, []).append(row)
        return found

    @property
    def full(self) -> Mask | None:
        """The mask that keeps every position, None where it was not trained."""
        return next((mask for mask in self.masks if mask[0] == "full"), None)

    def of(self, mask: Mask) -> list[Arm]:
        """The arms of a mask."""
        return [self.arms[row] for row in self.masks[mask]]

    def values(self, rows: Sequence[int], outcome: Outcome = "gain") -> Floats:
        """Gain of each position, averaged over some arms, (pos,)."""
        mean = self.gains[list(rows)].mean(axis=0)
        if outcome == "gain":
            return np.asarray(mean)
        return np.asarray(mean / (self.shared.frame["kl_0"].to_numpy() + RELATIVE_EPSILON))

    def number(self, number: Number, mask: Mask, outcome: Outcome = "gain") -> Estimator:
        """A number of a mask, averaged over its seeds."""
        return self._number(number, mask, self.values(self.masks[mask], outcome))

    def by_seed(self, number: Number, mask: Mask, outcome: Outcome = "gain") -> dict[int, float]:
        """The same of each seed alone."""
        rows = self.masks[mask]
        found = (self._number(number, mask, self.values([row], outcome)) for row in rows)
        return {
            self.arms[row].seed: float(estimate(one)[0])
            for row, one in zip(rows, found, strict=True)
        }

    def _number(self, number: Number, mask: Mask, values: Floats) -> Estimator:
        shared = self.shared
        if number == "contrast":
            return shared.split.gap(shared.clusters, values)
        if number == "matched_gap":
            return shared.pairs.difference(shared.clusters, values)
        kept = self.targets[mask].mask
        rows = {"gain": np.ones_like(kept), "on_target": kept, "off_target": ~kept}
        return masked_mean(shared.clusters, values, rows[number])


def measure_arms(
    run: Run,
    arms: Sequence[Arm],
    k: int = 16,
    definitions: Definitions = PAPER,
    *,
    seed: int = 0,
    advance: Advance = silent,
) -> Rescored:
    """Reads the gains of arms, one checkpoint at a time; what knows theta_0 alone is made once.

    `seed` chooses what `random` aims at on the bank. Raises InputError for arms that do not fit
    together or are not in the run, a definition set that leaks, a teacher known by its lists alone,
    a gain that is not finite, and as `selections` does.
    """
    require_gain(run)
    if definitions.leaks:
        raise InputError(
            where="interventions",
            expected="a definition set whose signals are all theta_0's",
            got=f"`{definitions.name}`",
            fix="choose `paper` or `released`",
        )
    check_arms(arms)
    names = require_checkpoints(run, [arm.checkpoint for arm in arms])
    start = measure_start(run, k, run.contexts())
    (frame,) = token_tables(run, [k], names[:1], definitions, start=start)
    gains = np.empty((len(arms), len(frame)))
    everywhere = np.ones(len(frame), dtype=bool)
    for row, name in enumerate(names):
        gains[row] = measure_after(run, k, name, start).columns["gain"]
        require_finite(gains[row], f"gain of {name}", frame, everywhere)
        advance(1)
    size = int(run.manifest["vocabulary"]["shared"])
    return Rescored(
        arms=tuple(arms),
        gains=gains,
        shared=Shared(frame),
        targets=_targets(frame, arms, seed=seed, vocabulary=size),
    )


def unchanged_arms(rescored: Rescored, run: Run, kind: str) -> Rescored:
    """Arms that did not change: theta_0 scored a second time in every arm's place.

    Over the positions that were scored twice. Raises InputError as `unchanged_tokens` does.
    """
    frame = unchanged_tokens(rescored.shared.frame, run, kind)
    rows = frame.index.to_numpy()
    gain = frame["gain"].to_numpy()
    targets = {m: replace(t, mask=t.mask[rows]) for m, t in rescored.targets.items()}
    return Rescored(
        arms=rescored.arms,
        gains=np.broadcast_to(gain, (len(rescored.arms), len(gain))),
        shared=Shared(frame.reset_index(drop=True)),
        targets=targets,
    )


def check_arms(arms: Sequence[Arm]) -> None:
    """Refuses no arm, one given twice, and what an arm cannot be."""
    places = [(arm.selector, arm.budget, arm.seed) for arm in arms]
    names = [arm.checkpoint for arm in arms]
    twice = [name for name, place in zip(names, places, strict=True) if places.count(place) > 1]
    twice += [name for name in names if names.count(name) > 1]
    if not arms or twice:
        raise InputError(
            where="interventions",
            expected="arms that differ in checkpoint, and in selector, budget or seed",
            got=", ".join(dict.fromkeys(twice)) or "none",
            fix="give each training once",
        )
    for arm in arms:
        check_selector(arm.selector)
        check_budget(arm.budget)
        if arm.selector == "full" and arm.budget != 1:
            raise _unfit(arm, "budget 1 of the selector `full`", f"{arm.budget:g}")
        if not 0 <= arm.keep <= 1:
            raise _unfit(arm, "a kept share from 0 to 1", f"{arm.keep:g}")


def _unfit(arm: Arm, expected: str, got: str) -> InputError:
    return InputError(
        where=f"arm {arm.checkpoint}", expected=expected, got=got, fix="correct its record"
    )


def _targets(
    frame: Any, arms: Sequence[Arm], *, seed: int, vocabulary: int
) -> dict[Mask, Selection]:
    """What each mask's selector keeps on the bank."""
    budgets: dict[Selector, list[float]] = {}
    for arm in arms:
        if arm.budget not in budgets.setdefault(arm.selector, []):
            budgets[arm.selector].append(arm.budget)
    found: dict[Mask, Selection] = {}
    for selector, asked in budgets.items():
        found |= selections(frame, [selector], asked, seed, vocabulary=vocabulary)
    return found
