"""Models as people have them, scored end to end: padding, adapters, GGUF files, trajectories."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import (
    ROLLOUTS,
    VOCABULARY,
    bank_info,
    random_model,
    save,
    slow_kl,
    slow_logprobs,
    slow_model,
    word_tokenizer,
)
from forms import adapter_over, base_model, save_base, write_gguf
from forms import qwen2 as qwen2_network
from transformers import AutoModelForCausalLM

from diagnostics.bank.contexts import Bank, read_bank, write_bank
from diagnostics.errors import InputError
from diagnostics.models import weights
from diagnostics.scoring.checkpoints import parse_checkpoints
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import Run
from diagnostics.scoring.task import Settings

TOLERANCE = 3e-5  # float32 networks against float64 ones
SETTINGS = Settings(top_k=5)


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


def truth(network: Any, *, teacher: bool = False, shared: int = VOCABULARY) -> torch.Tensor:
    """log p at every valid position, over the first `shared` ids, (pos, shared) float64."""
    rows = []
    for one in ROLLOUTS:
        prompt = one.teacher_prompt_ids if teacher and one.teacher_prompt_ids else one.prompt_ids
        rows.append(slow_logprobs(network, prompt, one.response_ids)[one.loss_mask])
    cut = torch.cat(rows)[:, :shared]
    return cut - cut.logsumexp(dim=1, keepdim=True)


def kls(teacher: torch.Tensor, student: torch.Tensor) -> list[float]:
    return [slow_kl(t, s) for t, s in zip(teacher, student, strict=True)]


@pytest.mark.parametrize("wider", ["teacher", "student"])
def test_padded_vocabulary_is_cut_to_the_shared_range(
    bank: Bank, student: str, wider: str, tmp_path: Path
) -> None:
    padded = save(random_model(5, vocabulary=70), tmp_path / "wide", word_tokenizer())
    models = (padded, student) if wider == "teacher" else (student, padded)
    run = rescore(bank, *models, {}, tmp_path / "run", SETTINGS)
    log_t = truth(slow_model(models[0]), teacher=True)
    log_s = truth(slow_model(models[1]))
    assert np.allclose(run.student().kl, kls(log_t, log_s), rtol=0, atol=TOLERANCE)
    assert run.manifest["vocabulary"] == {
        "shared": 64,
        "teacher": 70 if wider == "teacher" else 64,
        "student": 64 if wider == "teacher" else 70,
    }
    network = slow_model(padded)
    rows = []
    for one in ROLLOUTS:
        own = one.teacher_prompt_ids if wider == "teacher" else None
        log_p = slow_logprobs(network, own or one.prompt_ids, one.response_ids)[one.loss_mask]
        rows.append(log_p[:, 64:].exp().sum(dim=1))
    dropped = {"teacher": run.teacher().dropped, "student": run.student().dropped}
    other = "student" if wider == "teacher" else "teacher"
    assert np.allclose(dropped[wider], torch.cat(rows), rtol=0, atol=TOLERANCE)
    assert not dropped[other].any()


def test_id_of_the_padding_in_a_bank_is_refused(student: str, tmp_path: Path) -> None:
    padded = save(random_model(5, vocabulary=70), tmp_path / "wide", word_tokenizer())
    from doubles import rollout

    bank = write_bank([rollout(response_ids=[8, 66, 9])], bank_info(), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="expected token ids from 0 to 63, got 66"):
        rescore(bank, padded, student, {}, tmp_path / "run", SETTINGS)


def test_checkpoint_narrower_than_the_shared_range_is_refused(
    bank: Bank, teacher: str, student: str, tmp_path: Path
) -> None:
    narrow = save(random_model(5, vocabulary=62), tmp_path / "narrow", None)
    with pytest.raises(InputError) as caught:
        rescore(bank, teacher, student, {"small": narrow}, tmp_path / "run", SETTINGS)
    assert str(caught.value) == (
        f"checkpoint small ({narrow}): expected at least 64 rows of logits, as teacher and theta_0 "
        "have, got 62; choose a checkpoint of this student"
    )


def test_adapters_are_scored_as_their_merged_models_over_a_base_loaded_once(
    bank: Bank, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, PeftModel

    base = save_base(tmp_path / "base")
    word_tokenizer().save_pretrained(base)
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    for name, seed in (("one", 1), ("two", 2)):
        adapter_over(base_model(), tmp_path / name, LoraConfig(**config), seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT calls what transformers deprecates
            whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            merged = PeftModel.from_pretrained(whole, tmp_path / name).merge_and_unload()
            merged.save_pretrained(tmp_path / f"{name}-merged")
    loaded: list[str] = []
    original = weights._load_base

    def noted(files: Any, *options: Any) -> Any:
        loaded.append(files.spec)
        return original(files, *options)

    monkeypatch.setattr(weights, "_load_base", noted)
    adapters = {name: f"{base}+{tmp_path / name}" for name in ("one", "two")}
    run = rescore(bank, teacher, base, adapters, tmp_path / "run", SETTINGS)
    assert loaded == [teacher, base]
    folders = {name: str(tmp_path / f"{name}-merged") for name in ("one", "two")}
    whole_run = rescore(bank, teacher, base, folders, tmp_path / "whole", SETTINGS)
    for name in ("one", "two"):
        found, wanted = run.student(name).kl, whole_run.student(name).kl
        assert np.allclose(found, wanted, rtol=0, atol=TOLERANCE)
        assert np.abs(found - run.student().kl).max() > 100 * TOLERANCE


def test_gguf_file_is_scored_as_the_weights_it_holds(bank: Bank, tmp_path: Path) -> None:
    network = qwen2_network(3)
    write_gguf(network, tmp_path / "model.gguf")
    folder = save(network, tmp_path / "folder", None)
    student = save(random_model(2), tmp_path / "student", word_tokenizer())
    kl = [
        rescore(bank, spec, student, {}, tmp_path / out, SETTINGS).student().kl
        for spec, out in ((str(tmp_path / "model.gguf"), "a"), (folder, "b"))
    ]
    assert np.allclose(*kl, rtol=0, atol=TOLERANCE)


def test_quantised_teacher_is_stamped(bank: Bank, student: str, tmp_path: Path) -> None:
    write_gguf(qwen2_network(3), tmp_path / "small.gguf", "Q8_0")
    run = rescore(bank, str(tmp_path / "small.gguf"), student, {}, tmp_path / "run", SETTINGS)
    assert run.manifest["teacher"]["quantization"] == "gguf Q8_0"
    assert run.manifest["student"]["quantization"] is None


@pytest.fixture(scope="module")
def trajectory(
    bank: Bank,
    teacher: str,
    student: str,
    checkpoint: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    folder = tmp_path_factory.mktemp("trainer")
    for step in (100, 20, 3):
        shutil.copytree(checkpoint, folder / f"checkpoint-{step}")
    words = [f"full={folder}/checkpoint-*", f"last={folder}/checkpoint-100"]
    return rescore(bank, teacher, student, parse_checkpoints(words), folder / "run", SETTINGS)


def test_trainers_folders_are_a_trajectory_in_the_order_of_steps(trajectory: Run) -> None:
    assert trajectory.checkpoints == ["full-3", "full-20", "full-100", "last"]
    assert trajectory.steps == {"full-3": 3, "full-20": 20, "full-100": 100, "last": 100}
    stamps = trajectory.manifest["checkpoints"]
    assert [stamp["series"] for stamp in stamps.values()] == ["full", "full", "full", None]
    for name in trajectory.checkpoints:
        assert np.array_equal(trajectory.student(name).kl, trajectory.student("last").kl)
