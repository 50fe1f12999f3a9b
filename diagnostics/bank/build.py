"""Builds a bank: prompts in, frozen rollouts of the student out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from diagnostics.bank.contexts import Bank, BankInfo, write_bank
from diagnostics.bank.prompts import read_prompts
from diagnostics.bank.sample import Sampling, sample_rollouts
from diagnostics.models.files import open_model, require_tokenizer, tokenizer_fingerprint
from diagnostics.models.weights import Dtype, load_weights
from diagnostics.progress import bar


def build_bank(
    student: str,
    prompts: str,
    out: Path,
    sampling: Sampling,
    *,
    num_prompts: int | None = None,
    prompt_column: str = "prompt",
    device: str = "cpu",
    dtype: Dtype = "float32",
) -> Bank:
    """Samples rollouts of `student` (a MODEL) on `prompts` (a SOURCE) and freezes them at `out`.

    Prompts are read before weights are loaded. Raises InputError for bad prompts or a bad model.
    """
    chosen = read_prompts(prompts, column=prompt_column, limit=num_prompts)
    files = open_model(student)
    tokenizer = require_tokenizer(files)
    model = load_weights(files, dtype, device)
    with bar("sampling rollouts", len(chosen) * sampling.samples_per_prompt) as advance:
        rollouts = sample_rollouts(model, tokenizer, chosen, sampling, advance)
    info = BankInfo(
        student=student,
        student_fingerprint=files.fingerprint,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        vocabulary=files.vocabulary,
        sampling=asdict(sampling),
        seed=sampling.seed,
        prompt_source=prompts,
    )
    return write_bank(rollouts, info, out)
