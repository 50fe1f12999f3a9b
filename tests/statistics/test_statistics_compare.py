"""Differences of two tables against concatenated rows, and draws of two samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.budgets import kept_means
from diagnostics.statistics.analyses.compare import Comparison, compare, compare_selectors
from diagnostics.statistics.analyses.headlines import Headline, headline
from diagnostics.statistics.analyses.matching import lay_out, matched
from diagnostics.statistics.inference.bootstrap import Bootstrap, draw_counts, interval
from diagnostics.statistics.inference.clusters import prompt_clusters
from diagnostics.statistics.inference.estimators import Mean
from diagnostics.statistics.tables.definitions import PAPER, RELEASED, state
from diagnostics.statistics.tables.origin import stamp
from diagnostics.statistics.tables.quadrants import with_quadrants

SUMS = 1e-10  # ratios of sums against means of rows in another order
NUMBERS: tuple[Headline, ...] = get_args(Headline)


def known(frame: pd.DataFrame, bank: str = "b1", k: int = 16) -> pd.DataFrame:
    return stamp(state(frame.copy(), PAPER), k, bank)


def later(frame: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Another checkpoint of the same bank: other gains that keep some of the first's."""
    noise = np.random.default_rng(seed).normal(scale=0.2, size=len(frame))
    gain = 0.5 * frame["gain"] + 0.2 * frame["learnable"] + noise
    made = frame.assign(gain=gain, gain_rel=gain / (frame["kl_0"] + 1e-12))
    return made.assign(checkpoint="step20")


@pytest.fixture(scope="module")
def wide() -> pd.DataFrame:
    """A table with enough of Q3 in every prompt for all headline numbers."""
    return known(reference.make_frame(seed=3, prompts=12, rollouts=2, length=40))


@pytest.fixture(scope="module")
def after(wide: pd.DataFrame) -> pd.DataFrame:
    return later(wide)


def ends(value: object) -> tuple[float, float, float]:
    return value.estimate, value.low, value.high


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("outcome", ["gain", "gain_rel"])
def test_paired_difference_is_that_of_each_draws_values(
    wide: pd.DataFrame, after: pd.DataFrame, name: Headline, outcome: str
) -> None:
    counts = draw_counts(12, 200, 4)
    got = compare(wide, after, name, Bootstrap(counts=counts), outcome=outcome)
    parts = [headline(f, name, outcome) for f in (wide, after)]
    one, two = (e.value(counts @ e.sums)[:, 0] for e in parts)
    value = [e.value(e.sums.sum(axis=0, keepdims=True))[0, 0] for e in parts]
    expected = (value[0] - value[1], *reference.percentiles(one - two))
    scale = np.abs(one).max()
    assert ends(got.difference) == pytest.approx(expected, abs=SUMS * scale)
    assert got.first_value == interval(parts[0], Bootstrap(counts=counts))
    assert got.paired == "positions"
    assert (got.n_first, got.n_second, got.left_out, got.n_prompts) == (len(wide), len(wide), 0, 12)
    assert (got.first, got.second) == ("step10", "step20")


def test_paired_difference_equals_concatenated_rows(
    frame: pd.DataFrame, counts: np.ndarray
) -> None:
    first, second = known(frame), known(later(frame))
    both = frame.assign(other=second["gain"])
    cut = reference.quantile(frame["compatibility"][frame["quadrant"] == 3], 2 / 3)
    low = reference.quantile(frame["compatibility"][frame["quadrant"] == 3], 1 / 3)

    def slow(drawn: pd.DataFrame) -> float:
        inside = drawn[drawn["quadrant"] == 3]
        high, under = inside["compatibility"] >= cut, inside["compatibility"] <= low
        away = inside["gain"] - inside["other"]
        return away[high].mean() - away[under].mean()

    got = compare(first, second, "gap", Bootstrap(counts=counts)).difference
    draws = reference.brute_force(both, counts, slow)
    expected = (slow(both), *reference.percentiles(draws))
    assert ends(got) == pytest.approx(expected, abs=SUMS)


@pytest.mark.parametrize("seed", range(3))
def test_unsorted_equals_sorted(wide: pd.DataFrame, after: pd.DataFrame, seed: int) -> None:
    here = compare(wide, after, "matched")
    there = compare(reference.permuted(wide, seed), reference.permuted(after, seed + 9), "matched")
    assert ends(there.difference) == pytest.approx(ends(here.difference), abs=SUMS)


