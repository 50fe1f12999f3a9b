"""How a table is shown to people: which columns, under which headings, in which form.

CSV files hold every column at full precision; the page and the Markdown and LaTeX twins show these
views. A cell is formatted here once for all three. A number that is not above the noise of scoring
carries a dagger, and the note under its table says what that noise is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from diagnostics.report.noise import marked

Kind = Literal["text", "count", "number", "interval", "share"]

DAGGER = "†"
NOT_MEASURED = "not measured (the run has no noise floor)"


@dataclass(frozen=True, slots=True)
class Shown:
    """One shown column. Fields: `heading`; `column` of the frame; `kind`; `suffix` of intervals."""

    heading: str
    column: str
    kind: Kind = "number"
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One shown table. Fields: `title`; `caption` that defines every symbol; `columns`."""

    title: str
    caption: str
    columns: tuple[Shown, ...]


_WHO = (Shown("run", "run", "text"), Shown("checkpoint", "checkpoint", "text"))
_K = Shown("K", "top_k", "count")

VIEWS: dict[str, View] = {
    "checkpoints": View(
        "Checkpoints: what training did",
        "Means over every position of the bank. KL is KL(teacher ‖ student) in nats; gain is "
        "KL before less KL after, positive when training moved the student toward the teacher. "
        "Relative gain divides by KL before, so positions with almost nothing to gain dominate "
        "its mean; its median is beside it. Intervals: 95 % prompt-cluster bootstrap. Within noise:"
        " positions whose |gain| is no more than an unchanged checkpoint's at 99 % of positions.",
        (
            *_WHO,
            Shown("KL before", "kl_0"),
            Shown("KL after", "kl"),
            Shown("gain", "gain", "interval"),
            Shown("relative gain", "gain", "interval", "_rel"),
            Shown("median relative", "gain_rel_median"),
            Shown("positions improved", "improved_share", "share"),
            Shown("within noise", "within_noise_share", "share"),
        ),
    ),
    "noise": View(
        "Noise of scoring: gains of a checkpoint that did not change",
        "theta_0 scored a second time, in another batch shape or dtype, over a sample of contexts; "
        "its true gain is 0 everywhere. Mean: signed mean gain, nats, with its 95 % prompt-cluster "
        "interval. Size: |gain| is no more than this at so many positions. Counts: whether the "
        "kind is in this run's gains (another batch shape, or a dtype finer than the run's). Under "
        "each other table stands what the same unchanged checkpoint shows there.",
        (
            Shown("run", "run", "text"),
            Shown("kind", "kind", "text"),
            Shown("contexts", "n_contexts", "count"),
            Shown("positions", "n_positions", "count"),
            Shown("mean gain", "mean", "interval"),
            Shown("size at 50 %", "q50"),
            Shown("90 %", "q90"),
            Shown("99 %", "q99"),
            Shown("largest", "max"),
            Shown("counts", "counts", "text"),
        ),
    ),
    "table01": View(
        "Table 1: high-support less low-support gain inside Q3",
        "Q3 is the low-entropy, high-KL quadrant. Gap: mean gain of the third of Q3 positions with "
        "the most teacher mass C on the student's top-K, less that of the third with the least. "
        "Matched gap: within a prompt, each position above the prompt's median C against the "
        "nearest one not above it in (H̃, D̃, relative position). Nats.",
        (
            *_WHO,
            _K,
            Shown("contexts", "n_contexts", "count"),
            Shown("positions", "n_positions", "count"),
            Shown("in Q3", "n_q3", "count"),
            Shown("gap", "gap", "interval"),
            Shown("matched gap", "matched_gap", "interval"),
            Shown("gap of relative gain", "gap", "interval", "_rel"),
        ),
    ),
    "table05": View(
        "Table 5: inventory",
        "What was scored. Fewer than 100 prompts are a boundary check, not a main result.",
        (
            *_WHO,
            Shown("contexts", "n_contexts", "count"),
            Shown("prompts", "n_prompts", "count"),
            Shown("positions", "n_positions", "count"),
            Shown("use", "use", "text"),
        ),
    ),
    "table06": View(
        "Table 6: other measures of support, inside Q3",
        "The gap of Table 1 with other proxies in C's place. Jaccard is a monotone function of "
        "overlap, so the two agree by construction and are one piece of evidence. bc_union (CBC): "
        "the paper gives no formula; the public code computes the Bhattacharyya coefficient on "
        "the union of both top-Ks. Tied: share of Q3 positions that lie exactly on a cut.",
        (
            *_WHO,
            _K,
            Shown("proxy", "proxy", "text"),
            Shown("in Q3", "n_positions", "count"),
            Shown("gap", "gap", "interval"),
            Shown("gap of relative gain", "gap", "interval", "_rel"),
            Shown("tied", "tied_share", "share"),
        ),
    ),
    "table08": View(
        "Table 8: exact budgets",
        "Every selector keeps exactly ⌈ρN⌉ positions; gain is their mean, in nats. Per keep: gain "
        "/ ρ. H̃, D̃, C̃: mean normalised entropy, disagreement and compatibility of what is kept. "
        "Tied: share of kept positions that only the tie-break decided.",
        (
            *_WHO,
            _K,
            Shown("selector", "selector", "text"),
            Shown("budget", "budget", "share"),
            Shown("kept", "n_kept", "count"),
            Shown("gain", "gain", "interval"),
            Shown("per keep", "gain_per_keep"),
            Shown("relative gain", "gain", "interval", "_rel"),
            Shown("Q3", "q3_share", "share"),
            Shown("H̃", "entropy_norm"),
            Shown("D̃", "disagreement_norm"),
            Shown("C̃", "compatibility_norm"),
            Shown("tied", "tied_share", "share"),
        ),
    ),
    "table09": View(
        "Table 9: regression",
        "Least squares of gain on z-scored predictors: nats of gain per standard deviation. "
        "β_L, β_I: learnable D^L = D̃C̃ and incompatible D^I = D̃(1 − C̃) disagreement, beside H̃, "
        "relative position and H̃_T. Gap: β_L − β_I. ΔR²: over the baseline with D̃ and H̃×D̃; the "
        "decomposed model drops these two, so its ΔR² may be negative.",
        (
            *_WHO,
            _K,
            Shown("scope", "scope", "text"),
            Shown("positions", "n_positions", "count"),
            Shown("β_L", "beta_l", "interval"),
            Shown("β_I", "beta_i", "interval"),
            Shown("gap", "gap", "interval"),
            Shown("gap of relative gain", "gap", "interval", "_rel"),
            Shown("ΔR² decomposed", "delta_r2_decomposed"),
            Shown("ΔR² with C̃", "delta_r2_compatibility"),
        ),
    ),
    "quadrants": View(
        "Quadrants of the entropy–KL plane",
        "Both axes are cut at their median over the bank. Q1: high entropy, high KL. Q2: high, "
        "low. Q3: low, high (confident and in disagreement). Q4: low, low.",
        (
            *_WHO,
            Shown("quadrant", "quadrant", "count"),
            Shown("share", "share", "share"),
            Shown("positions", "n_positions", "count"),
            Shown("mean H", "entropy"),
            Shown("mean KL", "kl_0"),
            Shown("mean C", "compatibility"),
            Shown("gain", "gain", "interval"),
        ),
    ),
    "signals": View(
        "Signals before training",
        "Quantiles over the bank at theta_0: C (teacher mass on the student's top-K), D, KL and "
        "both entropies, in nats where they are information.",
        (
            Shown("run", "run", "text"),
            _K,
            Shown("signal", "signal", "text"),
            Shown("mean", "mean"),
            *(Shown(f"{q} %", f"q{q:02d}") for q in (1, 5, 10, 25, 50, 75, 95)),
            Shown("under 0.5", "under_0.5", "share"),
            Shown("under 0.9", "under_0.9", "share"),
        ),
    ),
}

