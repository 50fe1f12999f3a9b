"""Draws that redo norms, quadrants, cuts and z-scores, against the concatenated rows of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.analyses import redraw_sums
from diagnostics.statistics.analyses.gaps import support_gap
from diagnostics.statistics.analyses.redraw import NAMES, redrawn, redrawn_interval, redrawn_values
from diagnostics.statistics.analyses.redraw_sums import draw_cuts, prepare
from diagnostics.statistics.analyses.regression import decompose
from diagnostics.statistics.inference.bootstrap import (
    Bootstrap,
    bca_interval,
    draw_counts,
    percentile_interval,
)
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.tables.definitions import definition_set, state
from diagnostics.statistics.tables.tokens import NORMALIZED

EXACT = 1e-10
ROUNDING = 1e-12  # the same sums in another order
DRAWS = 10

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)

SIGNALS = ("entropy", "teacher_entropy", "disagreement", "compatibility")


def renewed(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose norms and quadrants are those of its own rows."""
    low, high = reference.quantile(frame["entropy"], 0.5), reference.quantile(frame["kl_0"], 0.5)
    norms = {f"{name}_norm": reference.norm(frame[name]) for name in SIGNALS}
    d, c = np.array(norms["disagreement_norm"]), np.array(norms["compatibility_norm"])
    pairs = zip(frame["entropy"], frame["kl_0"], strict=True)
    quadrants = [reference.quadrant(h, kl, low, high) for h, kl in pairs]
    return frame.assign(**norms, learnable=d * c, incompatible=d * (1 - c), quadrant=quadrants)


def r2_and_betas(rows: pd.DataFrame, names: list[str]) -> tuple[float, np.ndarray]:
    """OLS of the gain on z-scored columns by statsmodels; NaN where they are collinear."""
    x = rows[names].to_numpy(dtype=float)
    spread = x.std(axis=0) if len(x) else np.zeros(x.shape[1])
    if (spread < 1e-9).any():
        return math.nan, np.full(len(names), np.nan)
    z = sm.add_constant((x - x.mean(axis=0)) / spread)
    if np.linalg.matrix_rank(z) < z.shape[1]:
        return math.nan, np.full(len(names), np.nan)
    fitted = sm.OLS(rows["gain"].to_numpy(), z).fit()
    return fitted.rsquared, fitted.params[1:]


def regression(rows: pd.DataFrame) -> list[float]:
    rows = rows.assign(product=rows["entropy_norm"] * rows["disagreement_norm"])
    controls = ["entropy_norm", "relative_position", "teacher_entropy_norm"]
    base, _ = r2_and_betas(rows, [*controls, "disagreement_norm", "product"])
    more, _ = r2_and_betas(rows, [*controls, "disagreement_norm", "product", "compatibility_norm"])
    split, beta = r2_and_betas(rows, [*controls, "learnable", "incompatible"])
    return [beta[3], beta[4], beta[3] - beta[4], split - base, more - base]


def gap_of(q3: pd.DataFrame, proxy: str) -> float:
    if q3[proxy].nunique() < 2:
        return math.nan
    low, high = (reference.quantile(q3[proxy], q) for q in (1 / 3, 2 / 3))
    return q3["gain"][q3[proxy] >= high].mean() - q3["gain"][q3[proxy] <= low].mean()


def redone(frame: pd.DataFrame, proxy: str) -> list[float]:
    """All numbers of a table, everything made from its rows alone."""
    rows = renewed(frame)
    q3 = rows[rows["quadrant"] == 3]
    return [rows["gain"].mean(), gap_of(q3, proxy), *regression(rows), *regression(q3)]


def brute_force(frame: pd.DataFrame, counts: np.ndarray, proxy: str) -> np.ndarray:
    return np.array([redone(reference.drawn_frame(frame, row), proxy) for row in counts])


# --- odd shapes -----------------------------------------------------------------------------------


