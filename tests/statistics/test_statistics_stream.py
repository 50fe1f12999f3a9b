"""Statistics of a stream against those of the same rows in memory."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statistics_reference as reference
from stream_files import split_rows, whole_frame, write_frame

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.budgets import (
    kept_means,
    selections,
    signals_of,
    top_n,
    top_ns,
)
from diagnostics.statistics.analyses.gaps import matched_gap, support_gap
from diagnostics.statistics.analyses.regression import decompose
from diagnostics.statistics.inference.bootstrap import Bootstrap, Interval, interval
from diagnostics.statistics.selection.selectors import Selector, select
from diagnostics.statistics.streaming.cuts import Keys
from diagnostics.statistics.streaming.read import read_chunks
from diagnostics.statistics.streaming.scale import Scale
from diagnostics.statistics.streaming.stream import StreamStatistics, stream_statistics
from diagnostics.statistics.streaming.team import StreamSettings
from diagnostics.statistics.tables.tokens import derived

SUMS = 1e-10  # sums of the same numbers in another order
SELECTORS: tuple[Selector, ...] = (
    "teachability",
    "teachability+entropy",
    "kl",
    "incompatible",
    "entropy",
    "tip",
    "compatibility",
    "q3",
    "q3+high-c",
    "q3+low-c",
    "q3+high-dl",
    "q3+low-dl",
    "q3+high-di",
    "random",
)
OUTCOMES = ("gain", "gain_rel")
SETTINGS = StreamSettings(selectors=SELECTORS, budgets=(0.1, 0.01, 0.4), rows=60)
DRAWS = Bootstrap(draws=60, seed=5)


def streamed(
    folder: Path, frame: pd.DataFrame, settings: StreamSettings = SETTINGS, rows: int = 70
) -> StreamStatistics:
    (found,) = stream_statistics(
        [write_frame(folder / "t.parquet", frame, rows)], settings, DRAWS
    ).values()
    return found


def same(here: object, there: object, tolerance: float = SUMS) -> None:
    """Two records are equal: numbers up to rounding, NaN where NaN is, all else exactly."""
    assert type(here) is type(there)
    for item in fields(here):
        mine, theirs = getattr(here, item.name), getattr(there, item.name)
        if isinstance(mine, Interval):
            assert (mine.reason, mine.kind) == (theirs.reason, theirs.kind)
            mine, theirs = (np.array([v.estimate, v.low, v.high]) for v in (mine, theirs))
            scale = max(1.0, np.nanmax(np.abs(mine)))
            assert np.allclose(mine, theirs, rtol=0, atol=tolerance * scale, equal_nan=True)
        elif isinstance(mine, pd.DataFrame):
            pd.testing.assert_frame_equal(mine, theirs, rtol=tolerance, atol=tolerance)
        elif isinstance(mine, float):
            scale = max(1.0, abs(mine))
            assert theirs == pytest.approx(mine, abs=tolerance * scale, nan_ok=True), item.name
        else:
            assert mine == theirs, item.name


def same_statistics(here: StreamStatistics, there: StreamStatistics, tolerance: float) -> None:
    for name in ("n_contexts", "n_prompts", "n_positions", "n_q3"):
        assert getattr(here, name) == getattr(there, name)
    for name in ("signals", "quadrants"):
        pd.testing.assert_frame_equal(
            getattr(here, name), getattr(there, name), rtol=tolerance, atol=tolerance
        )
    for name in ("gaps", "matched", "top_n", "fits"):
        mine, theirs = getattr(here, name), getattr(there, name)
        assert list(mine) == list(theirs)
        for key in mine:
            same(mine[key], theirs[key], tolerance)


@pytest.fixture(scope="module", params=[False, True], ids=["continuous", "tied"])
def frame(request: pytest.FixtureRequest) -> pd.DataFrame:
    return whole_frame(tied=request.param)


@pytest.fixture(scope="module")
def stats(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> StreamStatistics:
    return streamed(tmp_path_factory.mktemp("stream"), frame)


def test_counts_are_the_tables(frame: pd.DataFrame, stats: StreamStatistics) -> None:
    assert stats.n_positions == len(frame)
    assert stats.n_contexts == frame["context_id"].nunique()
    assert stats.n_prompts == frame["prompt_id"].nunique()
    assert stats.n_q3 == (frame["quadrant"] == 3).sum()


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("proxy", SETTINGS.proxies)
def test_gaps_equal_those_in_memory(
    frame: pd.DataFrame, stats: StreamStatistics, proxy: str, outcome: str
) -> None:
    same(support_gap(frame, proxy, DRAWS, outcome=outcome), stats.gaps[proxy, outcome])


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_matched_gaps_equal_those_in_memory(
    frame: pd.DataFrame, stats: StreamStatistics, outcome: str
) -> None:
    same(matched_gap(frame, "compatibility", DRAWS, outcome=outcome), stats.matched[outcome])


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("scope", ["all", "q3"])
def test_regressions_equal_those_in_memory(
    frame: pd.DataFrame, stats: StreamStatistics, scope: str, outcome: str
) -> None:
    same(decompose(frame, DRAWS, scope=scope, outcome=outcome), stats.fits[scope, outcome])


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_budgets_equal_those_in_memory(
    frame: pd.DataFrame, stats: StreamStatistics, selector: Selector, outcome: str
) -> None:
    kept = selections(frame, [selector], SETTINGS.budgets)
    for here in top_ns(frame, kept, DRAWS, outcome=outcome):
        same(here, stats.top_n[here.selector, here.budget, outcome])


def test_signals_and_quadrants_equal_those_in_memory(
    frame: pd.DataFrame, stats: StreamStatistics
) -> None:
    signals = stats.signals.set_index("signal")
    for name, row in signals.iterrows():
        values = frame[name].to_numpy()
        wanted = np.quantile(values, SETTINGS.quantiles)
        assert row.filter(regex="^q").tolist() == wanted.tolist()
        assert row["mean"] == pytest.approx(values.mean(), abs=SUMS)
        assert row["under_0.5"] == (values < 0.5).mean()
    for row in stats.quadrants.itertuples():
        inside = (frame["quadrant"] == row.quadrant).to_numpy()
        assert row.n_positions == inside.sum()
        assert row.kl_0 == pytest.approx(frame["kl_0"][inside].mean(), abs=SUMS)
        mean = interval(kept_means(frame, inside, "gain"), DRAWS)
        ends = (row.gain, row.gain_low, row.gain_high)
        assert ends == pytest.approx((mean.estimate, mean.low, mean.high), abs=SUMS)


@pytest.mark.parametrize("selector", SELECTORS)
def test_kept_sets_are_the_same_rows(
    frame: pd.DataFrame, tmp_path: Path, selector: Selector
) -> None:
    """Every row, not only their sums: the keys up to the last one are the rows that are kept."""
    (found,) = read_all(write_frame(tmp_path / "t.parquet", frame, 33))
    low, middle, high = (
        {
            n: np.quantile(frame[n], q)
            for n in ("entropy", "kl_0", "disagreement", "compatibility", "teacher_entropy")
        }
        for q in (0.05, 0.5, 0.95)
    )
    scale = Scale(low=low, high=high, middle=middle, outcome=(0.0, 0.0))
    q3 = np.flatnonzero(scale.quadrant(found) == 3)
    keys = Keys.of(selector, found, scale.stretched(found), q3, 0)
    second, third = keys.rest(np.arange(len(keys.first)))
    order = np.lexsort((third, second, keys.first))
    for budget in (0.01, 0.1, 0.4, 1.0):
        kept = select(selector, budget, signals_of(frame), 0).mask
        rows = keys.chunk_rows(order[: kept.sum()])
        assert sorted(rows.tolist()) == np.flatnonzero(kept).tolist()


def read_all(path: Path) -> list:
    return [chunk for _, chunk in read_chunks([path], rows=10**6)]


@pytest.mark.parametrize(("rows", "group"), [(1, 64), (17, 5), (17, 10**6), (10**6, 10**6)])
def test_chunks_and_row_groups_change_nothing(
    frame: pd.DataFrame, stats: StreamStatistics, tmp_path: Path, rows: int, group: int
) -> None:
    other = streamed(tmp_path, frame, replace(SETTINGS, rows=rows), group)
    same_statistics(stats, other, 1e-12)


def test_files_and_scratch_change_nothing(
    frame: pd.DataFrame, stats: StreamStatistics, tmp_path: Path
) -> None:
    """Files that part a prompt and a context; columns held, in a scratch file, or some of each."""
    parts = split_rows(frame, [3, 100, 101, 250])
    files = [write_frame(tmp_path / f"{i}.parquet", part) for i, part in enumerate(parts)]
    for memory in (0, 9_000, 10**9):
        settings = replace(SETTINGS, memory=memory, scratch=tmp_path)
        same_statistics(stats, stream_statistics(files, settings, DRAWS)["step10"], 1e-12)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{i}.parquet" for i in range(5)]


def test_rows_of_a_prompt_in_any_order_change_nothing(
    frame: pd.DataFrame, stats: StreamStatistics, tmp_path: Path
) -> None:
    """Contexts interleaved and positions shuffled, as long as prompts stand together."""
    order = frame.groupby("prompt_id", sort=False).sample(frac=1.0, random_state=3)
    same_statistics(stats, streamed(tmp_path, order), SUMS)


def test_masked_positions_equal_those_in_memory(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Positions with holes: nothing of a position or its place may be counted up from the first."""
    some = frame.sample(frac=0.8, random_state=2).sort_index().reset_index(drop=True)
    some = some.assign(**derived(some))
    found = streamed(tmp_path, some)
    for outcome in OUTCOMES:
        same(matched_gap(some, "compatibility", DRAWS, outcome=outcome), found.matched[outcome])
        same(decompose(some, DRAWS, outcome=outcome), found.fits["all", outcome])
        kept = selections(some, SELECTORS, SETTINGS.budgets)
        for here in top_ns(some, kept, DRAWS, outcome=outcome):
            same(here, found.top_n[here.selector, here.budget, outcome])


