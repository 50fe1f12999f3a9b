"""A run as a notebook holds it: token tables when asked for, kept, and analyses that take it.

    run = open_run("runs/qwen")
    run.tokens(k=16)                      the token table of all checkpoints
    decompose(run.at("full"))             an analysis of one of them

Every analysis of one table (`sources.on_table`) takes a run that has one checkpoint, or is narrowed
to one. Numbers come from the token table alone, so what a run gives is what its table gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from diagnostics.errors import InputError
from diagnostics.scoring.run import Run
from diagnostics.scoring.run import open_run as open_folder
from diagnostics.scoring.texts import TokenTexts
from diagnostics.statistics.tables.definitions import PAPER, Definitions, definition_set
from diagnostics.statistics.tables.sources import as_frame, require_one
from diagnostics.statistics.tables.tokens import token_table

TOP_K = 16


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OpenedRun:
    """A run with a definition set, a K, and perhaps one checkpoint of it chosen.

    Fields: `run` on disk; `definitions`; `k` of tables that are not asked at another; `checkpoint`,
    None for all. Token tables are made once a K, and kept.
    """

    run: Run
    definitions: Definitions = PAPER
    k: int = TOP_K
    checkpoint: str | None = None
    _tables: dict[int, pd.DataFrame] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """How reports call the run."""
        return self.run.name

    @property
    def checkpoints(self) -> list[str]:
        """The chosen checkpoint, or all, in the order they were added."""
        return self.run.checkpoints if self.checkpoint is None else [self.checkpoint]

    @property
    def steps(self) -> dict[str, int | None]:
        """Training step of each of them; None where unknown."""
        return {name: self.run.steps[name] for name in self.checkpoints}

    def at(self, checkpoint: str | None = None, k: int | None = None) -> OpenedRun:
        """The same run narrowed to a checkpoint, at another K, or both; tables are shared.

        Raises InputError for an unknown checkpoint.
        """
        if checkpoint is not None:
            require_one(self.run.checkpoints, checkpoint, str(self.run.folder))
        return replace(
            self,
            checkpoint=self.checkpoint if checkpoint is None else checkpoint,
            k=self.k if k is None else k,
        )

    def tokens(self, k: int | None = None, checkpoint: str | None = None) -> pd.DataFrame:
        """The token table at support size `k`, of one checkpoint or of all: yours to change.

        Raises InputError for a `k` beyond the run's or an unknown checkpoint.
        """
        narrow = self.at(checkpoint, k)
        whole = narrow._whole()
        return whole.copy() if narrow.checkpoint is None else as_frame(whole, narrow.checkpoint)

    def table(self, k: int | None = None, checkpoint: str | None = None) -> pd.DataFrame:
        """The table of one checkpoint, as analyses take it. Raises InputError for several."""
        narrow = self.at(checkpoint, k)
        place = str(self.run.folder)
        return as_frame(narrow._whole(), require_one(narrow.checkpoints, None, place))

    def token_texts(self) -> TokenTexts:
        """Each token id's text, as texts[token_id]. Raises InputError where the run has none."""
        found = self.run.token_texts()
        if found is None:
            raise InputError(
                where=str(self.run.folder),
                expected="the texts of its tokens",
                got="none",
                fix="run `rescore` again with a student that has its tokenizer",
            )
        return found

    def _whole(self) -> pd.DataFrame:
        if self.k not in self._tables:
            self._tables[self.k] = token_table(self.run, self.k, definitions=self.definitions)
        return self._tables[self.k]

    def __repr__(self) -> str:
        steps = {name: f" (step {step})" for name, step in self.steps.items() if step is not None}
        contexts, prompts = self.run.contexts()
        shown = {
            "folder": self.run.folder,
            "bank": f"{len(contexts)} contexts of {len(set(prompts))} prompts",
            "teacher": self.run.manifest["teacher"]["model"],
            "student": self.run.manifest["student"]["model"],
            "checkpoints": ", ".join(name + steps.get(name, "") for name in self.checkpoints),
            "k": f"{self.k} of at most {self.run.top_k}",
            "definitions": self.definitions.name,
        }
        return "\n".join([f"Run {self.name}", *(f"  {k:<11}  {v}" for k, v in shown.items())])


def open_run(folder: Path | str, *, k: int = TOP_K, definitions: str = PAPER.name) -> OpenedRun:
    """Opens a run for analysis.

    `definitions` is a set's name (`paper`, `released`, one of its departures). Raises InputError
    where there is no run, it is of a newer schema, or the set is unknown.
    """
    chosen = definition_set(definitions, "open_run")
    return OpenedRun(run=open_folder(Path(folder)), definitions=chosen, k=k)
