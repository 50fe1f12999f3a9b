"""Two runs or reports side by side: against scipy's t tests, and each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from run_on_disk import write_run
from schema_check import faults
from scipy import stats
from typer.testing import CliRunner

from diagnostics.cli.app import app
from diagnostics.errors import InputError
from diagnostics.files import read_parquet, write_json, write_parquet
from diagnostics.report.chapters import read_record
from diagnostics.report.comparison.chapter import comparison_chapter
from diagnostics.report.comparison.compare import Comparison, compare_sides, verdict
from diagnostics.report.comparison.sides import open_sides
from diagnostics.report.contexts.analysis import ReportSettings, analyse
from diagnostics.report.contexts.chapter import contexts_chapter
from diagnostics.report.drawing import draw
from diagnostics.report.figures import figure_style
from diagnostics.report.write import write_chapters
from diagnostics.scoring.run import LISTED, Run
from diagnostics.statistics.inference.bootstrap import Interval
from diagnostics.statistics.tables.tokens import token_table

K = 8
SETTINGS = ReportSettings(top_k=K, draws=100)
VALUES = [
    f"{name}{end}" for name in ("first", "second", "difference") for end in ("", "_low", "_high")
]


def other_prompts(run: Run, digest: str) -> None:
    """Gives a run's bank prompts, and a digest, of its own."""
    table = read_parquet(run.folder / "contexts.parquet")
    names = [f"other {name}" for name in table["prompt_id"].to_pylist()]
    table = table.set_column(1, "prompt_id", pa.array(names))
    write_parquet(run.folder / "contexts.parquet", table)
    another_bank(run, digest)


def another_bank(run: Run, digest: str) -> None:
    bank = {"digest": digest * 64, "contexts": run.manifest["bank"]["contexts"]}
    write_json(run.folder / "manifest.json", run.manifest | {"bank": bank})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two teachers' runs over one bank."""
    folder = tmp_path_factory.mktemp("runs")
    return (
        write_run(folder / "a", name="a", seed=0),
        write_run(folder / "b", name="b", seed=5, checkpoints={"one": 0.4, "two": 0.3}),
    )


