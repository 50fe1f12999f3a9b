"""Designs of studies: identities, known processes, what is refused and what only has a reason."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_on_disk import write_run
from statistics_reference import make_frame, permuted, relabelled

from diagnostics.errors import InputError
from diagnostics.scoring.run import LISTED
from diagnostics.statistics.analyses.alternatives import ONE_ROLLOUT
from diagnostics.statistics.analyses.components import half_width
from diagnostics.statistics.analyses.design import UNCLEAR, Design, plan
from diagnostics.statistics.analyses.headlines import HEADLINES, Headline, headline
from diagnostics.statistics.analyses.pilot import Pilot
from diagnostics.statistics.inference.bootstrap import Bootstrap, interval

FEW = Bootstrap(draws=200)
NAMES = list(HEADLINES)
SAME = 1e-9  # relative: sums in another order
FORETOLD = 0.15  # of a width, mean over pilots of 40 prompts: what docs/design.md says of means
KNOWN = 0.15  # of a component, from 600 prompts: three standard errors


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """14 prompts of 2 rollouts, about 900 positions, one checkpoint."""
    return make_frame(seed=4, prompts=14, length=42)


@pytest.fixture(scope="module")
def synthetic_bank() -> Callable[..., pd.DataFrame]:
    """The generator of the benchmarks."""
    path = Path(__file__).parents[2] / "benchmarks" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("synthetic_banks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.synthetic_bank


def designed(frame: pd.DataFrame, **options: object) -> Design:
    return plan(frame, bootstrap=FEW, **options)  # type: ignore[arg-type]


def widths(design: Design) -> np.ndarray:
    """Everything that is no bootstrap draw, as one vector."""
    numbers = [[n.half_width, n.correlation, n.design_effect, n.error] for n in design.numbers]
    tables = [n.table[["estimate", "half_width"]].to_numpy().ravel() for n in design.numbers]
    return np.concatenate([*numbers, *tables])


@pytest.mark.parametrize("change", [lambda f: permuted(f, 2), relabelled], ids=["rows", "labels"])
def test_order_and_labels_change_nothing(
    frame: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    np.testing.assert_allclose(
        widths(designed(change(frame), width=0.1)),
        widths(designed(frame, width=0.1)),
        rtol=SAME,
        atol=1e-12,
    )


def test_affine_changes_of_the_gain_scale_the_widths(frame: pd.DataFrame) -> None:
    before = designed(frame, relative=0.5)
    after = designed(frame.assign(gain=3 - 2 * frame["gain"]), statistics=["beta", "gap"])
    for number in after.numbers:
        first = next(n for n in before.numbers if n.statistic == number.statistic)
        assert number.half_width == pytest.approx(2 * first.half_width, rel=SAME)
        assert number.design_effect == pytest.approx(first.design_effect, rel=SAME)
        assert number.prompts_needed == first.prompts_needed  # of a share of the number


def test_rows_said_twice_double_the_design_effect(frame: pd.DataFrame) -> None:
    """Influences halve and are twice as many: the independent variance n / (n - 1) sum of squares
    becomes half of 2 n / (2 n - 1) times that sum, and the number's own stays."""
    twice, n = pd.concat([frame, frame], ignore_index=True), len(frame)
    (once,), (double,) = (designed(f, statistics=["gain"]).numbers for f in (frame, twice))
    factor = (2 * n - 1) / (n - 1)
    assert double.design_effect == pytest.approx(factor * once.design_effect, rel=SAME)
    assert double.half_width == pytest.approx(once.half_width, rel=SAME)


