"""Which tables of live interventions people are shown, with captions that define every symbol."""

from __future__ import annotations

import pandas as pd

from diagnostics.paper.tables import paper_table
from diagnostics.report.contexts.captions import PAPER_COLUMNS as OFFLINE_PAPER
from diagnostics.report.contexts.captions import VIEWS as OFFLINE
from diagnostics.report.tables.views import Shown, View

_MASK = (Shown("selector", "selector", "text"), Shown("budget", "budget", "share"))
_GAIN = (Shown("gain", "gain", "interval"), Shown("± seeds", "gain_sd"))
_CONTRAST = (Shown("contrast", "contrast", "interval"), Shown("± seeds ", "contrast_sd"))
_DEFINED = (
    "Gain: mean over every position of the bank of KL before less KL after training, nats, "
    "positive toward the teacher. Contrast: inside Q3, the high-C third's gain less the low-C "
    "third's; a student that improved everywhere alike has contrast 0. Averaged over seeds at each "
    "position; intervals over prompts, ± over seeds (– for one seed)."
)

VIEWS: dict[str, View] = {
    "table02": View(
        "Table 2: selector check, trained live",
        f"{_DEFINED} Keep: share of positions that carried loss. Per keep: gain / keep. Q3: share "
        "of the bank's positions that the selector itself keeps at this budget.",
        (
            *_MASK,
            Shown("keep", "keep", "share"),
            *_GAIN,
            Shown("per keep", "gain_per_keep"),
            *_CONTRAST,
            Shown("Q3", "q3_share", "share"),
            Shown("seeds", "seeds", "count"),
        ),
    ),
    "targets": View(
        "On and off target, and against random and full",
        "On target: mean gain of the bank's positions that the mask's own selector keeps at this "
        "budget; off target: of all others. None of them was trained on. Over random (at the same "
        "budget) and over full: gain over the whole bank less theirs, paired over prompts. Nats; "
        "intervals over prompts, of gains averaged over seeds.",
        (
            *_MASK,
            Shown("on target", "on_target", "interval"),
            Shown("off target", "off_target", "interval"),
            Shown("over random", "vs_random", "interval"),
            Shown("over full", "vs_full", "interval"),
        ),
    ),
    "table07": View(
        "Table 7: Q3 masks, trained live",
        f"Masks inside Q3, the low-entropy, high-KL quadrant, of matched budgets. {_DEFINED} "
        "Matched gap: the contrast over pairs of one prompt that are alike in (H̃, D̃, position). "
        "D^L, D^I, C: means of the mask's target positions on the bank. Short: Q3 had fewer "
        "positions than the budget asks for.",
        (
            Shown("mask", "mask", "text"),
            Shown("budget", "budget", "share"),
            Shown("keep", "keep", "share"),
            *_GAIN,
            *_CONTRAST,
            Shown("matched gap", "matched_gap", "interval"),
            Shown("D^L", "learnable"),
            Shown("D^I", "incompatible"),
            Shown("C", "compatibility"),
            Shown("short", "short", "text"),
            Shown("seeds", "seeds", "count"),
        ),
    ),
    "table10": View(
        "Table 10: budget sweep, trained live",
        f"Selectors that were trained at several budgets. {_DEFINED} Matched gap: the contrast "
        "over matched pairs.",
        (
            *_MASK,
            Shown("keep", "keep", "share"),
            *_GAIN,
            Shown("per keep", "gain_per_keep"),
            *_CONTRAST,
            Shown("matched gap", "matched_gap", "interval"),
            Shown("± seeds  ", "matched_gap_sd"),
            Shown("seeds", "seeds", "count"),
        ),
    ),
    "table08": View(
        "Table 8: exact budgets, not trained",
        "What each mask aims at on the bank, after training on every position (`full`, averaged "
        f"over its seeds). {OFFLINE['table08'].caption}",
        OFFLINE["table08"].columns[2:],
    ),
    "arms": View(
        "Arms: every training by itself",
        "One row a checkpoint, the numbers of Table 2 of this seed alone. Held-out KL: the last "
        "value of the training log, nats. Skipped: batches that the mask left empty.",
        (
            Shown("checkpoint", "checkpoint", "text"),
            *_MASK,
            Shown("seed", "seed", "count"),
            Shown("keep", "keep", "share"),
            Shown("gain", "gain"),
            Shown("relative gain", "gain_rel"),
            Shown("contrast", "contrast"),
            Shown("matched gap", "matched_gap"),
            Shown("on target", "on_target"),
            Shown("off target", "off_target"),
            Shown("held-out KL", "held_out_kl"),
            Shown("skipped", "skipped", "count"),
        ),
    ),
    "mask_answers": View(
        "Answers in numbers",
        "Every comparison behind the plain answers. Best and peak: the leader's number, then the "
        "leader less each other mask, in bands that hold together in 95 % of samples. Agree: in "
        "how many of the seeds that both masks have the difference has the same sign.",
        (
            Shown("question", "question", "text"),
            Shown("of", "of", "text"),
            Shown("first", "first", "text"),
            Shown("second", "second", "text"),
            Shown("number", "number", "text"),
            Shown("value", "estimate", "interval"),
            Shown("± seeds", "sd"),
            Shown("seeds", "seeds", "count"),
            Shown("agree", "agree", "count"),
            Shown("clear", "verdict", "text"),
        ),
    ),
    "noise": OFFLINE["noise"],
    "missing": View(
        "Arms without numbers",
        "What was asked for and failed or was skipped, and why. No table or figure counts them.",
        (Shown("arm", "checkpoint", "text"), Shown("reason", "reason", "text")),
    ),
}

_PAPER_CONTRAST = (Shown("contrast", "contrast"), Shown("± seeds", "contrast_sd"))
PAPER_COLUMNS: dict[str, tuple[Shown, ...]] = {
    "table02": (
        *_MASK,
        Shown("keep", "keep", "share"),
        Shown("contrast", "contrast"),
        Shown("contrast / keep", "contrast_per_keep"),
        Shown("Q3", "q3_share", "share"),
    ),
    "table07": (
        Shown("mask", "mask", "text"),
        Shown("keep", "keep", "share"),
        *_PAPER_CONTRAST,
        Shown("matched gap", "matched_gap"),
        Shown("D^L", "learnable"),
        Shown("D^I", "incompatible"),
        Shown("C", "compatibility"),
    ),
    "table10": (
        *_MASK,
        Shown("keep", "keep", "share"),
        *_PAPER_CONTRAST,
        Shown("matched gap", "matched_gap"),
        Shown("± seeds ", "matched_gap_sd"),
        Shown("seeds", "seeds", "count"),
    ),
    "table08": OFFLINE_PAPER["table08"],
}


def paper_beside(name: str) -> pd.DataFrame | None:
    """The paper's own table, None where nothing of it can stand beside ours."""
    return paper_table(name) if name in PAPER_COLUMNS else None
