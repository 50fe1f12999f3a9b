"""Several processes on one run: ranks of a launcher, and commands that know nothing of each other.

The truth is the run of one process, compared byte by byte.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from doubles import ROLLOUTS, bank_info
from processes import parts_of, same_table

from diagnostics.bank.contexts import read_bank, write_bank
from diagnostics.errors import InputError
from diagnostics.models.weights import resolve_device
from diagnostics.scoring import manifest
from diagnostics.scoring.rescore import plan, rescore
from diagnostics.scoring.run import open_run, part_file
from diagnostics.scoring.task import Settings, Task
from diagnostics.scoring.worker import Worker

HERE = Path(__file__).parent
SETTINGS = Settings(top_k=4, part_contexts=3)


def rank(number: int, world: int = 2) -> dict[str, str]:
    return {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}


def end_well(*begun: BaseProcess) -> None:
    for process in begun:
        process.join(300)  # minutes where the machine is loaded
    assert [process.exitcode for process in begun] == [0] * len(begun)


@pytest.mark.parametrize(
    ("name", "environ", "chosen"),
    [
        ("auto", {}, "cuda"),
        ("auto", {"LOCAL_RANK": "0"}, "cuda:0"),
        ("auto", {"LOCAL_RANK": "3"}, "cuda:3"),
        ("cuda", {"LOCAL_RANK": "3"}, "cuda:3"),
        ("auto", {"LOCAL_RANK": "5"}, "cuda:1"),  # six processes on four accelerators
        ("auto", {"RANK": "7"}, "cuda"),  # no launcher that counts on this machine
    ],
)
def test_local_rank_has_an_accelerator_of_its_own(
    name: str, environ: Mapping[str, str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert resolve_device(name, environ) == chosen


def test_local_rank_without_an_accelerator_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto", {"LOCAL_RANK": "3"}) == "cpu"
    assert resolve_device("cpu", {"LOCAL_RANK": "3"}) == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("locks", [True, False])
def test_two_ranks_share_the_parts_and_give_one_processs_bytes(
    task: dict[str, Any], whole: Path, locks: bool, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    end_well(
        *(
            processes.begin(task, out, environ=rank(r), log=log, slow=0.1, locks=locks)
            for r in range(2)
        )
    )
    assert parts_of(out) == parts_of(whole)
    assert same_table(out, whole, tmp_path)
    assert open_run(out).manifest == open_run(whole).manifest
    shares = processes.shares(log)
    if locks:
        assert processes.scored_twice(log) == []
        assert sum(shares.values()) == 3 * 7 + 1  # and the noise floor
        assert min(shares.values()) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("locks", [True, False])
def test_the_same_command_twice_at_one_time(
    task: dict[str, Any], whole: Path, locks: bool, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    end_well(*(processes.begin(task, out, log=log, locks=locks) for _ in range(3)))
    assert parts_of(out) == parts_of(whole)
    assert same_table(out, whole, tmp_path)
    assert not locks or processes.scored_twice(log) == []


@pytest.mark.slow
@pytest.mark.parametrize("locks", [True, False])
def test_commands_that_add_different_checkpoints_at_one_time(
    task: dict[str, Any], student: str, locks: bool, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    added = {"step1": task["checkpoints"]["step1"], "same": student, "step2": student}
    end_well(
        *(
            processes.begin(
                {**task, "checkpoints": {name: model}}, out, log=log, slow=0.02, locks=locks
            )
            for name, model in added.items()
        )
    )
    processes.complete({**task, "checkpoints": added}, tmp_path / "alone")
    found = open_run(out).manifest
    assert set(found["checkpoints"]) == set(added)
    assert set(found["parts_done"].values()) == {7}
    assert parts_of(out) == parts_of(tmp_path / "alone")
    assert not locks or processes.scored_twice(log) == []


@pytest.mark.slow
@pytest.mark.parametrize("dies", [1, 5, 9])
def test_survivor_takes_over_the_parts_of_a_rank_that_dies(
    task: dict[str, Any], whole: Path, dies: int, tmp_path: Path
) -> None:
    """Rank 1 is killed at its first, fifth and ninth part; nobody starts it again."""
    out, log = tmp_path / "run", tmp_path / "log"
    survivor = processes.begin(task, out, environ=rank(0), log=log, slow=0.1)
    dead = processes.begin(task, out, environ=rank(1), log=log, slow=0.1, dies=dies)
    end_well(survivor)
    dead.join(300)
    assert dead.exitcode == -9
    assert parts_of(out) == parts_of(whole)
    assert same_table(out, whole, tmp_path)
    assert processes.scored_twice(log) == []
    assert processes.shares(log).get("1", 0) == dies - 1


@pytest.mark.slow
def test_both_ranks_refuse_a_broken_checkpoint_and_leave_nothing_of_it(
    task: dict[str, Any], whole: Path, broken: str, tmp_path: Path
) -> None:
    """One of seven contexts breaks it, so that one rank finds it while the other goes on."""
    out, said = tmp_path / "run", [tmp_path / "said0", tmp_path / "said1"]
    sick = {**task, "checkpoints": {"step1": broken}}
    begun = [processes.begin(sick, out, environ=rank(r), slow=0.1, said=said[r]) for r in range(2)]
    for process in begun:
        process.join(300)  # minutes where the machine is loaded
    assert [process.exitcode for process in begun] == [1, 1]
    for file in said:
        message = file.read_text()
        assert "\n" not in message
        assert message.startswith(("step1, context ", "checkpoint step1: expected its stamp in "))
    assert open_run(out).checkpoints == []
    assert not part_file(out, "step1", 0).parent.exists()
    processes.complete(task, out)
    assert parts_of(out) == parts_of(whole)


def planned(task: dict[str, Any], out: Path, **checkpoints: str) -> Task:
    bank = read_bank(Path(task["bank"]))
    return plan(bank, task["teacher"], task["student"], checkpoints, out, SETTINGS)


def test_scores_of_a_checkpoint_that_another_rank_took_out_do_not_come_back(
    task: dict[str, Any], broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the second part's forward pass and its write another process forgets the checkpoint.

    Parts of three contexts: the broken token is in the second; here its numbers are not looked at.
    """
    out, calls = tmp_path / "run", []
    compare = Worker._compare

    def forgotten(self: Worker, *options: Any) -> Any:
        calls.append(self.job.name)
        if calls.count("step1") == 2:
            manifest.forget(planned(task, out, step1=task["checkpoints"]["step1"]), "step1")
        return compare(self, *options)

    monkeypatch.setattr(Worker, "_compare", forgotten)
    with pytest.raises(InputError) as caught:
        rescore(**{**task, "bank": read_bank(Path(task["bank"]))}, out=out, settings=SETTINGS)
    assert str(caught.value) == (
        f"checkpoint step1: expected its stamp in {out / 'checkpoints'}, got none: another process "
        "has taken it out of the run; read why on that process's stderr, and run again with a "
        "sound checkpoint"
    )
    assert calls.count("step1") == 2
    assert not part_file(out, "step1", 0).parent.exists()
    assert open_run(out).checkpoints == []