def test_independent_positions_have_no_design_effect() -> None:
    frame = make_frame(seed=1, prompts=60)
    frame["gain"] = np.random.default_rng(0).normal(size=len(frame))
    (number,) = designed(frame, statistics=["gain"]).numbers
    assert number.design_effect == pytest.approx(1, abs=0.35)  # 60 prompts: sqrt(2 / 60) is 0.18
    assert number.correlation < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_a_study_of_the_pilots_size_is_the_pilots_row(frame: pd.DataFrame, name: Headline) -> None:
    (number,) = designed(frame, statistics=[name], width=0.05, rollouts=(1, 2, 3)).numbers
    table = number.table.set_index(["positions", "rollouts"])
    own = table.loc[(Pilot(frame).length, 2.0)]
    assert own["half_width"] == number.half_width
    assert own["prompts"] == own["prompts_low"] == number.prompts_needed
    assert own["estimate"] == pytest.approx(number.estimate.estimate)
    assert own["total_positions"] == int(np.ceil(number.prompts_needed * len(frame) / 14))
    assert list(table.index.get_level_values("rollouts").unique()) == [1.0, 2.0, 3.0]


def test_more_rollouts_never_need_more_prompts(frame: pd.DataFrame) -> None:
    for number in designed(frame, width=0.05).numbers:
        for _, rows in number.table.groupby("positions"):
            assert rows["prompts"].is_monotonic_decreasing


def test_wanted_is_half_of_a_clear_number(frame: pd.DataFrame) -> None:
    (number,) = designed(frame, statistics=["beta"]).numbers
    assert number.estimate.verdict() == "yes"
    assert number.wanted == number.estimate.estimate / 2
    assert number.reason == ""
    (tighter,) = designed(frame, statistics=["beta"], relative=0.1).numbers
    assert tighter.wanted == pytest.approx(number.estimate.estimate / 10)
    # Five times narrower is 25 times the prompts, but for t against z.
    assert tighter.prompts_needed == pytest.approx(25 * number.prompts_needed, rel=0.6)


def test_an_unclear_number_needs_a_width(frame: pd.DataFrame) -> None:
    noise = frame.assign(gain=np.random.default_rng(3).normal(size=len(frame)))
    (number,) = designed(noise, statistics=["beta"]).numbers
    assert number.estimate.verdict() == "unclear"
    assert (number.prompts_needed, number.reason) == (None, UNCLEAR)
    assert np.isnan(number.wanted)
    assert number.half_width > 0
    assert number.table["prompts"].isna().all()
    assert number.table["half_width"].notna().all()
    (told,) = designed(noise, statistics=["beta"], width=0.05).numbers
    assert told.wanted == 0.05
    assert told.reason == ""
    assert told.prompts_needed > 0


def test_one_rollout_a_prompt_gives_bounds(frame: pd.DataFrame) -> None:
    first = frame[frame["context_id"].str.endswith("-0")]
    design = designed(first, width=0.05, statistics=["gain", "beta"])
    assert design.reason == ONE_ROLLOUT
    for number in design.numbers:
        assert np.isnan(number.correlation)
        assert number.prompts_needed is not None
        table = number.table
        own, more = table[table["rollouts"] == 1], table[table["rollouts"] == 4]
        assert (own["prompts"] == own["prompts_low"]).all()
        assert (own["reason"] == "").all()
        assert (more["prompts"].to_numpy() == own["prompts"].to_numpy()).all()
        assert (more["prompts_low"] < more["prompts"]).all()
        assert (more["reason"] == ONE_ROLLOUT).all()


def test_several_rollouts_have_no_bounds(frame: pd.DataFrame) -> None:
    design = designed(frame, width=0.05)
    assert design.reason == ""
    assert (design.alternatives()["prompts_low"] == design.alternatives()["prompts"]).all()


def test_a_number_that_the_pilot_lacks_has_a_reason(frame: pd.DataFrame) -> None:
    design = designed(frame.assign(quadrant=4), statistics=["gain", "gap"])
    gain, gap = design.numbers
    reason = (
        "token table: expected positions in Q3 (low entropy, high KL), got none; "
        "score more contexts"
    )
    assert (gap.reason, gap.prompts_needed) == (reason, None)
    assert np.isnan([gap.half_width, gap.wanted, gap.design_effect, gap.error]).all()
    assert gain.prompts_needed is not None
    assert design.to_frame()["reason"].tolist() == ["", reason]


