"""How often nominal 95 % intervals hold the truth: every kind, every headline number.

Banks come from `gain_processes.py`. The truth of a number is its value in very large banks of the
same process; a small bank's cuts and norms are estimated as its gains are, and what they add to the
error counts here. In the placebo bank D^L and D^I are exchangeable within prompts, so what compares
them has the truth 0. Prints the tables of docs/coverage.md, in about 20 minutes of one core.
Run: `OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py [--quick] [PART ...]`.

The file is not called `coverage.py`: numba imports whatever package has that name.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
import pandas as pd
from gain_processes import BANKS, Bank
from replicates import WAYS, Cell, Key, every_way, tally

from diagnostics.statistics.analyses.gaps import masked_mean
from diagnostics.statistics.analyses.headlines import HEADLINES, Headline, Shared, headline
from diagnostics.statistics.analyses.redraw import redrawn
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, bands, interval
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Estimator, estimate

PROMPTS = (10, 30, 100, 300)
REPLICATES, QUICK = 1000, 200
LARGE, LARGE_BANKS = 10_000, 6  # prompts of a bank that gives the truth, and how many such banks
FAMILY = 12
REDONE: dict[Headline, str] = {  # names in `redraw.Redrawn`
    "gain": "gain",
    "beta": "beta_gap",
    "beta_q3": "beta_gap_q3",
    "gap": "support_gap",
}

# --- numbers and their truth ----------------------------------------------------------------------


def headlines(frame: pd.DataFrame) -> dict[str, Estimator]:
    """The headline numbers of a bank."""
    shared = Shared(frame)
    return {name: headline(frame, name, shared=shared) for name in HEADLINES}


def thresholds(frame: pd.DataFrame) -> dict[str, Estimator]:
    """A family of correlated means: the gain where D exceeds each of 12 fixed values."""
    clusters, gain = prompt_clusters(frame), frame["gain"].to_numpy()
    d = frame["disagreement"].to_numpy()
    cuts = np.exp(np.linspace(-1.0, 1.0, FAMILY) - 2.0)
    return {f"D > {cut:.2f}": masked_mean(clusters, gain, d > cut) for cut in cuts}


def truth(
    bank: Bank, numbers: Callable[[pd.DataFrame], Mapping[str, Estimator]]
) -> dict[str, float]:
    """The numbers' values in very large banks, averaged."""
    found: list[dict[str, float]] = []
    for index in range(LARGE_BANKS):
        frame = bank.draw(np.random.default_rng([7, index, 2]), LARGE)
        found.append({name: float(estimate(e)[0]) for name, e in numbers(frame).items()})
    means = {name: float(np.mean([values[name] for values in found])) for name in found[0]}
    return {name: 0.0 if name in bank.zero else value for name, value in means.items()}


# --- tables ---------------------------------------------------------------------------------------


def table(kinds: Sequence[str]) -> list[str]:
    """The head of a table of cells."""
    return [f"| prompts | number | {' | '.join(kinds)} |", "|---|---|" + "---|" * len(kinds)]


def row(prompts: int, number: str, cells: Sequence[Cell]) -> str:
    """One row of cells; widths are divided by the first's."""
    return f"| {prompts} | {number} | {' | '.join(_cell(c, cells[0].width) for c in cells)} |"


def _cell(cell: Cell, unit: float) -> str:
    """Coverage +- its Monte Carlo error (truth below / above the interval), in %; width."""
    if not cell.made:
        return "–"
    lacking = f", none {100 * cell.lacking:.1f}" if cell.lacking else ""
    return (
        f"{100 * cell.coverage:.1f} ± {100 * cell.error:.1f}"
        f" ({100 * cell.below:.1f} / {100 * cell.above:.1f}) {cell.width / unit:.2f}{lacking}"
    )


@lru_cache
def truths_of(name: str) -> dict[str, float]:
    """The headline numbers' truth in a bank."""
    return truth(BANKS[name], headlines)


@lru_cache
def cells_of(name: str, prompts: int, replicates: int) -> dict[Key, Cell]:
    """Every kind for every headline number at one size of a bank."""

    def sample(rng: np.random.Generator, bootstrap: Bootstrap) -> dict[Key, Interval]:
        return every_way(headlines(BANKS[name].draw(rng, prompts)), bootstrap)

    return tally(sample, truths_of(name), list(WAYS), replicates=replicates, seed=prompts)


def study(name: str, replicates: int) -> Iterator[str]:
    """All cells of one bank."""
    truths = truths_of(name)
    yield from (f"### {name}: {BANKS[name].about}", "")
    yield "Truth: " + ", ".join(f"{number} {value:.4f}" for number, value in truths.items())
    yield from ("", *table(list(WAYS)))
    for prompts in PROMPTS:
        cells = cells_of(name, prompts, replicates)
        for number in truths:
            yield row(prompts, number, [cells[number, way] for way in WAYS])
    yield ""


