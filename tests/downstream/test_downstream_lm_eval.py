"""lm-evaluation-harness itself, on a local group of tasks and a random network: what it writes is
what we read, and both are what it returned."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from diagnostics.downstream.harness import read_harness

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # its own warnings

GROUP = """
group: words
task: [words_easy, words_hard]
aggregate_metric_list:
  - metric: acc
    weight_by_size: true
metadata: {version: 1.0}
"""
TASK = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
"""
ALONE = """
task: copies
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{target}}"
generation_kwargs: {until: ["<end>"], max_gen_toks: 1, do_sample: true, temperature: 1.0, top_k: 0}
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "(w[0-9])"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, regex_pattern: "(w)"}, {function: take_first}]
metric_list: [{metric: exact_match}]
metadata: {version: 1.0}
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks of a few made-up questions as YAML and JSONL."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, count, text in (
        ("words_easy", 5, TASK),
        ("words_hard", 3, TASK),
        ("copies", 40, ALONE),
    ):
        data = folder / f"{name}.jsonl"
        rows = [
            {
                "question": f"w{i} w{i + 1}",
                "choices": [f"w{i + 2}", f"w{2 * i + 9}"],
                "answer": i % 2,
                "target": f"w{1 + i % 5}",
            }
            for i in range(count)
        ]
        data.write_text("\n".join(map(json.dumps, rows)))
        text = text.replace("NAME", name).replace("FILE", str(data))
        (folder / f"{name}.yaml").write_text(text)
    (folder / "words.yaml").write_text(GROUP)
    return folder


def evaluate(tasks: Path, student: str, out: Path, seed: int) -> dict[str, Any]:
    """Runs the harness and lets it write its files; gives back what it returned."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tracker = EvaluationTracker(output_path=str(out))
    results: dict[str, Any] = simple_evaluate(
        model="hf",
        model_args={"pretrained": student, "dtype": "float32"},
        tasks=["words", "copies"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        evaluation_tracker=tracker,
        log_samples=True,
    )
    returned = json.loads(json.dumps(results["results"]))
    tracker.save_results_aggregated(results=results, samples=results.pop("samples"))
    return returned


def test_what_the_harness_returns_is_what_is_read_from_its_files(
    tasks: Path, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    returned = {seed: evaluate(tasks, student, tmp_path / "out", seed) for seed in (1, 2)}
    found = {(s.seed, s.category or s.benchmark): s for s in read_harness(tmp_path / "out")}
    assert len(list((tmp_path / "out").rglob("results_*.json"))) == 2
    keys = {"words": "acc,none", "words_easy": "acc,none", "words_hard": "acc,none",
            "copies": "exact_match,strict-match"}  # fmt: skip
    counts = {"words": 8, "words_easy": 5, "words_hard": 3, "copies": 40}
    assert set(found) == {(seed, name) for seed in (1, 2) for name in keys}
    for (seed, name), score in found.items():
        assert score.value == pytest.approx(100 * returned[seed][name][keys[name]], abs=1e-12)
        assert (score.metric, score.total) == (keys[name], counts[name])
    assert all(0 < found[seed, "copies"].value < 100 for seed in (1, 2))  # sampled, not trivial
    right = {name: found[1, name].value * counts[name] / 100 for name in counts}
    assert right["words"] == pytest.approx(right["words_easy"] + right["words_hard"])
