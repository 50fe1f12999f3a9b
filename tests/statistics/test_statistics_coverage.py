"""The study of coverage held to cases that are known, and the rule that was made of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from gain_processes import BANKS, exchanged
from interval_coverage import headlines, row
from replicates import WAYS, Cell, Key, every_way, tally
from scipy import stats
from synthetic import synthetic_bank

from diagnostics.statistics.analyses.headlines import HEADLINES, Headline
from diagnostics.statistics.analyses.recommend import recommended, recommended_interval
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Difference, Estimator, Mean, estimate
from diagnostics.statistics.inference.robust import robust_interval
from diagnostics.statistics.tables.tokens import derived

REPLICATES = 1000
MONTE_CARLO = 3 * math.sqrt(0.95 * 0.05 / REPLICATES)  # three standard errors of a share of 0.95


@pytest.fixture(scope="module")
def bank() -> pd.DataFrame:
    return synthetic_bank(np.random.default_rng(1), 20, 2, 40, tail_df=3.0, unequal=True)


def halved(estimator: Estimator, bootstrap: Bootstrap) -> Interval:
    """A wrong interval: half as wide as the t interval."""
    whole = robust_interval(estimator, "cr1")
    away = (whole.high - whole.low) / 4
    return Interval(whole.estimate, whole.estimate - away, whole.estimate + away)


@pytest.fixture(scope="module")
def cells() -> dict[Key, Cell]:
    """Means of 20 independent normal clusters of one position each; the truth is 0."""
    ways = {"studentized": WAYS["studentized"], "cr1": WAYS["cr1"], "halved": halved}

    def sample(rng: np.random.Generator, bootstrap: Bootstrap) -> dict[Key, Interval]:
        return every_way({"mean": Mean(rng.normal(size=20), np.ones(20))}, bootstrap, ways)

    return tally(sample, {"mean": 0.0}, list(ways), replicates=REPLICATES, seed=0, draws=499)


@pytest.mark.parametrize("kind", ["studentized", "cr1"])
def test_right_interval_of_normal_means_covers(cells: dict[Key, Cell], kind: str) -> None:
    # The t interval of independent normal values is exact; bootstrap-t is close to it.
    found = cells["mean", kind]
    assert found.coverage == pytest.approx(0.95, abs=MONTE_CARLO)
    assert found.below == pytest.approx(found.above, abs=MONTE_CARLO)


def test_interval_of_half_the_width_is_found_out(cells: dict[Key, Cell]) -> None:
    # P(|t_19| < t_0.975 / 2) = 0.69.
    expected = 2 * stats.t.cdf(stats.t.ppf(0.975, 19) / 2, 19) - 1
    found = cells["mean", "halved"]
    assert found.coverage < 0.95 - MONTE_CARLO
    assert found.coverage == pytest.approx(expected, abs=3 * found.error)
    assert found.width == pytest.approx(cells["mean", "cr1"].width / 2, rel=1e-12)


def test_cell_counts_by_hand() -> None:
    # Truth 1 in [0, 2], left of [2, 3], right of [0, 0.5]; the fourth has no interval.
    cell = Cell(
        truth=1.0, low=np.array([0.0, 2.0, 0.0, np.nan]), high=np.array([2.0, 3.0, 0.5, np.nan])
    )
    assert (cell.made, cell.lacking) == (3, 0.25)
    assert (cell.coverage, cell.below, cell.above) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert cell.error == pytest.approx(math.sqrt(2 / 9 / 3))
    assert cell.width == pytest.approx((2 + 1 + 0.5) / 3)
    assert row(30, "gain", [cell]) == "| 30 | gain | 33.3 ± 27.2 (33.3 / 33.3) 1.00, none 25.0 |"


def test_kind_that_a_number_lacks_counts_as_none(bank: pd.DataFrame) -> None:
    def sample(rng: np.random.Generator, bootstrap: Bootstrap) -> dict[Key, Interval]:
        return every_way({"gap": headlines(bank)["gap"]}, bootstrap)

    found = tally(sample, {"gap": 0.0}, ["cr2", "cr3"], replicates=2, seed=0, draws=20)
    assert (found["gap", "cr2"].lacking, found["gap", "cr3"].lacking) == (1.0, 0.0)
    assert row(20, "gap", [found["gap", "cr3"], found["gap", "cr2"]]).endswith("| – |")


@pytest.mark.parametrize("name", ["beta", "beta_q3", "gap"])
def test_support_turned_around_turns_the_sign(bank: pd.DataFrame, name: str) -> None:
    # So where a coin decides which is which, as in the placebo bank, the truth is 0.
    turned = bank.assign(compatibility=1 - bank["compatibility"])
    turned = turned.assign(**derived(turned))
    there, here = (estimate(headlines(f)[name])[0] for f in (turned, bank))
    assert there == pytest.approx(-here, abs=1e-9)
    assert abs(here) > 1e-4


def test_exchange_turns_whole_rollouts_and_leaves_the_rest(bank: pd.DataFrame) -> None:
    changed = exchanged(np.random.default_rng(0), bank)
    turned = ~np.isclose(changed["compatibility"], bank["compatibility"], atol=0)
    assert np.allclose(changed["compatibility"][turned], 1 - bank["compatibility"][turned], atol=0)
    assert (pd.Series(turned).groupby(bank["context_id"].to_numpy()).nunique() == 1).all()
    assert 0.2 < turned.mean() < 0.8
    for column in ("gain", "disagreement_norm", "quadrant"):
        assert changed[column].equals(bank[column])


def test_skew_is_one_factor_a_prompt(bank: pd.DataFrame) -> None:
    change = BANKS["skewed"].change
    assert change is not None
    added = change(np.random.default_rng(0), bank)["gain"] - bank["gain"]
    factor = (added / (bank["disagreement"] * bank["compatibility"])).to_numpy()
    owner = prompt_clusters(bank).of_row
    for prompt in range(3):
        assert np.ptp(factor[owner == prompt]) < 1e-9
    assert np.ptp(factor) > 0.01


@pytest.mark.parametrize("clusters", [2, 30, 100, 300, 10_000])
@pytest.mark.parametrize("name", HEADLINES)
def test_rule_is_the_jackknife_for_every_number_at_every_size(
    name: Headline, clusters: int
) -> None:
    assert recommended(clusters, name) == "cr3"


@pytest.mark.parametrize("name", HEADLINES)
def test_recommended_interval_is_of_the_recommended_kind(
    bank: pd.DataFrame, name: Headline
) -> None:
    estimator = headlines(bank)[name]
    got = recommended_interval(estimator, name, Bootstrap(draws=20))
    assert got == robust_interval(estimator, "cr3")
    assert got.low < got.estimate < got.high
    assert got.kind == "cr3"


def test_recommended_interval_falls_back_on_the_bootstraps_kind() -> None:
    # Only the first prompt has rows on the second side, so there is no value without it.
    first = Mean(np.array([1.0, 2, 4]), np.ones(3))
    second = Mean(np.array([1.0, 0, 0]), np.array([1.0, 0, 0]))
    counts = np.array([[1.0, 1, 1], [2, 1, 0], [1, 2, 0]])
    bootstrap = Bootstrap(counts=counts)
    got = recommended_interval(Difference(first, second), "gap", bootstrap)
    assert robust_interval(Difference(first, second), "cr3").reason == (
        "no value without one of 1 prompts"
    )
    assert got.kind == "percentile"
    # Means of the first side 7/3, 4/3 and 5/3, less 1.
    assert (got.low, got.high) == pytest.approx(np.quantile([4 / 3, 1 / 3, 2 / 3], [0.025, 0.975]))