def test_forgetting_leaves_a_mended_checkpoint_of_the_same_name(
    task: dict[str, Any], broken: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run = rescore(**{**task, "bank": read_bank(Path(task["bank"]))}, out=out, settings=SETTINGS)
    before = parts_of(out)
    manifest.forget(planned(task, out, step1=broken), "step1")
    manifest.forget(planned(task, out, step1=broken), "theta_0")
    assert parts_of(out) == before
    assert open_run(out).manifest == run.manifest


def test_scores_that_nobody_knows_are_not_taken_for_done(
    task: dict[str, Any], student: str, tmp_path: Path
) -> None:
    """A process without locks wrote a part after its checkpoint was forgotten."""
    out = tmp_path / "run"
    bank = read_bank(Path(task["bank"]))
    rescore(**{**task, "bank": bank}, out=out, settings=SETTINGS)
    wanted = part_file(out, "step1", 0).read_bytes()
    (out / "checkpoints" / "step1.json").unlink()
    part_file(out, "step1", 0).write_bytes(part_file(out, "theta_0", 0).read_bytes())
    rescore(**{**task, "bank": bank}, out=out, settings=SETTINGS)
    assert part_file(out, "step1", 0).read_bytes() == wanted


def launched(
    *words: object, module: str = "torch.distributed.run"
) -> subprocess.CompletedProcess[str]:
    """A launcher of two processes on this machine's CPU."""
    options = {
        "torch.distributed.run": "--nproc-per-node=2 --standalone",
        "accelerate.commands.launch": "--num_processes=2 --num_machines=1 --cpu "
        "--mixed_precision=no --dynamo_backend=no --main_process_port=0",
    }[module]
    return subprocess.run(
        [sys.executable, "-m", module, *options.split(), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=HERE.parents[1],
        env={**processes.environment(), "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--gloo",)], ids=["alone", "in a gloo group"])
def test_torchrun_splits_the_parts_over_its_ranks(
    task: dict[str, Any], whole: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "task.json").write_text(json.dumps(task))
    out, log = tmp_path / "run", tmp_path / "log"
    done = launched(HERE / "ranked.py", tmp_path / "task.json", out, log, *words)
    assert done.returncode == 0, done.stderr
    assert parts_of(out) == parts_of(whole)
    assert same_table(out, whole, tmp_path)
    assert processes.scored_twice(log) == []
    assert min(processes.shares(log).values()) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--gloo",)], ids=["alone", "in a gloo group"])
def test_torchrun_that_loses_a_rank_is_completed_by_the_same_command(
    task: dict[str, Any], whole: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    """torchrun stops the other rank too."""
    (tmp_path / "task.json").write_text(json.dumps(task))
    command = (HERE / "ranked.py", tmp_path / "task.json", tmp_path / "run", tmp_path / "log")
    done = launched(*command, *words, "--dies")
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr
    found = parts_of(tmp_path / "run")
    assert found.items() < parts_of(whole).items()
    assert launched(*command, *words).returncode == 0
    assert parts_of(tmp_path / "run") == parts_of(whole)
    assert same_table(tmp_path / "run", whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch.distributed.run", "accelerate.commands.launch"])
def test_command_under_a_launcher_gives_one_processs_bytes(
    task: dict[str, Any], module: str, tmp_path: Path
) -> None:
    """140 contexts in three parts of 50, 50 and 40."""
    if module.startswith("accelerate"):
        pytest.importorskip("accelerate")
    rollouts = [
        processes.renamed(one, f"{one.prompt_id}{copy}") for copy in range(20) for one in ROLLOUTS
    ]
    write_bank(rollouts, bank_info(), tmp_path / "bank.parquet")
    words = ["-m", "diagnostics", "rescore", tmp_path / "bank.parquet", "--device", "cpu"]
    words += ["--teacher", task["teacher"], "--student", task["student"], "--top-k", 4]
    words += ["--checkpoint", f"step1={task['checkpoints']['step1']}", "--name", "run", "--out"]
    done = launched(*words, tmp_path / "run", module=module)
    assert done.returncode == 0, done.stderr
    processes.complete(
        {**task, "bank": str(tmp_path / "bank.parquet")},
        tmp_path / "alone",
        settings={"part_contexts": 50},
    )
    assert len(list((tmp_path / "run" / "scores" / "step1").iterdir())) == 3
    assert parts_of(tmp_path / "run") == parts_of(tmp_path / "alone")
    assert open_run(tmp_path / "run").manifest == open_run(tmp_path / "alone").manifest
    assert "Traceback" not in done.stderr
    assert done.stdout.count("140 contexts; step1") == 1  # the first rank speaks
