"""A report of several things: each is known by what lies there, and a page needs no run again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from run_on_disk import write_run

from diagnostics.errors import InputError
from diagnostics.report.chapters import Chapter, read_record, record
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.sources import parts_of, source_of
from diagnostics.report.write import own_names, write_chapters, write_report
from diagnostics.scoring.run import Run

SETTINGS = ReportSettings(top_k=4, draws=100, seed=3)


@pytest.fixture(scope="module")
def folder(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sources") / "report"
    write_report([small_run], out, SETTINGS)
    return out


def chapter(key: str, definitions: str = "paper") -> Chapter:
    return Chapter(
        key=key, heading=key, opening="", explained="", settings={"definitions": definitions}
    )


def test_a_report_made_again_from_its_record_is_the_same_to_the_byte(
    folder: Path, tmp_path: Path
) -> None:
    write_chapters(read_record(folder), tmp_path)
    made = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert made == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    # the token viewer needs the run; estimates are arrow files of the same numbers
    same = [p for p in made if p.name not in ("report.html", "estimates.parquet")]
    assert [p for p in same if (folder / p).read_bytes() != (tmp_path / p).read_bytes()] == []


def test_the_record_goes_through_json_and_back_unchanged(folder: Path) -> None:
    stored = json.loads((folder / "results.json").read_text())
    assert json.loads(json.dumps(record(read_record(folder)), allow_nan=False)) == stored


@pytest.mark.usefixtures("undrawn")
def test_runs_get_the_names_they_are_given_and_reports_stand_as_they_are(
    small_run: Run, folder: Path, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "run", name="other", seed=1, prompts=6)
    parts = parts_of([f"first={small_run.folder}", str(other.folder), str(folder)], SETTINGS)
    assert [c.key for c in parts.chapters] == ["contexts", "contexts"]
    assert [run["name"] for run in parts.chapters[0].runs] == ["first", "other"]
    assert [run["name"] for run in parts.chapters[1].runs] == ["small"]
    assert list(parts.viewers) == ["first"]
    own = own_names(parts.chapters)
    assert [c.key for c in own] == ["contexts", "contexts-2"]
    names = [s.name for c in own for s in c.sheets]
    assert len(set(names)) == len(names)
    assert {"table01", "table01_contexts-2"} <= set(names)


def test_what_is_none_of_these_is_refused(tmp_path: Path, small_run: Run) -> None:
    with pytest.raises(InputError) as caught:
        source_of(str(tmp_path / "nowhere"))
    assert str(caught.value) == (
        f"{tmp_path / 'nowhere'}: expected a run folder (manifest.json), a report folder "
        "(results.json) or a .csv or .jsonl list of evaluation results; NAME= before a run alone, "
        "got no such file or folder; give what `diagnostics rescore`, `report` or `intervene` wrote"
    )
    (tmp_path / "list.csv").write_text("setting\n")
    with pytest.raises(InputError, match="got nothing of that kind"):
        source_of(f"name={tmp_path / 'list.csv'}")
    assert source_of(str(tmp_path / "list.csv")).kind == "list"
    assert source_of(f"a={small_run.folder}").name == "a"


def test_two_definition_sets_are_refused_side_by_side(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_chapters([chapter("interventions", "released")], other)
    with pytest.raises(InputError) as caught:
        parts_of([str(folder), str(other)], SETTINGS)
    assert str(caught.value) == (
        "report: expected parts of one definition set, got paper, released; report them apart, or "
        "make one of them again with --definitions"
    )


def test_two_tables_of_one_name_are_refused_in_one_record(folder: Path) -> None:
    (whole,) = read_record(folder)
    with pytest.raises(InputError, match="expected tables of different names, got two called"):
        record([whole, replace(whole, key="again")])


def test_a_record_of_another_schema_is_refused(folder: Path, tmp_path: Path) -> None:
    stored = json.loads((folder / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps(stored | {"schema_version": 0}))
    with pytest.raises(InputError, match="expected schema_version 1, got 0; make the report again"):
        read_record(tmp_path)
