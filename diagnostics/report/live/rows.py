"""Rows of every table of live interventions: from trained masks, over their seeds.

`checkpoint` names all arms that a row is averaged over. Relative gain follows with the suffix
`_rel`. Numbers come from `diagnostics.statistics`; this module only asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from diagnostics.report.contexts.rows import OUTCOMES, table08_row
from diagnostics.report.noise import Row
from diagnostics.statistics.analyses.budgets import top_ns
from diagnostics.statistics.analyses.interventions import NUMBERS, Mask, Rescored
from diagnostics.statistics.analyses.mask_answers import Q3_MASKS, swept
from diagnostics.statistics.analyses.mask_effects import REFERENCES, MaskEffect, mask_effects
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.inference.results import spread

Effects = Mapping[Mask, tuple[MaskEffect, ...]]

TARGET = ("q3_share", "n_target", "short", "learnable", "incompatible", "compatibility")


def effects_of(rescored: Rescored, bootstrap: Bootstrap) -> Effects:
    """Every mask's numbers of each outcome, by mask."""
    found = [mask_effects(rescored, bootstrap, outcome=outcome) for outcome, _ in OUTCOMES]
    return dict(zip(rescored.masks, zip(*found, strict=True), strict=True))


def live_rows(
    run: str, top_k: int, rescored: Rescored, bootstrap: Bootstrap
) -> Iterator[tuple[str, Row]]:
    """(table, row) of tables 2, 7, 10 and 8 and of the targets; some have none of these arms."""
    effects = effects_of(rescored, bootstrap)
    for mask in in_order(effects):
        key = _key(run, rescored, mask)
        yield "table02", table02_row(key, effects[mask])
        yield "targets", targets_row(key, effects[mask])
    inside = [mask for mask in effects if mask[0] in Q3_MASKS]
    for mask in sorted(inside, key=lambda m: (m[1], Q3_MASKS.index(m[0]))):
        yield "table07", table07_row(_key(run, rescored, mask), effects[mask])
    for selector in swept(rescored):
        for mask in sorted(m for m in effects if m[0] == selector):
            yield "table10", table10_row(_key(run, rescored, mask), effects[mask])
    yield from (("table08", row) for row in exact_rows(run, top_k, rescored, bootstrap))


def in_order(effects: Effects) -> list[Mask]:
    """Masks by budget, of one budget the largest gain first."""
    return sorted(effects, key=lambda mask: (mask[1], -effects[mask][0].gain.estimate))


def table02_row(key: Row, found: Sequence[MaskEffect]) -> Row:
    """Table 2's row of one mask from its numbers of each outcome."""
    made = found[0]
    row = key | {"selector": made.selector, "budget": made.budget, "keep": made.keep}
    row |= spread("gain", made.gain) | {"gain_per_keep": made.gain_per_keep}
    row |= spread("contrast", made.contrast)
    row |= {"q3_share": made.q3_share, "seeds": made.seeds}
    for effect, (_, suffix) in zip(found, OUTCOMES, strict=True):
        for name in NUMBERS:
            row |= spread(name, getattr(effect, name), suffix)
        for own in ("gain_sd", "contrast_sd", "matched_gap_sd", "gain_per_keep"):
            row[f"{own}{suffix}"] = getattr(effect, own)
        row |= _against(effect, suffix)
    row |= {name: getattr(made, name) for name in TARGET}
    rest = ("q3_share_trained", "held_out_kl", "skipped", "note")
    return row | {name: getattr(made, name) for name in rest}


def targets_row(key: Row, found: Sequence[MaskEffect]) -> Row:
    """On and off target, and against what a mask is set against."""
    row = key | {"selector": found[0].selector, "budget": found[0].budget}
    for effect, (_, suffix) in zip(found, OUTCOMES, strict=True):
        for name in ("on_target", "off_target"):
            row |= spread(name, getattr(effect, name), suffix)
        row |= _against(effect, suffix)
    return row | {name: getattr(found[0], name) for name in TARGET}


