"""The schema of results.json: what our code writes is valid, and what is broken is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schema_check import faults

from diagnostics.report.chapters import record
from diagnostics.report.contexts.analysis import ReportSettings, analyse
from diagnostics.report.contexts.chapter import contexts_chapter
from diagnostics.report.drawing import plates_of
from diagnostics.report.json_schema import column_words, schema, stored_schema
from diagnostics.scoring.run import Run
from diagnostics.statistics.tables.definitions import SETS, SWITCHES, definition_set

PAGE = Path(__file__).parents[2] / "docs" / "results.md"

Record = dict[str, Any]


@pytest.fixture(scope="module")
def whole(small_run: Run) -> Record:
    results = analyse([small_run], ReportSettings(top_k=8, draws=100))
    return record([contexts_chapter(results, tuple(plates_of(results)))])


def test_the_stored_schema_is_the_declared_one_and_is_one() -> None:
    assert stored_schema() == schema()
    Draft202012Validator.check_schema(schema())


def test_a_report_is_valid(whole: Record) -> None:
    assert faults(whole) == []


def broken(change: Callable[[Record], object]) -> Callable[[Record], Record]:
    def made(whole: Record) -> Record:
        copied = copy.deepcopy(whole)
        change(copied)
        return copied

    return made


def first(table: str) -> Callable[[Record], Record]:
    return lambda whole: whole["tables"][table][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: first("table09")(w).pop("gap_high"), "'gap_high' is a"),
        (lambda w: first("table06")(w).pop("gap_low_rel"), "'gap_low_rel' is a dependency"),
        (lambda w: first("checkpoints")(w).pop("gain_high"), "'gain_high' is a dependency"),
        (lambda w: first("table01")(w).update(n_q3="many"), "'many' is not of type"),
        (lambda w: first("table01")(w).update(n_q3=1.5), "1.5 is not of type"),
        (lambda w: first("quadrants")(w).update(gain=[1]), "[1] is not of type"),
        (lambda w: w.update(definitions="papers"), "'papers' does not match"),
        (lambda w: w["chapters"][0]["settings"].update(definitions="x"), "'x' does not match"),
        (lambda w: w["answers"][0]["value"].pop("low"), "'low' is a required property"),
        (lambda w: w["answers"][0].update(verdict="maybe"), "'maybe' is not one of"),
        (lambda w: w["runs"][0].update(bank_digest="b"), "'b' does not match"),
        (lambda w: w["runs"][0]["teacher"].pop("fingerprint"), "'fingerprint' is a required"),
        (lambda w: w.update(schema_version=2), "1 was expected"),
        (lambda w: w.pop("tables"), "'tables' is a required property"),
        (lambda w: w["chapters"][0]["figures"][0].pop("data"), "'data' is a required property"),
        (lambda w: w["chapters"][0]["cards"][0].update(colour=1), "Additional properties are not"),
    ],
)
def test_what_is_broken_is_not(
    whole: Record, change: Callable[[Record], object], said: str
) -> None:
    found = faults(broken(change)(whole))
    assert [one for one in found if said in one], found


@pytest.mark.slow
@pytest.mark.parametrize("base", SETS)
def test_every_definition_set_is_known(whole: Record, base: str) -> None:
    words = [f"{name}={value}" for name, values in SWITCHES.items() for value in values]
    for word in ("leakage", *words):
        definition_set(f"{base}+{word}")
        assert faults({**whole, "definitions": f"{base}+{word}"}) == []
    assert faults({**whole, "definitions": f"{base}+nothing"}) != []


def test_the_documentation_lists_every_column() -> None:
    assert column_words() in PAGE.read_text(encoding="utf-8")
