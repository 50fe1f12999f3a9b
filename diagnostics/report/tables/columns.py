"""What the columns of a report's tables hold: declared once, for files, schema and documentation.

`CONTRACT` names the columns that each table of the paper has, always; more may follow them. A
column's ends, noise and relative form are named after it: `gap`, `gap_low`, `gap_noise`, `gap_rel`,
`gap_low_rel`. Not covered: which columns people are shown, and how (`captions`, `live_views`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Type = Literal["string", "integer", "number"]

NATS = "nats"
SHARE = "share, 0 to 1"
NORMALISED = "normalised, 0 to 1"
PERCENT = "per cent"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One column. Fields: `text` what it holds; `unit`, empty for words; `type` in JSON's words."""

    text: str
    unit: str = ""
    type: Type = "number"


def _word(text: str) -> Meaning:
    return Meaning(text, "", "string")


def _count(text: str) -> Meaning:
    return Meaning(text, "count", "integer")


MEANINGS: dict[str, Meaning] = {
    "run": _word("name of the run"),
    "checkpoint": _word("name of the trained checkpoint"),
    "definitions": _word("definition set that made the row's numbers"),
    "setting": _word("teacher and student, as named by who evaluated them"),
    "selector": _word("which positions are kept (DEFINITIONS, section 6)"),
    "mask": _word("selector whose positions carried loss"),
    "proxy": _word("measure of support in C's place"),
    "scope": _word("`all` positions of the bank, or those of `q3`"),
    "use": _word("`main`, or `boundary only` under 100 prompts"),
    "outcome": _word("`gain` (nats) or `gain_rel` (share of KL before)"),
    "statistic": _word("headline number"),
    "number": _word("headline number, or mean gain of what a selector keeps"),
    "reason": _word("why there is no interval, else empty"),
    "short": _word("whether Q3 had fewer positions than asked for"),
    "missing": _word("benchmarks that the arm lacks, else empty"),
    "top_k": _count("support size K"),
    "n_contexts": _count("contexts"),
    "n_prompts": _count("prompts, the clusters of every interval"),
    "n_positions": _count("valid positions that the row is of"),
    "n_q3": _count("positions in Q3"),
    "n_kept": _count("positions kept"),
    "pairs": _count("matched pairs"),
    "seeds": _count("seeds that the row is averaged over"),
    "budget": Meaning("positions asked for, of all valid ones; 0.05 is 5 %", SHARE),
    "keep": Meaning("positions that carried loss, of all valid ones", SHARE),
    "q3_share": Meaning("of the kept positions, those in Q3", SHARE),
    "tied_share": Meaning("positions that only a tie decided", SHARE),
    "prompt_share": Meaning("prompts that give matched pairs", SHARE),
    "share": Meaning("of all valid positions", SHARE),
    "improved_share": Meaning("positions with a gain above 0", SHARE),
    "within_noise_share": Meaning("positions whose gain is within the noise of scoring", SHARE),
    "gain": Meaning("mean KL before less KL after; positive: toward the teacher", NATS),
    "gain_rel": Meaning("mean of gain / KL before; unbounded below", "share of KL before"),
    "gain_sd": Meaning("standard deviation of gain over seeds", NATS),
    "gain_per_keep": Meaning("gain / budget (offline) or gain / keep (live)", NATS),
    "gap": Meaning("high-support less low-support mean gain inside Q3", NATS),
    "matched_gap": Meaning("the gap over pairs of one prompt that are alike otherwise", NATS),
    "contrast": Meaning("of the trained mask: high-C less low-C gain inside Q3", NATS),
    "contrast_sd": Meaning("standard deviation of contrast over seeds", NATS),
    "learnable": Meaning("mean D^L of the mask's positions on the bank", NORMALISED),
    "incompatible": Meaning("mean D^I of the mask's positions on the bank", NORMALISED),
    "compatibility": Meaning("mean C: teacher mass on the student's top-K", SHARE),
    "entropy_norm": Meaning("mean normalised entropy of what is kept", NORMALISED),
    "disagreement_norm": Meaning("mean normalised D of what is kept", NORMALISED),
    "compatibility_norm": Meaning("mean normalised C of what is kept", NORMALISED),
    "beta_l": Meaning("coefficient of D^L", "nats per standard deviation"),
    "beta_i": Meaning("coefficient of D^I", "nats per standard deviation"),
    "delta_r2_decomposed": Meaning("R^2 of the decomposed model less the baseline's", "R^2"),
    "delta_r2_compatibility": Meaning("R^2 with C added less the baseline's", "R^2"),
    "kl_0": Meaning("mean KL(teacher || student before)", NATS),
    "kl": Meaning("mean KL(teacher || student after)", NATS),
    "reverse_kl_0": Meaning("mean KL(student before || teacher)", NATS),
    "reverse_kl": Meaning("mean KL(student after || teacher)", NATS),
    "entropy": Meaning("mean entropy of the student before", NATS),
    "average": Meaning("mean of the benchmarks' means", PERCENT),
    "first": Meaning("the number in the first", "nats, or share of KL before for gain_rel"),
    "second": Meaning("the number in the second", "nats, or share of KL before for gain_rel"),
    "difference": Meaning("first less second", "nats, or share of KL before for gain_rel"),
}
OWN: dict[tuple[str, str], Meaning] = {
    ("table09", "gap"): Meaning("beta_l - beta_i", "nats per standard deviation"),
    ("table01", "n_positions"): _count("valid positions of the bank"),
    ("table05", "n_positions"): _count("valid positions of the bank"),
    ("table06", "n_positions"): _count("positions in Q3"),
}


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


