"""A run holds, for every valid position of a bank, what the definitions say in float64."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import (
    MARKED_CONTEXT,
    ROLLOUTS,
    bank_info,
    copy,
    random_model,
    rollout,
    save,
    slow_entropy,
    slow_kl,
    slow_logprobs,
    slow_model,
    slow_top,
    word_tokenizer,
)
from safetensors.torch import load_file, save_file

from diagnostics.bank.contexts import Bank, Rollout, read_bank, write_bank
from diagnostics.errors import InputError
from diagnostics.models.files import open_model
from diagnostics.models.weights import final_hidden, load_weights
from diagnostics.scoring import rescore as module
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import Run, StudentScores
from diagnostics.scoring.task import Settings

K = 5
# float32 networks against float64 ones; the divergences themselves add about 1e-7
TOLERANCE = 3e-5
FIELDS = [field.name for field in fields(StudentScores)]


def settings(**changes: Any) -> Settings:
    """Seven contexts make three parts: 3, 3 and 1."""
    return Settings(**({"part_contexts": 3} | changes))


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


@pytest.fixture(scope="module")
def run(
    bank: Bank,
    teacher: str,
    student: str,
    checkpoint: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """The bank with a checkpoint and with theta_0 once more under a checkpoint's name."""
    out = tmp_path_factory.mktemp("run") / "run"
    models = {"step1": checkpoint, "again": student}
    return rescore(bank, teacher, student, models, out, settings(top_k=K))


@cache
def truth(model: str, *, teacher: bool = False) -> torch.Tensor:
    """log p at every valid position of the bank, (pos, vocab) float64."""
    network = slow_model(model)
    rows = []
    for one in ROLLOUTS:
        prompt = one.teacher_prompt_ids if teacher and one.teacher_prompt_ids else one.prompt_ids
        rows.append(slow_logprobs(network, prompt, one.response_ids)[one.loss_mask])
    return torch.cat(rows)


def close(found: Any, wanted: Any) -> bool:
    return bool(np.allclose(found, wanted, rtol=0, atol=TOLERANCE))


def test_positions_are_the_valid_ones_in_bank_order(run: Run) -> None:
    found = run.teacher()
    wanted = [
        (index, t, one.response_ids[t])
        for index, one in enumerate(ROLLOUTS)
        for t in range(len(one.response_ids))
        if one.loss_mask[t]
    ]
    columns = (found.context, found.position, found.token_id)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == wanted
    # 4 + 4 + 3 + 1 + 5 + 2 + 12, the masked three left out
    assert len(wanted) == 31


def test_teacher_columns_are_their_definitions(run: Run, teacher: str) -> None:
    found, log_t = run.teacher(), truth(teacher, teacher=True)
    assert close(found.entropy, [slow_entropy(row) for row in log_t])
    assert found.top_ids.tolist() == [slow_top(row.tolist(), K) for row in log_t]
    assert close(found.top_logprob, log_t.gather(1, torch.tensor(found.top_ids).long()))


@pytest.mark.parametrize("name", ["theta_0", "step1"])
def test_student_columns_are_their_definitions(
    run: Run, teacher: str, student: str, checkpoint: str, name: str
) -> None:
    found = run.student(name)
    log_t = truth(teacher, teacher=True)
    log_s = truth(student if name == "theta_0" else checkpoint)
    assert close(found.kl, [slow_kl(t, s) for t, s in zip(log_t, log_s, strict=True)])
    assert close(found.reverse_kl, [slow_kl(s, t) for t, s in zip(log_t, log_s, strict=True)])
    assert close(found.entropy, [slow_entropy(row) for row in log_s])
    assert found.top_ids.tolist() == [slow_top(row.tolist(), K) for row in log_s]
    own = torch.tensor(found.top_ids).long()
    others = torch.tensor([slow_top(row.tolist(), K) for row in log_t])
    assert close(found.top_logprob, log_s.gather(1, own))
    assert close(found.teacher_logprob, log_t.gather(1, own))
    assert close(found.logprob_at_teacher, log_s.gather(1, others))


