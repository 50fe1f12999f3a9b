"""From runs to results: every table of a report and the plain answers, as frames and records.

Columns of the paper's tables are the contract's; the same numbers for relative gain follow them
with the suffix `_rel`. Numbers come from `diagnostics.statistics`; this module only asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.files import sha256_text
from diagnostics.progress import Advance, silent
from diagnostics.scoring.run import Run
from diagnostics.statistics.bootstrap import (
    Floats,
    Interval,
    difference_interval,
    draw_counts,
    mean_interval,
)
from diagnostics.statistics.budgets import kept_means, signals_of, top_n
from diagnostics.statistics.gaps import matched_gap, support_gap
from diagnostics.statistics.regression import Decomposition, Outcome, Scope, decompose
from diagnostics.statistics.selectors import Selection, Selector, select
from diagnostics.statistics.tokens import token_table

Definitions = Literal["paper", "released"]

SUPPORTS = (8, 16, 32)
BUDGETS = (0.01, 0.03, 0.05, 0.10)
ANSWER_BUDGET = 0.05
TABLE_SELECTORS: tuple[Selector, ...] = (
    "teachability",
    "kl",
    "tip",
    "entropy",
    "compatibility",
    "incompatible",
    "random",
)
SCOPES: tuple[Scope, ...] = ("all", "q3")
PROXIES = ("compatibility", "bc_union", "jaccard", "overlap", "shared_teacher_mass")
OUTCOMES: tuple[tuple[Outcome, str], ...] = (("gain", ""), ("gain_rel", "_rel"))
QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.95)
MAIN_PROMPTS = 100  # fewer prompts than this are called a boundary check, as the paper does with 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What a report is made with."""

    definitions: Definitions = "paper"
    top_k: int = 16
    draws: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One plain answer. Fields: `question` key; `outcome`; `value` with interval; `text` of it."""

    run: str
    checkpoint: str
    question: str
    outcome: Outcome
    value: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything a report says. `tables` by name; `tokens` the first run's table at `top_k`."""

    settings: ReportSettings
    runs: list[dict[str, Any]]
    tables: dict[str, pd.DataFrame]
    answers: list[Answer]
    tokens: pd.DataFrame


@dataclass(frozen=True, slots=True)
class _Slice:
    """One checkpoint of one run at one K, with the run's draws."""

    run: str
    checkpoint: str
    top_k: int
    frame: pd.DataFrame
    counts: Floats

    @property
    def key(self) -> dict[str, Any]:
        return {"run": self.run, "checkpoint": self.checkpoint}


def analyse(runs: Sequence[Run], settings: ReportSettings, advance: Advance = silent) -> Results:
    """All tables and answers of some runs.

    Raises InputError for a K beyond a run's, two runs of one name, or a bank of a single
    prompt (no interval can be had, so no report).
    """
    _check(runs, settings)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    answers: list[Answer] = []
    tokens: pd.DataFrame | None = None
    for run in runs:
        for k in supports(run, settings.top_k):
            frame = token_table(run, k)
            if tokens is None and k == settings.top_k:
                tokens = frame
            pieces = list(_slices(run, k, frame, settings))
            rows["signals"] += _signal_rows(run, k, pieces[0].frame)
            kept = _selections(pieces[0].frame, settings.seed)
            for piece in pieces:
                main = k == settings.top_k
                fits = {
                    (s, o): decompose(piece.frame, piece.counts, scope=s, outcome=o)
                    for s in SCOPES
                    for o, _ in OUTCOMES
                }
                rows["table01"].append(_table01(piece))
                rows["table06"] += _table06(piece)
                rows["table09"] += _table09(piece, fits)
                rows["table08"] += _table08(piece, kept)
                if main:
                    rows["table05"].append(_table05(piece))
                    rows["checkpoints"].append(_checkpoint_row(piece))
                    rows["quadrants"] += _quadrant_rows(piece)
                    answers += _answers(piece, fits, kept)
                advance(1)
    assert tokens is not None, "supports() always holds settings.top_k"
    return Results(
        settings=settings,
        runs=[describe(run) for run in runs],
        tables={name: pd.DataFrame(rows[name]) for name in TABLES},
        answers=answers,
        tokens=tokens,
    )


def supports(run: Run, top_k: int) -> list[int]:
    """The support sizes a report shows: the paper's that the run has, and the asked one."""
    return sorted({k for k in SUPPORTS if k <= run.top_k} | {top_k})


def describe(run: Run) -> dict[str, Any]:
    """A run's identity for `results.json` and the page's foot."""
    manifest = run.manifest
    stamp = [manifest["bank"]["digest"], manifest["teacher"], manifest["student"]]
    return {
        "name": run.name,
        "bank_digest": manifest["bank"]["digest"],
        "run_digest": sha256_text(repr((stamp, manifest["checkpoints"], manifest["settings"]))),
        "teacher": manifest["teacher"],
        "student": manifest["student"],
        "checkpoints": manifest["checkpoints"],
        "settings": manifest["settings"],
        "libraries": manifest["libraries"],
    }