def test_prompts_in_any_order_change_nothing(
    frame: pd.DataFrame, stats: StreamStatistics, tmp_path: Path
) -> None:
    other = frame.sort_values("prompt_id", ascending=False, kind="stable")
    same_statistics(stats, streamed(tmp_path, other), SUMS)


def test_checkpoints_have_results_of_their_own(
    frame: pd.DataFrame, stats: StreamStatistics, tmp_path: Path
) -> None:
    """In one file after another, and in a second file again."""
    later = frame.assign(checkpoint="step20", gain=-frame["gain"], gain_rel=-frame["gain_rel"])
    middle = frame.index[frame["prompt_id"] != frame["prompt_id"].shift()][4]
    first, second = (
        pd.concat([a, b])
        for a, b in zip(split_rows(frame, [middle]), split_rows(later, [middle]), strict=True)
    )
    files = [write_frame(tmp_path / f"{i}.parquet", p) for i, p in enumerate((first, second))]
    found = stream_statistics(files, SETTINGS, DRAWS)
    assert list(found) == ["step10", "step20"]
    same_statistics(stats, found["step10"], SUMS)
    turned = found["step20"].gaps["compatibility", "gain"].gap.estimate
    assert turned == pytest.approx(-stats.gaps["compatibility", "gain"].gap.estimate, abs=SUMS)


