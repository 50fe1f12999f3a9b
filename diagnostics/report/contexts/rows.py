"""Rows of every table of a report, from one checkpoint of one run at one K.

Columns of the paper's tables are the contract's; the same numbers for relative gain follow them
with the suffix `_rel`. Numbers come from `diagnostics.statistics`; this module only asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.report.noise import Row
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.budgets import TopN, kept_means, top_ns
from diagnostics.statistics.analyses.gaps import (
    TERTILES,
    Gap,
    MatchedGap,
    in_q3,
    matched_gap,
    support_gap,
)
from diagnostics.statistics.analyses.headlines import BUDGET, Headline, Shared, headline
from diagnostics.statistics.analyses.noise import NoiseFloor, counts_against
from diagnostics.statistics.analyses.recommend import recommended_interval
from diagnostics.statistics.analyses.regression import Decomposition, Scope, decompose
from diagnostics.statistics.analyses.shown import PROXIES, QUANTILES
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, interval
from diagnostics.statistics.inference.estimators import Estimator, Mean
from diagnostics.statistics.inference.results import spread
from diagnostics.statistics.selection.selectors import SELECTORS, Selection, Selector
from diagnostics.statistics.tables.values import Outcome

ANSWERS: tuple[Headline, ...] = ("beta", "beta_q3", "gap", "budget")
SCOPES: tuple[Scope, ...] = ("all", "q3")
OUTCOMES: tuple[tuple[Outcome, str], ...] = (("gain", ""), ("gain_rel", "_rel"))
TABLE_SELECTORS = tuple(name for name in SELECTORS if name != "full")
KEPT_COLUMNS = (
    "gain_per_keep",
    "q3_share",
    "entropy_norm",
    "disagreement_norm",
    "compatibility_norm",
    "tied_share",
    "short",
)
MAIN_PROMPTS = 100  # fewer prompts than this are called a boundary check, as the paper does with 8


@dataclass(frozen=True)
class Start(Shared):
    """What the checkpoints of one run at one K share; `selected` by selector and budget."""

    selected: dict[tuple[Selector, float], Selection]

    @cached_property
    def kept(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The top 5 % by D^L and by D~: of the whole bank, also where the rows are a sample."""
        return self.selected["teachability", BUDGET].mask, self.selected["kl", BUDGET].mask


@dataclass(frozen=True, slots=True)
class Piece:
    """One checkpoint of one run at one K: its rows, how intervals are made, what is shared."""

    run: str
    checkpoint: str
    top_k: int
    frame: pd.DataFrame
    bootstrap: Bootstrap
    start: Start
    fits: dict[tuple[Scope, Outcome], Decomposition] = field(default_factory=dict)
    numbers: dict[tuple[Headline, Outcome], Estimator] = field(default_factory=dict)

    @property
    def key(self) -> Row:
        """Run and checkpoint, the first two columns of each table."""
        return {"run": self.run, "checkpoint": self.checkpoint}

    def mean(self, rows: NDArray[np.bool_], outcome: Outcome) -> Mean:
        """Mean gain over some rows (pos,)."""
        return kept_means(self.frame, rows, outcome, self.start.clusters)

    def headline(self, name: Headline, outcome: Outcome) -> Estimator:
        """A headline number, made once."""
        if (name, outcome) not in self.numbers:
            made = headline(self.frame, name, outcome, self.start)
            self.numbers[name, outcome] = made
        return self.numbers[name, outcome]

    def fit(self, scope: Scope, outcome: Outcome) -> Decomposition:
        """The regression, made once."""
        if (scope, outcome) not in self.fits:
            made = decompose(
                self.frame,
                self.bootstrap,
                scope=scope,
                outcome=outcome,
                clusters=self.start.clusters,
            )
            self.fits[scope, outcome] = made
        return self.fits[scope, outcome]


def kind_counts(run: Run, kind: str) -> bool:
    """Whether a kind of noise is in the numbers of a run."""
    return counts_against(kind, str(run.manifest["settings"]["dtype"]))


def table01(piece: Piece) -> list[Row]:
    """Context and teacher robustness: the gap inside Q3 and the matched one."""
    frame = piece.frame
    gaps = [
        support_gap(frame, "compatibility", piece.bootstrap, outcome=outcome)
        for outcome, _ in OUTCOMES
    ]
    matched = [
        matched_gap(
            frame, "compatibility", piece.bootstrap, outcome=outcome, pairs=piece.start.pairs
        )
        for outcome, _ in OUTCOMES
    ]
    contexts = frame["context_id"].nunique()
    return [table01_row(piece.key, piece.top_k, contexts, len(frame), gaps, matched)]


