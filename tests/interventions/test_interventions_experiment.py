"""An experiment on tiny models: it trains, rescores and reports, and goes on where it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from doubles import prompts_of

from diagnostics.errors import InputError
from diagnostics.interventions import experiment as module
from diagnostics.interventions.experiment import (
    RECORDS,
    Experiment,
    failures,
    rescore_arms,
    train_arms,
    trained_arms,
)
from diagnostics.interventions.masks import ArmPlan, arms, product
from diagnostics.interventions.processes import in_processes
from diagnostics.interventions.report import run_experiment
from diagnostics.progress import silent
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.statistics.tables.tokens import token_tables
from diagnostics.training.distill import read_log
from diagnostics.training.settings import TrainSettings

SETTINGS = TrainSettings(
    steps=2,
    rollouts_per_step=6,
    max_new_tokens=8,
    held_out=4,
    top_k=4,
    learning_rate=5e-3,
)
MASKS = product(["teachability", "random"], [0.25])


@pytest.fixture
def made(student: str, teacher: str, bank_file: Path, tmp_path: Path) -> Experiment:
    """Two masks and `full`, two seeds, on the bank of doubles."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p.text}) + "\n" for p in prompts_of(24)))
    return Experiment(
        student=student,
        teacher=teacher,
        bank=str(bank_file),
        prompts=str(prompts),
        arms=tuple(arms(MASKS, range(2))),
        settings=SETTINGS,
        top_k=8,
    )


def quiet(text: str) -> None:
    silent(len(text))


