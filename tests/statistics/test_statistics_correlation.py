"""Correlation from sums per cluster, against scipy on rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from diagnostics.statistics.analyses.alignment import correlations, group_means, step_rows
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_counts, interval
from diagnostics.statistics.inference.clusters import Clusters, prompt_clusters
from diagnostics.statistics.inference.correlation import correlation, ranks
from diagnostics.statistics.inference.estimators import estimate, influence, without_each

SEVERAL = Bootstrap(draws=200, seed=3)


@pytest.fixture(scope="module")
def rows() -> tuple[Clusters, np.ndarray, np.ndarray]:
    """500 rows of 12 prompts of unequal size; x is far from 0, y has ties."""
    generator = np.random.default_rng(0)
    owner = generator.choice(12, size=500, p=np.arange(1, 13) / 78)
    x = 1e6 + generator.normal(size=500) + 0.1 * owner
    y = np.round(x - 1e6 + 2 * generator.normal(size=500), 1)
    names = np.array([f"p{i:02d}" for i in range(12)], dtype=object)
    return Clusters(names=names, of_row=owner.astype(np.int64)), x, y


def test_pearson_and_spearman_are_scipys(rows: tuple[Clusters, np.ndarray, np.ndarray]) -> None:
    clusters, x, y = rows
    assert estimate(correlation(clusters, x, y))[0] == pytest.approx(stats.pearsonr(x, y)[0])
    by_rank = estimate(correlation(clusters, ranks(x), ranks(y)))[0]
    assert by_rank == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    assert ranks(y).tolist() == stats.rankdata(y).tolist()


def test_a_draw_is_the_correlation_of_the_drawn_rows(
    rows: tuple[Clusters, np.ndarray, np.ndarray],
) -> None:
    clusters, x, y = rows
    found = interval(correlation(clusters, x, y), SEVERAL)
    drawn = []
    for counts in draw_counts(12, 200, 3):
        repeat = np.repeat(np.arange(500), counts[clusters.of_row].astype(int))
        drawn.append(stats.pearsonr(x[repeat], y[repeat])[0])
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=1e-9)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=1e-9)


def test_influence_is_the_derivative_by_a_clusters_weight(
    rows: tuple[Clusters, np.ndarray, np.ndarray],
) -> None:
    made = correlation(*rows)
    totals, step = made.sums.sum(axis=0), 1e-6
    up, down = (made.value(totals + sign * step * made.sums)[:, 0] for sign in (1, -1))
    np.testing.assert_allclose(influence(made, 0), (up - down) / (2 * step), atol=1e-8)
    assert without_each(made).shape == (12, 1)


def test_what_does_not_vary_has_no_correlation(
    rows: tuple[Clusters, np.ndarray, np.ndarray],
) -> None:
    clusters, x, _ = rows
    found = interval(correlation(clusters, x, np.full(500, 0.1)), SEVERAL)
    assert np.isnan([found.estimate, found.low, found.high]).all()
    assert found.reason


@pytest.fixture(scope="module")
def positions() -> pd.DataFrame:
    """A made-up position table: 40 prompts of 10 positions."""
    generator = np.random.default_rng(1)
    count = 400
    frame = pd.DataFrame(
        {
            "context_id": np.repeat([f"c{i}" for i in range(40)], 10),
            "prompt_id": np.repeat([f"p{i:02d}" for i in range(40)], 10),
            "position": np.tile(np.arange(10, dtype=np.int32), 40),
            **{
                name: generator.exponential(size=count)
                for name in ("entropy", "disagreement", "kl_0", "loss", "learnable")
            },
            "incompatible": generator.random(count),
            "compatibility": generator.random(count),
            "quadrant": generator.choice([1, 2, 3, 4], size=count),
        }
    )
    frame["reverse_kl_0"] = frame["loss"]
    for name in ("alignment", "alignment_kl", "gain_step", "loss_step"):
        frame[name] = generator.standard_t(3, size=count)
    return frame


def test_correlations_are_scipys_in_each_scope(positions: pd.DataFrame) -> None:
    table = correlations(positions, SEVERAL).set_index(["scope", "of", "signal"])
    assert len(table) == 2 * 2 * 9
    for scope, part in (("all", positions), ("q3", positions[positions["quadrant"] == 3])):
        row = table.loc[scope, "alignment", "learnable"]
        x, y = part["alignment"], part["learnable"]
        assert row["n_positions"] == len(part)
        assert row["pearson"] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
        assert row["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
        assert row["pearson_low"] < row["pearson"] < row["pearson_high"]


def test_intervals_come_from_the_seed_and_not_from_the_order_of_rows(
    positions: pd.DataFrame,
) -> None:
    first = correlations(positions, SEVERAL)
    shuffled = correlations(positions.sample(frac=1, random_state=0), SEVERAL)
    pd.testing.assert_frame_equal(first, shuffled, rtol=1e-9)
    other = correlations(positions, Bootstrap(draws=200, seed=4))
    assert (first["pearson"] == other["pearson"]).all()
    assert (first["pearson_low"] != other["pearson_low"]).all()


def test_group_means_are_means_of_what_is_kept(positions: pd.DataFrame) -> None:
    table = group_means(positions, 0.05, 2**14, SEVERAL, seed=2).set_index("group")
    top = positions.nlargest(20, "disagreement")  # 5 % of 400
    assert table.loc["kl", "n_positions"] == 20
    assert table.loc["kl", "alignment"] == pytest.approx(top["alignment"].mean())
    assert table.loc["kl", "positive_share"] == pytest.approx((top["alignment"] > 0).mean())
    q2 = positions[positions["quadrant"] == 2]
    assert table.loc["Q2", "share"] == pytest.approx(len(q2) / 400)
    assert table.loc["Q2", "gain_step"] == pytest.approx(q2["gain_step"].mean())
    assert table.loc["every position", "alignment_kl"] == pytest.approx(
        positions["alignment_kl"].mean()
    )


def test_a_bank_without_q3_has_no_row_for_it(positions: pd.DataFrame) -> None:
    without = positions.assign(quadrant=positions["quadrant"].replace(3, 4))
    assert set(correlations(without, SEVERAL)["scope"]) == {"all"}


def test_prompts_are_the_clusters_of_every_interval(positions: pd.DataFrame) -> None:
    one = positions.assign(prompt_id="p")
    assert prompt_clusters(one).count == 1
    assert correlations(one, SEVERAL)["pearson_low"].isna().all()
    assert correlations(one, SEVERAL)["pearson"].notna().all()


def test_remainders_are_what_the_first_order_leaves() -> None:
    slope, realised = np.array([1.0, -2.0, 4.0]), np.array([0.11, -0.18, 0.4])
    (row,) = step_rows([("kl", 0.1, slope, realised)]).to_dict("records")
    # first order 0.1, -0.2, 0.4: remainders 0.01, 0.02, 0
    assert row["realised"] == pytest.approx(0.11)
    assert row["first_order"] == pytest.approx(0.1)
    assert row["first_order_size"] == pytest.approx(0.7 / 3)
    assert row["remainder"] == pytest.approx(0.01)
    assert row["largest"] == pytest.approx(0.02)
    assert row["correlation"] == pytest.approx(np.corrcoef(slope, realised)[0, 1])
