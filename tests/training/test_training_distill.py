"""Training: its loss is the definition, its arms see the same prompts, its files appear whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import (
    END,
    prompts_of,
    random_model,
    save,
    slow_kl,
    slow_logprobs,
    slow_model,
    word_tokenizer,
)
from safetensors.torch import load_file

from diagnostics.errors import InputError
from diagnostics.models.files import check_shared_vocabulary, open_model
from diagnostics.models.heads import Head, head_of
from diagnostics.models.weights import load_weights
from diagnostics.training import distill as module
from diagnostics.training import held_out
from diagnostics.training.distill import distill
from diagnostics.training.held_out import HeldOut
from diagnostics.training.settings import (
    TrainSettings,
    check_teacher,
    micro_batch,
    parse_options,
)
from diagnostics.training.trainer import MaskedDistillationTrainer, sampled_token_loss

# float32 log_softmax over 64 to 1,000 tokens
LOSS_TOLERANCE = 2e-5
PROMPTS = prompts_of(24)
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


@dataclass(frozen=True)
class Noted:
    """One step's rollouts as the loss got them, row by row."""

    prompts: list[list[int]]
    responses: list[list[int]]
    kept: list[list[bool]]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Noted]:
    """Every batch that is generated, one a step."""
    noted: list[Noted] = []
    original = MaskedDistillationTrainer._generate_and_score_completions

    def generate(self: MaskedDistillationTrainer, inputs: Any) -> dict[str, Any]:
        batch = original(self, inputs)
        seen = [batch[name].bool() for name in ("prompt_mask", "completion_mask")]
        kept = batch["tool_mask"].bool()
        rows = range(len(kept))
        noted.append(
            Noted(
                [batch["prompt_ids"][r][seen[0][r]].tolist() for r in rows],
                [batch["completion_ids"][r][seen[1][r]].tolist() for r in rows],
                [kept[r][seen[1][r]].tolist() for r in rows],
            )
        )
        assert not (kept & ~seen[1]).any()
        return batch

    monkeypatch.setattr(MaskedDistillationTrainer, "_generate_and_score_completions", generate)
    return noted


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[HeldOut]:
    """The held-out contexts of each training."""
    noted: list[HeldOut] = []

    def freeze(*words: Any, **options: Any) -> HeldOut:
        noted.append(held_out.freeze(*words, **options))
        return noted[-1]

    monkeypatch.setattr(module, "freeze", freeze)
    return noted


def slow_divergences(
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    first: str,
    second: str,
    second_prompts: Sequence[list[int]] | None = None,
) -> list[float]:
    """KL(first || second) at every response position of some rollouts, in float64."""
    p, q = slow_model(first), slow_model(second)
    values = []
    for mine, other, response in zip(prompts, second_prompts or prompts, responses, strict=True):
        logs = [slow_logprobs(p, mine, response), slow_logprobs(q, other, response)]
        values += [slow_kl(a, b) for a, b in zip(*logs, strict=True)]
    return values


def divergences(
    batch: Noted, student: str, teacher: str, own: Sequence[list[int]] | None = None
) -> list[float]:
    """KL(student || teacher) at every position of a batch."""
    return slow_divergences(batch.prompts, batch.responses, student, teacher, own)


def test_cost_of_sampled_tokens_has_the_gradient_of_the_reverse_kl_on_average() -> None:
    generator = torch.Generator().manual_seed(1)
    s, t = (torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(2))
    s.requires_grad_(True)
    log_s, log_t = torch.log_softmax(s, 0), torch.log_softmax(t, 0)
    # the mean over y ~ p_theta, every y written out, against d KL / d z_i = p_i (log p_i/q_i - KL)
    mean = (log_s.exp().detach() * sampled_token_loss(log_s, log_t)).sum()
    (gradient,) = torch.autograd.grad(mean, s)
    ratio = (log_s - log_t).detach()
    kl = (log_s.exp() * ratio).sum().detach()
    assert mean.item() == pytest.approx(kl.item(), abs=1e-12)
    assert torch.allclose(gradient, log_s.exp().detach() * (ratio - kl), rtol=0, atol=1e-12)


