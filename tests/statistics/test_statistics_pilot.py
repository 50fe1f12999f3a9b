"""Influences of positions and rollouts, and pilots cut short, held to the slow definitions."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from run_on_disk import write_run
from statistics_reference import make_frame, norm, permuted, quadrant, quantile

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.gaps import support_split
from diagnostics.statistics.analyses.headlines import HEADLINES, Headline, headline
from diagnostics.statistics.analyses.pilot import Pilot, pilot_of
from diagnostics.statistics.inference.estimators import influence
from diagnostics.statistics.tables.tokens import token_table

NAMES = list(HEADLINES)
SUMS = 1e-10  # of the largest influence: cross-products of 300 rows against single ones


@pytest.fixture(scope="module")
def pilot() -> Pilot:
    """14 prompts of 2 rollouts, about 900 positions."""
    return Pilot(make_frame(seed=4, prompts=14, length=42))


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() <= SUMS * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_positions_of_a_prompt_sum_to_its_influence(pilot: Pilot, name: Headline) -> None:
    whole = influence(headline(pilot.frame, name), 0)
    assert_near(pilot.shared.clusters.sums(pilot.position_effects(name)), whole)


@pytest.mark.parametrize("name", NAMES)
def test_positions_of_a_rollout_sum_to_its_influence(pilot: Pilot, name: Headline) -> None:
    by_rollout = pilot.rollouts.sums(pilot.position_effects(name))
    assert_near(pilot.rollout_effects(name), by_rollout)
    assert_near(np.bincount(pilot.owner, by_rollout), influence(headline(pilot.frame, name), 0))


def test_a_means_effect_is_its_residual_over_the_count(pilot: Pilot) -> None:
    gain = pilot.frame["gain"].to_numpy()
    expected = np.array([(g - gain.mean()) / len(gain) for g in gain])
    np.testing.assert_allclose(pilot.position_effects("gain"), expected, rtol=0, atol=1e-15)


def test_a_gaps_effect_is_the_residual_of_each_side(pilot: Pilot) -> None:
    gain, split = pilot.frame["gain"].to_numpy(), support_split(pilot.frame, "compatibility")
    expected = np.zeros(len(gain))
    for side, sign in ((split.high, 1.0), (split.low, -1.0)):
        expected[side] += sign * (gain[side] - gain[side].mean()) / side.sum()
    np.testing.assert_allclose(pilot.position_effects("gap"), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["beta", "beta_q3"])
def test_a_contrasts_effect_is_the_rows_score(pilot: Pilot, name: Headline) -> None:
    """u'x (y - x'b) of each row, u = (X'X)^-1 c, from numpy's own least squares."""
    frame = pilot.frame
    rows = np.ones(len(frame), bool) if name == "beta" else (frame["quadrant"] == 3).to_numpy()
    predictors = frame.loc[
        rows,
        ["entropy_norm", "relative_position", "teacher_entropy_norm", "learnable", "incompatible"],
    ].to_numpy()
    x = np.column_stack(
        [np.ones(rows.sum()), (predictors - predictors.mean(0)) / predictors.std(0)]
    )
    y = frame.loc[rows, "gain"].to_numpy()
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    u = np.linalg.solve(x.T @ x, np.array([0, 0, 0, 0, 1.0, -1.0]))
    expected = np.zeros(len(frame))
    expected[rows] = (x @ u) * (y - x @ beta)
    assert_near(pilot.position_effects(name), expected)


def test_prompts_without_q3_have_no_effect_and_count() -> None:
    frame = make_frame(seed=4, prompts=14, length=42)
    without = frame["prompt_id"].isin(["p003", "p008"]) & (frame["quadrant"] == 3)
    frame.loc[without, "quadrant"] = 4
    pilot = Pilot(frame)
    effects = np.bincount(pilot.owner, pilot.rollout_effects("beta_q3"))
    assert np.flatnonzero(effects == 0).tolist() == [3, 8]
    assert pilot.components("beta_q3").prompts == 14


@pytest.mark.parametrize("name", ["gain", "gap"])
def test_variance_lies_between_influences_and_leaving_prompts_out(
    pilot: Pilot, name: Headline
) -> None:
    """Of means over fixed sides, one rollout a prompt: G times the geometric mean, by loops."""
    first = pilot.frame["context_id"].str.endswith("-0")
    pilot = Pilot(pilot.frame[first].reset_index(drop=True))
    gain, prompt = pilot.frame["gain"].to_numpy(), pilot.shared.clusters.of_row
    split = support_split(pilot.frame, "compatibility")
    sides = [(np.ones(len(gain), bool), 1.0)]
    if name == "gap":
        sides = [(split.high, 1.0), (split.low, -1.0)]

    def value(kept: np.ndarray) -> float:
        return float(sum(sign * gain[side & kept].mean() for side, sign in sides))

    whole, linear, jackknife = value(np.ones(len(gain), bool)), 0.0, 0.0
    for one in range(14):
        own = prompt == one
        effect = sum(
            sign * (gain[side & own] - gain[side].mean()).sum() / side.sum() for side, sign in sides
        )
        linear += 14 / 13 * effect**2
        jackknife += 13 / 14 * (value(~own) - whole) ** 2
    found = pilot.components(name)
    assert found.as_pilot == pytest.approx(14 * np.sqrt(linear * jackknife), rel=1e-9)
    assert found.as_pilot != pytest.approx(14 * linear, rel=1e-4)


def cut_by_loops(frame: pd.DataFrame, length: int) -> pd.DataFrame:
    """The first positions of each rollout, everything else made again by loops."""
    rows = defaultdict(list)
    for index, row in frame.iterrows():
        rows[row["context_id"]].append((row["position"], index))
    kept = {}
    for places in rows.values():
        first = sorted(places)[:length]
        for rank, (_, index) in enumerate(first):
            kept[index] = rank / max(len(first) - 1, 1)
    out = frame.loc[[index in kept for index in frame.index]].copy()
    out["relative_position"] = [kept[index] for index in out.index]
    for name in ("entropy", "teacher_entropy", "disagreement", "compatibility"):
        out[f"{name}_norm"] = norm(out[name])
    out["learnable"] = out["disagreement_norm"] * out["compatibility_norm"]
    out["incompatible"] = out["disagreement_norm"] * (1 - out["compatibility_norm"])
    cuts = quantile(out["entropy"], 0.5), quantile(out["kl_0"], 0.5)
    out["quadrant"] = [
        quadrant(h, d, *cuts) for h, d in zip(out["entropy"], out["kl_0"], strict=True)
    ]
    return out.reset_index(drop=True)


@pytest.mark.parametrize("length", [1, 7, 25])
@pytest.mark.parametrize("shuffled", [False, True])
def test_cut_is_what_shorter_rollouts_would_have_been(length: int, shuffled: bool) -> None:
    frame = make_frame(seed=8)
    frame["position"] *= 3  # masked positions leave holes; valid ones count
    frame = permuted(frame, 1).reset_index(drop=True) if shuffled else frame
    found = Pilot(frame).cut(length)
    expected = cut_by_loops(frame, length) if length < 22 else frame
    pd.testing.assert_frame_equal(found.frame, expected, check_dtype=False, rtol=1e-12)
    assert found.length == expected.groupby("context_id").size().max() <= length


def test_cut_keeps_the_definition_set(tmp_path) -> None:
    run = write_run(tmp_path, prompts=6)
    pilot, _ = pilot_of(run, "one", 4)
    assert pilot.cut(9).frame.attrs == pilot.frame.attrs != {}


def test_a_number_that_rests_on_one_prompt_has_no_components() -> None:
    frame = make_frame(seed=4)
    frame["quadrant"] = np.where(frame["prompt_id"] == "p002", 3, 4)
    with pytest.raises(InputError) as caught:
        Pilot(frame).components("gap")
    assert str(caught.value) == (
        "design of gap: expected a number that is there without any one prompt too, got none "
        "without one of 1 prompts; score a pilot of more prompts"
    )


def test_a_run_and_its_table_are_the_same_pilot(tmp_path) -> None:
    run = write_run(tmp_path, prompts=6)
    table = token_table(run, 4)
    first, name = pilot_of(run, "two", 4)
    second, _ = pilot_of(table, "two")
    pd.testing.assert_frame_equal(first.frame, second.frame, check_categorical=False)
    assert name == "two"
    without = table[table["checkpoint"] == "two"].drop(columns="checkpoint")
    assert pilot_of(without)[1] == ""


@pytest.mark.parametrize(("asked", "got"), [(None, "none named"), ("three", "'three'")])
@pytest.mark.parametrize("of_table", [False, True])
def test_a_checkpoint_is_named_where_there_are_several(
    asked: str | None, got: str, of_table: bool, tmp_path
) -> None:
    run = write_run(tmp_path, prompts=6)
    with pytest.raises(InputError) as caught:
        pilot_of(token_table(run, 4) if of_table else run, asked, 4)
    assert str(caught.value) == (
        f"{'token table' if of_table else run.folder}: expected one checkpoint among one, two, "
        f"got {got}; name one with --checkpoint"
    )
