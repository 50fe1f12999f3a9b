"""Prompts come from users' files as they are; what cannot be a prompt is refused by its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diagnostics.bank.prompts import Prompt, read_prompts
from diagnostics.errors import InputError

MESSAGES = [{"role": "system", "content": "w1"}, {"role": "user", "content": "w2 w3"}]
SUFFIXES = ["jsonl", "csv", "parquet"]


def write(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> str:
    path = folder / f"prompts.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif suffix == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return str(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_is_taken_as_it_is(tmp_path: Path, suffix: str) -> None:
    texts = ["  w1, w2\nw3 ", "2 + 2 = ?", "Größe θ"]
    found = read_prompts(write(tmp_path, suffix, [{"prompt": text} for text in texts]))
    assert [prompt.text for prompt in found] == texts
    assert [prompt.teacher for prompt in found] == [None] * 3


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("text", ["42", "3.50", "true", "1e5", "2024-01-01", "None", "NA"])
def test_text_that_looks_like_a_value_stays_text(tmp_path: Path, suffix: str, text: str) -> None:
    (prompt,) = read_prompts(write(tmp_path, suffix, [{"prompt": text}]))
    assert prompt.text == text


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_chat_messages_are_kept_as_messages(tmp_path: Path, suffix: str) -> None:
    (prompt,) = read_prompts(write(tmp_path, suffix, [{"prompt": MESSAGES}]))
    assert prompt.text == MESSAGES


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_given_prompt_ids_are_kept(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "w1", "prompt_id": "first"}, {"prompt": "w1", "prompt_id": "second"}]
    assert [p.prompt_id for p in read_prompts(write(tmp_path, suffix, rows))] == ["first", "second"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_prompt_ids_with_leading_zeros_stay_apart(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "w1", "prompt_id": "7"}, {"prompt": "w2", "prompt_id": "007"}]
    assert [p.prompt_id for p in read_prompts(write(tmp_path, suffix, rows))] == ["7", "007"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_number_prompt_ids_read_the_same_beside_a_missing_one(
    tmp_path: Path, suffix: str
) -> None:
    rows = [{"prompt": "w1", "prompt_id": 9007199254740993}, {"prompt": "w2"}]
    ids = pd.array([9007199254740993, None], dtype="Int64")
    frame = pd.DataFrame({"prompt": ["w1", "w2"], "prompt_id": ids})
    path = tmp_path / f"prompts.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    # 2**53 + 1: the first whole number that a float64 cannot hold
    assert read_prompts(str(path))[0].prompt_id == "9007199254740993"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_derived_prompt_ids_follow_the_content_alone(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": text} for text in ("w1", "w2", "w1")]
    first, second, third = [p.prompt_id for p in read_prompts(write(tmp_path, suffix, rows))]
    assert first == third != second
    other = read_prompts(write(tmp_path, "jsonl", [{"prompt": "w0"}, {"prompt": "w1", "x": 1}]))
    assert other[1].prompt_id == first


def test_missing_prompt_ids_are_derived_beside_given_ones(tmp_path: Path) -> None:
    rows = [{"prompt": "w1", "prompt_id": "given"}, {"prompt": "w2"}, {"prompt": "w2"}]
    ids = [p.prompt_id for p in read_prompts(write(tmp_path, "jsonl", rows))]
    assert ids[0] == "given"
    assert ids[1] == ids[2] != "given"


def test_messages_and_text_of_the_same_words_are_two_prompts(tmp_path: Path) -> None:
    rows = [{"prompt": "w1"}, {"prompt": [{"role": "user", "content": "w1"}]}]
    first, second = read_prompts(write(tmp_path, "jsonl", rows))
    assert first.prompt_id != second.prompt_id


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_teacher_prompt_is_read_where_given(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "w1", "teacher_prompt": "w1 hint"}, {"prompt": "w2", "teacher_prompt": None}]
    assert [p.teacher for p in read_prompts(write(tmp_path, suffix, rows))] == ["w1 hint", None]


def test_teacher_prompt_may_be_messages(tmp_path: Path) -> None:
    (prompt,) = read_prompts(
        write(tmp_path, "jsonl", [{"prompt": "w1", "teacher_prompt": MESSAGES}])
    )
    assert prompt == Prompt(prompt_id=prompt.prompt_id, text="w1", teacher=MESSAGES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_column_can_be_named(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [{"prompt": "w1", "question": "w2"}])
    assert [p.text for p in read_prompts(path, column="question")] == ["w2"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_limit_takes_the_first(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [{"prompt": f"w{i}"} for i in range(5)])
    assert [p.text for p in read_prompts(path, limit=2)] == ["w0", "w1"]
    assert len(read_prompts(path, limit=5)) == 5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_too_few_prompts_are_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [{"prompt": "w1"}])
    with pytest.raises(InputError) as caught:
        read_prompts(path, limit=2)
    assert str(caught.value) == (
        f"{path}: expected at least 2 prompts, got 1; "
        "ask for fewer with --num-prompts or give a larger file"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_column_names_those_that_are_there(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [{"question": "w1", "answer": "w2"}])
    with pytest.raises(InputError) as caught:
        read_prompts(path)
    assert str(caught.value) == (
        f"{path}: expected a column `prompt`, got columns question, answer; "
        "name it with --prompt-column"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "a int: 5"),
        ("", "empty text"),
        (" \n", "empty text"),
        ([], "a list: []"),
        (["w1"], "a list: ['w1']"),
        ({"role": "user", "content": "w1"}, "a dict: {'role'"),
        ([{"role": "user"}], "a list: [{'role'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a list: "),
        (True, "a bool: True"),
    ],
)
@pytest.mark.parametrize("column", ["prompt", "teacher_prompt"])
def test_what_is_no_text_is_refused_by_its_row(
    tmp_path: Path, value: object, shown: str, column: str
) -> None:
    good = {"prompt": "w1", "teacher_prompt": "w1"}
    path = write(tmp_path, "jsonl", [good, good, good | {column: value}])
    with pytest.raises(InputError) as caught:
        read_prompts(path)
    said = str(caught.value)
    assert said.startswith(
        f"{path}, row 2: expected text or a list of chat messages in `{column}`, got {shown}"
    )
    assert said.endswith("drop or mend the row")
    assert "\n" not in said


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gap_is_refused_by_its_row(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [{"prompt": "w1", "n": 1}, {"prompt": None, "n": 2}])
    with pytest.raises(InputError, match="row 1: expected text or a list of chat messages"):
        read_prompts(path)


def test_rows_beyond_the_limit_are_not_judged(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", [{"prompt": "w1"}, {"prompt": 5}])
    assert [p.text for p in read_prompts(path, limit=1)] == ["w1"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"no.{suffix}"
    with pytest.raises(InputError) as caught:
        read_prompts(str(path))
    assert str(caught.value) == (
        f"{path}: expected a prompt file, got no such file; check the path"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", b'{"prompt": "w1"}\n{"prompt": '),
        ("p.jsonl", b"not json\n"),
        ("p.jsonl", b"[1, 2]\n"),
        ("p.jsonl", b'"w1"\n'),
        ("p.jsonl", b"\xff\xfe\x00"),
        ("p.csv", b""),
        ("p.csv", b"prompt\n\xff\xfe\n"),
        ("p.csv", b'prompt\n"open'),
        ("p.csv", b"prompt\nw1,w2\nw1,w2,w3\n"),
        ("p.parquet", b"PAR1 no more"),
    ],
)
def test_damaged_file_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"p[.]{name[2:]}.*: expected ") as caught:
        read_prompts(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"p.jsonl: expected "):
        read_prompts(str(tmp_path / "p.jsonl"))


@pytest.mark.parametrize(
    ("name", "got"), [("prompts.txt", "another kind of file"), ("", "another kind of file")]
)
def test_other_kinds_of_source_are_refused(tmp_path: Path, name: str, got: str) -> None:
    path = tmp_path / name if name else tmp_path
    if name:
        path.write_text("w1")
    with pytest.raises(InputError, match=f"expected a file ending in .*, got {got}"):
        read_prompts(str(path))


def test_missing_path_without_ending_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got no such file; check the path"):
        read_prompts(str(tmp_path / "prompts"))
