"""Masked on-policy distillation (paper, section 4.1, Eq. 6-7): one arm, from models to checkpoint.

    prompts -> held-out ones frozen -> TRL's trainer with a mask (`trainer`) -> checkpoint and log

Each step: fresh rollouts of the current student, the mask, the mean loss of what it keeps, and one
AdamW step, its size falling linearly to nought. Prompts, their order and the noise of sampling
depend on `seed` alone, so all arms of an experiment see the same. The state is saved every
`save_every` steps under a hidden folder beside `out`; the same call goes on from there. `out`
appears when it is whole.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diagnostics.bank.prompts import Prompt
from diagnostics.bank.sample import encode_prompt
from diagnostics.errors import InputError
from diagnostics.files import sha256_text, write_json, write_text
from diagnostics.models.files import ModelFiles, require_tokenizer
from diagnostics.models.heads import head_of
from diagnostics.models.weights import load_weights
from diagnostics.training.held_out import Encoded, freeze
from diagnostics.training.quiet import quiet
from diagnostics.training.settings import (
    SETTINGS_FILE,
    TrainSettings,
    check_arm,
    check_out,
    micro_batch,
)

if TYPE_CHECKING:
    from trl import DistillationConfig

    from diagnostics.training.trainer import MaskedDistillationTrainer

LOG_FILE = "training_log.jsonl"
NOT_LOGGED = ("epoch", "step_time", "num_tokens", "num_input_tokens_seen")  # of TRL's own
RENAMED = {"completions/mean_length": "mean_length"}
Log = list[dict[str, Any]]


def distill(
    student: ModelFiles,
    teacher: ModelFiles,
    prompts: Sequence[Prompt],
    settings: TrainSettings,
    out: Path,
) -> Log:
    """Trains one arm, saves its checkpoint to `out` and returns the log, one entry a step.

    An entry holds the loss, what the mask kept (`selection.describe`), and the held-out KL before
    the step, nats; a last one the held-out KL after. Interrupted, the same call goes on.

    Raises InputError before weights are loaded for a bad budget, vocabularies that differ, too few
    prompts, an `out` in use or a half-trained arm of other settings; during training when the loss
    is not finite.
    """
    check_arm(student, teacher, prompts, settings)
    partial = out.with_name(f".{out.name}.partial")
    record = _record(student, teacher, prompts, settings)
    check_out(out, partial, record)
    try:
        with quiet():
            trainer = _trainer(student, teacher, prompts, settings, partial)
            return _train(trainer, student, record, out, partial)
    except InputError:
        shutil.rmtree(partial, ignore_errors=True)  # to go on would end in the same place
        raise


def _train(
    trainer: MaskedDistillationTrainer,
    student: ModelFiles,
    record: dict[str, Any],
    out: Path,
    partial: Path,
) -> Log:
    """Trains, or goes on, and puts the checkpoint into place."""
    main = trainer.accelerator.is_main_process
    if main:
        write_json(partial / SETTINGS_FILE, record)
    trainer.train(resume_from_checkpoint=_last_state(partial))
    last = trainer.held_out_kl()
    log = [_entry(e) for e in trainer.state.log_history if "loss" in e]
    log.append({"step": record["steps"], "held_out_kl": last})
    _save(trainer, student, record, log, partial / "whole")
    trainer.accelerator.wait_for_everyone()
    if main:
        if out.exists():
            out.rmdir()
        (partial / "whole").rename(out)
        shutil.rmtree(partial)
    trainer.accelerator.wait_for_everyone()
    return log


def _record(
    student: ModelFiles,
    teacher: ModelFiles,
    prompts: Sequence[Prompt],
    settings: TrainSettings,
) -> dict[str, Any]:
    """What an arm is made of, as JSON values: settings, fingerprints of models and prompts."""
    texts = json.dumps([[p.text, p.teacher] for p in prompts])
    origin = {
        "student": student.fingerprint,
        "teacher": teacher.fingerprint,
        "prompts": sha256_text(texts),
    }
    return settings.as_json() | origin


def read_log(folder: Path) -> Log:
    """The log of a finished arm."""
    lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _trainer(
    student: ModelFiles,
    teacher: ModelFiles,
    prompts: Sequence[Prompt],
    settings: TrainSettings,
    partial: Path,
) -> MaskedDistillationTrainer:
    """Both models, the held-out contexts and the training prompts in one trainer."""
    from transformers import PrinterCallback

    from diagnostics.training.callbacks import HeldOutKL, ProgressBar
    from diagnostics.training.trainer import MaskedDistillationTrainer

    args = _arguments(settings, partial)
    device = str(args.device)
    tokenizer = require_tokenizer(student)
    tokenizer.padding_side = "left"
    learner, model = (load_weights(files, "float32", device) for files in (student, teacher))
    head, teacher_head = head_of(learner, student.spec), head_of(model, teacher.spec)
    encoded = [_encode(prompt, tokenizer) for prompt in prompts]
    held_out = freeze(
        learner,
        model,
        teacher_head,
        tokenizer,
        encoded[: settings.held_out],
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
    )
    trainer = MaskedDistillationTrainer(
        model=learner,
        teacher_model=model.requires_grad_(False),
        args=args,
        train_dataset=_dataset(encoded[settings.held_out :], settings),
        processing_class=tokenizer,
        peft_config=_adapter(settings),
        arm=settings,
        student_head=head,
        teacher_head=teacher_head,
        held_out=held_out,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(HeldOutKL(trainer, settings.held_out_every))
    trainer.add_callback(ProgressBar(f"training {settings.selector}"))
    return trainer


def _arguments(settings: TrainSettings, partial: Path) -> DistillationConfig:
    """TRL's configuration of an arm; `settings.trl` has the last word where it is not ours."""
    from accelerate import PartialState
    from trl import DistillationConfig

    cpu = settings.device == "cpu"
    ranks = PartialState(cpu=cpu).num_processes
    size, passes = micro_batch(settings, ranks)
    options: dict[str, Any] = {
        "output_dir": str(partial / "states"),
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": passes,
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "beta": 1.0,  # KL(p_theta || p_T)
        "temperature": 1.0,  # of the loss; sampling has its own
        "generation_kwargs": {"temperature": settings.temperature},
        "max_completion_length": settings.max_new_tokens,
        "shuffle_dataset": False,
        "disable_dropout": True,
        "gradient_checkpointing": False,
        "bf16": settings.dtype == "bfloat16",
        "fp16": settings.dtype == "float16",
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "seed": settings.seed,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return DistillationConfig(**options | dict(settings.trl))


def _dataset(prompts: Sequence[Encoded], settings: TrainSettings) -> Any:
    """A row for every rollout of the training, in order, so that a resumed one finds its place."""
    from datasets import Dataset

    rows = _order(len(prompts), settings.steps * settings.rollouts_per_step, settings.seed)
    columns = {
        "prompt": [prompts[row].student for row in rows],
        "teacher_prompt": [prompts[row].teacher for row in rows],
    }
    return Dataset.from_dict(columns)


def _order(prompts: int, rollouts: int, seed: int) -> list[int]:
    """Which prompt each rollout is of: shuffled, none twice before all once."""
    rng = random.Random(seed)
    rows: list[int] = []
    while len(rows) < rollouts:
        rows += rng.sample(range(prompts), prompts)
    return rows[:rollouts]


def _adapter(settings: TrainSettings) -> Any:
    if settings.lora_rank is None:
        return None
    from peft import LoraConfig

    rank = settings.lora_rank
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _encode(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    own = encode_prompt(prompt.text, tokenizer)
    teacher = own if prompt.teacher is None else encode_prompt(prompt.teacher, tokenizer)
    return Encoded(student=own, teacher=teacher)


def _last_state(partial: Path) -> str | None:
    """The latest state that was saved whole: `trainer_state.json` is written last."""
    states = [path.parent for path in partial.glob("states/checkpoint-*/trainer_state.json")]
    return str(max(states, key=lambda p: int(p.name.split("-")[1]))) if states else None


def _entry(logged: dict[str, Any]) -> dict[str, Any]:
    """A step of TRL's log under our names; steps count from 0."""
    named = {RENAMED.get(key, key): value for key, value in logged.items()}
    named = {k: _digits(v) for k, v in named.items() if "/" not in k and k not in NOT_LOGGED}
    return {"step": logged["step"] - 1} | {
        key: named[key] for key in sorted(named) if key != "step"
    }


def _digits(value: float | None) -> float | None:
    """Seven digits, as many as float32 has; None, of what does not exist, stays."""
    return None if value is None else float(f"{value:.7g}")


def _save(
    trainer: MaskedDistillationTrainer,
    student: ModelFiles,
    record: dict[str, Any],
    log: Log,
    folder: Path,
) -> None:
    """Writes weights (in the dtype the student has on disk), settings and log."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder))  # gathers the shards
    elif trainer.accelerator.is_main_process:
        model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
        model.to(student.config.get_text_config().dtype or torch.float32).save_pretrained(folder)
    if trainer.accelerator.is_main_process:
        require_tokenizer(student).save_pretrained(folder)
        write_json(folder / SETTINGS_FILE, record)
        lines = [json.dumps(entry, separators=(",", ":")) for entry in log]
        write_text(folder / LOG_FILE, "\n".join([*lines, ""]))
