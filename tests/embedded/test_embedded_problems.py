"""The generator's answers are right, its split holds, and answers are read exactly."""

from __future__ import annotations

import random
import re
from itertools import islice
from pathlib import Path

import pytest

from diagnostics.embedded.pair import STUDENT, as_model
from diagnostics.embedded.problems import (
    HELD_OUT_ONE_IN,
    LARGEST,
    MIN_STEPS,
    count_right,
    is_held_out,
    make_problem,
    read_answers,
    sheets,
)

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
DO = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


@pytest.mark.parametrize("steps", range(1, 7))
def test_every_written_equation_is_true_and_leads_to_the_answer(steps: int) -> None:
    for seed in range(40):
        problem = make_problem(random.Random(seed), steps)
        equations = EQUATION.findall(problem.solution)
        for left, sign, right, result in equations:
            assert DO[sign](int(left), int(right)) == int(result)
            assert 0 <= int(result) <= LARGEST
        assert int(equations[-1][3]) == problem.answer


def test_each_step_starts_from_the_count_before_it() -> None:
    problem = make_problem(random.Random(5), 6)
    equations = EQUATION.findall(problem.solution)
    results = [int(result) for *_, result in equations]
    assert [int(left) for left, *_ in equations][1:] == results[:-1]


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one step, got steps=0"):
        make_problem(random.Random(0), 0)


def test_the_reference_solution_counts_as_all_right() -> None:
    for sheet in islice(sheets(3, held_out=True), 50):
        assert count_right(sheet.solution, sheet.answers) == len(sheet.answers)
        assert sheet.prompt.count("Problem") == len(sheet.answers)


def test_a_wrong_number_counts_as_wrong() -> None:
    assert count_right("Answer 1: 12\nAnswer 2: 7\n", (12, 8)) == 1
    assert count_right("Answer 1: 123\n", (12,)) == 0
    assert count_right("the Answer 1: 12\n", (12,)) == 0


def test_the_last_line_of_a_problem_counts() -> None:
    assert read_answers("Answer 1: 3\nAnswer 1: 4\n") == {1: 4}


def test_training_and_held_out_prompts_are_disjoint_whatever_the_seed() -> None:
    training = {s.prompt for s in islice(sheets(1, held_out=False), 300)}
    held_out = {s.prompt for s in islice(sheets(1, held_out=True), 300)}
    assert not training & held_out
    assert not any(is_held_out(prompt) for prompt in training)
    assert all(is_held_out(prompt) for prompt in held_out)


def test_about_one_prompt_in_sixteen_is_held_out() -> None:
    texts = [s.prompt + str(i) for i, s in enumerate(islice(sheets(2, held_out=False), 3000))]
    share = sum(is_held_out(text) for text in texts) / len(texts)
    assert share == pytest.approx(1 / HELD_OUT_ONE_IN, abs=0.02)  # 4.5 standard errors


def test_a_seed_gives_its_sheets_and_another_gives_others() -> None:
    first, again, other = (
        [s.prompt for s in islice(sheets(seed, held_out=False), 20)] for seed in (7, 7, 8)
    )
    assert first == again
    assert not set(first) & set(other)


def test_a_sheet_has_steps_enough_to_fill_a_rollout() -> None:
    for sheet in islice(sheets(4, held_out=False), 50):
        # one work line a step, one starting line and two framing lines a problem
        lines = len(sheet.solution.splitlines())
        assert lines - 3 * len(sheet.answers) >= MIN_STEPS


def test_models_of_the_pair_are_named_from_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(STUDENT.parent)
    assert as_model(STUDENT) == "student"
    monkeypatch.chdir(tmp_path)
    assert as_model(STUDENT) == str(STUDENT)
