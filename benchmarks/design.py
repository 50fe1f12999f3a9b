"""How near the widths come that `diagnostics plan` foretells: pilots against studies of that size.

Pilots of 40 prompts (`synthetic.py`) foretell the half-width of a 95 % interval at other numbers of
prompts, rollouts and positions; studies of those sizes are then drawn from the same process, and
the half-lengths of their percentile bootstrap intervals averaged. Prints, for each process and
headline number, the mean over pilots of what they foretell over what came; then how far one pilot
strays from the mean (relative deviation) beside the error that pilots state of themselves. With
`--run RUN` pilots are prompts drawn from a real run instead, and what came is the run's own
interval. Not a timed benchmark.
Run: `OMP_NUM_THREADS=1 python benchmarks/design.py [--quick] [--run RUN [--checkpoint NAME]]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from synthetic import synthetic_bank

from diagnostics.errors import InputError
from diagnostics.scoring.run import open_run
from diagnostics.statistics.analyses.components import Components, half_width
from diagnostics.statistics.analyses.headlines import HEADLINES, Headline, Shared, headline
from diagnostics.statistics.analyses.pilot import Pilot, pilot_of
from diagnostics.statistics.inference.bootstrap import Bootstrap, interval
from diagnostics.statistics.tables.tokens import derived

Floats = NDArray[np.float64]

PROMPTS, POSITIONS = 40, 96  # of a pilot; positions a rollout, in the mean
DRAWS = 999
PILOTS, STUDIES = 100, 30
NAMES: tuple[Headline, ...] = tuple(HEADLINES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Fields: `about` it; `rollouts` of a pilot's prompt; `options` of `synthetic_bank`."""

    about: str
    rollouts: int
    options: Mapping[str, float | bool]


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """A study: prompts, rollouts a prompt, positions a rollout."""

    prompts: int
    rollouts: int
    positions: int

    def __str__(self) -> str:
        return f"{self.prompts} x {self.rollouts} x {self.positions}"


HEAVY = {"tail_df": 4.0, "prompt_sd": 0.3}
PROCESSES = (
    Process(about="normal effects, 2 rollouts a prompt", rollouts=2, options={}),
    Process(about="Student's t with 4 degrees of freedom, 2 rollouts", rollouts=2, options=HEAVY),
    Process(
        about="the same, 1 to 3 rollouts of 24 to 168 positions",
        rollouts=2,
        options=HEAVY | {"unequal": True},
    ),
    Process(about="normal effects, 1 rollout a prompt", rollouts=1, options={}),
)


