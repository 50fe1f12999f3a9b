"""Fixed-context diagnostics for on-policy distillation.

Freeze student rollouts as a bank of contexts, score teacher, student and checkpoints on the same
contexts, and ask which signals known before training predict the KL reduction there. The layers, in
the order that data flows: `models`, `bank`, `scoring`, `statistics`, `report`; `training` beside
them; `embedded` is a small pair of models to try everything on. Importing this package is light:
what a notebook needs (docs/python.md) is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "open_run": "diagnostics.statistics.opened",
    "read_tokens": "diagnostics.statistics.token_files",
    "Bootstrap": "diagnostics.statistics.bootstrap",
    "interval": "diagnostics.statistics.bootstrap",
    "headline": "diagnostics.statistics.headlines",
    "decompose": "diagnostics.statistics.regression",
    "formula": "diagnostics.statistics.formulas",
    "support_gap": "diagnostics.statistics.gaps",
    "matched_gap": "diagnostics.statistics.gaps",
    "bucket_means": "diagnostics.statistics.bins",
    "residual_bins": "diagnostics.statistics.bins",
    "top_n": "diagnostics.statistics.budgets",
    "with_quadrants": "diagnostics.statistics.quadrants",
    "quadrant_shares": "diagnostics.statistics.quadrants",
    "placebo": "diagnostics.statistics.placebo",
    "redrawn": "diagnostics.statistics.redraw",
    "definitions_differ": "diagnostics.statistics.differ",
    "trajectory": "diagnostics.statistics.trajectory",
    "compare": "diagnostics.statistics.compare",
    "compare_selectors": "diagnostics.statistics.compare",
    "pooled_gap": "diagnostics.statistics.pooled",
    "robust_table": "diagnostics.statistics.robust",
    "plan": "diagnostics.statistics.design",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
