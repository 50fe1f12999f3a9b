"""Token selection as a pure function of tensors (paper, section 4; DEFINITIONS, section 6).

What each selector ranks by is `statistics.selection.rules`, the analysis's own; the order and what
a budget keeps are those of `statistics.selection.selectors`, bit for bit, found by stable sorts of
fixed shape on the batch's own device. Nothing waits for the device, so that a training step may
compile it whole. Not covered: gathering over ranks (give this function the whole batch).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.selection.counts import kept_count, written_ratio
from diagnostics.selection.identity import identities, uniform, unsigned_order
from diagnostics.selection.scales import quantiles, scales
from diagnostics.selection.signals import TokenSignals
from diagnostics.statistics.selection.rules import RULES, Rule
from diagnostics.statistics.selection.selectors import Selector, check_budget, check_selector
from diagnostics.statistics.tables.origin import MEDIAN

NAMES = {"kl_0": "kl", "reverse_kl_0": "reverse_kl"}  # of the analysis: the student is theta_0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a selector keeps of a batch; tensors on its device, which nobody has waited for.

    Fields: `mask` (batch, time) bool, True where kept, all False where nothing can be kept; 0-dim:
    `tied_share` float64, of the positions kept by rank the share whose score equals their lowest
    while another position of that score was dropped; `wanted` int64, n of the budget; `short` bool,
    Q3 had fewer, so that all of it is kept; `added` int64, how many more were kept so that no row
    goes without.
    """

    mask: Tensor
    tied_share: Tensor
    wanted: Tensor
    short: Tensor
    added: Tensor

    @property
    def empty(self) -> bool:
        """Whether nothing is kept: skip the batch, and count it. Waits for the device."""
        return not bool(self.mask.any())


@torch.no_grad()
def select_tokens(
    selector: Selector,
    budget: float,
    signals: TokenSignals,
    mask: Tensor,
    *,
    rows: Tensor | None = None,
    seed: int = 0,
    one_per_row: bool = False,
) -> Kept:
    """The positions that a selector keeps of those that are valid, `mask` (batch, time) bool.

    `rows` (batch,) int64 name the rollouts for ties and for `random`; `row_hashes` makes such names
    from content. By default they are row indices, so that what is kept depends on the order of the
    batch. `one_per_row` keeps the first-ranked position of a row that would go without.

    An empty Q3, a budget that `tip-original` rounds down to none, no valid position, or a needed
    signal that is not finite at one (`check_signals` says where): nothing is kept, `Kept.empty`.
    Raises InputError for a budget outside (0, 1], an unknown selector, and a signal that is missing
    or of another shape than the mask.
    """
    check_budget(budget)
    check_selector(selector)
    needs = _needed(selector, signals, mask)
    valid = mask.bool().reshape(-1)
    if selector == "full" or not mask.numel():
        return _everything(mask)
    if rows is None:
        rows = torch.arange(len(mask), device=mask.device)
    identity = identities(rows.long(), mask.bool()).reshape(-1)
    rule = RULES.get(selector)
    if rule is None:
        score = uniform(identity, seed)
        tie_break = score
    else:
        score, tie_break = _scores(rule, needs, signals.vocabulary, valid)
    candidates = _candidates(rule, needs, valid)
    floor = rule is not None and rule.floor
    wanted = kept_count(valid.sum(), written_ratio(budget, floor=floor), floor=floor)
    order = _order(score, tie_break, identity, valid)
    count = torch.where(_all_finite(needs, valid), wanted, 0)
    kept = _first(order, candidates, count)
    shown = Kept(
        mask=kept.view(mask.shape),
        tied_share=_tied_share(score, kept, candidates),
        wanted=wanted,
        short=candidates.sum() < wanted,
        added=torch.zeros_like(wanted),
    )
    return _with_one_of_each(shown, order, candidates, mask.bool()) if one_per_row else shown


