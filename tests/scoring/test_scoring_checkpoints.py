"""The words of `--checkpoint` become checkpoints; globs become series in the order of steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnostics.errors import InputError
from diagnostics.scoring.checkpoints import Checkpoint, check_names, parse_checkpoints

FIX_GLOB = "narrow the glob, or name each folder as NAME=MODEL"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folders(*names: str) -> None:
    for name in names:
        Path(name).mkdir(parents=True)


def refused(*pairs: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_checkpoints(pairs)
    return str(caught.value)


def alone(spec: str, step: int | None = None) -> Checkpoint:
    return Checkpoint(spec=spec, step=step, series=None)


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([], {}),
        (["a=x", "b=y=z"], {"a": alone("x"), "b": alone("y=z")}),
        (["step-1=owner/name@main"], {"step-1": alone("owner/name@main")}),
        (["a=out/checkpoint-20"], {"a": alone("out/checkpoint-20", 20)}),
        (["a=out/checkpoint-020/"], {"a": alone("out/checkpoint-020/", 20)}),
        (["a=base+checkpoint-7"], {"a": alone("base+checkpoint-7", 7)}),
        (["a=checkpoint-5"], {"a": alone("checkpoint-5", 5)}),
        (["a=out/my-checkpoint-20"], {"a": alone("out/my-checkpoint-20")}),
        (["a=out/checkpoint-20/merged"], {"a": alone("out/checkpoint-20/merged")}),
        (["a=out/model-20"], {"a": alone("out/model-20")}),
    ],
)
def test_words_become_checkpoints(pairs: list[str], found: dict[str, Checkpoint]) -> None:
    assert parse_checkpoints(pairs) == found


def test_order_of_the_words_is_kept(here: Path) -> None:
    folders("out/checkpoint-3", "out/checkpoint-1")
    names = list(parse_checkpoints(["z=x", "m=out/checkpoint-*", "a=y"]))
    assert names == ["z", "m-1", "m-3", "a"]


def test_glob_becomes_a_series_in_the_order_of_numbers(here: Path) -> None:
    folders("out/checkpoint-100", "out/checkpoint-20", "out/checkpoint-3", "out/logs")
    Path("out/checkpoint-7").write_text("a file is no model")
    assert parse_checkpoints(["full=out/checkpoint-*"]) == {
        f"full-{step}": Checkpoint(spec=f"out/checkpoint-{step}", step=step, series="full")
        for step in (3, 20, 100)
    }
    assert list(parse_checkpoints(["full=out/checkpoint-*"])) == ["full-3", "full-20", "full-100"]


@pytest.mark.parametrize(
    ("glob", "steps"),
    [
        ("checkpoint-?", [3]),
        ("checkpoint-[0-9][0-9]", [20]),
        ("*-*0*", [20, 100]),
        ("c*", [3, 20, 100]),
    ],
)
def test_wildcards_of_every_kind(here: Path, glob: str, steps: list[int]) -> None:
    folders("out/checkpoint-100", "out/checkpoint-20", "out/checkpoint-3", "out/best")
    found = parse_checkpoints([f"a=out/{glob}", f"b={here}/out/{glob}"])
    assert [c.step for c in found.values()] == [*steps, *steps]
    assert all(Path(c.spec).is_dir() for c in found.values())


def test_glob_behind_a_base_gives_adapters_over_it(here: Path) -> None:
    folders("out/checkpoint-20", "out/checkpoint-3", "base")
    for base in ("owner/base@main", "base", "not/there"):
        found = parse_checkpoints([f"a={base}+out/checkpoint-*"])
        assert [c.spec for c in found.values()] == [f"{base}+out/checkpoint-{n}" for n in (3, 20)]


def test_plus_in_an_existing_path_is_no_base(here: Path) -> None:
    folders("a+out/checkpoint-4", "out/checkpoint-5")
    found = parse_checkpoints(["x=a+out/checkpoint-*", "y=b+out/checkpoint-*"])
    assert [c.spec for c in found.values()] == ["a+out/checkpoint-4", "b+out/checkpoint-5"]


def test_existing_folder_with_a_bracket_in_its_name_is_no_glob(here: Path) -> None:
    folders("run[1]")
    assert parse_checkpoints(["a=run[1]"]) == {"a": alone("run[1]")}


def test_wildcards_in_earlier_parts_are_not_expanded(here: Path) -> None:
    folders("out/checkpoint-3/model")
    assert parse_checkpoints(["a=out/*/model"]) == {"a": alone("out/*/model")}


def test_unfinished_folders_match_only_when_the_glob_says_so(here: Path) -> None:
    folders("out/tmp-checkpoint-9", "out/checkpoint-8", "out/.hidden-7", "out/global_step6")
    assert [c.step for c in parse_checkpoints(["a=out/*"]).values()] == [8]
    assert [c.step for c in parse_checkpoints(["a=out/*checkpoint-*"]).values()] == [8]
    for glob, step in {"tmp-*": 9, ".hidden-*": 7, "global_step*": 6}.items():
        assert [c.step for c in parse_checkpoints([f"a=out/{glob}"]).values()] == [step]


@pytest.mark.parametrize(
    "pairs",
    [["a"], ["a="], ["a=x", "a=y"], ["a=out/c-*", "a=y"], ["a=y", "a=out/c-*"],
     ["a=out/c-*", "a=out/c-*"], ["a-3=y", "a=out/c-*"], ["a=out/c-*", "a-3=y"]],
)  # fmt: skip
def test_words_of_another_form_or_of_one_name_are_refused(here: Path, pairs: list[str]) -> None:
    folders("out/c-3")
    assert refused(*pairs) == (
        f"--checkpoint: expected NAME=MODEL, each name once, got {pairs[-1]!r}; "
        "write it as step100=path/to/checkpoint, or full='path/to/checkpoint-*'"
    )


@pytest.mark.parametrize("name", ["", "teacher", "theta_0", "a/b", "-a", "a b", "é"])
def test_names_that_are_no_folder_names_or_are_taken_are_refused(name: str) -> None:
    said = (
        "--checkpoint: expected a name of letters, digits, `.`, `_`, `-`, not teacher or theta_0, "
        f"got {name!r}; write --checkpoint NAME=MODEL with another name"
    )
    assert refused(f"{name}=x") == said
    with pytest.raises(InputError) as caught:
        check_names(["fine", name])
    assert str(caught.value) == said


def test_good_names_pass() -> None:
    check_names(["a", "0", "step-1.5_b", "A-20"])


@pytest.mark.parametrize("glob", ["out/checkpoint-*", "missing/checkpoint-*", "b+out/checkpoint-*"])
def test_glob_that_matches_nothing_is_refused(here: Path, glob: str) -> None:
    folders("out/other-1")
    assert refused(f"a={glob}") == (
        f"--checkpoint a={glob}: expected folders that match, got none; {FIX_GLOB}"
    )


def test_folder_without_a_step_is_refused(here: Path) -> None:
    folders("out/checkpoint-1", "out/checkpoint-best")
    assert refused("a=out/checkpoint-*") == (
        "--checkpoint a=out/checkpoint-*: expected folders that end in a step, "
        f"got out/checkpoint-best; {FIX_GLOB}"
    )


def test_two_folders_of_one_step_are_refused(here: Path) -> None:
    folders("out/checkpoint-1", "out/checkpoint-01")
    assert refused("a=out/checkpoint-*") == (
        "--checkpoint a=out/checkpoint-*: expected one folder a step, "
        f"got out/checkpoint-01 and out/checkpoint-1; {FIX_GLOB}"
    )