def plain() -> pd.DataFrame:
    return reference.make_frame(seed=11)


def tied() -> pd.DataFrame:
    """Signals of a few values each, so that every cut is tied."""
    frame = reference.make_frame(seed=12)
    return renewed(frame.assign(**{name: frame[name].round(1) for name in (*SIGNALS, "kl_0")}))


def stretches() -> pd.DataFrame:
    """Long constant stretches: more than 5 % at both ends, and a median inside one."""
    frame = reference.make_frame(seed=13)
    return renewed(
        frame.assign(
            compatibility=frame["compatibility"].clip(0.5, 0.8),
            entropy=frame["entropy"].mask(frame["entropy"].between(0.6, 1.4), 1.0),
            kl_0=frame["kl_0"].clip(upper=1.1),
        )
    )


def single_rows() -> pd.DataFrame:
    """Two of three prompts have one row."""
    frame = reference.make_frame(seed=14, prompts=36, rollouts=1, length=30)
    number = frame["prompt_id"].str[1:].astype(int)
    return renewed(frame[(number % 3 == 0) | (frame["position"] == 0)])


def without_q3() -> pd.DataFrame:
    """Four of ten prompts never come near Q3."""
    frame = reference.make_frame(seed=15)
    some = frame["prompt_id"].str[1:].astype(int) < 4
    return renewed(frame.assign(kl_0=frame["kl_0"].mask(some, 0.001 * frame["kl_0"])))


def unsorted() -> pd.DataFrame:
    return reference.permuted(plain(), seed=1)


def long_rollouts() -> pd.DataFrame:
    """Prompts of more rows than one chunk of the compiled loops."""
    return reference.make_frame(seed=16, prompts=3, rollouts=3, length=250)


def no_range() -> pd.DataFrame:
    """D is one value but for 7 % of rows, and in draws for less than 5 %, where D~ is then 0."""
    frame = reference.make_frame(seed=17)
    some = (frame["prompt_id"].str[1:].astype(int) < 3) & (frame["position"] % 4 == 0)
    return renewed(frame.assign(disagreement=frame["disagreement"].where(some, 0.2)))


SHAPES = {
    plain: "compatibility",
    tied: "compatibility",
    stretches: "compatibility",
    single_rows: "overlap",
    without_q3: "overlap",
    unsorted: "jaccard",
    long_rollouts: "compatibility",
    no_range: "overlap",
}


def counts_for(frame: pd.DataFrame, draws: int = DRAWS) -> np.ndarray:
    return draw_counts(frame["prompt_id"].nunique(), draws, seed=7)


@pytest.mark.parametrize(("shape", "proxy"), SHAPES.items())
def test_draws_equal_concatenated_rows(
    shape: Callable[[], pd.DataFrame], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = shape()
    counts = counts_for(frame)
    expected = brute_force(frame, counts, proxy)
    assert np.isfinite(expected).any(axis=0).all()
    for numba in (True, False):
        monkeypatch.setattr(redraw_sums, "find_spec", lambda name, found=numba: found or None)
        got = redrawn_values(frame, Bootstrap(counts=counts), proxy=proxy)
        np.testing.assert_allclose(got, expected, rtol=EXACT, atol=EXACT)


def test_shapes_are_as_odd_as_they_say() -> None:
    assert (single_rows()["prompt_id"].value_counts() == 1).mean() > 0.6
    assert long_rollouts()["prompt_id"].value_counts().min() > 256
    q3 = without_q3().groupby("prompt_id")["quadrant"].agg(lambda q: (q == 3).sum())
    assert (q3 == 0).sum() == 4
    frame = no_range()
    drawn = [reference.drawn_frame(frame, row)["disagreement"] for row in counts_for(frame)]
    empty = [reference.quantile(d, 0.05) == reference.quantile(d, 0.95) < d.max() for d in drawn]
    assert 0 < sum(empty) < DRAWS


@few
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 20]), st.integers(2, 7))
def test_cuts_equal_numpys_to_the_last_bit(seed: int, values: int, prompts: int) -> None:
    frame = reference.make_frame(seed, prompts=prompts, rollouts=1, length=23)
    for name in (*SIGNALS, "kl_0"):
        frame[name] = np.floor(frame[name] * values) / values / 3
    counts = draw_counts(prompts, 8, seed)
    sample = prepare(frame, prompt_clusters(frame), "compatibility", "gain")
    got = draw_cuts(sample, counts, threads=1)
    for draw, row in enumerate(counts):
        rows = reference.drawn_frame(frame, row)
        ends = [np.quantile(rows[name], [0.05, 0.95]) for name in NORMALIZED]
        medians = [np.quantile(rows[name], 0.5) for name in ("entropy", "kl_0")]
        assert got[draw].tolist() == [*np.concatenate(ends), *medians]


