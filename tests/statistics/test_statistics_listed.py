"""The token table beside a teacher known by its lists, from a run folder written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import statistics_reference as reference

from diagnostics.errors import InputError
from diagnostics.files import write_json, write_parquet
from diagnostics.report.contexts.analysis import ReportSettings, analyse
from diagnostics.scoring.run import SCHEMA_VERSION, Run, open_run, part_file, scores_table
from diagnostics.statistics.tables.columns import BOUND_COLUMNS, TOKEN_COLUMNS
from diagnostics.statistics.tables.definitions import RELEASED
from diagnostics.statistics.tables.token_files import read_tokens, to_arrow, write_tokens
from diagnostics.statistics.tables.tokens import token_table

STORED = 1e-6  # log-probabilities are stored as float32
VOCABULARY, WIDTH, TOP_K, COUNT = 12, 6, 4, 9
CONTEXTS, PROMPTS = ("one", "two", "three"), ("p", "q", "p")
OWNERS = [0, 0, 0, 1, 1, 1, 1, 2, 2]
POSITIONS = [0, 1, 3, 0, 1, 2, 3, 1, 4]
NULL = {
    "kl_0",
    "kl",
    "gain",
    "gain_rel",
    "reverse_kl_0",
    "reverse_kl",
    "teacher_entropy",
    "compatibility",
    "compatibility_norm",
    "teacher_entropy_norm",
    "learnable",
    "incompatible",
    "quadrant",
}


def distributions() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    shared = 1.5 * rng.normal(size=(COUNT, VOCABULARY))
    weights = [np.exp(shared + rng.normal(size=shared.shape)) for _ in range(2)]
    teacher, student = (w / w.sum(axis=1, keepdims=True) for w in weights)
    return teacher, student


TEACHER, STUDENT = distributions()
BOUNDS = np.random.default_rng(6).uniform(size=(2, 2, COUNT))  # (model, end, pos), made up


def top(p: np.ndarray, k: int) -> list[int]:
    return sorted(range(len(p)), key=lambda v: (-p[v], v))[:k]


def teacher_columns() -> dict[str, np.ndarray]:
    ids = np.array([top(row, WIDTH) for row in TEACHER], dtype=np.int32)
    listed = np.take_along_axis(TEACHER, ids, 1)
    return {
        "context": np.array(OWNERS, dtype=np.int32),
        "position": np.array(POSITIONS, dtype=np.int32),
        "token_id": np.arange(COUNT, dtype=np.int32),
        "top_ids": ids,
        "top_logprob": np.log(listed).astype(np.float32),
        "tail_mass": 1 - listed.sum(axis=1),
    }


def student_columns(model: int) -> dict[str, np.ndarray]:
    ids = np.array([top(row, TOP_K) for row in STUDENT], dtype=np.int32)
    teacher_ids = teacher_columns()["top_ids"]
    at_student = np.log(np.take_along_axis(TEACHER, ids, 1))
    at_student[~(ids[:, :, None] == teacher_ids[:, None, :]).any(axis=2)] = -np.inf
    return {
        "kl_lower": BOUNDS[model, 0],
        "kl_upper": BOUNDS[model, 1] + 1,
        "entropy": -(STUDENT * np.log(STUDENT)).sum(axis=1),
        "top_ids": ids,
        "top_logprob": np.log(np.take_along_axis(STUDENT, ids, 1)).astype(np.float32),
        "teacher_logprob": at_student.astype(np.float32),
        "logprob_at_teacher": np.log(np.take_along_axis(STUDENT, teacher_ids, 1)).astype(
            np.float32
        ),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one part, as `diagnostics rescore` leaves it beside a teacher of known lists."""
    folder = tmp_path_factory.mktemp("runs") / "listed"
    write_parquet(
        folder / "contexts.parquet",
        pa.table({"context_id": list(CONTEXTS), "prompt_id": list(PROMPTS)}),
    )
    scored = {"teacher": teacher_columns(), "theta_0": student_columns(0)}
    for model, columns in (scored | {"step10": student_columns(1)}).items():
        write_parquet(part_file(folder, model, 0), scores_table(columns))
    stamp = {"model": "by hand", "fingerprint": "0" * 64}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": "listed",
        "bank": {"digest": "d" * 64, "contexts": len(CONTEXTS)},
        "teacher": stamp | {"kind": "top_k", "model": "topk:lists.parquet"},
        "student": stamp,
        "checkpoints": {"step10": stamp},
        "settings": {"top_k": TOP_K, "dtype": "float32"},
        "parts": 1,
        "libraries": {},
    }
    write_json(folder / "manifest.json", manifest)
    return open_run(folder)


@pytest.fixture(scope="module")
def table(run: Run) -> pd.DataFrame:
    return token_table(run, 3)


def test_columns_are_the_contract_then_the_bounds(table: pd.DataFrame) -> None:
    expected = [c.name for c in (*TOKEN_COLUMNS, *BOUND_COLUMNS)]
    assert list(table.columns) == expected
    assert expected[-7:] == [
        "kl_0_lower",
        "kl_0_upper",
        "kl_lower",
        "kl_upper",
        "teacher_tail_mass",
        "compatibility_upper",
        "learnable_lower",
    ]


