"""`align` from bank and models on disk to tables: order of rows, agreement, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import doubles
import numpy as np
import pandas as pd
import pytest
from slow_alignment import frozen_contexts
from test_layers import loaded_by

from diagnostics.alignment.align import Alignment, align
from diagnostics.alignment.measure import AlignSettings
from diagnostics.alignment.positions import COLUMNS
from diagnostics.alignment.precision import check_precision, precision_of
from diagnostics.bank.contexts import Bank, read_bank
from diagnostics.errors import InputError
from diagnostics.report.alignment import FILES, alignment_figure, write_alignment
from diagnostics.report.figures import figure_style
from diagnostics.scoring.run import open_run

SMALL = AlignSettings(top_k=4, draws=100, pairs=3, pair_contexts=4, batch_tokens=24, budget=0.2)
TEACHER_ROUNDING = 1e-5  # its hidden states are float32, of another batch shape


@pytest.fixture(scope="module")
def bank(bank_file: Path) -> Bank:
    return read_bank(bank_file)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("align")


@pytest.fixture(scope="module")
def found(bank: Bank, teacher: str, student: str, out: Path) -> Alignment:
    return align(bank, teacher, student, out, SMALL)


def test_rows_are_the_valid_positions_in_bank_order(found: Alignment, bank: Bank) -> None:
    frame = found.positions
    valid = [np.flatnonzero(context.valid) for context in frozen_contexts()]
    assert frame["position"].tolist() == np.concatenate(valid).tolist()
    ids = bank.strings("context_id")
    assert list(frame["context_id"]) == [i for i, v in zip(ids, valid, strict=True) for _ in v]


def test_scoring_and_this_pass_agree(found: Alignment) -> None:
    frame = found.positions
    np.testing.assert_allclose(frame["loss"], frame["reverse_kl_0"], atol=1e-5)
    assert found.record["kl_0_differs_by"] < 1e-5
    assert found.record["fixed_context_loss"] == pytest.approx(frame["kl_0"].mean(), abs=1e-6)
    assert found.record["mean_alignment_kl"] == pytest.approx(
        found.record["gradient_norm_squared"], rel=1e-10
    )


def test_step_lowers_the_loss_by_a_thousandth(found: Alignment) -> None:
    gain = found.positions["gain_step"].mean()
    assert gain == pytest.approx(1e-3 * found.record["fixed_context_loss"], rel=0.05)
    steps = found.tables["steps"]
    whole, half = steps[steps["quantity"] == "kl"]["remainder"]
    assert whole / half == pytest.approx(4, rel=0.05)


def test_pairs_hold_forward_mode_against_backward(found: Alignment) -> None:
    frame = found.positions.set_index(["context_id", "position"])["alignment"]
    pairs = found.tables["pairs"]
    assert len(pairs) == 3 * 2
    for _, row in pairs.iterrows():
        forward = frame.loc[row["context_id"], row["position"]]
        assert row["alignment_bank"] == pytest.approx(forward, rel=1e-9)


@pytest.mark.parametrize(
    "changes", [{"batch_tokens": 4096}, {"step_size": 1e-4, "pairs": 1, "seed": 5}], ids=str
)
def test_alignment_depends_on_models_and_bank_alone(
    found: Alignment,
    bank: Bank,
    teacher: str,
    student: str,
    tmp_path: Path,
    changes: dict[str, int],
) -> None:
    other = align(bank, teacher, student, tmp_path, replace(SMALL, **changes))
    for name in ("alignment", "alignment_kl"):
        np.testing.assert_allclose(
            other.positions[name], found.positions[name], rtol=1e-4, atol=TEACHER_ROUNDING
        )


def test_parquet_holds_the_declared_columns(found: Alignment, out: Path) -> None:
    stored = pd.read_parquet(out / "alignment.parquet")
    assert list(stored) == [column.name for column in COLUMNS]
    assert (stored["alignment"] == found.positions["alignment"]).all()
    assert stored["learnable"].notna().all()


def test_the_run_is_one_that_others_can_go_on_with(found: Alignment, out: Path) -> None:
    run = open_run(out / "run")
    assert run.bank_digest == found.record["bank"]["digest"]
    assert run.student().kl.tolist() == found.positions["kl_0"].tolist()


def test_files_say_every_number(found: Alignment, out: Path) -> None:
    page = write_alignment(out, found.positions, found.tables, found.record)
    assert page == out / "alignment.md"
    record = json.loads((out / "alignment.json").read_text())
    for name, stem in FILES.items():
        table = pd.read_csv(out / f"{stem}.csv")
        assert len(record["tables"][name]) == len(table) == len(found.tables[name])
        assert (table["definitions"] == "paper").all()
        assert (out / f"{stem}.md").read_text().startswith("### ")
    assert record["settings"]["step_size"] is None
    assert record["precision"] == "float64"
    for suffix in ("png", "pdf"):
        assert (out / f"alignment.{suffix}").stat().st_size > 1000


def test_figure_shows_positions_correlations_and_selectors(found: Alignment) -> None:
    with figure_style():
        figure = alignment_figure(found.positions, found.tables)
    cloud, signals, selectors = figure.axes
    shown = np.concatenate([np.asarray(c.get_offsets()) for c in cloud.collections])
    assert sorted(shown[:, 0]) == sorted(found.positions["alignment"])
    assert sorted(shown[:, 1]) == sorted(found.positions["gain_step"])
    table = found.tables["correlations"].set_index(["scope", "of", "signal"])
    bank_points = next(line for line in signals.lines if line.get_label() == "bank")
    names = ["gain_step", "learnable", "incompatible", "compatibility", "kl_0", "entropy"]
    expected = [table.loc["all", "alignment", name]["spearman"] for name in names]
    assert bank_points.get_xdata().tolist() == expected
    labels = [label.get_text() for label in selectors.get_yticklabels()]
    kept = next(line for line in selectors.lines if line.get_label() == "kept").get_xdata()
    groups = found.tables["groups"].set_index("group")
    assert kept.tolist() == [groups.loc[label, "alignment"] for label in labels]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"teacher": "topk:lists.parquet"},
            "--teacher: expected a model: the gradient of KL needs its whole distribution, got "
            "topk:lists.parquet; give the teacher's weights",
        ),
        (
            {"step_size": 0.0},
            "--step-size: expected a learning rate above 0, got 0.0; leave it out for one that "
            "fits the bank",
        ),
        (
            {"budget": 0.0},
            "--budget: expected a share of positions in (0, 1], got 0.0; write 5 % as 0.05",
        ),
    ],
    ids=["listed", "step", "budget"],
)
def test_bad_input_is_refused_before_anything_is_scored(
    bank: Bank, teacher: str, student: str, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    asked = {"teacher": teacher} | changes
    named = str(asked.pop("teacher"))
    with pytest.raises(InputError) as error:
        align(bank, named, student, tmp_path, replace(SMALL, **asked))
    assert str(error.value) == said
    assert not list(tmp_path.iterdir())


def test_an_adapter_is_refused_by_name(bank: Bank, teacher: str, tmp_path: Path) -> None:
    from forms import adapter_over, base_model, save_base
    from peft import LoraConfig

    base = save_base(tmp_path / "base")
    adapter_over(base_model(), tmp_path / "adapter", LoraConfig(target_modules=["q_proj"]))
    spec = f"{base}+{tmp_path / 'adapter'}"
    with pytest.raises(InputError) as error:
        align(bank, teacher, spec, tmp_path / "out", SMALL)
    assert str(error.value) == (
        f"{spec}: expected a student with whole weights, got an adapter; merge or dequantise it "
        "and save the whole model"
    )
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_finite_names_its_context(
    bank: Bank, teacher: str, broken: str, tmp_path: Path
) -> None:
    marked = bank.strings("context_id")[doubles.MARKED_CONTEXT]
    with pytest.raises(InputError) as error:
        align(bank, teacher, broken, tmp_path, SMALL)
    assert str(error.value) == (
        f"theta_0, context {marked}: expected finite model output, got NaN or infinity; score in "
        "float32 (--dtype float32), or check the checkpoint's weights"
    )


def test_precision_is_one_of_two() -> None:
    assert [check_precision(w) for w in ("auto", "float32", "float64")] == [
        None,
        "float32",
        "float64",
    ]
    with pytest.raises(InputError) as error:
        check_precision("bfloat16")
    assert str(error.value) == (
        "--dtype: expected auto, float32, float64: small steps are lost in fewer digits, got "
        "'bfloat16'; choose one of them"
    )
    model = doubles.random_model(1)
    assert (precision_of(None, model), precision_of("float32", model)) == ("float64", "float32")


def test_the_numbers_of_tables_need_no_torch() -> None:
    names: Sequence[str] = ("statistics.analyses.alignment", "report.alignment")
    statement = "import " + ", ".join(f"diagnostics.{name}" for name in names)
    assert loaded_by(statement, "torch", "transformers") == []