def _needed(selector: Selector, signals: TokenSignals, mask: Tensor) -> dict[str, Tensor]:
    """The tensors that a selector needs, (slot,), by their names in rules.

    Raises InputError where one is missing or of another shape.
    """
    rule = RULES.get(selector)
    if rule is None:
        return {}
    found = {}
    for need in dict.fromkeys((*rule.needs, *(("entropy", "kl_0") if rule.q3 else ()))):
        name = NAMES.get(need, need)
        value = getattr(signals, name)
        if value is None or (need == "vocabulary" and value < 2):
            raise InputError(
                where=f"selector {selector}",
                expected=f"the signal `{name}`",
                got="none" if value is None else str(value),
                fix=f"give it in TokenSignals({name}=…), or choose another selector",
            )
        if need == "vocabulary":
            continue
        if value.shape != mask.shape:
            raise InputError(
                where=f"selector {selector}",
                expected=f"a `{name}` of the mask's shape {tuple(mask.shape)}",
                got=str(tuple(value.shape)),
                fix="give signals and mask of the same batch",
            )
        found[need] = value.double().reshape(-1)
    return found


def _everything(mask: Tensor) -> Kept:
    zero = torch.zeros((), dtype=torch.int64, device=mask.device)
    return Kept(
        mask=mask.bool().clone(),
        tied_share=zero.double(),
        wanted=mask.bool().sum(),
        short=zero.bool(),
        added=zero,
    )


def _scores(
    rule: Rule, needs: dict[str, Tensor], vocabulary: int | None, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """(score, tie-break), each (slot,), larger first."""
    given = [vocabulary if need == "vocabulary" else needs[need] for need in rule.needs]
    score, tie_break = rule(*given, scales=scales(valid))
    return score, tie_break


def _candidates(rule: Rule | None, needs: dict[str, Tensor], valid: Tensor) -> Tensor:
    """The slots that may be kept: the valid ones, for a `q3` selector those in Q3."""
    if rule is None or not rule.q3:
        return valid
    entropy, kl = needs["entropy"], needs["kl_0"]
    (entropy_cut,), (kl_cut,) = (quantiles(z, valid, MEDIAN) for z in (entropy, kl))
    return valid & (entropy <= entropy_cut) & (kl >= kl_cut)


def _order(score: Tensor, tie_break: Tensor, identity: Tensor, valid: Tensor) -> Tensor:
    """Slots (slot,) in their rank: largest score, then tie-break, then least identity; valid first.

    Stable sorts by the last key first; adding 0 makes -0 and 0 one value to every sort.
    """
    order = unsigned_order(identity).argsort(stable=True)
    for key in (tie_break, score):
        key = torch.where(valid, key, -torch.inf) + 0.0
        order = order[key[order].argsort(stable=True, descending=True)]
    return order


def _first(order: Tensor, candidates: Tensor, count: Tensor) -> Tensor:
    """The `count` candidates (slot,) that come first."""
    inside = candidates[order]
    kept = inside & (inside.cumsum(0) <= count)
    return torch.zeros_like(candidates).scatter(0, order, kept)


def _all_finite(needs: dict[str, Tensor], valid: Tensor) -> Tensor:
    """Whether all needed signals are finite at valid slots, 0-dim bool."""
    finite = torch.ones_like(valid)
    for value in needs.values():
        finite = finite & value.isfinite()
    return (finite | ~valid).all()


def _tied_share(score: Tensor, kept: Tensor, candidates: Tensor) -> Tensor:
    """The share of kept slots equal to the lowest kept score, if a dropped one equals it too."""
    tied = candidates & (score == torch.where(kept, score, torch.inf).amin())
    dropped = (tied & ~kept).any()
    share = (tied & kept).sum().double() / kept.sum().double().clamp(min=1.0)
    return torch.where(dropped, share, 0.0)


def _with_one_of_each(found: Kept, order: Tensor, candidates: Tensor, mask: Tensor) -> Kept:
    """`found` and, of each row that has none of it, its first position, in Q3 before outside it.

    Nothing is added to nothing.
    """
    places = torch.arange(len(order), device=order.device)
    rank = torch.zeros_like(order).scatter(0, order, places)
    rank = rank + torch.where(candidates, 0, len(order))
    rank = torch.where(mask.reshape(-1), rank, 2 * len(order)).view(mask.shape)
    leads = rank == rank.amin(dim=1, keepdim=True)
    missing = ~found.mask.any(dim=1, keepdim=True) & found.mask.any()
    added = leads & missing & mask
    return Kept(
        mask=found.mask | added,
        tied_share=found.tied_share,
        wanted=found.wanted,
        short=found.short,
        added=added.sum(),
    )