def table07_row(key: Row, found: Sequence[MaskEffect]) -> Row:
    """Table 7's row of one Q3 mask."""
    made = found[0]
    row = key | {"mask": made.selector, "budget": made.budget, "keep": made.keep}
    row |= spread("gain", made.gain) | spread("contrast", made.contrast)
    row |= spread("matched_gap", made.matched_gap)
    row |= {name: getattr(made, name) for name in ("learnable", "incompatible", "compatibility")}
    row |= {name: getattr(made, name) for name in ("gain_sd", "contrast_sd", "seeds")}
    row |= {"n_target": made.n_target, "short": made.short, "q3_share": made.q3_share}
    for name in ("gain", "contrast", "matched_gap"):
        row |= spread(name, getattr(found[-1], name), OUTCOMES[-1][1])
    return row


def table10_row(key: Row, found: Sequence[MaskEffect]) -> Row:
    """Table 10's row of one budget of a selector."""
    made = found[0]
    row = key | {"selector": made.selector, "budget": made.budget, "keep": made.keep}
    for name in ("gain", "contrast", "matched_gap"):
        row |= spread(name, getattr(made, name)) | {f"{name}_sd": getattr(made, f"{name}_sd")}
    row |= {"seeds": made.seeds, "gain_per_keep": made.gain_per_keep} | _against(made, "")
    for name in ("gain", "contrast", "matched_gap"):
        row |= spread(name, getattr(found[-1], name), OUTCOMES[-1][1])
    return row


def exact_rows(run: str, top_k: int, rescored: Rescored, bootstrap: Bootstrap) -> list[Row]:
    """Table 8 for `full`, averaged over its seeds: what each mask aims at, had all been trained.

    None where `full` was not trained, or nothing beside it.
    """
    full = rescored.full
    aims = {mask: kept for mask, kept in rescored.targets.items() if mask != full}
    if full is None or not aims:
        return []
    rows = rescored.masks[full]
    frame = rescored.shared.frame.assign(
        **{outcome: rescored.values(rows, outcome) for outcome, _ in OUTCOMES}
    )
    found = [
        top_ns(frame, aims, bootstrap, outcome=outcome, clusters=rescored.shared.clusters)
        for outcome, _ in OUTCOMES
    ]
    key = _key(run, rescored, full)
    made = [table08_row(key, top_k, pair) for pair in zip(*found, strict=True)]
    return sorted(made, key=lambda row: (row["budget"], -row["gain"]))


def arm_rows(run: str, rescored: Rescored) -> list[Row]:
    """One row an arm: what each seed gave, and what its training said."""
    rows = []
    by_seed = {
        (number, mask, outcome): rescored.by_seed(number, mask, outcome)
        for number in NUMBERS
        for mask in rescored.masks
        for outcome, _ in OUTCOMES
    }
    for arm in rescored.arms:
        row: Row = {"run": run, "checkpoint": arm.checkpoint, "selector": arm.selector}
        row |= {"budget": arm.budget, "seed": arm.seed, "keep": arm.keep}
        for outcome, suffix in OUTCOMES:
            for number in NUMBERS:
                row[f"{number}{suffix}"] = by_seed[number, arm.mask, outcome][arm.seed]
        share = float("nan") if arm.q3_share is None else arm.q3_share
        row |= {"held_out_kl": arm.held_out_kl, "skipped": arm.skipped}
        rows.append(row | {"q3_share_trained": share})
    return rows


def missing_rows(run: str, missing: Mapping[str, str]) -> list[Row]:
    """Arms that have no numbers, and why."""
    return [{"run": run, "checkpoint": name, "reason": why} for name, why in missing.items()]


def with_difference_noise(table: pd.DataFrame, noise: float) -> pd.DataFrame:
    """A table with the noise of its differences of gain: each side has a gain's, `noise`."""
    if "vs_full" not in table:
        return table
    return table.assign(**{f"vs_{name}_noise": 2 * noise for name in REFERENCES})


def _key(run: str, rescored: Rescored, mask: Mask) -> Row:
    names = ", ".join(arm.checkpoint for arm in rescored.of(mask))
    return {"run": run, "checkpoint": names}


def _against(effect: MaskEffect, suffix: str) -> Row:
    row: Row = {}
    for name in REFERENCES:
        row |= spread(f"vs_{name}", getattr(effect, f"vs_{name}"), suffix)
        for what in ("seeds", "agree"):
            row[f"vs_{name}_{what}{suffix}"] = getattr(effect, f"vs_{name}_{what}")
    return row