PAPER_COLUMNS: dict[str, tuple[Shown, ...]] = {
    "table01": (
        Shown("setting", "setting", "text"),
        Shown("context", "context", "text"),
        *(
            c
            for c in VIEWS["table01"].columns
            if c.column in ("top_k", "n_contexts", "n_positions")
        ),
        Shown("gap", "gap", "interval"),
        Shown("matched gap", "matched_gap"),
    ),
    "table05": (
        Shown("setting", "setting", "text"),
        Shown("contexts", "n_contexts", "count"),
        Shown("positions", "n_positions", "count"),
        Shown("use", "use", "text"),
    ),
    "table06": (
        _K,
        Shown("proxy", "proxy", "text"),
        Shown("in Q3", "n_positions", "count"),
        Shown("gap", "gap", "interval"),
    ),
    "table08": (
        Shown("selector", "selector", "text"),
        Shown("budget", "budget", "share"),
        Shown("gain", "gain", "interval"),
        Shown("per keep", "gain_per_keep"),
        Shown("Q3", "q3_share", "share"),
        Shown("H̃", "entropy_norm"),
        Shown("D̃", "disagreement_norm"),
        Shown("C̃", "compatibility_norm"),
    ),
    "table09": (
        _K,
        Shown("in Q3", "n_q3", "count"),
        Shown("β_L", "beta_l"),
        Shown("β_I", "beta_i"),
        Shown("gap", "gap", "interval"),
        Shown("ΔR² decomposed", "delta_r2_decomposed"),
    ),
}


