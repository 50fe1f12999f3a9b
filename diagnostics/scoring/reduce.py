"""One online pass over vocabulary tiles: all that is stored of a teacher and a student.

For each position of a chunk the state carries, for both models, the largest logit m so far and

    Z = sum e,  A = sum e z,  B = sum e (z - z_other),     z = logit - m,  e = exp z,

with z and e in float32, at most a tile's terms a float32 partial sum, and the sums in float64. When
m rises the sums are corrected in float64 (online softmax: Milakov and Gimelshein, 2018,
arXiv:1805.02867), so that no tile is read twice and no probability is ever stored. At the end

    log sum exp = m + log Z,   H = log Z - A / Z,   KL(p || q) = B_p / Z_p - log Z_p + log Z_q.

All information is in nats, at temperature 1. Axes: `pos` positions, `width` ids of a tile, `k`
support size; where a first axis has two entries they are the teacher and the student.

What is not finite: NaN or +inf among a model's logits gives NaN in all numbers that need them. A
token with logit -inf has no mass and adds nothing; KL is inf where the first model has mass and the
second has logit -inf. A model without any finite logit gives NaN. Ids of such rows stay within the
vocabulary and mean nothing else.

Two kernels do the same: `compiled` (`reduce_compiled.py`, on the CPU) and `plain` (torch, on any
device; the other's reference). Not covered: the matrix products that make the tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from diagnostics.errors import InputError

Kernel = Literal["auto", "compiled", "plain"]

CHUNK = 256  # positions whose logits exist at one time
TILE = 4096  # ids of the vocabulary whose logits exist at one time

ROUNDING = 1e-6  # a divergence this little below 0 is rounding, and is 0; further below, a fault
_PIECE = 64  # plain: ids that are looked through when one of them enters the top k
_CPU_ROWS = 16  # plain: rows whose terms stay in the second-level cache
_THREAD_ROWS = 16  # compiled: rows for which a thread is worth starting
_LEAST = -87.0  # exponents of weights stop here, as in the compiled kernel
_LEAST_FACTOR = 1e-300  # what a sum is multiplied by at least, so that inf and NaN stay


@dataclass(slots=True, kw_only=True)
class PairSums:
    """State of a chunk between tiles; `add_tile` changes it in place.

    Fields: `kernel` that adds tiles; `seen` ids so far; `maximum`, `total` (Z), `inner` (A),
    `cross` (B) (2, pos) float64; the k largest so far (2, pos, k), largest first: `values` float32
    logits, `ids` int32, `others` float32, the other model's logits at these ids.
    """

    kernel: Literal["compiled", "plain"]
    seen: int
    maximum: Tensor
    total: Tensor
    inner: Tensor
    cross: Tensor
    values: Tensor
    ids: Tensor
    others: Tensor


def check_kernel(word: str) -> Kernel:
    """A kernel's name as the user wrote it. Raises InputError for another."""
    for known in get_args(Kernel):
        if word == known:
            kernel: Kernel = known
            return kernel
    raise InputError(
        where="--kernel",
        expected=", ".join(get_args(Kernel)),
        got=repr(word),
        fix="choose one of them",
    )


def resolve_kernel(kernel: Kernel, device: str | torch.device) -> Literal["compiled", "plain"]:
    """`auto` as `compiled` on the CPU where numba is installed, else `plain`.

    Raises InputError for `compiled` on another device or without numba.
    """
    if kernel == "plain":
        return "plain"
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and find_spec("numba"):
        return "compiled"
    if kernel == "auto":
        return "plain"
    raise InputError(
        where="--kernel",
        expected="numba and a device `cpu` for `compiled`",
        got="no numba" if on_cpu else f"device `{device}`",
        fix="pip install numba" if on_cpu else "use the kernel `auto`",
    )


def pair_sums(
    positions: int, k: int, device: str | torch.device, kernel: Kernel = "auto"
) -> PairSums:
    """The state of a chunk before its first tile.

    Raises ValueError for a k below 1, InputError for a kernel that cannot run here.
    """
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}")

    def filled(value: float) -> Tensor:
        return torch.full((2, positions), value, dtype=torch.float64, device=device)

    lists = (2, positions, k)
    return PairSums(
        kernel=resolve_kernel(kernel, device),
        seen=0,
        maximum=filled(-torch.inf),
        total=filled(0.0),
        inner=filled(0.0),
        cross=filled(0.0),
        values=torch.full(lists, -torch.inf, device=device),
        ids=torch.zeros(lists, dtype=torch.int32, device=device),
        others=torch.full(lists, -torch.inf, device=device),
    )


