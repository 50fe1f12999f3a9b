"""A rescoring for `torchrun`: ranked.py TASK.json OUT LOG [--gloo] [--dies].

With --gloo every rank joins a process group first, as a training script has; with --dies rank 1
is killed at its second part.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import processes
import torch

if __name__ == "__main__":
    task, out, log = (Path(word) for word in sys.argv[1:4])
    if "--gloo" in sys.argv:
        torch.distributed.init_process_group("gloo")
        assert torch.distributed.get_world_size() == 2
    if "--dies" in sys.argv and os.environ["RANK"] == "1":
        processes.before_part(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    processes.work(json.loads(task.read_text()), out, {"log": log, "slow": 0.2})
    if "--gloo" in sys.argv:
        torch.distributed.destroy_process_group()