def test_a_checkpoint_less_itself_is_exactly_zero(wide: pd.DataFrame) -> None:
    assert ends(compare(wide, wide, "beta").difference) == (0.0, 0.0, 0.0)


def test_order_turns_the_sign(wide: pd.DataFrame, after: pd.DataFrame) -> None:
    there, back = (compare(*pair, "gap").difference for pair in ((wide, after), (after, wide)))
    assert ends(back) == pytest.approx((-there.estimate, -there.high, -there.low), abs=SUMS)


def test_pairing_narrows_what_varies_alike(wide: pd.DataFrame) -> None:
    # The second gain is the first less a constant, so the difference does not vary at all.
    moved = wide.assign(gain=wide["gain"] - 0.25)
    got = compare(wide, moved, "gain").difference
    assert ends(got) == pytest.approx((0.25, 0.25, 0.25), abs=SUMS)


def test_a_function_stands_in_a_headlines_place(wide: pd.DataFrame, after: pd.DataFrame) -> None:
    def share_improved(frame: pd.DataFrame) -> Mean:
        clusters = prompt_clusters(frame)
        return Mean(clusters.sums((frame["gain"] > 0).to_numpy(float)), clusters.sizes())

    got = compare(wide, after, share_improved)
    assert got.number == "share_improved"
    expected = (wide["gain"] > 0).mean() - (after["gain"] > 0).mean()
    assert got.difference.estimate == pytest.approx(expected, abs=SUMS)


def test_intersection_equals_the_common_rows(wide: pd.DataFrame, after: pd.DataFrame) -> None:
    first, second = wide.iloc[5:], after.iloc[: len(after) - 7]
    common = (wide.iloc[5 : len(wide) - 7], after.iloc[5 : len(wide) - 7])
    got = compare(first, second, "gap", intersect=True)
    assert got.difference == compare(*common, "gap").difference
    assert got.left_out == 5 + 7
    assert got.n_first == got.n_second == len(wide) - 12


def test_selectors_differ_by_their_kept_means(wide: pd.DataFrame) -> None:
    got = compare_selectors(wide, "teachability", "kl", 0.05)
    assert got.difference == interval(headline(wide, "budget"))
    n = int(np.ceil(0.05 * len(wide)))
    assert (got.first, got.second, got.n_first, got.n_second) == ("teachability", "kl", n, n)
    assert ends(compare_selectors(wide, "kl", "kl", 0.1).difference) == (0.0, 0.0, 0.0)


def test_a_sets_own_outcome_is_the_default(wide: pd.DataFrame, after: pd.DataFrame) -> None:
    first, second = (state(f.copy(), RELEASED) for f in (wide, after))
    got = compare(first, second, "gain")
    assert (got.outcome, got.definitions) == ("gain_rel", "released")
    assert got.difference == compare(wide, after, "gain", outcome="gain_rel").difference


# Different banks.


@pytest.fixture(scope="module")
def elsewhere() -> pd.DataFrame:
    """Another bank of fewer prompts, whose ids it shares with none."""
    made = reference.make_frame(seed=8, prompts=9, rollouts=2, length=30)
    return known(made.assign(prompt_id="q" + made["prompt_id"]), "b2")


def test_banks_drawn_apart_have_the_variances_of_both(
    wide: pd.DataFrame, elsewhere: pd.DataFrame
) -> None:
    settings = Bootstrap(draws=4000)
    got = compare(wide, elsewhere, "gain", settings, paired="no")
    parts = [headline(f, "gain") for f in (wide, elsewhere)]
    spreads = [e.value(settings.totals(e.sums))[:, 0].std() for e in parts]
    width = (got.difference.high - got.difference.low) / (2 * 1.96)
    assert width == pytest.approx(np.hypot(*spreads), rel=0.06)  # 4,000 draws: about 2 %
    assert got.n_prompts == 12 + 9
    assert got.paired == "no"
    assert [got.first_value, got.second_value] == [interval(e, settings) for e in parts]