def check_definitions(name: str) -> Definitions:
    """The definition set of a name. Raises InputError for one that is not there."""
    if name != "paper":
        raise InputError(
            where="--definitions",
            expected="`paper`, the set that is there so far",
            got=repr(name),
            fix="leave the option out",
        )
    return "paper"


def _check(runs: Sequence[Run], settings: ReportSettings) -> None:
    names = [run.name for run in runs]
    if len(set(names)) != len(names):
        raise InputError(
            where="report",
            expected="runs of different names",
            got=", ".join(names),
            fix="score one of them again with another --name",
        )
    for run in runs:
        if settings.top_k > run.top_k or settings.top_k < 1:
            raise InputError(
                where=str(run.folder),
                expected=f"--top-k from 1 to {run.top_k}, what the run stored",
                got=str(settings.top_k),
                fix="choose a smaller one, or rescore with a larger --top-k",
            )
        prompts = len(set(run.contexts()[1]))
        if prompts < 2:
            raise InputError(
                where=str(run.folder),
                expected="at least two prompts: one cluster has no interval",
                got=str(prompts),
                fix="build a bank of more prompts",
            )


def _slices(run: Run, k: int, frame: pd.DataFrame, settings: ReportSettings) -> Iterator[_Slice]:
    count = frame["prompt_id"].nunique()
    counts = draw_counts(count, settings.draws, settings.seed)
    for name, part in frame.groupby("checkpoint", observed=True, sort=False):
        yield _Slice(run.name, str(name), k, part.reset_index(drop=True), counts)


def _spread(name: str, value: Interval, suffix: str = "") -> dict[str, float]:
    """An interval as three columns."""
    return {
        f"{name}{suffix}": value.estimate,
        f"{name}_low{suffix}": value.low,
        f"{name}_high{suffix}": value.high,
    }


def _table01(piece: _Slice) -> dict[str, Any]:
    frame = piece.frame
    row = piece.key | {
        "top_k": piece.top_k,
        "n_contexts": frame["context_id"].nunique(),
        "n_positions": len(frame),
        "n_q3": int((frame["quadrant"] == 3).sum()),
    }
    extra: dict[str, Any] = {}
    for outcome, suffix in OUTCOMES:
        gap = support_gap(frame, "compatibility", piece.counts, outcome=outcome)
        matched = matched_gap(frame, "compatibility", piece.counts, outcome=outcome)
        row |= _spread("gap", gap.gap, suffix) | _spread("matched_gap", matched.gap, suffix)
        after = matched.balance["difference_after"].abs().max()
        extra = {
            "pairs": matched.pairs,
            "prompt_share": matched.prompt_share,
            "largest_imbalance": after,
            "tied_share": gap.tied_share,
        }
    return row | extra


def _table05(piece: _Slice) -> dict[str, Any]:
    prompts = piece.frame["prompt_id"].nunique()
    return piece.key | {
        "n_contexts": piece.frame["context_id"].nunique(),
        "n_prompts": prompts,
        "n_positions": len(piece.frame),
        "use": "main" if prompts >= MAIN_PROMPTS else "boundary only",
    }


def _table06(piece: _Slice) -> list[dict[str, Any]]:
    rows = []
    for proxy in PROXIES:
        row: dict[str, Any] = piece.key | {"top_k": piece.top_k, "proxy": proxy}
        for outcome, suffix in OUTCOMES:
            gap = support_gap(piece.frame, proxy, piece.counts, outcome=outcome)
            row |= {"n_positions": gap.n_positions} | _spread("gap", gap.gap, suffix)
            row |= {"tied_share": gap.tied_share, "n_high": gap.n_high, "n_low": gap.n_low}
        rows.append(row)
    return rows


def _selections(frame: pd.DataFrame, seed: int) -> dict[tuple[Selector, float], Selection]:
    """What each selector keeps at each budget: the same for every checkpoint."""
    signals = signals_of(frame)
    return {(s, b): select(s, b, signals, seed) for s in TABLE_SELECTORS for b in BUDGETS}


def _table08(piece: _Slice, kept: dict[tuple[Selector, float], Selection]) -> list[dict[str, Any]]:
    rows = []
    for (selector, budget), selection in kept.items():
        gain, rel = (
            top_n(piece.frame, selector, budget, piece.counts, outcome=o, selection=selection)
            for o, _ in OUTCOMES
        )
        row = piece.key | {"top_k": piece.top_k, "selector": selector, "budget": budget}
        row |= {"n_kept": gain.n_kept} | _spread("gain", gain.gain)
        for name in ("gain_per_keep", "q3_share", "entropy_norm", "disagreement_norm"):
            row[name] = getattr(gain, name)
        row |= {"compatibility_norm": gain.compatibility_norm, "tied_share": gain.tied_share}
        rows.append(row | _spread("gain", rel.gain, "_rel"))
    return rows


