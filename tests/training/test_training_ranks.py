"""Two ranks: one mask over the rollouts of both, one loss, one checkpoint."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doubles import slow_entropy, slow_kl, slow_logprobs, slow_model

from diagnostics.models.files import open_model
from diagnostics.training.distill import read_log

HERE = Path(__file__).parent
BUDGET = 0.3


def launched(task: Path, out: Path, dump: Path) -> None:
    """Runs `ranked_training.py` on two ranks."""
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path[:1], str(HERE.parents[1])]),
        "OMP_NUM_THREADS": "1",
    }
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *command, HERE / "ranked_training.py", task, out, dump],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[:4000]


def rows(step: dict[str, Any]) -> list[tuple[list[int], list[int], list[bool]]]:
    """(prompt, response, kept) of a rank's rollouts, padding taken off."""
    found = []
    for row in range(len(step["prompt_ids"])):
        ids, seen = step["prompt_ids"][row], step["prompt_mask"][row]
        prompt = [i for i, m in zip(ids, seen, strict=True) if m]
        valid = [bool(m) for m in step["completion_mask"][row]]
        response = [i for i, m in zip(step["completion_ids"][row], valid, strict=True) if m]
        kept = [bool(k) for k, m in zip(step["tool_mask"][row], valid, strict=True) if m]
        found.append((prompt, response, kept))
    return found


@pytest.mark.slow
def test_two_ranks_keep_the_top_positions_of_both_and_average_over_all_of_them(
    student: str, teacher: str, tmp_path: Path
) -> None:
    task = tmp_path / "task.json"
    settings = {
        "selector": "entropy",
        "budget": BUDGET,
        "steps": 2,
        "rollouts_per_step": 8,
        "micro_batch": 2,
        "max_new_tokens": 8,
        "held_out": 4,
        "top_k": 4,
    }
    task.write_text(json.dumps(settings | {"student": student, "teacher": teacher}))
    launched(task, tmp_path / "m", tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(steps) for steps in ranks] == [2, 2]
    both = [row for steps in ranks for row in rows(steps[0])]
    assert len(both) == 8
    assert rows(ranks[0][0]) != rows(ranks[1][0])
    p, q = slow_model(student), slow_model(teacher)
    entropies, losses, kept = [], [], []
    for prompt, response, mask in both:
        logs = [slow_logprobs(model, prompt, response) for model in (p, q)]
        entropies += [slow_entropy(log) for log in logs[0]]
        losses += [slow_kl(a, b) for a, b in zip(*logs, strict=True)]
        kept += mask
    count = math.ceil(BUDGET * len(entropies))
    assert sum(kept) == count
    # H~ is clipped at Q95 and Q05, ties fall by H itself: the kept are the largest entropies
    cut = sorted(entropies, reverse=True)[count - 1]
    assert kept == [h >= cut for h in entropies]
    log = read_log(tmp_path / "m")
    mean = sum(loss for loss, keep in zip(losses, kept, strict=True) if keep) / count
    assert log[0]["kept"] == count
    assert log[0]["loss"] == pytest.approx(mean, abs=1e-4)
    assert open_model(str(tmp_path / "m")).fingerprint != open_model(student).fingerprint