def test_a_length_that_lacks_a_number_has_a_reason(frame: pd.DataFrame) -> None:
    (number,) = designed(frame, statistics=["beta"], positions=[1, 20]).numbers
    assert number.prompts_needed is not None
    short = number.table[number.table["positions"] == 1]
    assert short["reason"].unique().tolist() == [
        "regression: expected `relative_position` to vary over the scope, got 0 everywhere; "
        "score more contexts, or choose another scope or support size"
    ]
    assert short[["half_width", "prompts"]].isna().all(axis=None)


def test_a_checkpoint_that_did_not_change_has_no_spread(frame: pd.DataFrame) -> None:
    (number,) = designed(frame.assign(gain=0.0), statistics=["gain"], width=0.1).numbers
    assert (number.prompts_needed, number.reason) == (None, "no spread between prompts")
    assert number.half_width == 0
    assert np.isnan([number.design_effect, number.correlation]).all()


def test_results_show_themselves_and_become_frames(frame: pd.DataFrame) -> None:
    design = designed(frame, statistics=["gain", "beta"], width=0.02)
    table = design.to_frame()
    assert list(table) == [
        "statistic",
        "estimate",
        "estimate_low",
        "estimate_high",
        "half_width",
        "error",
        "wanted",
        "prompts_needed",
        "correlation",
        "design_effect",
        "reason",
    ]
    assert table["prompts_needed"].dtype == "Int64"
    whole = design.alternatives()
    assert list(whole) == [
        "checkpoint",
        "statistic",
        "rollouts",
        "positions",
        "estimate",
        "correlation",
        "half_width",
        "prompts_low",
        "prompts",
        "total_positions",
        "reason",
        "wanted",
        "design_effect",
        "error",
    ]
    assert len(whole) == 2 * 4 * 4  # numbers, lengths, rollouts
    assert (whole["checkpoint"] == "step10").all()
    assert repr(design).splitlines()[:5] == [
        "Design",
        "  checkpoint       step10",
        "  definitions      paper",
        "  outcome          gain",
        "  prompts          14",
    ]
    assert "prompts_needed" in repr(design.numbers[0])


def test_relative_gain_has_a_design_of_its_own(frame: pd.DataFrame) -> None:
    (absolute,) = designed(frame, statistics=["gain"]).numbers
    design = designed(frame, statistics=["gain"], outcome="gain_rel")
    assert design.outcome == "gain_rel"
    assert design.numbers[0].estimate.estimate == pytest.approx(frame["gain_rel"].mean())
    assert design.numbers[0].half_width != absolute.half_width


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "two kinds of width": (
        {"width": 0.1, "relative": 0.5},
        "--width: expected a width or a relative one, got 0.1 and 0.5; choose one of them",
    ),
    "no width": (
        {"width": 0.0},
        "--width: expected a number above 0, got 0; choose one of them",
    ),
    "negative share": (
        {"relative": -0.5},
        "--relative: expected a number above 0, got -0.5; choose one of them",
    ),
    "NaN width": (
        {"width": float("nan")},
        "--width: expected a number above 0, got nan; choose one of them",
    ),
    "unknown statistic": (
        {"statistics": ["gain", "median"]},
        "--statistic: expected headline numbers among gain, beta, beta_q3, gap, matched, budget, "
        "got median; choose one of them",
    ),
    "no statistic": (
        {"statistics": []},
        "--statistic: expected headline numbers among gain, beta, beta_q3, gap, matched, budget, "
        "got none; choose one of them",
    ),
    "longer rollouts": (
        {"positions": [20, 43]},
        "design of a study: expected positions from 1 to 42, those of the pilot's longest "
        "rollout, got 43; leave it out, or score a pilot of longer rollouts",
    ),
    "no rollouts": (
        {"rollouts": [1, 0]},
        "design of a study: expected 1 rollout a prompt or more, got 0; leave it out",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_refused(frame: pd.DataFrame, case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        designed(frame, **options)
    assert str(caught.value) == message


def test_one_prompt_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError) as caught:
        designed(frame[frame["prompt_id"] == "p003"])
    assert str(caught.value) == (
        "design of a study: expected a pilot of two prompts or more, got 1; "
        "build a bank of more prompts; 30 or more say how wide intervals are"
    )


def test_a_teacher_known_by_its_lists_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, prompts=6, teacher={"kind": LISTED})
    with pytest.raises(InputError) as caught:
        plan(run, k=4)
    assert str(caught.value) == (
        f"{run.folder}: expected a teacher whose whole distribution is known: gain needs KL, got "
        "one known by its top-k lists alone; score the bank with the teacher's weights"
    )


