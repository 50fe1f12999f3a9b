"""Pooled gaps over settings against loops, concatenated rows and a chi-square."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from scipy import stats

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.gaps import matched_gap, support_gap
from diagnostics.statistics.analyses.pooled import heterogeneity, pooled_gap
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_counts
from diagnostics.statistics.tables.definitions import PAPER, RELEASED, state
from diagnostics.statistics.tables.origin import stamp

SUMS = 1e-10  # ratios of sums against means of rows in another order


def setting(seed: int, bank: str, prompts: int = 10, prefix: str = "") -> pd.DataFrame:
    frame = reference.make_frame(seed=seed, prompts=prompts, rollouts=2, length=26)
    return stamp(state(frame.assign(prompt_id=prefix + frame["prompt_id"]), PAPER), 16, bank)


def other_teacher(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same bank under another teacher: other C and gains, the same positions."""
    rng = np.random.default_rng(seed)
    c = rng.beta(2.0, 1.0, size=len(frame))
    return frame.assign(compatibility=c, gain=frame["gain"] + 0.3 * c)


@pytest.fixture(scope="module")
def settings() -> dict[str, pd.DataFrame]:
    """Two teachers over one bank, and another bank."""
    first = setting(5, "b1")
    return {
        "4B": first,
        "8B": other_teacher(first, 2),
        "cot": setting(6, "b2", prompts=7, prefix="q"),
    }


