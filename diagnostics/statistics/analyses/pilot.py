"""A pilot's rollouts, whole or cut after their first positions, and what each moves a number by.

The influence of a rollout or of a position on a headline number is that of a cluster of its own
(`estimators.influence`), so the algebra is the interval's: for a mean or a side of a gap it is
(y - mean) / count, for a regression's contrast u'x (y - x'b), and those of all positions of a
prompt add up to the prompt's. A matched pair counts where its high position stands. Cuts, norms
and pairs are held fixed, as in the interval. Axes: `pos` rows of a token table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.components import Components, components, require_prompts
from diagnostics.statistics.analyses.headlines import Headline, Shared, headline
from diagnostics.statistics.inference.clusters import Clusters, rollouts, single_rows
from diagnostics.statistics.inference.estimators import (
    Estimator,
    Floats,
    estimate,
    influence,
    without_each,
)
from diagnostics.statistics.tables.definitions import PAPER, definitions_of
from diagnostics.statistics.tables.sources import Source, as_frame
from diagnostics.statistics.tables.tokens import (
    derived,
    require_checkpoints,
    require_gain,
    token_table,
)
from diagnostics.statistics.tables.values import Outcome


@dataclass(frozen=True)
class Pilot:
    """Fields: `frame` the token table of one checkpoint."""

    frame: pd.DataFrame

    @cached_property
    def shared(self) -> Shared:
        """What all its numbers share, the prompts among it."""
        return Shared(self.frame)

    @cached_property
    def rollouts(self) -> Clusters:
        """Its rollouts."""
        return rollouts(self.frame)

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The prompt of each rollout, (rollouts,)."""
        owner = np.zeros(self.rollouts.count, dtype=np.int64)
        owner[self.rollouts.of_row] = self.shared.clusters.of_row
        return owner

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """How many positions of its rollout stand before each row, (pos,)."""
        owner, position = self.rollouts.of_row, self.frame["position"].to_numpy()
        by_place = np.lexsort((position, owner))
        sizes = self.rollouts.sizes().astype(np.int64)
        before = np.empty(len(owner), dtype=np.int64)
        before[by_place] = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return before

    @property
    def length(self) -> int:
        """Positions of the longest rollout."""
        return int(self.rollouts.sizes().max())

    def cut(self, length: int) -> Pilot:
        """The pilot as if no rollout had gone on after `length` valid positions.

        What depends on the population is made again of what is left: norms, D^L and D^I, quadrants,
        relative positions.
        """
        if length >= self.length:
            return self
        kept = self.order < length
        sizes = np.minimum(self.rollouts.sizes(), length)[self.rollouts.of_row[kept]]
        frame = self.frame[kept].reset_index(drop=True)
        frame["relative_position"] = self.order[kept] / np.maximum(sizes - 1, 1)
        return Pilot(frame.assign(**derived(frame, definitions_of(frame, PAPER).epsilon)))

    def number(self, name: Headline, outcome: Outcome = "gain") -> Estimator:
        """A headline number, from sums of prompts. Errors as `headline`."""
        return headline(self.frame, name, outcome, self.shared)

    def rollout_effects(self, name: Headline, outcome: Outcome = "gain") -> Floats:
        """The influence of each rollout on a number, (rollouts,). Errors as `headline`."""
        return influence(headline(self.frame, name, outcome, self.shared, self.rollouts), 0)

    def position_effects(self, name: Headline, outcome: Outcome = "gain") -> Floats:
        """The influence of each row on a number, (pos,): 0 where it has no part in it.

        Sums over a prompt's rows are `estimators.influence` of the prompt. Errors as `headline`.
        """
        units = single_rows(len(self.frame))
        return influence(headline(self.frame, name, outcome, self.shared, units), 0)

    def components(self, name: Headline, outcome: Outcome = "gain") -> Components:
        """A number's variance between and within prompts.

        All prompts count, also those without a part in it. Raises InputError as `headline` does,
        for fewer than two prompts, and where there is no number without one of them.
        """
        prompts = self.shared.clusters.count
        require_prompts(prompts)
        number = self.number(name, outcome)
        away = without_each(number)[:, 0] - estimate(number)[0]
        lacking = int(np.count_nonzero(~np.isfinite(away)))
        if lacking:
            raise InputError(
                where=f"design of {name}",
                expected="a number that is there without any one prompt too",
                got=f"none without one of {lacking} prompts",
                fix="score a pilot of more prompts",
            )
        jackknife = (prompts - 1) / prompts * float((away**2).sum())
        return components(self.rollout_effects(name, outcome), self.owner, jackknife)


def pilot_of(source: Source | Run, checkpoint: str | None = None, k: int = 16) -> tuple[Pilot, str]:
    """One checkpoint of a run at support size `k` (an opened run has its own), or of a token table;
    and the checkpoint's name, empty where a table does not say.

    Raises InputError for several of which none is named, an unknown one, and a run beside a teacher
    known by its lists.
    """
    if isinstance(source, Run):
        require_gain(source)
        name = _one_of(require_checkpoints(source, None), checkpoint, str(source.folder))
        return Pilot(token_table(source, k, [name])), name
    if not isinstance(source, pd.DataFrame):
        source, checkpoint = as_frame(source, checkpoint), None
    if "checkpoint" not in source:
        return Pilot(source), _one_of([""], checkpoint, "token table")
    known = [str(found) for found in source["checkpoint"].unique()]
    name = _one_of(known, checkpoint, "token table")
    rows = (source["checkpoint"] == name).to_numpy()
    return Pilot(source[rows].reset_index(drop=True)), name


def _one_of(known: Sequence[str], checkpoint: str | None, where: str) -> str:
    """The named checkpoint, or the only one."""
    if checkpoint in known:
        return str(checkpoint)
    if checkpoint is None and len(known) == 1:
        return known[0]
    raise InputError(
        where=where,
        expected=f"one checkpoint among {', '.join(known)}",
        got="none named" if checkpoint is None else repr(checkpoint),
        fix="name one with --checkpoint",
    )
