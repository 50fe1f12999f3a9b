"""Files appear whole or not at all, and damaged ones are refused in one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from diagnostics.errors import InputError
from diagnostics.files import (
    read_json,
    read_parquet,
    sha256_file,
    sha256_text,
    whole_file,
    write_json,
    write_parquet,
    write_text,
)

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})


def test_success_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    with whole_file(tmp_path / "new" / "file.txt") as partial:
        assert partial.parent == tmp_path / "new"  # the rename stays within one file system
        assert not (tmp_path / "new" / "file.txt").exists()
        partial.write_text("whole")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file.txt"]
    assert (tmp_path / "new" / "file.txt").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with whole_file(tmp_path / "file.txt") as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("earlier")

    def interrupted() -> None:
        with whole_file(file) as partial:
            partial.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):
        interrupted()
    assert file.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [file]


def test_full_disk_is_a_user_error_and_leaves_nothing(tmp_path: Path) -> None:
    def full() -> None:
        with whole_file(tmp_path / "file.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"file.txt: expected a folder .* No space left on device"):
        full()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="expected a folder that can be written"):
        write_text(tmp_path / "taken" / "file.txt", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_name_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="expected a folder that can be written"):
        write_text(tmp_path / "taken", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_same_table_gives_same_bytes_and_reads_back(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_parquet(tmp_path / name, TABLE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_parquet(tmp_path / "one").equals(TABLE)
    assert read_parquet(tmp_path / "one", ["b"]).equals(TABLE.select(["b"]))


def test_missing_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_parquet(tmp_path / "no.parquet")
    expected = "expected a Parquet file, got no such file; check the path"
    assert str(caught.value) == f"{tmp_path / 'no.parquet'}: {expected}"


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_damaged_parquet_is_refused_in_one_line(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "file.parquet"
    write_parquet(file, TABLE)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match="expected a readable Parquet file, got damage") as caught:
        read_parquet(file)
    assert "\n" not in str(caught.value)


def test_json_round_trip_keeps_order_and_letters(tmp_path: Path) -> None:
    value = {"z": 1, "a": {"θ": [0.1, None]}}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value
    assert list(read_json(tmp_path / "v.json")) == ["z", "a"]
    assert "θ" in (tmp_path / "v.json").read_text(encoding="utf-8")


def test_json_with_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "v.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "expected a readable JSON file, got damage"),
        (b"\xff\xfe", "expected a readable JSON file, got damage"),
        (b"[1]", "expected a JSON object, got a list"),
        (None, "expected a JSON file, got no such file"),
    ],
)
def test_bad_json_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "v.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_json(file)


def test_digests_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "f") == sha256_text("abc") == known
    assert sha256_text("θ") == hashlib.sha256(json.loads('"\\u03b8"').encode()).hexdigest()


@pytest.mark.parametrize("missing", ["where", "expected", "got", "fix"])
def test_an_error_cannot_leave_a_part_out(missing: str) -> None:
    parts = {"where": "w", "expected": "e", "got": "g", "fix": "f"}
    assert str(InputError(**parts)) == "w: expected e, got g; f"
    del parts[missing]
    with pytest.raises(TypeError, match=missing):
        InputError(**parts)
