"""How many evaluation seeds the paper's benchmark cells can be of.

A run of an exact benchmark of n problems scores m / n, so the mean of s runs is a whole number of
1 / (s n). Tables 3, 4 and 12 state five seeds; this counts the printed cells that s runs can give
(the granularity test of Brown and Heathers, 2017), and the printed deviations that two runs can:
half their difference (ddof 0) or that times the root of 2 (ddof 1). One unit in the last digit is
allowed, as the same number is printed as 13.33 and as 13.34. A cell passes by chance with
probability `chance`.

Not covered: IFEval (its paper counts prompts or instructions, the tables do not say which).
"""

from __future__ import annotations

import math

import pandas as pd

from diagnostics.paper.tables import paper_table

PROBLEMS = {"aime24": 30, "aime25": 30, "gpqa_diamond": 198, "humaneval": 164, "math_500": 500}
UNIT = 0.01 + 1e-9  # per cent: one unit in the last printed digit
TABLES = ("table03", "table04", "table12")


def possible_seeds(most: int = 5) -> pd.DataFrame:
    """One row a benchmark and count of seeds: share of the printed means that s runs can average.

    Columns `benchmark`, `problems`, `seeds`, `cells` (rows that differ), `possible` the share of
    their means, `chance` what a number of any size would reach.
    """
    printed = _cells()
    rows = []
    for benchmark, problems in PROBLEMS.items():
        means = printed[f"{benchmark}_mean"]
        for seeds in range(1, most + 1):
            step = 100 / (problems * seeds)
            rows.append((benchmark, problems, seeds, len(means), _share(means, step), _luck(step)))
    return pd.DataFrame(
        rows, columns=["benchmark", "problems", "seeds", "cells", "possible", "chance"]
    )


def possible_deviations() -> pd.DataFrame:
    """One row a benchmark: share of the printed deviations that two runs can have.

    Columns `benchmark`, `ddof0` (half the difference), `ddof1` (over the root of 2), and what a
    number of any size would reach, `chance0` and `chance1`.
    """
    printed = _cells()
    rows = []
    for benchmark, problems in PROBLEMS.items():
        deviations = printed[f"{benchmark}_sd"]
        steps = (50 / problems, 50 * math.sqrt(2) / problems)
        shares = (_share(deviations, step) for step in steps)
        rows.append((benchmark, *shares, *map(_luck, steps)))
    return pd.DataFrame(rows, columns=["benchmark", "ddof0", "ddof1", "chance0", "chance1"])


def _cells() -> pd.DataFrame:
    """The rows of the three tables, each once: Table 12's shared ones are Table 3's."""
    columns = [f"{benchmark}_{part}" for benchmark in PROBLEMS for part in ("mean", "sd")]
    return pd.concat([paper_table(name) for name in TABLES])[columns].drop_duplicates()


def _share(values: pd.Series, step: float) -> float:
    """The share of values that lie within a unit of a whole number of steps."""
    off = values - (values / step).round() * step
    return float((off.abs() <= UNIT).mean())


def _luck(step: float) -> float:
    return min(1.0, 2 * UNIT / step)
