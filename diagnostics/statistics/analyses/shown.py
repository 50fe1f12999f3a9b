"""What tables are over, in memory and from streams: proxies, selectors, budgets, quantiles."""

from __future__ import annotations

from diagnostics.statistics.selection.selectors import Selector

PROXIES = ("compatibility", "bc_union", "jaccard", "overlap", "shared_teacher_mass")
PAPER_SELECTORS: tuple[Selector, ...] = (
    "teachability",
    "kl",
    "tip",
    "entropy",
    "compatibility",
    "incompatible",
    "random",
)
BUDGETS = (0.01, 0.03, 0.05, 0.10)
QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.95)
