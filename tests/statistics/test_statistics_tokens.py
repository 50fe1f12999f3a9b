"""The token table of a run folder written by hand, column by column from whole distributions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import statistics_reference as reference

from diagnostics.errors import InputError
from diagnostics.files import write_json, write_parquet
from diagnostics.scoring.run import Run, open_run, part_file, scores_table
from diagnostics.statistics.tables.token_files import to_arrow
from diagnostics.statistics.tables.tokens import token_table

STORED = 1e-6  # log-probabilities are stored as float32: 24 bits of values up to about 10
ROUNDING = 1e-12  # float64 arithmetic in another order
VOCABULARY, TOP_K, SEED = 12, 6, 17
CONTEXTS = ("zeta", "alpha", "mid", "beta")  # bank order is not sorted
PROMPTS = ("q2", "q1", "q2", "q1")
VALID = ((0, 1, 3, 4), (2,), (0, 1, 2, 3, 4, 5), (1, 5))  # unmasked response positions
PARTS = ((0, 1, 2), (3,))  # contexts of each part file
CHECKPOINTS = ("step10", "same")

# CONTRACT.md, "Token table", in its order.
CONTRACT = {
    "checkpoint": "string",
    "context_id": "string",
    "prompt_id": "string",
    "position": "int32",
    "token_id": "int32",
    "kl_0": "float",
    "kl": "float",
    "gain": "float",
    "gain_rel": "float",
    "reverse_kl_0": "float",
    "reverse_kl": "float",
    "entropy": "float",
    "teacher_entropy": "float",
    "disagreement": "float",
    "compatibility": "float",
    "compatibility_lower": "float",
    "overlap": "float",
    "jaccard": "float",
    "shared_teacher_mass": "float",
    "bc_union": "float",
    "disagreement_norm": "float",
    "compatibility_norm": "float",
    "entropy_norm": "float",
    "teacher_entropy_norm": "float",
    "learnable": "float",
    "incompatible": "float",
    "quadrant": "int8",
    "relative_position": "float",
}

OWNERS = [i for i, positions in enumerate(VALID) for _ in positions]
POSITIONS = [t for positions in VALID for t in positions]
COUNT = len(POSITIONS)


def distributions() -> dict[str, np.ndarray]:
    """Whole distributions (pos, vocab) of teacher, theta_0 and step10, in bank order."""
    rng = np.random.default_rng(SEED)
    shared = 1.5 * rng.normal(size=(COUNT, VOCABULARY))
    out = {}
    for name in ("teacher", "theta_0", "step10"):
        weight = np.exp(shared + rng.normal(size=shared.shape))
        out[name] = weight / weight.sum(axis=1, keepdims=True)
    return out


MODELS = distributions()
TOKENS = np.random.default_rng(1).integers(0, VOCABULARY, COUNT).astype(np.int32)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of one position, p the reference."""
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def entropy(p: np.ndarray) -> float:
    return -math.fsum(a * math.log(a) for a in p)


def top(p: np.ndarray, k: int) -> list[int]:
    return sorted(range(len(p)), key=lambda v: (-p[v], v))[:k]


def row_pairs(model: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(MODELS["teacher"], MODELS[model], strict=True))


def teacher_columns() -> dict[str, np.ndarray]:
    p = MODELS["teacher"]
    ids = np.array([top(row, TOP_K) for row in p], dtype=np.int32)
    return {
        "context": np.array(OWNERS, dtype=np.int32),
        "position": np.array(POSITIONS, dtype=np.int32),
        "token_id": TOKENS,
        "entropy": np.array([entropy(row) for row in p]),
        "top_ids": ids,
        "top_logprob": np.log(np.take_along_axis(p, ids, 1)).astype(np.float32),
        "dropped": np.zeros(len(p), dtype=np.float32),
    }