def test_float32_columns_are_read(frame: pd.DataFrame, tmp_path: Path) -> None:
    narrow = frame.assign(bc_union=frame["bc_union"].astype(np.float32))
    wide = narrow.assign(bc_union=narrow["bc_union"].astype(np.float64))
    here = streamed(tmp_path, narrow).gaps["bc_union", "gain"]
    same(support_gap(wide, "bc_union", DRAWS), here)


@pytest.mark.parametrize("kind", ["bca", "studentized"])
def test_other_kinds_of_interval_equal_those_in_memory(
    frame: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    draws = Bootstrap(draws=40, seed=1, kind=kind)
    settings = replace(SETTINGS, selectors=("kl",), budgets=(0.4,))
    path = write_frame(tmp_path / "t.parquet", frame)
    found = stream_statistics([path], settings, draws)["step10"]
    same(support_gap(frame, "compatibility", draws), found.gaps["compatibility", "gain"])
    same(decompose(frame, draws), found.fits["all", "gain"])
    same(top_n(frame, "kl", 0.4, draws), found.top_n["kl", 0.4, "gain"])


def test_sketched_cuts_are_near_the_exact_ones(frame: pd.DataFrame, tmp_path: Path) -> None:
    found = streamed(tmp_path, frame, replace(SETTINGS, error=0.02))
    for row in found.signals.itertuples():
        values = np.sort(frame[row.signal])
        rank = np.searchsorted(values, row.q50, side="right")
        below = np.searchsorted(values, row.q50)
        middle = (len(values) - 1) / 2
        assert below - 0.02 * len(values) - 1 <= middle <= rank + 0.02 * len(values)


def test_permuted_rows_across_prompts_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    prompt = frame["prompt_id"].iloc[0]
    other = pd.concat([frame.iloc[10:], frame.iloc[:10]])
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, other)
    assert str(caught.value) == (
        f"token tables, prompt {prompt}: expected all rows of a prompt together, got more of them "
        "after other prompts; sort the rows by prompt_id"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["kl_0", "gain_rel", "overlap"])
def test_a_value_that_is_not_finite_names_its_context(
    frame: pd.DataFrame, tmp_path: Path, column: str, bad: float
) -> None:
    broken = frame.copy()
    broken.loc[200, column] = bad
    row = frame.loc[200]
    got = "a null" if np.isnan(bad) else None
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, broken)
    where = f"{tmp_path / 't.parquet'}"
    if got:  # pandas writes NaN as null
        assert str(caught.value) == (
            f"{where}: expected a value in every row of `{column}`, got a null; a teacher known by "
            "its lists alone has no gain; score with its weights"
        )
    else:
        assert str(caught.value) == (
            f"{where}, context {row['context_id']}, position {row['position']}: expected a finite "
            f"`{column}`, got {bad}; score that context again, or drop it"
        )


