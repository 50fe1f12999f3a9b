"""The training loop: its loss is the definition, its arms see the same prompts, its files whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import END, random_model, save, slow_kl, slow_logprobs, slow_model, word_tokenizer
from safetensors.torch import load_file

from diagnostics.bank.prompts import Prompt
from diagnostics.bank.sample import Samples
from diagnostics.errors import InputError
from diagnostics.models.files import check_shared_vocabulary, open_model
from diagnostics.models.weights import load_weights
from diagnostics.training import distill as module
from diagnostics.training.distill import TrainSettings, distill, reverse_kl

# float32 log_softmax over 64 to 1,000 tokens
LOSS_TOLERANCE = 2e-5
PROMPTS = [
    Prompt(prompt_id=f"p{i}", text=" ".join(f"w{(7 * i + j) % 58}" for j in range(1 + i % 4)),
           teacher=None)
    for i in range(24)
]  # fmt: skip
SMALL = {
    "steps": 2,
    "rollouts_per_step": 6,
    "max_new_tokens": 8,
    "held_out": 4,
    "held_out_every": 1,
    "top_k": 4,
    "learning_rate": 5e-3,
}


def train(student: str, teacher: str, out: Path, **changes: Any) -> list[dict[str, Any]]:
    prompts = changes.pop("prompts", PROMPTS)
    settings = TrainSettings(**(SMALL | changes))
    return distill(open_model(student), open_model(teacher), prompts, settings, out)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Samples]:
    """Every batch that is sampled: the held-out one first, then one a step."""
    noted: list[Samples] = []
    original = module.sample_batch

    def sample(*words: Any, **options: Any) -> Samples:
        noted.append(original(*words, **options))
        return noted[-1]

    monkeypatch.setattr(module, "sample_batch", sample)
    return noted


def slow_divergences(
    samples: Samples, first: str, second: str, second_prompts: Sequence[list[int]] | None = None
) -> list[float]:
    """KL(first || second) at every valid position of a batch, in float64."""
    p, q = slow_model(first), slow_model(second)
    own = [prompt.tolist() for prompt in samples.prompt_ids]
    values = []
    for row, (mine, other) in enumerate(zip(own, second_prompts or own, strict=True)):
        length = int(samples.valid[row].sum())
        response = samples.response_ids[row, :length].tolist()
        logs = [slow_logprobs(p, mine, response), slow_logprobs(q, other, response)]
        values += [slow_kl(a, b) for a, b in zip(*logs, strict=True)]
    return values


@pytest.mark.parametrize("shape", [(1, 2), (5, 64), (3, 1000)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_reverse_kl_is_its_definition(shape: tuple[int, int], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    s, t = (scale * torch.randn(shape, generator=generator) for _ in range(2))
    logs = [torch.log_softmax(z.double(), dim=1) for z in (s, t)]
    truth = [slow_kl(a, b) for a, b in zip(*logs, strict=True)]
    found = reverse_kl(s, t)
    assert found.tolist() == pytest.approx(truth, rel=LOSS_TOLERANCE, abs=LOSS_TOLERANCE)


def test_reverse_kl_weighs_with_the_student() -> None:
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    # .5 ln(.5/.9) + .5 ln(.5/.1) = .5 (-.5877867) + .5 (1.6094379)
    assert reverse_kl(student, teacher).item() == pytest.approx(0.5108256, abs=1e-6)


def test_gradient_of_reverse_kl_is_the_analytic_one_and_points_to_the_teacher() -> None:
    generator = torch.Generator().manual_seed(1)
    s, t = (torch.randn(4, 9, generator=generator) for _ in range(2))
    s.requires_grad_(True)
    reverse_kl(s, t).sum().backward()
    log_s, log_t = torch.log_softmax(s.detach().double(), 1), torch.log_softmax(t.double(), 1)
    ratio = log_s - log_t
    # d KL(p||q) / d z_i = p_i (log p_i/q_i - KL)
    analytic = log_s.exp() * (ratio - (log_s.exp() * ratio).sum(dim=1, keepdim=True))
    assert torch.allclose(s.grad.double(), analytic, rtol=0, atol=1e-6)
    # a token that the student likes more than the teacher does is pushed down
    pair = torch.tensor([[0.9, 0.1]]).log().requires_grad_(True)
    reverse_kl(pair, torch.tensor([[0.5, 0.5]]).log()).sum().backward()
    assert pair.grad[0, 0] > 0 > pair.grad[0, 1]


@pytest.mark.parametrize("selector", ["full", "random"])
def test_loss_of_the_first_step_is_the_mean_reverse_kl_of_kept_positions(
    student: str, teacher: str, tmp_path: Path, batches: list[Samples], selector: str
) -> None:
    masks = []
    original = module.batch_mask

    def noted(*words: Any) -> Any:
        masks.append(original(*words))
        return masks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "batch_mask", noted)
        log = train(student, teacher, tmp_path / "m", selector=selector, budget=0.3, steps=1)
    values = slow_divergences(batches[1], student, teacher)
    kept = [v for v, keep in zip(values, masks[0].mask, strict=True) if keep]
    assert log[0]["loss"] == pytest.approx(sum(kept) / len(kept), abs=LOSS_TOLERANCE)
    assert log[0]["kept"] == len(kept)
    wanted = len(values) if selector == "full" else math.ceil(len(values) * 3 / 10)
    assert len(kept) == wanted
    assert log[0]["keep"] == pytest.approx(wanted / len(values))
    assert log[0]["mean_length"] == pytest.approx(len(values) / 6)


def test_teachers_own_prompt_is_what_the_teacher_reads(
    student: str, teacher: str, tmp_path: Path, batches: list[Samples]
) -> None:
    own = replace(PROMPTS[0], text="w1 w2", teacher="w9 w8 w7 w6")  # one prompt for all rollouts
    log = train(student, teacher, tmp_path / "m", prompts=[own] * 24, steps=1)
    # ids are places in the table, after six special tokens
    teachers = [[15, 14, 13, 12]] * 6
    values = slow_divergences(batches[1], student, teacher, teachers)
    assert batches[1].prompt_ids[0].tolist() == [7, 8]
    assert log[0]["loss"] == pytest.approx(sum(values) / len(values), abs=LOSS_TOLERANCE)
    shared = slow_divergences(batches[1], student, teacher)
    assert abs(sum(values) - sum(shared)) / len(values) > 10 * LOSS_TOLERANCE


def test_held_out_kl_is_the_mean_kl_of_the_teacher_against_the_student(
    student: str, teacher: str, tmp_path: Path, batches: list[Samples]
) -> None:
    log = train(student, teacher, tmp_path / "m", steps=2)
    for entry, trained in ((log[0], student), (log[-1], str(tmp_path / "m"))):
        values = slow_divergences(batches[0], teacher, trained)
        assert entry["held_out_kl"] == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_full_training_lowers_the_held_out_kl(student: str, teacher: str, tmp_path: Path) -> None:
    log = train(student, teacher, tmp_path / "m", steps=12, learning_rate=2e-2)
    assert log[-1]["held_out_kl"] < 0.9 * log[0]["held_out_kl"]


def test_no_learning_rate_leaves_the_weights(student: str, teacher: str, tmp_path: Path) -> None:
    train(student, teacher, tmp_path / "m", learning_rate=0.0)
    before, after = (
        load_file(Path(folder) / "model.safetensors") for folder in (student, tmp_path / "m")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("selector", ["full", "teachability"])
def test_same_seed_same_log_and_weights(
    student: str, teacher: str, tmp_path: Path, selector: str
) -> None:
    logs = [
        train(student, teacher, tmp_path / name, selector=selector, budget=0.2, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert logs[0] == logs[1] != logs[2]
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b


def test_arms_see_the_same_prompts_and_held_out_ones_are_never_trained_on(
    student: str, teacher: str, tmp_path: Path, batches: list[Samples]
) -> None:
    seen = []
    for selector in ("full", "kl"):
        batches.clear()
        train(student, teacher, tmp_path / selector, selector=selector, budget=0.2, steps=7)
        seen.append([[ids.tolist() for ids in batch.prompt_ids] for batch in batches])
    assert seen[0] == seen[1]
    tokenizer = word_tokenizer()
    encoded = [tokenizer(prompt.text)["input_ids"] for prompt in PROMPTS]
    assert seen[0][0] == encoded[:4]
    trained = [ids for batch in seen[0][1:] for ids in batch]
    assert len(trained) == 42
    # 20 training prompts: each comes once before any comes twice
    assert sorted(trained[:20]) == sorted(encoded[4:])
    assert sorted(trained[20:40]) == sorted(encoded[4:])


def test_log_has_one_entry_a_step_and_a_last_held_out_kl(
    student: str, teacher: str, tmp_path: Path
) -> None:
    log = train(student, teacher, tmp_path / "m", steps=5, held_out_every=2)
    assert [entry["step"] for entry in log] == [0, 1, 2, 3, 4, 5]
    assert [e["step"] for e in log if "held_out_kl" in e] == [0, 2, 4, 5]
    assert all("loss" in entry for entry in log[:-1])


def test_checkpoint_folder_is_whole_and_is_a_model(
    student: str, teacher: str, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "m"
    log = train(student, teacher, out, selector="tip", budget=0.25)
    settings = json.loads((out / "training_settings.json").read_text())
    assert settings["selector"] == "tip"
    assert settings["budget"] == 0.25
    assert settings["learning_rate"] == SMALL["learning_rate"]
    lines = (out / "training_log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log
    files = open_model(str(out))
    assert files.tokenizer is not None
    assert files.fingerprint != open_model(student).fingerprint
    check_shared_vocabulary(files, open_model(teacher))
    load_weights(files, "float32", "cpu")
    assert [p.name for p in out.parent.iterdir()] == ["m"]


def test_empty_folder_may_be_used(student: str, teacher: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    train(student, teacher, tmp_path / "m", steps=1)
    assert (tmp_path / "m" / "training_log.jsonl").is_file()


def test_leftover_of_a_killed_training_does_not_disturb(
    student: str, teacher: str, tmp_path: Path
) -> None:
    (tmp_path / ".m.partial").mkdir()
    (tmp_path / ".m.partial" / "stale.safetensors").write_text("")
    train(student, teacher, tmp_path / "m", steps=1)
    assert not (tmp_path / "m" / "stale.safetensors").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_checkpoint_keeps_the_dtype_of_the_student(teacher: str, tmp_path: Path) -> None:
    half = save(random_model(2).bfloat16(), tmp_path / "half", word_tokenizer())
    train(half, teacher, tmp_path / "m", steps=1)
    dtypes = {t.dtype for t in load_file(tmp_path / "m" / "model.safetensors").values()}
    assert dtypes == {torch.bfloat16}


def test_rollouts_that_end_early_carry_loss_up_to_their_end(
    student: str, teacher: str, tmp_path: Path, batches: list[Samples]
) -> None:
    log = train(student, teacher, tmp_path / "m", steps=6, max_new_tokens=20, learning_rate=0.0)
    assert any(not batch.valid.all() for batch in batches[1:])  # some did end early
    for entry, batch in zip(log, batches[1:], strict=False):
        assert entry["kept"] == int(batch.valid.sum())
        for row, valid in zip(batch.response_ids, batch.valid, strict=True):
            response = row[valid].tolist()
            assert END not in response[:-1]


@pytest.fixture
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_weights", lambda *a: pytest.fail("weights were loaded"))


@pytest.mark.usefixtures("_no_weights")
class TestRefusedBeforeWeights:
    """What cannot be trained is refused before weights are loaded, and nothing is written."""

    def refused(self, student: str, teacher: str, out: Path, **changes: Any) -> str:
        with pytest.raises(InputError) as caught:
            train(student, teacher, out, **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("budget", [0.0, -0.1, 1.5, 5.0, float("nan")])
    def test_budget_out_of_range(
        self, student: str, teacher: str, tmp_path: Path, budget: float
    ) -> None:
        said = self.refused(student, teacher, tmp_path / "m", selector="kl", budget=budget)
        assert said == (
            f"--budget: expected a share of positions in (0, 1], got {budget!r}; write 5 % as 0.05"
        )
        assert not (tmp_path / "m").exists()

    def test_folder_in_use(self, student: str, teacher: str, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        said = self.refused(student, teacher, tmp_path)
        assert said == (
            f"{tmp_path}: expected a new or empty folder, got files; choose another --out"
        )
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]

    def test_out_that_is_a_file(self, student: str, teacher: str, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("mine")
        said = self.refused(student, teacher, tmp_path / "taken")
        assert said.startswith(f"{tmp_path / 'taken'}: expected a new or empty folder, got ")
        assert (tmp_path / "taken").read_text() == "mine"

    @pytest.mark.parametrize("count", [0, 4, 9])
    def test_too_few_prompts(self, student: str, teacher: str, tmp_path: Path, count: int) -> None:
        said = self.refused(student, teacher, tmp_path / "m", prompts=PROMPTS[:count])
        assert said == (
            "--prompts: expected at least 4 held-out prompts and one batch of 6, "
            f"got {count} prompts; give more prompts or smaller batches"
        )

    def test_other_vocabulary(self, student: str, stranger: str, tmp_path: Path) -> None:
        said = self.refused(student, stranger, tmp_path / "m")
        assert "token id 9 = 'w4' in the first, 'w3' in the second" in said

    def test_student_without_a_tokenizer(
        self, checkpoint: str, teacher: str, tmp_path: Path
    ) -> None:
        said = self.refused(checkpoint, teacher, tmp_path / "m")
        assert "expected a tokenizer beside the weights" in said

    @pytest.mark.parametrize("top_k", [0, 65])
    def test_support_beyond_the_vocabulary(
        self, student: str, teacher: str, tmp_path: Path, top_k: int
    ) -> None:
        said = self.refused(
            student, teacher, tmp_path / "m", selector="teachability", budget=0.5, top_k=top_k
        )
        assert said.startswith("--top-k: expected ")


@pytest.mark.parametrize("selector", ["full", "teachability"])
def test_loss_that_is_not_finite_is_refused_and_leaves_nothing(
    student: str, tmp_path: Path, selector: str
) -> None:
    model = random_model(2)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    sick = save(model, tmp_path / "sick", word_tokenizer())
    with pytest.raises(InputError, match="finite") as caught:
        train(student, sick, tmp_path / "m", selector=selector, budget=0.5)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["sick"]