@pytest.fixture(scope="module")
def report(runs: tuple[Run, Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the first run, without figures."""
    folder = tmp_path_factory.mktemp("reports") / "a"
    chapter = contexts_chapter(analyse([runs[0]], SETTINGS), ())
    write_chapters([chapter], folder, formats=("csv",))
    return folder


def compared(first: Path, second: Path, **options: object) -> Comparison:
    """A comparison of two folders at the tests' K."""
    return compare_sides(*open_sides([str(first), str(second)], top_k=K), **options)


@pytest.fixture(scope="module")
def found(runs: tuple[Run, Run]) -> Comparison:
    return compared(*(run.folder for run in runs))


def row_of(
    made: Comparison, number: str, checkpoint: str = "one", outcome: str = "gain"
) -> pd.Series:
    frame = made.numbers
    wanted = (frame["number"] == number) & (frame["checkpoint"] == checkpoint)
    (row,) = frame[wanted & (frame["outcome"] == outcome)].to_dict("records")
    return pd.Series(row)


def prompt_means(run: Run, outcome: str = "gain", checkpoint: str = "one") -> np.ndarray:
    frame = token_table(run, K, [checkpoint])
    return frame.groupby("prompt_id", observed=True)[outcome].mean().to_numpy()


@pytest.mark.parametrize("outcome", ["gain", "gain_rel"])
def test_over_one_bank_the_mean_gain_has_scipys_paired_t(
    runs: tuple[Run, Run], found: Comparison, outcome: str
) -> None:
    row = row_of(found, "gain", outcome=outcome)
    means = [prompt_means(run, outcome) for run in runs]
    truth = stats.ttest_rel(*means).confidence_interval()
    assert row["paired"] == "bank"
    assert row["difference"] == pytest.approx(np.mean(means[0]) - np.mean(means[1]), rel=1e-6)
    assert [row["difference_low"], row["difference_high"]] == pytest.approx(list(truth), rel=1e-6)
    assert row["n_prompts"] == len(means[0])


@pytest.mark.slow
@pytest.mark.parametrize(("change", "paired"), [(other_prompts, "no"), (another_bank, "prompts")])
def test_banks_apart_have_welchs_t_and_shared_prompts_the_paired_one(
    runs: tuple[Run, Run], tmp_path: Path, change: object, paired: str
) -> None:
    other = write_run(tmp_path / "c", name="c", seed=9, prompts=24)
    change(other, "c")
    row = row_of(compared(runs[0].folder, other.folder), "gain")
    means = [prompt_means(run) for run in (runs[0], other)]
    made = (
        stats.ttest_rel(*means) if paired == "prompts" else stats.ttest_ind(*means, equal_var=False)
    )
    assert row["paired"] == paired
    assert [row["difference_low"], row["difference_high"]] == pytest.approx(
        list(made.confidence_interval()), rel=1e-6
    )


def test_a_report_equals_its_run(found: Comparison, report: Path, runs: tuple[Run, Run]) -> None:
    again = compared(report, runs[1].folder)
    pd.testing.assert_frame_equal(again.numbers, found.numbers)
    pd.testing.assert_frame_equal(again.budgets, found.budgets)
    assert list(again.settings["setting"]) == list(found.settings["setting"])


def test_a_report_written_again_from_its_record_keeps_its_estimates(
    report: Path, tmp_path: Path
) -> None:
    write_chapters(read_record(report), tmp_path / "again", formats=("csv",))
    made = compared(report, tmp_path / "again")
    assert set(made.numbers["verdict"]) == {"identical"}


def test_a_run_less_itself_is_identical(runs: tuple[Run, Run]) -> None:
    made = compared(runs[0].folder, runs[0].folder)
    for frame in (made.numbers, made.budgets):
        assert (frame[["difference", "difference_low", "difference_high"]] == 0).all().all()
        assert set(frame["verdict"]) == {"identical"}
    assert len(made.settings) == 0
    assert made.first.name != made.second.name


def test_turned_around_every_sign_turns(runs: tuple[Run, Run], found: Comparison) -> None:
    back = compared(runs[1].folder, runs[0].folder)
    for one, two in zip(
        found.numbers.to_dict("records"), back.numbers.to_dict("records"), strict=True
    ):
        assert one["difference"] == -two["difference"]
        assert one["difference_low"] == pytest.approx(-two["difference_high"])


def test_checkpoints_of_other_names_go_together_when_asked(
    runs: tuple[Run, Run], found: Comparison
) -> None:
    made = compared(runs[0].folder, runs[1].folder, checkpoints=["one=two", "two=two"])
    assert list(dict.fromkeys(made.numbers["checkpoint"])) == ["one − two", "two"]
    assert row_of(made, "gain", "one − two")["first"] == row_of(found, "gain")["first"]
    assert row_of(made, "gain", "one − two")["second"] == row_of(found, "gain", "two")["second"]


def test_selectors_at_budgets_are_the_tables(found: Comparison, report: Path) -> None:
    table = pd.read_csv(report / "tables" / "table08.csv")
    table = table[(table["top_k"] == K)].set_index(["checkpoint", "selector", "budget"])
    gains = found.budgets[found.budgets["outcome"] == "gain"]
    for row in gains.to_dict("records"):
        at = (row["checkpoint"], row["selector"], row["budget"])
        assert row["first"] == pytest.approx(table.loc[at, "gain"], rel=1e-9)
    assert len(gains) == 2 * 7 * 4


def test_noise_is_that_of_both_and_keeps_words_back(
    runs: tuple[Run, Run], found: Comparison
) -> None:
    row = row_of(found, "gain")
    alone = row_of(compared(runs[0].folder, runs[0].folder), "gain")["difference_noise"]
    assert 0 < alone / 2 < row["difference_noise"]
    assert verdict(Interval(2.0, 1.0, 3.0), 0.5) == "yes"
    assert verdict(Interval(2.0, 1.0, 3.0), 1.5) == "unclear"
    assert verdict(Interval(-2.0, -3.0, -1.0), np.nan) == "no"


def test_settings_that_differ_are_listed(runs: tuple[Run, Run], tmp_path: Path) -> None:
    other = write_run(tmp_path / "x", name="a", seed=0)
    write_json(
        other.folder / "manifest.json",
        other.manifest | {"teacher": {"model": "big", "fingerprint": "1" * 64}},
    )
    made = compared(runs[0].folder, other.folder).settings.set_index("setting")
    assert list(made.index) == ["run_digest", "teacher.model", "teacher.fingerprint"]
    assert list(made.loc["teacher.model"]) == ["random", "big"]


def test_the_forest_shows_the_differences(found: Comparison) -> None:
    (plate,) = comparison_chapter(found).plates
    with figure_style():
        figure = draw(plate)
    assert figure is not None
    for axis, outcome in zip(figure.axes, ("gain", "gain_rel"), strict=True):
        drawn = [x for line in axis.lines for x in line.get_xdata() if line.get_marker() != "None"]
        rows = found.numbers[found.numbers["outcome"] == outcome].sort_values("checkpoint")
        assert sorted(drawn) == pytest.approx(sorted(rows["difference"]))


def test_command_writes_a_report_and_says_it_in_words(
    report: Path, runs: tuple[Run, Run], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        "compare",
        str(report),
        str(runs[1].folder),
        "--out",
        str(out),
        "--format",
        "csv",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("a less b, paired: one bank; definitions paper, K = 8.\n")
    assert done.stdout.endswith(f"Comparison: {out / 'report.html'}\n")
    assert {p.name for p in (out / "tables").iterdir()} == {
        "comparison.csv",
        "comparison_budgets.csv",
        "settings_differ.csv",
    }
    assert (out / "figures" / "differences.pdf").is_file()
    record = json.loads((out / "results.json").read_text())
    assert faults(record) == []
    assert len(record["tables"]["comparison"]) == 24
    assert "What differs between a and b?" in (out / "report.html").read_text()


def refused(*folders: Path | str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        compare_sides(*open_sides([str(f) for f in folders], **options))
    return str(caught.value)


def test_a_folder_that_is_neither_is_refused(runs: tuple[Run, Run], tmp_path: Path) -> None:
    assert refused(tmp_path, runs[0].folder).startswith(f"{tmp_path}: expected a run folder")
    (tmp_path / "list.csv").write_text("setting\n")
    assert refused(tmp_path / "list.csv", runs[0].folder) == (
        f"{tmp_path / 'list.csv'}: expected a run folder or a report folder, got a list of "
        "evaluation results; compare runs or reports; `diagnostics downstream` sets evaluations "
        "side by side"
    )
    write_json(tmp_path / "results.json", {})
    assert refused(tmp_path, runs[0].folder) == (
        f"{tmp_path}: expected a report of runs with its estimates.parquet, got none in it; make "
        "the report again with `diagnostics report`, or name the runs"
    )


def test_two_sets_or_two_ks_are_refused(
    report: Path, runs: tuple[Run, Run], tmp_path: Path
) -> None:
    (chapter,) = read_record(report)
    other = replace(chapter, settings={**chapter.settings, "definitions": "released"})
    write_chapters([other], tmp_path / "r", formats=("csv",))
    assert refused(report, tmp_path / "r") == (
        "compare: expected one definition set, got paper and released; make a report again with "
        "the other's --definitions, or compare the runs"
    )
    assert refused(report, runs[1].folder, top_k=4) == (
        "compare: expected numbers at one K, got K = 8 and K = 4; make a report again with the "
        "other's --top-k, or compare the runs"
    )
    assert "expected --top-k from 1 to 8" in refused(runs[0].folder, runs[1].folder, top_k=16)


def test_a_report_made_of_two_of_one_run_is_refused(report: Path, tmp_path: Path) -> None:
    write_chapters([*read_record(report), *read_record(report)], tmp_path / "m", formats=("csv",))
    assert refused(tmp_path / "m", report) == (
        f"{tmp_path / 'm'}: expected a report of runs of different names, at one K, got runs of "
        "one name; compare the reports that it was made of"
    )


@pytest.mark.slow
def test_no_common_checkpoint_is_refused_and_an_unknown_one(
    runs: tuple[Run, Run], tmp_path: Path
) -> None:
    other = write_run(tmp_path / "o", checkpoints={"three": 0.3, "four": 0.2})
    assert refused(runs[0].folder, other.folder, top_k=K) == (
        "compare: expected a checkpoint that both have, got one, two and three, four; say which go "
        "together with --checkpoint one=three"
    )
    with pytest.raises(InputError) as caught:
        compared(runs[0].folder, other.folder, checkpoints=["one=five"])
    assert str(caught.value) == (
        "--checkpoint: expected A=B with A of one, two and B of three, four, got 'one=five'; "
        "choose one of each"
    )


def test_a_listed_teacher_is_refused(runs: tuple[Run, Run], tmp_path: Path) -> None:
    other = write_run(tmp_path / "l")
    teacher = other.manifest["teacher"] | {"kind": LISTED}
    write_json(other.folder / "manifest.json", other.manifest | {"teacher": teacher})
    assert "expected a teacher whose whole distribution is known" in refused(
        runs[0].folder, other.folder, top_k=K
    )