# --- identities -----------------------------------------------------------------------------------


def test_number_of_threads_changes_no_bit() -> None:
    frame = plain()
    bootstrap = Bootstrap(draws=101)
    one, two, five = (redrawn_values(frame, bootstrap, threads=n) for n in (1, 2, 5))
    assert one.tolist() == two.tolist() == five.tolist()


def test_more_threads_than_draws_is_fine() -> None:
    assert redrawn_values(plain(), Bootstrap(draws=2), threads=8).shape == (2, len(NAMES))


def test_size_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = tied()
    once = redrawn_values(frame, Bootstrap(draws=50))
    monkeypatch.setattr("diagnostics.statistics.inference.bootstrap.KEPT", 0)
    monkeypatch.setattr("diagnostics.statistics.inference.bootstrap.BLOCK", 10 * 7)
    np.testing.assert_allclose(redrawn_values(frame, Bootstrap(draws=50)), once, atol=ROUNDING)


@pytest.mark.parametrize("change", ["unsorted", "relabelled", "rescaled"])
def test_order_names_and_units_change_nothing(change: str) -> None:
    frame, counts = plain(), counts_for(plain())
    changed = {
        "unsorted": reference.permuted(frame, seed=3),
        "relabelled": reference.relabelled(frame),
        "rescaled": frame.assign(**{name: 3 + 8 * frame[name] for name in (*SIGNALS, "kl_0")}),
    }[change]
    if change == "relabelled":
        counts = counts[:, ::-1]
    got = redrawn_values(changed, Bootstrap(counts=counts))
    expected = redrawn_values(frame, Bootstrap(counts=counts_for(frame)))
    np.testing.assert_allclose(got, expected, rtol=EXACT, atol=EXACT)


def test_jaccard_splits_as_overlap_in_every_draw() -> None:
    frame, bootstrap = plain(), Bootstrap(draws=200)
    overlap, jaccard = (
        redrawn_values(frame, bootstrap, proxy=proxy)[:, 1] for proxy in ("overlap", "jaccard")
    )
    np.testing.assert_allclose(overlap, jaccard, atol=ROUNDING)


def test_gain_in_any_unit_scales_all_but_r2() -> None:
    frame, bootstrap = plain(), Bootstrap(counts=counts_for(plain()))
    once = redrawn_values(frame, bootstrap)
    got = redrawn_values(frame.assign(gain=1 - 4 * frame["gain"]), bootstrap)
    expected = np.where(["r2" in name for name in NAMES], once, -4 * once)
    expected[:, 0] += 1
    np.testing.assert_allclose(got, expected, atol=EXACT)


def test_draw_of_every_prompt_once_is_the_estimate() -> None:
    frame = plain()
    (got,) = redrawn_values(frame, Bootstrap(counts=np.ones((1, 10))))
    result = redrawn(frame, Bootstrap(draws=20))
    np.testing.assert_allclose(got, [getattr(result, name).estimate for name in NAMES], atol=EXACT)
    whole, inside = decompose(frame), decompose(frame, scope="q3")
    assert result.beta_gap.estimate == pytest.approx(whole.gap.estimate, abs=EXACT)
    assert result.beta_gap_q3.estimate == pytest.approx(inside.gap.estimate, abs=EXACT)
    gap = support_gap(frame, "compatibility").gap
    assert result.support_gap.estimate == pytest.approx(gap.estimate, abs=EXACT)