def test_doubles_diverge_enough_to_tell_directions_apart(run: Run) -> None:
    """A guard of the tests above: they could not tell KL from reverse KL on equal models."""
    found = run.student()
    assert np.abs(found.kl - found.reverse_kl).min() > 10 * TOLERANCE
    assert np.abs(found.kl - run.student("step1").kl).min() > 0


@pytest.mark.parametrize("field", FIELDS)
def test_theta_0_as_a_checkpoint_gives_the_same_numbers_exactly(run: Run, field: str) -> None:
    one, other = getattr(run.student(), field), getattr(run.student("again"), field)
    assert np.array_equal(one, other)


def test_teacher_as_its_own_student_diverges_nowhere(
    bank: Bank, teacher: str, tmp_path: Path
) -> None:
    plain = [rollout(**_fields(r) | {"teacher_prompt_ids": None}) for r in ROLLOUTS]
    same = write_bank(plain, bank_info(), tmp_path / "bank.parquet")
    found = rescore(same, teacher, teacher, {}, tmp_path / "run", settings(top_k=K))
    assert np.abs(found.student().kl).max() == 0.0
    assert np.array_equal(found.student().top_ids, found.teacher().top_ids)


def test_teachers_own_prompt_is_the_teachers_alone(run: Run, teacher: str, student: str) -> None:
    place = run.teacher().context == 2  # the rollout with a prompt of the teacher's own
    with_students_prompt = [slow_entropy(row) for row in truth(teacher)]
    moved = np.abs(run.teacher().entropy - with_students_prompt) > TOLERANCE
    assert moved[place].all()
    assert not moved[~place].any()
    assert close(run.student().entropy[place], [slow_entropy(r) for r in truth(student)[place]])


@pytest.mark.parametrize("batch_tokens", [1, 25])
def test_numbers_do_not_depend_on_batch_tokens(
    run: Run, bank: Bank, teacher: str, student: str, batch_tokens: int, tmp_path: Path
) -> None:
    chosen = settings(top_k=K, batch_tokens=batch_tokens)
    other = rescore(bank, teacher, student, {}, tmp_path / "run", chosen)
    for field in ("kl", "reverse_kl", "entropy", "top_logprob"):
        assert close(getattr(other.student(), field), getattr(run.student(), field))


def test_smaller_support_is_the_head_of_the_larger(
    run: Run, bank: Bank, teacher: str, student: str, tmp_path: Path
) -> None:
    small = rescore(bank, teacher, student, {}, tmp_path / "run", settings(top_k=2))
    assert np.array_equal(small.student().top_ids, run.student().top_ids[:, :2])
    assert np.array_equal(small.student().kl, run.student().kl)


def test_support_may_be_the_whole_vocabulary(
    bank: Bank, teacher: str, student: str, tmp_path: Path
) -> None:
    found = rescore(bank, teacher, student, {}, tmp_path / "run", settings(top_k=64)).student()
    assert np.exp(found.teacher_logprob).sum(axis=1) == pytest.approx(1.0, abs=TOLERANCE)


