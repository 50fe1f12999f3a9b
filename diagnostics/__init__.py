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
    "read_bank": "diagnostics.api",
    "import_bank": "diagnostics.api",
    "train": "diagnostics.api",
    "rescore": "diagnostics.api",
    "write_report": "diagnostics.api",
    "open_run": "diagnostics.statistics.tables.opened",
    "read_tokens": "diagnostics.statistics.tables.token_files",
    "Bootstrap": "diagnostics.statistics.inference.bootstrap",
    "interval": "diagnostics.statistics.inference.bootstrap",
    "headline": "diagnostics.statistics.analyses.headlines",
    "decompose": "diagnostics.statistics.analyses.regression",
    "formula": "diagnostics.statistics.analyses.formulas",
    "support_gap": "diagnostics.statistics.analyses.gaps",
    "matched_gap": "diagnostics.statistics.analyses.gaps",
    "bucket_means": "diagnostics.statistics.analyses.bins",
    "residual_bins": "diagnostics.statistics.analyses.bins",
    "top_n": "diagnostics.statistics.analyses.budgets",
    "with_quadrants": "diagnostics.statistics.tables.quadrants",
    "quadrant_shares": "diagnostics.statistics.tables.quadrants",
    "placebo": "diagnostics.statistics.analyses.placebo",
    "redrawn": "diagnostics.statistics.analyses.redraw",
    "definitions_differ": "diagnostics.statistics.analyses.differ",
    "trajectory": "diagnostics.statistics.analyses.trajectory",
    "compare": "diagnostics.statistics.analyses.compare",
    "compare_selectors": "diagnostics.statistics.analyses.compare",
    "pooled_gap": "diagnostics.statistics.analyses.pooled",
    "robust_table": "diagnostics.statistics.inference.robust",
    "plan": "diagnostics.statistics.analyses.design",
    "style_file": "diagnostics.api",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