def table01_row(
    key: Row,
    top_k: int,
    contexts: int,
    positions: int,
    gaps: Sequence[Gap],
    matched: Sequence[MatchedGap],
) -> Row:
    """Table 1's row from a gap and a matched gap of each outcome."""
    row = key | {"top_k": top_k, "n_contexts": contexts, "n_positions": positions}
    row |= {"n_q3": gaps[0].n_positions}
    for (_, suffix), gap, pairs in zip(OUTCOMES, gaps, matched, strict=True):
        row |= spread("gap", gap.gap, suffix) | spread("matched_gap", pairs.gap, suffix)
    return row | {
        "pairs": matched[-1].pairs,
        "prompt_share": matched[-1].prompt_share,
        "largest_imbalance": matched[-1].balance["difference_after"].abs().max(),
        "tied_share": gaps[-1].tied_share,
    }


def table05(piece: Piece) -> list[Row]:
    """Inventory."""
    frame = piece.frame
    contexts, prompts = (frame[name].nunique() for name in ("context_id", "prompt_id"))
    return [table05_row(piece.key, contexts, prompts, len(frame))]


def table05_row(key: Row, contexts: int, prompts: int, positions: int) -> Row:
    """Table 5's row from counts."""
    return key | {
        "n_contexts": contexts,
        "n_prompts": prompts,
        "n_positions": positions,
        "use": "main" if prompts >= MAIN_PROMPTS else "boundary only",
    }


def table06(piece: Piece) -> list[Row]:
    """The gap inside Q3 by each proxy of support."""
    rows = []
    for proxy in PROXIES:
        gaps = [
            support_gap(piece.frame, proxy, piece.bootstrap, outcome=outcome)
            for outcome, _ in OUTCOMES
        ]
        rows.append(table06_row(piece.key, piece.top_k, gaps))
    return rows


def table06_row(key: Row, top_k: int, gaps: Sequence[Gap]) -> Row:
    """Table 6's row of one proxy from its gap for each outcome."""
    row = key | {"top_k": top_k, "proxy": gaps[0].proxy}
    for (_, suffix), gap in zip(OUTCOMES, gaps, strict=True):
        row |= {"n_positions": gap.n_positions} | spread("gap", gap.gap, suffix)
        row |= {"tied_share": gap.tied_share, "n_high": gap.n_high, "n_low": gap.n_low}
    return row


def table08(piece: Piece) -> list[Row]:
    """Exact top-N of each selector at each budget."""
    by_gain, by_rel = (
        top_ns(
            piece.frame,
            piece.start.selected,
            piece.bootstrap,
            outcome=outcome,
            clusters=piece.start.clusters,
        )
        for outcome, _ in OUTCOMES
    )
    pairs = zip(by_gain, by_rel, strict=True)
    return [table08_row(piece.key, piece.top_k, pair) for pair in pairs]


def table08_row(key: Row, top_k: int, kept: Sequence[TopN]) -> Row:
    """Table 8's row of one selector at one budget from its record for each outcome."""
    made = kept[0]
    row = key | {"top_k": top_k, "selector": made.selector, "budget": made.budget}
    row |= {"n_kept": made.n_kept} | spread("gain", made.gain)
    row |= {name: getattr(made, name) for name in KEPT_COLUMNS}
    return row | spread("gain", kept[-1].gain, OUTCOMES[-1][1])


def table09(piece: Piece, scope: Scope) -> list[Row]:
    """The regression in one scope."""
    fits = [piece.fit(scope, outcome) for outcome, _ in OUTCOMES]
    return [table09_row(piece.key, piece.top_k, fits)]


def table09_row(key: Row, top_k: int, fits: Sequence[Decomposition]) -> Row:
    """Table 9's row of one scope from its regression for each outcome."""
    row = key | {"top_k": top_k, "scope": fits[0].scope}
    for (_, suffix), fit in zip(OUTCOMES, fits, strict=True):
        row |= {"n_positions": fit.n_positions, "n_q3": fit.n_q3}
        row |= {f"beta_l{suffix}": fit.beta_l.estimate, f"beta_i{suffix}": fit.beta_i.estimate}
        row |= spread("gap", fit.gap, suffix)
        row |= {
            f"delta_r2_decomposed{suffix}": fit.delta_r2_decomposed.estimate,
            f"delta_r2_compatibility{suffix}": fit.delta_r2_compatibility.estimate,
        }
        for name in ("beta_l", "beta_i", "delta_r2_decomposed", "delta_r2_compatibility"):
            value: Interval = getattr(fit, name)
            row |= {f"{name}_low{suffix}": value.low, f"{name}_high{suffix}": value.high}
    return row


def checkpoint_rows(piece: Piece, floors: Sequence[NoiseFloor]) -> list[Row]:
    """Mean gain over the whole bank: what training did, before any question of where."""
    frame = piece.frame
    everywhere = np.ones(len(frame), dtype=bool)
    row: Row = piece.key | {"kl_0": frame["kl_0"].mean(), "kl": frame["kl"].mean()}
    for outcome, suffix in OUTCOMES:
        row |= spread("gain", interval(piece.mean(everywhere, outcome), piece.bootstrap), suffix)
    row["gain_rel_median"] = frame["gain_rel"].median()
    row["improved_share"] = float((frame["gain"] > 0).mean())
    row["reverse_kl_0"] = frame["reverse_kl_0"].mean()
    row["reverse_kl"] = frame["reverse_kl"].mean()
    return [row | _position_noise(frame, floors)]


