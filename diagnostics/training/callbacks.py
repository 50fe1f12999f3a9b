"""What happens around TRL's steps: the held-out KL before each, and a bar."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from diagnostics.progress import Advance, bar, silent

if TYPE_CHECKING:
    from diagnostics.training.trainer import MaskedDistillationTrainer


class HeldOutKL(TrainerCallback):  # type: ignore[misc]
    """Notes the held-out KL before every so many steps, for the step's log entry."""

    def __init__(self, trainer: MaskedDistillationTrainer, every: int) -> None:
        self._trainer, self._every = trainer, every

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures where it is due."""
        if state.global_step % self._every == 0:
            self._trainer.note(held_out_kl=self._trainer.held_out_kl())


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """The project's bar over steps; a resumed training begins where it was."""

    def __init__(self, title: str) -> None:
        self._title, self._open = title, ExitStack()
        self._advance: Advance = silent

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Shows the bar, on one rank alone."""
        if state.is_world_process_zero:
            self._advance = self._open.enter_context(bar(self._title, state.max_steps))
            self._advance(state.global_step)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One step more."""
        self._advance(1)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Closes the bar."""
        self._open.close()
