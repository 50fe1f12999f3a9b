"""Tables that say how far a report's numbers can be trusted.

    intervals           each headline number with every kind of interval
    placebo             the same number where D and C are shuffled within prompts
    definitions_differ  the same number under each departure of the set `released`, and with leakage
    design              how many prompts a clear answer would take
    selector_overlap    how much of what one selector keeps another keeps
    bands               simultaneous bands over families: support sizes, proxies, selectors

The first checkpoint of a run stands for all in `placebo` and `definitions_differ`. Numbers come
from `diagnostics.statistics`; this module only asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from diagnostics.report.contexts.rows import OUTCOMES, Piece
from diagnostics.report.noise import Row
from diagnostics.report.tables.views import percent
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.choices import choose
from diagnostics.statistics.analyses.design import plan
from diagnostics.statistics.analyses.differ import definitions_differ
from diagnostics.statistics.analyses.gaps import support_split
from diagnostics.statistics.analyses.headlines import BUDGET, HEADLINES, Headline
from diagnostics.statistics.analyses.placebo import placebos
from diagnostics.statistics.analyses.recommend import recommended
from diagnostics.statistics.analyses.redraw import redrawn
from diagnostics.statistics.analyses.shown import PROXIES
from diagnostics.statistics.inference.bootstrap import (
    DRAWN,
    Bootstrap,
    Interval,
    interval,
    joint_draws,
    percentile_interval,
    simultaneous,
)
from diagnostics.statistics.inference.estimators import Estimator
from diagnostics.statistics.inference.results import spread
from diagnostics.statistics.inference.robust import ROBUST, robust_interval
from diagnostics.statistics.selection.overlap import Mask, overlap
from diagnostics.statistics.tables.measured import Start
from diagnostics.statistics.tables.values import Outcome

PLACEBOS: tuple[Headline, ...] = ("beta", "beta_q3", "gap", "budget")
Family = Mapping[str, Estimator]


def interval_rows(piece: Piece, *, redo: bool = False) -> list[Row]:
    """Headline numbers of one checkpoint with every kind of interval.

    `redo` adds those whose draws redo norms, cuts and z-scores, for the numbers that have them.
    """
    rows = []
    for outcome, _ in OUTCOMES:
        redone = _redone(piece, outcome) if redo else {}
        for name in HEADLINES:
            made = every_kind(piece.headline(name, outcome), piece.bootstrap)
            made["redone"] = redone.get(name, Interval(np.nan, np.nan, np.nan))
            row = piece.key | {"statistic": name, "outcome": outcome}
            for kind, value in made.items():
                row |= spread(kind, value)
            row["recommended"] = recommended(piece.start.clusters.count, name)
            row["reason"] = "; ".join(sorted({v.reason for v in made.values() if v.reason}))
            rows.append(row)
    return rows


def _redone(piece: Piece, outcome: Outcome) -> dict[Headline, Interval]:
    made = redrawn(piece.frame, replace(piece.bootstrap, kind="percentile"), outcome=outcome)
    return {
        "gain": made.gain,
        "beta": made.beta_gap,
        "beta_q3": made.beta_gap_q3,
        "gap": made.support_gap,
    }


def every_kind(estimator: Estimator, bootstrap: Bootstrap) -> dict[str, Interval]:
    """Percentile, BCa and studentised intervals, and t intervals with CR1, CR2 and CR3 errors."""
    drawn: dict[str, Interval] = {
        kind: interval(estimator, replace(bootstrap, kind=kind)) for kind in DRAWN
    }
    return drawn | {kind: robust_interval(estimator, kind) for kind in ROBUST}


def placebo_rows(piece: Piece) -> list[Row]:
    """Headline numbers of shuffled support, as far as the table can give them."""
    rows = []
    for made in placebos(piece.frame, PLACEBOS, piece.bootstrap, seed=piece.bootstrap.seed):
        row = piece.key | {"statistic": made.headline} | spread("real", made.real)
        row |= {"shuffles": made.shuffles, "mean": made.mean, "sd": made.sd}
        row |= {"smallest": made.values["estimate"].min(), "largest": made.values["estimate"].max()}
        rows.append(row | {"excludes_zero": made.excludes_zero})
    return rows


def differ_rows(run: Run, piece: Piece, measured: Start) -> list[Row]:
    """What each departure of `released` does to each headline number of a checkpoint.

    One row a definition set; of each number its interval, its change less `paper`'s, and whether
    it is the same to the last bit.
    """
    made = definitions_differ(
        run, piece.top_k, piece.bootstrap, [piece.checkpoint], start=measured
    ).rows
    rows: dict[str, Row] = {}
    for one in made:
        first = piece.key | {"top_k": piece.top_k, "definitions": one.definitions}
        row = rows.setdefault(one.definitions, first | {"outcome": one.outcome})
        row |= spread(one.headline, one.value) | spread(f"{one.headline}_change", one.change)
        row |= {f"{one.headline}_same": one.same, f"{one.headline}_reason": one.reason}
    return list(rows.values())


def design_rows(piece: Piece) -> list[Row]:
    """Prompts that half of each headline number's size, to either side, asks for."""
    length = int(piece.frame["context_id"].value_counts().max())
    made = plan(piece.frame, rollouts=(1,), positions=(length,), bootstrap=piece.bootstrap)
    about = piece.key | {"top_k": piece.top_k, "prompts": made.prompts, "rollouts": made.rollouts}
    rows = made.to_frame().to_dict("records")
    return [about | {str(k): v for k, v in row.items()} for row in rows]