def sides(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Which rows are high and low, by the tertiles of C inside Q3."""
    inside = frame["quadrant"] == 3
    low, high = (reference.quantile(frame["compatibility"][inside], q) for q in (1 / 3, 2 / 3))
    return inside & (frame["compatibility"] >= high), inside & (frame["compatibility"] <= low)


def marked(settings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """All rows with their setting and side; prompts of different banks have different ids."""
    pieces = []
    for name, frame in settings.items():
        high, low = sides(frame)
        pieces.append(frame.assign(setting=name, high=high, low=low))
    return pd.concat(pieces, ignore_index=True)


def gap_of(rows: pd.DataFrame) -> float:
    return rows["gain"][rows["high"]].mean() - rows["gain"][rows["low"]].mean()


def both_ways(rows: pd.DataFrame) -> list[float]:
    """Pooled over positions, mean over settings."""
    return [gap_of(rows), float(np.mean([gap_of(own) for _, own in rows.groupby("setting")]))]


def test_pooled_and_equal_weight_equal_concatenated_rows(
    settings: dict[str, pd.DataFrame],
) -> None:
    # Draws by hand: 10 prompts of the first bank, 7 of the second, each drawn by itself.
    seed = int(np.random.SeedSequence((3, 1)).generate_state(1)[0])
    counts = np.hstack([draw_counts(10, 60, 3), draw_counts(7, 60, seed)])
    rows = marked(settings)
    draws = reference.brute_force(rows, counts, both_ways)
    got = pooled_gap(settings, bootstrap=Bootstrap(draws=60, seed=3))
    for value, estimate, slow in zip(
        (got.pooled, got.equal), both_ways(rows), draws.T, strict=True
    ):
        assert value.estimate == pytest.approx(estimate, abs=SUMS)
        assert (value.low, value.high) == pytest.approx(reference.percentiles(slow), abs=SUMS)
    assert got.n_prompts == 17
    assert got.n_positions == len(rows)


def test_each_setting_has_the_gap_it_has_alone(settings: dict[str, pd.DataFrame]) -> None:
    got = pooled_gap(settings)
    for name, frame in settings.items():
        line = got.table.set_index("setting").loc[name]
        alone = support_gap(frame, "compatibility").gap
        assert (line["estimate"], line["low"], line["high"]) == (
            alone.estimate,
            alone.low,
            alone.high,
        )
        assert line["n_q3"] == (frame["quadrant"] == 3).sum()
        assert line["band_low"] < line["estimate"] < line["band_high"]
    low, high = got.table["low"], got.table["high"]
    assert got.excluding == ((low > 0) | (high < 0)).mean()
    assert (got.smallest, got.largest) == (
        got.table["estimate"].min(),
        got.table["estimate"].max(),
    )


def test_matched_pairs_pool_by_their_number(settings: dict[str, pd.DataFrame]) -> None:
    alone = [matched_gap(frame, "compatibility") for frame in settings.values()]
    got = pooled_gap(settings, "matched")
    pairs = sum(m.pairs for m in alone)
    expected = sum(m.gap.estimate * m.pairs for m in alone) / pairs
    assert got.pooled.estimate == pytest.approx(expected, abs=SUMS)
    equal = sum(m.gap.estimate for m in alone) / 3
    assert got.equal.estimate == pytest.approx(equal, abs=SUMS)


def test_one_setting_twice_pools_to_itself(settings: dict[str, pd.DataFrame]) -> None:
    first = settings["4B"]
    alone = support_gap(first, "compatibility").gap
    got = pooled_gap([first, first])
    for value in (got.pooled, got.equal):
        assert (value.estimate, value.low, value.high) == pytest.approx(
            (alone.estimate, alone.low, alone.high), abs=SUMS
        )
    assert got.table["setting"].tolist() == ["setting 1", "setting 2"]
    assert got.n_prompts == 10
    assert got.q == pytest.approx(0, abs=SUMS)


def test_shards_that_share_prompts_equal_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    # One rollout of each prompt in either shard: a drawn prompt brings both.
    first = frame["context_id"].str.endswith("-0")
    shards = {
        name: stamp(state(frame[rows].copy(), PAPER), 16, name)
        for name, rows in (("a", first), ("b", ~first))
    }
    rows = marked(shards)
    draws = reference.brute_force(rows, counts, both_ways)
    got = pooled_gap(shards, bootstrap=Bootstrap(counts=counts), share_prompts=True)
    for value, slow in zip((got.pooled, got.equal), draws.T, strict=True):
        assert (value.low, value.high) == pytest.approx(reference.percentiles(slow), abs=SUMS)
    assert got.n_prompts == 10


def test_q_of_independent_settings_is_chi_square() -> None:
    # Five independent settings without a difference: p values of Q by the bootstrap and by
    # chi-square with 4 degrees of freedom agree, since draws are normal here.
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20_000, 5)) * [1.0, 2.0, 0.5, 1.0, 3.0]
    values = np.array([1.0, -2.0, 0.6, 0.1, 2.0])
    q, p = heterogeneity(values, draws + values)
    weight = 1 / draws.var(axis=0, ddof=1)
    middle = (weight * values).sum() / weight.sum()
    assert q == pytest.approx((weight * (values - middle) ** 2).sum(), abs=SUMS)
    assert p == pytest.approx(stats.chi2.sf(q, 4), abs=0.012)  # 20,000 draws: error 0.0035


def test_p_of_no_difference_is_uniform() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        values = rng.normal(size=4)
        found.append(heterogeneity(values, values + rng.normal(size=(400, 4)))[1])
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_q_without_spread_is_not_known() -> None:
    q, p = heterogeneity(np.array([1.0, 2.0]), np.array([[1.0, 2.0], [1.0, 2.5]]))
    assert math.isnan(q)
    assert math.isnan(p)
    draws = np.array([[1.0, np.nan], [2.0, 2.5]])
    assert math.isnan(heterogeneity(np.array([1.0, 2.0]), draws)[0])


def test_order_of_settings_changes_nothing_but_rows(settings: dict[str, pd.DataFrame]) -> None:
    first = {name: settings[name] for name in ("4B", "8B")}
    here, there = pooled_gap(first), pooled_gap(dict(reversed(first.items())))
    assert there.pooled.low == pytest.approx(here.pooled.low, abs=SUMS)
    assert there.q_p == here.q_p
    assert there.table["setting"].tolist() == ["8B", "4B"]


def test_intervals_of_other_kinds(settings: dict[str, pd.DataFrame]) -> None:
    for kind in ("bca", "studentized"):
        got = pooled_gap(settings, bootstrap=Bootstrap(draws=400, kind=kind))
        assert got.pooled.kind == got.equal.kind == kind
        assert got.pooled.low < got.pooled.estimate < got.pooled.high


REFUSED = {
    "one": (
        lambda s: [s["4B"]],
        "pooled gap: expected at least two settings, got 1; add another, or use support_gap",
    ),
    "sets": (
        lambda s: [s["4B"], state(s["8B"].copy(), RELEASED)],
        "pooled gap: expected token tables of one definition set, got paper, released; "
        "make all of them with the same --definitions",
    ),
    "K": (
        lambda s: [s["4B"], stamp(s["8B"].copy(), 8, "b1")],
        "pooled gap: expected token tables of one K, got 16, 8; make all of them with the same K",
    ),
    "no bank": (
        lambda s: {"a": s["4B"], "b": state(pd.DataFrame(s["8B"].to_dict("list")), PAPER)},
        "pooled gap: expected tables that say their bank, got none in b; "
        "make it with `token_table`, `read_tokens` or an opened run",
    ),
    "ids in two banks": (
        lambda s: [s["4B"], stamp(s["8B"].copy(), 16, "b3")],
        "pooled gap: expected banks without a prompt id in common, or share_prompts said, got "
        "10 prompt ids in more than one bank; "
        "give share_prompts=True if they are the same prompts, False if not",
    ),
    "no Q3": (
        lambda s: [s["4B"], s["8B"].assign(quadrant=1)],
        "token table: expected positions in Q3 (low entropy, high KL), got none; "
        "score more contexts",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(settings: dict[str, pd.DataFrame], name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        pooled_gap(make(settings))
    assert str(caught.value) == message


def test_said_not_to_be_shared_draws_apart(settings: dict[str, pd.DataFrame]) -> None:
    same_ids = [settings["4B"], stamp(settings["8B"].copy(), 16, "b3")]
    assert pooled_gap(same_ids, share_prompts=False).n_prompts == 20
    assert pooled_gap(same_ids, share_prompts=True).n_prompts == 10


def test_pooled_gap_shows_itself(settings: dict[str, pd.DataFrame]) -> None:
    got = pooled_gap(settings)
    lines = repr(got).splitlines()
    assert lines[0] == "PooledGap"
    assert [line.split()[0] for line in lines[-3:]] == ["4B", "8B", "cot"]
    pd.testing.assert_frame_equal(got.to_frame(), got.table)