def test_what_the_lists_do_not_tell_is_null_in_the_file_and_all_else_is_there(
    run: Run, table: pd.DataFrame, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "tokens.parquet", to_arrow(table, run, 3))
    file = pq.read_table(tmp_path / "tokens.parquet")
    assert {name for name in file.column_names if file[name].null_count} == NULL
    for name in NULL:
        assert file[name].null_count == COUNT, name
    types = {c.name: c.type for c in (*TOKEN_COLUMNS, *BOUND_COLUMNS)}
    assert {field.name: field.type for field in file.schema} == types


@pytest.mark.parametrize("column", ["kl_0_lower", "disagreement", "compatibility_lower"])
def test_a_table_with_a_hole_elsewhere_is_not_written(
    run: Run, table: pd.DataFrame, column: str
) -> None:
    holed = table.copy()
    holed.loc[3, column] = math.nan
    with pytest.raises(InputError) as caught:
        to_arrow(holed, run, 3)
    assert str(caught.value) == (
        f"token table, row 3: expected a value in column `{column}`, got null; fill or drop the row"
    )


def test_bounds_are_those_of_theta_0_and_of_the_checkpoint(table: pd.DataFrame) -> None:
    assert table["kl_0_lower"].tolist() == BOUNDS[0, 0].tolist()
    assert table["kl_0_upper"].tolist() == (BOUNDS[0, 1] + 1).tolist()
    assert table["kl_lower"].tolist() == BOUNDS[1, 0].tolist()
    assert table["kl_upper"].tolist() == (BOUNDS[1, 1] + 1).tolist()


def test_identity_columns_are_the_banks(table: pd.DataFrame) -> None:
    assert table["checkpoint"].tolist() == ["step10"] * COUNT
    assert table["context_id"].tolist() == [CONTEXTS[i] for i in OWNERS]
    assert table["prompt_id"].tolist() == [PROMPTS[i] for i in OWNERS]
    assert table["position"].tolist() == POSITIONS
    assert table["token_id"].tolist() == list(range(COUNT))
    expected = [0, 0.5, 1, 0, 1 / 3, 2 / 3, 1, 0, 1]
    assert table["relative_position"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, TOP_K])
def test_support_columns_equal_sets_with_unlisted_tokens_at_nought(run: Run, k: int) -> None:
    got = token_table(run, k)
    for row, (whole, s) in enumerate(zip(TEACHER, STUDENT, strict=True)):
        known = top(whole, WIDTH)
        t = np.where(np.isin(np.arange(VOCABULARY), known), whole, 0.0)
        of_student, of_teacher = set(top(s, k)), set(top(whole, k))
        union, shared = sorted(of_student | of_teacher), of_student & of_teacher
        on_t, on_s = t[union] / t[union].sum(), s[union] / s[union].sum()
        terms = zip(on_t, on_s, strict=True)
        unlisted = len(of_student - set(known))
        room = min(1 - t.sum(), unlisted * whole[known[-1]])
        expected = {
            "disagreement": math.fsum(a * math.log(a / b) for a, b in terms if a > 0),
            "compatibility_lower": math.fsum(t[v] for v in shared),
            "shared_teacher_mass": math.fsum(t[v] for v in shared),
            "compatibility_upper": math.fsum(t[v] for v in of_student) + room,
            "teacher_tail_mass": 1 - t.sum(),
            "overlap": len(shared) / k,
            "jaccard": len(shared) / len(union),
            "bc_union": math.fsum(np.sqrt(on_t * on_s)),
            "entropy": -math.fsum(p * math.log(p) for p in s),
        }
        for name, value in expected.items():
            assert got[name][row] == pytest.approx(value, abs=STORED), (name, row)


def test_norms_are_over_the_bank_and_learnable_lower_takes_c_hat(table: pd.DataFrame) -> None:
    d, c, h = (
        np.array(reference.norm(table[name]))
        for name in ("disagreement", "compatibility_lower", "entropy")
    )
    np.testing.assert_allclose(table["disagreement_norm"], d, rtol=0, atol=1e-10)
    np.testing.assert_allclose(table["entropy_norm"], h, rtol=0, atol=1e-10)
    np.testing.assert_allclose(table["learnable_lower"], d * c, rtol=0, atol=1e-10)


def test_a_report_of_such_a_run_is_refused(run: Run) -> None:
    with pytest.raises(InputError) as caught:
        analyse([run], ReportSettings(top_k=3, draws=100))
    assert str(caught.value) == (
        f"{run.folder}: expected a teacher whose whole distribution is known: gain needs KL, got "
        "one known by its top-k lists alone (topk:lists.parquet); score the bank with the "
        "teacher's weights; `diagnostics tokens` gives D, C-hat and the bounds of this run"
    )


def test_a_file_written_part_by_part_holds_the_table_and_is_read_back(
    run: Run, table: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.parquet"
    assert write_tokens(file, run, 3) == len(table)
    back = read_tokens(file)
    assert back.attrs == {"definitions": "paper", "top_k": 3, "bank_digest": run.bank_digest}
    pd.testing.assert_frame_equal(back, table, check_categorical=False, check_exact=True)


def test_another_set_beside_such_a_teacher_is_refused(run: Run, tmp_path: Path) -> None:
    for make in (
        lambda: token_table(run, 3, definitions=RELEASED),
        lambda: write_tokens(tmp_path / "t.parquet", run, 3, RELEASED),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value) == (
            f"{run.folder}: expected the definition set `paper` beside a teacher known by its "
            "top-k lists alone, got `released`; leave --definitions out, or score the bank with "
            "the teacher's weights"
        )
    assert list(tmp_path.iterdir()) == []
