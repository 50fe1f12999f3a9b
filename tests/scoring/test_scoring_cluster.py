"""The parts as Ray Data jobs: the same bytes, and every error in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from processes import parts_of, same_table

from diagnostics.bank.contexts import read_bank
from diagnostics.errors import InputError
from diagnostics.scoring import manifest
from diagnostics.scoring.cluster import Actor, OnRay
from diagnostics.scoring.rescore import jobs, plan, rescore
from diagnostics.scoring.run import open_run
from diagnostics.scoring.task import Settings, Task

SETTINGS = Settings(**processes.SETTINGS)
ON_RAY = """
import sys, json
from functools import partial
from pathlib import Path
import ray
from diagnostics.bank.contexts import read_bank
from diagnostics.errors import InputError
from diagnostics.scoring.cluster import OnRay
from diagnostics.scoring.rescore import rescore
from diagnostics.scoring.task import Settings

task, settings = json.loads(sys.argv[1]), json.loads(sys.argv[2])
task["bank"] = read_bank(Path(task["bank"]))
try:
    rescore(**task, out=Path(sys.argv[3]), settings=Settings(**settings), name="run",
            runner=partial(OnRay, workers=2))
except InputError as error:
    sys.exit(f"said: {error}")
finally:
    assert not ray.is_initialized()
"""


def on_ray(task: dict[str, Any], out: Path) -> subprocess.CompletedProcess[str]:
    """Scores on a local Ray of two workers, from a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", ON_RAY, json.dumps(task), json.dumps(processes.SETTINGS), str(out)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**processes.environment(), "OMP_NUM_THREADS": "1"},
        check=False,
    )


def planned(task: dict[str, Any], out: Path, **checkpoints: str) -> Task:
    bank = read_bank(Path(task["bank"]))
    return plan(bank, task["teacher"], task["student"], checkpoints, out, SETTINGS)


def test_missing_ray_names_the_extra(
    task: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as caught:
        OnRay(planned(task, tmp_path / "run"), 2)
    assert str(caught.value) == (
        "--ray-workers: expected the package ray, got none installed; "
        "pip install 'fixed-context-diagnostics[ray]'"
    )


def test_actor_gives_an_input_error_as_a_row(
    task: dict[str, Any], broken: str, tmp_path: Path
) -> None:
    """Part 4 of seven holds the broken token; the others are scored."""
    out = tmp_path / "run"
    bank = read_bank(Path(task["bank"]))
    rescore(bank, task["teacher"], task["student"], {}, out, SETTINGS)
    sick = planned(task, out, sick=broken)
    manifest.start(sick, "run")
    actor = Actor(sick, jobs(sick)[-1])
    assert actor({"part": np.array([0])})["where"].tolist() == [""]
    row = {name: column[0] for name, column in actor({"part": np.array([4])}).items()}
    assert str(InputError(**row)) == (
        f"sick, context {bank.strings('context_id')[4]}: expected finite model output, got NaN or "
        "infinity; score in float32 (--dtype float32), or check the checkpoint's weights"
    )
    assert open_run(out).checkpoints == []


@pytest.mark.slow
def test_local_ray_of_two_workers_gives_one_processs_bytes(
    task: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "run"
    done = on_ray(task, out)
    assert done.returncode == 0, done.stderr
    assert parts_of(out) == parts_of(whole)
    assert same_table(out, whole, tmp_path)
    assert open_run(out).manifest == open_run(whole).manifest


@pytest.mark.slow
def test_broken_checkpoint_on_ray_is_one_line(
    task: dict[str, Any], broken: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    processes.complete({**task, "checkpoints": {}}, tmp_path / "run")
    done = on_ray({**task, "checkpoints": {"sick": broken}}, tmp_path / "run")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("said: ")]
    assert len(said) == 1
    assert "expected finite model output, got NaN" in said[0] or "its stamp in" in said[0]
    assert "Traceback" not in done.stderr
    assert open_run(tmp_path / "run").checkpoints == []
