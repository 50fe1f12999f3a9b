"""A formula's outcome and columns from a token table, read as statsmodels reads it (patsy).

Names are columns of the table; `np`, patsy's own functions (`C`, `Q`, `bs`, `center`, ...) and what
the caller hands over may be used. What patsy learns from the data (levels, knots, means) is learnt
once, from the scope's positions. patsy drops rows with missing values without a word: here they
are refused. Not covered: what is estimated from the columns (`formulas`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diagnostics.errors import InputError
from diagnostics.statistics.inference.estimators import Floats
from diagnostics.statistics.inference.least_squares import Contrast
from diagnostics.statistics.tables.values import require_finite

INTERCEPT = "Intercept"
WIDEST = 64  # columns: a draw needs a matrix of that size, all draws at one time
LANGUAGE = "write it as patsy reads it: https://patsy.readthedocs.io/en/latest/formulas.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A formula over some positions.

    Fields: `outcome` (pos,) and its `label`; `columns` (pos,) by name, without the constant;
    `intercept` whether there is one; `numeric` which columns involve no category.
    """

    outcome: Floats
    label: str
    columns: dict[str, Floats]
    intercept: bool
    numeric: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """All terms, the constant first."""
        return ((INTERCEPT,) if self.intercept else ()) + tuple(self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """Columns as they are summed, and the way back to the formula's coefficients.

    Fields: `names` (q,); `columns` (pos,) each: centred and per standard deviation, or, without a
    constant, per root mean square; `scale` (q,) what they were divided by; `unit` (q,) what the
    formula's coefficient is per; `shift` (q,) where the formula's column is 0; `middle` taken off
    the outcome.
    """

    names: tuple[str, ...]
    columns: list[Floats]
    scale: Floats
    unit: Floats
    shift: Floats
    middle: float
    intercept: bool

    @classmethod
    def of(cls, design: Design, standardize: bool) -> Scaled:
        """Of a design's columns; `standardize` makes numeric ones z-scores in the formula too."""
        values = list(design.columns.values())
        centre = np.array([v.mean() if design.intercept else 0.0 for v in values])
        centred = [v - c for v, c in zip(values, centre, strict=True)]
        scale = np.array([float(np.sqrt((v**2).mean())) for v in centred])
        plain = np.array([not standardize or n not in design.numeric for n in design.columns])
        return cls(
            names=tuple(design.columns),
            columns=[v / s for v, s in zip(centred, scale, strict=True)],
            scale=scale,
            unit=np.where(plain, 1.0, scale),
            shift=np.where(plain, centre, 0.0),
            middle=float(design.outcome.mean()) if design.intercept else 0.0,
            intercept=design.intercept,
        )

    def contrast(self, name: str, model: str, weights: Floats) -> Contrast:
        """A sum of the formula's coefficients in terms of those of the columns as summed.

        The formula's constant is `middle` plus the columns' own, less b times shift / scale.
        """
        constant = float(weights[0]) if self.intercept else 0.0
        own = weights[int(self.intercept) :] * self.unit / self.scale
        own = own - constant * self.shift / self.scale
        return Contrast(
            name=name,
            model=model,
            weights={n: float(w) for n, w in zip(self.names, own, strict=True) if w},
            constant=constant,
            offset=constant * self.middle,
        )


def design_of(
    formula: str,
    frame: pd.DataFrame,
    rows: NDArray[np.bool_],
    functions: Mapping[str, Callable[..., Any]],
) -> Design:
    """The columns of a formula over `rows` (pos,) of a token table.

    Raises InputError for a formula that cannot be read, unknown columns, an outcome that is not
    one number a position, and values that are missing or not finite, with their context.
    """
    import patsy

    data, names = _used(formula, frame, rows), {"np": np, **functions}
    action = _kept(frame, rows)
    try:
        with np.errstate(all="ignore"):
            infos = patsy.incr_dbuilders(formula, lambda: iter([data]), _among(names), action)
            _require_width(formula, len(infos[1].column_names))
            outcome, matrix = patsy.build_design_matrices(infos, data, action)
    except InputError:
        raise
    except Exception as error:  # whatever the caller's own expression raises
        missing = _unknown(formula, data, names, error)
        if missing:
            there = f"the table has {', '.join(map(str, frame.columns))}"
            expected = "columns of the table, or functions handed over"
            raise _refused(formula, expected, ", ".join(missing), there) from error
        raise _refused(formula, "an outcome ~ terms", _first_line(error), LANGUAGE) from error
    columns = dict(zip(matrix.design_info.column_names, np.asarray(matrix).T, strict=True))
    labels = outcome.design_info.column_names
    if len(labels) != 1:
        raise _refused(formula, "one numeric outcome", ", ".join(labels), LANGUAGE)
    for name, values in {labels[0]: np.asarray(outcome)[:, 0], **columns}.items():
        require_finite(values, name, frame, rows)
    intercept = columns.pop(INTERCEPT, None) is not None
    return Design(
        outcome=np.asarray(outcome)[:, 0],
        label=labels[0],
        columns=columns,
        intercept=intercept,
        numeric=_numeric(matrix.design_info),
    )


def contrast_weights(text: str, names: Sequence[str], formula: str) -> Floats:
    """The weights (names,) of a contrast such as `learnable - incompatible`.

    Raises InputError for a term that the formula lacks, several contrasts in one, or a constant.
    """
    import patsy

    try:
        found = patsy.DesignInfo(list(names)).linear_constraint(text)
    except patsy.PatsyError as error:
        got = f"`{text}` ({_first_line(error)})"
        raise _contrast_refused(formula, names, got) from error
    if len(found.coefs) != 1 or found.constants.any():
        raise _contrast_refused(formula, names, f"`{text}`")
    return np.asarray(found.coefs[0], dtype=np.float64)


def _kept(frame: pd.DataFrame, rows: NDArray[np.bool_]) -> Any:
    """What patsy does about missing values: it would drop their rows; this refuses them."""
    import patsy

    class Kept(patsy.NAAction):  # type: ignore[misc]
        def handle_NA(self, values: Any, is_NAs: Any, origins: Any) -> Any:
            for missing, origin in zip(is_NAs, origins, strict=True):
                label = origin.code[origin.start : origin.end] if origin else "value"
                require_finite(np.where(missing, np.nan, 0.0), label, frame, rows)
            return values

    return Kept()


def _require_width(formula: str, width: int) -> None:
    if not 0 < width <= WIDEST:
        fix = "name terms to estimate, and no category of hundreds of levels"
        raise _refused(formula, f"1 to {WIDEST} columns", f"{width}", fix)


def _used(formula: str, frame: pd.DataFrame, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """The rows of the columns that a formula could mean; levels without rows are dropped."""
    known = [c for c in frame.columns if isinstance(c, str) and c in formula]
    data = frame.loc[rows, known]
    given = data.select_dtypes("category").columns
    return data.assign(**{name: data[name].cat.remove_unused_categories() for name in given})


def _numeric(info: Any) -> frozenset[str]:
    """Columns of terms without a categorical factor."""
    found: list[str] = []
    for term, place in info.term_slices.items():
        if all(info.factor_infos[factor].type == "numerical" for factor in term.factors):
            found += info.column_names[place]
    return frozenset(found) - {INTERCEPT}


def _among(names: Mapping[str, Any]) -> Any:
    """What patsy looks names up in, after the columns."""
    import patsy

    return patsy.EvalEnvironment([dict(names)])


def _unknown(
    formula: str, data: pd.DataFrame, names: Mapping[str, Any], error: Exception
) -> list[str]:
    """All names that a formula uses and nobody knows, from the `error` of the first."""
    import patsy

    known, missing = dict(names), list[str]()
    while isinstance(cause := error.__cause__, NameError):
        name = cause.name or str(cause).split("'")[1]  # of Q('name') patsy says it in words alone
        if name in missing:
            break
        missing.append(name)
        if cause.name:
            known[name] = np.zeros(len(data)).view(_StandIn)
        else:
            data = data.assign(**{name: 0.0})
        try:
            patsy.dmatrices(formula, data, _among(known))
        except Exception as further:
            error = further
    return [f"`{name}`" for name in sorted(missing)]


class _StandIn(np.ndarray):
    """What an unknown name is taken for while further ones are looked for."""

    def __call__(self, *_: Any, **__: Any) -> np.ndarray:
        return np.asarray(self)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _refused(formula: str, expected: str, got: str, fix: str) -> InputError:
    return InputError(where=f"formula `{formula}`", expected=expected, got=got, fix=fix)


def _contrast_refused(formula: str, names: Sequence[str], got: str) -> InputError:
    return _refused(
        formula,
        "a contrast between terms, such as `a - b`",
        got,
        f"the terms are {', '.join(names)}",
    )