CONTRACT: dict[str, tuple[str, ...]] = {
    "table01": _columns(
        "run checkpoint top_k n_contexts n_positions n_q3 gap gap_low gap_high matched_gap "
        "matched_gap_low matched_gap_high"
    ),
    "table02": _columns(
        "selector budget keep gain gain_low gain_high gain_per_keep contrast contrast_low "
        "contrast_high q3_share seeds"
    ),
    "table03": ("setting", "budget", "selector", "average"),
    "table04": ("setting", "budget", "selector", "average"),
    "table05": ("run", "checkpoint", "n_contexts", "n_prompts", "n_positions", "use"),
    "table06": _columns("run checkpoint top_k proxy n_positions gap gap_low gap_high tied_share"),
    "table07": _columns(
        "mask keep gain gain_low gain_high contrast matched_gap learnable incompatible "
        "compatibility"
    ),
    "table08": _columns(
        "run checkpoint top_k selector budget n_kept gain gain_low gain_high gain_per_keep "
        "q3_share entropy_norm disagreement_norm compatibility_norm tied_share"
    ),
    "table09": _columns(
        "run checkpoint top_k scope n_positions n_q3 beta_l beta_i gap gap_low gap_high "
        "delta_r2_decomposed delta_r2_compatibility"
    ),
    "table10": _columns("selector budget keep gain gain_sd contrast contrast_sd matched_gap seeds"),
    "table11": ("setting", "budget", "selector", "average"),
    "table12": ("setting", "budget", "selector", "average"),
    "table13": ("setting", "budget", "selector", "average"),
}
MAY_LACK = (
    "gain_sd",
    "contrast_sd",
    "matched_gap",
    "budget",
    "average",
)  # null where there is none
ENDS = {
    "low": "lower end of the 95 % prompt-cluster interval of",
    "high": "upper end of the 95 % prompt-cluster interval of",
    "noise": "how far from 0 an unchanged checkpoint comes in",
}
SCORES = {
    "mean": Meaning("mean score over evaluation seeds", PERCENT),
    "sd": Meaning("standard deviation over evaluation seeds, ddof 1", PERCENT),
}
RELATIVE = "_rel"


def meaning(column: str, table: str = "") -> Meaning | None:
    """What a column of a table holds; None where it is not declared."""
    known = OWN.get((table, column)) or MEANINGS.get(column)
    if known is not None:
        return known
    if column.endswith(RELATIVE):
        of = meaning(column.removesuffix(RELATIVE), table)
        return of and replace(of, text=f"{of.text}, of relative gain", unit=_relative(of.unit))
    base, _, end = column.rpartition("_")
    if end in ENDS:
        of = meaning(base, table)
        return of and replace(of, text=f"{ENDS[end]}: {of.text}")
    return SCORES.get(end) if base else None


def _relative(unit: str) -> str:
    return unit.replace(NATS, "share of KL before")