def choice_rows(piece: Piece) -> list[Row]:
    """The selector whose kept positions gained most at each budget, against every other one."""
    rows = []
    for budget in dict.fromkeys(budget for _, budget in piece.start.selected):
        kept = {s: one for (s, asked), one in piece.start.selected.items() if asked == budget}
        means: dict[str, Estimator] = {s: piece.mean(k.mask, "gain") for s, k in kept.items()}
        found = choose(means, piece.bootstrap, beside="random")
        for other, difference in found.over.items():
            about = piece.key | {"budget": budget, "best": found.name}
            rows.append(
                about | spread("gain", found.value) | {"other": other} | spread("over", difference)
            )
    return rows


def overlap_rows(piece: Piece) -> list[Row]:
    """Jaccard index of what every two selectors keep of a bank at the answers' budget."""
    kept: dict[str, Mask] = {
        s: k.mask for (s, budget), k in piece.start.selected.items() if budget == BUDGET
    }
    made = overlap(kept, (piece.frame["quadrant"] == 3).to_numpy()).to_frame()
    rows = made.to_dict("records")
    return [{"run": piece.run, "budget": BUDGET} | {str(k): v for k, v in r.items()} for r in rows]


def band_rows(pieces: Sequence[Piece], main: int) -> list[Row]:
    """Pointwise and simultaneous intervals over each family of one checkpoint's numbers.

    `pieces` are one checkpoint at each K; `main` is the K that the other families are at.
    """
    rows = []
    for family, members in _families(pieces, main):
        values, draws = joint_draws(list(members.values()), pieces[0].bootstrap)
        alone = (percentile_interval(*one) for one in zip(values, draws.T, strict=True))
        together = simultaneous(values, draws)
        for name, one, band in zip(members, alone, together, strict=True):
            row = pieces[0].key | {"family": family, "member": name} | spread("value", one)
            rows.append(row | {"band_low": band.low, "band_high": band.high})
    return rows


def _families(pieces: Sequence[Piece], main: int) -> Iterator[tuple[str, Family]]:
    """Families of numbers that people compare; one that the tables cannot give is left out."""
    for name in ("beta", "beta_q3", "gap"):
        yield f"{name} by K", {f"K = {p.top_k}": p.headline(name, "gain") for p in pieces}
    (piece,) = (p for p in pieces if p.top_k == main)
    clusters = piece.start.clusters
    gain = piece.frame["gain"].to_numpy()
    yield (
        "gap by proxy",
        {p: support_split(piece.frame, p).gap(clusters, gain) for p in PROXIES},
    )
    kept = {s: k.mask for (s, budget), k in piece.start.selected.items() if budget == BUDGET}
    yield (
        f"gain by selector at {percent(BUDGET)}",
        {name: piece.mean(mask, "gain") for name, mask in kept.items()},
    )