def worst(replicates: int) -> Iterator[str]:
    """The lowest coverage over all banks."""
    yield from ("### Lowest coverage over the four banks, %", "", *table(list(WAYS)))
    for prompts in PROMPTS:
        banks = [cells_of(name, prompts, replicates) for name in BANKS]
        for number in HEADLINES:
            shown = [_lowest([cells[number, way] for cells in banks]) for way in WAYS]
            yield f"| {prompts} | {number} | {' | '.join(shown)} |"
    yield ""


def distance(replicates: int) -> Iterator[str]:
    """How far coverage lies from 95 %, over all banks and numbers."""
    yield from ("### Mean distance from 95 %, points; width beside percentile", "")
    yield from (f"| prompts | {' | '.join(WAYS)} |", "|---|" + "---|" * len(WAYS))
    for prompts in PROMPTS:
        banks = [cells_of(name, prompts, replicates) for name in BANKS]
        shown = []
        for way in WAYS:
            made = [(c[n, way], c[n, "percentile"]) for c in banks for n in HEADLINES]
            made = [(cell, beside) for cell, beside in made if cell.made]
            off = np.mean([abs(100 * cell.coverage - 95) for cell, _ in made])
            width = np.median([cell.width / beside.width for cell, beside in made])
            shown.append(f"{off:.1f}; {width:.2f}")
        yield f"| {prompts} | {' | '.join(shown)} |"
    yield ""


def _lowest(cells: Sequence[Cell]) -> str:
    """The lowest coverage of the cells that have one."""
    found = [cell.coverage for cell in cells if cell.made]
    return f"{100 * min(found):.1f}" if found else "–"


def families(replicates: int) -> Iterator[str]:
    """Joint coverage of simultaneous bands over 12 means, and of 12 percentile intervals."""
    kinds = ("simultaneous", "percentile")

    def sample(bank: Bank, rng: np.random.Generator, bootstrap: Bootstrap) -> dict[Key, Interval]:
        family = thresholds(bank.draw(rng, 100))
        joint = zip(family, bands(list(family.values()), bootstrap), strict=True)
        each = {(name, "percentile"): interval(e, bootstrap) for name, e in family.items()}
        return each | {(name, "simultaneous"): band for name, band in joint}

    yield from ("### 12 means together, 100 prompts", "")
    yield from ("| bank | bands | 12 percentile intervals |", "|---|---|---|")
    for name in ("normal", "heavy", "skewed"):
        truths = truth(BANKS[name], thresholds)
        cells = tally(partial(sample, BANKS[name]), truths, kinds, replicates=replicates, seed=100)
        joint = [np.all([cells[n, kind].held for n in truths], axis=0) for kind in kinds]
        yield f"| {name} | {' | '.join(_share(held) for held in joint)} |"
    yield ""


def _share(held: np.ndarray) -> str:
    return f"{100 * held.mean():.1f} ± {100 * held.std() / np.sqrt(len(held)):.1f}"


def redone(replicates: int) -> Iterator[str]:
    """Percentile intervals with cuts, norms and z-scores held, and redone in every draw."""
    bank, kinds = BANKS["heavy"], ("held", "redone")
    truths: dict[str, float] = {name: truths_of("heavy")[name] for name in REDONE}
    yield from ("### heavy: cuts held and redone in every draw", "", *table(kinds))
    for prompts in (30, 100):

        def sample(
            rng: np.random.Generator, bootstrap: Bootstrap, size: int = prompts
        ) -> dict[Key, Interval]:
            frame = bank.draw(rng, size)
            fixed, moved = headlines(frame), redrawn(frame, bootstrap, threads=1)
            held = {(name, "held"): interval(fixed[name], bootstrap) for name in REDONE}
            return held | {(n, "redone"): getattr(moved, other) for n, other in REDONE.items()}

        cells = tally(sample, truths, kinds, replicates=replicates, seed=prompts)
        for number in truths:
            yield row(prompts, number, [cells[number, kind] for kind in kinds])
    yield ""


PARTS: dict[str, Callable[[int], Iterator[str]]] = {
    **{name: partial(study, name) for name in BANKS},
    "worst": worst,
    "distance": distance,
    "bands": families,
    "redone": redone,
}


def main() -> None:
    """Prints the tables that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} replicates")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    for part in options.parts or PARTS:
        start = time.process_time()
        for line in PARTS[part](QUICK if options.quick else REPLICATES):
            print(line, flush=True)
        print(f"<!-- {part}: {time.process_time() - start:.0f} s of one core -->\n", flush=True)


if __name__ == "__main__":
    main()