def trained_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the arms that are trained from here on."""
    noted: list[str] = []
    original = module._train_one

    def train(experiment: Experiment, out: Path, arm: ArmPlan) -> float:
        noted.append(arm.name)
        return original(experiment, out, arm)

    monkeypatch.setattr(module, "_train_one", train)
    return noted


def test_whole_experiment_reports_the_gain_of_its_arms(made: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = run_experiment(made, out, ReportSettings(top_k=4, draws=100), workers=1, say=quiet)
    assert page == out / "report.html"
    run = rescore_arms(made, out)
    assert set(run.checkpoints) == {arm.name for arm in made.arms}
    frame = next(iter(token_tables(run, [4])))
    by_arm = frame.groupby("checkpoint", observed=True)["gain"].mean()
    table = pd.read_csv(out / "tables" / "table02.csv").set_index("selector")
    for selector in ("teachability", "random"):
        own = [arm.name for arm in made.arms if arm.selector == selector]
        assert table.loc[selector, "gain"] == pytest.approx(np.mean(by_arm[own]), abs=1e-12)
        assert table.loc[selector, "seeds"] == 2
    for arm in trained_arms(made, out):
        log = read_log(out / "arms" / arm.checkpoint)
        assert arm.keep == pytest.approx(sum(e["keep"] for e in log[:2]) / 2)
        assert arm.held_out_kl == log[2]["held_out_kl"]
        if arm.selector != "full":
            assert 0.25 <= arm.keep <= 0.25 + 1 / 12


def test_interrupted_experiment_trains_what_is_missing_alone(
    made: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replace(made, arms=made.arms[:2])
    train_arms(first, tmp_path / "out", workers=1, say=quiet)
    bytes_of = {
        arm.name: (tmp_path / "out" / "arms" / arm.name / "model.safetensors").read_bytes()
        for arm in first.arms
    }
    noted = trained_names(monkeypatch)
    train_arms(replace(made, arms=made.arms[:3]), tmp_path / "out", workers=1, say=quiet)
    assert noted == [made.arms[2].name]
    for name, content in bytes_of.items():
        path = tmp_path / "out" / "arms" / name / "model.safetensors"
        assert path.read_bytes() == content


def test_records_without_weights_are_trained_anew_to_the_same_bytes(
    made: Experiment, tmp_path: Path
) -> None:
    out, few = tmp_path / "out", replace(made, arms=made.arms[:1])
    train_arms(few, out, workers=1, say=quiet)
    folder = out / "arms" / few.arms[0].name
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        if path.name not in RECORDS:
            path.unlink()
    train_arms(few, out, workers=1, say=quiet)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_arms_in_processes_of_their_own_are_the_same_to_the_byte(
    made: Experiment, tmp_path: Path
) -> None:
    few = replace(made, arms=made.arms[:2])
    for workers in (1, 2):
        train_arms(few, tmp_path / str(workers), workers=workers, say=quiet)
    for arm in few.arms:
        one, two = (
            (tmp_path / str(w) / "arms" / arm.name / "model.safetensors").read_bytes()
            for w in (1, 2)
        )
        assert one == two


def test_other_experiment_in_the_same_folder_is_refused(made: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    module.check(made, out)
    module.check(replace(made, arms=made.arms[:1]), out)  # more or fewer arms are no other
    with pytest.raises(InputError) as caught:
        module.check(replace(made, settings=replace(SETTINGS, learning_rate=1.0)), out)
    assert str(caught.value) == (
        f"{out / 'experiment.json'}: expected the experiment that was begun in this folder, got "
        "another: settings changed; choose another --out, or delete the folder"
    )


def test_arm_that_fails_is_named_with_its_reason_and_the_others_go_on(
    made: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.distill

    def distill(
        student: Any, teacher: Any, prompts: Any, settings: TrainSettings, out: Path
    ) -> Any:
        if settings.selector == "teachability":
            raise InputError(where="step 1", expected="a finite loss", got="nan", fix="lower it")
        return original(student, teacher, prompts, settings, out)

    monkeypatch.setattr(module, "distill", distill)
    out, few = tmp_path / "out", replace(made, arms=made.arms[:3])
    run_experiment(few, out, ReportSettings(top_k=4, draws=100), workers=1, say=quiet)
    said = {"teachability-25-s0": "step 1: expected a finite loss, got nan; lower it"}
    assert failures(few, out) == said
    assert {arm.checkpoint for arm in trained_arms(few, out)} == {"full-100-s0", "random-25-s0"}
    assert "step 1: expected a finite loss, got nan; lower it" in (out / "report.html").read_text()


def test_no_weights_are_loaded_before_every_arm_was_checked(
    made: Experiment, stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_train_one", lambda *a: pytest.fail("an arm was trained"))
    bad = ArmPlan(selector="kl", budget=1.5, seed=0)
    cases = (
        (
            replace(made, arms=(*made.arms, bad)),
            "--budget: expected a share of positions in (0, 1]",
        ),
        (replace(made, teacher=stranger), "token id 9 = 'w4'"),
        (replace(made, teacher="topk:x.parquet"), "exact C, the teacher's mass on the student's"),
        (replace(made, prompts=str(tmp_path / "none.jsonl")), "none.jsonl"),
    )
    for experiment, said in cases:
        with pytest.raises(InputError) as caught:
            train_arms(experiment, tmp_path / "out", workers=1, say=quiet)
        assert said in str(caught.value)


def squares(number: float) -> float:
    return math.pow(number, 2)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_job_comes_back_with_its_own_result(workers: int) -> None:
    jobs = [(float(n),) for n in range(5)]
    found: Iterator[tuple[tuple[float], float]] = in_processes(squares, jobs, workers)
    assert sorted(found) == [((float(n),), float(n * n)) for n in range(5)]


def test_command_takes_models_or_none(command: Callable[..., Any], tmp_path: Path) -> None:
    status, _, err = command("intervene", "--student", "x", "--out", tmp_path / "out")
    assert status == 2
    assert "--student, --teacher, --bank and --prompts" in " ".join(err.split())


def test_command_runs_any_pair(
    made: Experiment, tmp_path: Path, command: Callable[..., Any]
) -> None:
    status, out, err = command(
        "intervene", "--student", made.student, "--teacher", made.teacher, "--bank", made.bank,
        "--prompts", made.prompts, "--out", tmp_path / "out", "--selector", "kl", "--budget", 0.5,
        "--seeds", 1, "--steps", 1, "--rollouts-per-step", 6, "--max-new-tokens", 8, "--top-k", 4,
        "--workers", 1, "--draws", 100, "--device", "cpu", "--held-out", 4,
    )  # fmt: skip
    assert (status, out) == (0, f"Report: {tmp_path / 'out' / 'report.html'}\n"), err
    table = pd.read_csv(tmp_path / "out" / "tables" / "table02.csv")
    kept = table[table["selector"] != "full"]
    assert kept[["selector", "budget", "seeds"]].to_numpy().tolist() == [["kl", 0.5, 1]]
