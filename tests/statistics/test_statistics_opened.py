"""An opened run: token tables when asked for, and analyses that take it as they take a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import run_on_disk

from diagnostics.errors import InputError
from diagnostics.statistics.analyses.bins import bucket_means, residual_bins
from diagnostics.statistics.analyses.budgets import top_n
from diagnostics.statistics.analyses.differ import definitions_differ
from diagnostics.statistics.analyses.gaps import matched_gap, support_gap
from diagnostics.statistics.analyses.headlines import headline
from diagnostics.statistics.analyses.placebo import placebo
from diagnostics.statistics.analyses.regression import decompose
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.inference.results import Result
from diagnostics.statistics.tables.opened import OpenedRun, open_run
from diagnostics.statistics.tables.quadrants import quadrant_shares
from diagnostics.statistics.tables.sources import as_frame
from diagnostics.statistics.tables.tokens import token_table

ANALYSES = {
    "decompose": decompose,
    "support_gap": lambda source: support_gap(source, "compatibility"),
    "matched_gap": lambda source: matched_gap(source, "compatibility"),
    "bucket_means": lambda source: bucket_means(source, "compatibility"),
    "residual_bins": residual_bins,
    "top_n": lambda source: top_n(source, "teachability", 0.05),
    "placebo": lambda source: placebo(source, "gain", shuffles=2),
    "quadrant_shares": quadrant_shares,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    folder = tmp_path_factory.mktemp("run")
    run_on_disk.write_run(folder, origins={"one": {"step": 10, "series": None}})
    return open_run(str(folder), k=4)


def test_tokens_are_the_token_table(run: OpenedRun) -> None:
    pd.testing.assert_frame_equal(run.tokens(), token_table(run.run, 4))
    pd.testing.assert_frame_equal(run.tokens(k=8), token_table(run.run, 8))
    one = token_table(run.run, 4, ["one"])
    got = run.tokens(checkpoint="one")
    pd.testing.assert_frame_equal(got, one, check_categorical=False)
    assert got.attrs == one.attrs


def test_token_texts_are_those_of_the_run(run: OpenedRun, tmp_path: Path) -> None:
    run_on_disk.write_run(tmp_path, texts=["<end>", " two", "a"])
    texts = open_run(tmp_path).token_texts()
    assert [texts[i] for i in range(3)] == ["<end>", " two", "a"]
    with pytest.raises(InputError, match="expected the texts of its tokens, got none; run `resc"):
        run.token_texts()


def test_a_changed_table_does_not_change_the_next(run: OpenedRun) -> None:
    for options in ({}, {"checkpoint": "two"}):
        frame = run.tokens(**options)
        before = frame["gain"].iloc[0]
        frame.loc[frame.index[0], "gain"] = 1e9
        frame["quadrant"] = 3
        assert run.tokens(**options)["gain"].iloc[0] == before
        assert run.tokens(**options)["quadrant"].nunique() == 4


def test_tables_are_made_once(run: OpenedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.tokens()
    monkeypatch.setattr("diagnostics.statistics.tables.opened.token_table", None)
    decompose(run.at("one"))
    run.at("two").tokens()


@pytest.mark.parametrize("name", ANALYSES)
def test_analyses_give_of_a_run_what_they_give_of_its_table(run: OpenedRun, name: str) -> None:
    analysis = ANALYSES[name]
    here, there = analysis(run.at("two")), analysis(run.tokens(checkpoint="two"))
    assert isinstance(here, Result)
    pd.testing.assert_frame_equal(here.to_frame(), there.to_frame())
    assert repr(here) == repr(there)
    assert repr(here).startswith(type(here).__name__)


def test_headlines_take_a_run(run: OpenedRun) -> None:
    here, there = headline(run.at("one"), "gap"), headline(run.tokens(checkpoint="one"), "gap")
    assert (here.sums == there.sums).all()


def test_narrowed_run_keeps_its_choice(run: OpenedRun) -> None:
    two = run.at("two").at(k=8)
    assert (two.checkpoint, two.k, two.checkpoints) == ("two", 8, ["two"])
    assert two.tokens()["checkpoint"].unique().tolist() == ["two"]
    assert run.checkpoint is None


def test_run_of_one_checkpoint_needs_no_choice(tmp_path: Path) -> None:
    run_on_disk.write_run(tmp_path, prompts=6, checkpoints={"only": 0.2})
    run = open_run(tmp_path, k=4)
    assert decompose(run) == decompose(run.tokens())


def test_run_says_what_it_is(run: OpenedRun) -> None:
    assert repr(run).splitlines() == [
        "Run small",
        f"  folder       {run.run.folder}",
        "  bank         48 contexts of 24 prompts",
        "  teacher      random",
        "  student      random",
        "  checkpoints  one (step 10), two",
        "  k            4 of at most 8",
        "  definitions  paper",
    ]


def test_definition_set_is_the_tables(run: OpenedRun) -> None:
    released = open_run(run.run.folder, k=4, definitions="released")
    frame = released.tokens(checkpoint="one")
    assert frame.attrs["definitions"] == "released"
    assert (frame["disagreement"] == frame["kl_0"]).all()


def test_definitions_differ_takes_a_run_and_its_choice(run: OpenedRun) -> None:
    few = Bootstrap(draws=20)
    got = definitions_differ(run.at("two"), 4, few)
    expected = definitions_differ(run.run, 4, few, ["two"])
    pd.testing.assert_frame_equal(got.to_frame(), expected.to_frame())
    lines = repr(got).splitlines()
    assert lines[0] == "DefinitionsDiffer"
    assert lines[1].split() == ["checkpoint", "headline", "definitions", "value", "change", "same"]
    assert len(lines) == 2 + len(got.rows)


REFUSED = {
    "several of a run": (
        lambda run: decompose(run),
        '{folder}: expected one checkpoint, got one, two; choose one with run.at("one") or '
        'frame[frame["checkpoint"] == …]',
    ),
    "several of a table": (
        lambda run: decompose(run.tokens()),
        'token table: expected one checkpoint, got one, two; choose one with run.at("one") or '
        'frame[frame["checkpoint"] == …]',
    ),
    "unknown": (
        lambda run: run.at("three"),
        "{folder}: expected a checkpoint among one, two, got 'three'; choose one of them",
    ),
    "unknown of a table": (
        lambda run: as_frame(run.tokens(checkpoint="one"), "two"),
        "token table: expected a checkpoint among one, got 'two'; choose one of them",
    ),
    "a run on disk": (
        lambda run: decompose(run.run),
        "analysis: expected a token table or an opened run, got Run; "
        "open a run with `open_run(folder)`, or read a table with `read_tokens(file)`",
    ),
    "beyond K": (
        lambda run: run.tokens(k=9),
        "--top-k: expected a support size from 1 to 8, the run's --top-k, got 9; "
        "choose a smaller one, or rescore with a larger --top-k",
    ),
    "unknown set": (
        lambda run: open_run(run.run.folder, definitions="papre"),
        "open_run: expected `paper` or `released`, got 'papre'; choose one of them",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(run: OpenedRun, name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        call(run)
    assert str(caught.value) == message.format(folder=run.run.folder)


def test_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    run_on_disk.write_run(tmp_path, prompts=3, checkpoints={})
    with pytest.raises(InputError) as caught:
        decompose(open_run(tmp_path, k=4))
    assert str(caught.value) == (
        f"{tmp_path}: expected checkpoints among (none scored), got none; "
        "add one with `diagnostics rescore … --checkpoint NAME=MODEL`"
    )