def _position_noise(frame: pd.DataFrame, floors: Sequence[NoiseFloor]) -> Row:
    """Noise of the mean and of one position beside a checkpoint's mean gain; of kinds the worst."""
    if not floors:
        return {"noise_mean": np.nan, "noise_q99": np.nan, "within_noise_share": np.nan}
    size = max(floor.q99 for floor in floors)
    means = [floor.mean.estimate for floor in floors]
    return {
        "noise_mean": max(means, key=abs),
        "noise_q99": size,
        "within_noise_share": float((frame["gain"].abs() <= size).mean()),
    }


def noise_rows(run: Run, floors: Sequence[NoiseFloor]) -> list[Row]:
    """What an unchanged checkpoint shows, one row a kind; one that says so where there is none."""
    rows = []
    for floor in floors:
        row: Row = {"run": run.name, "kind": floor.kind}
        row |= {"n_contexts": floor.n_contexts, "n_positions": floor.n_positions}
        row |= spread("mean", floor.mean)
        row |= {name: getattr(floor, name) for name in ("q50", "q90", "q99", "max")}
        rows.append(row | {"counts": "yes" if kind_counts(run, floor.kind) else "no"})
    none = {"run": run.name, "kind": "not measured", "n_contexts": 0, "n_positions": 0}
    none |= dict.fromkeys(("mean", "mean_low", "mean_high", "q50", "q90", "q99", "max"), np.nan)
    return rows or [none | {"counts": "no"}]


def quadrant_rows(piece: Piece) -> list[Row]:
    """Share, signals and gain of each quadrant."""
    rows = []
    for quadrant in (1, 2, 3, 4):
        mask = (piece.frame["quadrant"] == quadrant).to_numpy()
        part = piece.frame[mask]
        row: Row = piece.key | {
            "quadrant": quadrant,
            "share": float(mask.mean()),
            "n_positions": int(mask.sum()),
            "entropy": part["entropy"].mean(),
            "kl_0": part["kl_0"].mean(),
            "compatibility": part["compatibility"].mean(),
        }
        rows.append(row | spread("gain", interval(piece.mean(mask, "gain"), piece.bootstrap)))
    return rows


def kind_rows(piece: Piece) -> list[Row]:
    """Gain of three kinds of Q3 positions (Fig. 3B): of the bank, not of masks trained on."""
    rows = []
    for name, mask in q3_kinds(piece.frame).items():
        row: Row = piece.key | {"top_k": piece.top_k, "mask": name, "n_positions": int(mask.sum())}
        rows.append(row | spread("gain", interval(piece.mean(mask, "gain"), piece.bootstrap)))
    return rows


def q3_kinds(frame: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Rows (pos,) of Q3 in the upper and lower third by D^L, and in the upper third by D^I.

    Raises InputError when no position lies in Q3.
    """
    rows = in_q3(frame)
    learnable, incompatible = frame["learnable"].to_numpy(), frame["incompatible"].to_numpy()
    low, high = np.quantile(learnable[rows], TERTILES)
    cut = np.quantile(incompatible[rows], TERTILES[1])
    return {
        "q3+high-dl": rows & (learnable >= high),
        "q3+low-dl": rows & (learnable <= low),
        "q3+high-di": rows & (incompatible >= cut),
    }


def signal_rows(run: Run, k: int, frame: pd.DataFrame) -> list[Row]:
    """Quantiles of the raw signals at theta_0, and the share of positions with small C."""
    rows = []
    for name in ("compatibility", "disagreement", "kl_0", "entropy", "teacher_entropy"):
        values = frame[name].to_numpy()
        quantiles = np.quantile(values, QUANTILES)
        row: Row = {"run": run.name, "top_k": k, "signal": name, "mean": values.mean()}
        row |= {f"q{round(q * 100):02d}": v for q, v in zip(QUANTILES, quantiles, strict=True)}
        row["under_0.5"] = float((values < 0.5).mean())
        row["under_0.9"] = float((values < 0.9).mean())
        rows.append(row)
    return rows


def answer_rows(piece: Piece, question: Headline) -> list[Row]:
    """One question's number for each outcome, with the interval of the recommended kind."""
    rows = []
    for outcome, _ in OUTCOMES:
        value = recommended_interval(piece.headline(question, outcome), question, piece.bootstrap)
        row = piece.key | {"question": question, "outcome": outcome, "reason": value.reason}
        row["kind"] = value.kind
        rows.append(row | spread("gain", value))
    return rows
