"""What is summed in a draw whose norms, quadrants and cuts are those of the draw itself.

A draw's population is a multiset of rows, so its quantiles are weighted ones. Each signal is sorted
once, in the full sample; counts of its rank bins per prompt times the draw's counts tell the bin of
a quantile, and only that bin is looked through. Under the cuts so found, the rows of the prompts
drawn are normalised and their cross-products added; the same again over Q3, whose proxy then gets
its own cuts. The loops are in machine code (`redraw_compiled`) where numba is installed. `plain`
repeats rows and needs numpy alone: the other's reference. Not covered: numbers from these sums.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.statistics.analyses.gaps import TERTILES
from diagnostics.statistics.analyses.regression import PREDICTORS
from diagnostics.statistics.inference.clusters import Clusters
from diagnostics.statistics.inference.estimators import Floats
from diagnostics.statistics.tables.normalize import EPSILON, HIGH, LOW, Epsilon
from diagnostics.statistics.tables.tokens import NORMALIZED, SPLIT, derived

Ints = NDArray[np.int64]
Fill = Callable[[slice], None]

SIGNALS = (*NORMALIZED, "kl_0")
COLUMNS = (*SIGNALS, "relative_position")  # and the outcome behind them
CUTS = (
    *((name, level) for name in NORMALIZED for level in (LOW, HIGH)),
    *((n, 0.5) for n in SPLIT),
)
NO_LIMITS = (np.inf, -np.inf)  # medians under which every row is in Q3
BINS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sums of draws.

    Fields: `everywhere` and `inside` (draws, m), the upper triangles of cross-products of
    [1, `regression.PREDICTORS`, outcome] over the bank and over Q3, predictors not z-scored and the
    outcome less its full-sample mean; `gap` (draws, 4), sum and count of the outcome on the proxy's
    high side in Q3, then on its low side, all 0 where Q3 is empty or its proxy constant.
    """

    everywhere: Floats
    inside: Floats
    gap: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The full sample, sorted once.

    Fields: `columns` (7, pos), `COLUMNS` and the outcome, in order of cluster; `proxy` (pos,);
    `owner` (pos,) cluster of each row; `clusters` how many; `values` (5, pos) `SIGNALS`, each
    ascending, and `owners` (5, pos) beside them; `binned` (clusters, 5 * bins) how many of a
    cluster's rows are in each bin of `size` rows in that order; `epsilon` of the norm.
    """

    columns: Floats
    proxy: Floats
    owner: Ints
    clusters: int
    values: Floats
    owners: Ints
    binned: Floats
    size: int
    epsilon: Epsilon


def prepare(
    frame: pd.DataFrame, clusters: Clusters, proxy: str, outcome: str, epsilon: Epsilon = "always"
) -> Sample:
    """Sorts a token table's rows by cluster, and its signals by value. They are finite."""
    order = np.argsort(clusters.of_row, kind="stable")
    owner = clusters.of_row[order]
    names = (*COLUMNS, outcome)
    columns = np.stack([frame[name].to_numpy(dtype=np.float64)[order] for name in names])
    columns[-1] -= columns[-1].mean()
    rank = np.argsort(columns[: len(SIGNALS)], axis=1, kind="stable")
    owners, size = owner[rank], -(-len(owner) // BINS)
    place = np.arange(len(owner)) // size
    binned = [np.bincount(own * BINS + place, minlength=clusters.count * BINS) for own in owners]
    return Sample(
        columns=columns,
        proxy=frame[proxy].to_numpy(dtype=np.float64)[order],
        owner=owner,
        clusters=clusters.count,
        values=np.take_along_axis(columns[: len(SIGNALS)], rank, axis=1),
        owners=owners,
        binned=np.hstack([b.reshape(-1, BINS) for b in binned]).astype(np.float64),
        size=size,
        epsilon=epsilon,
    )


def sums(sample: Sample, counts: Floats, threads: int | None = None) -> Sums:
    """Sums of draws `counts` (draws, clusters), the same for any number of threads.

    `threads` are as many as numba knows of (NUMBA_NUM_THREADS, or the processors) where None.
    """
    if not find_spec("numba"):
        return plain(sample, counts)
    if threads is None:
        from numba import config

        threads = int(config.NUMBA_NUM_THREADS)
    counts = np.array(counts, order="C")  # writeable, so that the loops are compiled once
    cuts = draw_cuts(sample, counts, threads)
    limits = cuts[:, -2:]
    open_cuts = np.hstack([cuts[:, :-2], np.tile(NO_LIMITS, (len(cuts), 1))])
    signals = dict(zip(SIGNALS, sample.columns, strict=False))
    near = (signals["entropy"] <= limits[:, 0].max()) & (signals["kl_0"] >= limits[:, 1].min())
    return Sums(
        everywhere=_products(sample, np.ones_like(near), counts, open_cuts, threads),
        inside=_products(sample, near, counts, cuts, threads),
        gap=_gaps(sample, near, counts, cuts, threads),
    )


def plain(sample: Sample, counts: Floats) -> Sums:
    """The same as `sums` from the rows of each draw, repeated as often as they were drawn."""
    draws = []
    for times in counts.astype(np.int64):
        rows = np.repeat(np.arange(len(sample.owner)), times[sample.owner])
        table: dict[str, Floats] = dict(zip(COLUMNS, sample.columns[:, rows], strict=False))
        table |= derived(table, sample.epsilon)
        table["product"] = table["entropy_norm"] * table["disagreement_norm"]
        outcome, inside = sample.columns[-1, rows], table["quadrant"] == 3
        whole = np.stack([np.ones(len(rows)), *(table[name] for name in PREDICTORS), outcome])
        gap = _plain_gap(sample.proxy[rows][inside], outcome[inside])
        draws.append((_triangle(whole), _triangle(whole[:, inside]), gap))
    everywhere, q3, gaps = (np.array(found) for found in zip(*draws, strict=True))
    return Sums(everywhere=everywhere, inside=q3, gap=gaps)


def _triangle(columns: Floats) -> Floats:
    """The upper triangle (m,) of products of columns (w, pos)."""
    return np.asarray((columns @ columns.T)[np.triu_indices(len(columns))])


def _plain_gap(proxy: Floats, outcome: Floats) -> Floats:
    """`Sums.gap` of one draw's Q3, (4,)."""
    if not len(proxy) or proxy.min() == proxy.max():
        return np.zeros(4)
    low, high = np.quantile(proxy, TERTILES)
    above, below = outcome[proxy >= high], outcome[proxy <= low]
    return np.array([above.sum(), len(above), below.sum(), len(below)])


def draw_cuts(sample: Sample, counts: Floats, threads: int) -> Floats:
    """Cuts of draws (draws, 10): Q05, Q95 of each of `NORMALIZED`; medians of entropy and kl_0."""
    from diagnostics.statistics.analyses.redraw_compiled import add_cuts

    bins = (counts @ sample.binned).reshape(len(counts), len(SIGNALS), BINS)
    out = np.empty((len(counts), len(CUTS)))

    def fill(part: slice) -> None:
        add_cuts(
            sample.values,
            sample.owners,
            counts[part],
            bins[part],
            sample.size,
            np.array([SIGNALS.index(name) for name, _ in CUTS]),
            np.array([level for _, level in CUTS]),
            out[part],
        )

    return _spread(fill, out, threads)


def _products(
    sample: Sample, rows: NDArray[np.bool_], counts: Floats, cuts: Floats, threads: int
) -> Floats:
    """Cross-products over those of `rows` (pos,) that lie in a draw's Q3, (draws, m)."""
    from diagnostics.statistics.analyses.redraw_compiled import WIDTH, add_sums

    columns = np.ascontiguousarray(sample.columns[:, rows])
    starts = np.searchsorted(sample.owner[rows], np.arange(sample.clusters + 1))
    out = np.zeros((len(counts), WIDTH * (WIDTH + 1) // 2))
    added = EPSILON if sample.epsilon == "always" else 0.0

    def fill(part: slice) -> None:
        add_sums(columns, starts, counts[part], cuts[part], added, out[part])

    return _spread(fill, out, threads)


def _gaps(
    sample: Sample, rows: NDArray[np.bool_], counts: Floats, cuts: Floats, threads: int
) -> Floats:
    """The sums of `Sums.gap` over those of `rows` (pos,) that lie in a draw's Q3."""
    from diagnostics.statistics.analyses.redraw_compiled import add_gaps

    chosen = np.flatnonzero(rows)
    chosen = chosen[np.argsort(sample.proxy[chosen], kind="stable")]
    proxy, owner = sample.proxy[chosen], sample.owner[chosen]
    columns = np.ascontiguousarray(sample.columns[:, chosen])
    out = np.zeros((len(counts), 4))

    def fill(part: slice) -> None:
        add_gaps(proxy, columns, owner, counts[part], cuts[part], np.array(TERTILES), out[part])

    return _spread(fill, out, threads)


def _spread(fill: Fill, out: Floats, threads: int) -> Floats:
    """Fills `out` (draws, ...), an equal share of the draws in each thread."""
    threads = max(1, min(threads, len(out)))
    bounds = [len(out) * i // threads for i in range(threads + 1)]
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]
    if threads == 1:
        fill(parts[0])
        return out
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, parts))
    return out