def student_columns(model: str) -> dict[str, np.ndarray]:
    t, s = MODELS["teacher"], MODELS[model]
    ids = np.array([top(row, TOP_K) for row in s], dtype=np.int32)
    teacher_ids = np.array([top(row, TOP_K) for row in t], dtype=np.int32)
    return {
        "kl": np.array([kl(a, b) for a, b in row_pairs(model)]),
        "reverse_kl": np.array([kl(b, a) for a, b in row_pairs(model)]),
        "entropy": np.array([entropy(row) for row in s]),
        "top_ids": ids,
        "top_logprob": np.log(np.take_along_axis(s, ids, 1)).astype(np.float32),
        "teacher_logprob": np.log(np.take_along_axis(t, ids, 1)).astype(np.float32),
        "logprob_at_teacher": np.log(np.take_along_axis(s, teacher_ids, 1)).astype(np.float32),
        "dropped": np.zeros(len(s), dtype=np.float32),
    }


def write_run(folder: Path, checkpoints: tuple[str, ...] = CHECKPOINTS) -> Run:
    """A run folder as `diagnostics rescore` leaves it, without models."""
    contexts = {"context_id": list(CONTEXTS), "prompt_id": list(PROMPTS)}
    write_parquet(folder / "contexts.parquet", pa.table(contexts))
    scored = {"teacher": teacher_columns(), "theta_0": student_columns("theta_0")}
    scored |= {"step10": student_columns("step10"), "same": student_columns("theta_0")}
    owners = np.array(OWNERS)
    for model, columns in scored.items():
        for part, members in enumerate(PARTS):
            rows = np.isin(owners, members)
            table = scores_table({name: values[rows] for name, values in columns.items()})
            write_parquet(part_file(folder, model, part), table)
    stamp = {"model": "by hand", "fingerprint": "0" * 64}
    manifest = {
        "schema_version": 2,
        "name": folder.name,
        "bank": {"digest": "d" * 64, "contexts": len(CONTEXTS)},
        "teacher": stamp,
        "student": stamp,
        "checkpoints": dict.fromkeys(checkpoints, stamp),
        "settings": {"top_k": TOP_K, "dtype": "float32"},
        "parts": len(PARTS),
        "libraries": {},
    }
    write_json(folder / "manifest.json", manifest)
    return open_run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("runs") / "hand")


@pytest.fixture(scope="module")
def table(run: Run) -> pd.DataFrame:
    return token_table(run, 3)


@pytest.fixture(scope="module")
def step(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["checkpoint"] == "step10"].reset_index(drop=True)


