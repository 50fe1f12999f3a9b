"""What all tables of a report cost, from a run on disk: reading, statistics, 2,000 draws.

Run: `OMP_NUM_THREADS=1 python benchmarks/report.py RUN [--checkpoints 1]`, with a run folder as
`diagnostics demo` leaves one (reports/demo/run: 57,600 positions, 300 prompts, K = 8, 16 and 32).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from diagnostics.report.contexts.analysis import ReportSettings, analyse
from diagnostics.scoring.run import open_run

ROUNDS = 5


def main() -> None:
    """Prints the medians of CPU and wall seconds after a round that is not counted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--checkpoints", type=int, default=1, help="the first so many")
    given = parser.parse_args()
    run = open_run(given.run)
    names = run.checkpoints[: given.checkpoints]
    stamps = {name: run.manifest["checkpoints"][name] for name in names}
    run = replace(run, manifest={**run.manifest, "checkpoints": stamps})
    cpu, wall = [], []
    for _ in range(ROUNDS + 1):
        started, seconds = time.process_time(), time.monotonic()
        results = analyse([run], ReportSettings())
        cpu.append(time.process_time() - started)
        wall.append(time.monotonic() - seconds)
    rows = sum(len(table) for table in results.tables.values())
    print(
        f"{len(names)} checkpoints, {len(results.tables)} tables of {rows} rows, 2,000 draws: "
        f"{median(cpu[1:]):.1f} s CPU, {median(wall[1:]):.1f} s wall"
    )


if __name__ == "__main__":
    main()
