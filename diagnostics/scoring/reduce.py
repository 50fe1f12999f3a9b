"""One online pass over vocabulary tiles: all that is stored of a teacher and a student.

For each position of a chunk the state carries, for each model, the largest logit m so far, the
other model's logit l at that token, and, over the tokens so far,

    Z = sum e,  A = sum e z,  B = sum e (z - y),   z = logit - m,  y = other logit - l,  e = exp z,

with z, y and e in float32, added in float32 in short partial sums and these in float64. When m
rises the sums are corrected in float64 (online softmax: Milakov and Gimelshein, 2018,
arXiv:1805.02867), so that no tile is read twice and no probability is ever stored. At the end

    log sum exp = m + log Z,   H = log Z - A / Z,
    KL(p || q) = B_p / Z_p + (m_q - l_p) - log Z_p + log Z_q.

Taking l off, not the other model's own maximum, makes the terms of B small where p has its mass, so
that float32 does not limit a large KL.

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
TILE = 2048  # ids of the vocabulary whose logits exist at one time

ROUNDING = 1e-6  # a divergence this little below 0 is rounding, and is 0; further below, a fault
_PIECE = 64  # plain: ids that are looked through when one of them enters the top k
_CPU_TERMS = 2**16  # plain: terms of rows that stay in the second-level cache together
_THREAD_ROWS = 16  # compiled: rows for which a thread is worth starting
_LEAST = -87.0  # exponents of weights stop here, as in the compiled kernel
_LEAST_FACTOR = 1e-300  # what a sum is multiplied by at least, so that inf and NaN stay


@dataclass(slots=True, kw_only=True)
class PairSums:
    """State of a chunk between tiles; `add_tile` changes it in place.

    Fields: `kernel` that adds tiles; `seen` ids so far; `moments` (5, 2, pos) float64: m, l, Z, A
    and B in this order; the k largest so far (2, pos, k), largest first: `values` float32 logits,
    `ids` int32, `others` float32, the other model's logits at these ids.
    """

    kernel: Literal["compiled", "plain"]
    seen: int
    moments: Tensor
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

    Raises ValueError for no positions or a k below 1, InputError for a kernel that cannot run here.
    """
    if positions < 1 or k < 1:
        raise ValueError(f"expected at least 1 position and k of 1, got {positions} and {k}")
    moments = torch.zeros(5, 2, positions, dtype=torch.float64, device=device)
    moments[0] = -torch.inf
    lists = (2, positions, k)
    return PairSums(
        kernel=resolve_kernel(kernel, device),
        seen=0,
        moments=moments,
        values=torch.full(lists, -torch.inf, device=device),
        ids=torch.zeros(lists, dtype=torch.int32, device=device),
        others=torch.full(lists, -torch.inf, device=device),
    )


