"""Does D^L predict the gain better than D^I? (paper, section 3.3, appendix F, Table 9)

Ordinary least squares of the gain on z-scored predictors (ddof 0, within the scope):

    baseline       H~, D~, H~ x D~, relative position, H_T~
    compatibility  baseline and C~
    decomposed     baseline with D~ and the product replaced by D^L and D^I

All three, in every bootstrap draw, come from one set of per-prompt cross-products: a draw is a
weighted sum of those and one small solve. Predictors and outcome are centred first, since uncentred
products lose digits. Not covered: other formulas, clustered analytic errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.bootstrap import Interval, no_interval, percentile_interval, ratio
from diagnostics.statistics.clusters import Clusters, prompt_clusters

Floats = NDArray[np.float64]

Scope = Literal["all", "q3"]
Outcome = Literal["gain", "gain_rel"]
Transform = Literal["raw", "zscore", "winsorized"]

WINSOR = (0.01, 0.99)
COLLINEAR = 1e-10  # smallest eigenvalue of the correlation matrix that is not called collinear

_CONTROLS = ("entropy_norm", "relative_position", "teacher_entropy_norm")
BASELINE = (*_CONTROLS, "disagreement_norm", "product")
COMPATIBILITY = (*BASELINE, "compatibility_norm")
DECOMPOSED = (*_CONTROLS, "learnable", "incompatible")
PREDICTORS = (*COMPATIBILITY, "learnable", "incompatible")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
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


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """Per-cluster sums for regressions.

    Fields: `names` (c,) predictors; `products` (clusters, c + 2, c + 2) sums of outer products of
    [1, predictors, outcome]; the last row is the outcome's.
    """

    names: tuple[str, ...]
    products: Floats

    def totals(self, counts: Floats | None) -> Floats:
        """Summed products: (1, m, m) of the full sample, or (draws, m, m) for draw counts."""
        clusters, m, _ = self.products.shape
        if counts is None:
            return np.asarray(self.products.sum(axis=0, keepdims=True))
        return np.asarray((counts @ self.products.reshape(clusters, m * m)).reshape(-1, m, m))


@dataclass(frozen=True, slots=True)
class Fit:
    """Fits of one model. Fields: `names` (p,); `beta` (draws, p); `r2` (draws,). NaN: singular."""

    names: tuple[str, ...]
    beta: Floats
    r2: Floats

    def coefficient(self, name: str) -> Floats:
        """One predictor's coefficient in each draw, (draws,)."""
        return self.beta[:, self.names.index(name)]


def decompose(
    frame: pd.DataFrame,
    counts: Floats,
    *,
    scope: Scope = "all",
    outcome: Outcome = "gain",
    transform: Transform = "raw",
    keep_product: bool = False,
) -> Decomposition:
    """Table 9's row for one checkpoint's token table; draw counts are (draws, clusters).

    `keep_product` leaves H~ x D~ in the decomposed model. Raises InputError for an empty scope, a
    predictor that is constant in it, or predictors that are collinear.
    """
    clusters = prompt_clusters(frame)
    q3 = (frame["quadrant"] == 3).to_numpy()
    rows = np.ones(len(frame), dtype=bool) if scope == "all" else q3
    cross = cross_products(frame, clusters, rows, outcome, transform)
    decomposed = (*DECOMPOSED, "product") if keep_product else DECOMPOSED
    models = (BASELINE, COMPATIBILITY, decomposed)
    point = [fit(cross.totals(None), cross.names, model, full_sample=True) for model in models]
    drawn = [fit(cross.totals(counts), cross.names, model) for model in models]

    def interval(value: Floats, draws: Floats) -> Interval:
        estimate = float(value[0])
        return no_interval(estimate, clusters.count) or percentile_interval(estimate, draws)

    (base, comp, deco), (base_b, comp_b, deco_b) = point, drawn
    learnable, incompatible = deco.coefficient("learnable"), deco.coefficient("incompatible")
    learnable_b, incompatible_b = (deco_b.coefficient(n) for n in ("learnable", "incompatible"))
    return Decomposition(
        scope=scope,
        outcome=outcome,
        n_positions=int(rows.sum()),
        n_q3=int(q3.sum()),
        beta_l=interval(learnable, learnable_b),
        beta_i=interval(incompatible, incompatible_b),
        gap=interval(learnable - incompatible, learnable_b - incompatible_b),
        delta_r2_decomposed=interval(deco.r2 - base.r2, deco_b.r2 - base_b.r2),
        delta_r2_compatibility=interval(comp.r2 - base.r2, comp_b.r2 - base_b.r2),
    )