def test_columns_are_the_contract_in_its_order(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(CONTRACT)


def test_file_has_the_types_of_the_contract(run: Run, table: pd.DataFrame, tmp_path: Path) -> None:
    write_parquet(tmp_path / "tokens.parquet", to_arrow(table, run, 3))
    schema = pq.read_schema(tmp_path / "tokens.parquet")
    found = {field.name: str(field.type) for field in schema}
    floats = {name: "float" for name, kind in found.items() if kind in ("float", "double")}
    assert found | floats == CONTRACT
    assert list(found) == list(CONTRACT)


def test_file_names_definitions_support_and_bank(run: Run, table: pd.DataFrame) -> None:
    metadata = to_arrow(table, run, 3).schema.metadata
    assert metadata[b"definitions"] == b"paper"
    assert metadata[b"top_k"] == b"3"
    assert metadata[b"bank_digest"] == b"d" * 64
    assert metadata[b"schema_version"] == b"1"


def test_file_holds_the_values_of_the_table(run: Run, table: pd.DataFrame, tmp_path: Path) -> None:
    write_parquet(tmp_path / "tokens.parquet", to_arrow(table, run, 3))
    back = pq.read_table(tmp_path / "tokens.parquet").to_pandas()
    for name in CONTRACT:
        assert back[name].tolist() == table[name].tolist(), name


def test_one_row_per_checkpoint_context_and_valid_position_in_bank_order(
    table: pd.DataFrame,
) -> None:
    expected = [
        (checkpoint, CONTEXTS[owner], PROMPTS[owner], position)
        for checkpoint in CHECKPOINTS
        for owner, position in zip(OWNERS, POSITIONS, strict=True)
    ]
    columns = ["checkpoint", "context_id", "prompt_id", "position"]
    assert list(table[columns].itertuples(index=False, name=None)) == expected
    assert table["token_id"].tolist() == TOKENS.tolist() * 2


def test_no_value_is_missing(table: pd.DataFrame) -> None:
    assert not table.isna().to_numpy().any()


def test_relative_position_counts_valid_positions_only(step: pd.DataFrame) -> None:
    # T = 4, 1, 6, 2 valid positions; T = 1 gives 0. Masked positions do not count.
    expected = [0, 1 / 3, 2 / 3, 1, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 0, 1]
    assert step["relative_position"].tolist() == pytest.approx(expected, abs=ROUNDING)


def test_divergences_entropies_and_gains_equal_whole_distributions(step: pd.DataFrame) -> None:
    start, after = row_pairs("theta_0"), row_pairs("step10")
    before_kl = np.array([kl(t, s) for t, s in start])
    after_kl = np.array([kl(t, s) for t, s in after])
    expected = {
        "kl_0": before_kl,
        "kl": after_kl,
        "gain": before_kl - after_kl,
        "gain_rel": (before_kl - after_kl) / (before_kl + 1e-12),
        "reverse_kl_0": [kl(s, t) for t, s in start],
        "reverse_kl": [kl(s, t) for t, s in after],
        "entropy": [entropy(s) for _, s in start],
        "teacher_entropy": [entropy(t) for t, _ in start],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(step[name], values, rtol=0, atol=ROUNDING, err_msg=name)


@pytest.mark.parametrize("k", [1, 3, TOP_K])
def test_support_columns_equal_sets_over_theta_0_and_teacher(run: Run, k: int) -> None:
    got = token_table(run, k, ["step10"])
    for row, (t, s) in enumerate(row_pairs("theta_0")):
        of_student, of_teacher = set(top(s, k)), set(top(t, k))
        union, shared = sorted(of_student | of_teacher), of_student & of_teacher
        on_t, on_s = t[union] / t[union].sum(), s[union] / s[union].sum()
        expected = {
            "disagreement": kl(on_t, on_s),
            "compatibility": math.fsum(t[v] for v in of_student),
            "compatibility_lower": math.fsum(t[v] for v in shared),
            "overlap": len(shared) / k,
            "jaccard": len(shared) / len(union),
            "shared_teacher_mass": math.fsum(t[v] for v in shared),
            "bc_union": math.fsum(np.sqrt(on_t * on_s)),
        }
        for name, value in expected.items():
            assert got[name][row] == pytest.approx(value, abs=STORED), (name, row)


@pytest.mark.parametrize(
    ("column", "raw"),
    [
        ("disagreement_norm", "disagreement"),
        ("compatibility_norm", "compatibility"),
        ("entropy_norm", "entropy"),
        ("teacher_entropy_norm", "teacher_entropy"),
    ],
)
def test_norms_are_over_all_positions_of_the_bank(
    step: pd.DataFrame, column: str, raw: str
) -> None:
    np.testing.assert_allclose(step[column], reference.norm(step[raw]), rtol=0, atol=1e-10)


def test_learnable_and_incompatible_parts_sum_to_disagreement(table: pd.DataFrame) -> None:
    d, c = table["disagreement_norm"], table["compatibility_norm"]
    np.testing.assert_allclose(table["learnable"], d * c, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(table["incompatible"], d * (1 - c), rtol=0, atol=ROUNDING)
    total = table["learnable"] + table["incompatible"]
    np.testing.assert_allclose(total, d, rtol=0, atol=1e-15)


def test_quadrants_split_theta_0_at_its_medians(step: pd.DataFrame) -> None:
    h = [entropy(s) for _, s in row_pairs("theta_0")]
    d = [kl(t, s) for t, s in row_pairs("theta_0")]
    cuts = reference.quantile(h, 0.5), reference.quantile(d, 0.5)
    expected = [reference.quadrant(a, b, *cuts) for a, b in zip(h, d, strict=True)]
    assert step["quadrant"].tolist() == expected
    assert len(set(expected)) == 4


def test_unchanged_checkpoint_gains_nothing_anywhere(table: pd.DataFrame) -> None:
    same = table[table["checkpoint"] == "same"]
    assert same["gain"].tolist() == [0.0] * COUNT
    assert same["gain_rel"].tolist() == [0.0] * COUNT
    assert same["kl"].tolist() == same["kl_0"].tolist()
    assert same["reverse_kl"].tolist() == same["reverse_kl_0"].tolist()


def test_only_kl_and_gains_know_the_checkpoint(table: pd.DataFrame) -> None:
    halves = [table[table["checkpoint"] == name].reset_index(drop=True) for name in CHECKPOINTS]
    after = {"checkpoint", "kl", "gain", "gain_rel", "reverse_kl"}
    for name in CONTRACT:
        assert (halves[0][name].tolist() == halves[1][name].tolist()) == (name not in after), name


@pytest.mark.parametrize("names", [["same"], ["same", "step10"], ["step10"]])
def test_chosen_checkpoints_come_in_the_order_asked(
    run: Run, table: pd.DataFrame, names: list[str]
) -> None:
    got = token_table(run, 3, names)
    assert list(dict.fromkeys(got["checkpoint"])) == names
    for name in names:
        part, whole = (f[f["checkpoint"] == name]["gain"].tolist() for f in (got, table))
        assert part == whole


@pytest.mark.parametrize(
    ("names", "got"), [(["step99"], "step99"), (["step10", "x", "y"], "x, y"), ([], "none")]
)
def test_unknown_checkpoint_is_refused(run: Run, names: list[str], got: str) -> None:
    with pytest.raises(InputError) as caught:
        token_table(run, 3, names)
    assert str(caught.value) == (
        f"{run.folder}: expected checkpoints among step10, same, got {got}; "
        "add one with `diagnostics rescore … --checkpoint NAME=MODEL`"
    )


def test_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    bare = write_run(tmp_path / "bare", checkpoints=())
    with pytest.raises(InputError) as caught:
        token_table(bare, 3)
    assert str(caught.value) == (
        f"{bare.folder}: expected checkpoints among (none scored), got none; "
        "add one with `diagnostics rescore … --checkpoint NAME=MODEL`"
    )


def test_support_beyond_the_run_is_refused(run: Run) -> None:
    with pytest.raises(InputError) as caught:
        token_table(run, TOP_K + 1)
    assert str(caught.value) == (
        f"--top-k: expected a support size from 1 to {TOP_K}, the run's --top-k, got {TOP_K + 1}; "
        "choose a smaller one, or rescore with a larger --top-k"
    )


def test_missing_part_is_refused(tmp_path: Path) -> None:
    broken = write_run(tmp_path / "broken")
    gone = part_file(broken.folder, "step10", 1)
    gone.unlink()
    with pytest.raises(InputError) as caught:
        token_table(broken, 3, ["step10"])
    assert str(caught.value) == (
        f"{gone}: expected all 2 scored parts of step10, got 1; "
        "run the same `diagnostics rescore` again: it goes on where it stopped"
    )


def edit(change: Callable[[dict], object], folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("found", [3, 1, None, "2"])
def test_run_of_another_schema_is_refused(tmp_path: Path, found: object) -> None:
    write_run(tmp_path / "newer")
    edit(lambda manifest: manifest.update(schema_version=found), tmp_path / "newer")
    with pytest.raises(InputError) as caught:
        open_run(tmp_path / "newer")
    assert str(caught.value) == (
        f"{tmp_path / 'newer' / 'manifest.json'}: expected schema_version 2, got {found}; "
        "give a run folder that this version wrote: update the project, or score again"
    )
