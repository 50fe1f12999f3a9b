"""Plain answers of live interventions: as cards for the page and as rows for a table.

A word is said of a difference where its interval lies beyond 0 and beyond the noise of scoring, and
every seed that both masks have shows the same sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diagnostics.report.chapters import Card, Reply
from diagnostics.report.noise import Row
from diagnostics.report.tables.views import VERDICTS, ended, number, percent
from diagnostics.statistics.analyses.interventions import Mask, Number, Rescored
from diagnostics.statistics.analyses.mask_answers import (
    Leader,
    SeedSpread,
    budgets_to_compare,
    leader_at,
    peak,
    seed_spread,
    swept,
)
from diagnostics.statistics.analyses.mask_effects import REFERENCES, Versus, name_of_mask, versus
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval
from diagnostics.statistics.selection.selectors import Selector

SHOWN_SWEEPS, LONG_SWEEP = 3, 3  # selectors in the peak's card, of so many budgets where any is
Noise = Mapping[Number, float]
TEXTS = ("question", "of", "first", "second", "number", "kind", "verdict")
NUMBERS = ("estimate", "estimate_low", "estimate_high", "sd", "seeds", "agree")
NUMBERS_ASKED: tuple[Number, ...] = ("gain", "contrast")
Q3_PAIRS: tuple[tuple[Selector, str], ...] = (("q3+low-dl", "low D^L"), ("q3+high-di", "high D^I"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question as the page shows it, and every number behind it as rows."""

    card: Card
    rows: tuple[Row, ...]


def _asked(question: str, measure: str, replies: Iterable[Reply], rows: Iterable[Row]) -> Asked:
    card = Card(question=question, measure=measure, replies=tuple(replies))
    return Asked(card=card, rows=tuple(rows))


def answers(rescored: Rescored, bootstrap: Bootstrap, noise: Noise) -> list[Asked]:
    """The questions that the arms can answer; `noise` by number, NaN: not measured."""
    cards = [
        _best(rescored, bootstrap, noise),
        _inside_q3(rescored, bootstrap, noise),
        _peaks(rescored, bootstrap, noise),
        _seeds(rescored, bootstrap),
    ]
    return [one for one in cards if one.card.replies]


def answer_table(run: str, cards: Sequence[Asked]) -> pd.DataFrame:
    """Every number behind the answers, one line each; what a line lacks is empty or NaN."""
    lacking = {"run": run} | dict.fromkeys(TEXTS, "") | dict.fromkeys(NUMBERS, np.nan)
    return pd.DataFrame([lacking | row for card in cards for row in card.rows])


def _best(rescored: Rescored, bootstrap: Bootstrap, noise: Noise) -> Asked:
    question = "Which mask moved the student most toward the teacher?"
    replies, rows = [], []
    for budget in budgets_to_compare(rescored):
        best = leader_at(rescored, budget, bootstrap)
        replies.append(_best_reply(best, budget, noise))
        rows += list(_leader_rows("best", percent(budget), best, noise))
    measure = (
        "mean gain over the whole bank, nats; differences to every other mask at the budget and to "
        "full hold together in 95 % of samples"
    )
    return _asked(question, measure, replies, rows)


def _best_reply(best: Leader, budget: float, noise: Noise) -> Reply:
    known = [one for name in REFERENCES for one in best.others if one.second[0] == name]
    rivals = [one for one in best.others if one.second[0] not in REFERENCES]
    remarks = [_compared(one, noise) for one in (*known, *rivals[:1])]
    found = [one.second[0] for one in known] + [best.mask[0]]
    remarks += [f"{name} was not trained here" for name in REFERENCES if name not in found]
    random = best.against(("random", budget))
    clear = random is not None and _verdict(random, noise) == "yes"
    return Reply(
        outcome=f"at {percent(budget)} of positions",
        verdict="yes" if clear else "unclear",
        word=best.mask[0],
        text=f"gain {_interval(best.value)}",
        remarks=tuple(remarks),
        **_bar(best.value, noise["gain"]),
    )


def _inside_q3(rescored: Rescored, bootstrap: Bootstrap, noise: Noise) -> Asked:
    replies, rows = [], []
    masks = rescored.masks
    for budget in sorted({m[1] for m in masks if m[0] == "q3+high-dl"}):
        for selector, said in Q3_PAIRS:
            other: Mask = (selector, budget)
            if other not in masks:
                continue
            small = _same_target(rescored, other)
            for what in NUMBERS_ASKED:
                found = versus(rescored, ("q3+high-dl", budget), other, bootstrap, number=what)
                verdict = _verdict(found, noise)
                replies.append(
                    Reply(
                        outcome=f"over {said}, {what}, {percent(budget)}",
                        verdict=verdict,
                        word=VERDICTS[verdict],
                        text=_interval(found.difference),
                        remarks=(_seed_words(found), *(small if what == "gain" else ())),
                        **_bar(found.difference, 2 * noise[what]),
                    )
                )
                rows.append(_row("q3", percent(budget), found, noise))
    return _asked(
        question="Inside Q3, does a high-D^L mask beat low D^L and high D^I, trained live?",
        measure="gain: mean over the whole bank; contrast: high-C less low-C gain inside Q3; nats",
        replies=replies,
        rows=rows,
    )


def _same_target(rescored: Rescored, other: Mask) -> tuple[str, ...]:
    """Says so where Q3 is so small that both masks keep all of it."""
    if rescored.targets[other].short:
        return ("Q3 of the bank is smaller than the budget: both masks aim at all of it",)
    return ()


