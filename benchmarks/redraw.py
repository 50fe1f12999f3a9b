"""What a bootstrap draw costs that redoes norms, quadrants, cuts and z-scores.

57,600 positions of 300 prompts; in each draw the mean gain, the Q3 gap at tertiles of C, and Table
9's five numbers over the bank and inside Q3 (three regressions in each). Peers take turns in one
process, timed by CPU time with one thread; ratios are medians over rounds. Slow peers take fewer
draws, and their time is scaled to 2,000: the title says how many. Before the clock starts every
peer's draws are compared with the loop's.

    loop       resample rows by prompt, np.quantile, normalise, z-score, numpy.linalg.lstsq
    normal     the same, each model solved by its normal equations
    ours       from the token table to the intervals, everything included

Run: `OMP_NUM_THREADS=1 python benchmarks/redraw.py [--quick]`. Cuts held: bootstrap.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from synthetic import synthetic_bank
from timing import Table, interleaved

from diagnostics.statistics.analyses import redraw_sums
from diagnostics.statistics.analyses.redraw import redrawn, redrawn_values
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_counts
from diagnostics.statistics.inference.clusters import prompt_clusters

DRAWS = 2000
AGREEMENT = 1e-10
COLUMNS = ("entropy", "teacher_entropy", "disagreement", "compatibility", "kl_0")
Floats = NDArray[np.float64]
Fit = Callable[[Floats, Floats], tuple[Floats, float]]  # x (pos, q), y (pos,): coefficients, R^2


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A bank as people hold it: `columns` (pos,) by name, and the `rows` of each prompt."""

    frame: pd.DataFrame
    columns: dict[str, Floats]
    rows: list[NDArray[np.int64]]

    def drawn(self, counts: Floats) -> dict[str, Floats]:
        """The columns of a draw, one prompt after the other."""
        chosen = np.repeat(np.arange(len(self.rows)), counts.astype(int))
        rows = np.concatenate([self.rows[c] for c in chosen])
        return {name: values[rows] for name, values in self.columns.items()}


def make_bank(prompts: int, positions: int) -> Bank:
    """One rollout a prompt."""
    frame = synthetic_bank(np.random.default_rng(0), prompts, 1, positions)
    owner = prompt_clusters(frame).of_row
    names = (*COLUMNS, "relative_position", "gain")
    return Bank(
        frame=frame,
        columns={name: frame[name].to_numpy() for name in names},
        rows=[np.flatnonzero(owner == c) for c in range(prompts)],
    )


def norm(z: Floats) -> Floats:
    """Eq. 11."""
    low, high = np.quantile(z, [0.05, 0.95])
    return np.clip((z - low) / (high - low + 1e-12), 0, 1)


def by_lstsq(x: Floats, y: Floats) -> tuple[Floats, float]:
    """Coefficients per standard deviation and R^2."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    full = np.column_stack([np.ones(len(z)), z])
    beta = np.linalg.lstsq(full, y, rcond=None)[0]
    return beta[1:], 1 - float(((y - full @ beta) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def by_normal(x: Floats, y: Floats) -> tuple[Floats, float]:
    """The same from the normal equations."""
    z, centred = (x - x.mean(axis=0)) / x.std(axis=0), y - y.mean()
    moment = z.T @ centred
    beta = np.linalg.solve(z.T @ z, moment)
    return beta, float(beta @ moment / (centred @ centred))


def table9(columns: Sequence[Floats], y: Floats, fit: Fit) -> list[float]:
    """beta_L, beta_I, their gap and both R^2 over the baseline's."""
    h, d, c, h_t, position = columns
    controls = [h, position, h_t]
    _, base = fit(np.column_stack([*controls, d, h * d]), y)
    _, with_c = fit(np.column_stack([*controls, d, h * d, c]), y)
    beta, decomposed = fit(np.column_stack([*controls, d * c, d * (1 - c)]), y)
    return [beta[3], beta[4], beta[3] - beta[4], decomposed - base, with_c - base]


def loop_draw(bank: Bank, counts: Floats, fit: Fit) -> Floats:
    """One draw as people write it."""
    raw = bank.drawn(counts)
    y, c = raw["gain"], raw["compatibility"]
    signals = ("entropy", "disagreement", "compatibility", "teacher_entropy")
    columns = [*(norm(raw[name]) for name in signals), raw["relative_position"]]
    low_entropy = raw["entropy"] <= np.quantile(raw["entropy"], 0.5)
    q3 = low_entropy & (raw["kl_0"] >= np.quantile(raw["kl_0"], 0.5))
    low, high = np.quantile(c[q3], [1 / 3, 2 / 3])
    gap = y[q3 & (c >= high)].mean() - y[q3 & (c <= low)].mean()
    inside = table9([column[q3] for column in columns], y[q3], fit)
    return np.array([y.mean(), gap, *table9(columns, y, fit), *inside])


def ours(bank: Bank, draws: int) -> object:
    """All intervals, from nothing: draws are not kept from an earlier round."""
    draw_counts.cache_clear()
    return redrawn(bank.frame, Bootstrap(draws=draws), threads=1)


def agree(bank: Bank, draws: int = 5) -> float:
    """The largest difference from the loop's draws: the normal equations', ours, without numba."""
    counts = draw_counts(len(bank.rows), draws, 1)
    truth = np.array([loop_draw(bank, row, by_lstsq) for row in counts])
    found = [np.array([loop_draw(bank, row, by_normal) for row in counts])]
    found.append(redrawn_values(bank.frame, Bootstrap(counts=counts), threads=1))
    with patch.object(redraw_sums, "find_spec", return_value=None):
        found.append(redrawn_values(bank.frame, Bootstrap(counts=counts)))
    worst = max(float(np.abs(values - truth).max()) for values in found)
    assert worst < AGREEMENT, f"peers differ by {worst:.1e}"
    return worst


def tables(quick: bool) -> list[str]:
    """The tables as Markdown."""
    bank = make_bank(300, 192)
    few = 5 if quick else 20
    said = f"Largest difference from the loop's draws: {agree(bank):.1e}\n"
    counts = draw_counts(len(bank.rows), few, 0)
    peers: dict[str, Callable[[], object]] = {
        "loop": lambda: [loop_draw(bank, row, by_lstsq) for row in counts],
        "normal": lambda: [loop_draw(bank, row, by_normal) for row in counts],
    }
    taken = interleaved(peers | {"ours": lambda: ours(bank, DRAWS)}, 2 if quick else 7)
    seconds = {n: [s * DRAWS / few for s in v] if n in peers else v for n, v in taken.items()}
    title = f"{DRAWS} draws, all redone, {len(bank.frame)} positions, {len(bank.rows)} prompts"
    title += f" ({', '.join(peers)}: {few} draws, scaled)"
    by = [Table(title=title, positions=1, of=of, seconds=seconds, unit="ms") for of in peers]
    return [said, *(table.markdown() for table in by)]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer draws and rounds")
    print("\n".join(tables(parser.parse_args().quick)))


if __name__ == "__main__":
    main()
