"""The table `definitions_differ`: each number against a slow analysis of a slow table."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from run_on_disk import write_run
from statistics_reference import brute_force, norm, percentiles, quadrant, quantile

from diagnostics.errors import InputError
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.differ import definitions_differ, departures
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_counts
from diagnostics.statistics.tables.definitions import definition_set
from diagnostics.statistics.tables.tokens import token_table

K, DRAWS = 4, 40
CLOSE = 1e-9  # a regression solved another way
PROMPTS, LENGTH = 16, 10
SETS = (
    "paper",
    "paper+outcome=gain_rel",
    "paper+disagreement=kl_0",
    "paper+epsilon=empty_range",
    "paper+keeping=at_least_one",
    "paper+ties=row_order",
    "paper+compatibility=lower",
    "paper+entropy_from=checkpoint",
    "paper+compatibility_from=checkpoint",
    "paper+leakage",
    "released",
    "released+leakage",
)
HEADLINES = ("gain", "beta", "beta_q3", "gap", "matched", "budget")

# By what each departure enters: which headline numbers it cannot touch.
UNTOUCHED = {
    "paper": set(HEADLINES),
    "paper+disagreement=kl_0": {"gain", "gap"},
    "paper+epsilon=empty_range": {"gain", "gap"},
    "paper+keeping=at_least_one": {"gain", "beta", "beta_q3", "gap", "matched"},
    "paper+ties=row_order": {"gain", "beta", "beta_q3", "gap", "matched"},
    "paper+compatibility=lower": {"gain"},
    "paper+entropy_from=checkpoint": {"gain", "budget"},
    "paper+compatibility_from=checkpoint": {"gain"},
    "paper+leakage": {"gain"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("differ") / "run"
    return write_run(folder, prompts=PROMPTS, length=LENGTH, checkpoints={"one": 0.3, "same": 0.0})


@pytest.fixture(scope="module")
def table(run: Run) -> pd.DataFrame:
    bootstrap = Bootstrap(draws=DRAWS, seed=3)
    made = definitions_differ(run, K, bootstrap, ["one"]).to_frame()
    return made.set_index(["headline", "definitions"])


def slow_frame(run: Run, name: str) -> pd.DataFrame:
    """The columns that headlines need, under a set, from columns that other tests hold to loops."""
    wanted = definition_set(name)
    paper, own = token_table(run, K, ["one"]), run.student("one")
    columns = {c: paper[c] for c in ("context_id", "prompt_id", "position", "relative_position")}
    kl_0 = run.student().kl
    columns["gain"] = kl_0 - own.kl
    columns["gain_rel"] = (kl_0 - own.kl) / (kl_0 + 1e-12)
    h = own.entropy if wanted.entropy_from == "checkpoint" else run.student().entropy
    student = own if wanted.compatibility_from == "checkpoint" else run.student()
    listed = run.teacher().top_ids
    c = []
    for row in range(len(kl_0)):
        ids = student.top_ids[row, :K].tolist()
        shared = [i for i, v in enumerate(ids) if v in listed[row, :K].tolist()]
        kept = shared if wanted.compatibility == "lower" else range(K)
        c.append(math.fsum(math.exp(student.teacher_logprob[row, i]) for i in kept))
    d = kl_0 if wanted.disagreement == "kl_0" else paper["disagreement"].to_numpy()
    for column, values in (("h", h), ("d", d), ("c", c), ("ht", run.teacher().entropy)):
        columns[column] = norm(values)
    cuts = quantile(h, 0.5), quantile(kl_0, 0.5)
    columns["q3"] = [quadrant(a, b, *cuts) == 3 for a, b in zip(h, kl_0, strict=True)]
    return pd.DataFrame(columns | {"c_raw": c, "d_raw": d})


def slow_beta(frame: pd.DataFrame, outcome: str) -> float:
    """beta_L - beta_I; z-scores are those of `frame` itself."""
    predictors = {"h": frame["h"], "t": frame["relative_position"], "ht": frame["ht"]}
    predictors |= {"l": frame["d"] * frame["c"], "i": frame["d"] * (1 - frame["c"])}
    z = pd.DataFrame({name: (v - v.mean()) / v.std(ddof=0) for name, v in predictors.items()})
    fitted = sm.OLS(frame[outcome], sm.add_constant(z)).fit().params
    return float(fitted["l"] - fitted["i"])


def slow_gap(frame: pd.DataFrame, outcome: str) -> float:
    inside = frame[frame["q3"]]
    low, high = (quantile(inside["c_raw"], q) for q in (1 / 3, 2 / 3))
    sides = inside[outcome][inside["c_raw"] >= high], inside[outcome][inside["c_raw"] <= low]
    return float(sides[0].mean() - sides[1].mean())


def slow_matched(frame: pd.DataFrame, outcome: str) -> float:
    differences = []
    for _, rows in frame[frame["q3"]].groupby("prompt_id", observed=True):
        above = rows["c_raw"] > rows["c_raw"].median()
        for _, high in rows[above].iterrows():
            nearest = min(
                (low for _, low in rows[~above].iterrows()),
                key=lambda low, high=high: sum(
                    (high[name] - low[name]) ** 2 for name in ("h", "d", "relative_position")
                ),
            )
            differences.append(high[outcome] - nearest[outcome])
    return float(np.mean(differences))


def slow_kept(frame: pd.DataFrame, score: pd.Series, beyond: pd.Series, each: bool) -> pd.Series:
    """ceil(5 %) of the rows by score, then by what lies beyond the clip; then one a rollout."""
    order = sorted(frame.index, key=lambda i: (-score[i], -beyond[i]))
    kept = set(order[: math.ceil(0.05 * len(frame))])
    if each:
        for context in frame["context_id"].unique():
            rows = [i for i in order if frame["context_id"][i] == context]
            kept |= set() if kept & set(rows) else {rows[0]}
    return frame.index.isin(kept)


def slow_budget(frame: pd.DataFrame, outcome: str, each: bool) -> float:
    by_dl = slow_kept(frame, frame["d"] * frame["c"], frame["d_raw"] * frame["c_raw"], each)
    by_kl = slow_kept(frame, frame["d"], frame["d_raw"], each)
    return float(frame[outcome][by_dl].mean() - frame[outcome][by_kl].mean())


@pytest.mark.parametrize("name", SETS)
def test_numbers_under_each_set_equal_slow_analyses(
    run: Run, table: pd.DataFrame, name: str
) -> None:
    frame, wanted = slow_frame(run, name), definition_set(name)
    outcome = wanted.outcome
    expected = {
        "gain": math.fsum(frame[outcome]) / len(frame),
        "beta": slow_beta(frame, outcome),
        "beta_q3": slow_beta(frame[frame["q3"]], outcome),
        "gap": slow_gap(frame, outcome),
        "matched": slow_matched(frame, outcome),
        "budget": slow_budget(frame, outcome, wanted.keeping == "at_least_one"),
    }
    for headline, value in expected.items():
        assert table.loc[(headline, name), "value"] == pytest.approx(value, abs=CLOSE), headline


def test_every_headline_stands_under_every_set_in_order(table: pd.DataFrame) -> None:
    assert tuple(d.name for d in departures()) == SETS
    assert list(table.index) == [(headline, name) for headline in HEADLINES for name in SETS]
    assert set(table["checkpoint"]) == {"one"}
    assert set(table["run"]) == {"small"}
    assert set(table["top_k"]) == {K}
    relative = table.index.get_level_values(1).str.contains("gain_rel|released")
    assert table["outcome"].tolist() == np.where(relative, "gain_rel", "gain").tolist()


@pytest.mark.parametrize("name", list(UNTOUCHED))
def test_a_departure_that_cannot_touch_a_number_leaves_it_exactly_equal(
    table: pd.DataFrame, name: str
) -> None:
    columns = ["value", "value_low", "value_high"]
    for headline in HEADLINES:
        row, paper = table.loc[(headline, name)], table.loc[(headline, "paper")]
        if headline in UNTOUCHED[name]:
            assert row["same"] == "yes", headline
            assert row[columns].tolist() == paper[columns].tolist()
            assert row[["change", "change_low", "change_high"]].tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("paper+disagreement=kl_0", "beta"),
        ("paper+keeping=at_least_one", "budget"),
        ("paper+compatibility=lower", "gap"),
        ("paper+entropy_from=checkpoint", "beta_q3"),
        ("paper+compatibility_from=checkpoint", "matched"),
        ("paper+leakage", "beta"),
    ],
)
def test_a_departure_that_touches_a_number_says_so(
    table: pd.DataFrame, name: str, headline: str
) -> None:
    row, paper = table.loc[(headline, name)], table.loc[(headline, "paper")]
    assert row["same"] == "no"
    assert row["change"] == pytest.approx(row["value"] - paper["value"], abs=1e-12)
    assert row["change"] != 0


def drawn(run: Run, name: str, statistic: Callable[[pd.DataFrame], float]) -> np.ndarray:
    """A statistic of a set's rows in each draw, brute force."""
    return brute_force(slow_frame(run, name), draw_counts(PROMPTS, DRAWS, 3), statistic)


