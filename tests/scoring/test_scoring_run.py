"""What a run folder tells when it is read: steps, kinds of noise, second scores, dropped mass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diagnostics.errors import InputError
from diagnostics.files import write_parquet
from diagnostics.scoring.run import Run, noise_file, part_file

SCORES = {
    "context": np.array([0, 0, 3], np.int32),
    "position": np.array([1, 4, 0], np.int32),
    "kl": np.array([0.5, 0.0, 2.0]),
    "reverse_kl": np.array([0.25, 0.0, 1.0]),
    "entropy": np.array([1.5, 0.125, 0.0]),
}


def run_of(folder: Path, **manifest: Any) -> Run:
    return Run(folder=folder, manifest=manifest)


def test_steps_are_those_of_the_stamps_in_order(tmp_path: Path) -> None:
    stamps = {"b": {"step": 200}, "a": {"step": 0}, "old": {"model": "m"}, "c": {"step": None}}
    run = run_of(tmp_path, checkpoints=stamps)
    assert list(run.steps.items()) == [("b", 200), ("a", 0), ("old", None), ("c", None)]


def test_kinds_of_noise_are_those_with_a_whole_file_batch_first(tmp_path: Path) -> None:
    for kind in ("bfloat16", "batch", "float16"):
        write_parquet(noise_file(tmp_path, kind), pa.table(SCORES))
    partial = noise_file(tmp_path, "float32").with_name(".00000.parquet.x.partial")
    partial.parent.mkdir()
    partial.touch()
    assert run_of(tmp_path).noise_kinds == ["batch", "bfloat16", "float16"]


def test_a_run_without_noise_has_no_kinds(tmp_path: Path) -> None:
    assert run_of(tmp_path).noise_kinds == []


def test_second_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_parquet(noise_file(tmp_path, "batch"), pa.table(SCORES))
    noise = run_of(tmp_path).noise()
    for name, values in SCORES.items():
        np.testing.assert_array_equal(getattr(noise, name), values)


@pytest.mark.parametrize(("kinds", "said"), [(("batch", "float32"), "batch, float32"), ((), "")])
def test_a_kind_that_was_not_measured_is_refused(
    tmp_path: Path, kinds: tuple[str, ...], said: str
) -> None:
    for kind in kinds:
        write_parquet(noise_file(tmp_path, kind), pa.table(SCORES))
    with pytest.raises(InputError) as caught:
        run_of(tmp_path).noise("bfloat16")
    assert str(caught.value) == str(
        InputError(
            where=str(tmp_path / "noise"),
            expected=f"a kind among {said or '(none measured)'}",
            got="bfloat16",
            fix="measure it with `diagnostics rescore`",
        )
    )


def test_dropped_mass_is_that_of_all_parts_in_order(tmp_path: Path) -> None:
    for part, mass in enumerate(([0.5, 0.25], [0.125])):
        table = pa.table({"dropped": np.array(mass, np.float32)})
        write_parquet(part_file(tmp_path, "teacher", part), table)
    assert run_of(tmp_path, parts=2).dropped("teacher").tolist() == [0.5, 0.25, 0.125]


def test_dropped_mass_of_missing_parts_is_refused(tmp_path: Path) -> None:
    write_parquet(part_file(tmp_path, "one", 0), pa.table({"dropped": np.zeros(2, np.float32)}))
    with pytest.raises(InputError) as caught:
        run_of(tmp_path, parts=2).dropped("one")
    assert str(caught.value) == str(
        InputError(
            where=str(part_file(tmp_path, "one", 1)),
            expected="all 2 scored parts of one",
            got="1",
            fix="run the same `diagnostics rescore` again: it goes on where it stopped",
        )
    )
