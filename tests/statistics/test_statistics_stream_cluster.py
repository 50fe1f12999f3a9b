"""Parts of a stream: merged in one process, and on a local Ray of two actors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stream_files import split_rows, whole_frame, write_frame

from diagnostics.errors import InputError
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.streaming.cluster import Member
from diagnostics.statistics.streaming.scale import Load
from diagnostics.statistics.streaming.stream import StreamStatistics, stream_statistics
from diagnostics.statistics.streaming.team import AnyStep, Reader, StreamSettings

DRAWS = Bootstrap(draws=50, seed=2)
SETTINGS = StreamSettings(rows=50, threads=1)
ON_RAY = """
import json, sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
import ray
from diagnostics.errors import InputError
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.streaming.stream import stream_statistics
from diagnostics.statistics.streaming.cluster import RayTeam
from diagnostics.statistics.streaming.team import StreamSettings

files = [Path(name) for name in sys.argv[1:]]
settings = StreamSettings(rows=50, threads=1)
try:
    found = stream_statistics(files, settings, Bootstrap(draws=50, seed=2),
                              team=partial(RayTeam, workers=2))
except InputError as error:
    sys.exit(f"said: {error}")
finally:
    assert not ray.is_initialized()
one = found["step10"]
print(json.dumps([[asdict(v) for v in table.values()] for table in (one.gaps, one.top_n, one.fits)]
                 + [[asdict(v.gap) for v in one.matched.values()]]))
"""


class Several:
    """A `Team` of readers in this process, one a file."""

    def __init__(self, files: Sequence[Path], settings: StreamSettings) -> None:
        self.members = [Reader([path], settings) for path in files]

    def load(self, empty: Load) -> list[dict[str, Load]]:
        return [part for member in self.members for part in member.load(empty)]

    def run(self, checkpoint: str, empty: AnyStep) -> list[AnyStep]:
        return [part for member in self.members for part in member.run(checkpoint, empty)]

    def close(self) -> None:
        for member in self.members:
            member.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files, parted between prompts."""
    frame, folder = whole_frame(), tmp_path_factory.mktemp("parts")
    new = np.flatnonzero(frame["prompt_id"] != frame["prompt_id"].shift())
    parts = split_rows(frame, [int(new[3]), int(new[8])])
    return [write_frame(folder / f"{i}.parquet", part) for i, part in enumerate(parts)]


def numbers(found: StreamStatistics) -> list[list[dict]]:
    tables = (found.gaps, found.top_n, found.fits)
    records = [[asdict(value) for value in table.values()] for table in tables]
    return [*records, [asdict(value.gap) for value in found.matched.values()]]


def flat(value: object) -> list[object]:
    if isinstance(value, dict):
        return [x for inner in value.values() for x in flat(inner)]
    return [x for inner in value for x in flat(inner)] if isinstance(value, list) else [value]


def same(here: object, there: object) -> None:
    """Equal to 1e-12 of their size, or of 1."""
    for mine, theirs in zip(flat(here), flat(there), strict=True):
        if isinstance(mine, float):
            assert theirs == pytest.approx(mine, rel=1e-12, abs=1e-12, nan_ok=True)
        else:
            assert mine == theirs


def test_parts_that_merge_equal_one_process(files: list[Path]) -> None:
    one = stream_statistics(files, SETTINGS, DRAWS)["step10"]
    several = stream_statistics(files, SETTINGS, DRAWS, team=Several)["step10"]
    same(numbers(one), numbers(several))
    pd.testing.assert_frame_equal(one.signals, several.signals, rtol=1e-12)
    pd.testing.assert_frame_equal(one.quadrants, several.quadrants, rtol=1e-12)


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_change_nothing(files: list[Path], threads: int) -> None:
    one = stream_statistics(files, SETTINGS, DRAWS)["step10"]
    settings = StreamSettings(rows=50, threads=threads)
    same(numbers(one), numbers(stream_statistics(files, settings, DRAWS)["step10"]))


def test_prompt_in_two_parts_is_refused(tmp_path: Path) -> None:
    frame = whole_frame()
    prompt = frame["prompt_id"].iloc[0]
    parts = split_rows(frame, [10])
    files = [write_frame(tmp_path / f"{i}.parquet", part) for i, part in enumerate(parts)]
    with pytest.raises(InputError) as caught:
        stream_statistics(files, SETTINGS, DRAWS, team=Several)
    assert str(caught.value) == (
        f"token tables, prompt {prompt}: expected all rows of a prompt together, got more of them "
        "after other prompts; sort the rows by prompt_id"
    )


def test_actor_gives_an_input_error_as_words(tmp_path: Path) -> None:
    words, found = Member([tmp_path / "no.parquet"], SETTINGS).load(Load(searches={}))
    assert found == []
    assert str(InputError(**words)) == (
        f"{tmp_path / 'no.parquet'}: expected a Parquet file, got no such file; check the path"
    )


def on_ray(files: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ON_RAY, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_local_ray_of_two_actors_equals_one_process(files: list[Path]) -> None:
    pytest.importorskip("ray")
    done = on_ray(files)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    same(numbers(stream_statistics(files, SETTINGS, DRAWS)["step10"]), there)


@pytest.mark.slow
def test_broken_file_on_ray_is_one_line(files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = on_ray([*files, tmp_path / "no.parquet"])
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("said: ")]
    missing = tmp_path / "no.parquet"
    assert said == [f"said: {missing}: expected a Parquet file, got no such file; check the path"]