def _table09(
    piece: _Slice, fits: dict[tuple[Scope, Outcome], Decomposition]
) -> list[dict[str, Any]]:
    rows = []
    for scope in ("all", "q3"):
        row: dict[str, Any] = piece.key | {"top_k": piece.top_k, "scope": scope}
        for outcome, suffix in OUTCOMES:
            fit = fits[scope, outcome]
            row |= {"n_positions": fit.n_positions, "n_q3": fit.n_q3}
            row |= {f"beta_l{suffix}": fit.beta_l.estimate, f"beta_i{suffix}": fit.beta_i.estimate}
            row |= _spread("gap", fit.gap, suffix)
            row |= {
                f"delta_r2_decomposed{suffix}": fit.delta_r2_decomposed.estimate,
                f"delta_r2_compatibility{suffix}": fit.delta_r2_compatibility.estimate,
            }
            ends: dict[str, float] = {}
            for name in ("beta_l", "beta_i", "delta_r2_decomposed", "delta_r2_compatibility"):
                value: Interval = getattr(fit, name)
                ends |= {f"{name}_low{suffix}": value.low, f"{name}_high{suffix}": value.high}
            row |= ends
        rows.append(row)
    return rows


def _checkpoint_row(piece: _Slice) -> dict[str, Any]:
    """Mean gain over the whole bank: what training did, before any question of where."""
    frame = piece.frame
    everywhere = np.ones(len(frame), dtype=bool)
    row: dict[str, Any] = piece.key | {"kl_0": frame["kl_0"].mean(), "kl": frame["kl"].mean()}
    for outcome, suffix in OUTCOMES:
        row |= _spread(
            "gain", mean_interval(kept_means(frame, everywhere, outcome), piece.counts), suffix
        )
    row["gain_rel_median"] = frame["gain_rel"].median()
    row["improved_share"] = float((frame["gain"] > 0).mean())
    row["reverse_kl_0"] = frame["reverse_kl_0"].mean()
    row["reverse_kl"] = frame["reverse_kl"].mean()
    return row


def _quadrant_rows(piece: _Slice) -> list[dict[str, Any]]:
    """Share, signals and gain of each quadrant."""
    rows = []
    for quadrant in (1, 2, 3, 4):
        mask = (piece.frame["quadrant"] == quadrant).to_numpy()
        part = piece.frame[mask]
        row: dict[str, Any] = piece.key | {
            "quadrant": quadrant,
            "share": float(mask.mean()),
            "n_positions": int(mask.sum()),
            "entropy": part["entropy"].mean(),
            "kl_0": part["kl_0"].mean(),
            "compatibility": part["compatibility"].mean(),
        }
        rows.append(
            row
            | _spread("gain", mean_interval(kept_means(piece.frame, mask, "gain"), piece.counts))
        )
    return rows


def _signal_rows(run: Run, k: int, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Quantiles of the raw signals at theta_0, and the share of positions with small C."""
    rows = []
    for name in ("compatibility", "disagreement", "kl_0", "entropy", "teacher_entropy"):
        values = frame[name].to_numpy()
        quantiles = np.quantile(values, QUANTILES)
        row: dict[str, Any] = {"run": run.name, "top_k": k, "signal": name, "mean": values.mean()}
        row |= {f"q{round(q * 100):02d}": v for q, v in zip(QUANTILES, quantiles, strict=True)}
        row["under_0.5"] = float((values < 0.5).mean())
        row["under_0.9"] = float((values < 0.9).mean())
        rows.append(row)
    return rows


def _answers(
    piece: _Slice,
    fits: dict[tuple[Scope, Outcome], Decomposition],
    kept: dict[tuple[Selector, float], Selection],
) -> list[Answer]:
    answers = []
    for outcome, _ in OUTCOMES:
        by_kl, by_dl = (
            kept_means(piece.frame, kept[selector, ANSWER_BUDGET].mask, outcome)
            for selector in ("kl", "teachability")
        )
        values = {
            "beta": fits["all", outcome].gap,
            "beta_q3": fits["q3", outcome].gap,
            "gap": support_gap(piece.frame, "compatibility", piece.counts, outcome=outcome).gap,
            "budget": difference_interval(by_dl, by_kl, piece.counts),
        }
        answers += [
            Answer(
                run=piece.run,
                checkpoint=piece.checkpoint,
                question=question,
                outcome=outcome,
                value=value,
            )
            for question, value in values.items()
        ]
    return answers


TABLES = (
    "checkpoints",
    "table01",
    "table05",
    "table06",
    "table08",
    "table09",
    "quadrants",
    "signals",
)