def cells(frame: pd.DataFrame, columns: tuple[Shown, ...]) -> pd.DataFrame:
    """The shown columns as text, one row a row of the frame."""
    rows = frame.to_dict("records")
    return pd.DataFrame({c.heading: [cell(row, c) for row in rows] for c in columns})


def cell(row: dict[Any, Any], shown: Shown) -> str:
    """One cell as text; a missing value is a dash, a missing interval is said."""
    value = row[shown.column + shown.suffix]
    if shown.kind == "text":
        return str(value)
    if shown.kind == "count":
        return f"{int(value):,}"
    if value is None or value != value:
        return "–"
    if shown.kind == "share":
        return percent(value)
    if shown.kind == "interval":
        low, high = (row[f"{shown.column}_{end}{shown.suffix}"] for end in ("low", "high"))
        if low != low:
            return f"{number(value)} (no interval)"
        mark = f" {DAGGER}" if marked(row, shown.column, shown.suffix) else ""
        return f"{number(value)} [{number(low)}, {number(high)}]{mark}"
    return number(value)


def noise_note(frame: pd.DataFrame, columns: tuple[Shown, ...], noise: pd.DataFrame) -> str:
    """What an unchanged checkpoint shows in a table's gains, one sentence a run.

    `noise` is the table of that name. Empty for a table without gains.
    """
    gains = [c for c in columns if f"{c.column}_noise{c.suffix}" in frame]
    if not gains:
        return ""
    several = frame["run"].nunique() > 1
    sentences = []
    for run, rows in frame.groupby("run", sort=False):
        kinds = noise[(noise["run"] == run) & (noise["counts"] == "yes")]["kind"]
        of = f" in {run}" if several else ""
        said = f"({', '.join(kinds)}): {_noise_words(rows, gains)}" if len(kinds) else NOT_MEASURED
        sentences.append(f"Noise of scoring{of} {said}.")
    if any(marked(row, c.column, c.suffix) for row in frame.to_dict("records") for c in gains):
        sentences.append(f"{DAGGER} Not above the noise of scoring.")
    return " ".join(sentences)


def _noise_words(rows: pd.DataFrame, gains: list[Shown]) -> str:
    sizes = [f"{c.heading} {plus_minus(rows[f'{c.column}_noise{c.suffix}'].max())}" for c in gains]
    return f"an unchanged checkpoint comes at most this far from 0: {', '.join(sizes)}"


def plus_minus(noise: float) -> str:
    """A size of noise as ±; said where it was not measured."""
    return f"±{number(noise)}" if noise == noise else "not measured (too few positions)"


def percent(value: float) -> str:
    """A share in per cent: whole where it is whole."""
    return (
        f"{100 * value:.0f} %" if abs(value * 100 - round(value * 100)) < 1e-9 else f"{value:.1%}"
    )


def number(value: float) -> str:
    """Three significant digits, a real minus sign, no exponent in the usual range."""
    if value == 0:
        return "0"
    size = abs(value)
    if 1e-4 <= size < 1e5:
        text = f"{value:.3f}" if 0.1 <= size < 100 else f"{value:#.3g}".rstrip(".")
    else:
        text = f"{value:.2e}"
    return text.replace("-", "−")


def markdown(table: pd.DataFrame, view: View, note: str = "") -> str:
    """A Markdown table of text cells with its title, caption and note."""
    lines = [f"### {view.title}", "", "| " + " | ".join(table.columns) + " |"]
    lines.append("|" + "---|" * len(table.columns))
    lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    return "\n".join([*lines, "", view.caption, *(["", note] if note else []), ""])


def latex(table: pd.DataFrame, view: View, note: str = "") -> str:
    """A booktabs LaTeX table of text cells; needs XeLaTeX or LuaLaTeX for its letters."""
    compile_with = "% compile with XeLaTeX or LuaLaTeX; needs booktabs and an OpenType font\n"
    caption = " ".join(filter(None, (view.caption, note)))
    caption = caption.replace("%", r"\%").replace("_", r"\_").replace("^", r"\^{}")
    body: str = table.to_latex(index=False, escape=True, caption=caption)
    return compile_with + body