def test_intervals_and_paired_changes_equal_brute_force_over_the_same_draws(
    run: Run, table: pd.DataFrame
) -> None:
    other = "paper+compatibility_from=checkpoint"

    def cut(name: str) -> Callable[[pd.DataFrame], float]:
        whole = slow_frame(run, name)
        whole = whole[whole["q3"]]
        low, high = (quantile(whole["c_raw"], q) for q in (1 / 3, 2 / 3))

        def statistic(frame: pd.DataFrame) -> float:  # cuts stay those of the full sample
            inside = frame[frame["q3"]]
            upper, lower = inside[inside["c_raw"] >= high], inside[inside["c_raw"] <= low]
            return float(upper["gain"].mean() - lower["gain"].mean())

        return statistic

    ours, theirs = (drawn(run, name, cut(name)) for name in ("paper", other))
    row = table.loc[("gap", other)]
    assert (row["value_low"], row["value_high"]) == pytest.approx(percentiles(theirs), abs=1e-12)
    paired = percentiles(theirs - ours)
    assert (row["change_low"], row["change_high"]) == pytest.approx(paired, abs=1e-12)


def test_a_change_in_another_unit_is_not_given(table: pd.DataFrame) -> None:
    other = table[table["outcome"] == "gain_rel"]
    assert len(other) == 3 * len(HEADLINES)
    assert other[["change", "change_low", "change_high"]].isna().all(axis=None)
    assert set(other["same"]) == {"other unit"}
    assert set(other["reason"]) == {"no unit, where `paper` has nats"}
    assert set(table[table["outcome"] == "gain"]["reason"]) == {""}


