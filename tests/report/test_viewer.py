"""The viewer shows the run's own numbers, and whatever a run says stays text."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_on_disk import HOSTILE, STORED_K, VOCABULARY, write_run

from diagnostics.errors import InputError
from diagnostics.report.viewer import page as viewer_page
from diagnostics.report.viewer.colours import (
    STEPS,
    THEMES,
    colours,
    contrast,
    mixed,
    scales,
)
from diagnostics.report.viewer.data import (
    BUDGETS,
    MEASURES,
    MOST,
    evenly_by_gain,
    measure,
    show,
)
from diagnostics.report.viewer.encode import (
    COARSE,
    FINE,
    LONGEST,
    Packed,
    Precision,
    floats,
    packed_measures,
    packed_tops,
    script_json,
    shares,
    unpacked,
    whole,
)
from diagnostics.report.viewer.page import (
    SECTION_BYTES,
    ViewerSettings,
    viewer_section,
    write_viewer,
    write_viewers,
)
from diagnostics.scoring.run import START, TEACHER, Run
from diagnostics.statistics.analyses.budgets import selections
from diagnostics.statistics.tables.tokens import token_table

K = 4
SETTINGS = ViewerSettings(top_k=K)


class Page(HTMLParser):
    """Elements and attributes of a page, and its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = ["script"] if tag == "script" else []

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)
            self._inside = []
        else:
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def arrays_of(data: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a page, read by its layout alone."""
    count = sum(context["count"] for context in data["contexts"])
    arrays = {}
    for bundle, length in (("measures", count), ("tops", count * data["most"])):
        content, start = zlib.decompress(base64.b64decode(data[bundle]["bytes"])), 0
        for name, kind, width in data[bundle]["arrays"]:
            packed = Packed(kind=kind, width=width, content=content[start:][: width * length])
            arrays[name], start = unpacked(packed), start + width * length
        assert start == len(content)
    return arrays


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("viewer"), prompts=6, length=20, texts=HOSTILE)


@pytest.fixture(scope="module")
def frame(run: Run) -> pd.DataFrame:
    return token_table(run, K)


@pytest.fixture(scope="module")
def whole_page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Page:
    (path,) = write_viewer(run, tmp_path_factory.mktemp("page") / "view.html", SETTINGS)
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("precision", [FINE, COARSE])
def test_arrays_read_back_are_the_token_tables(
    run: Run, frame: pd.DataFrame, precision: Precision
) -> None:
    shown = show(measure(run, K), range(12))
    found = {name: unpacked(one) for name, one in packed_measures(shown, precision).items()}
    first, second = (frame[frame["checkpoint"] == name] for name in ("one", "two"))
    assert found["position"].tolist() == first["position"].tolist()
    assert found["quadrant"].tolist() == first["quadrant"].tolist()
    assert shown.token_ids()[found["token"]].tolist() == first["token_id"].tolist()
    for name in MEASURES:
        assert found[name] == pytest.approx(first[name], rel=precision.float_error, abs=1e-12)
    for index, table in enumerate((first, second)):
        gain = found[f"gain.{index}"]
        assert gain == pytest.approx(table["gain"], rel=precision.float_error, abs=1e-12)
    assert ("kl.1" in found) == (precision is FINE)
    if precision is FINE:
        assert found["kl.1"] == pytest.approx(second["kl"], rel=precision.float_error)


@pytest.mark.parametrize("precision", [FINE, COARSE])
def test_most_probable_tokens_read_back_are_the_runs(run: Run, precision: Precision) -> None:
    shown = show(measure(run, K), range(12))
    found = {name: unpacked(one) for name, one in packed_tops(shown, precision).items()}
    lists = [run.teacher(), *(run.student(name) for name in (START, "one", "two"))]
    places: list[np.ndarray] = []
    for model, scores in enumerate(lists):
        tops = found[f"top.{model}"].reshape(-1, MOST).astype(int)
        if model:
            earlier = places[0 if model == 1 else 1]
            ranks = np.clip(tops, 0, MOST - 1)
            there = np.take_along_axis(earlier, ranks, axis=1)
            tops = np.where(tops < MOST, there, tops - MOST)
        places.append(tops)
        assert (shown.token_ids()[tops] == scores.top_ids[:, :MOST]).all()
        prob = found[f"prob.{model}"].reshape(-1, MOST)
        expected = np.exp(scores.top_logprob[:, :MOST])
        assert np.abs(prob - expected).max() <= precision.share_error
    assert shown.models == (TEACHER, START, "one", "two")
    assert min(MOST, STORED_K) == MOST


def test_bits_of_kept_positions_are_the_selections(run: Run, frame: pd.DataFrame) -> None:
    measured = measure(run, K, seed=3)
    first = frame[frame["checkpoint"] == "one"]
    names = list(dict.fromkeys(name for name, _ in measured.masks))
    expected = selections(first, names, BUDGETS, 3, vocabulary=VOCABULARY)
    assert set(measured.masks) == set(expected)
    assert len(names) >= 7
    for bit, mask in enumerate(measured.masks):
        assert ((measured.kept >> bit) & 1).tolist() == expected[mask].mask.tolist()


@pytest.mark.parametrize("precision", [FINE, COARSE])
def test_stated_errors_hold_and_are_reached(precision: Precision) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000) * 10.0 ** rng.integers(-8, 3, 20_000)
    relative = np.abs(unpacked(floats(values, precision)) / values - 1).max()
    assert precision.float_error * 0.9 < relative <= precision.float_error * 1.001
    chances = rng.random(20_000)
    absolute = np.abs(unpacked(shares(chances, precision)) - chances).max()
    assert precision.share_error * 0.9 < absolute <= precision.share_error
    assert unpacked(floats(np.array([0.0, 1.0, -1.0]), precision)).tolist() == [0, 1, -1]
    assert unpacked(shares(np.array([0.0, 1.0]), precision)).tolist() == [0, 1]


@pytest.mark.parametrize(("largest", "width"), [(0, 1), (255, 1), (256, 2), (65536, 3), (2**31, 4)])
def test_whole_numbers_take_the_bytes_that_they_need(largest: int, width: int) -> None:
    packed = whole(np.array([largest, 0, 1], np.int64))
    assert packed.width == width
    assert unpacked(packed).tolist() == [largest, 0, 1]


def test_sample_is_even_in_rank_of_gain(run: Run, frame: pd.DataFrame) -> None:
    means = frame[frame["checkpoint"] == "one"].groupby("context_id", observed=True)["gain"].mean()
    ranked = [int(name[1:]) for name in means.sort_values().index]
    measured = measure(run, K)
    assert measured.mean_gain() == pytest.approx(means.to_numpy())
    assert evenly_by_gain(measured, 2) == sorted([ranked[0], ranked[-1]])
    assert evenly_by_gain(measured, 4) == sorted(ranked[i] for i in (0, 4, 7, 11))
    assert evenly_by_gain(measured, 99) == list(range(12))


def test_chosen_contexts_are_shown_as_in_the_whole(run: Run) -> None:
    measured = measure(run, K)
    every, some = show(measured, range(12)), show(measured, [7, 2])
    rows = np.isin(measured.context, [2, 7])
    assert some.contexts == (2, 7)
    assert (some.measured.context == measured.context[rows]).all()
    assert (some.top_ids == every.top_ids[:, :, rows]).all()
    assert (some.top_prob == every.top_prob[:, :, rows]).all()


def test_page_holds_the_numbers_and_says_what_it_shows(
    whole_page: Page, run: Run, frame: pd.DataFrame
) -> None:
    data = whole_page.data
    arrays = arrays_of(data)
    assert {"kl.1", "top.3", "prob.3"} <= set(arrays)
    first = frame[frame["checkpoint"] == "one"]
    assert arrays["gain.0"] == pytest.approx(first["gain"], rel=FINE.float_error, abs=1e-12)
    assert [c["index"] for c in data["contexts"]] == list(range(12))
    means = frame.groupby(["context_id", "checkpoint"], observed=True)["gain"].mean()
    for context in data["contexts"]:
        expected = [means[context["id"], name] for name in run.checkpoints]
        assert context["gain"] == pytest.approx(expected, abs=1e-9)
    assert "All 12 contexts, 240 positions." in whole_page.text


def test_sampled_page_says_so_and_how_to_get_all(run: Run, tmp_path: Path) -> None:
    settings = ViewerSettings(top_k=K, contexts=5)
    (path,) = write_viewer(run, tmp_path / "view.html", settings)
    found = Page(path.read_text(encoding="utf-8"))
    assert len(found.data["contexts"]) == 5
    said = " ".join(found.text.split())
    assert "5 of 12 contexts, chosen evenly by mean gain (of one); all of them:" in said
    assert "diagnostics view RUN --out FILE --split" in said


def test_page_larger_than_its_limit_is_sampled(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_viewer(run, tmp_path / "view.html", SETTINGS)
    limit = path.stat().st_size - 1500
    monkeypatch.setattr(viewer_page, "FILE_BYTES", limit)
    (path,) = write_viewer(run, tmp_path / "view.html", SETTINGS)
    found = Page(path.read_text(encoding="utf-8"))
    assert path.stat().st_size <= limit
    assert 0 < len(found.data["contexts"]) < 12
    assert f"{len(found.data['contexts'])} of 12 contexts" in found.text


def test_files_of_a_split_run_hold_every_context_once_and_link_to_each_other(
    run: Run, tmp_path: Path
) -> None:
    settings = ViewerSettings(top_k=K, contexts=5)
    paths = write_viewers(run, tmp_path / "view.html", settings)
    assert [path.name for path in paths] == ["view-01.html", "view-02.html", "view-03.html"]
    found = [Page(path.read_text(encoding="utf-8")) for path in paths]
    indices = [[c["index"] for c in one.data["contexts"]] for one in found]
    assert indices == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    files = [["view-01.html", 0, 4], ["view-02.html", 5, 9], ["view-03.html", 10, 11]]
    for place, one in enumerate(found):
        links = [value for name, value in one.attributes if name == "href"]
        assert links == [name for i, (name, _, _) in enumerate(files) if i != place]
        assert one.data["files"] == files
        assert f"file {place + 1} of 3" in one.text
    limits = [[scale["limit"] for scale in one.data["scales"]] for one in found]
    assert limits[0] == limits[1] == limits[2]


def test_section_keeps_to_its_size_and_says_what_it_shows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = viewer_section(run, SETTINGS, contexts=4)
    assert len(found.encode()) < SECTION_BYTES
    page = Page(str(found))
    assert "4 of 12 contexts, chosen evenly by mean gain (of one)" in page.text
    assert f"Definitions paper, K = {K}." in page.text
    assert len(page.data["contexts"]) == 4
    assert page.tags.count("script") == page.tags.count("style") == 1
    monkeypatch.setattr(viewer_page, "SECTION_BYTES", len(found.encode()) - 200)
    fewer = Page(str(viewer_section(run, SETTINGS, contexts=4)))
    assert len(fewer.data["contexts"]) < 4


def test_second_viewer_of_a_page_has_ids_of_its_own(run: Run) -> None:
    first, second = (Page(str(viewer_section(run, SETTINGS, number=n))) for n in (1, 2))
    ids = [{v for name, v in one.attributes if name == "id"} for one in (first, second)]
    assert not ids[0] & ids[1]
    assert "style" not in second.tags


def test_hostile_text_is_never_markup(whole_page: Page, run: Run, tmp_path: Path) -> None:
    """The page of harmless text of the same run has the same elements and attributes' names."""
    harmless = write_run(tmp_path / "run", prompts=6, length=20, texts=["a"] * len(HOSTILE))
    (path,) = write_viewer(harmless, tmp_path / "view.html", SETTINGS)
    other = Page(path.read_text(encoding="utf-8"))
    assert whole_page.tags == other.tags
    assert [name for name, _ in whole_page.attributes] == [name for name, _ in other.attributes]
    assert whole_page.tags.count("script") == 2


def test_hostile_names_are_never_markup(tmp_path: Path) -> None:
    evil = "</script><script>window.__hacked=4</script>"
    run = write_run(
        tmp_path / "run",
        prompts=2,
        length=5,
        name=evil,
        bank={"digest": "b" * 64, "contexts": 4},
        teacher={"model": evil, "fingerprint": "0" * 64},
    )
    (path,) = write_viewer(run, tmp_path / "view.html", SETTINGS)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2
    assert f"Tokens of {evil}" in page.text


def test_data_in_a_script_element_reads_back_and_hides_nothing() -> None:
    value = {"texts": list(HOSTILE)}
    text = script_json(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029\u202e\u200b\ufeff\x00-\x1f\x7f]", text)


def test_long_tokens_are_cut_and_say_how_long_they_are(whole_page: Page) -> None:
    tokens = whole_page.data["tokens"]
    place = tokens["ids"].index(HOSTILE.index("x" * 100_000))
    assert tokens["texts"][place] == "x" * LONGEST
    assert tokens["lengths"] == {str(place): 100_000}


def test_long_prompts_are_cut_and_say_how_long_they_are(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", prompts=2, length=5, texts=["p" * 9000])
    (path,) = write_viewer(run, tmp_path / "view.html", SETTINGS)
    context = Page(path.read_text(encoding="utf-8")).data["contexts"][0]
    assert (len(context["prompt"]), context["prompt_length"]) == (4000, 9000)


def test_special_tokens_are_the_runs(whole_page: Page) -> None:
    tokens = whole_page.data["tokens"]
    assert [tokens["ids"][place] for place in tokens["special"]] == [0]


def test_older_run_shows_ids_and_says_so(small_run: Run, tmp_path: Path) -> None:
    (path,) = write_viewer(small_run, tmp_path / "view.html", SETTINGS)
    page = Page(path.read_text(encoding="utf-8"))
    assert "ids stand in their place" in page.text
    tokens = page.data["tokens"]
    assert tokens["texts"] == [f"⟨{i}⟩" for i in tokens["ids"]]
    assert tokens["special"] == []
    assert {c["prompt"] for c in page.data["contexts"]} == {""}


def test_teacher_of_lists_is_refused(small_run: Run, tmp_path: Path) -> None:
    manifest = {**small_run.manifest, "teacher": {"kind": "top_k", "model": "m"}}
    listed = Run(small_run.folder, manifest)
    with pytest.raises(InputError, match="one known by its top-k lists alone"):
        write_viewer(listed, tmp_path / "view.html", SETTINGS)


def test_support_beyond_the_runs_is_refused(small_run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        write_viewer(small_run, tmp_path / "view.html", ViewerSettings(top_k=99))


def test_same_run_gives_the_same_page(run: Run, tmp_path: Path) -> None:
    paths = [write_viewer(run, tmp_path / f"{i}.html", SETTINGS)[0] for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_ink_stands_out_on_every_colour(theme: Any) -> None:
    found = list(colours(theme))
    assert len(found) == 5 * STEPS
    assert min(contrast(ground, ink) for _, _, ground, ink in found) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_depart_from_the_ground_step_by_step(theme: Any) -> None:
    ground = str(THEMES[theme]["ground"])
    for hue in ("up", "down", "c", "k", "h"):
        steps = [colour for name, _, colour, _ in colours(theme) if name == hue]
        away = [contrast(ground, colour) for colour in [ground, *steps]]
        assert away == sorted(away)
        assert len(set(steps)) == STEPS
        assert steps[-1] == THEMES[theme][hue]


def test_contrast_is_wcags() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert mixed("#123456", "#abcdef", 0) == "#123456"
    assert mixed("#123456", "#abcdef", 1) == "#abcdef"


def test_scale_has_zero_in_the_middle_and_ends_at_its_limit(run: Run) -> None:
    gain, learnable, *_ = scales(measure(run, K))
    values = np.array([-99, -1, -0.25, -0.0001, 0, 0.0001, 0.25, 1, 99]) * gain.limit
    assert gain.steps(values).tolist() == [-10, -10, -5, 0, 0, 0, 5, 10, 10]
    assert learnable.steps(np.array([0, 0.04, 0.05, 0.5, 1])).tolist() == [0, 0, 1, 5, 10]
    sizes = np.abs(measure(run, K).gain)
    assert (sizes <= gain.limit).mean() >= 0.99
    assert (sizes > gain.limit / 2.5).mean() > 0.01
