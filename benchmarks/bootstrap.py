"""What 2,000 bootstrap draws of a regression cost beside the ways people take them.

57,600 positions of 300 prompts, 8 predictors that are z-scored anew in each draw, all coefficients
with percentile intervals. Peers take turns in one process, timed by CPU time with one thread;
ratios are medians over rounds. Slow peers take fewer draws, and their time is scaled to 2,000: the
title says how many. Before the clock starts every peer's draws are compared with the loop's.

    loop       resample prompts, concatenate rows, z-score, statsmodels OLS
    numpy      the same with arrays and numpy.linalg.lstsq
    scipy      scipy.stats.bootstrap over prompts, its statistic the numpy fit
    arch       arch's IIDBootstrap over prompts, the same fit (where it is installed)
    wild       pyfixest's wild cluster bootstrap of one coefficient: another bootstrap, compiled,
               and the fastest that a package has for clustered regressions (where installed)
    ours       from columns to intervals, everything included

Run: `OMP_NUM_THREADS=1 python benchmarks/bootstrap.py [--quick]`. Cut points redone: redraw.py.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pandas as pd
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats
from synthetic import synthetic_bank
from timing import Table, interleaved

from diagnostics.statistics.inference.bootstrap import (
    Bootstrap,
    Kind,
    draw_counts,
    draw_values,
    intervals,
)
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.least_squares import (
    Contrast,
    LeastSquares,
    cross_sums,
    standardized,
)

PREDICTORS = (
    "entropy_norm",
    "relative_position",
    "teacher_entropy_norm",
    "learnable",
    "incompatible",
    "compatibility_norm",
    "overlap",
    "product",
)
DRAWS = 2000
AGREEMENT = 1e-10
Floats = NDArray[np.float64]
Draw = Callable[[Floats], Floats]  # counts (clusters,) of one draw -> coefficients (q,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A bank as people hold it: `x` (pos, q), `y` (pos,), and the `rows` of each prompt."""

    frame: pd.DataFrame
    x: Floats
    y: Floats
    rows: list[NDArray[np.int64]]

    def drawn(self, counts: Floats) -> NDArray[np.int64]:
        """The rows of a draw, one prompt after the other."""
        chosen = np.repeat(np.arange(len(self.rows)), counts.astype(int))
        return np.concatenate([self.rows[c] for c in chosen])


def make_bank(prompts: int, positions: int) -> Bank:
    """Positions with heavy-tailed gains; one rollout a prompt."""
    rng = np.random.default_rng(0)
    frame = synthetic_bank(rng, prompts, 1, positions)
    frame["product"] = frame["entropy_norm"] * frame["disagreement_norm"]
    owner = prompt_clusters(frame).of_row
    return Bank(
        frame=frame,
        x=frame[list(PREDICTORS)].to_numpy(),
        y=frame["gain"].to_numpy(),
        rows=[np.flatnonzero(owner == c) for c in range(prompts)],
    )


def statsmodels_draw(bank: Bank, counts: Floats) -> Floats:
    """The loop that people write."""
    rows = bank.drawn(counts)
    x = bank.x[rows]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.asarray(sm.OLS(bank.y[rows], sm.add_constant(x)).fit().params[1:])


def numpy_draw(bank: Bank, counts: Floats) -> Floats:
    """The same without statsmodels."""
    rows = bank.drawn(counts)
    x = bank.x[rows]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    full = np.column_stack([np.ones(len(rows)), x])
    return np.linalg.lstsq(full, bank.y[rows], rcond=None)[0][1:]


def scipy_intervals(bank: Bank, draws: int) -> object:
    """scipy's bootstrap takes prompt numbers; its statistic fits their rows."""

    def statistic(prompts: NDArray[np.int64]) -> Floats:
        return numpy_draw(bank, np.bincount(prompts, minlength=len(bank.rows)).astype(float))

    prompts = (np.arange(len(bank.rows)),)
    return stats.bootstrap(
        prompts, statistic, n_resamples=draws, vectorized=False, method="percentile", rng=0
    )


def arch_intervals(bank: Bank, draws: int) -> object:
    """arch's bootstrap, the same way."""
    from arch.bootstrap import IIDBootstrap

    def statistic(prompts: NDArray[np.int64]) -> Floats:
        return numpy_draw(bank, np.bincount(prompts, minlength=len(bank.rows)).astype(float))

    return IIDBootstrap(np.arange(len(bank.rows)), seed=0).conf_int(
        statistic, reps=draws, method="percentile"
    )


