"""Every statistic of a token table on disk, beside decoding it and beside group-bys of others.

Each peer runs in a process of its own, peers taking turns, round after round; the first round warms
caches and is not counted. Each process meets a small file first, outside the clock (machine code,
query plans, threads). Timed from the file to the numbers: CPU time of all threads, and wall time.
Memory is the peak of the whole process, libraries included. Ratios are medians over rounds of the
ratio within a round. Every peer may use all processors.

    decode     pyarrow reads the 16 columns that the statistics need, and does nothing
    all        ours: every statistic with its intervals (2,000 draws), from the files
    products   ours: sums of the 66 products of [1, predictors, outcomes] per prompt, cuts given
    duckdb     the same products by GROUP BY, cuts given
    polars     the same, lazily on its streaming engine
    pandas     the same, in memory

Before the table is printed totals are compared (`AGREEMENT`). Peers are looked for in the Python
that `--peers` names (default: this one) and left out where they are not installed.

Run: `OMP_NUM_THREADS=1 python benchmarks/streaming.py [--rows 1e7] [--rounds 3] [--peers PYTHON]`;
with `--memory` ours alone, at several lengths: time and peak of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

SMALL = 10**4  # rows of the file that each process meets first
AGREEMENT = 1e-9  # of the size of a total
HERE = Path(__file__).parent
NAMES = ("entropy", "disagreement", "compatibility", "teacher_entropy")
WIDTH = 11
Cuts = Mapping[str, Sequence[float]]
Answer = Callable[[], list[float]]

# --- the peers: each gives what is timed, which makes the totals of the products ------------------


def decode(path: str, cuts: Cuts) -> Answer:
    """Columns read by pyarrow in the way that costs least memory (docs/out-of-memory.md)."""
    import pyarrow.parquet as pq

    from diagnostics.statistics.streaming.chunks import NUMBERS
    from diagnostics.statistics.streaming.read import PLACES, READ_BUFFER

    def work() -> list[float]:
        file = pq.ParquetFile(
            path, read_dictionary=list(PLACES), pre_buffer=False, buffer_size=READ_BUFFER
        )
        columns = [*PLACES[1:], "position", *NUMBERS]
        for group in range(file.num_row_groups):
            for _ in file.iter_batches(
                2**18, row_groups=[group], columns=columns, use_threads=False
            ):
                pass
        return []

    return work


def everything(path: str, cuts: Cuts) -> Answer:
    """All statistics of the stream."""
    from diagnostics.statistics.streaming import (
        keys_compiled,  # noqa: F401
        ranks_compiled,  # noqa: F401  (its machine code)
    )
    from diagnostics.statistics.streaming.stream import stream_statistics

    def work() -> list[float]:
        stream_statistics([Path(path)])
        return []

    return work


def products(path: str, cuts: Cuts) -> Answer:
    """Ours: one pass for the products alone."""
    import numpy as np

    from diagnostics.statistics.streaming import sums_compiled as compiled
    from diagnostics.statistics.streaming.read import read_chunks
    from diagnostics.statistics.streaming.scale import Scale
    from diagnostics.statistics.streaming.steps import prompt_products

    low, high = ({name: cuts[name][at] for name in NAMES} for at in (0, 1))
    scale = Scale(low=low, high=high, middle=low, outcome=(0.0, 0.0))
    centre, ends = np.zeros(WIDTH), np.array([[np.inf] * 8, [-np.inf] * 8])
    numbers = (*NAMES, "gain", "gain_rel", "relative_position")

    def work() -> list[float]:
        blocks = []
        for _, chunk in read_chunks([Path(path)], numbers=numbers, ahead=True):
            outcomes = np.stack([chunk["gain"], chunk["gain_rel"]])
            rows = np.empty((len(chunk), WIDTH))
            signals = scale.stretched(chunk)
            compiled.predictor_rows(
                signals, chunk["relative_position"], outcomes, centre, rows, ends
            )
            blocks.append(prompt_products(rows, chunk.ends()))
        return [float(total) for total in np.concatenate(blocks).sum(axis=0)]

    return work


def duckdb(path: str, cuts: Cuts) -> Answer:
    """One query."""
    import duckdb as library

    def norm(name: str) -> str:
        low, high = cuts[name]
        return f"least(greatest(({name} - {low!r}) / {high - low + 1e-12!r}, 0.0), 1.0)"

    h, d, c, t = (norm(name) for name in NAMES)
    columns = ["1.0", "h", "r", "t", "d", "h * d", "c", "d * c", "d - d * c", "g", "q"]
    sums = [f"sum(({a}) * ({b}))" for i, a in enumerate(columns) for b in columns[i:]]
    query = (
        f"select prompt_id, {', '.join(sums)} from (select prompt_id, {h} h, {d} d, {c} c, {t} t, "
        f"relative_position r, gain g, gain_rel q from '{path}') group by prompt_id"
    )

    def work() -> list[float]:
        connection = library.connect()
        connection.execute(f"set threads={os.cpu_count()}")
        found = connection.execute(query).fetchnumpy()
        return [float(values.sum()) for name, values in found.items() if name != "prompt_id"]

    return work


def polars(path: str, cuts: Cuts) -> Answer:
    """One lazy query."""
    import polars as pl

    def norm(name: str, short: str) -> pl.Expr:
        low, high = cuts[name]
        return ((pl.col(name) - low) / (high - low + 1e-12)).clip(0.0, 1.0).alias(short)

    h, d, c = (pl.col(name) for name in "hdc")
    rest = [pl.col(name) for name in ("relative_position", "t", "gain", "gain_rel")]
    columns = [pl.lit(1.0), h, rest[0], rest[1], d, h * d, c, d * c, d - d * c, rest[2], rest[3]]
    sums = [
        (a * b).sum().alias(f"s{i}_{j}") if i or j else pl.len().cast(pl.Float64).alias("s0_0")
        for i, a in enumerate(columns)
        for j, b in enumerate(columns)
        if j >= i
    ]

    def work() -> list[float]:
        frame = pl.scan_parquet(path).with_columns(
            *(norm(name, short) for name, short in zip(NAMES, "hdct", strict=True))
        )
        found = frame.group_by("prompt_id").agg(sums).collect(engine="streaming")
        return [float(found[name].sum()) for name in found.columns if name != "prompt_id"]

    return work


def pandas(path: str, cuts: Cuts) -> Answer:
    """All rows in memory, a column of products at a time."""
    import pandas as pd

    def work() -> list[float]:
        wanted = ["prompt_id", *NAMES, "relative_position", "gain", "gain_rel"]
        frame = pd.read_parquet(path, columns=wanted)
        groups = pd.Categorical(frame.pop("prompt_id"))
        h, d, c, t = (
            ((frame[n] - cuts[n][0]) / (cuts[n][1] - cuts[n][0] + 1e-12)).clip(0.0, 1.0)
            for n in NAMES
        )
        one = pd.Series(1.0, index=frame.index)
        columns = [one, h, frame["relative_position"], t, d, h * d, c, d * c, d - d * c]
        columns += [frame["gain"], frame["gain_rel"]]
        return [
            float((a * b).groupby(groups, observed=True).sum().sum())
            for i, a in enumerate(columns)
            for b in columns[i:]
        ]

    return work


OURS = {"decode": decode, "all": everything, "products": products}
OTHERS = {"duckdb": duckdb, "polars": polars, "pandas": pandas}

# --- taking turns ---------------------------------------------------------------------------------


def child(name: str, small: str, path: str, cuts: Cuts) -> None:
    """Runs one peer on a small file, then on the file, in this process; prints what that took."""
    (OURS | OTHERS)[name](small, cuts)()  # machine code, plans and threads are there from now on
    work = (OURS | OTHERS)[name](path, cuts)
    cpu, wall = time.process_time(), time.perf_counter()
    totals = work()
    took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps({**took, "peak": peak(), "totals": totals}))


def peak() -> float:
    """Peak resident memory of this process, MB (Linux; what getrusage says is the parent's too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3


def run(python: str, name: str, small: Path, path: Path, cuts: Cuts) -> dict[str, object]:
    """Runs one peer in a process of its own."""
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [python, __file__, "--child", name, str(small), str(path), json.dumps(cuts)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def installed(python: str, name: str) -> bool:
    """Whether a peer's library can be imported."""
    done = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
    return done.returncode == 0


def compare(small: Path, path: Path, rounds: int, peers: str) -> None:
    """Prints the table of all peers."""
    cuts = signal_cuts(path)
    pythons = dict.fromkeys(OURS, sys.executable)
    pythons |= {name: peers for name in OTHERS if installed(peers, name)}
    for name in OTHERS.keys() - pythons.keys():
        print(f"(left out, not installed: {name})")
    found: dict[str, list[dict]] = {name: [] for name in pythons}
    for count in range(rounds + 1):
        for name, python in pythons.items():
            took = run(python, name, small, path, cuts)
            if count:
                found[name].append(took)
    reference = found["products"][0]["totals"]
    for name, rows in found.items():
        for mine, theirs in zip(reference, rows[0]["totals"] or reference, strict=True):
            assert abs(mine - theirs) <= AGREEMENT * max(1.0, abs(mine)), f"{name} is off"
    show(found)


def show(found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """One row a peer: medians, and medians of ratios within a round."""
    print("| peer | CPU s | wall s | CPU / decode | wall / decode | CPU / products | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in found.items():
        cells = [median(row["cpu"] for row in rows), median(row["wall"] for row in rows)]
        for kind, of in (("cpu", "decode"), ("wall", "decode"), ("cpu", "products")):
            cells.append(median(a[kind] / b[kind] for a, b in zip(rows, found[of], strict=True)))
        most = max(row["peak"] for row in rows)
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + f" | {most:.0f} |")


def memory(small: Path, folder: Path, lengths: Sequence[int]) -> None:
    """Prints time and peak of ours at several lengths."""
    from streaming_data import write_tokens

    print("| rows | file MB | CPU s | wall s | peak MB |")
    print("|---|---|---|---|---|")
    for rows in lengths:
        path = folder / f"{rows}.parquet"
        if not path.exists():
            write_tokens(path, rows)
        took = run(sys.executable, "all", small, path, {})
        size = path.stat().st_size / 1e6
        print(
            f"| {rows:.0e} | {size:.0f} | {took['cpu']:.1f} | {took['wall']:.1f} "
            f"| {took['peak']:.0f} |",
            flush=True,
        )
        path.unlink()


def signal_cuts(path: Path) -> dict[str, list[float]]:
    """The 5 and 95 % quantiles that the peers are given."""
    from diagnostics.statistics.streaming.quantiles import stream_quantiles
    from diagnostics.statistics.streaming.read import read_chunks

    def read() -> Iterator[dict]:
        for _, chunk in read_chunks([path], numbers=NAMES):
            yield {name: chunk[name] for name in NAMES}

    found = stream_quantiles(read, dict.fromkeys(NAMES, (0.05, 0.95)))
    return {name: values.tolist() for name, values in found.items()}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=sys.executable, help="a Python that has the peers")
    parser.add_argument("--memory", action="store_true", help="ours alone, 1e6 to --rows rows")
    parser.add_argument("--folder", type=Path, help="where files are written, and kept by name")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child[:3], json.loads(given.child[3]))
        return
    from streaming_data import write_tokens

    with tempfile.TemporaryDirectory() as temporary:
        folder, small = given.folder or Path(temporary), Path(temporary) / "small.parquet"
        write_tokens(small, SMALL)
        if given.memory:
            lengths = [10**n for n in range(6, 10) if 10**n <= given.rows]
            memory(small, folder, lengths)
            return
        path = folder / f"{given.rows:.0f}.parquet"
        if not path.exists():
            write_tokens(path, int(given.rows))
        compare(small, path, given.rounds, given.peers)


if __name__ == "__main__":
    main()
