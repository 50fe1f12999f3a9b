"""What one training arm is made with, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from diagnostics.bank.prompts import Prompt
from diagnostics.errors import InputError, one_of, require_packages
from diagnostics.files import read_json
from diagnostics.models.files import (
    ModelFiles,
    check_one_width,
    check_shared_vocabulary,
    check_top_k,
    require_tokenizer,
    require_trainable,
)
from diagnostics.models.weights import Dtype
from diagnostics.scoring.listed import is_listed
from diagnostics.statistics.selection.rules import RULES
from diagnostics.statistics.selection.selectors import Selector, check_budget, check_selector
from diagnostics.training.quiet import quiet

Loss = Literal["reverse_kl", "sampled_token"]
LOSSES: tuple[Loss, ...] = ("reverse_kl", "sampled_token")
SETTINGS_FILE = "training_settings.json"
FIXED = ("beta", "temperature", "max_steps", "output_dir", "learning_rate", "seed", "top_k")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One arm.

    Fields: `budget` the kept share of positions; `loss` full-vocabulary reverse KL (Eq. 6) or its
    sampled-token estimator; `rollouts_per_step` over all ranks and accumulation steps,
    `micro_batch` of them in one forward pass of one rank (None: a rank's all); `temperature` of
    sampling, the loss being at 1; `top_k` the support of D and C; `one_per_rollout` keeps a
    position of each rollout besides (definition set `released`); `held_out` prompts set aside;
    `save_every` steps a state to resume from; `lora_rank` trains an adapter of that rank in place
    of the weights;
    `dtype` float32, or mixed precision over float32 weights; `trl` any further option of TRL's
    DistillationConfig, by name.
    """

    selector: Selector = "full"
    budget: float = 1.0
    loss: Loss = "reverse_kl"
    steps: int = 30
    rollouts_per_step: int = 32
    micro_batch: int | None = None
    max_new_tokens: int = 192
    temperature: float = 1.0
    learning_rate: float = 1e-3
    top_k: int = 16
    one_per_rollout: bool = False
    seed: int = 0
    held_out: int = 16
    held_out_every: int = 1
    save_every: int = 50
    lora_rank: int | None = None
    dtype: Dtype = "float32"
    device: str = "cpu"
    trl: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Every field as the JSON value that is read back."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


def check_loss(name: str) -> Loss:
    """The loss of a name. Raises InputError for an unknown one."""
    return one_of(name, LOSSES, "--loss")


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as TRL options; values are read as JSON where they are JSON.

    Raises InputError for a word without `=`.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise InputError(
                where="--trl",
                expected="NAME=VALUE, an option of TRL's DistillationConfig",
                got=repr(word),
                fix="write it as use_vllm=true",
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def check_teacher(teacher: str, selectors: Sequence[Selector]) -> None:
    """Refuses a teacher that is known by its top-k lists alone, naming what is missing.

    A mask that needs C or KL cannot be made exactly from lists, and neither loss can be taken.
    """
    if not is_listed(teacher):
        return
    needs = {name: RULES[name].needs for name in selectors if name in RULES}
    exact = [name for name, signals in needs.items() if "compatibility" in signals]
    wanted = "the teacher's whole distribution on fresh rollouts"
    if exact:
        wanted = f"for {', '.join(exact)}: exact C, the teacher's mass on the student's top-K"

    raise InputError(
        where="--teacher",
        expected=f"a model ({wanted})",
        got=f"{teacher!r}, known by its top-k lists alone",
        fix="give the teacher's weights; `rescore` and `tokens` take lists and give bounds",
    )


def check_arm(
    student: ModelFiles, teacher: ModelFiles, prompts: Sequence[Prompt], settings: TrainSettings
) -> None:
    """Refuses what cannot be trained, before weights are loaded. Raises InputError."""
    check_pair(student, teacher)
    check_settings(student, prompts, settings)


def check_pair(student: ModelFiles, teacher: ModelFiles) -> None:
    """Refuses two models that cannot be student and teacher. Raises InputError."""
    require_packages("train", "trl", "datasets", "accelerate", where="training")
    require_trainable(student)
    require_tokenizer(student)
    check_shared_vocabulary(teacher, student)
    check_one_width(teacher, student)


def check_settings(student: ModelFiles, prompts: Sequence[Prompt], settings: TrainSettings) -> None:
    """Refuses settings that no training can have with these prompts. Raises InputError."""
    check_budget(settings.budget)
    check_selector(settings.selector)
    check_loss(settings.loss)
    check_top_k(settings.top_k, student.vocabulary)
    _check_options(settings)
    if len(prompts) < settings.held_out + settings.rollouts_per_step:
        raise InputError(
            where="--prompts",
            expected=f"at least {settings.held_out} held-out prompts and one batch of "
            f"{settings.rollouts_per_step}",
            got=f"{len(prompts)} prompts",
            fix="give more prompts or smaller batches",
        )


def _check_options(settings: TrainSettings) -> None:
    """Options of TRL that exist, and are not ours to set."""
    with quiet():
        from trl import DistillationConfig

    known = DistillationConfig.__dataclass_fields__
    for name in settings.trl:
        if name in FIXED or name not in known:
            raise InputError(
                where=f"--trl {name}",
                expected="an option of TRL's DistillationConfig that is not set already",
                got=f"one that `diagnostics train` sets: {name}" if name in FIXED else "none such",
                fix="see TRL's documentation of DistillationConfig",
            )


def micro_batch(settings: TrainSettings, ranks: int) -> tuple[int, int]:
    """(rollouts in one forward pass of a rank, how many such passes make a step).

    Raises InputError where the batch does not divide.
    """
    own = settings.rollouts_per_step / ranks
    size = settings.micro_batch or math.ceil(own)
    if own % size:
        raise InputError(
            where="--rollouts-per-step",
            expected=f"a multiple of {ranks} rank(s) x {size} rollouts in one pass",
            got=str(settings.rollouts_per_step),
            fix="change it, or --micro-batch",
        )
    return size, int(own // size)


def check_out(out: Path, partial: Path, settings: Mapping[str, Any]) -> None:
    """Refuses an `out` in use, and a half-trained arm of other settings.

    Raises InputError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            where=str(out),
            expected="a new or empty folder",
            got="files" if out.is_dir() else "a file",
            fix="choose another --out",
        )
    begun = partial / SETTINGS_FILE
    if begun.is_file() and (before := read_json(begun)) != settings:
        changed = [key for key in settings if before.get(key) != settings[key]]
        raise InputError(
            where=str(partial),
            expected="the settings that this training began with",
            got=f"others: {', '.join(changed)}",
            fix="delete the folder to begin anew, or use the same settings to go on",
        )