def wild_pvalue(bank: Bank, draws: int) -> object:
    """pyfixest's wild cluster bootstrap of the coefficient of D^L."""
    import pyfixest

    table = pd.DataFrame(bank.x, columns=list(PREDICTORS)).assign(
        gain=bank.y, prompt=prompt_clusters(bank.frame).of_row
    )
    fitted = pyfixest.feols(f"gain ~ {' + '.join(PREDICTORS)}", table, vcov={"CRV1": "prompt"})
    return fitted.wildboottest(param="learnable", reps=draws, cluster="prompt", seed=0)


def ours(bank: Bank) -> LeastSquares:
    """From the frame's columns to an estimator of all coefficients, z-scored in each draw."""
    clusters = prompt_clusters(bank.frame)
    columns = [bank.frame[name].to_numpy() for name in (*PREDICTORS, "gain")]
    centred = [values - values.mean() for values in columns]
    sums = cross_sums(centred, clusters.of_row, clusters.count)
    return LeastSquares(
        predictors=PREDICTORS,
        sums=standardized(sums, PREDICTORS),
        models={"all": PREDICTORS},
        contrasts=tuple(Contrast(name=n, model="all", weights={n: 1.0}) for n in PREDICTORS),
        redo=True,
    )


def our_intervals(bank: Bank, draws: int, kind: Kind) -> object:
    """All coefficients with intervals, from nothing: draws are not kept from an earlier round."""
    draw_counts.cache_clear()
    return intervals(ours(bank), Bootstrap(draws=draws, kind=kind))


def agree(bank: Bank, draws: int = 5) -> float:
    """The largest relative difference of our draws and numpy's from statsmodels'."""
    counts = draw_counts(len(bank.rows), draws, 1)
    truth = np.array([statsmodels_draw(bank, row) for row in counts])
    plain = np.array([numpy_draw(bank, row) for row in counts])
    mine = draw_values(ours(bank), Bootstrap(counts=counts))
    worst = max(float((np.abs(x - truth) / np.abs(truth)).max()) for x in (plain, mine))
    assert worst < AGREEMENT, f"peers differ by {worst:.1e}"
    return worst


def tables(quick: bool) -> list[str]:
    """The tables as Markdown."""
    bank = make_bank(300, 192)
    few = 5 if quick else 40
    said = f"Largest relative difference from the loop's draws: {agree(bank):.1e}\n"
    counts = draw_counts(len(bank.rows), few, 0)
    peers: dict[str, Callable[[], object]] = {
        "loop": lambda: [statsmodels_draw(bank, row) for row in counts],
        "numpy": lambda: [numpy_draw(bank, row) for row in counts],
        "scipy": lambda: scipy_intervals(bank, few),
    }
    if find_spec("arch"):
        peers["arch"] = lambda: arch_intervals(bank, few)
    whole: dict[str, Callable[[], object]] = {}
    if find_spec("pyfixest"):
        whole["wild"] = lambda: wild_pvalue(bank, DRAWS)
    whole["ours"] = lambda: our_intervals(bank, DRAWS, "percentile")
    whole["ours, BCa, 10,000 draws"] = lambda: our_intervals(bank, 10_000, "bca")
    whole["ours, studentised"] = lambda: our_intervals(bank, DRAWS, "studentized")
    taken = interleaved(peers | whole, 2 if quick else 5)
    seconds = {n: [s * DRAWS / few for s in v] if n in peers else v for n, v in taken.items()}
    title = f"{DRAWS} draws, {len(bank.y)} positions, {len(bank.rows)} prompts, 8 predictors"
    title += f" ({', '.join(peers)}: {few} draws, scaled)"
    against_loop = Table(title=title, positions=1, of="loop", seconds=seconds, unit="ms")
    against_numpy = Table(title="The same", positions=1, of="numpy", seconds=seconds, unit="ms")
    return [said, against_loop.markdown(), against_numpy.markdown()]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer draws and rounds")
    quick = parser.parse_args().quick
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peers
        print("\n".join(tables(quick)))


if __name__ == "__main__":
    main()