def test_relative_gain_is_an_outcome_like_any() -> None:
    frame, bootstrap = plain(), Bootstrap(draws=30)
    got = redrawn_values(frame, bootstrap, outcome="gain_rel")
    expected = redrawn_values(frame.assign(gain=frame["gain_rel"]), bootstrap)
    np.testing.assert_allclose(got, expected, rtol=EXACT, atol=EXACT)


def test_epsilon_of_the_tables_set_is_that_of_every_draw() -> None:
    # Ranges near 1e-9 nats, of which 1e-12 is a thousandth.
    frame = plain()
    frame["disagreement"] *= 1e-9
    released = state(renewed(frame), definition_set("paper+epsilon=empty_range"))
    bootstrap = Bootstrap(counts=counts_for(frame))
    got = redrawn_values(released, bootstrap)
    expected = redrawn_values(plain(), bootstrap)  # where 1e-12 is nothing
    np.testing.assert_allclose(got, expected, rtol=EXACT, atol=EXACT)
    assert np.abs(redrawn_values(frame, bootstrap) - got).max() > 1e-6
    slow = redrawn_interval(released, lambda t: decompose(t).beta_l.estimate, bootstrap)
    assert slow.low == pytest.approx(redrawn(released, bootstrap).beta_l.low, abs=EXACT)


# --- intervals ------------------------------------------------------------------------------------


def test_intervals_are_percentiles_of_the_draws() -> None:
    frame, bootstrap = plain(), Bootstrap(draws=80, seed=3)
    result, draws = (
        redrawn(frame, bootstrap, proxy="overlap"),
        redrawn_values(frame, bootstrap, proxy="overlap"),
    )
    for place, name in enumerate(NAMES):
        found = getattr(result, name)
        assert (found.low, found.high) == pytest.approx(reference.percentiles(draws[:, place]))
        assert found == percentile_interval(found.estimate, draws[:, place])
    assert (result.proxy, result.outcome) == ("overlap", "gain")
    row = result.to_frame().iloc[0]
    assert row["beta_gap_q3_low"] == result.beta_gap_q3.low


def test_bca_takes_the_sample_without_each_prompt() -> None:
    frame, bootstrap = plain(), Bootstrap(draws=400, kind="bca")
    result, draws = redrawn(frame, bootstrap), redrawn_values(frame, bootstrap)
    names = sorted(set(frame["prompt_id"]))
    left_out = [redone(frame[frame["prompt_id"] != name], "compatibility") for name in names]
    for place, name in enumerate(NAMES):
        found = getattr(result, name)
        expected = bca_interval(found.estimate, draws[:, place], np.array(left_out)[:, place])
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=EXACT)
        assert found.kind == "bca"


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_any_statistic_the_slow_way_is_the_same(kind: str) -> None:
    frame, bootstrap = plain(), Bootstrap(draws=25, kind=kind)  # type: ignore[arg-type]
    slow = redrawn_interval(
        frame, lambda t: support_gap(t, "compatibility").gap.estimate, bootstrap
    )
    fast = redrawn(frame, bootstrap).support_gap
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high), abs=EXACT)
    assert slow.kind == fast.kind == kind


def rare_q3() -> pd.DataFrame:
    """KL follows entropy, which empties Q3, in all prompts but two."""
    frame = reference.make_frame(seed=18)
    rest = frame["prompt_id"].str[1:].astype(int) > 1
    return renewed(frame.assign(kl_0=frame["kl_0"].mask(rest, frame["entropy"])))