def known_process(prompts: int, rollouts: int, length: int, seed: int) -> pd.DataFrame:
    """Gains of prompt (sd 0.5), rollout (sd 0.4) and an AR(1) of 0.6 along it (sd 1)."""
    rng = np.random.default_rng(seed)
    count = prompts * rollouts
    noise = rng.normal(size=(count, length))
    for t in range(1, length):
        noise[:, t] = 0.6 * noise[:, t - 1] + 0.8 * noise[:, t]
    owner = np.repeat(np.arange(prompts), rollouts)
    level = 0.5 * rng.normal(size=prompts)[owner] + 0.4 * rng.normal(size=count)
    columns = ("kl_0", "entropy", "teacher_entropy", "disagreement", "compatibility")
    return pd.DataFrame(
        {
            "context_id": np.repeat([f"c{c:05d}" for c in range(count)], length),
            "prompt_id": np.repeat([f"p{p:05d}" for p in owner], length),
            "position": np.tile(np.arange(length), count),
            "gain": (level[:, None] + noise).ravel(),
        }
        | {name: rng.gamma(1.0, size=count * length) for name in columns}
    )


@pytest.mark.parametrize("length", [6, 24])
def test_components_of_a_known_process(length: int) -> None:
    """Truth: 0.25 between; 0.16 and the AR(1)'s mean over the first T within."""
    pilot = Pilot(known_process(prompts=600, rollouts=2, length=24, seed=1))
    found = pilot.cut(length).components("gain")
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    within = 0.16 + (0.6**lags).sum() / length**2
    assert found.between == pytest.approx(0.25, rel=KNOWN)
    assert found.within == pytest.approx(within, rel=KNOWN)
    assert found.variance(5)[0] == pytest.approx(0.25 + within / 5, rel=KNOWN)


@pytest.mark.parametrize(("prompts", "rollouts", "length"), [(150, 2, 32), (300, 4, 16)])
def test_pilots_foretell_the_widths_of_studies(
    synthetic_bank: Callable[..., pd.DataFrame], prompts: int, rollouts: int, length: int
) -> None:
    """Mean gain with heavy tails: pilots of 40 prompts x 2 x 32, against bootstrap intervals."""
    told, came = [], []
    for seed in range(30):
        pilot = synthetic_bank(np.random.default_rng([1, seed]), 40, 2, 32, tail_df=4.0)
        found = Pilot(pilot).cut(length).components("gain")
        told.append(half_width(found.variance(rollouts)[1], prompts))
    for seed in range(8):
        rng = np.random.default_rng([2, seed])
        study = synthetic_bank(rng, prompts, rollouts, length, tail_df=4.0)
        made = interval(headline(study, "gain"), Bootstrap(draws=400, seed=seed))
        came.append((made.high - made.low) / 2)
    assert np.mean(told) / np.mean(came) == pytest.approx(1, abs=FORETOLD)