def add_tile(sums: PairSums, teacher: Tensor, student: Tensor, first: int) -> None:
    """Adds logits (pos, width) float32 of ids first to first + width - 1; tiles stay unchanged.

    Tiles come in ascending order without gaps. Results do not depend on the number of threads
    (`torch.get_num_threads()`). Raises ValueError for another order, shape or dtype.
    """
    positions = sums.maximum.shape[1]
    if first != sums.seen:
        raise ValueError(f"expected a tile that begins with id {sums.seen}, got {first}")
    for tile in (teacher, student):
        if tile.shape != (positions, teacher.shape[1]) or tile.dtype != torch.float32:
            raise ValueError(
                f"expected float32 logits {(positions, teacher.shape[1])}, "
                f"got {tile.dtype} {tuple(tile.shape)}"
            )
    with torch.no_grad():
        add = _add_compiled if sums.kernel == "compiled" else _add_plain
        add(sums, teacher, student)
    sums.seen += teacher.shape[1]


def finish(sums: PairSums) -> Mapping[str, Tensor]:
    """What is stored of a (teacher, student) pair at each position, after the last tile.

    Returns, (pos,) float64, nats: `kl` KL(p_T || p), `reverse_kl` KL(p || p_T),
    `teacher_entropy`, `entropy`, `teacher_log_total` and `log_total`, log sum exp of the logits;
    (pos, k) int32: `teacher_ids`, `top_ids`, the most probable tokens, largest first, equal ones by
    lower id; (pos, k) float32, log-probabilities: `teacher_top_logprob` and `logprob_at_teacher`,
    the teacher's and the student's at `teacher_ids`; `top_logprob` and `teacher_logprob`, the
    student's and the teacher's at `top_ids`.
    Raises ValueError when k is larger than the vocabulary was.
    """
    k = sums.values.shape[2]
    if k > sums.seen:
        raise ValueError(f"expected k from 1 to {sums.seen}, got {k}")
    log_z = torch.where(sums.maximum > -torch.inf, sums.total.log(), torch.nan)
    log_total = sums.maximum + log_z
    entropy = log_z - sums.inner / sums.total
    kl = sums.cross / sums.total - log_z + log_z.flip(0)
    kl = kl.masked_fill((kl < 0) & (kl > -ROUNDING), 0.0)
    at_own = (sums.values.double() - log_total[:, :, None]).float()
    at_other = (sums.others.double() - log_total.flip(0)[:, :, None]).float()
    return {
        "teacher_entropy": entropy[0],
        "kl": kl[0],
        "reverse_kl": kl[1],
        "entropy": entropy[1],
        "teacher_log_total": log_total[0],
        "log_total": log_total[1],
        "teacher_ids": sums.ids[0],
        "top_ids": sums.ids[1],
        "teacher_top_logprob": at_own[0],
        "top_logprob": at_own[1],
        "teacher_logprob": at_other[1],
        "logprob_at_teacher": at_other[0],
    }