def test_draws_without_q3_leave_no_interval_and_say_so() -> None:
    frame, bootstrap = rare_q3(), Bootstrap(draws=60)
    draws = [renewed(reference.drawn_frame(frame, row)) for row in draw_counts(10, 60, 0)]
    inside = [rows[rows["quadrant"] == 3] for rows in draws]
    lacking = sum(math.isnan(gap_of(q3, "compatibility")) for q3 in inside)
    result = redrawn(frame, bootstrap)
    assert any(q3.empty for q3 in inside)
    assert lacking < 60
    assert result.support_gap.reason == f"{lacking} of 60 draws have too few positions"
    assert math.isnan(result.support_gap.low)
    assert math.isnan(result.beta_gap_q3.low)
    assert result.beta_gap.low <= result.beta_gap.high
    assert result.gain.reason == ""


def test_proxy_constant_in_a_draws_q3_has_no_gap() -> None:
    frame = plain()
    first = frame["prompt_id"] == min(frame["prompt_id"])
    frame = frame.assign(overlap=frame["overlap"].where(first, 0.5))
    counts = counts_for(frame, 40)
    got = redrawn_values(frame, Bootstrap(counts=counts), proxy="overlap")
    assert np.isnan(got[:, 1]).tolist() == (counts[:, 0] == 0).tolist()
    assert np.isfinite(np.delete(got, 1, axis=1)).all()


def test_one_prompt_has_no_interval() -> None:
    result = redrawn(renewed(reference.make_frame(seed=2, prompts=1, length=80)))
    for name in NAMES:
        found = getattr(result, name)
        assert math.isnan(found.low)
        assert not math.isnan(found.estimate)
        assert found.reason == "1 prompt: no interval from one cluster"


# --- what is refused ------------------------------------------------------------------------------


def test_studentized_is_refused() -> None:
    for take in (redrawn, lambda f, b: redrawn_interval(f, lambda t: t["gain"].mean(), b)):
        with pytest.raises(InputError) as caught:
            take(plain(), Bootstrap(kind="studentized"))
        assert str(caught.value) == (
            "bootstrap that redoes cuts: expected a kind of interval among percentile, bca, got "
            "'studentized'; choose one of them"
        )


@pytest.mark.parametrize(
    ("counts", "got"),
    [
        (np.full((2, 10), 0.5), "counts that are not whole, or none"),
        (np.zeros((1, 10)), "counts that are not whole, or none"),
        (-np.ones((1, 10)), "counts that are not whole, or none"),
        (np.ones((2, 9)), "an array (2, 9)"),
    ],
)
def test_counts_that_say_no_number_of_times_are_refused(counts: np.ndarray, got: str) -> None:
    bootstrap = Bootstrap(counts=counts)
    for take in (redrawn_values, lambda f, b: redrawn_interval(f, lambda t: t["gain"].mean(), b)):
        with pytest.raises(InputError) as caught:
            take(plain(), bootstrap)
        assert str(caught.value) == (
            "bootstrap that redoes cuts: expected how often each of 10 prompts is drawn, in every "
            f"row of `counts`, got {got}; give whole numbers, some above 0"
        )


@pytest.mark.parametrize("name", [*SIGNALS, "kl_0", "overlap", "gain", "relative_position"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_is_not_finite_is_refused_with_its_context(name: str, value: float) -> None:
    frame = plain()
    frame.loc[frame.index[30], name] = value
    with pytest.raises(InputError) as caught:
        redrawn_values(frame, Bootstrap(draws=5), proxy="overlap")
    context, position = frame.loc[frame.index[30], ["context_id", "position"]]
    assert str(caught.value) == (
        f"token table, context {context}, position {position}: expected a finite `{name}`, got "
        f"{value}; score that context again, or drop it"
    )


def test_table_without_q3_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        redrawn(plain().assign(quadrant=1), replace(Bootstrap(), draws=5))
    assert str(caught.value) == (
        "token table: expected positions in Q3 (low entropy, high KL), got none; "
        "score more contexts"
    )
