"""What rescoring costs beside the ways people do it, and beside the products it cannot avoid.

Everything runs in one process: the peers of a part take turns, round after round, each timed by the
CPU time of one thread, so that another program on the machine slows all of them alike. Ratios are
medians over rounds of the ratio within a round. Before the clock starts the peers' numbers are
compared. Run: `python benchmarks/rescoring.py [--quick] [PART ...]`.

A part is a function that takes `quick` and yields tables. Here are the stages that come after the
bodies; parts that score a whole bank are in `whole.py`. Not covered: several threads, accelerators.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import torch
import whole
from measure import AGREEMENT, TOP_K, VOCABULARY, eager
from timing import Table, interleaved
from torch import Tensor

from diagnostics.models.heads import Head
from diagnostics.scoring import pairs
from diagnostics.scoring.reduce import CHUNK, TILE, Kernel, add_tile, finish, pair_sums

# --- the elementwise stage ------------------------------------------------------------------------


def online(
    tiles: Sequence[tuple[Tensor, Tensor]], positions: int, kernel: Kernel
) -> Mapping[str, Tensor]:
    """The same numbers from tiles (pos, width) of both models, in one pass."""
    sums = pair_sums(positions, TOP_K, "cpu", kernel)
    for teacher, student in tiles:
        add_tile(sums, teacher, student, sums.seen)
    return finish(sums)


def elementwise(quick: bool) -> Iterator[Table]:
    """Everything after the logits: eager on whole rows, both kernels on tiles."""
    positions, vocabulary = (64, 32_768) if quick else (CHUNK, VOCABULARY)
    generator = torch.Generator().manual_seed(0)
    teacher = 3.0 * torch.randn(positions, vocabulary, generator=generator)
    student = teacher + torch.randn(positions, vocabulary, generator=generator)
    tiles = [
        (t.contiguous(), s.contiguous())
        for t, s in zip(teacher.split(TILE, dim=1), student.split(TILE, dim=1), strict=True)
    ]
    peers: dict[str, Callable[[], Mapping[str, Tensor]]] = {
        "eager": lambda: eager(teacher, student),
        "plain": lambda: online(tiles, positions, "plain"),
        "compiled": lambda: online(tiles, positions, "compiled"),
    }
    reference = peers["eager"]()
    for name, work in peers.items():
        for column, truth in reference.items():
            off = float((work()[column] - truth).abs().max())
            assert off <= AGREEMENT, f"{name} is off by {off:.1e} nats in {column}"
    yield Table(
        title=f"Elementwise stage, {positions} positions, vocabulary {vocabulary}, k = {TOP_K}",
        positions=positions,
        of="eager",
        seconds=interleaved(peers, 2 if quick else 5),
    )


# --- the head stage -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Hidden states (pos, hidden) of both models and one head (vocab, hidden) that serves both."""

    teacher: Tensor
    student: Tensor
    weight: Tensor


def random_heads(positions: int, hidden: int, vocabulary: int) -> Heads:
    """Values that bfloat16 can hold, in float32, so that logits have a spread of about 3 nats."""
    generator = torch.Generator().manual_seed(1)

    def made(rows: int, scale: float) -> Tensor:
        values = torch.randn(rows, hidden, generator=generator)
        return values.mul_(scale).bfloat16().float()

    teacher = made(positions, 1.0)
    return Heads(
        teacher=teacher,
        student=teacher + made(positions, 0.3),
        weight=made(vocabulary, 3.0 / hidden**0.5),
    )


def head_stage(heads: Heads, kernel: Kernel | None) -> None:
    """Products of a chunk, tile by tile; each tile is added unless `kernel` is None."""
    rows = len(heads.teacher)
    buffers = torch.empty(2, rows, TILE)
    sums = pair_sums(rows, TOP_K, "cpu", kernel or "auto")
    for first in range(0, len(heads.weight), TILE):
        piece = heads.weight[first : first + TILE]
        out = buffers.view(-1)[: 2 * rows * len(piece)].view(2, rows, len(piece))
        torch.mm(heads.teacher, piece.T, out=out[0])
        torch.mm(heads.student, piece.T, out=out[1])
        if kernel:
            add_tile(sums, out[0], out[1], first)
    if kernel:
        finish(sums)


def head(quick: bool) -> Iterator[Table]:
    """Products of both heads alone, and with everything that is made of them."""
    vocabulary = 16_384 if quick else VOCABULARY
    for hidden in (2048, 2560):
        heads = random_heads(CHUNK, hidden, vocabulary)
        peers = {
            "products alone": lambda heads=heads: head_stage(heads, None),
            "with the compiled kernel": lambda heads=heads: head_stage(heads, "compiled"),
            "with the plain kernel": lambda heads=heads: head_stage(heads, "plain"),
        }
        yield Table(
            title=f"Head stage, hidden {hidden}, {CHUNK} positions, vocabulary {vocabulary}",
            positions=CHUNK,
            of="products alone",
            seconds=interleaved(peers, 1 if quick else 3),
        )


def tiles(quick: bool) -> Iterator[Table]:
    """Sizes of chunk and tile, in `pairs.compare` with heads held in bfloat16."""
    positions, vocabulary, hidden = 1024, 16_384, 128 if quick else 2048
    heads = random_heads(positions, hidden, vocabulary)
    head = Head(weight=heads.weight.bfloat16())
    sides = [pairs.Side(states=states, head=head) for states in (heads.teacher, heads.student)]

    def compared(chunk: int, tile: int) -> None:
        with patch.multiple(pairs, CHUNK=chunk, TILE=tile):
            pairs.compare(sides[0], sides[1], vocabulary, TOP_K, "compiled")

    peers = {
        f"{chunk} x {tile}": lambda chunk=chunk, tile=tile: compared(chunk, tile)
        for chunk in (128, 256, 512)
        for tile in (1024, 2048, 4096, 8192)
    }
    yield Table(
        title=f"Positions x ids of a tile, hidden {hidden}, vocabulary {vocabulary}",
        positions=positions,
        of=f"{CHUNK} x {TILE}",
        seconds=interleaved(peers, 1 if quick else 3),
    )


PARTS = {"elementwise": elementwise, "head": head, "tiles": tiles, **whole.PARTS}


def main() -> None:
    """Runs the parts named on the command line, or all, and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"expected parts among {', '.join(PARTS)}, got {', '.join(unknown)}")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for name in options.parts or PARTS:
        for table in PARTS[name](options.quick):
            print(table.markdown(), flush=True)


if __name__ == "__main__":
    main()
