"""Trained masks against slow loops, hand arithmetic and the analyses of single checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_on_disk import write_run

from diagnostics.errors import InputError
from diagnostics.files import read_parquet, write_parquet
from diagnostics.scoring.run import START, Run, part_file, scores_table
from diagnostics.statistics.analyses.gaps import matched_gap, support_gap
from diagnostics.statistics.analyses.headlines import Shared
from diagnostics.statistics.analyses.interventions import (
    Arm,
    Rescored,
    check_arms,
    measure_arms,
    unchanged_arms,
)
from diagnostics.statistics.analyses.mask_answers import (
    budgets_to_compare,
    leader_at,
    peak,
    seed_spread,
    swept,
)
from diagnostics.statistics.analyses.mask_effects import (
    ONE_SEED,
    MaskEffect,
    Versus,
    mask_effects,
    versus,
)
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, draw_counts
from diagnostics.statistics.selection.selectors import Selection, Selector
from diagnostics.statistics.tables.definitions import PAPER
from diagnostics.statistics.tables.tokens import token_table

PROMPTS, LENGTH, K = 8, 20, 4
SAME = 1e-12  # float64 sums in another order
FEW = Bootstrap(draws=60, seed=5)


def arm(name: str, selector: Selector, budget: float, seed: int = 0) -> Arm:
    return Arm(
        checkpoint=name,
        selector=selector,
        budget=budget,
        seed=seed,
        keep=min(1.0, budget * (1.1 + 0.1 * seed)),
        held_out_kl=0.5 + seed,
        skipped=seed,
    )


ARMS = (
    arm("full-0", "full", 1.0),
    arm("full-1", "full", 1.0, 1),
    arm("ta-0", "teachability", 0.1),
    arm("ta-1", "teachability", 0.1, 1),
    arm("ta2-0", "teachability", 0.2),
    arm("random-0", "random", 0.1),
    arm("random-1", "random", 0.1, 1),
)
MOVES = dict(zip((a.checkpoint for a in ARMS), (0.4, 0.35, 0.3, 0.25, 0.2, 0.1, 0.15), strict=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder, prompts=PROMPTS, length=LENGTH, checkpoints=MOVES)


@pytest.fixture(scope="module")
def rescored(run: Run) -> Rescored:
    return measure_arms(run, ARMS, K)


@pytest.fixture(scope="module")
def effect(rescored: Rescored) -> Callable[[str, float], MaskEffect]:
    found = {(e.selector, e.budget): e for e in mask_effects(rescored, FEW)}
    return lambda selector, budget: found[selector, budget]  # type: ignore[index]


def table(run: Run, checkpoint: str) -> pd.DataFrame:
    return token_table(run, K, [checkpoint])


def by_hand(gains: list[list[float]], arms: list[Arm], prompts: list[str]) -> Rescored:
    """Arms on a bank of as many positions as `prompts`; every mask aims at the first of them."""
    count = len(prompts)
    frame = pd.DataFrame({"prompt_id": prompts, "kl_0": [2.0] * count})
    first = np.arange(count) == 0
    target = Selection(mask=first, tied_share=0.0, wanted=1)
    return Rescored(
        arms=tuple(arms),
        gains=np.array(gains),
        shared=Shared(frame),
        targets={a.mask: target for a in arms},
    )


def test_gain_is_the_mean_over_positions_and_seeds(
    run: Run, effect: Callable[[str, float], MaskEffect]
) -> None:
    sums = []
    for name in ("ta-0", "ta-1"):
        frame, total = table(run, name), 0.0
        for kl_0, kl in zip(frame["kl_0"], frame["kl"], strict=True):
            total += kl_0 - kl
        sums.append(total / len(frame))
    found = effect("teachability", 0.1)
    assert found.gain.estimate == pytest.approx(sum(sums) / 2, rel=SAME)
    assert found.gain_sd == pytest.approx(abs(sums[0] - sums[1]) / 2**0.5, rel=1e-9)
    assert found.gain_per_keep == pytest.approx(sum(sums) / 2 / ((0.11 + 0.12) / 2), rel=1e-9)


def test_relative_gain_divides_at_each_position(run: Run, rescored: Rescored) -> None:
    wanted = np.mean([table(run, name)["gain_rel"].mean() for name in ("ta-0", "ta-1")])
    found = mask_effects(rescored, FEW, outcome="gain_rel")[1]
    assert found.gain.estimate == pytest.approx(wanted, rel=1e-9)


def test_contrast_and_matched_gap_are_the_seeds_mean_of_the_checkpoints(
    run: Run, effect: Callable[[str, float], MaskEffect]
) -> None:
    frames = [table(run, name) for name in ("random-0", "random-1")]
    found = effect("random", 0.1)
    gaps = [support_gap(f, "compatibility", FEW).gap.estimate for f in frames]
    pairs = [matched_gap(f, "compatibility", FEW).gap.estimate for f in frames]
    assert found.contrast.estimate == pytest.approx(np.mean(gaps), rel=1e-9)
    assert found.contrast_sd == pytest.approx(np.std(gaps, ddof=1), rel=1e-9)
    assert found.matched_gap.estimate == pytest.approx(np.mean(pairs), rel=1e-9)


def test_one_seeds_contrast_is_the_support_gap_with_its_interval(
    run: Run, effect: Callable[[str, float], MaskEffect]
) -> None:
    found = effect("teachability", 0.2)
    wanted = support_gap(table(run, "ta2-0"), "compatibility", FEW).gap
    assert found.contrast.estimate == pytest.approx(wanted.estimate, rel=1e-9)
    assert (found.contrast.low, found.contrast.high) == pytest.approx((wanted.low, wanted.high))


def test_on_and_off_target_weighed_by_their_shares_are_the_gain(
    rescored: Rescored, effect: Callable[[str, float], MaskEffect]
) -> None:
    found = effect("teachability", 0.1)
    share = found.n_target / len(rescored.shared.frame)
    assert found.n_target == 32  # ceil(0.1 * 2 * 8 * 20)
    mixed = share * found.on_target.estimate + (1 - share) * found.off_target.estimate
    assert mixed == pytest.approx(found.gain.estimate, rel=1e-9)


def test_targets_are_the_largest_teachability_of_theta_0(
    rescored: Rescored, effect: Callable[[str, float], MaskEffect]
) -> None:
    kept = rescored.targets["teachability", 0.1].mask
    learnable = rescored.shared.frame["learnable"].to_numpy()
    assert learnable[kept].min() >= learnable[~kept].max()
    assert effect("teachability", 0.1).learnable == pytest.approx(learnable[kept].mean())


def test_full_has_no_off_target_and_says_so(effect: Callable[[str, float], MaskEffect]) -> None:
    found = effect("full", 1.0)
    assert found.on_target.estimate == pytest.approx(found.gain.estimate, rel=SAME)
    assert np.isnan(found.off_target.estimate)
    assert found.off_target.reason == "60 of 60 draws have too few positions"


def test_intervals_are_the_percentiles_of_slow_draws(
    rescored: Rescored, effect: Callable[[str, float], MaskEffect]
) -> None:
    clusters = rescored.shared.clusters
    rows = {"ta": (2, 3), "random": (5, 6)}
    draws: dict[str, list[float]] = {"ta": [], "random": []}
    for counts in draw_counts(PROMPTS, FEW.draws, FEW.seed):
        for name, pair in rows.items():
            total = weight = 0.0
            for place, prompt in enumerate(clusters.of_row):
                seeds = [rescored.gains[row, place] for row in pair]
                total += counts[prompt] * (seeds[0] + seeds[1]) / 2
                weight += counts[prompt]
            draws[name].append(total / weight)
    found = effect("teachability", 0.1)
    apart = np.subtract(draws["ta"], draws["random"])
    for value, drawn in ((found.gain, draws["ta"]), (found.vs_random, apart)):
        assert (value.low, value.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


def test_a_paired_difference_is_hand_arithmetic() -> None:
    arms = [arm("a", "kl", 0.1), arm("b", "random", 0.1)]
    made = by_hand([[1, 2, 3, 4], [0, 2, 3, 2]], arms, ["p", "p", "q", "q"])
    # differences 1 0 | 0 2: prompt p 0.5, prompt q 1.0, both 0.75
    counts = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    found = versus(made, ("kl", 0.1), ("random", 0.1), Bootstrap(counts=counts))
    assert found.difference.estimate == 0.75
    assert (found.difference.low, found.difference.high) == pytest.approx((0.5125, 0.9875))
    assert (found.seeds, found.agree) == (1, 1)
    assert np.isnan(found.sd)


def test_seeds_are_paired_by_their_number() -> None:
    arms = [
        *(arm(f"a{seed}", "kl", 0.1, seed) for seed in (0, 1, 2)),
        *(arm(f"b{seed}", "random", 0.1, seed) for seed in (2, 0)),
    ]
    made = by_hand([[1, 1], [9, 9], [2, 2], [5, 5], [0, 0]], arms, ["p", "q"])
    found = versus(made, ("kl", 0.1), ("random", 0.1), FEW)
    # common seeds: 0 gives 1 - 0, 2 gives 2 - 5; of means 4 - 2.5
    assert found.difference.estimate == 1.5
    assert (found.seeds, found.agree) == (2, 1)
    assert found.sd == pytest.approx(4 / 2**0.5)
    assert found.verdict() == "unclear"  # although the interval holds no 0
    assert found.difference.verdict() == "yes"


@pytest.mark.parametrize(
    ("low", "high", "agree", "noise", "said"),
    [
        (0.1, 0.2, 3, 0.0, "yes"),
        (-0.2, -0.1, 3, 0.0, "no"),
        (0.1, 0.2, 2, 0.0, "unclear"),
        (-0.1, 0.2, 3, 0.0, "unclear"),
        (0.1, 0.2, 3, 0.15, "unclear"),
    ],
)
def test_a_verdict_needs_the_interval_the_noise_and_every_seed(
    low: float, high: float, agree: int, noise: float, said: str
) -> None:
    one = Versus(
        first=("kl", 0.1),
        second=("random", 0.1),
        number="gain",
        difference=Interval((low + high) / 2, low, high),
        seeds=3,
        agree=agree,
        sd=0.1,
    )
    assert one.verdict(noise) == said


def test_one_seed_has_no_deviation_and_says_so(
    effect: Callable[[str, float], MaskEffect],
) -> None:
    found = effect("teachability", 0.2)
    deviations = (found.gain_sd, found.contrast_sd, found.matched_gap_sd)
    assert np.isnan(deviations).all()
    assert found.note == ONE_SEED
    assert effect("teachability", 0.1).note == ""


def test_what_was_not_trained_is_no_reference(effect: Callable[[str, float], MaskEffect]) -> None:
    assert np.isnan(effect("teachability", 0.2).vs_random.estimate)
    assert effect("teachability", 0.2).vs_random.reason == ("random was not trained at this budget")
    assert effect("random", 0.1).vs_random.reason == "this is random"
    assert effect("full", 1.0).vs_full.reason == "this is full"


def test_a_student_that_improved_everywhere_alike_has_gain_and_no_contrast(tmp_path: Path) -> None:
    run = write_run(tmp_path, prompts=PROMPTS, length=LENGTH, checkpoints={"alike": 0.1})
    kl_0 = np.round(run.student().kl * 1024) / 1024 + 1  # sums of these are exact
    for name, kl in ((START, kl_0), ("alike", kl_0 - 0.125)):
        file = part_file(run.folder, name, 0)
        stored = read_parquet(file)
        place = stored.column_names.index("kl")
        column = scores_table({"kl": kl})["kl"]
        write_parquet(file, stored.set_column(place, "kl", column))
    (found,) = mask_effects(measure_arms(run, [arm("alike", "kl", 0.1)], K), FEW)
    assert found.gain == Interval(0.125, 0.125, 0.125)
    assert found.contrast == Interval(0.0, 0.0, 0.0)
    assert found.matched_gap == Interval(0.0, 0.0, 0.0)


def test_arms_that_did_not_change_have_the_noise_of_scoring_and_no_difference(
    run: Run, rescored: Rescored
) -> None:
    quiet = unchanged_arms(rescored, run, "batch")
    found = mask_effects(quiet, FEW)
    wanted = (run.student().kl - run.noise().kl).mean()
    assert [e.gain.estimate for e in found] == pytest.approx([wanted] * len(found), rel=1e-6)
    assert found[1].vs_full == Interval(0.0, 0.0, 0.0)


def test_the_leader_has_the_largest_gain_and_bands_over_all_others(rescored: Rescored) -> None:
    best = leader_at(rescored, 0.1, FEW)
    assert best.mask == ("teachability", 0.1)
    assert [one.second for one in best.others] == [("full", 1.0), ("random", 0.1)]
    against = best.against(("random", 0.1))
    assert against is not None
    assert against.difference.kind == "simultaneous"
    alone = versus(rescored, best.mask, ("random", 0.1), FEW).difference
    assert against.difference.estimate == pytest.approx(alone.estimate, rel=SAME)


def test_the_peak_is_the_budget_with_the_largest_gain(rescored: Rescored) -> None:
    assert swept(rescored) == ["teachability"]
    assert budgets_to_compare(rescored) == [0.1]
    found = peak(rescored, "teachability", FEW)
    assert found.mask == ("teachability", 0.1)
    assert [one.second for one in found.others] == [("teachability", 0.2)]


def test_the_spread_of_seeds_is_pooled() -> None:
    arms = [arm(f"a{seed}", "kl", 0.1, seed) for seed in (0, 1, 2)]
    arms += [arm(f"b{seed}", "random", 0.1, seed) for seed in (0, 1)]
    made = by_hand([[1, 1], [2, 2], [3, 3], [5, 5], [9, 9]], arms, ["p", "q"])
    found = seed_spread(made, FEW)
    # variances 1 (2 degrees) and 8 (1): pooled 10 / 3; means 2 and 7 differ by 5
    assert found.within == pytest.approx((10 / 3) ** 0.5)
    assert found.between == pytest.approx(5 / 2**0.5)
    assert (found.masks, found.prompts) == (2, 0.0)


def test_spread_of_single_seeds_is_not_known(rescored: Rescored) -> None:
    alone = by_hand([[1, 1]], [arm("a", "kl", 0.1)], ["p", "q"])
    found = seed_spread(alone, FEW)
    assert found.masks == 0
    assert np.isnan([found.within, found.between]).all()


FIT = "interventions: expected arms that differ in checkpoint, and in selector, budget or seed, got"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([], f"{FIT} none; give each training once"),
        ([ARMS[2], replace(ARMS[2], checkpoint="x")], f"{FIT} ta-0, x; give each training once"),
        ([ARMS[2], replace(ARMS[2], seed=7)], f"{FIT} ta-0; give each training once"),
        (
            [arm("f", "full", 0.5)],
            "arm f: expected budget 1 of the selector `full`, got 0.5; correct its record",
        ),
        (
            [replace(ARMS[2], keep=1.5)],
            "arm ta-0: expected a kept share from 0 to 1, got 1.5; correct its record",
        ),
        (
            [replace(ARMS[2], budget=0.0)],
            "--budget: expected a share of positions in (0, 1], got 0.0; write 5 % as 0.05",
        ),
    ],
)
def test_arms_that_do_not_fit_are_refused(arms: list[Arm], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_arms(arms)
    assert str(caught.value) == message


def test_an_arm_that_was_not_rescored_is_refused(run: Run) -> None:
    with pytest.raises(InputError) as caught:
        measure_arms(run, [arm("other", "kl", 0.1)], K)
    assert str(caught.value) == (
        f"{run.folder}: expected checkpoints among {', '.join(MOVES)}, got other; "
        "add one with `diagnostics rescore … --checkpoint NAME=MODEL`"
    )


def test_a_set_that_leaks_is_refused(run: Run) -> None:
    with pytest.raises(InputError) as caught:
        measure_arms(run, ARMS, K, PAPER.leaking())
    assert str(caught.value) == (
        "interventions: expected a definition set whose signals are all theta_0's, "
        "got `paper+leakage`; choose `paper` or `released`"
    )


def test_a_gain_that_is_not_finite_names_its_checkpoint(tmp_path: Path) -> None:
    run = write_run(tmp_path, prompts=2, length=5, checkpoints={"bad": 0.1})
    file = part_file(run.folder, "bad", 0)
    stored = read_parquet(file)
    kl = stored["kl"].to_numpy().copy()
    kl[7] = np.nan
    column = scores_table({"kl": kl})["kl"]
    write_parquet(file, stored.set_column(stored.column_names.index("kl"), "kl", column))
    with pytest.raises(InputError) as caught:
        measure_arms(run, [arm("bad", "kl", 0.1)], K)
    assert str(caught.value) == (
        "token table, context c001, position 2: expected a finite `gain of bad`, got nan; "
        "score that context again, or drop it"
    )