def _add_compiled(sums: PairSums, teacher: Tensor, student: Tensor) -> None:
    """Spreads the rows over threads; each row is one thread's alone."""
    from diagnostics.scoring import reduce_compiled

    t, s = teacher.contiguous().numpy(), student.contiguous().numpy()

    def add(rows: tuple[int, int]) -> None:
        reduce_compiled.add_rows(
            rows,
            t,
            s,
            sums.seen,
            sums.maximum.numpy(),
            sums.total.numpy(),
            sums.inner.numpy(),
            sums.cross.numpy(),
            sums.values.numpy(),
            sums.ids.numpy(),
            sums.others.numpy(),
        )

    positions = len(teacher)
    threads = max(1, min(torch.get_num_threads(), positions // _THREAD_ROWS))
    bounds = [positions * i // threads for i in range(threads + 1)]
    shares = list(pairwise(bounds))
    if threads == 1:
        add(shares[0])
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(add, shares))


def _add_plain(sums: PairSums, teacher: Tensor, student: Tensor) -> None:
    """The same with torch: maxima and top k of the whole tile, sums by rows that stay in cache."""
    best = [_pieces(tile).amax(dim=2) for tile in (teacher, student)]
    _raise_maxima(sums, torch.stack([pieces.amax(dim=1) for pieces in best]).double())
    _insert(sums, 0, teacher, student, best[0])
    _insert(sums, 1, student, teacher, best[1])
    shift = torch.where(sums.maximum == -torch.inf, 0.0, sums.maximum).float()[:, :, None]
    rows = _CPU_ROWS if teacher.device.type == "cpu" else max(1, len(teacher))
    for start in range(0, len(teacher), rows):
        part = slice(start, start + rows)
        found = _tile_sums(teacher[part], student[part], shift[0, part], shift[1, part]).double()
        sums.total[:, part] += found[0:2]
        sums.inner[:, part] += found[2:4]
        sums.cross[:, part] += found[4:6]


def _tile_sums(teacher: Tensor, student: Tensor, t_max: Tensor, s_max: Tensor) -> Tensor:
    """Z, A and B of both models over rows of a tile, (6, rows) float32."""
    t, s = teacher - t_max, student - s_max
    difference = t - s
    found = _weighted(t, s, difference, difference)
    bad = ~found.isfinite().all(dim=0)
    if bad.any():  # some logit is not finite: again, with care
        t, s, difference = t[bad], s[bad], difference[bad]
        found[:, bad] = _weighted(
            t.clamp(min=_LEAST),
            s.clamp(min=_LEAST),
            difference.masked_fill(t == -torch.inf, 0.0),
            difference.masked_fill(s == -torch.inf, 0.0),
        )
    return found


def _weighted(t: Tensor, s: Tensor, t_cross: Tensor, s_cross: Tensor) -> Tensor:
    """Sums (6, rows) of exp t and exp s, and of what they weigh. torch adds float32 in a tree."""
    t_weight, s_weight = t.exp(), s.exp()
    return torch.stack(
        [
            t_weight.sum(dim=1),
            s_weight.sum(dim=1),
            (t_weight * t).sum(dim=1),
            (s_weight * s).sum(dim=1),
            (t_weight * t_cross).sum(dim=1),
            -(s_weight * s_cross).sum(dim=1),
        ]
    )


def _raise_maxima(sums: PairSums, found: Tensor) -> None:
    """Raises the maxima to `found` (2, pos) float64 where that is larger; keeps sums exact."""
    old = sums.maximum
    sums.maximum = torch.maximum(old, found)  # NaN stays
    empty = old == -torch.inf
    shift = (sums.maximum - old).masked_fill(empty, 0.0).masked_fill(sums.maximum == old, 0.0)
    factor = (-shift).exp().clamp(min=_LEAST_FACTOR)
    factor = factor.masked_fill(empty & (sums.maximum > -torch.inf), _LEAST_FACTOR)
    moved = shift - shift.flip(0)  # of z - z_other
    sums.inner = factor * (sums.inner - torch.where(shift > 0, shift * sums.total, 0.0))
    sums.cross = factor * (sums.cross - torch.where(moved != 0, moved * sums.total, 0.0))
    sums.total = factor * sums.total


def _pieces(tile: Tensor) -> Tensor:
    """A tile (pos, width) as (pos, pieces, ids)."""
    width = tile.shape[1]
    return tile.reshape(len(tile), -1, _PIECE if width % _PIECE == 0 else width)


def _insert(sums: PairSums, model: int, tile: Tensor, other: Tensor, best: Tensor) -> None:
    """Puts a tile's members of the top k into the sorted lists of a model.

    `best` (pos, pieces) are the largest logits of `_pieces(tile)`. While the lists are not full,
    tokens equal to the last member count too; later the lower ids before them have the place.
    """
    values, ids, others = sums.values[model], sums.ids[model], sums.others[model]
    had = min(sums.seen, values.shape[1])
    size = min(sums.seen + tile.shape[1], values.shape[1])
    if had == size:
        reaches, least = torch.gt, values[:, -1:]
    else:
        both = torch.cat([values[:, :had], tile], dim=1)
        reaches, least = torch.ge, both.topk(size, dim=1).values[:, -1:]
    row, piece = reaches(best, least).nonzero(as_tuple=True)
    pieces = _pieces(tile)
    hit, place = reaches(pieces[row, piece], least[row]).nonzero(as_tuple=True)
    row, column = row[hit], piece[hit] * pieces.shape[2] + place
    counts = row.bincount(minlength=len(tile))
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    room = max(int(counts.max()), size - had)

    def joined(known: Tensor, new: Tensor, fill: float) -> Tensor:
        padded = known.new_full((len(tile), room), fill)
        padded[row, slot] = new
        return torch.cat([known[:, :had], padded], dim=1)

    merged = joined(values, tile[row, column], -torch.inf)
    order = merged.argsort(dim=1, descending=True, stable=True)[:, :size]
    values[:, :size] = merged.gather(1, order)
    ids[:, :size] = joined(ids, (column + sums.seen).int(), 0).gather(1, order)
    others[:, :size] = joined(others, other[row, column], -torch.inf).gather(1, order)