def test_cost_of_a_sampled_token_is_its_log_ratio_and_pushes_down_what_is_too_likely() -> None:
    ours = torch.tensor([0.9, 0.2]).log().requires_grad_(True)
    theirs = torch.tensor([0.5, 0.8]).log()
    values = sampled_token_loss(ours, theirs)
    # ln(.9/.5) = .5877867, ln(.2/.8) = -1.3862944
    assert values.tolist() == pytest.approx([0.5877867, -1.3862944], abs=1e-6)
    (gradient,) = torch.autograd.grad(values.sum(), ours)
    assert gradient[0] > 0 > gradient[1]


@pytest.mark.parametrize("selector", ["full", "random", "teachability", "tip-original"])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_loss_of_the_first_step_is_the_mean_reverse_kl_of_kept_positions(
    student: str,
    teacher: str,
    tmp_path: Path,
    batches: list[Noted],
    selector: str,
    micro_batch: int | None,
) -> None:
    log = train(
        student,
        teacher,
        tmp_path / "m",
        selector=selector,
        budget=0.3,
        steps=1,
        micro_batch=micro_batch,
    )
    values = divergences(batches[0], student, teacher)
    kept = [v for v, keep in zip(values, chain(*batches[0].kept), strict=True) if keep]
    assert log[0]["loss"] == pytest.approx(sum(kept) / len(kept), abs=LOSS_TOLERANCE)
    assert log[0]["kept"] == len(kept)
    share = {"full": len(values), "tip-original": math.floor(len(values) * 3 / 10)}
    assert len(kept) == share.get(selector, math.ceil(len(values) * 3 / 10))
    assert log[0]["keep"] == pytest.approx(len(kept) / len(values))
    assert log[0]["mean_length"] == pytest.approx(len(values) / 6)
    assert len(batches) == 1


def test_micro_batches_change_nothing_but_rounding(
    student: str, teacher: str, tmp_path: Path
) -> None:
    """A mask is of the whole rollout batch, however it is cut into forward passes."""
    logs = [
        train(
            student,
            teacher,
            tmp_path / str(size),
            selector="teachability",
            budget=0.2,
            micro_batch=size,
        )
        for size in (None, 3, 1)
    ]
    for log in logs[1:]:
        for name in ("loss", "held_out_kl", "kept"):
            found, whole = ([e[name] for e in some if name in e] for some in (log, logs[0]))
            assert found == pytest.approx(whole, abs=LOSS_TOLERANCE)


def test_sampled_token_loss_is_the_mean_log_ratio_of_kept_tokens(
    student: str, teacher: str, tmp_path: Path, batches: list[Noted]
) -> None:
    log = train(student, teacher, tmp_path / "m", loss="sampled_token", steps=1)
    ratios = []
    for prompt, response in zip(batches[0].prompts, batches[0].responses, strict=True):
        s, t = (slow_logprobs(slow_model(m), prompt, response) for m in (student, teacher))
        ratios += [float(a[y] - b[y]) for a, b, y in zip(s, t, response, strict=True)]
    assert log[0]["loss"] == pytest.approx(sum(ratios) / len(ratios), abs=LOSS_TOLERANCE)


def test_teachers_own_prompt_is_what_the_teacher_reads(
    student: str, teacher: str, tmp_path: Path, batches: list[Noted]
) -> None:
    own = replace(PROMPTS[0], text="w1 w2", teacher="w9 w8 w7 w6")  # one prompt for all rollouts
    log = train(student, teacher, tmp_path / "m", prompts=[own] * 24, steps=1)
    # ids are places in the table, after six special tokens
    values = divergences(batches[0], student, teacher, [[15, 14, 13, 12]] * 6)
    assert batches[0].prompts[0] == [7, 8]
    assert log[0]["loss"] == pytest.approx(sum(values) / len(values), abs=LOSS_TOLERANCE)
    shared = divergences(batches[0], student, teacher)
    assert abs(sum(values) - sum(shared)) / len(values) > 10 * LOSS_TOLERANCE


