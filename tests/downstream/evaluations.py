"""Output folders of both evaluation programs, written by hand in their layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_harness(
    folder: Path, name: str = "results_2026-01-01T00-00-00.json", **parts: Any
) -> Path:
    """One lm-evaluation-harness 0.4 file: a task `sums` at 0.25 of 8 problems, seed 3."""
    content = {
        "results": {
            "sums": {
                "alias": "sums",
                "exact_match,strict-match": 0.25,
                "exact_match_stderr,strict-match": 0.16,
                "exact_match,flexible-extract": 0.5,
                "exact_match_stderr,flexible-extract": 0.18,
            }
        },
        "group_subtasks": {"sums": []},
        "higher_is_better": {"sums": {"exact_match": True}},
        "n-samples": {"sums": {"original": 8, "effective": 8}},
        "config": {"model": "hf", "random_seed": 0, "numpy_seed": 1234, "torch_seed": 3},
        "model_name": "student",
    } | parts
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / name


def subset(name: str, score: float, num: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "score": score, "num": num, "is_aggregate": False} | more


def metric(name: str, score: float, *categories: dict[str, Any]) -> dict[str, Any]:
    num = sum(category["num"] for category in categories)
    return {
        "name": name, "num": num, "score": score, "macro_score": score, "categories": [*categories],
    }  # fmt: skip


def category(name: list[str], score: float, *subsets: dict[str, Any]) -> dict[str, Any]:
    num = sum(part["num"] for part in subsets if not part["is_aggregate"])
    return {"name": name, "num": num, "score": score, "macro_score": score, "subsets": [*subsets]}


def write_evalscope(
    folder: Path, dataset: str, metrics: list[dict[str, Any]], *, seed: int | None, model: str = "m"
) -> Path:
    """One evaluation of EvalScope 1: `reports/MODEL/DATASET.json` and its configuration."""
    report = {
        "name": f"{model}@{dataset}",
        "dataset_name": dataset,
        "dataset_pretty_name": dataset.upper(),
        "dataset_description": "",
        "model_name": model,
        "score": metrics[0]["score"] if metrics else 0.0,
        "metrics": metrics,
        "analysis": "N/A",
        "perf_metrics": None,
    }
    path = folder / "reports" / model / f"{dataset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report), encoding="utf-8")
    if seed is not None:
        configs = folder / "configs"
        configs.mkdir(exist_ok=True)
        text = f"datasets:\n- {dataset}\ngeneration_config:\n  temperature: 1.0\nseed: {seed}\n"
        (configs / "task_config_a1b2c3.yaml").write_text(text, encoding="utf-8")
    return path
