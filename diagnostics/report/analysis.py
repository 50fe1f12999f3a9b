"""From runs to results: every table of a report and the plain answers, as frames and records.

Columns of the paper's tables are the contract's; the same numbers for relative gain follow them
with the suffix `_rel`. Numbers come from `diagnostics.statistics`; this module only asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from diagnostics.errors import InputError
from diagnostics.progress import Advance, silent
from diagnostics.report.noise import NO_FLOOR, Floor, Row, measure
from diagnostics.report.scoring import describe
from diagnostics.scoring.run import Run
from diagnostics.statistics.bootstrap import Bootstrap, Interval, difference, interval
from diagnostics.statistics.budgets import kept_means, signals_of, top_n
from diagnostics.statistics.gaps import matched_gap, support_gap
from diagnostics.statistics.noise import (
    NoiseFloor,
    counts_against,
    in_noise,
    noise_floor,
    unchanged_tokens,
)
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

    @property
    def bootstrap(self) -> Bootstrap:
        """How its intervals are made."""
        return Bootstrap(draws=self.draws, seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One plain answer.

    Fields: `question` key; `outcome`; `value` with its interval; `noise` how far from 0 the same
    value of an unchanged checkpoint comes, NaN where that was not measured.
    """

    run: str
    checkpoint: str
    question: str
    outcome: Outcome
    value: Interval
    noise: float

    def verdict(self) -> str:
        """`yes` or `no` where the interval lies beyond the noise of scoring, else `unclear`."""
        return self.value.verdict(self.noise)

    def in_noise(self) -> bool:
        """Whether the noise of scoring alone keeps it from being clear, or the value is in it."""
        return in_noise(self.value, self.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything a report says.

    Fields: `tables` by name; `tokens` the first run's table at `top_k`; `unchanged` the same for
    theta_0 scored a second time, one table for each kind of noise that counts.
    """

    settings: ReportSettings
    runs: list[dict[str, Any]]
    tables: dict[str, pd.DataFrame]
    answers: list[Answer]
    tokens: pd.DataFrame
    unchanged: list[pd.DataFrame]


@dataclass(frozen=True, slots=True)
class _Slice:
    """One checkpoint of one run at one K: its rows, the run's draws, what each selector keeps."""

    run: str
    checkpoint: str
    top_k: int
    frame: pd.DataFrame
    bootstrap: Bootstrap
    kept: dict[tuple[Selector, float], Selection]
    fits: dict[tuple[Scope, Outcome], Decomposition] = field(default_factory=dict)

    @property
    def key(self) -> Row:
        return {"run": self.run, "checkpoint": self.checkpoint}

    def fit(self, scope: Scope, outcome: Outcome) -> Decomposition:
        """The regression, made once."""
        if (scope, outcome) not in self.fits:
            made = decompose(self.frame, self.bootstrap, scope=scope, outcome=outcome)
            self.fits[scope, outcome] = made
        return self.fits[scope, outcome]


def analyse(runs: Sequence[Run], settings: ReportSettings, advance: Advance = silent) -> Results:
    """All tables and answers of some runs.

    Raises InputError for a K beyond a run's, two runs of one name, a teacher known by its lists
    alone, or a bank of a single prompt (no interval can be had, so no report).
    """
    _check(runs, settings)
    rows: dict[str, list[Row]] = {name: [] for name in (*TABLES, "answers")}
    records: list[dict[str, Any]] = []
    shown: tuple[pd.DataFrame, list[pd.DataFrame]] | None = None
    for run in runs:
        for k in supports(run, settings.top_k):
            frame, main = token_table(run, k), k == settings.top_k
            pieces = list(_slices(run, k, frame, settings))
            twice = _scored_twice(run, pieces[0], settings)
            noise = [piece for piece in twice if _counts(run, piece.checkpoint)]
            floors = [noise_floor(p.checkpoint, p.frame, p.bootstrap) for p in twice]
            within = [floor for floor in floors if _counts(run, floor.kind)]
            floor = Floor(reach=measure(_unchanged_rows(noise, main)), kinds=within)
            for piece in pieces:
                for name, make in _tables(piece, floor, main):
                    rows[name] += [floor.beside(name, row) for row in make()]
                advance(1)
            rows["signals"] += _signal_rows(run, k, pieces[0].frame)
            if main:
                rows["noise"] += _noise_rows(run, floors)
                records.append(describe(run, floors))
                shown = shown or (frame, [piece.frame for piece in noise])
    assert shown is not None, "supports() always holds settings.top_k"
    return Results(
        settings=settings,
        runs=records,
        tables={name: pd.DataFrame(rows[name]) for name in TABLES},
        answers=[_answer(row) for row in rows["answers"]],
        tokens=shown[0],
        unchanged=shown[1],
    )


def supports(run: Run, top_k: int) -> list[int]:
    """The support sizes a report shows: the paper's that the run has, and the asked one."""
    return sorted({k for k in SUPPORTS if k <= run.top_k} | {top_k})


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
        if run.listed:
            raise InputError(
                where=str(run.folder),
                expected="a teacher whose whole distribution is known: gain needs KL",
                got=f"one known by its top-k lists alone ({run.manifest['teacher']['model']})",
                fix="score the bank with the teacher's weights; "
                "`diagnostics tokens` gives D, C-hat and the bounds of this run",
            )
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
    kept = None
    for name, rows in frame.groupby("checkpoint", observed=True, sort=False):
        part = rows.reset_index(drop=True)
        kept = kept or _selections(part, settings.seed)
        yield _Slice(run.name, str(name), k, part, settings.bootstrap, kept)


def _scored_twice(run: Run, piece: _Slice, settings: ReportSettings) -> list[_Slice]:
    """The unchanged checkpoint of each kind of noise; selectors keep what they keep in `piece`."""
    found = []
    for kind in run.noise_kinds:
        frame = unchanged_tokens(piece.frame, run, kind)
        kept = {key: replace(s, mask=s.mask[frame.index]) for key, s in piece.kept.items()}
        frame = frame.reset_index(drop=True)
        found.append(_Slice(run.name, kind, piece.top_k, frame, settings.bootstrap, kept))
    return found


def _counts(run: Run, kind: str) -> bool:
    return counts_against(kind, str(run.manifest["settings"]["dtype"]))


def _unchanged_rows(pieces: Sequence[_Slice], main: bool) -> Iterator[tuple[str, Row]]:
    """(table, row) of unchanged checkpoints; without those that have too few positions."""
    for piece in pieces:
        for name, make in _tables(piece, NO_FLOOR, main):
            try:
                rows = make()
            except InputError:  # the sample is too small for this one; its noise stays unmeasured
                continue
            yield from ((name, row) for row in rows)


def _tables(
    piece: _Slice, floor: Floor, main: bool
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """(table, what makes its rows of one checkpoint at one K); some are of the `main` K alone."""
    yield "table01", partial(_table01, piece)
    yield "table06", partial(_table06, piece)
    for scope in SCOPES:
        yield "table09", partial(_table09, piece, scope)
    yield "table08", partial(_table08, piece)
    if main:
        yield "table05", partial(_table05, piece)
        yield "checkpoints", partial(_checkpoint_rows, piece, floor.kinds)
        yield "quadrants", partial(_quadrant_rows, piece)
        for question in ANSWERS:
            yield "answers", partial(_answer_rows, piece, question)


def _spread(name: str, value: Interval, suffix: str = "") -> dict[str, float]:
    """An interval as three columns."""
    return {
        f"{name}{suffix}": value.estimate,
        f"{name}_low{suffix}": value.low,
        f"{name}_high{suffix}": value.high,
    }


def _table01(piece: _Slice) -> list[Row]:
    frame = piece.frame
    row = piece.key | {
        "top_k": piece.top_k,
        "n_contexts": frame["context_id"].nunique(),
        "n_positions": len(frame),
        "n_q3": int((frame["quadrant"] == 3).sum()),
    }
    extra: dict[str, Any] = {}
    for outcome, suffix in OUTCOMES:
        gap = support_gap(frame, "compatibility", piece.bootstrap, outcome=outcome)
        matched = matched_gap(frame, "compatibility", piece.bootstrap, outcome=outcome)
        row |= _spread("gap", gap.gap, suffix) | _spread("matched_gap", matched.gap, suffix)
        after = matched.balance["difference_after"].abs().max()
        extra = {
            "pairs": matched.pairs,
            "prompt_share": matched.prompt_share,
            "largest_imbalance": after,
            "tied_share": gap.tied_share,
        }
    return [row | extra]


def _table05(piece: _Slice) -> list[Row]:
    prompts = piece.frame["prompt_id"].nunique()
    row = piece.key | {
        "n_contexts": piece.frame["context_id"].nunique(),
        "n_prompts": prompts,
        "n_positions": len(piece.frame),
        "use": "main" if prompts >= MAIN_PROMPTS else "boundary only",
    }
    return [row]


def _table06(piece: _Slice) -> list[Row]:
    rows = []
    for proxy in PROXIES:
        row: Row = piece.key | {"top_k": piece.top_k, "proxy": proxy}
        for outcome, suffix in OUTCOMES:
            gap = support_gap(piece.frame, proxy, piece.bootstrap, outcome=outcome)
            row |= {"n_positions": gap.n_positions} | _spread("gap", gap.gap, suffix)
            row |= {"tied_share": gap.tied_share, "n_high": gap.n_high, "n_low": gap.n_low}
        rows.append(row)
    return rows


def _selections(frame: pd.DataFrame, seed: int) -> dict[tuple[Selector, float], Selection]:
    """What each selector keeps at each budget: the same for every checkpoint."""
    signals = signals_of(frame)
    return {(s, b): select(s, b, signals, seed) for s in TABLE_SELECTORS for b in BUDGETS}


def _table08(piece: _Slice) -> list[Row]:
    rows = []
    for (selector, budget), selection in piece.kept.items():
        gain, rel = (
            top_n(piece.frame, selector, budget, piece.bootstrap, outcome=o, selection=selection)
            for o, _ in OUTCOMES
        )
        row = piece.key | {"top_k": piece.top_k, "selector": selector, "budget": budget}
        row |= {"n_kept": gain.n_kept} | _spread("gain", gain.gain)
        for name in ("gain_per_keep", "q3_share", "entropy_norm", "disagreement_norm"):
            row[name] = getattr(gain, name)
        row |= {"compatibility_norm": gain.compatibility_norm, "tied_share": gain.tied_share}
        rows.append(row | _spread("gain", rel.gain, "_rel"))
    return rows


def _table09(piece: _Slice, scope: Scope) -> list[Row]:
    row = piece.key | {"top_k": piece.top_k, "scope": scope}
    for outcome, suffix in OUTCOMES:
        fit = piece.fit(scope, outcome)
        row |= {"n_positions": fit.n_positions, "n_q3": fit.n_q3}
        row |= {f"beta_l{suffix}": fit.beta_l.estimate, f"beta_i{suffix}": fit.beta_i.estimate}
        row |= _spread("gap", fit.gap, suffix)
        row |= {
            f"delta_r2_decomposed{suffix}": fit.delta_r2_decomposed.estimate,
            f"delta_r2_compatibility{suffix}": fit.delta_r2_compatibility.estimate,
        }
        for name in ("beta_l", "beta_i", "delta_r2_decomposed", "delta_r2_compatibility"):
            value: Interval = getattr(fit, name)
            row |= {f"{name}_low{suffix}": value.low, f"{name}_high{suffix}": value.high}
    return [row]


def _checkpoint_rows(piece: _Slice, floors: Sequence[NoiseFloor]) -> list[Row]:
    """Mean gain over the whole bank: what training did, before any question of where."""
    frame = piece.frame
    everywhere = np.ones(len(frame), dtype=bool)
    row: Row = piece.key | {"kl_0": frame["kl_0"].mean(), "kl": frame["kl"].mean()}
    for outcome, suffix in OUTCOMES:
        row |= _spread(
            "gain", interval(kept_means(frame, everywhere, outcome), piece.bootstrap), suffix
        )
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


def _noise_rows(run: Run, floors: Sequence[NoiseFloor]) -> list[Row]:
    """What an unchanged checkpoint shows, one row a kind; one that says so where there is none."""
    rows = []
    for floor in floors:
        row: Row = {"run": run.name, "kind": floor.kind}
        row |= {"n_contexts": floor.n_contexts, "n_positions": floor.n_positions}
        row |= _spread("mean", floor.mean)
        row |= {name: getattr(floor, name) for name in ("q50", "q90", "q99", "max")}
        rows.append(row | {"counts": "yes" if _counts(run, floor.kind) else "no"})
    none = {"run": run.name, "kind": "not measured", "n_contexts": 0, "n_positions": 0}
    none |= dict.fromkeys(("mean", "mean_low", "mean_high", "q50", "q90", "q99", "max"), np.nan)
    return rows or [none | {"counts": "no"}]


def _quadrant_rows(piece: _Slice) -> list[Row]:
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
        rows.append(
            row | _spread("gain", interval(kept_means(piece.frame, mask, "gain"), piece.bootstrap))
        )
    return rows


def _signal_rows(run: Run, k: int, frame: pd.DataFrame) -> list[Row]:
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


def _answer_rows(piece: _Slice, question: str) -> list[Row]:
    rows = []
    for outcome, _ in OUTCOMES:
        value = ANSWERS[question](piece, outcome)
        row = piece.key | {"question": question, "outcome": outcome, "reason": value.reason}
        rows.append(row | _spread("gain", value))
    return rows


def _answer(row: Row) -> Answer:
    value = Interval(row["gain"], row["gain_low"], row["gain_high"], row["reason"])
    names = ("run", "checkpoint", "question", "outcome")
    return Answer(**{name: row[name] for name in names}, value=value, noise=row["gain_noise"])


def _beta_gap(piece: _Slice, outcome: Outcome) -> Interval:
    return piece.fit("all", outcome).gap


def _beta_gap_q3(piece: _Slice, outcome: Outcome) -> Interval:
    return piece.fit("q3", outcome).gap


def _support_gap(piece: _Slice, outcome: Outcome) -> Interval:
    return support_gap(piece.frame, "compatibility", piece.bootstrap, outcome=outcome).gap


def _budget_difference(piece: _Slice, outcome: Outcome) -> Interval:
    by_dl, by_kl = (
        kept_means(piece.frame, piece.kept[selector, ANSWER_BUDGET].mask, outcome)
        for selector in ("teachability", "kl")
    )
    return difference(by_dl, by_kl, piece.bootstrap)


ANSWERS: dict[str, Callable[[_Slice, Outcome], Interval]] = {
    "beta": _beta_gap,
    "beta_q3": _beta_gap_q3,
    "gap": _support_gap,
    "budget": _budget_difference,
}
TABLES = (
    "checkpoints",
    "noise",
    "table01",
    "table05",
    "table06",
    "table08",
    "table09",
    "quadrants",
    "signals",
)