def test_held_out_kl_is_the_mean_kl_of_the_teacher_against_the_student(
    student: str, teacher: str, tmp_path: Path, frozen: list[HeldOut]
) -> None:
    log = train(student, teacher, tmp_path / "m", steps=2)
    prompts, responses = (
        [getattr(c, name).tolist() for c in frozen[0].contexts] for name in ("prompt", "response")
    )
    for entry, trained in ((log[0], student), (log[-1], str(tmp_path / "m"))):
        values = slow_divergences(prompts, responses, teacher, trained)
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
    student: str, teacher: str, tmp_path: Path, batches: list[Noted], frozen: list[HeldOut]
) -> None:
    seen = []
    for selector in ("full", "kl"):
        batches.clear()
        train(student, teacher, tmp_path / selector, selector=selector, budget=0.2, steps=7)
        seen.append([batch.prompts for batch in batches])
    assert seen[0] == seen[1]
    tokenizer = word_tokenizer()
    encoded = [tokenizer(prompt.text)["input_ids"] for prompt in PROMPTS]
    assert [c.prompt.tolist() for c in frozen[0].contexts] == encoded[:4]
    trained = [ids for batch in seen[0] for ids in batch]
    assert len(trained) == 42
    # 20 training prompts: each comes once before any comes twice
    assert sorted(trained[:20]) == sorted(encoded[4:])
    assert sorted(trained[20:40]) == sorted(encoded[4:])


