"""Which masks an experiment trains: the paper's tables by name, or any selectors x budgets.

Budgets are fractions. `full` has one budget, 1, and stands in every set: it is what selective
training is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diagnostics.errors import InputError
from diagnostics.statistics.selection.selectors import Selector, check_budget, check_selector

FULL: tuple[Selector, float] = ("full", 1.0)
TABLE2: tuple[Selector, ...] = (
    "teachability",
    "kl",
    "incompatible",
    "tip",
    "random",
    "teachability+entropy",
    "entropy",
    "q3+high-c",
    "q3+low-c",
    "q3",
)
TABLE2_BUDGETS = (0.03, 0.05)
TABLE7: tuple[Selector, ...] = ("q3+high-dl", "q3+low-dl", "q3+high-di")
TABLE7_BUDGET = 0.03
TABLE10: tuple[tuple[Selector, float], ...] = (
    *(("teachability", budget) for budget in (0.01, 0.03, 0.05, 0.10)),
    *(("q3+high-c", budget) for budget in (0.01, 0.03, 0.05)),
    ("q3+low-c", 0.03),
    ("incompatible", 0.03),
)
SETS: dict[str, tuple[tuple[Selector, float], ...]] = {
    "table2": tuple((name, budget) for name in TABLE2 for budget in TABLE2_BUDGETS),
    "table7": tuple((name, TABLE7_BUDGET) for name in TABLE7),
    "table10": TABLE10,
}
SETS["paper"] = tuple(dict.fromkeys(mask for masks in SETS.values() for mask in masks))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """One training to be done. `name` is its folder's and its checkpoint's."""

    selector: Selector
    budget: float
    seed: int

    @property
    def name(self) -> str:
        """As teachability-5-s0: selector, budget in per cent, seed; `+` as `_`."""
        percent = f"{100 * self.budget:.10g}".replace(".", "p")
        return f"{self.selector.replace('+', '_')}-{percent}-s{self.seed}"


def named_set(name: str) -> tuple[tuple[Selector, float], ...]:
    """(selector, budget) pairs of a set. Raises InputError for an unknown one."""
    if name not in SETS:
        raise InputError(
            where="--set",
            expected=f"one of {', '.join(SETS)}",
            got=repr(name),
            fix="choose one of them, or give --selector and --budget",
        )
    return SETS[name]


def product(
    selectors: Sequence[str], budgets: Sequence[float]
) -> tuple[tuple[Selector, float], ...]:
    """Every selector at every budget; `full` once. Raises InputError for a bad name or budget."""
    names = [check_selector(name) for name in selectors]
    for budget in budgets:
        check_budget(budget)
    if not names or not (budgets or set(names) == {"full"}):
        raise InputError(
            where="--selector and --budget",
            expected="at least one of each",
            got=f"{len(names)} selectors, {len(budgets)} budgets",
            fix="give both, or --set paper",
        )
    masks = [FULL if name == "full" else (name, budget) for name in names for budget in budgets]
    return tuple(dict.fromkeys(masks or [FULL]))


def arms(masks: Sequence[tuple[Selector, float]], seeds: Sequence[int]) -> list[ArmPlan]:
    """Every mask, and `full`, with every seed; seed by seed, so that a stop leaves whole seeds."""
    wanted = dict.fromkeys([FULL, *masks])
    return [
        ArmPlan(selector=selector, budget=budget, seed=seed)
        for seed in seeds
        for selector, budget in wanted
    ]
