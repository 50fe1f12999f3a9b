"""Does D^L predict the gain better than D^I? (paper, section 3.3, appendix F, Table 9)

Ordinary least squares of the gain on z-scored predictors (ddof 0, within the scope):

    baseline       H~, D~, H~ x D~, relative position, H_T~
    compatibility  baseline and C~
    decomposed     baseline with D~ and the product replaced by D^L and D^I

All three, in every bootstrap draw, come from one set of cross-products per prompt
(`least_squares`). Not covered: other formulas (`formulas`), clustered analytic errors (`robust`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, intervals
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.estimators import Floats
from diagnostics.statistics.inference.least_squares import (
    Contrast,
    LeastSquares,
    cross_sums,
    require_independent,
    require_varied,
    standardized,
)
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.tables.sources import on_table
from diagnostics.statistics.tables.values import Outcome, require_finite

Scope = Literal["all", "q3"]
Transform = Literal["raw", "zscore", "winsorized"]

WINSOR = (0.01, 0.99)

_CONTROLS = ("entropy_norm", "relative_position", "teacher_entropy_norm")
BASELINE = (*_CONTROLS, "disagreement_norm", "product")
COMPATIBILITY = (*BASELINE, "compatibility_norm")
DECOMPOSED = (*_CONTROLS, "learnable", "incompatible")
PREDICTORS = (*COMPATIBILITY, "learnable", "incompatible")

CONTRASTS = (
    Contrast(name="beta_l", model="decomposed", weights={"learnable": 1.0}),
    Contrast(name="beta_i", model="decomposed", weights={"incompatible": 1.0}),
    Contrast(name="gap", model="decomposed", weights={"learnable": 1.0, "incompatible": -1.0}),
    Contrast(name="delta_r2_decomposed", model="decomposed", weights={}, over="baseline"),
    Contrast(name="delta_r2_compatibility", model="compatibility", weights={}, over="baseline"),
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Decomposition(Result):
    """One row of Table 9, in nats of gain per standard deviation of the predictor.

    Fields: `scope`; `outcome`; `n_positions` fitted; `n_q3` of the bank; `beta_l`, `beta_i`
    coefficients of D^L and D^I; `gap` = beta_l - beta_i, paired; `delta_r2_decomposed` and
    `delta_r2_compatibility`, R^2 over the baseline's (the first may be negative: it drops D~ and
    the product).
    """

    scope: Scope
    outcome: Outcome
    n_positions: int
    n_q3: int
    beta_l: Interval
    beta_i: Interval
    gap: Interval
    delta_r2_decomposed: Interval
    delta_r2_compatibility: Interval


@on_table
def decompose(
    frame: pd.DataFrame,
    bootstrap: Bootstrap = DEFAULT,
    *,
    scope: Scope = "all",
    outcome: Outcome = "gain",
    transform: Transform = "raw",
    keep_product: bool = False,
    redo_zscores: bool = False,
    clusters: Clusters | None = None,
) -> Decomposition:
    """Table 9's row for one checkpoint's token table.

    `keep_product` leaves H~ x D~ in the decomposed model; `redo_zscores` takes z-scores anew in
    each draw; `clusters` are the frame's, where the caller has them. Raises InputError for an empty
    scope, a predictor that is constant in it or not finite, or predictors that are collinear.
    """
    q3 = (frame["quadrant"] == 3).to_numpy()
    estimator = decomposition_estimator(
        frame,
        rows=np.ones(len(frame), dtype=bool) if scope == "all" else q3,
        outcome=outcome,
        transform=transform,
        keep_product=keep_product,
        redo_zscores=redo_zscores,
        clusters=clusters,
    )
    return decomposition_of(
        estimator,
        bootstrap,
        scope=scope,
        outcome=outcome,
        n_positions=len(frame) if scope == "all" else int(q3.sum()),
        n_q3=int(q3.sum()),
    )


def decomposition_of(
    estimator: LeastSquares,
    bootstrap: Bootstrap,
    *,
    scope: Scope,
    outcome: Outcome,
    n_positions: int,
    n_q3: int,
) -> Decomposition:
    """Table 9's row from an estimator, wherever its sums were made."""
    made = dict(zip(estimator.names, intervals(estimator, bootstrap), strict=True))
    return Decomposition(scope=scope, outcome=outcome, n_positions=n_positions, n_q3=n_q3, **made)