def test_first_rollouts_of_arms_are_the_same_and_of_other_seeds_are_not(
    student: str, teacher: str, tmp_path: Path, batches: list[Noted]
) -> None:
    for name, options in (
        ("full", {}),
        ("kl", {"selector": "kl", "budget": 0.2}),
        ("other", {"seed": 1}),
    ):
        train(student, teacher, tmp_path / name, steps=1, **options)
    assert batches[0].responses == batches[1].responses != batches[2].responses


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 4, *(pytest.param(i, marks=pytest.mark.slow) for i in (3, 6))])
def test_killed_training_goes_on_to_the_same_bytes(
    student: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    options = {"selector": "teachability", "budget": 0.2, "steps": 7, "save_every": 2}
    log = train(student, teacher, tmp_path / "a", **options)
    original = MaskedDistillationTrainer.training_step

    def step(self: MaskedDistillationTrainer, *words: Any, **rest: Any) -> Any:
        if self.state.global_step == stop:
            raise Killed
        return original(self, *words, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedDistillationTrainer, "training_step", step)
        with pytest.raises(Killed):
            train(student, teacher, tmp_path / "b", **options)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [".b.partial"]
    states = [p.name for p in (tmp_path / ".b.partial").glob("states/checkpoint-*")]
    assert states == ([f"checkpoint-{stop - stop % 2}"] if stop >= 2 else [])
    assert train(student, teacher, tmp_path / "b", **options) == log
    for name in ("model.safetensors", "training_log.jsonl", "training_settings.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / ".b.partial").exists()


def test_half_trained_arm_of_other_settings_is_refused(
    student: str, teacher: str, tmp_path: Path
) -> None:
    partial = tmp_path / ".m.partial"
    train(student, teacher, tmp_path / "m")
    (tmp_path / "m").rename(partial)
    with pytest.raises(InputError) as caught:
        train(student, teacher, tmp_path / "m", seed=3, budget=0.5, prompts=PROMPTS[:-1])
    assert str(caught.value) == (
        f"{partial}: expected the settings that this training began with, got others: budget, "
        "seed, prompts; delete the folder to begin anew, or use the same settings to go on"
    )


def test_batch_of_which_nothing_is_kept_is_skipped_counted_and_leaves_the_weights(
    student: str, teacher: str, tmp_path: Path
) -> None:
    # floor(0.001 N) of at most 48 positions is 0
    log = train(student, teacher, tmp_path / "m", selector="tip-original", budget=0.001)
    assert [entry["skipped"] for entry in log[:-1]] == [1.0, 1.0]
    assert [entry["kept"] for entry in log[:-1]] == [0.0, 0.0]
    before, after = (
        load_file(Path(folder) / "model.safetensors") for folder in (student, tmp_path / "m")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_position_of_each_rollout_is_kept_besides_where_asked(
    student: str, teacher: str, tmp_path: Path, batches: list[Noted]
) -> None:
    options = {"selector": "kl", "budget": 0.05, "steps": 1}
    train(student, teacher, tmp_path / "a", **options)
    train(student, teacher, tmp_path / "b", one_per_rollout=True, **options)
    plain, besides = ([any(row) for row in batch.kept] for batch in batches)
    assert not all(plain)  # 5 % of 48 positions are 3, of 6 rollouts
    assert all(besides)
    kept = [list(chain(*batch.kept)) for batch in batches]
    assert all(b for a, b in zip(*kept, strict=True) if a)
    assert sum(kept[1]) == sum(kept[0]) + plain.count(False)


def test_model_whose_logits_trl_takes_to_be_others_is_refused(
    student: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(*words: Any) -> Head:
        return replace(head_of(*words), scale=0.5)  # as a family would that TRL does not know

    monkeypatch.setattr(module, "head_of", scaled)
    with pytest.raises(InputError) as caught:
        train(student, teacher, tmp_path / "m")
    said = str(caught.value)
    assert said.startswith("training full, first step: expected a loss of ")
    assert said.endswith(
        " from TRL; these models change their logits in a way that TRL does not know; "
        "train them with another trainer and `rescore` its checkpoints"
    )
    assert list(tmp_path.iterdir()) == []


def test_adapter_is_trained_in_place_of_the_weights_and_is_a_model(
    student: str, teacher: str, tmp_path: Path
) -> None:
    log = train(student, teacher, tmp_path / "m", steps=6, lora_rank=4, learning_rate=2e-2)
    assert log[-1]["held_out_kl"] < log[0]["held_out_kl"]
    files = open_model(f"{student}+{tmp_path / 'm'}")
    assert files.adapter == tmp_path / "m"
    load_weights(files, "float32", "cpu")


def test_options_of_trl_pass_through_and_ours_are_refused(
    student: str, teacher: str, tmp_path: Path
) -> None:
    options = parse_options(["adam_beta1=0.5", "lr_scheduler_type=constant"])
    log = train(student, teacher, tmp_path / "m", trl=options)
    assert [entry["learning_rate"] for entry in log[:-1]] == [5e-3, 5e-3]
    for word, said in (
        ("beta=0", "--trl beta: expected an option of TRL's DistillationConfig that is not set "
         "already, got one that `diagnostics train` sets: beta; see TRL's documentation of "
         "DistillationConfig"),
        ("nothing=1", "--trl nothing: expected an option of TRL's DistillationConfig that is not "
         "set already, got none such; see TRL's documentation of DistillationConfig"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            train(student, teacher, tmp_path / "n", trl=parse_options([word]))
        assert str(caught.value) == said
    with pytest.raises(InputError, match="expected NAME=VALUE"):
        parse_options(["beta"])


def test_batch_that_does_not_divide_is_refused() -> None:
    settings = TrainSettings(rollouts_per_step=6, micro_batch=4)
    assert micro_batch(replace(settings, micro_batch=None), 2) == (3, 1)
    assert micro_batch(replace(settings, micro_batch=1), 2) == (1, 3)
    with pytest.raises(InputError) as caught:
        micro_batch(settings, 1)
    assert str(caught.value) == (
        "--rollouts-per-step: expected a multiple of 1 rank(s) x 4 rollouts in one pass, got 6; "
        "change it, or --micro-batch"
    )


def test_teacher_of_lists_is_refused_by_what_the_selector_needs() -> None:
    with pytest.raises(InputError) as caught:
        check_teacher("topk:lists.parquet", ["random", "teachability", "q3+high-c"])
    assert str(caught.value) == (
        "--teacher: expected a model (for teachability, q3+high-c: exact C, the teacher's mass on "
        "the student's top-K), got 'topk:lists.parquet', known by its top-k lists alone; give the "
        "teacher's weights; `rescore` and `tokens` take lists and give bounds"
    )


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


def test_checkpoint_keeps_the_dtype_of_the_student(teacher: str, tmp_path: Path) -> None:
    half = save(random_model(2).bfloat16(), tmp_path / "half", word_tokenizer())
    train(half, teacher, tmp_path / "m", steps=1)
    dtypes = {t.dtype for t in load_file(tmp_path / "m" / "model.safetensors").values()}
    assert dtypes == {torch.bfloat16}


def test_rollouts_that_end_early_carry_loss_up_to_their_end(
    student: str, teacher: str, tmp_path: Path, batches: list[Noted]
) -> None:
    log = train(student, teacher, tmp_path / "m", steps=6, max_new_tokens=20, learning_rate=0.0)
    responses = [response for batch in batches for response in batch.responses]
    assert any(len(response) < 20 for response in responses)  # some did end early
    for entry, batch in zip(log, batches, strict=False):
        assert entry["kept"] == sum(map(len, batch.responses))
    for response in responses:
        assert END not in response[:-1]
        assert len(response) == 20 or response[-1] == END


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