def cross_products(
    frame: pd.DataFrame,
    clusters: Clusters,
    rows: NDArray[np.bool_],
    outcome: Outcome,
    transform: Transform,
) -> CrossProducts:
    """Per-cluster cross-products of z-scored predictors and centred outcome over `rows` (pos,)."""
    chosen = frame[rows]
    if chosen.empty:
        raise InputError(
            where="regression",
            expected="positions in the scope",
            got="none",
            fix="score more contexts, or choose the scope `all`",
        )
    values = {
        name: chosen[name].to_numpy(dtype=np.float64) for name in PREDICTORS if name != "product"
    }
    values["product"] = values["entropy_norm"] * values["disagreement_norm"]
    predictors = [_zscored(values[name], name) for name in PREDICTORS]
    target = transformed(chosen[outcome].to_numpy(dtype=np.float64), transform)
    columns = [np.ones(len(chosen)), *predictors, target - target.mean()]
    codes, m = clusters.of_row[rows], len(columns)
    products = np.empty((clusters.count, m, m))
    for i in range(m):
        for j in range(i, m):
            sums = np.bincount(codes, weights=columns[i] * columns[j], minlength=clusters.count)
            products[:, i, j] = products[:, j, i] = sums
    return CrossProducts(names=PREDICTORS, products=products)


def fit(
    totals: Floats, names: Sequence[str], model: tuple[str, ...], *, full_sample: bool = False
) -> Fit:
    """Least squares of one model from summed cross-products (draws, m, m).

    A draw whose predictors are collinear has NaN; in the `full_sample` that raises InputError.
    """
    chosen = [0, *(1 + names.index(name) for name in model)]
    normal = totals[:, chosen][:, :, chosen]
    moment = totals[:, chosen, -1]
    if full_sample:
        _require_independent(normal[0], model)
    n, total = totals[:, 0, 0], totals[:, 0, -1]
    beta = np.full(moment.shape, np.nan)
    with_rows = np.flatnonzero(n > 0)
    smallest = np.linalg.eigvalsh(normal[with_rows] / n[with_rows, None, None])[:, 0]
    solvable = with_rows[smallest >= COLLINEAR]
    beta[solvable] = np.linalg.solve(normal[solvable], moment[solvable][:, :, None])[:, :, 0]
    spread = totals[:, -1, -1] - ratio(total**2, n)
    residual = totals[:, -1, -1] - np.einsum("dp,dp->d", beta, moment)
    return Fit(names=model, beta=beta[:, 1:], r2=1 - ratio(residual, spread))


def transformed(y: Floats, transform: Transform) -> Floats:
    """The outcome (pos,) raw, z-scored (ddof 0), or winsorised at its 1 and 99 % quantiles."""
    if transform == "winsorized":
        low, high = np.quantile(y, WINSOR)
        return np.clip(y, low, high)
    return _zscored(y, "outcome") if transform == "zscore" else y


def _zscored(z: Floats, name: str) -> Floats:
    spread = z.std()
    if z.min() == z.max():
        raise InputError(
            where="regression",
            expected=f"`{name}` to vary over the scope",
            got=f"{z[0]:g} everywhere",
            fix="score more contexts, or choose another scope or support size",
        )
    return np.asarray((z - z.mean()) / spread)


def _require_independent(normal: Floats, model: tuple[str, ...]) -> None:
    if np.linalg.eigvalsh(normal / normal[0, 0])[0] < COLLINEAR:
        raise InputError(
            where="regression",
            expected=f"independent predictors among {', '.join(model)}",
            got="collinear ones",
            fix="score more contexts, or choose another scope or support size",
        )


def _solve(normal: Floats, moment: Floats) -> Floats:
    """Coefficients (draws, p); NaN in a draw whose normal matrix is singular."""
    try:
        return np.asarray(np.linalg.solve(normal, moment[:, :, None])[:, :, 0], np.float64)
    except np.linalg.LinAlgError:
        beta = np.full(moment.shape, np.nan)
        for row in range(len(normal)):
            if np.linalg.matrix_rank(normal[row]) == len(normal[row]):
                beta[row] = np.linalg.solve(normal[row], moment[row])
        return beta
