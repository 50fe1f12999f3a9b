"""A run goes on where it stopped: nothing is scored twice, and every file is whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import ROLLOUTS, bank_info, save, word_tokenizer
from doubles import random_model as random_network

from diagnostics.bank.contexts import Bank, read_bank, write_bank
from diagnostics.errors import InputError
from diagnostics.files import read_parquet, sha256_file, write_parquet
from diagnostics.models import weights
from diagnostics.scoring import worker
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.run import Run, open_run
from diagnostics.scoring.task import Settings


def settings(**changes: Any) -> Settings:
    """Seven contexts make three parts: 3, 3 and 1."""
    return Settings(**({"part_contexts": 3} | changes))


SETTINGS = settings(top_k=4)


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


class Scorer:
    """Scores the bank with the two models of this suite."""

    def __init__(self, bank: Bank, teacher: str, student: str, checkpoint: str) -> None:
        self.bank, self.teacher, self.student, self.checkpoint = bank, teacher, student, checkpoint

    def __call__(self, out: Path, **changes: Any) -> Run:
        options = {
            "bank": self.bank,
            "teacher": self.teacher,
            "student": self.student,
            "checkpoints": {"step1": self.checkpoint},
            "out": out,
            "settings": SETTINGS,
            "name": "run",
        }
        return rescore(**(options | changes))


@pytest.fixture(scope="module")
def score(bank: Bank, teacher: str, student: str, checkpoint: str) -> Scorer:
    return Scorer(bank, teacher, student, checkpoint)


@pytest.fixture(scope="module")
def finished(score: Scorer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of a run that was never interrupted, with its digest."""
    out = tmp_path_factory.mktemp("finished") / "run"
    score(out)
    return content(out)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lock" not in str(path)
    }


def scored(folder: Path) -> dict[str, str]:
    """The content but for the manifest, which counts the parts done so far."""
    return {name: digest for name, digest in content(folder).items() if name != "manifest.json"}


