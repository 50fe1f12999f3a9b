"""Table 9's regressions against statsmodels, and their draws against refits of whole rows."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
import statsmodels.api as sm

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.regression import Decomposition, decompose
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_counts

FITTED = 1e-10  # normal equations of centred predictors against QR of the rows
CONTROLS = ("entropy_norm", "relative_position", "teacher_entropy_norm")
MODELS = {
    "baseline": (*CONTROLS, "disagreement_norm", "product"),
    "compatibility": (*CONTROLS, "disagreement_norm", "product", "compatibility_norm"),
    "decomposed": (*CONTROLS, "learnable", "incompatible"),
    "decomposed, product kept": (*CONTROLS, "learnable", "incompatible", "product"),
}
RESULTS = ("beta_l", "beta_i", "gap", "delta_r2_decomposed", "delta_r2_compatibility")
FIX = "score more contexts, or choose another scope or support size"
MATRIX = list(product(("all", "q3"), (False, True), ("raw", "zscore", "winsorized")))


def prepared(frame: pd.DataFrame, scope: str, outcome: str, transform: str) -> pd.DataFrame:
    """The rows of a scope with z-scored predictors and the transformed outcome `y`."""
    rows = frame[frame["quadrant"] == 3] if scope == "q3" else frame
    rows = rows.assign(product=rows["entropy_norm"] * rows["disagreement_norm"])
    out = pd.DataFrame({"prompt_id": rows["prompt_id"]})
    for name in sorted({name for model in MODELS.values() for name in model}):
        values = rows[name].to_numpy()
        out[name] = (values - values.mean()) / values.std(ddof=0)
    y = rows[outcome].to_numpy()
    if transform == "zscore":
        y = (y - y.mean()) / y.std(ddof=0)
    elif transform == "winsorized":
        low, high = reference.quantile(y, 0.01), reference.quantile(y, 0.99)
        y = np.array([min(max(value, low), high) for value in y])
    return out.assign(y=y)


def summary(
    betas: dict[str, dict[str, float]], r2: dict[str, float], decomposed: str
) -> np.ndarray:
    """What Table 9 reports, in the order of `RESULTS`."""
    learnable, incompatible = (betas[decomposed][name] for name in ("learnable", "incompatible"))
    return np.array(
        [
            learnable,
            incompatible,
            learnable - incompatible,
            r2[decomposed] - r2["baseline"],
            r2["compatibility"] - r2["baseline"],
        ]
    )


def statsmodels_results(rows: pd.DataFrame, decomposed: str) -> np.ndarray:
    betas, r2 = {}, {}
    for name, model in MODELS.items():
        fitted = sm.OLS(rows["y"], sm.add_constant(rows[list(model)])).fit()
        betas[name], r2[name] = fitted.params.to_dict(), fitted.rsquared
    return summary(betas, r2, decomposed)


def refitted_results(rows: pd.DataFrame, decomposed: str) -> np.ndarray:
    """The same from a plain least-squares solve of the rows, which is faster than statsmodels."""
    betas, r2 = {}, {}
    y = rows["y"].to_numpy()
    for name, model in MODELS.items():
        design = np.column_stack([np.ones(len(rows)), rows[list(model)].to_numpy()])
        beta = np.linalg.lstsq(design, y, rcond=None)[0]
        residual = y - design @ beta
        betas[name] = dict(zip(model, beta[1:], strict=True))
        r2[name] = 1 - (residual**2).sum() / ((y - y.mean()) ** 2).sum()
    return summary(betas, r2, decomposed)


def estimates(got: Decomposition) -> np.ndarray:
    return np.array([getattr(got, name).estimate for name in RESULTS])


def ends(got: Decomposition) -> np.ndarray:
    return np.array([(getattr(got, name).low, getattr(got, name).high) for name in RESULTS])


@pytest.mark.parametrize("outcome", ["gain", "gain_rel"])
@pytest.mark.parametrize(("scope", "keep_product", "transform"), MATRIX)
def test_betas_and_r2_equal_statsmodels(
    frame: pd.DataFrame,
    counts: np.ndarray,
    scope: str,
    keep_product: bool,
    transform: str,
    outcome: str,
) -> None:
    got = decompose(
        frame,
        Bootstrap(counts=counts),
        scope=scope,
        outcome=outcome,
        transform=transform,
        keep_product=keep_product,
    )
    rows = prepared(frame, scope, outcome, transform)
    expected = statsmodels_results(rows, "decomposed" + ", product kept" * keep_product)
    np.testing.assert_allclose(estimates(got), expected, rtol=FITTED, atol=FITTED)
    assert (got.scope, got.outcome) == (scope, outcome)
    assert got.n_positions == len(rows)
    assert got.n_q3 == (frame["quadrant"] == 3).sum()


@pytest.mark.parametrize(("scope", "keep_product", "transform"), MATRIX)
def test_draws_equal_refits_of_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray, scope: str, keep_product: bool, transform: str
) -> None:
    # z-scores and winsorising stay at the full sample; the intercept is fitted in each draw.
    got = decompose(
        frame, Bootstrap(counts=counts), scope=scope, transform=transform, keep_product=keep_product
    )
    rows = prepared(frame, scope, "gain", transform)
    decomposed = "decomposed" + ", product kept" * keep_product
    draws = np.array(
        [refitted_results(reference.drawn_frame(rows, row), decomposed) for row in counts]
    )
    expected = [reference.percentiles(column) for column in draws.T]
    np.testing.assert_allclose(ends(got), expected, rtol=FITTED, atol=FITTED)


@pytest.mark.parametrize("scope", ["all", "q3"])
def test_one_draw_equals_one_refit(frame: pd.DataFrame, scope: str) -> None:
    # With a single draw both ends of the interval are that draw.
    for row in draw_counts(10, 6, seed=3):
        got = decompose(frame, Bootstrap(counts=row[None, :]), scope=scope)
        rows = reference.drawn_frame(prepared(frame, scope, "gain", "raw"), row)
        expected = refitted_results(rows, "decomposed")
        np.testing.assert_allclose(ends(got)[:, 0], expected, rtol=FITTED, atol=FITTED)
        np.testing.assert_allclose(ends(got)[:, 1], expected, rtol=FITTED, atol=FITTED)


def test_draw_of_every_prompt_once_is_the_full_sample(frame: pd.DataFrame) -> None:
    got = decompose(frame, Bootstrap(counts=np.ones((1, 10))))
    np.testing.assert_allclose(ends(got)[:, 0], estimates(got), rtol=FITTED, atol=FITTED)


@pytest.mark.parametrize("scope", ["all", "q3"])
def test_permuted_rows_give_the_same_row(
    frame: pd.DataFrame, counts: np.ndarray, scope: str
) -> None:
    here = decompose(frame, Bootstrap(counts=counts), scope=scope)
    there = decompose(reference.permuted(frame, seed=9), Bootstrap(counts=counts), scope=scope)
    np.testing.assert_allclose(estimates(there), estimates(here), rtol=FITTED, atol=FITTED)
    np.testing.assert_allclose(ends(there), ends(here), rtol=FITTED, atol=FITTED)


def test_relabelled_prompts_keep_the_point_estimates(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    here, there = (
        decompose(f, Bootstrap(counts=counts)) for f in (frame, reference.relabelled(frame))
    )
    np.testing.assert_allclose(estimates(there), estimates(here), rtol=FITTED, atol=FITTED)


@pytest.mark.parametrize("column", ["teacher_entropy_norm", "relative_position"])
@pytest.mark.parametrize(("scale", "shift"), [(3.0, 2.0), (-0.01, 5.0)])
def test_affine_change_of_a_control_changes_nothing(
    frame: pd.DataFrame, counts: np.ndarray, column: str, scale: float, shift: float
) -> None:
    here = decompose(frame, Bootstrap(counts=counts))
    there = decompose(
        frame.assign(**{column: scale * frame[column] + shift}), Bootstrap(counts=counts)
    )
    np.testing.assert_allclose(estimates(there), estimates(here), rtol=0, atol=1e-9)
    np.testing.assert_allclose(ends(there), ends(here), rtol=0, atol=1e-9)


def test_affine_change_of_the_learnable_part_keeps_its_beta_and_a_mirror_turns_it(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    here = decompose(frame, Bootstrap(counts=counts))
    stretched = decompose(
        frame.assign(learnable=7 * frame["learnable"] + 1), Bootstrap(counts=counts)
    )
    mirrored = decompose(frame.assign(learnable=-frame["learnable"]), Bootstrap(counts=counts))
    assert stretched.beta_l.estimate == pytest.approx(here.beta_l.estimate, abs=1e-9)
    assert mirrored.beta_l.estimate == pytest.approx(-here.beta_l.estimate, abs=1e-9)
    assert mirrored.beta_i.estimate == pytest.approx(here.beta_i.estimate, abs=1e-9)


def test_outcome_scaled_and_shifted_scales_betas_and_keeps_r2(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    here = estimates(decompose(frame, Bootstrap(counts=counts)))
    there = estimates(decompose(frame.assign(gain=5 * frame["gain"] + 3), Bootstrap(counts=counts)))
    np.testing.assert_allclose(there[:3], 5 * here[:3], rtol=0, atol=1e-9)
    np.testing.assert_allclose(there[3:], here[3:], rtol=0, atol=1e-9)


def test_large_constant_in_the_outcome_costs_no_digits(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    # gain + 1e6 keeps about ten digits after the point; products that are not centred keep none.
    here, there = (
        decompose(f, Bootstrap(counts=counts))
        for f in (frame, frame.assign(gain=frame["gain"] + 1e6))
    )
    np.testing.assert_allclose(estimates(there), estimates(here), rtol=0, atol=1e-8)
    np.testing.assert_allclose(ends(there), ends(here), rtol=0, atol=1e-8)


def test_gain_made_of_the_learnable_part_alone_gives_its_spread_and_no_beta_i(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    # gain = 2 D^L + 0.5, so beta_L = 2 sd(D^L) and beta_I = 0 in every draw.
    got = decompose(frame.assign(gain=2 * frame["learnable"] + 0.5), Bootstrap(counts=counts))
    expected = 2 * frame["learnable"].std(ddof=0)
    for end in ("estimate", "low", "high"):
        assert getattr(got.beta_l, end) == pytest.approx(expected, abs=FITTED)
        assert getattr(got.beta_i, end) == pytest.approx(0, abs=FITTED)
        assert getattr(got.gap, end) == pytest.approx(expected, abs=FITTED)


@pytest.mark.parametrize("scope", ["all", "q3"])
def test_r2_of_a_nested_model_never_falls(
    frame: pd.DataFrame, counts: np.ndarray, scope: str
) -> None:
    # +C adds a predictor; D^L, D^I and the product span D~ = D^L + D^I and the product.
    got = decompose(frame, Bootstrap(counts=counts), scope=scope, keep_product=True)
    for delta in (got.delta_r2_compatibility, got.delta_r2_decomposed):
        assert 0 <= delta.estimate <= 1
        assert delta.low >= -FITTED


def test_unchanged_checkpoint_has_betas_of_zero(frame: pd.DataFrame, counts: np.ndarray) -> None:
    # Its gain is 0 everywhere: least squares of zeros is zero, and R^2 has no value.
    got = decompose(frame.assign(gain=0.0), Bootstrap(counts=counts))
    assert estimates(got)[:3].tolist() == [0, 0, 0]
    assert ends(got)[:3].tolist() == [[0, 0]] * 3
    assert math.isnan(got.delta_r2_decomposed.low)
    assert math.isnan(got.delta_r2_decomposed.high)


def test_one_prompt_has_no_interval(frame: pd.DataFrame) -> None:
    got = decompose(frame.assign(prompt_id="only"), Bootstrap(counts=draw_counts(1, 20, seed=0)))
    rows = prepared(frame, "all", "gain", "raw")
    expected = statsmodels_results(rows, "decomposed")
    np.testing.assert_allclose(estimates(got), expected, rtol=FITTED, atol=FITTED)
    assert np.isnan(ends(got)).all()
    reasons = {getattr(got, name).reason for name in RESULTS}
    assert reasons == {"1 prompt: no interval from one cluster"}


def few_in_q3(frame: pd.DataFrame, prompts: int) -> pd.DataFrame:
    """The table with Q3 left in the first prompts alone."""
    names = sorted(set(frame["prompt_id"]))[:prompts]
    outside = (frame["quadrant"] == 3) & ~frame["prompt_id"].isin(names)
    return frame.assign(quadrant=frame["quadrant"].mask(outside, 4))


def test_draw_without_positions_in_the_scope_gives_no_interval(frame: pd.DataFrame) -> None:
    # Q3 lies in prompts 0 to 3; the second draw holds none of them.
    counts = np.ones((3, 10))
    counts[1] = [0, 0, 0, 0, 10, 0, 0, 0, 0, 0]
    changed = few_in_q3(frame, prompts=4)
    got = decompose(changed, Bootstrap(counts=counts), scope="q3")
    expected = statsmodels_results(prepared(changed, "q3", "gain", "raw"), "decomposed")
    np.testing.assert_allclose(estimates(got), expected, rtol=FITTED, atol=FITTED)
    assert np.isnan(ends(got)).all()
    assert all(getattr(got, name).reason.startswith("1 of 3 draws") for name in RESULTS)


@pytest.mark.parametrize("times", [1, 3, 7])
def test_draw_with_fewer_distinct_positions_than_coefficients_gives_no_interval(
    frame: pd.DataFrame, times: int
) -> None:
    # Prompt 0 keeps four Q3 positions; a draw of it alone cannot fit six coefficients.
    first = min(frame["prompt_id"])
    q3_of_first = frame.index[(frame["quadrant"] == 3) & (frame["prompt_id"] == first)]
    assert len(q3_of_first) > 4
    changed = frame.copy()
    changed.loc[q3_of_first[4:], "quadrant"] = 4
    counts = np.ones((2, 10))
    counts[1] = 0
    counts[1, 0] = times
    got = decompose(changed, Bootstrap(counts=counts), scope="q3")
    assert np.isnan(ends(got)).all()
    assert all(getattr(got, name).reason.startswith("1 of 2 draws") for name in RESULTS)


def test_single_draw_that_cannot_be_fitted_gives_no_interval_and_is_not_refused(
    frame: pd.DataFrame,
) -> None:
    counts = np.zeros((1, 10))
    counts[0, 9] = 10
    got = decompose(few_in_q3(frame, prompts=4), Bootstrap(counts=counts), scope="q3")
    assert np.isfinite(estimates(got)).all()
    assert np.isnan(ends(got)).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.7])
@pytest.mark.parametrize("scope", ["all", "q3"])
def test_constant_predictor_is_refused(
    frame: pd.DataFrame, counts: np.ndarray, value: float, scope: str
) -> None:
    with pytest.raises(InputError) as caught:
        decompose(frame.assign(compatibility_norm=value), Bootstrap(counts=counts), scope=scope)
    assert str(caught.value) == (
        "regression: expected `compatibility_norm` to vary over the scope, "
        f"got {value:g} everywhere; {FIX}"
    )


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_outcome_cannot_be_z_scored(
    frame: pd.DataFrame, counts: np.ndarray, value: float
) -> None:
    with pytest.raises(InputError) as caught:
        decompose(frame.assign(gain=value), Bootstrap(counts=counts), transform="zscore")
    assert str(caught.value) == (
        f"regression: expected `outcome` to vary over the scope, got {value:g} everywhere; {FIX}"
    )


@pytest.mark.parametrize("scope", ["all", "q3"])
def test_collinear_predictors_are_refused(
    frame: pd.DataFrame, counts: np.ndarray, scope: str
) -> None:
    twin = frame.assign(teacher_entropy_norm=1 - 0.5 * frame["entropy_norm"])
    with pytest.raises(InputError) as caught:
        decompose(twin, Bootstrap(counts=counts), scope=scope)
    assert str(caught.value) == (
        "regression: expected independent predictors among entropy_norm, relative_position, "
        "teacher_entropy_norm, disagreement_norm, product, got `teacher_entropy_norm`, which the "
        f"ones before it determine; {FIX}"
    )


def test_fewer_positions_than_coefficients_are_refused(frame: pd.DataFrame) -> None:
    few = frame.iloc[[3, 45, 110, 200]]
    with pytest.raises(
        InputError, match=r"expected independent predictors among .* which the ones before"
    ):
        decompose(few, Bootstrap(counts=draw_counts(few["prompt_id"].nunique(), 5, seed=0)))


def test_empty_scope_is_refused(frame: pd.DataFrame, counts: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        decompose(frame.assign(quadrant=np.int8(4)), Bootstrap(counts=counts), scope="q3")
    assert str(caught.value) == (
        "regression: expected positions in the scope, got none; "
        "score more contexts, or choose the scope `all`"
    )
