"""Regressions of one's own, in statsmodels' formula language, with this project's intervals.

    formula("gain ~ learnable + incompatible + C(quadrant) + np.log(entropy + 1e-3)", frame)

is ordinary least squares of the token table's rows: coefficients and R^2 are those of statsmodels'
`ols` with the same formula. Intervals resample prompts from cross-products per prompt
(`least_squares`); what the formula learns from the data (levels, knots, means) and z-scores stay at
their full-sample values. Beside each coefficient stands its CR2 error (`robust`). Not covered:
weights, other families, fixed effects by the hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.model_matrix import (
    INTERCEPT,
    Design,
    Scaled,
    contrast_weights,
    design_of,
)
from diagnostics.statistics.analyses.regression import Scope, require_rows
from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, intervals
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Floats
from diagnostics.statistics.inference.least_squares import (
    Contrast,
    LeastSquares,
    cross_sums,
    require_independent,
    require_varied,
)
from diagnostics.statistics.inference.normal_equations import fit, squares, undetermined
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.inference.robust import robust_table
from diagnostics.statistics.tables.sources import Source, as_frame

MODEL = "formula"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Term(Result):
    """A coefficient, or a contrast of several.

    Fields: `term`; `estimate`, nats of gain per unit of the term (per standard deviation where it
    was z-scored), with its interval; `error` CR2, `degrees` of freedom of its t, `p` two-sided of
    0; these are NaN where one prompt alone determines the term, or there is one prompt.
    """

    term: str
    estimate: Interval
    error: float
    degrees: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Regression(Result):
    """A formula's regression.

    Fields: `formula`; `scope`; `standardized` whether numeric columns were z-scored; `n_positions`
    fitted; `n_prompts` that have them; `r2` with its interval (about 0 where no constant is in the
    columns' span); `terms`; `contrasts` that were asked for.
    """

    formula: str
    scope: Scope
    standardized: bool
    n_positions: int
    n_prompts: int
    r2: Interval
    terms: tuple[Term, ...]
    contrasts: tuple[Term, ...]

    def to_frame(self) -> pd.DataFrame:
        """A row a term, contrasts last: term, estimate, low, high, reason, error, degrees, p."""
        return pd.DataFrame(
            [
                {
                    "term": row.term,
                    "estimate": row.estimate.estimate,
                    "low": row.estimate.low,
                    "high": row.estimate.high,
                    "reason": row.estimate.reason,
                    "error": row.error,
                    "degrees": row.degrees,
                    "p": row.p,
                }
                for row in (*self.terms, *self.contrasts)
            ]
        )

    def __repr__(self) -> str:
        head = f"{self.formula}  ({self.scope}: {self.n_positions} positions of {self.n_prompts} "
        table = self.to_frame().to_string(index=False, float_format=lambda x: f"{x:.4g}")
        return f"{head}prompts)\n{table}\nR^2 {self.r2}"


def formula(
    text: str,
    frame: Source,
    bootstrap: Bootstrap = DEFAULT,
    *,
    scope: Scope = "all",
    standardize: bool = False,
    contrasts: Sequence[str] = (),
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Regression:
    """Least squares of a formula over one checkpoint's token table, or a run of one checkpoint.

    Checkpoints may be several where the formula names `checkpoint`. `standardize` z-scores columns
    that involve no category (ddof 0, products after they are made, as Table 9 does); the constant
    is then the value at their means. `contrasts` are sums of terms, as `learnable - incompatible`.
    `functions` are names that the formula may use besides columns. Raises InputError for what
    cannot be read or evaluated, unknown columns, missing values, constant or collinear columns, an
    empty scope, several checkpoints not told apart, and z-scores without a constant.
    """
    estimator = formula_estimator(
        text, frame, scope=scope, standardize=standardize, contrasts=contrasts, functions=functions
    )
    made = _explained(intervals(estimator, bootstrap), estimator, bootstrap)
    beside = robust_table(estimator, ("cr2",))[["error", "degrees", "p"]].to_dict("records")
    terms = tuple(
        Term(term=name, estimate=interval, **errors)
        for name, interval, errors in zip(estimator.names, made, beside, strict=True)
    )[:-1]
    size = len(estimator.models[MODEL]) + estimator.constant
    return Regression(
        formula=text,
        scope=scope,
        standardized=standardize,
        n_positions=int(estimator.sums[:, 0].sum()),
        n_prompts=int((estimator.sums[:, 0] > 0).sum()),
        r2=made[-1],
        terms=terms[:size],
        contrasts=terms[size:],
    )


def formula_estimator(
    text: str,
    frame: Source,
    *,
    scope: Scope = "all",
    standardize: bool = False,
    contrasts: Sequence[str] = (),
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> LeastSquares:
    """`formula` as an estimator: its terms, the contrasts, then `r2`."""
    frame = _table(text, frame)
    rows, clusters = _rows(frame, scope), prompt_clusters(frame)
    design = design_of(text, frame, rows, functions or {})
    _require_usable(text, design, standardize)
    weights = [*np.eye(len(design.names))]
    weights += [contrast_weights(one, design.names, text) for one in contrasts]
    scaled = Scaled.of(design, standardize)
    columns = [*scaled.columns, design.outcome - scaled.middle]
    sums = cross_sums(columns, clusters.of_row[rows], clusters.count)
    require_independent(
        sums,
        tuple(design.columns),
        [tuple(design.columns)],
        constant=design.intercept,
        where=f"formula `{text}`",
        fix="leave it out, or one of those before it",
    )
    numbers = [
        scaled.contrast(name, MODEL, row)
        for name, row in zip((*design.names, *contrasts), weights, strict=True)
    ]
    return LeastSquares(
        predictors=tuple(design.columns),
        sums=sums,
        models={MODEL: tuple(design.columns)},
        contrasts=(*numbers, Contrast(name="r2", model=MODEL, weights={}, over="")),
        constant=design.intercept,
        about_mean=design.intercept or _spans_constant(sums),
    )


def _table(text: str, source: Source) -> pd.DataFrame:
    """The rows that a formula is of: one checkpoint's, unless it tells checkpoints apart itself."""
    if CHECKPOINT not in text:
        return as_frame(source)
    return source if isinstance(source, pd.DataFrame) else source.tokens()


def _rows(frame: pd.DataFrame, scope: Scope) -> NDArray[np.bool_]:
    whole = scope == "all"
    rows = np.ones(len(frame), dtype=bool) if whole else (frame["quadrant"] == 3).to_numpy()
    require_rows(rows)
    return np.asarray(rows)


def _spans_constant(sums: Floats) -> bool:
    """Whether columns without a constant add up to one (all levels of a category do)."""
    square = squares(sums.sum(axis=0, keepdims=True))
    swapped = square.copy()  # the outcome made the constant
    swapped[:, -1], swapped[-1, :] = square[:, 0], square[0, :]
    swapped[-1, -1] = square[0, 0]
    found = fit(swapped, list(range(1, len(square) - 1)), about_mean=False)
    return bool(found.rss[0] < 1e-10 * square[0, 0, 0])


def _require_usable(text: str, design: Design, standardize: bool) -> None:
    if standardize and not design.intercept:
        raise InputError(
            where=f"formula `{text}`",
            expected=f"the term {INTERCEPT} for z-scored columns",
            got="none",
            fix="drop `0 +` (or `- 1`), or leave `standardize` off",
        )
    for name, values in {design.label: design.outcome, **design.columns}.items():
        if design.intercept or name == design.label or not values.any():
            require_varied(values, name)


def _explained(
    made: list[Interval], estimator: LeastSquares, bootstrap: Bootstrap
) -> list[Interval]:
    """Intervals that say which columns some draws cannot tell apart, where they have none."""
    if len(estimator.sums) < 2 or not any(interval.reason for interval in made):
        return made
    columns = estimator.columns(MODEL)
    place = undetermined(squares(bootstrap.totals(estimator.sums)), columns)
    lost = [
        f"`{estimator.predictors[columns[p] - 1]}`"
        for p in np.unique(place)
        if p >= 0 and columns[p]
    ]
    if not lost:
        return made
    reason = (
        f"{np.count_nonzero(place >= 0)} of {len(place)} draws lack a level or all variation of "
        f"{', '.join(lost)}"
    )
    return [replace(i, reason=reason) if i.reason else i for i in made]