def test_a_row_twice_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    row = frame.iloc[[40]]
    doubled = pd.concat([frame.iloc[:41], row, frame.iloc[41:]])
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, doubled)
    assert str(caught.value) == (
        f"{tmp_path / 't.parquet'}, context {row['context_id'].item()}, position "
        f"{row['position'].item()}: expected each position once, got two rows; give each token "
        "table once"
    )


def test_table_without_q3_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    """KL rises with entropy, so no position has little of one and much of the other."""
    ranks = np.argsort(np.argsort(frame["entropy"]))
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, frame.assign(entropy=ranks * 1.0, kl_0=1.0 + ranks)[:-1])
    assert str(caught.value) == (
        "token table: expected positions in Q3 (low entropy, high KL), got none; "
        "score more contexts"
    )


def test_constant_proxy_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, frame.assign(overlap=0.5))
    assert str(caught.value) == (
        "gap by overlap: expected a proxy that varies in Q3, got 0.5 everywhere; "
        "choose a smaller support size or another proxy"
    )


def test_constant_predictor_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, frame.assign(teacher_entropy=1.5))
    assert str(caught.value) == (
        "regression: expected `teacher_entropy_norm` to vary over the scope, got 0 everywhere; "
        "score more contexts, or choose another scope or support size"
    )


def test_one_prompt_has_no_interval(frame: pd.DataFrame, tmp_path: Path) -> None:
    found = streamed(tmp_path, frame.assign(prompt_id="only"))
    gap = found.gaps["compatibility", "gain"].gap
    assert np.isfinite(gap.estimate)
    assert np.isnan(gap.low)
    assert gap.reason == "1 prompt: no interval from one cluster"


@pytest.mark.parametrize("selector", ["full", "tip-original", "q3-tip"])
def test_selector_that_needs_the_whole_table_is_refused(
    frame: pd.DataFrame, tmp_path: Path, selector: Selector
) -> None:
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, frame, replace(SETTINGS, selectors=(selector,)))
    assert str(caught.value) == (
        f"selector {selector} on a stream: expected one of {', '.join(SELECTORS)}, got "
        f"'{selector}'; leave it out, or use `diagnostics report`, which holds the table in memory"
    )


def test_missing_file_and_missing_column_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        stream_statistics([tmp_path / "no.parquet"])
    assert str(caught.value) == (
        f"{tmp_path / 'no.parquet'}: expected a Parquet file, got no such file; check the path"
    )
    narrow = frame[["checkpoint", "prompt_id", "context_id", "position", "kl_0"]]
    path = write_frame(tmp_path / "t.parquet", narrow)
    with pytest.raises(InputError) as caught:
        stream_statistics([path])
    assert str(caught.value) == (
        f"{path}: expected a column `gain`, got columns checkpoint, prompt_id, context_id, "
        "position, kl_0; write the table with `diagnostics tokens`"
    )


@pytest.mark.parametrize("name", ["released", "paper+epsilon=empty_range", "paper+ties=row_order"])
def test_definition_set_that_streams_do_not_make_is_refused(
    frame: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    path = write_frame(tmp_path / "t.parquet", frame, definitions=name)
    with pytest.raises(InputError) as caught:
        stream_statistics([path], SETTINGS, DRAWS)
    assert str(caught.value) == (
        f"{path}: expected a definition set with the norm, budgets and ties of `paper`, got "
        f"`{name}`; use `diagnostics report`, which holds the table in memory"
    )


def test_set_that_changes_raw_columns_alone_is_read(
    frame: pd.DataFrame, stats: StreamStatistics, tmp_path: Path
) -> None:
    path = write_frame(tmp_path / "t.parquet", frame, definitions="paper+compatibility=lower")
    same_statistics(stats, stream_statistics([path], SETTINGS, DRAWS)["step10"], 1e-12)


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(InputError, match="expected a readable Parquet file, got damage"):
        stream_statistics([path])


def test_full_scratch_disk_is_one_line(frame: pd.DataFrame, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(InputError) as caught:
        streamed(tmp_path, frame, replace(SETTINGS, memory=0, scratch=gone))
    assert str(caught.value).startswith(
        f"{gone}: expected room for a scratch file of decoded columns (about 70 bytes a row), got "
    )
    assert str(caught.value).endswith("; free some space, or name another folder (--scratch)")


def test_reference_is_what_the_frames_are_made_of() -> None:
    frame = whole_frame()
    assert frame["entropy_norm"].tolist() == pytest.approx(reference.norm(frame["entropy"]))