def add_tile(sums: PairSums, teacher: Tensor, student: Tensor, first: int) -> None:
    """Adds logits (pos, width) float32 of ids first to first + width - 1; tiles stay unchanged.

    Tiles come in ascending order without gaps. Results do not depend on the number of threads
    (`torch.get_num_threads()`). Raises ValueError for another order, shape or dtype.
    """
    positions = sums.moments.shape[2]
    if first != sums.seen:
        raise ValueError(f"expected a tile that begins with id {sums.seen}, got {first}")
    shape = (positions, max(1, teacher.shape[1]))
    for tile in (teacher, student):
        if tile.shape != shape or tile.dtype != torch.float32:
            raise ValueError(
                f"expected float32 logits {shape}, got {tile.dtype} {tuple(tile.shape)}"
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
    maximum, level, total, inner, cross = sums.moments
    log_z = torch.where(maximum > -torch.inf, total.log(), torch.nan)
    log_total = maximum + log_z
    entropy = log_z - inner / total
    kl = cross / total + (maximum.flip(0) - level) - log_z + log_z.flip(0)
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
            sums.moments.numpy(),
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
    """The same with torch: top k and maxima of the whole tile, sums by rows that stay in cache."""
    _insert(sums, 0, teacher, student)
    _insert(sums, 1, student, teacher)
    _raise_maxima(sums)
    maximum, level = sums.moments[:2].float()[..., None]
    maximum = torch.where(maximum == -torch.inf, 0.0, maximum)
    on_cpu = teacher.device.type == "cpu"
    rows = max(1, _CPU_TERMS // teacher.shape[1]) if on_cpu else len(teacher)
    for start in range(0, len(teacher), rows):
        part = slice(start, start + rows)
        found = _tile_sums(teacher[part], student[part], maximum[:, part], level[:, part])
        sums.moments[2:, :, part] += found.double()


def _tile_sums(teacher: Tensor, student: Tensor, maximum: Tensor, level: Tensor) -> Tensor:
    """Z, A and B (3, 2, rows) float32 of rows of a tile; `maximum` and `level` are (2, rows, 1)."""
    t, s = teacher - maximum[0], student - maximum[1]
    t_cross, s_cross = t - (student - level[0]), s - (teacher - level[1])
    found = _weighted(t, s, t_cross, s_cross)
    bad = ~found.isfinite().all(dim=0).all(dim=0)
    if bad.any():  # some logit is not finite: again, with care
        t, s = t[bad], s[bad]
        found[..., bad] = _weighted(
            t.clamp(min=_LEAST),
            s.clamp(min=_LEAST),
            t_cross[bad].masked_fill(t == -torch.inf, 0.0),
            s_cross[bad].masked_fill(s == -torch.inf, 0.0),
        )
    return found


def _weighted(t: Tensor, s: Tensor, t_cross: Tensor, s_cross: Tensor) -> Tensor:
    """Sums (3, 2, rows) of exp t, exp s and what they weigh; torch adds float32 in a tree."""
    weights = (t.exp(), s.exp())
    terms = [
        *weights,
        weights[0] * t,
        weights[1] * s,
        weights[0] * t_cross,
        weights[1] * s_cross,
    ]
    return torch.stack([term.sum(dim=1) for term in terms]).view(3, 2, -1)


def _raise_maxima(sums: PairSums) -> None:
    """Raises the maxima to the first of the top k where that is larger; keeps the sums exact."""
    maximum, level, total, inner, cross = sums.moments
    top, other = sums.values[..., 0].double(), sums.others[..., 0].double()
    rises = top > maximum
    shift = torch.where(rises & (maximum > -torch.inf), top - maximum, 0.0)
    step = torch.where(rises & other.isfinite(), other - level, 0.0)
    factor = (-shift).exp().clamp(min=_LEAST_FACTOR)
    cross.copy_(torch.where(rises, factor * (cross + (step - shift) * total), cross))
    inner.copy_(torch.where(rises, factor * (inner - shift * total), inner))
    total.mul_(factor)
    level.add_(step)
    maximum.copy_(torch.where(rises, top, maximum))


def _pieces(tile: Tensor) -> Tensor:
    """A tile (pos, width) as (pos, pieces, ids)."""
    width = tile.shape[1]
    return tile.reshape(len(tile), -1, _PIECE if width % _PIECE == 0 else width)


def _insert(sums: PairSums, model: int, tile: Tensor, other: Tensor) -> None:
    """Puts a tile's members of the top k into the sorted lists of a model.

    Tokens equal to the last member are looked at too; a stable sort keeps lower ids before them.
    """
    pieces = _pieces(tile)
    values, ids, others = sums.values[model], sums.ids[model], sums.others[model]
    had = min(sums.seen, values.shape[1])
    size = min(sums.seen + tile.shape[1], values.shape[1])
    if had == size:
        least = values[:, -1:]
    else:
        least = torch.cat([values[:, :had], tile], dim=1).topk(size, dim=1).values[:, -1:]
    row, piece = (pieces.amax(dim=2) >= least).nonzero(as_tuple=True)
    hit, place = (pieces[row, piece] >= least[row]).nonzero(as_tuple=True)
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