def decomposition_estimator(
    frame: pd.DataFrame,
    *,
    rows: NDArray[np.bool_],
    outcome: Outcome = "gain",
    transform: Transform = "raw",
    keep_product: bool = False,
    redo_zscores: bool = False,
    clusters: Clusters | None = None,
) -> LeastSquares:
    """Table 9's numbers over `rows` (pos,) of a token table, as an estimator.

    `clusters` are the frame's, where the caller has them already.
    """
    clusters = clusters or prompt_clusters(frame)
    columns = regression_columns(frame, rows, outcome)
    columns["outcome"] = transformed(columns["outcome"], transform)
    if transform == "zscore":
        require_varied(columns["outcome"], "outcome")
    centred = [values - values.mean() for values in columns.values()]
    sums = cross_sums(centred, clusters.of_row[rows], clusters.count)
    return decomposition_from(
        sums,
        keep_product=keep_product,
        redo_zscores=redo_zscores,
        scaled=transform == "zscore",
    )


def decomposition_from(
    sums: Floats, *, keep_product: bool = False, redo_zscores: bool = False, scaled: bool = False
) -> LeastSquares:
    """Table 9's numbers from cross-sums (clusters, m) of `PREDICTORS` and the outcome.

    Columns may have been centred anywhere; z-scores are taken here.
    """
    decomposed = (*DECOMPOSED, "product") if keep_product else DECOMPOSED
    models = {"baseline": BASELINE, "compatibility": COMPATIBILITY, "decomposed": decomposed}
    ready = standardized(sums, PREDICTORS, outcome=scaled)
    require_independent(ready, PREDICTORS, list(models.values()))
    return LeastSquares(
        predictors=PREDICTORS,
        sums=ready,
        models=models,
        contrasts=CONTRASTS,
        redo=redo_zscores,
        scaled=scaled,
    )


def regression_columns(
    frame: pd.DataFrame | Mapping[str, Floats], rows: NDArray[np.bool_], outcome: str
) -> dict[str, Floats]:
    """The predictors and the outcome over `rows` (pos,), by name, `PREDICTORS` first.

    Raises InputError for no rows, or a value that is not finite, with its context.
    """
    require_rows(rows)
    columns = {
        name: np.asarray(frame[name], dtype=np.float64)[rows]
        for name in (*PREDICTORS, outcome)
        if name != "product"
    }
    for name, values in columns.items():
        require_finite(values, name, frame, rows)
        if name != outcome:
            require_varied(values, name)
    product = columns["entropy_norm"] * columns["disagreement_norm"]
    require_varied(product, "product")
    ordered = {name: product if name == "product" else columns[name] for name in PREDICTORS}
    return ordered | {"outcome": columns[outcome]}


def require_rows(rows: NDArray[np.bool_]) -> None:
    """Refuses a scope without positions, for `rows` (pos,) of the table."""
    if not rows.any():
        raise InputError(
            where="regression",
            expected="positions in the scope",
            got="none",
            fix="score more contexts, or choose the scope `all`",
        )


def transformed(y: Floats, transform: Transform) -> Floats:
    """The outcome (pos,) winsorised at its 1 and 99 % quantiles, or as it is.

    A z-scored outcome is scaled with the predictors (`standardized`), so it comes back as it is.
    """
    if transform == "winsorized":
        low, high = np.quantile(y, WINSOR)
        return np.clip(y, low, high)
    return y