def test_leakage_of_an_unchanged_checkpoint_changes_nothing(run: Run) -> None:
    made = definitions_differ(run, K, Bootstrap(draws=20), ["same"]).to_frame()
    assert set(made[made["definitions"].str.fullmatch("paper.*(leak|_from).*")]["same"]) == {"yes"}


def test_all_checkpoints_follow_each_other(run: Run, table: pd.DataFrame) -> None:
    both = definitions_differ(run, K, Bootstrap(draws=DRAWS, seed=3)).to_frame()
    assert both["checkpoint"].tolist() == ["one"] * 72 + ["same"] * 72
    assert both["value"].tolist()[:72] == table["value"].tolist()


def test_one_prompt_has_numbers_and_no_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path, prompts=1, length=40, checkpoints={"one": 0.3})
    made = definitions_differ(run, K, Bootstrap(draws=20)).to_frame()
    assert made["value"].notna().all()
    assert made[["value_low", "value_high", "change_low", "change_high"]].isna().all(axis=None)
    assert set(made["reason"]) == {"1 prompt: no interval from one cluster"}


def test_a_number_that_a_set_cannot_give_says_why(tmp_path: Path) -> None:
    # Eight positions of four rollouts, two of them in Q3: too few for six predictors.
    run = write_run(tmp_path, prompts=2, length=2, checkpoints={"one": 0.3})
    made = definitions_differ(run, K, Bootstrap(draws=20)).to_frame()
    beta = made[(made["headline"] == "beta_q3") & (made["definitions"] == "paper")].iloc[0]
    assert math.isnan(beta["value"])
    assert beta["same"] == ""
    assert beta["reason"].startswith("regression: expected ")
    assert made[made["headline"] == "gain"]["value"].notna().all()


def test_a_teacher_known_by_its_lists_is_refused(run: Run) -> None:
    manifest = dict(run.manifest) | {"teacher": {"kind": "top_k", "model": "topk:x"}}
    with pytest.raises(InputError) as caught:
        definitions_differ(Run(folder=run.folder, manifest=manifest), K)
    assert str(caught.value) == (
        f"{run.folder}: expected a teacher whose whole distribution is known: gain needs KL, got "
        "one known by its top-k lists alone; score the bank with the teacher's weights"
    )