def loaded_models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose transformers are loaded from now on."""
    names: list[str] = []
    original = weights._load_base

    def noted(files: Any, *options: Any) -> Any:
        names.append(files.spec)
        return original(files, *options)

    monkeypatch.setattr(weights, "_load_base", noted)
    return names


def test_run_holds_three_parts_of_three_models(finished: dict[str, str]) -> None:
    scored = [name for name in finished if name.startswith("scores/")]
    assert len(scored) == 9
    assert len([name for name in finished if name.startswith("hidden/0")]) == 3
    assert set(finished) - set(scored) >= {
        "manifest.json",
        "contexts.parquet",
        "noise/batch/00000.parquet",
    }
    assert not any(name.endswith(".partial") for name in finished)


@pytest.mark.parametrize(
    "lost",
    [
        "scores/teacher/00001.parquet",
        "scores/theta_0/00000.parquet",
        "scores/step1/00002.parquet",
        "contexts.parquet",
        "hidden/00001.safetensors",
        "hidden/head.safetensors",
        "noise/batch/00000.parquet",
    ],
)
def test_lost_file_comes_back_byte_by_byte(
    score: Scorer, finished: dict[str, str], lost: str, tmp_path: Path
) -> None:
    score(tmp_path / "run")
    (tmp_path / "run" / lost).unlink()
    score(tmp_path / "run")
    assert content(tmp_path / "run") == finished


def test_finished_run_loads_no_weights_and_stays_as_it_is(
    score: Scorer, finished: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(tmp_path / "run")
    names = loaded_models(monkeypatch)
    score(tmp_path / "run")
    assert names == []
    assert content(tmp_path / "run") == finished


def test_lost_part_loads_the_one_model_that_it_is_of(
    score: Scorer, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(tmp_path / "run")
    (tmp_path / "run" / "scores" / "theta_0" / "00001.parquet").unlink()
    names = loaded_models(monkeypatch)
    score(tmp_path / "run")
    assert names == [student]


def test_later_checkpoint_does_not_run_the_teachers_transformer(
    score: Scorer, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    score(out, checkpoints={})
    before = content(out)
    names = loaded_models(monkeypatch)
    run = score(out)
    assert names == [checkpoint]
    assert run.checkpoints == ["step1"]
    kept = {name: digest for name, digest in content(out).items() if name in before}
    assert {n for n in before if kept[n] != before[n]} == {"manifest.json"}


def test_checkpoint_added_later_has_the_numbers_of_one_scored_at_once(
    score: Scorer, finished: dict[str, str], tmp_path: Path
) -> None:
    score(tmp_path / "run", checkpoints={})
    score(tmp_path / "run")
    assert content(tmp_path / "run") == finished


def test_earlier_checkpoints_need_not_be_named_again(
    score: Scorer, student: str, tmp_path: Path
) -> None:
    score(tmp_path / "run")
    run = score(tmp_path / "run", checkpoints={"step2": student})
    assert run.checkpoints == ["step1", "step2"]
    assert len(run.student("step1").kl) == len(run.student("step2").kl) == 31


def test_run_keeps_its_name(score: Scorer, tmp_path: Path) -> None:
    score(tmp_path / "run", name="first")
    assert score(tmp_path / "run", name="second").name == "first"


def test_batch_tokens_may_change_between_calls(score: Scorer, tmp_path: Path) -> None:
    score(tmp_path / "run", checkpoints={})
    run = score(tmp_path / "run", settings=settings(top_k=4, batch_tokens=20))
    assert run.checkpoints == ["step1"]


def refused(score: Scorer, out: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> str:
    """Scores once, then with changes: the message, after a check that nothing moved."""
    score(out)
    before, names = content(out), loaded_models(monkeypatch)
    with pytest.raises(InputError) as caught:
        score(out, **changes)
    assert names == []
    assert content(out) == before
    assert str(caught.value).startswith(f"{out}: expected a run of the same ")
    return str(caught.value)


def test_other_bank_is_refused(
    score: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_bank(ROLLOUTS[::-1], bank_info(), tmp_path / "other.parquet")
    said = refused(score, tmp_path / "run", monkeypatch, bank=other)
    assert f"the same bank.digest ({other.digest[:12]})" in said
    assert f"got a run of {score.bank.digest[:12]}" in said


@pytest.mark.parametrize("chosen", [settings(top_k=5), settings(top_k=4, dtype="bfloat16")])
def test_other_settings_are_refused(
    score: Scorer, chosen: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused(score, tmp_path / "run", monkeypatch, settings=chosen)
    assert f"the same settings ({{'top_k': {chosen.top_k}, 'dtype': '{chosen.dtype}'" in said


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_other_model_is_refused(
    score: Scorer, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save(random_network(9), tmp_path / "other", word_tokenizer())
    said = refused(score, tmp_path / "run", monkeypatch, **{role: other})
    assert f"the same {role}.fingerprint" in said


def test_other_checkpoint_of_the_same_name_is_refused(
    score: Scorer, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused(score, tmp_path / "run", monkeypatch, checkpoints={"step1": student})
    assert "the same checkpoint step1" in said
    assert "another checkpoint name" in said


SOME = (0, 4, 9)  # of the ten; the others are slow tests


@pytest.mark.parametrize(  # nine parts of scores and the noise floor
    "before", [pytest.param(i, marks=[] if i in SOME else pytest.mark.slow) for i in range(10)]
)
def test_kill_between_parts_leaves_whole_files_and_the_rerun_completes(
    score: Scorer,
    finished: dict[str, str],
    before: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = [before]

    def killed(path: Path, table: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write_parquet(path, table)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_parquet", killed)
        with pytest.raises(KeyboardInterrupt):
            score(tmp_path / "run")
    found = scored(tmp_path / "run")
    assert len([n for n in found if n.startswith(("scores/", "noise/"))]) == before
    assert all(finished[name] == digest for name, digest in found.items())
    score(tmp_path / "run")
    assert content(tmp_path / "run") == finished


def test_kill_inside_a_write_leaves_no_part_of_it(
    score: Scorer, finished: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def torn(table: Any, path: Path, **options: Any) -> None:
        calls.append(path)
        path.write_bytes(b"PAR1 half")
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        original(table, path, **options)

    import diagnostics.files

    original = diagnostics.files.pq.write_table
    with monkeypatch.context() as patch:
        patch.setattr(diagnostics.files.pq, "write_table", torn)
        with pytest.raises(InputError, match="No space left on device"):
            score(tmp_path / "run")
    assert all(finished[n] == digest for n, digest in scored(tmp_path / "run").items())
    score(tmp_path / "run")
    assert content(tmp_path / "run") == finished


def test_partial_file_of_a_killed_process_is_not_read(
    score: Scorer, finished: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "scores" / "teacher"
    score(tmp_path / "run", checkpoints={})
    (folder / "00000.parquet").unlink()
    (folder / ".00000.parquet.abc.partial").write_bytes(b"PAR1 half")
    score(tmp_path / "run")
    found = content(tmp_path / "run")
    del found["scores/teacher/.00000.parquet.abc.partial"]
    assert found == finished


def test_damaged_hidden_states_are_refused_in_one_line(score: Scorer, tmp_path: Path) -> None:
    out = tmp_path / "run"
    score(out, checkpoints={})
    file = out / "hidden" / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"00001.safetensors: expected ") as caught:
        score(out)
    assert "\n" not in str(caught.value)


def test_reading_an_unfinished_run_says_what_to_do(
    score: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(tmp_path / "run")
    part = tmp_path / "run" / "scores" / "step1" / "00001.parquet"
    part.unlink()
    run = open_run(tmp_path / "run")
    with pytest.raises(InputError) as caught:
        run.student("step1")
    assert str(caught.value) == (
        f"{part}: expected all 3 scored parts of step1, got 2; run the same "
        "`diagnostics rescore` again: it goes on where it stopped"
    )


def test_opening_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest.json: expected a JSON file, got no such file"):
        open_run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema_version": 3}')
    with pytest.raises(InputError, match="expected schema_version 2, got 3"):
        open_run(tmp_path)


def test_parts_on_disk_have_the_stored_types(score: Scorer, tmp_path: Path) -> None:
    score(tmp_path / "run")
    table = read_parquet(tmp_path / "run" / "scores" / "step1" / "00000.parquet")
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types["kl"] == "double"
    assert types["top_ids"].startswith("fixed_size_list<")
    assert types["top_ids"].endswith("int32>[4]")
    assert table.num_rows == sum(np.sum(r.loss_mask) for r in ROLLOUTS[:3])


def test_manifest_says_how_many_parts_of_each_model_are_done(
    bank: Bank, teacher: str, student: str, checkpoint: str, tmp_path: Path
) -> None:
    run = rescore(bank, teacher, student, {"later": checkpoint}, tmp_path, settings(top_k=4))
    parts = run.manifest["parts"]
    assert parts > 0
    assert run.manifest["parts_done"] == {"teacher": parts, "theta_0": parts, "later": parts}
