"""Formulas against statsmodels' `ols`, their draws against refits of concatenated rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import patsy
import pytest
import statistics_reference as reference
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.formulas import formula, formula_estimator
from diagnostics.statistics.analyses.regression import decompose
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_values
from diagnostics.statistics.inference.estimators import estimate
from diagnostics.statistics.inference.robust import robust_table

FITTED = 1e-10  # normal equations of centred columns against QR of the rows
FORMULAS = (
    "gain ~ learnable + incompatible + C(quadrant) + np.log(entropy + 1e-3)",
    "gain ~ entropy_norm * disagreement_norm + relative_position",
    "np.arctan(gain_rel) ~ bs(entropy, df=4) + C(quadrant, Sum):learnable",
    "gain ~ center(learnable) + Q('kl_0') + (overlap > 0.5)",
    "gain ~ 1",
    "gain ~ learnable - 1",
    "gain ~ 0 + C(quadrant) + learnable",
    "gain ~ 0 + learnable + incompatible + entropy",
)
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("text", FORMULAS)
def test_coefficients_r2_and_cr1_equal_statsmodels(frame: pd.DataFrame, text: str) -> None:
    owner = np.unique(frame["prompt_id"], return_inverse=True)[1]
    fitted = smf.ols(text, frame).fit(cov_type="cluster", cov_kwds={"groups": owner}, use_t=True)
    got = robust_table(formula_estimator(text, frame), ("cr1",)).set_index("name")
    assert got.index.tolist() == [*fitted.params.index, "r2"]
    for column, wanted in (("estimate", fitted.params), ("error", fitted.bse)):
        np.testing.assert_allclose(got[column][:-1], wanted, rtol=FITTED, atol=FITTED)
    np.testing.assert_allclose(got["p"][:-1], fitted.pvalues, rtol=1e-7)
    assert got["estimate"].iloc[-1] == pytest.approx(fitted.rsquared, abs=FITTED)


def refit(outcome: np.ndarray, matrix: np.ndarray, about_mean: bool) -> list[float]:
    """Coefficients and R^2 of rows by a plain least-squares solve."""
    beta = np.linalg.lstsq(matrix, outcome, rcond=None)[0]
    middle = outcome.mean() if about_mean else 0.0
    left = ((outcome - matrix @ beta) ** 2).sum()
    return [*beta, 1 - left / ((outcome - middle) ** 2).sum()]


@pytest.mark.parametrize("text", FORMULAS)
def test_draws_equal_refits_of_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray, text: str
) -> None:
    # Levels, knots and means are learnt from the full sample, once.
    outcome, matrix = patsy.dmatrices(text, frame)
    owner = np.unique(frame["prompt_id"], return_inverse=True)[1]
    about_mean = "- 1" not in text and ("0 +" not in text or "C(quadrant)" in text)
    expected = []
    for row in counts[:20].astype(int):
        drawn = np.concatenate([np.flatnonzero(owner == g) for g in np.repeat(range(10), row)])
        expected.append(refit(np.asarray(outcome)[drawn, 0], np.asarray(matrix)[drawn], about_mean))
    got = draw_values(formula_estimator(text, frame), Bootstrap(counts=counts[:20]))
    np.testing.assert_allclose(got, expected, rtol=FITTED, atol=FITTED)


@pytest.mark.parametrize("scope", ["all", "q3"])
def test_table_9_is_a_formula(frame: pd.DataFrame, counts: np.ndarray, scope: str) -> None:
    text = (
        "gain ~ entropy_norm + relative_position + teacher_entropy_norm + learnable + incompatible"
    )
    pair = "learnable - incompatible"
    bootstrap = Bootstrap(counts=counts)
    got = formula(text, frame, bootstrap, scope=scope, standardize=True, contrasts=[pair])
    wanted = decompose(frame, bootstrap, scope=scope)
    assert (got.n_positions, got.scope) == (wanted.n_positions, scope)
    for here, there in zip(
        [got.contrasts[0], *got.terms[4:]], [wanted.gap, wanted.beta_l, wanted.beta_i], strict=True
    ):
        ends = (here.estimate.estimate, here.estimate.low, here.estimate.high)
        assert ends == pytest.approx((there.estimate, there.low, there.high), abs=FITTED)
    assert got.contrasts[0].term == pair


def test_zscored_columns_scale_coefficients_and_move_the_constant(frame: pd.DataFrame) -> None:
    text = "gain ~ learnable * entropy + C(quadrant)"
    plain, scaled = (formula(text, frame, standardize=on).to_frame() for on in (False, True))
    product = frame["learnable"] * frame["entropy"]
    spread = {"learnable": frame["learnable"].std(ddof=0), "entropy": frame["entropy"].std(ddof=0)}
    spread["learnable:entropy"] = product.std(ddof=0)
    for term, here, there in zip(plain["term"], plain.iloc, scaled.iloc, strict=True):
        if term == "Intercept":
            continue
        factor = spread.get(term, 1.0)  # a category's columns stay as they are
        for column in ("estimate", "low", "high", "error"):
            assert there[column] == pytest.approx(factor * here[column], rel=1e-9)
        assert (there["p"], there["degrees"]) == pytest.approx((here["p"], here["degrees"]))
    middle = frame[["learnable", "entropy"]].mean().to_dict() | {
        "learnable:entropy": product.mean()
    }
    raw = plain.set_index("term")["estimate"]
    wanted = raw["Intercept"] + sum(raw[term] * value for term, value in middle.items())
    assert scaled["estimate"][0] == pytest.approx(wanted, abs=FITTED)


def test_scope_q3_is_the_formula_of_its_rows(frame: pd.DataFrame) -> None:
    text = "gain ~ learnable + entropy"
    fitted = smf.ols(text, frame[frame["quadrant"] == 3]).fit()
    got = formula(text, frame, Bootstrap(draws=50), scope="q3")
    estimates = [term.estimate.estimate for term in got.terms]
    np.testing.assert_allclose(estimates, fitted.params, rtol=FITTED, atol=FITTED)
    assert got.n_positions == fitted.nobs
    assert got.n_prompts == frame[frame["quadrant"] == 3]["prompt_id"].nunique()


@pytest.mark.parametrize("text", [FORMULAS[0], *FORMULAS[-3:]])
def test_gradient_is_the_derivative_of_the_value(frame: pd.DataFrame, text: str) -> None:
    estimator = formula_estimator(text, frame)
    totals = estimator.sums.sum(axis=0, keepdims=True)
    steps = 1e-6 * np.maximum(1.0, np.abs(totals[0]))
    up, down = (
        estimator.value(np.repeat(totals, len(steps), axis=0) + sign * np.diag(steps))
        for sign in (1, -1)
    )
    slopes = (up - down) / (2 * steps[:, None])
    for index in range(len(estimator.names)):
        got = estimator.gradient(totals, index)[0]
        largest = np.abs(got).max()
        np.testing.assert_allclose(got, slopes[:, index], rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("kind", ["percentile", "bca", "studentized"])
def test_every_kind_of_interval(frame: pd.DataFrame, kind: str) -> None:
    got = formula(FORMULAS[0], frame, Bootstrap(draws=200, kind=kind))
    for term in got.terms:
        assert term.estimate.kind == kind
        assert term.estimate.low < term.estimate.high
    assert got.r2.low < got.r2.high


def test_contrast_of_levels_is_another_reference_level(frame: pd.DataFrame) -> None:
    bootstrap = Bootstrap(draws=100)
    pair = formula(
        "gain ~ C(quadrant) + entropy",
        frame,
        bootstrap,
        contrasts=["C(quadrant)[T.4] - C(quadrant)[T.3]"],
    ).contrasts[0]
    other = formula("gain ~ C(quadrant, Treatment(3)) + entropy", frame, bootstrap).terms[3]
    assert other.term == "C(quadrant, Treatment(3))[T.4]"
    for got, wanted in (
        (pair.estimate.low, other.estimate.low),
        (pair.error, other.error),
        (pair.degrees, other.degrees),
    ):
        assert got == pytest.approx(wanted, rel=1e-9)


def test_result_is_a_row_a_term_and_reads_as_a_table(frame: pd.DataFrame) -> None:
    text = "gain ~ learnable + entropy"
    got = formula(text, frame, Bootstrap(draws=50), contrasts=["learnable - entropy"])
    shown = got.to_frame()
    assert shown.columns.tolist() == (
        ["term", "estimate", "low", "high", "reason", "error", "degrees", "p"]
    )
    assert shown["term"].tolist() == ["Intercept", "learnable", "entropy", "learnable - entropy"]
    wanted = robust_table(formula_estimator(text, frame), ("cr2",))
    np.testing.assert_allclose(shown["error"][:3], wanted["error"][:3])
    lines = repr(got).splitlines()
    assert lines[0] == f"{text}  (all: {len(frame)} positions of 10 prompts)"
    assert lines[-1] == f"R^2 {got.r2}"
    assert len(lines) == 7


def test_functions_of_ones_own_may_be_used(frame: pd.DataFrame) -> None:
    def clipped(values: pd.Series) -> pd.Series:
        return values.clip(0, 1)

    got = formula_estimator("gain ~ clipped(entropy)", frame, functions={"clipped": clipped})
    wanted = formula_estimator("gain ~ x", frame.assign(x=frame["entropy"].clip(0, 1)))
    np.testing.assert_allclose(estimate(got), estimate(wanted), rtol=FITTED)


def with_levels(frame: pd.DataFrame) -> pd.DataFrame:
    """A category of which one level is in the prompts p001 and p002 alone."""
    rare = np.where(frame["prompt_id"].isin(["p001", "p002"]), "rare", "usual")
    return frame.assign(level=rare)


def test_draws_without_a_level_have_no_value_and_the_interval_says_so(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    got = formula("gain ~ learnable + level", with_levels(frame), Bootstrap(counts=counts))
    lacking = int((counts[:, 1] + counts[:, 2] == 0).sum())
    assert lacking > 0
    reason = f"{lacking} of 60 draws lack a level or all variation of `level[T.usual]`"
    for interval in [*(term.estimate for term in got.terms), got.r2]:
        assert math.isnan(interval.low)
        assert interval.reason == reason
    assert got.to_frame()["reason"].tolist() == [reason] * 3
    assert got.terms[2].error > 0  # no draws are needed for this one


def test_one_prompt_has_no_interval_and_no_error(frame: pd.DataFrame) -> None:
    got = formula("gain ~ learnable", frame.assign(prompt_id="only"))
    for term in got.terms:
        assert math.isfinite(term.estimate.estimate)
        assert term.estimate.reason == "1 prompt: no interval from one cluster"
        assert math.isnan(term.error)
        assert math.isnan(term.p)


def test_levels_without_rows_are_no_columns(frame: pd.DataFrame) -> None:
    prompts = frame.assign(prompt_id=frame["prompt_id"].astype("category"))
    kept = prompts[prompts["prompt_id"].isin(["p001", "p002", "p003"])]
    got = formula_estimator("gain ~ prompt_id", kept)
    assert got.names == ("Intercept", "prompt_id[T.p002]", "prompt_id[T.p003]", "r2")


@few
@given(st.integers(0, 10**6), st.floats(-100, 100))
def test_order_of_rows_and_a_shift_of_the_outcome_change_no_slope(seed: int, shift: float) -> None:
    frame = reference.make_frame(seed=11)
    other = reference.permuted(frame.assign(gain=frame["gain"] + shift), seed)
    here, there = (
        formula(FORMULAS[0], f, Bootstrap(draws=40)).to_frame().set_index("term")
        for f in (frame, other)
    )
    for column in ("estimate", "low", "high", "error"):
        np.testing.assert_allclose(there[column][1:], here[column][1:], rtol=1e-8, atol=1e-10)
        move = shift if column != "error" else 0.0
        assert there[column].iloc[0] == pytest.approx(here[column].iloc[0] + move, abs=1e-8)


LANGUAGE = "write it as patsy reads it: https://patsy.readthedocs.io/en/latest/formulas.html"
WIDTH = "name terms to estimate, and no category of hundreds of levels"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gain ~ learnable +",
            "expected an outcome ~ terms, got expected a noun, but instead the expression ended; "
            + LANGUAGE,
        ),
        (
            "learnable",
            "expected an outcome ~ terms, got model is missing required outcome variables; "
            + LANGUAGE,
        ),
        (
            "gain ~ np.nope(entropy)",
            "expected an outcome ~ terms, got Error evaluating factor: AttributeError: module "
            "'numpy' has no attribute 'nope'; " + LANGUAGE,
        ),
        ("gain + kl_0 ~ entropy", "expected one numeric outcome, got gain, kl_0; " + LANGUAGE),
        (
            "side ~ entropy",
            "expected one numeric outcome, got side[left], side[right]; " + LANGUAGE,
        ),
        ("gain ~ 0", "expected 1 to 64 columns, got 0; " + WIDTH),
        ("gain ~ C(context_id):C(position)", "expected 1 to 64 columns, got 440; " + WIDTH),
        (
            "gain ~ learnable + incompatible + disagreement_norm",
            "expected independent predictors among learnable, incompatible, disagreement_norm, got "
            "`disagreement_norm`, which the ones before it determine; leave it out, or one of "
            "those before it",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(frame: pd.DataFrame, text: str, message: str) -> None:
    sides = np.where(frame["position"] < 3, "left", "right")
    with pytest.raises(InputError) as caught:
        formula(text, frame.assign(side=sides))
    assert str(caught.value) == f"formula `{text}`: {message}"


def test_unknown_names_are_all_named_beside_the_columns_there_are(frame: pd.DataFrame) -> None:
    table = frame[["prompt_id", "gain", "entropy"]]
    with pytest.raises(InputError) as caught:
        formula("gain ~ learnt + entropy + lgo(entropy) + Q('no such')", table)
    assert str(caught.value) == (
        "formula `gain ~ learnt + entropy + lgo(entropy) + Q('no such')`: expected columns of the "
        "table, or functions handed over, got `learnt`, `lgo`, `no such`; the table has prompt_id, "
        "gain, entropy"
    )


def test_checkpoints_are_several_only_where_the_formula_tells_them_apart(
    frame: pd.DataFrame,
) -> None:
    later = frame.assign(checkpoint="step20", gain=frame["gain"] + 0.5)
    both = pd.concat([frame, later], ignore_index=True)
    terms = formula("gain ~ checkpoint", both).to_frame().set_index("term")
    assert terms["estimate"]["checkpoint[T.step20]"] == pytest.approx(0.5, abs=1e-10)
    with pytest.raises(InputError) as caught:
        formula("gain ~ learnable", both)
    assert str(caught.value) == (
        "token table: expected one checkpoint, got step10, step20; choose one with "
        'run.at("step10") or frame[frame["checkpoint"] == …]'
    )


@pytest.mark.parametrize(
    ("text", "column", "value", "label", "shown"),
    [
        ("gain ~ learnable", "learnable", np.nan, "learnable", "nan"),
        ("gain ~ learnable", "gain", np.nan, "gain", "nan"),
        ("gain ~ learnable", "learnable", np.inf, "learnable", "inf"),
        ("gain ~ np.log(entropy)", "entropy", -1.0, "np.log(entropy)", "nan"),
        ("gain ~ np.log(entropy)", "entropy", 0.0, "np.log(entropy)", "-inf"),
        ("gain ~ checkpoint", "checkpoint", None, "checkpoint", "nan"),
        ("gain ~ C(group)", "group", None, "C(group)", "nan"),
    ],
)
def test_missing_values_are_refused_with_their_context_and_never_dropped(
    frame: pd.DataFrame, text: str, column: str, value: object, label: str, shown: str
) -> None:
    table = frame.assign(group=pd.Categorical(np.where(frame["position"] % 2, "odd", "even")))
    table.loc[7, column] = value
    with pytest.raises(InputError) as caught:
        formula(text, table)
    context = frame["context_id"][7]
    assert str(caught.value) == (
        f"token table, context {context}, position 7: expected a finite `{label}`, got {shown}; "
        "score that context again, or drop it"
    )


@pytest.mark.parametrize(
    "text", ["gain ~ entropy + flat", "gain ~ 0 + entropy + flat", "flat ~ entropy"]
)
def test_column_that_does_not_vary_is_refused(frame: pd.DataFrame, text: str) -> None:
    with pytest.raises(InputError) as caught:
        formula(text, frame.assign(flat=0.0))
    assert str(caught.value) == (
        "regression: expected `flat` to vary over the scope, got 0 everywhere; score more "
        "contexts, or choose another scope or support size"
    )


def test_empty_scope_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError) as caught:
        formula("gain ~ entropy", frame.assign(quadrant=1), scope="q3")
    assert str(caught.value) == (
        "regression: expected positions in the scope, got none; score more contexts, or choose the "
        "scope `all`"
    )


def test_zscores_without_a_constant_are_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError) as caught:
        formula("gain ~ 0 + entropy", frame, standardize=True)
    assert str(caught.value) == (
        "formula `gain ~ 0 + entropy`: expected the term Intercept for z-scored columns, got none; "
        "drop `0 +` (or `- 1`), or leave `standardize` off"
    )


@pytest.mark.parametrize(
    ("contrast", "got"),
    [
        ("learnable - nope", "`learnable - nope` (unrecognized token in constraint)"),
        ("learnable = 1", "`learnable = 1`"),
        ("learnable, entropy", "`learnable, entropy`"),
    ],
)
def test_contrast_of_other_than_terms_is_refused(
    frame: pd.DataFrame, contrast: str, got: str
) -> None:
    with pytest.raises(InputError) as caught:
        formula("gain ~ learnable + entropy", frame, contrasts=[contrast])
    assert str(caught.value) == (
        "formula `gain ~ learnable + entropy`: expected a contrast between terms, such as `a - b`, "
        f"got {got}; the terms are Intercept, learnable, entropy"
    )
