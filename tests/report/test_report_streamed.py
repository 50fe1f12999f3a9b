"""The command `tables` against the report's rows of the same table."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1] / "statistics"))

from stream_files import whole_frame, write_frame
from typer.testing import CliRunner

from diagnostics.cli.app import app
from diagnostics.errors import InputError
from diagnostics.report.contexts.analysis import TABLE_SELECTORS, ReportSettings, analyse
from diagnostics.report.contexts.rows import (
    Piece,
    Start,
    table01,
    table05,
    table06,
    table08,
    table09,
)
from diagnostics.report.contexts.streamed import NAMES, token_paths, write_stream_tables
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.budgets import selections
from diagnostics.statistics.analyses.shown import BUDGETS
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.streaming.team import StreamSettings
from diagnostics.statistics.tables.token_files import write_tokens

DRAWS = Bootstrap(draws=100, seed=3)
KEYS = ("checkpoint", "top_k", "proxy", "selector", "budget", "scope")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return whole_frame()


def test_tables_are_the_reports(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = write_frame(tmp_path / "some.parquet", frame)
    settings = StreamSettings(
        selectors=tuple(s for s in TABLE_SELECTORS if s not in ("tip-original", "q3-tip")),
        budgets=BUDGETS,
    )
    made = write_stream_tables([path], tmp_path / "out", settings, DRAWS)
    kept = selections(frame, settings.selectors, BUDGETS)
    piece = Piece("some", "step10", 8, frame, DRAWS, Start(frame, kept))
    wanted = {
        "table01": table01(piece),
        "table05": table05(piece),
        "table06": table06(piece),
        "table08": table08(piece),
        "table09": [row for scope in ("all", "q3") for row in table09(piece, scope)],
    }
    for name in NAMES:
        here = pd.DataFrame(wanted[name])
        pd.testing.assert_frame_equal(here, made[name], rtol=1e-10, atol=1e-10)
        there = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert there.columns.tolist() == [*here.columns, "definitions"]


@pytest.mark.slow
def test_tables_of_a_runs_token_file_are_its_reports(small_run: Run, tmp_path: Path) -> None:
    """From the file that `tokens` writes, row by row."""
    path = tmp_path / "run.parquet"
    write_tokens(path, small_run, 8)
    settings = StreamSettings(seed=DRAWS.seed)
    made = write_stream_tables([path], tmp_path / "out", settings, DRAWS)
    whole = analyse([small_run], ReportSettings(top_k=8, draws=DRAWS.draws, seed=DRAWS.seed)).tables
    for name in NAMES:
        here = whole[name]
        keys = [key for key in KEYS if key in made[name]]
        if "top_k" in here:
            here = here[here["top_k"] == 8]
        if name == "table08":
            here = here[here["selector"].isin(made[name]["selector"])]
        assert len(here) == len(made[name])
        both = here.drop(columns="run").merge(made[name], on=keys, suffixes=("", "_streamed"))
        assert len(both) == len(here)
        for column in made[name].columns.difference([*keys, "run"]):
            other = both[f"{column}_streamed"].rename(column)
            pd.testing.assert_series_equal(both[column], other, rtol=1e-9, atol=1e-10)


def test_command_writes_the_tables_of_a_folder(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_frame(tmp_path / "in" / "a.parquet", frame)
    done = CliRunner().invoke(
        app, ["tables", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--draws", "100"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        f"{tmp_path / 'out'}: table01, table05, table06, table08, table09 of {len(frame)} "
        "positions\n"
    )
    suffixes = ("csv", "md", "tex")
    found = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert found == sorted(f"{name}.{suffix}" for name in NAMES for suffix in suffixes)


def test_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        token_paths([tmp_path])
    assert str(caught.value) == (
        f"{tmp_path}: expected a folder with Parquet files, got none in it; write token tables "
        "there with `diagnostics tokens`"
    )


def test_files_of_two_sets_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    files = [
        write_frame(tmp_path / f"{i}.parquet", frame, definitions=name)
        for i, name in enumerate(("paper", "paper+compatibility=lower"))
    ]
    with pytest.raises(InputError) as caught:
        write_stream_tables(files, tmp_path / "out")
    assert str(caught.value) == (
        f"{files[1]}: expected a token table of the first one's kind, K = 8 and `paper`, got K = 8 "
        "and `paper+compatibility=lower`; make a table of each kind on its own"
    )
    assert not (tmp_path / "out").exists()