def _peaks(rescored: Rescored, bootstrap: Bootstrap, noise: Noise) -> Asked:
    replies, rows = [], []
    names = swept(rescored)
    counts = [sum(mask[0] == name for mask in rescored.masks) for name in names]
    shown = [n for n, count in zip(names, counts, strict=True) if count >= LONG_SWEEP] or names
    for selector in names:
        for what in NUMBERS_ASKED:
            found = peak(rescored, selector, bootstrap, number=what)
            rows += list(_leader_rows(f"peak of {what}", selector, found, noise))
            first = selector == names[0]
            if selector in shown[:SHOWN_SWEEPS] and (what == "gain" or first):
                replies.append(_peak_reply(found, what, noise))
    return _asked(
        question="Where does the budget curve peak?",
        measure="largest number of each selector, set against its other budgets; bands over them",
        replies=replies,
        rows=rows,
    )


def _peak_reply(found: Leader, what: Number, noise: Noise) -> Reply:
    """A peak stands out where it is clearly above every other budget."""
    unclear = [one for one in found.others if _verdict(one, noise) != "yes"]
    above = "clearly above every other budget"
    if unclear:
        budgets = ", ".join(percent(b) for b in sorted(one.second[1] for one in unclear))
        above = f"not clearly above {budgets}"
    return Reply(
        outcome=f"{found.mask[0]}, {what}",
        verdict="unclear" if unclear else "yes",
        word=percent(found.mask[1]),
        text=_interval(found.value),
        remarks=(above,),
        **_bar(found.value, noise[what]),
    )


def _seeds(rescored: Rescored, bootstrap: Bootstrap) -> Asked:
    found = seed_spread(rescored, bootstrap)
    replies = tuple(_seed_replies(found))
    row: Row = {"question": "seeds", "of": "sd over seeds of one mask", "estimate": found.within}
    return _asked(
        question="How much do seeds vary?",
        measure="standard deviation of the mean gain over the whole bank, nats",
        replies=replies,
        rows=(
            row,
            {"question": "seeds", "of": "sd between masks", "estimate": found.between},
            {"question": "seeds", "of": "half-width over prompts", "estimate": found.prompts},
        ),
    )


def _seed_replies(found: SeedSpread) -> Iterator[Reply]:
    if found.masks == 0:
        said = "every mask was trained once: no deviation over seeds can be had"
        yield Reply("over seeds of one mask", "unclear", "Not known", "", (said,))
    else:
        said = f"pooled over {found.masks} masks with several seeds"
        yield Reply(
            "over seeds of one mask", "unclear", f"{number(found.within)} nats", "", (said,)
        )
    if found.between == found.between:
        ratio = found.between / found.within if found.within > 0 else float("nan")
        said = f"{ratio:.1f} times that over seeds" if ratio == ratio else "of seed-averaged gains"
        yield Reply("between masks", "unclear", f"{number(found.between)} nats", "", (said,))
    if found.prompts == found.prompts:
        said = "median half-width of a mask's 95 % interval, which knows nothing of seeds"
        yield Reply("over prompts", "unclear", f"±{number(found.prompts)} nats", "", (said,))


def _leader_rows(question: str, of: str, best: Leader, noise: Noise) -> Iterator[Row]:
    yield {
        "question": question,
        "of": of,
        "first": name_of_mask(best.mask),
        "estimate": best.value.estimate,
        "estimate_low": best.value.low,
        "estimate_high": best.value.high,
        "kind": best.value.kind,
    }
    yield from (_row(question, of, one, noise) for one in best.others)


def _row(question: str, of: str, one: Versus, noise: Noise) -> Row:
    return {
        "question": question,
        "of": of,
        "first": name_of_mask(one.first),
        "second": name_of_mask(one.second),
        "number": one.number,
        "estimate": one.difference.estimate,
        "estimate_low": one.difference.low,
        "estimate_high": one.difference.high,
        "kind": one.difference.kind,
        "seeds": one.seeds,
        "agree": one.agree,
        "sd": one.sd,
        "verdict": _verdict(one, noise),
    }


def _verdict(one: Versus, noise: Noise) -> str:
    """Both sides of a difference have the noise of a gain."""
    return one.verdict(2 * noise[one.number])


def _compared(one: Versus, noise: Noise) -> str:
    """The leader against one other mask, in words."""
    side = "more" if one.difference.estimate > 0 else "less"
    if _verdict(one, noise) != "unclear":
        return f"clearly {side} than {one.second[0]}: {_signed(one)}"
    said = f"not clearly {side} than {one.second[0]}: {_signed(one)}"
    if one.difference.verdict(2 * noise[one.number]) != "unclear":
        return f"{said}, {_seed_words(one)}"
    return said


def _bar(value: Interval, noise: float) -> dict[str, float]:
    """A number as a reply draws it."""
    return {"estimate": value.estimate, "low": value.low, "high": value.high, "noise": noise}


def _seed_words(one: Versus) -> str:
    if not one.seeds:
        return "no seed in common"
    noun = "seed" if one.seeds == 1 else "seeds"
    return f"{one.agree} of {one.seeds} {noun} agree in sign"


def _signed(one: Versus) -> str:
    value = one.difference
    plus = "+" if value.estimate > 0 else ""
    return f"{plus}{_interval(value)}"


def _interval(value: Interval) -> str:
    return ended(value.estimate, value.low, value.high, value.reason)