@pytest.mark.parametrize("kind", ["percentile", "bca", "studentized"])
def test_two_samples_equal_the_stacked_estimator(
    wide: pd.DataFrame, elsewhere: pd.DataFrame, kind: str
) -> None:
    # By hand: the first's draws are the bootstrap's own, and those of the second are independent.
    got = compare(wide, elsewhere, "gap", Bootstrap(draws=800, kind=kind), paired="no").difference
    one, two = (headline(f, "gap") for f in (wide, elsewhere))
    value = [e.value(e.sums.sum(axis=0, keepdims=True))[0, 0] for e in (one, two)]
    assert got.estimate == pytest.approx(value[0] - value[1], abs=SUMS)
    assert got.kind == kind
    assert got.low < got.estimate < got.high
    if kind == "percentile":
        seed = int(np.random.SeedSequence((0, 1)).generate_state(1)[0])
        draws = one.value(draw_counts(12, 800, 0) @ one.sums)[:, 0]
        draws = draws - two.value(draw_counts(9, 800, seed) @ two.sums)[:, 0]
        assert (got.low, got.high) == pytest.approx(reference.percentiles(draws), abs=SUMS)


def test_shared_prompts_are_drawn_for_both(wide: pd.DataFrame) -> None:
    # Two rollout sets of the same prompts with the same gains: nothing varies but which is which.
    other = known(wide.assign(context_id="z" + wide["context_id"]), "b2")
    got = compare(wide, other, "gain", paired="prompts")
    assert ends(got.difference) == pytest.approx((0.0, 0.0, 0.0), abs=SUMS)
    assert got.n_prompts == 12
    apart = compare(wide, other, "gain", paired="no").difference
    assert apart.high - apart.low > 0.01


def test_prompts_in_part_shared_equal_concatenated_rows(frame: pd.DataFrame) -> None:
    # The second lacks the first prompt in order and has one of its own.
    names = sorted(set(frame["prompt_id"]))
    second = frame[frame["prompt_id"] != names[0]].assign(gain=lambda f: f["gain"] + 1)
    own = frame[frame["prompt_id"] == names[1]].assign(prompt_id="zz")
    second = pd.concat([second, own], ignore_index=True)
    both = pd.concat([frame.assign(side=1), second.assign(side=2)], ignore_index=True)
    counts = draw_counts(len(names) + 1, 60, 2)

    def slow(drawn: pd.DataFrame) -> float:
        return drawn["gain"][drawn["side"] == 1].mean() - drawn["gain"][drawn["side"] == 2].mean()

    got = compare(
        known(frame), known(second, "b2"), "gain", Bootstrap(counts=counts), paired="prompts"
    )
    draws = reference.brute_force(both, counts, slow)
    expected = (slow(both), *reference.percentiles(draws))
    assert ends(got.difference) == pytest.approx(expected, abs=SUMS)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 9), min_size=1), st.integers(0, 2)), min_size=1))
def test_layout_puts_same_prompts_of_a_group_in_one_place(
    tables: list[tuple[set[int], int]],
) -> None:
    names = [np.array(sorted(f"p{i}" for i in ids), dtype=object) for ids, _ in tables]
    groups = [group for _, group in tables]
    layout = lay_out(names, groups)
    places = {}
    for own, group, rows in zip(names, groups, layout.rows, strict=True):
        for name, row in zip(own, rows.tolist(), strict=True):
            assert places.setdefault((group, name), row) == row
    assert sorted(places.values()) == list(range(layout.clusters))
    assert sum(layout.sizes) == layout.clusters


# What is refused.