@torch.no_grad()
def test_half_precision_rounds_the_forward_pass_alone(
    bank: Bank, teacher: str, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits leave the product in float32: from bf16 states on, KL is exact to 1e-5.

    Logits rounded to bf16 would be off by 2e-2 (FIELD, numerical traps).
    """
    chosen = settings(top_k=K, dtype="bfloat16", batch_tokens=1)  # one rollout a pass
    monkeypatch.setattr("diagnostics.scoring.hidden.shares_prompts", lambda model: False)
    found = rescore(bank, teacher, student, {}, tmp_path / "run", chosen)
    logs = []
    for spec, owner in ((teacher, "teacher"), (student, "student")):
        files = open_model(spec)
        body = load_weights(files, "bfloat16", "cpu")
        head = body.get_output_embeddings().weight
        rows = []
        for one in ROLLOUTS:
            prompt = one.teacher_prompt_ids if owner == "teacher" else None
            ids = torch.tensor([[*(prompt or one.prompt_ids), *one.response_ids[:-1]]])
            states = final_hidden(body, ids, torch.ones_like(ids))[0]
            window = states[-len(one.response_ids) :][one.loss_mask]
            rows.append(torch.log_softmax(window.double() @ head.double().T, dim=1))
        logs.append(torch.cat(rows))
    wanted = [slow_kl(t, s) for t, s in zip(*logs, strict=True)]
    assert np.allclose(found.student().kl, wanted, rtol=0, atol=1e-5)


def test_manifest_says_what_the_run_is_made_of(
    run: Run, bank: Bank, teacher: str, student: str, checkpoint: str
) -> None:
    found = run.manifest
    assert found["schema_version"] == 2
    assert found["bank"] == {"digest": bank.digest, "contexts": 7}
    for key, spec in (("teacher", teacher), ("student", student)):
        fingerprint = open_model(spec).fingerprint
        assert found[key] == {"model": spec, "fingerprint": fingerprint, "quantization": None}
    assert found["checkpoints"]["step1"]["fingerprint"] == open_model(checkpoint).fingerprint
    assert found["settings"] == {
        "top_k": K,
        "dtype": "float32",
        "kernel": run.manifest["settings"]["kernel"],
        "part_contexts": 3,
    }
    assert found["parts"] == 3
    assert found["libraries"].keys() >= {"torch", "transformers", "python"}
    assert (run.name, run.top_k, run.checkpoints) == ("run", K, ["step1", "again"])


def test_contexts_of_a_run_stand_in_bank_order(run: Run, bank: Bank) -> None:
    assert run.contexts() == (bank.strings("context_id"), bank.strings("prompt_id"))


def _fields(one: Rollout) -> dict[str, Any]:
    return {name: getattr(one, name) for name in type(one).__slots__}


def _complaint(*words: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        rescore(*words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Loader", lambda *a: pytest.fail("weights were loaded"))


@pytest.mark.usefixtures("_no_weights")
class TestRefusedBeforeWeights:
    """What does not fit is refused before gigabytes move, and leaves no folder behind."""

    def test_other_vocabulary(
        self, bank: Bank, teacher: str, student: str, stranger: str, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        said = "token id 9 = 'w3' in the first, 'w4' in the second"
        assert said in _complaint(bank, teacher, stranger, {}, out, settings())
        assert said in _complaint(bank, teacher, student, {"x": stranger}, out, settings())
        assert not out.exists()

    def test_ids_beyond_the_vocabulary(self, tmp_path: Path) -> None:
        rows = [rollout(), rollout(prompt_id="q", response_ids=[8, 64, 9])]
        bank = write_bank(rows, bank_info(), tmp_path / "bank.parquet")
        name = bank.strings("context_id")[1]
        spec = save(random_model(1), tmp_path / "m", None)
        said = _complaint(bank, spec, spec, {}, tmp_path / "run", settings())
        assert f"context {name}, response_ids: expected token ids from 0 to 63, got 64" in said
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("top_k", [0, 65])
    def test_support_beyond_the_vocabulary(
        self, bank: Bank, teacher: str, student: str, top_k: int, tmp_path: Path
    ) -> None:
        said = _complaint(bank, teacher, student, {}, tmp_path / "run", settings(top_k=top_k))
        assert said.startswith("--top-k: expected 1 to 64, the size of the vocabulary, got ")

    @pytest.mark.parametrize("name", ["teacher", "theta_0", "", "a/b", "..", ".hidden", "a b"])
    def test_checkpoint_names_that_are_taken_or_no_file_names(
        self, bank: Bank, teacher: str, student: str, name: str, tmp_path: Path
    ) -> None:
        said = _complaint(bank, teacher, student, {name: student}, tmp_path / "run", settings())
        assert said.startswith("--checkpoint: expected a name of letters, digits")
        assert f"got {name!r}" in said

    def test_folder_with_foreign_files(
        self, bank: Bank, teacher: str, student: str, tmp_path: Path
    ) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        said = _complaint(bank, teacher, student, {}, tmp_path, settings())
        assert said == (
            f"{tmp_path}: expected a new or empty folder, or a run, got other files; "
            "choose another --out"
        )
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]

    @pytest.mark.parametrize("content", ['{"name": "app"}', '{"schema_version": 3}', "{"])
    def test_folder_with_a_foreign_or_newer_manifest(
        self, bank: Bank, teacher: str, student: str, content: str, tmp_path: Path
    ) -> None:
        (tmp_path / "manifest.json").write_text(content)
        said = _complaint(bank, teacher, student, {}, tmp_path, settings())
        assert f"{tmp_path / 'manifest.json'}: expected" in said
        assert (tmp_path / "manifest.json").read_text() == content

    def test_manifest_that_lacks_a_part(
        self, bank: Bank, teacher: str, student: str, tmp_path: Path
    ) -> None:
        (tmp_path / "manifest.json").write_text('{"schema_version": 2, "name": "other"}')
        assert "expected" in _complaint(bank, teacher, student, {}, tmp_path, settings())

    def test_out_that_is_a_file(
        self, bank: Bank, teacher: str, student: str, tmp_path: Path
    ) -> None:
        (tmp_path / "taken").write_text("mine")
        said = _complaint(bank, teacher, student, {}, tmp_path / "taken", settings())
        assert "taken" in said
        assert (tmp_path / "taken").read_text() == "mine"


def with_nan(model: str, folder: Path, tensor: str) -> str:
    """A copy of a model with NaN in one place of one tensor."""
    file = copy(model, folder) / "model.safetensors"
    tensors = load_file(file)
    tensors[tensor].view(-1)[3] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    return str(folder)


def test_model_that_gives_nan_is_refused_by_checkpoint_and_context(
    bank: Bank, teacher: str, student: str, broken: str, tmp_path: Path
) -> None:
    said = _complaint(bank, teacher, student, {"bad": broken}, tmp_path / "r", settings(top_k=K))
    name = bank.strings("context_id")[MARKED_CONTEXT]
    assert said.startswith(f"bad, context {name}: expected finite model output, got NaN")
    # the first part was sound, but a mended model of the same name must not be mixed with it
    assert not (tmp_path / "r" / "scores" / "bad").exists()


@pytest.mark.parametrize("tensor", ["lm_head.weight", "model.norm.weight"])
@pytest.mark.parametrize("role", ["teacher", "theta_0", "bad"])
def test_nan_is_laid_at_the_door_of_the_model_that_has_it(
    bank: Bank, student: str, checkpoint: str, role: str, tensor: str, tmp_path: Path
) -> None:
    models = {"teacher": student, "theta_0": student, "bad": checkpoint}
    models[role] = with_nan(models[role], tmp_path / "nan", tensor)
    checkpoints = {"bad": models["bad"]}
    out = tmp_path / "run"
    said = _complaint(
        bank, models["teacher"], models["theta_0"], checkpoints, out, settings(top_k=K)
    )
    assert said.startswith(f"{role}, context {bank.strings('context_id')[0]}: expected finite")
    assert not (out / "scores" / role).exists()


def test_checkpoint_that_broke_does_not_spoil_the_run(
    bank: Bank, teacher: str, student: str, checkpoint: str, broken: str, tmp_path: Path
) -> None:
    from diagnostics.statistics.tables.tokens import token_table

    out, chosen = tmp_path / "run", settings(top_k=K)
    rescore(bank, teacher, student, {"good": checkpoint}, out, chosen)
    _complaint(bank, teacher, student, {"bad": broken}, out, chosen)
    run = rescore(bank, teacher, student, {}, out, chosen)
    assert run.checkpoints == ["good"]
    assert len(token_table(run, K)) == 31


def test_one_rollout_of_one_token_is_a_whole_run(
    teacher: str, student: str, tmp_path: Path
) -> None:
    one = rollout(response_ids=[8], loss_mask=[True], sampled_logprob=None)
    bank = write_bank([one], bank_info(), tmp_path / "bank.parquet")
    found = rescore(bank, teacher, student, {}, tmp_path / "run", settings(top_k=1))
    logs = [slow_logprobs(slow_model(m), [6, 7], [8])[0] for m in (teacher, student)]
    assert close(found.student().kl, [slow_kl(*logs)])
    assert found.student().top_ids.shape == (1, 1)


def test_tied_tokens_of_a_model_stand_by_lower_id(tmp_path: Path) -> None:
    """A model whose head has equal rows gives exactly equal probabilities."""
    model = random_model(8)
    with torch.no_grad():
        model.lm_head.weight[[50, 20, 35]] = 4 * model.lm_head.weight[[10]]
        model.lm_head.weight[10] = model.lm_head.weight[20]
    spec = save(model, tmp_path / "m", word_tokenizer())
    bank = write_bank([rollout()], bank_info(), tmp_path / "bank.parquet")
    top = rescore(bank, spec, spec, {}, tmp_path / "run", settings(top_k=64)).teacher().top_ids
    for row in top.tolist():
        places = [row.index(token) for token in (10, 20, 35, 50)]
        assert places == list(range(places[0], places[0] + 4))


def test_noise_floor_is_theta_0_once_more(run: Run) -> None:
    """All seven contexts of this small bank, each alone: the same numbers but for rounding."""
    found, start = run.noise(), run.student()
    assert np.array_equal(found.context, run.teacher().context)
    assert np.array_equal(found.position, run.teacher().position)
    for name in ("kl", "reverse_kl", "entropy"):
        assert close(getattr(found, name), getattr(start, name))


def test_noise_floor_of_a_large_bank_is_a_spread_sample(
    bank: Bank, teacher: str, student: str, tmp_path: Path
) -> None:
    chosen = settings(top_k=K, noise_contexts=3)
    found = rescore(bank, teacher, student, {}, tmp_path / "run", chosen)
    noise, start = found.noise(), found.student()
    assert sorted(set(noise.context.tolist())) == [0, 3, 6]  # of 0 to 6, both ends
    rows = np.isin(found.teacher().context, [0, 3, 6])
    assert close(noise.kl, start.kl[rows])


def test_noise_of_another_dtype_is_larger_than_of_another_batch(
    bank: Bank, teacher: str, student: str, tmp_path: Path
) -> None:
    chosen = settings(top_k=K, noise_dtypes=("bfloat16", "float32"))
    found = rescore(bank, teacher, student, {}, tmp_path / "run", chosen)
    assert found.noise_kinds == ["batch", "bfloat16"]  # float32 is the run's own
    sizes = {k: np.abs(found.noise(k).kl - found.student().kl).max() for k in found.noise_kinds}
    assert sizes["batch"] < 1e-5 < 1e-3 < sizes["bfloat16"] < 1.0


def test_noise_that_is_not_finite_is_refused(
    bank: Bank, teacher: str, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diagnostics.scoring import worker

    original = worker.one_by_one

    def sick(*words: Any) -> Any:
        states = original(*words)
        states[1][0, 0] = torch.nan
        return states

    monkeypatch.setattr(worker, "one_by_one", sick)
    said = _complaint(bank, teacher, student, {}, tmp_path / "run", settings(top_k=K))
    name = bank.strings("context_id")[1]
    assert said.startswith(f"theta_0 for the noise floor (batch), context {name}: expected finite")
    assert not (tmp_path / "run" / "noise").exists()
