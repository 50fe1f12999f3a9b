"""The paper's own figures (arXiv 2605.26844v1, CC BY 4.0), for comparison beside ours.

Transcribed from its Tables 1, 5, 6, 8 and 9. They are of other models and other banks: compare
signs and order, not sizes. Budgets are fractions; its percentages are divided by 100, and its
Table 9 R^2 (in units of 1e-3) by 1000.
"""

from __future__ import annotations

import pandas as pd

_TABLE01 = (
    ("Qwen3-4B → 1.7B", "held-out math", 16, 300, 57600, 0.078, 0.060, 0.095, 0.016),
    ("Qwen3-4B → 1.7B", "GSM8K-COT", 16, 300, 57600, 0.087, 0.066, 0.109, 0.037),
    ("Qwen3-8B → 1.7B", "held-out math", 16, 300, 57600, 0.118, 0.094, 0.144, 0.042),
    ("Qwen3-14B → 1.7B", "held-out math", 8, 300, 57600, 0.098, 0.080, 0.117, 0.071),
    ("Qwen3-14B → 1.7B", "held-out math", 16, 300, 57600, 0.084, 0.069, 0.098, 0.058),
    ("Qwen3-14B → 1.7B", "held-out math", 32, 300, 57600, 0.078, 0.062, 0.095, 0.046),
)
_TABLE05 = (
    ("4B → 1.7B held-out 300", 300, 57600, "main"),
    ("4B → 1.7B GSM8K-COT", 300, 57600, "main"),
    ("8B → 1.7B", 300, 57600, "main"),
    ("14B → 1.7B 300 K=8", 300, 57600, "main"),
    ("14B → 1.7B", 300, 57600, "main"),
    ("14B → 1.7B 300 K=32", 300, 57600, "main"),
    ("8B → 1.7B short diagnostic", 8, 1024, "boundary only"),
)
_TABLE06 = (
    (16, "compatibility", 3342, 0.086, 0.064, 0.104),
    (16, "bc_union", 3342, 0.105, 0.078, 0.125),
    (16, "jaccard", 3342, 0.038, 0.020, 0.055),
    (16, "overlap", 3342, 0.038, 0.020, 0.055),
    (32, "compatibility", 3342, 0.090, 0.074, 0.106),
    (32, "bc_union", 3342, 0.105, 0.078, 0.125),
    (32, "jaccard", 3342, 0.052, 0.032, 0.069),
    (32, "overlap", 3342, 0.052, 0.032, 0.069),
)
_TABLE08 = (
    ("teachability", 0.03, 0.130, 0.123, 0.138, 4.34, 0.074, 0.31, 1.00, 0.99),
    ("teachability", 0.05, 0.135, 0.128, 0.143, 2.70, 0.055, 0.37, 0.94, 0.97),
    ("kl", 0.03, 0.120, 0.112, 0.129, 4.00, 0.061, 0.40, 1.00, 0.66),
    ("kl", 0.05, 0.119, 0.113, 0.126, 2.38, 0.054, 0.41, 1.00, 0.65),
    ("tip", 0.03, 0.093, 0.075, 0.110, 3.11, 0.026, 0.70, 0.69, 0.59),
    ("tip", 0.05, 0.094, 0.080, 0.107, 1.88, 0.026, 0.69, 0.69, 0.61),
    ("entropy", 0.03, 0.076, 0.055, 0.095, 2.53, 0.000, 1.00, 0.42, 0.54),
    ("entropy", 0.05, 0.066, 0.050, 0.082, 1.32, 0.000, 1.00, 0.42, 0.56),
    ("random", 0.03, -0.130, -0.200, -0.072, -4.35, 0.048, 0.18, 0.13, 0.93),
    ("random", 0.05, -0.105, -0.149, -0.057, -2.09, 0.048, 0.19, 0.13, 0.93),
    ("incompatible", 0.03, 0.105, 0.096, 0.113, 3.50, 0.018, 0.64, 0.87, 0.03),
    ("incompatible", 0.05, 0.111, 0.104, 0.117, 2.22, 0.016, 0.66, 0.72, 0.11),
)
_TABLE09 = (
    (8, 2393, 0.086, 0.045, 0.041, 0.039, 0.044, 0.000897),
    (16, 2393, 0.087, 0.043, 0.044, 0.041, 0.047, 0.000790),
    (32, 2393, 0.087, 0.043, 0.044, 0.041, 0.047, 0.000743),
)
_COLUMNS = {
    "table01": "setting context top_k n_contexts n_positions gap gap_low gap_high matched_gap",
    "table05": "setting n_contexts n_positions use",
    "table06": "top_k proxy n_positions gap gap_low gap_high",
    "table08": "selector budget gain gain_low gain_high gain_per_keep q3_share entropy_norm "
    "disagreement_norm compatibility_norm",
    "table09": "top_k n_q3 beta_l beta_i gap gap_low gap_high delta_r2_decomposed",
}
_ROWS: dict[str, tuple[tuple[object, ...], ...]] = {
    "table01": _TABLE01,
    "table05": _TABLE05,
    "table06": _TABLE06,
    "table08": _TABLE08,
    "table09": _TABLE09,
}


def paper_table(name: str) -> pd.DataFrame | None:
    """The paper's table under our name (`table01`, …), or None where it has none."""
    if name not in _ROWS:
        return None
    return pd.DataFrame(_ROWS[name], columns=_COLUMNS[name].split())