def refusals(wide: pd.DataFrame, after: pd.DataFrame, elsewhere: pd.DataFrame) -> dict:
    common = len(wide) - 3
    prompt = wide["prompt_id"].iloc[0]
    renamed = after.assign(prompt_id=after["prompt_id"].where(np.arange(len(after)) > 0, "other"))
    twice = pd.concat([wide, wide.iloc[:1]])
    foreign = after.assign(context_id="x" + after["context_id"])
    digests = f"{'b1'} and {'b2'}"
    return {
        "sets": (
            lambda: compare(wide, state(after.copy(), RELEASED)),
            "compare: expected token tables of one definition set, got paper, released; "
            "make all of them with the same --definitions",
        ),
        "no set": (
            lambda: compare(wide, pd.DataFrame(after.to_dict("list"))),
            "token table: expected one that says by which definition set it was made, got none "
            "(tables of different sets joined together say none); "
            "make it with `token_table` or `read_tokens`",
        ),
        "K": (
            lambda: compare(wide, known(after, k=8)),
            "compare: expected token tables of one K, got 16, 8; make all of them with the same K",
        ),
        "quadrants": (
            lambda: compare(wide, with_quadrants(after, 0.8)),
            "compare: expected token tables of quadrants cut at one quantile, got 0.5, 0.8; "
            "make all of them with the same quantile",
        ),
        "banks": (
            lambda: compare(wide, elsewhere),
            f"compare: expected two tables of one bank, got banks {digests}; compare runs over one "
            'bank, or ask for paired="prompts" or paired="no"',
        ),
        "rows": (
            lambda: compare(wide, after.iloc[3:]),
            "compare: expected the same positions in both, got 3 that one of them lacks, "
            f"{common} in both; score the same bank whole, or ask for `intersect=True`",
        ),
        "no rows": (
            lambda: compare(wide, foreign, intersect=True),
            f"compare: expected the same positions in both, got {2 * len(wide):,} that one of them "
            "lacks, 0 in both; compare runs over one bank",
        ),
        "prompts": (
            lambda: compare(wide, renamed),
            f"compare, context {wide['context_id'].iloc[0]}: expected one prompt_id in both: it is "
            f"the cluster, got {prompt} and other; score the same bank",
        ),
        "twice": (
            lambda: compare(twice, after),
            "compare: expected each position once in a table, got one that stands twice or more; "
            "choose one checkpoint, and drop copies of rows",
        ),
        "one bank apart": (
            lambda: compare(wide, after, paired="no"),
            "compare: expected two banks, to be drawn apart, got one bank; "
            'ask for paired="positions" or paired="prompts"',
        ),
        "no shared prompts": (
            lambda: compare(wide, elsewhere, paired="prompts"),
            "compare: expected prompt ids that both tables have, got none; "
            'ask for paired="no"',
        ),
        "one prompt apart": (
            lambda: compare(wide, elsewhere[elsewhere["prompt_id"] == "qp001"], paired="no"),
            "bootstrap of several banks: expected at least two prompts in each, got 1; "
            "build banks of more prompts",
        ),
        "unknown number": (
            lambda: compare(wide, after, "gapp"),
            "headline number: expected one of gain, beta, beta_q3, gap, matched, budget, or a "
            "function of a table, got 'gapp'; choose one of them",
        ),
        "several checkpoints": (
            lambda: compare(pd.concat([wide, after]), after),
            "token table: expected one checkpoint, got step10, step20; choose one with "
            'run.at("step10") or frame[frame["checkpoint"] == …]',
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", refusals(*[reference.make_frame(seed=0, prompts=2)] * 3))
def test_what_is_refused(
    wide: pd.DataFrame, after: pd.DataFrame, elsewhere: pd.DataFrame, name: str
) -> None:
    call, message = refusals(wide, after, elsewhere)[name]
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


def two_numbers(frame: pd.DataFrame) -> object:
    from diagnostics.statistics.analyses.regression import decomposition_estimator

    return decomposition_estimator(frame, rows=np.ones(len(frame), dtype=bool))


def half_the_prompts(frame: pd.DataFrame) -> Mean:
    half = frame[frame["prompt_id"] < "p006"]
    return kept_means(half, np.ones(len(half), dtype=bool), "gain")


@pytest.mark.parametrize(
    ("function", "got"),
    [(two_numbers, "5 from sums of 12"), (half_the_prompts, "1 from sums of 6")],
)
def test_function_of_another_shape_is_refused(
    wide: pd.DataFrame, after: pd.DataFrame, function: Callable, got: str
) -> None:
    with pytest.raises(InputError) as caught:
        compare(wide, after, function)
    assert str(caught.value) == (
        f"function {function.__name__}: expected one number from sums of 12 prompts, got {got}; "
        "return one estimator over `prompt_clusters` of the table it is given"
    )


def test_matched_tables_that_agree_are_not_copied(wide: pd.DataFrame, after: pd.DataFrame) -> None:
    assert matched(wide, after, "here")[1] is after


def test_one_prompt_has_no_interval(wide: pd.DataFrame, after: pd.DataFrame) -> None:
    one = wide["prompt_id"] == "p003"
    got = compare(wide[one], after[one], "gain").difference
    assert np.isnan(got.low)
    assert got.reason == "1 prompt: no interval from one cluster"


def test_comparison_shows_itself_and_becomes_a_row(wide: pd.DataFrame, after: pd.DataFrame) -> None:
    got = compare(wide, after, "gain")
    assert isinstance(got, Comparison)
    assert repr(got).splitlines()[0] == "Comparison"
    row = got.to_frame().iloc[0]
    assert (row["difference"], row["difference_low"]) == (
        got.difference.estimate,
        got.difference.low,
    )
