"""What is to be scored: bank, models and settings, all known before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diagnostics.bank.contexts import Bank
from diagnostics.models.files import ModelFiles
from diagnostics.models.weights import Dtype
from diagnostics.scoring.checkpoints import Checkpoint
from diagnostics.scoring.hidden import Context
from diagnostics.scoring.listed import ListedTeacher
from diagnostics.scoring.reduce import Kernel
from diagnostics.scoring.server import KEY_VARIABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to score.

    What changes numbers by more than rounding (`top_k`, `dtype`, `kernel`) and the size of a part
    are fixed for the life of a run. `noise_dtypes`: in which other dtypes theta_0 is scored for the
    noise floor, beside the other batch shape. `key_variable`: the environment variable with the key
    of a teacher's server.
    """

    top_k: int = 32
    dtype: Dtype = "float32"
    device: str = "cpu"
    device_map: str | None = None
    batch_tokens: int = 8192
    kernel: Kernel = "auto"
    part_contexts: int = 50
    noise_contexts: int = 50
    noise_dtypes: tuple[Dtype, ...] = ()
    key_variable: str = KEY_VARIABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One rescoring.

    `origins`: where each checkpoint comes from; `vocabulary`: token ids that all models have, 0 to
    vocabulary - 1.
    """

    out: Path
    bank: Bank
    teacher: ModelFiles | ListedTeacher
    student: ModelFiles
    checkpoints: Mapping[str, ModelFiles]
    origins: Mapping[str, Checkpoint]
    vocabulary: int
    settings: Settings

    @property
    def listed(self) -> bool:
        """Whether the teacher is known by its top-k lists alone."""
        return not isinstance(self.teacher, ModelFiles)

    @property
    def parts(self) -> int:
        """How many parts the bank is cut into."""
        return -(-len(self.bank) // self.settings.part_contexts)

    def rows(self, part: int) -> range:
        """The contexts of a part, indices into the bank."""
        size = self.settings.part_contexts
        return range(part * size, min(len(self.bank), (part + 1) * size))

    def names(self, part: int) -> list[str]:
        """The context ids of a part."""
        rows = self.rows(part)
        ids: list[str] = self.bank.table["context_id"][rows.start : rows.stop].to_pylist()
        return ids

    def contexts(self, part: int, *, teacher: bool) -> list[Context]:
        """The contexts of a part as a model reads them; a teacher may have a prompt of its own."""
        rows = self.rows(part)
        return [
            Context(
                prompt=np.asarray(
                    (teacher and row["teacher_prompt_ids"]) or row["prompt_ids"], dtype=np.int32
                ),
                response=np.asarray(row["response_ids"], dtype=np.int32),
                valid=np.asarray(row["loss_mask"], dtype=bool),
            )
            for row in self.bank.table.slice(rows.start, len(rows)).to_pylist()
        ]

    def noise_rows(self) -> list[int]:
        """Contexts of the noise floor: all of a small bank, else some, spread evenly."""
        return spread_rows(len(self.bank), self.settings.noise_contexts)


def spread_rows(total: int, wanted: int) -> list[int]:
    """`wanted` of `total` contexts, spread evenly over a bank; all of a smaller bank."""
    places = np.linspace(0, total - 1, min(total, wanted)).round().astype(int)
    return [int(place) for place in np.unique(places)]
