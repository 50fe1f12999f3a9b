"""Exact accuracy of a model over seeds: problems are sorted into kinds, and counts add up."""

from __future__ import annotations

import random
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diagnostics.downstream.records import Arm, check_records
from diagnostics.downstream.tables import downstream_tables
from diagnostics.embedded import evaluate
from diagnostics.embedded.evaluate import (
    EVALUATION_SEED,
    embedded_scores,
    operation,
    score_answers,
)
from diagnostics.embedded.pair import STUDENT
from diagnostics.embedded.problems import Problem, make_problem, make_sheet, sheets


def problem(solution: str, steps: int) -> Problem:
    return Problem(text="", solution=solution, answer=1, steps=steps)


@pytest.mark.parametrize(
    ("solution", "kind"),
    [
        ("She has 3. 3 + 40 = 43, 43 + 2 = 45.", "add_subtract"),
        ("Take 2 pre-cut: 9 - 4 = 5.", "add_subtract"),
        ("3 * 2 = 6.\n6 - 1 = 5.", "multiply"),
        ("6 / 2 = 3.", "divide"),
        ("6 / 2 = 3.\n3 * 5 = 15.", "multiply_divide"),
    ],
)
def test_operation_is_read_from_the_worked_lines(solution: str, kind: str) -> None:
    assert operation(problem(solution, 1)) == kind


def test_a_made_problem_has_one_sign_a_kind_of_change() -> None:
    found = {sign for seed in range(30) for sign in make_problem(random.Random(seed), 3).signs}
    assert found == set("+-*/")


def test_scores_by_hand() -> None:
    two, three = problem("1 + 1 = 2.", 2), problem("4 / 2 = 2.", 3)
    scores = score_answers([(three, False), (two, True), (three, True), (two, True)], 7, "m")
    found = {(s.benchmark, s.category): (s.value, s.total, s.seed) for s in scores}
    assert found == {
        ("steps_2", ""): (100.0, 2, 7),
        ("steps_3", ""): (50.0, 2, 7),
        ("operations", "add_subtract"): (100.0, 2, 7),
        ("operations", "divide"): (50.0, 2, 7),
    }
    assert [s.benchmark for s in scores if not s.category] == ["steps_2", "steps_3"]


def test_a_sheet_keeps_its_problems() -> None:
    sheet = make_sheet(random.Random(5))
    assert tuple(p.answer for p in sheet.problems) == sheet.answers
    assert all(p.text in sheet.prompt and p.solution in sheet.solution for p in sheet.problems)


def test_reference_solutions_score_everything_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_load", lambda folder: (None, None))
    monkeypatch.setattr(
        evaluate, "_responses", lambda m, t, group, sample: [s.solution for s in group]
    )
    found = embedded_scores(Path("m"), seeds=2, count=30)
    assert (found["value"] == 100).all()
    assert (found["right"] == found["total"]).all()
    whole, parts = (found[(found["category"] == "") == is_whole] for is_whole in (True, False))
    chosen = list(islice(sheets(EVALUATION_SEED, held_out=True), 30))
    assert whole["total"].sum() == parts["total"].sum() == 2 * sum(len(s.answers) for s in chosen)


@pytest.mark.slow
def test_a_seed_does_not_depend_on_how_many_there_are() -> None:
    one, two = (
        embedded_scores(STUDENT, seeds=1, count=6),
        embedded_scores(STUDENT, seeds=2, count=6),
    )
    assert two[two["seed"] == 0].reset_index(drop=True).equals(one)
    assert (one["right"] == one["value"] * one["total"] / 100).all()


def test_two_arms_become_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_load", lambda folder: (None, None))
    answers = {"right": lambda s: s.solution, "wrong": lambda s: ""}
    frames = []
    for name, arm in (("wrong", None), ("right", Arm(setting="p", selector="tip", budget=0.1))):
        monkeypatch.setattr(evaluate, "_responses",
            lambda m, t, group, sample, name=name: [answers[name](s) for s in group])  # fmt: skip
        frames.append(embedded_scores(Path(name), seeds=2, count=8, arm=arm or Arm(
            setting="p", selector="base", budget=None)))  # fmt: skip
    tables = downstream_tables(check_records(pd.concat(frames, ignore_index=True)))
    assert tables["table03"]["average"].tolist() == [0.0, 100.0]
    assert tables["table13"]["average"].tolist() == [100.0]
    assert np.allclose(tables["table13"].filter(like="_sd"), 0)


def test_a_checkpoint_without_a_tokenizer_has_the_pairs(tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(STUDENT / name, tmp_path)
    own, lent = (evaluate._load(folder)[1] for folder in (STUDENT, tmp_path))
    text = make_sheet(random.Random(1)).prompt
    assert lent(text)["input_ids"] == own(text)["input_ids"]
