"""What the two programs' folders say is what is read; what is unclear is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import category, metric, subset, write_evalscope, write_harness

from diagnostics.downstream.evalscope import read_evalscope
from diagnostics.downstream.harness import read_harness
from diagnostics.downstream.metrics import Wanted, parse_wanted
from diagnostics.downstream.records import Score
from diagnostics.downstream.results import read_results
from diagnostics.errors import InputError


def brief(scores: list[Score]) -> list[tuple[str, str, int, float, int | None]]:
    return [(s.benchmark, s.category, s.seed, s.value, s.total) for s in scores]


def refusal(caught: pytest.ExceptionInfo[InputError]) -> str:
    return str(caught.value)


def test_harness_several_seeds_and_the_strict_filter(tmp_path: Path) -> None:
    write_harness(tmp_path / "student", "results_2026-01-01.json")
    other = json.loads((tmp_path / "student" / "results_2026-01-01.json").read_text())
    other["config"]["torch_seed"] = 4
    other["results"]["sums"]["exact_match,strict-match"] = 0.375
    (tmp_path / "student" / "results_2026-01-02.json").write_text(json.dumps(other))
    (tmp_path / "student" / "samples_sums_2026-01-02.jsonl").write_text("{}\n")
    found = read_harness(tmp_path)
    assert brief(found) == [("sums", "", 3, 25.0, 8), ("sums", "", 4, 37.5, 8)]
    assert {s.metric for s in found} == {"exact_match,strict-match"}


def test_harness_metric_and_name_of_the_users_choice(tmp_path: Path) -> None:
    write_harness(tmp_path)
    wanted = parse_wanted("gsm=sums:exact_match,flexible-extract")
    assert brief(read_harness(tmp_path, wanted, seed=9)) == [("gsm", "", 9, 50.0, 8)]


GROUPED = {
    "results": {
        "math": {"alias": "math", "exact_match,none": 0.4},
        "algebra": {"alias": " - algebra", "exact_match,none": 0.5},
        "geometry": {"alias": " - geometry", "exact_match,none": 0.25},
        "bare": {"alias": "bare", " ": " "},
        "yes": {"alias": " - yes", "acc,none": 1.0, "acc_norm,none": 0.5},
    },
    "group_subtasks": {"math": ["algebra", "geometry"], "bare": ["yes"]},
    "n-samples": {
        "algebra": {"original": 6, "effective": 6},
        "geometry": {"original": 4, "effective": 4},
        "yes": {"original": 2, "effective": 2},
    },
}


def test_harness_tasks_of_a_group_are_its_categories(tmp_path: Path) -> None:
    write_harness(tmp_path, **GROUPED)
    assert brief(read_harness(tmp_path)) == [
        ("math", "", 3, 40.0, 10),
        ("math", "algebra", 3, 50.0, 6),
        ("math", "geometry", 3, 25.0, 4),
        ("yes", "", 3, 100.0, 2),  # its group has no metric of its own
    ]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"results": {"sums": {"exact_match,none": float("nan")}}},
         ", sums: expected exact_match,none as a fraction, 0 to 1, got nan; evaluate it again, or "
         "state the unit: fraction or percent"),
        ({"results": {"sums": {"acc,none": 25.0}}},
         ", sums: expected acc,none as a fraction, 0 to 1, got 25.0; evaluate it again, or state "
         "the unit: fraction or percent"),
        ({"results": {"sums": {"acc,none": "N/A"}}},
         ", sums: expected acc,none as a fraction, 0 to 1, got 'N/A'; evaluate it again, or state "
         "the unit: fraction or percent"),
        ({"results": {"sums": {"f1,none": 0.2, "bleu,none": 0.3}}},
         ", sums: expected a main metric, got f1,none, bleu,none; name one in `tasks`, as "
         "TASK:METRIC"),
        ({"results": {"sums": {"acc,a": 0.2, "acc,b": 0.3}}},
         ", sums: expected one filter of acc, got acc,a, acc,b; name one in `tasks`, as "
         "TASK:METRIC"),
        ({"results": {"sums": {"ppl,none": 0.2}}, "higher_is_better": {"sums": {"ppl": False}}},
         ", sums: expected a metric of which more is better, got ppl,none; name another in "
         "`tasks`, as TASK:METRIC"),
        ({"results": {}},
         ": expected an object `results` with at least one task, got none; run the evaluation "
         "again; this file is not one of lm-evaluation-harness 0.4"),
        ({"config": {}},
         ": expected config.torch_seed, got None; state the seed in the list of results"),
    ],
)  # fmt: skip
def test_harness_refuses_by_name(tmp_path: Path, parts: dict[str, object], said: str) -> None:
    path = write_harness(tmp_path, **parts)
    with pytest.raises(InputError) as caught:
        read_harness(tmp_path)
    assert refusal(caught) == f"{path}{said}"


def test_harness_refuses_a_missing_task_and_two_models(tmp_path: Path) -> None:
    write_harness(tmp_path / "a")
    with pytest.raises(InputError) as caught:
        read_harness(tmp_path, [Wanted(task="ifeval", benchmark="ifeval")])
    assert refusal(caught) == (
        f"{tmp_path}: expected results of the task ifeval, got none; evaluate it, or take it out "
        "of `tasks`"
    )
    write_harness(tmp_path / "b", model_name="other")
    with pytest.raises(InputError) as caught:
        read_harness(tmp_path)
    assert refusal(caught) == (
        f"{tmp_path}: expected results of one model, got student, other; name the folder of one of "
        "them"
    )


def test_harness_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_harness(tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match=rf"^{path}: expected a readable JSON file, got damage \("):
        read_harness(tmp_path)


@pytest.mark.parametrize("text", ["=task", "a=", "task:", ":acc"])
def test_a_wanted_task_without_its_parts_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_wanted(text)
    assert refusal(caught) == (
        f"tasks: expected [NAME=]TASK[:METRIC], separated by spaces, got {text!r}; write for "
        "instance math_500=minerva_math500:exact_match"
    )


def math_500(first: float, second: float) -> list[dict[str, object]]:
    parts = (subset("Level 1", first, 4), subset("Level 2", second, 6))
    total = subset("OVERALL", 0.9, 10, is_aggregate=True)
    score = (4 * first + 6 * second) / 10
    return [metric("mean_acc", score, category(["default"], score, *parts, total))]


def test_evalscope_seeds_subsets_and_the_strict_prompts(tmp_path: Path) -> None:
    for seed, name in ((42, "20260101_000000"), (43, "20260102_000000")):
        write_evalscope(tmp_path / name, "math_500", math_500(0.5, 0.5 * (seed == 43)), seed=seed)
    ifeval = [
        metric(name, score, category(["default"], score, subset("default", score, 5)))
        for name, score in (("inst_level_strict", 0.8), ("prompt_level_strict", 0.6))
    ]
    write_evalscope(tmp_path / "20260102_000000", "ifeval", ifeval, seed=43)
    assert brief(read_evalscope(tmp_path)) == [
        ("math_500", "", 42, 20.0, 10),
        ("math_500", "Level 1", 42, 50.0, 4),
        ("math_500", "Level 2", 42, 0.0, 6),
        ("ifeval", "", 43, 60.0, 5),
        ("math_500", "", 43, 50.0, 10),
        ("math_500", "Level 1", 43, 50.0, 4),
        ("math_500", "Level 2", 43, 50.0, 6),
    ]
    wanted = parse_wanted("strict=ifeval:prompt_level_strict inst=ifeval:inst_level_strict")
    assert [s.value for s in read_evalscope(tmp_path, wanted)] == [60.0, 80.0]


def test_evalscope_categories_come_before_subsets(tmp_path: Path) -> None:
    parts = [
        category([n, "x"], s, subset("a", s, 1), subset("b", s, 1))
        for n, s in (("p", 0.5), ("q", 1.0))
    ]
    write_evalscope(tmp_path, "mmlu", [metric("acc", 0.75, *parts)], seed=1)
    found = [(s.category, s.value) for s in read_evalscope(tmp_path)]
    assert found == [("", 75.0), ("p/x", 50.0), ("q/x", 100.0)]


def test_evalscope_refuses_by_name(tmp_path: Path) -> None:
    path = write_evalscope(tmp_path, "math_500", math_500(0.5, 0.5), seed=None)
    with pytest.raises(InputError) as caught:
        read_evalscope(tmp_path)
    assert refusal(caught) == (
        f"{path}: expected one seed in configs/task_config*.yaml of its evaluation, got none; "
        "state the seed in the list of results"
    )
    assert len(read_evalscope(tmp_path, seed=5)) == 3
    bad = write_evalscope(tmp_path, "aime24", [metric("acc", float("nan"))], seed=1)
    with pytest.raises(InputError) as caught:
        read_evalscope(tmp_path)
    assert refusal(caught) == (
        f"{bad}, aime24: expected acc as a fraction, 0 to 1, got nan; evaluate it again, or state "
        "the unit: fraction or percent"
    )
    write_evalscope(tmp_path, "aime24", [metric("acc", 0.5)], seed=1, model="other")
    with pytest.raises(InputError) as caught:
        read_evalscope(tmp_path)
    assert refusal(caught) == (
        f"{tmp_path}: expected reports/MODEL/DATASET.json of EvalScope, of one model, got reports "
        "of m, other; name the folder of an evaluation of one model"
    )


def test_evalscope_two_seeds_in_one_configuration_are_refused(tmp_path: Path) -> None:
    path = write_evalscope(tmp_path, "math_500", math_500(0.5, 0.5), seed=1)
    config = tmp_path / "configs" / "task_config_a1b2c3.yaml"
    config.write_text(config.read_text().replace("temperature: 1.0", "seed: 2"))
    with pytest.raises(InputError) as caught:
        read_evalscope(tmp_path)
    assert refusal(caught) == (
        f"{path}: expected one seed in configs/task_config*.yaml of its evaluation, got 1, 2; "
        "state the seed in the list of results"
    )


def listed(path: Path, *rows: str, head: str = "setting,selector,budget,folder") -> Path:
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_one_list_reads_both_programs(tmp_path: Path) -> None:
    write_harness(tmp_path / "base")
    whole = category(["default"], 50.0, subset("main", 50.0, 8))
    gsm = [metric("exact_match,strict-match", 50.0, whole)]
    write_evalscope(tmp_path / "scope", "gsm", gsm, seed=1)
    head = "setting,selector,budget,folder,seed,tasks,unit"
    rows = ("pair,base,,base,,,", "pair,kl,0.05,scope,7,sums=gsm,percent")
    found = read_results(listed(tmp_path / "list.csv", *rows, head=head))
    assert found[["selector", "benchmark", "seed", "value"]].to_numpy().tolist() == [
        ["base", "sums", 3, 25.0],
        ["kl", "sums", 7, 50.0],
    ]
    lines = [
        {"setting": "pair", "selector": "base", "budget": None, "folder": "base"},
        {"setting": "pair", "selector": "kl", "budget": 0.05, "folder": "scope", "seed": 7,
         "tasks": "sums=gsm", "unit": "percent"},
    ]  # fmt: skip
    jsonl = tmp_path / "list.jsonl"
    jsonl.write_text("\n".join(map(json.dumps, lines)))
    assert read_results(jsonl).equals(found)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("pair,teach,0.1,base", "expected a selector: one of base, teachability, teachability+"),
        ("pair,tip,,base", "expected a budget in (0, 1], got none; write 5 % as 0.05"),
        ("pair,tip,5,base", "expected a budget in (0, 1], got 5.0; write 5 % as 0.05"),
        ("pair,base,0.1,base", "expected no budget for `base`, got 0.1; write 5 % as 0.05"),
        ("pair,full,0.1,base", "expected budget 1 or none for `full`, got 0.1; write 5 % as 0.05"),
        ("pair,tip,5%,base", "expected a number as budget, got '5%'; write 5 % as 0.05"),
        (",tip,0.1,base", "expected a setting, got none; name teacher and student"),
        ("pair,tip,0.1,", "expected a folder, got none; name the output folder"),
    ],
)
def test_a_bad_row_is_refused_by_number(tmp_path: Path, row: str, said: str) -> None:
    write_harness(tmp_path / "base")
    path = listed(tmp_path / "list.csv", "pair,base,,base", row)
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert refusal(caught).startswith(f"{path}, row 2: {said}")


def test_folders_that_are_neither_both_or_absent_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_harness(tmp_path / "both")
    write_evalscope(tmp_path / "both", "gsm", [metric("acc", 0.5)], seed=1)
    for folder, got in (("empty", "neither"), ("both", "both"), ("gone", "no such folder")):
        with pytest.raises(InputError) as caught:
            read_results(listed(tmp_path / "list.csv", f"pair,base,,{folder}"))
        assert refusal(caught) == (
            f"{tmp_path / folder}: expected results_*.json of lm-evaluation-harness or "
            f"reports/MODEL/*.json of EvalScope, got {got}; name the output folder of one "
            "evaluation program"
        )


def test_a_list_of_other_columns_without_rows_or_unreadable_is_refused(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.csv", "pair,base,x", head="setting,selector,path")
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert refusal(caught) == (
        f"{path}: expected columns setting, selector, budget, folder and, where wanted, seed, "
        "tasks, unit, got setting, selector, path; rename, add or drop columns"
    )
    with pytest.raises(InputError) as caught:
        read_results(listed(path))
    assert refusal(caught) == f"{path}: expected rows, got none; add one a folder"
    with pytest.raises(
        InputError, match=r"expected a CSV or JSONL list of results, got \[Errno 2\]"
    ):
        read_results(tmp_path / "gone.csv")


def test_what_contradicts_itself_over_folders_is_refused(tmp_path: Path) -> None:
    one, other = write_harness(tmp_path / "a"), write_harness(tmp_path / "b")
    rows = ("pair,base,,a", "pair,base,,b")
    with pytest.raises(InputError) as caught:
        read_results(listed(tmp_path / "list.csv", *rows))
    assert refusal(caught) == (
        f"{other}: expected one score of sums at seed 3 for pair / base / no budget, got a second "
        f"one besides {one}; keep one of the two, or state their seeds"
    )
    write_harness(tmp_path / "b", **{"n-samples": {"sums": {"original": 8, "effective": 2}}})
    path = listed(tmp_path / "list.csv", "pair,base,,a", "pair,tip,0.1,b")
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert refusal(caught) == (
        f"{other}: expected one number of problems of sums in every folder, 8 as in {one}, got 2; "
        "evaluate all arms alike, or name the metric"
    )
    write_harness(tmp_path / "b", results={"sums": {"acc,none": 0.5}})
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert refusal(caught) == (
        f"{other}: expected one metric of sums in every folder, exact_match,strict-match as in "
        f"{one}, got acc,none; evaluate all arms alike, or name the metric"
    )