def sizes(process: Process) -> list[Size]:
    """The studies that a process's pilots foretell."""
    own = process.rollouts
    same = [Size(prompts, own, POSITIONS) for prompts in (150, 300)]
    if "unequal" in process.options:
        return same  # cutting them changes their lengths, which the generator cannot follow
    if own == 1:
        return [*same, Size(150, 1, POSITIONS // 2), Size(150, 4, POSITIONS)]
    others = [(150, 1, POSITIONS), (150, 4, POSITIONS), (150, own, POSITIONS // 2)]
    return [*same, *(Size(*other) for other in others), Size(300, 4, POSITIONS // 2)]


def foretold(process: Process, size: Sequence[Size], pilots: int) -> dict[Headline, Floats]:
    """Half-widths (pilots, sizes + 1, 2) of each number, at least and at most.

    In place of one more size stands the error that pilots state. NaN where there is no number.
    """
    out = {name: np.full((pilots, len(size) + 1, 2), np.nan) for name in NAMES}
    for index in range(pilots):
        rng = np.random.default_rng([1, index])
        frame = synthetic_bank(rng, PROMPTS, process.rollouts, POSITIONS, **process.options)
        whole = Pilot(frame)
        cuts = {s.positions: whole if s.positions == POSITIONS else None for s in size}
        cuts = {length: cut or whole.cut(length) for length, cut in cuts.items()}
        for name in NAMES:
            found = {length: _components(cut, name) for length, cut in cuts.items()}
            for place, one in enumerate(size):
                out[name][index, place] = _expected(found[one.positions], one, process)
            first = found[POSITIONS]
            out[name][index, -1] = first.error if first else np.nan
    return out


def _components(cut: Pilot, name: Headline) -> Components | None:
    try:
        return cut.components(name)
    except InputError:
        return None


def _expected(found: Components | None, size: Size, process: Process) -> tuple[float, float]:
    if found is None:
        return float("nan"), float("nan")
    same = size.rollouts == process.rollouts  # an unequal pilot's own mean is near it, not at it
    low, high = found.variance(found.rollouts if same else size.rollouts)
    return half_width(low, size.prompts), half_width(high, size.prompts)


def came(process: Process, size: Size, studies: int) -> dict[Headline, float]:
    """Mean half-length of each number's bootstrap interval over studies of a size."""
    lengths: dict[Headline, list[float]] = {name: [] for name in NAMES}
    for index in range(studies):
        rng = np.random.default_rng([2, index, size.prompts, size.rollouts, size.positions])
        frame = synthetic_bank(rng, size.prompts, size.rollouts, size.positions, **process.options)
        shared = Shared(frame)
        for name in NAMES:
            bootstrap = Bootstrap(draws=DRAWS, seed=index)
            found = interval(headline(frame, name, shared=shared), bootstrap)
            lengths[name].append((found.high - found.low) / 2)
    return {name: float(np.mean(values)) for name, values in lengths.items()}


def study(process: Process, pilots: int, studies: int) -> str:
    """The Markdown table of a process."""
    size = sizes(process)
    told = foretold(process, size, pilots)
    real = [came(process, one, studies) for one in size]
    lines = [
        f"**{process.about}**",
        "",
        f"| number | {' | '.join(map(str, size))} | strays | says | none |",
        "|---" * (len(size) + 4) + "|",
    ]
    for name in NAMES:
        known = np.isfinite(told[name][:, 0, 0])
        values = told[name][known]
        ratios = [_ratio(values[:, place] / found[name]) for place, found in enumerate(real)]
        first = values[:, 0, 1]
        strays, says = first.std(ddof=1) / first.mean(), values[:, -1, 1].mean()
        lines.append(
            f"| {name} | {' | '.join(ratios)} | {strays:.0%} | {says:.0%} | {(~known).sum()} |"
        )
    return "\n".join([*lines, ""])


def of_run(whole: Pilot, prompts: int, pilots: int) -> str:
    """The Markdown table of pilots of some prompts of a run, against the run's own intervals."""
    clusters = whole.shared.clusters
    told: dict[Headline, list[tuple[float, float]]] = {name: [] for name in NAMES}
    for index in range(pilots):
        chosen = np.random.default_rng(index).choice(clusters.count, prompts, replace=False)
        frame = whole.frame[np.isin(clusters.of_row, chosen)].reset_index(drop=True)
        pilot = Pilot(frame.assign(**derived(frame)))
        for name in NAMES:
            found = _components(pilot, name)
            if found:
                width = half_width(found.as_pilot, clusters.count)
                told[name].append((width, found.error))
    lines = [
        f"**pilots of {prompts} prompts, {clusters.count} foretold**",
        "",
        "| number | mean | median | strays | says | none |",
        "|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        real = interval(whole.number(name), Bootstrap())
        width, says = np.array(told[name]).T
        ratio = width / ((real.high - real.low) / 2)
        lines.append(
            f"| {name} | {ratio.mean():.2f} | {np.median(ratio):.2f} | "
            f"{ratio.std(ddof=1) / ratio.mean():.0%} | {says.mean():.0%} | {pilots - len(ratio)} |"
        )
    return "\n".join([*lines, ""])


def _ratio(ratios: Floats) -> str:
    """The means of ratios (pilots, 2), once where both are the same."""
    low, high = ratios.mean(axis=0)
    return f"{high:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def main() -> None:
    """Prints the table of each process, or those of a run."""
    parser = argparse.ArgumentParser(description="Foretold against real widths.")
    parser.add_argument("--quick", action="store_true", help="few pilots and studies")
    parser.add_argument("--run", type=Path, help="pilots from this run")
    parser.add_argument("--checkpoint", help="whose gain")
    given = parser.parse_args()
    pilots, studies = (10, 4) if given.quick else (PILOTS, STUDIES)
    if given.run:
        whole, _ = pilot_of(open_run(given.run), given.checkpoint)
        for prompts in (PROMPTS, 2 * PROMPTS):
            print(of_run(whole, prompts, pilots), flush=True)
        return
    for process in PROCESSES:
        print(study(process, pilots, studies), flush=True)


if __name__ == "__main__":
    main()
