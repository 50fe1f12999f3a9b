"""Figures 1 to 5 by the data on their axes, against numbers made here; and whether they read."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from run_on_disk import write_run

from diagnostics.paper.tables import paper_table
from diagnostics.report.chapters import json_rows
from diagnostics.report.contexts.analysis import ReportSettings, Results, analyse
from diagnostics.report.contexts.examples import example_positions
from diagnostics.report.figures import PLANS, figure_style, style_file
from diagnostics.report.figures.style import INK, NEUTRAL, shown
from diagnostics.report.write import write_figure
from diagnostics.scoring.run import Run
from diagnostics.statistics.tables.measured import measure_start
from diagnostics.statistics.tables.tokens import token_table

K = 4
SETTINGS = ReportSettings(top_k=K, draws=40, seed=3)
SAME = 1e-9
PANELS = {"figure1": "AB", "figure2": "ABC", "figure3": "ABC", "figure4": "ABCD", "figure5": "ABC"}
TEACHERS = ("Qwen/Qwen3-4B", "models/Qwen3-8B@main", "org/a-teacher-with-a-very-long-name-14B")
HOSTILE = (
    "$x^2$",
    "<script>alert(1)</script>",
    "\n",
    "\t\x00",
    "你好",
    "\u202eabc",
    " the",
    "_under",
    "a$b",
    "\\frac{",
    "e\u0300\u0301\u0302",
    "x" * 100_000,
    "</svg>&amp;",
    "",
    "   ",
    "\ud7ff\uffff",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    texts = [f" w{index}" for index in range(30)]
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder, prompts=10, checkpoints={"one": 0.3}, texts=texts)


@pytest.fixture(scope="module")
def results(run: Run) -> Results:
    """A single setting."""
    return analyse([run], SETTINGS)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three runs of two checkpoints, with names and tokens that try to break a drawing."""
    folder = tmp_path_factory.mktemp("six")
    names = ("$4B$ <b>", "_gsm8k", "held-out-math-of-a-long-name-that-does-not-end")
    runs = [
        write_run(
            folder / str(seed),
            name=name,
            seed=seed,
            prompts=6,
            checkpoints={"full": 0.3, "_ta$-05": 0.1},
            texts=HOSTILE,
            teacher={"model": teacher, "fingerprint": "0" * 64},
        )
        for seed, (name, teacher) in enumerate(zip(names, TEACHERS, strict=True))
    ]
    return analyse(runs, SETTINGS)


@pytest.fixture(params=["one setting", pytest.param("six settings", marks=pytest.mark.slow)])
def either(request: pytest.FixtureRequest, results: Results, six: Results) -> Results:
    return results if request.param == "one setting" else six


def drawn(name: str, results: Results) -> Figure:
    with figure_style():
        figure = PLANS[name].draw(PLANS[name].data(results))
    assert figure is not None
    return figure


def panel(name: str, results: Results) -> Axes:
    """The axes of a panel, as 3A."""
    figure = drawn(f"figure{name[0]}", results)
    return next(a for a in figure.axes if a.get_title(loc="left").startswith(f"{name[1]}  "))


def points(axis: Axes, *, paper: bool = False) -> list[tuple[float, float]]:
    """(x, y) of the estimates of runs, or of the paper, in the order they were drawn."""
    lines = [line for line in axis.get_lines() if line.get_marker() not in ("None", None, "")]
    kept = [line for line in lines if same_color(line.get_color(), NEUTRAL) == paper]
    pairs = [p for line in kept for p in zip(line.get_xdata(), line.get_ydata(), strict=True)]
    return [(float(x), float(y)) for x, y in pairs if np.isfinite(x) and np.isfinite(y)]


def first_checkpoint(results: Results) -> pd.DataFrame:
    tokens = results.tokens
    return tokens[tokens["checkpoint"] == tokens["checkpoint"].iloc[0]].reset_index(drop=True)


def in_q3(results: Results) -> pd.DataFrame:
    frame = first_checkpoint(results)
    return frame[frame["quadrant"] == 3]


@pytest.mark.parametrize("name", PLANS)
def test_every_panel_of_the_paper_is_there_and_lettered(name: str, either: Results) -> None:
    titles = [axis.get_title(loc="left") for axis in drawn(name, either).axes]
    lettered = [title[0] for title in titles if title[1:3] == "  "]
    assert "".join(sorted(lettered)) == PANELS[name]
    frames = PLANS[name].data(either)
    assert list(frames) == [f"{name}{letter.lower()}" for letter in PANELS[name]]


def test_1a_shows_the_probabilities_of_the_likeliest_tokens(run: Run, results: Results) -> None:
    teacher, student = run.teacher(), run.student()
    contexts = run.contexts()[0]
    figure = drawn("figure1", results)
    examples = results.positions.groupby("example", sort=False)
    for axis, (_, rows) in zip(figure.axes[:2], examples, strict=True):
        row = rows.iloc[0]
        owner = contexts.index(row["context_id"])
        (index,) = np.flatnonzero(
            (teacher.context == owner) & (teacher.position == row["position"])
        )
        by_teacher = dict(zip(teacher.top_ids[index], teacher.top_logprob[index], strict=True))
        by_teacher |= dict(zip(student.top_ids[index], student.teacher_logprob[index], strict=True))
        by_student = dict(
            zip(teacher.top_ids[index], student.logprob_at_teacher[index], strict=True)
        )
        by_student |= dict(zip(student.top_ids[index], student.top_logprob[index], strict=True))
        most = sorted(by_teacher, key=lambda t: -max(by_teacher[t], by_student[t]))[:6]
        bars = [bar.get_width() for bar in axis.patches]
        expected = [np.exp(table[t]) for table in (by_teacher, by_student) for t in most]
        assert bars == pytest.approx(expected, rel=SAME)
        labels = [label.get_text() for label in axis.get_yticklabels()]
        assert labels == [f"␣w{t}" if t < 30 else f"⟨{t}⟩" for t in most]
        outside = sum(t not in student.top_ids[index, :K] for t in most)
        assert sum(text.get_text() == "off support" for text in axis.texts) == outside


@pytest.mark.parametrize(
    ("example", "score", "factor"),
    [
        ("learnable", "learnable", lambda c: c),
        ("incompatible", "incompatible", lambda c: 1 - c),
    ],
)
def test_1a_is_of_the_q3_positions_of_the_largest_scores(
    results: Results, example: str, score: str, factor: Callable[[Any], Any]
) -> None:
    q3, row = in_q3(results), results.positions.set_index("example").loc[example].iloc[0]
    assert row[score] == q3[score].max()
    best = q3[q3[score] == q3[score].max()]
    assert row["position"] in set(best["position"])
    where = best[(best["context_id"] == row["context_id"]) & (best["position"] == row["position"])]
    assert len(where) == 1
    assert where["gain"].item() == row["gain"]


def test_1a_gives_the_text_before_and_the_numbers(run: Run, results: Results) -> None:
    teacher, contexts = run.teacher(), run.contexts()[0]
    texts = run.token_texts()
    assert texts is not None
    for _, rows in results.positions.groupby("example"):
        row = rows.iloc[0]
        there = teacher.context == contexts.index(row["context_id"])
        ids = teacher.token_id[there & (teacher.position < row["position"])]
        assert row["before"].endswith("".join(texts[int(i)] for i in ids)[-80:])
    said = [text.get_text() for text in drawn("figure1", results).axes[0].texts]
    first = results.positions.iloc[0]
    assert any(f"$D$ = {first['disagreement']:.3f}, $C$ = " in text for text in said)


def test_1b_has_the_runs_numbers_in_its_boxes(results: Results) -> None:
    said = {text.get_text() for text in panel("1B", results).texts}
    count = len(first_checkpoint(results))
    assert {"20 contexts", "from 10 prompts", f"{count:,} positions", "top-$K$, $K$ = 4"} <= said
    assert f"{math.ceil(0.05 * count)} positions" in said
    assert f"mean {first_checkpoint(results)['gain'].mean():.3f}" in said


def test_2a_shows_mean_gain_of_each_tenth(either: Results) -> None:
    axis = panel("2A", either)
    frame = first_checkpoint(either)
    curves = [line for line in axis.get_lines() if line.get_marker() in ("o", "D")]
    for line, column in zip(curves, ("learnable", "incompatible"), strict=True):
        tenth = np.clip(np.ceil(frame[column] * 10 - 1e-12), 1, 10)
        groups = frame.groupby(tenth)
        assert np.allclose(line.get_xdata(), groups[column].mean(), atol=1e-12)
        assert np.allclose(line.get_ydata(), groups["gain"].mean(), atol=1e-12)


@pytest.mark.parametrize(("name", "column"), [("2B", "learnable"), ("2C", "incompatible")])
def test_2b_and_c_show_means_over_the_plane_and_outline_q3(
    results: Results, name: str, column: str
) -> None:
    axis, frame = panel(name, results), first_checkpoint(results)
    (mesh,) = axis.collections
    edges = mesh.get_coordinates()
    x, y = edges[0, :, 0], edges[:, 0, 1]
    inside = frame[(frame["entropy"] >= x[0]) & (frame["kl_0"] >= y[0])]
    cuts = [
        pd.cut(inside[name], z, labels=False, include_lowest=True, right=False)
        for name, z in (("kl_0", y[:-1]), ("entropy", x[:-1]))
    ]
    cells = [cut.fillna(len(z) - 2).astype(int) for cut, z in zip(cuts, (y, x), strict=True)]
    expected = np.full((len(y) - 1, len(x) - 1), np.nan)
    for (row, place), value in inside.groupby(cells)[column].mean().items():
        expected[row, place] = value
    found = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    q3 = in_q3(results)
    outline = next(line for line in axis.get_lines() if len(line.get_xdata()) == 5)
    assert max(outline.get_xdata()) == q3["entropy"].max()
    assert min(outline.get_ydata()) == q3["kl_0"].min()


def test_3a_shows_table_9_and_the_papers(either: Results) -> None:
    table = either.tables["table09"].query("scope == 'all'")
    ours = [y for _, y in points(panel("3A", either))]
    assert sorted(ours) == pytest.approx(sorted(table[["beta_l", "beta_i"]].to_numpy().ravel()))
    theirs = [y for _, y in points(panel("3A", either), paper=True)]
    assert theirs == [0.086, 0.045]  # K = 8; the run has no 16 and 32


def test_3b_shows_means_of_thirds_of_q3(results: Results) -> None:
    q3 = in_q3(results)
    d_l, d_i, gain = (q3[name].to_numpy() for name in ("learnable", "incompatible", "gain"))
    expected = [
        gain[d_l >= np.quantile(d_l, 2 / 3)].mean(),
        gain[d_l <= np.quantile(d_l, 1 / 3)].mean(),
        gain[d_i >= np.quantile(d_i, 2 / 3)].mean(),
    ]
    assert points(panel("3B", results)) == [
        (place, pytest.approx(mean, rel=SAME)) for place, mean in enumerate(expected)
    ]


@pytest.mark.parametrize(("name", "number"), [("3C", "gap"), ("5B", "gap"), ("5B", "matched_gap")])
def test_gaps_by_setting_are_table_1s_and_the_papers(
    either: Results, name: str, number: str
) -> None:
    table = either.tables["table01"]
    rows = table if name == "3C" else table[table["top_k"] == K]
    axis = panel(name, either)
    ours, theirs = ({x for x, _ in points(axis, paper=p)} for p in (False, True))
    assert set(rows[number]) <= ours
    assert set(paper_table("table01")[number]) <= theirs
    assert len({y for _, y in points(axis)}) == len(points(axis))
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[: len(rows)].count("$K$ = 4") == rows["top_k"].eq(K).sum()


def test_4a_and_b_show_table_8_of_the_first_setting_and_the_papers(either: Results) -> None:
    table = either.tables["table08"]
    first = table[(table["run"] == table["run"].iloc[0]) & (table["top_k"] == K)]
    first = first[first["checkpoint"] == first["checkpoint"].iloc[0]]
    rows = first[first["budget"].isin((0.03, 0.05))]
    for name, column in (("4A", "gain"), ("4B", "gain_per_keep")):
        axis = panel(name, either)
        assert sorted(x for x, _ in points(axis)) == pytest.approx(sorted(rows[column]))
        theirs = [x for x, _ in points(axis, paper=True)]
        assert sorted(theirs) == pytest.approx(sorted(paper_table("table08")[column]))
    labels = [label.get_text() for label in panel("4A", either).get_yticklabels()]
    best = rows.loc[rows["gain"].idxmax(), "selector"]
    assert labels[-1] == best
    (y,) = {round(y) for x, y in points(panel("4A", either)) if x == rows["gain"].max()}
    assert labels[y] == best


def test_4c_shows_table_6_at_the_largest_support(results: Results) -> None:
    table = results.tables["table06"]
    axis = panel("4C", results)
    rows = table[table["top_k"] == 8]
    assert sorted(x for x, _ in points(axis)) == pytest.approx(sorted(rows["gap"]))


def test_4c_has_the_papers_gaps_where_a_run_has_its_support_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import run_on_disk

    monkeypatch.setattr(run_on_disk, "STORED_K", 32)
    run = write_run(tmp_path, prompts=4, checkpoints={"one": 0.3})
    results = analyse([run], replace(SETTINGS, top_k=16))
    axis = panel("4C", results)
    table = results.tables["table06"]
    rows = table[table["top_k"].isin((16, 32))]
    assert sorted(x for x, _ in points(axis)) == pytest.approx(sorted(rows["gap"]))
    theirs = [x for x, _ in points(axis, paper=True)]
    assert sorted(theirs) == sorted(paper_table("table06")["gap"])
    a = [y for _, y in points(panel("3A", results), paper=True)]
    assert a == [0.086, 0.087, 0.087, 0.045, 0.043, 0.043]


def test_4d_shows_quarters_of_q3(results: Results) -> None:
    q3 = in_q3(results)
    lines = [line for line in panel("4D", results).get_lines() if len(line.get_xdata()) == 4]
    bold = [line for line in lines if line.get_linestyle() != "None"]
    columns = ("compatibility_norm", "kl_0", "incompatible")
    for line, column in zip(bold, columns, strict=True):
        cuts = np.quantile(q3[column], [0.25, 0.5, 0.75])
        bucket = np.searchsorted(cuts, q3[column], side="left")  # a value on a cut falls below it
        assert np.allclose(line.get_ydata(), q3["gain"].groupby(bucket).mean(), atol=1e-12)
        assert np.allclose(np.round(line.get_xdata()), [1, 2, 3, 4])


def test_4d_bold_lines_are_the_mean_of_thin_ones(six: Results) -> None:
    lines = [line for line in panel("4D", six).get_lines() if len(line.get_xdata()) == 4]
    widths = sorted({line.get_linewidth() for line in lines})
    assert len(widths) == 2
    for bold in (line for line in lines if line.get_linewidth() == widths[1]):
        mine = [s for s in lines if s.get_color() == bold.get_color() and s is not bold]
        assert len(mine) == 6
        mean = np.mean([line.get_ydata() for line in mine], axis=0)
        np.testing.assert_allclose(bold.get_ydata(), mean, atol=1e-12)


def test_5a_shows_table_6_with_its_ties(either: Results) -> None:
    table = either.tables["table06"]
    rows = table[
        (table["run"] == table["run"].iloc[0])
        & (table["checkpoint"] == table["checkpoint"].iloc[0])
    ]
    axis = panel("5A", either)
    order = ["compatibility", "bc_union", "jaccard", "overlap", "shared_teacher_mass"]
    rows = pd.concat([rows[rows["proxy"] == name].sort_values("top_k") for name in order])
    assert [x for x, _ in points(axis)] == pytest.approx(list(rows["gap"]))
    said = [text.get_text() for text in axis.texts if text.get_text() != "tied"]
    assert said == [f"{100 * share:.0f} %" for share in rows["tied_share"]]


def test_5c_shows_what_least_squares_leaves_in_tenths(results: Results) -> None:
    frame = first_checkpoint(results)
    controls = ["entropy_norm", "disagreement_norm", "relative_position", "teacher_entropy_norm"]
    design = np.column_stack([np.ones(len(frame)), *(frame[name] for name in controls)])
    left = frame["gain"] - design @ np.linalg.lstsq(design, frame["gain"], rcond=None)[0]
    curves = [s for s in panel("5C", results).get_lines() if s.get_linestyle() not in ("None",)]
    columns = ("learnable", "incompatible", "compatibility_norm")
    for line, column in zip(curves, columns, strict=False):
        cuts = np.quantile(frame[column], np.arange(1, 10) / 10)
        bucket = np.searchsorted(np.unique(cuts), frame[column], side="left")
        means = left.groupby(bucket).mean()
        assert np.allclose(line.get_ydata(), means, atol=1e-9)


@pytest.mark.parametrize("name", PLANS)
def test_frames_that_went_through_json_draw_the_same(name: str, either: Results) -> None:
    frames = PLANS[name].data(either)
    stored = json.loads(json.dumps({key: json_rows(frame) for key, frame in frames.items()}))
    with figure_style():
        again = PLANS[name].draw({key: pd.DataFrame(rows) for key, rows in stored.items()})
    assert again is not None
    assert contents(again) == contents(drawn(name, either))


def contents(figure: Figure) -> list[Any]:
    """Everything that axes show, as text that can be compared."""
    found: list[Any] = []
    for axis in figure.axes:
        found += [np.asarray(line.get_xydata()).tolist() for line in axis.get_lines()]
        found += [np.asarray(p.get_path().vertices).tolist() for p in axis.patches]
        found += [
            np.asarray(path.vertices).tolist() for c in axis.collections for path in c.get_paths()
        ]
        found += [text.get_text() for text in axis.findobj(Text)]
        found.append((axis.get_xlim(), axis.get_ylim()))
    return [str(value) for value in found]


@pytest.mark.parametrize("name", PLANS)
def test_no_label_leaves_the_figure_or_lies_on_another_of_its_axis(
    name: str, either: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(name, either)
    seen: dict[Text, Bbox] = {}

    def record(text: Text, renderer: Any) -> None:
        seen[text] = text.get_window_extent(renderer)

    with figure_style():
        figure.draw_without_rendering()  # lays out
        monkeypatch.setattr(Text, "draw", record)
        figure.draw_without_rendering()
    boxes = {text: box for text, box in seen.items() if text.get_text().strip()}
    assert len(boxes) > 20
    whole = figure.bbox.padded(1)
    for text, box in boxes.items():
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, text.get_text()
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, text.get_text()
    for axis in figure.axes:
        titles = [axis._left_title, axis.xaxis.label, axis.yaxis.label]
        own = [*axis.get_xticklabels(), *axis.get_yticklabels(), *axis.texts, *titles]
        shown_here = [text for text in own if text in boxes]
        for one, other in combinations(shown_here, 2):
            apart = not boxes[one].padded(-0.5).overlaps(boxes[other].padded(-0.5))
            assert apart, (one.get_text(), other.get_text())


@pytest.mark.parametrize("name", ["4D", "5C"])
def test_legends_of_trends_lie_above_the_lines(name: str, either: Results) -> None:
    axis = panel(name, either)
    with figure_style():
        axis.figure.draw_without_rendering()
    tops = [line.get_window_extent().y1 for line in axis.get_lines()]
    bars = [axis.transData.transform(s)[:, 1] for c in axis.collections for s in c.get_segments()]
    legend = axis.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 > max([*tops, *(y.max() for y in bars)])


@pytest.mark.parametrize("name", PLANS)
def test_hostile_names_are_text_in_a_sound_svg(name: str, six: Results) -> None:
    buffer = io.StringIO()
    figure = drawn(name, six)
    with figure_style():
        figure.savefig(buffer, format="svg")
    root = ElementTree.fromstring(buffer.getvalue())
    assert not [e for e in root.iter() if e.tag.rsplit("}", 1)[-1] in ("script", "b")]
    assert len(buffer.getvalue()) < 400_000
    assert "$4B$" in "".join(root.itertext())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$x^2$", r"\$x^2\$"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x00", r"\x00"),
        ("\u202eabc", r"\u202eabc"),
        ("你", r"\u4f60"),
        ("e\u0301", r"e\u0301"),
        ("x" * 30, "x" * 19 + "…"),
        ("你" * 30, r"\u4f60" * 3 + "…"),
        ("", ""),
    ],
)
def test_text_from_outside_is_shown_with_escapes(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_the_tail_of_a_text_and_its_spaces_can_be_shown() -> None:
    assert shown("abcdef", 4, tail=True) == "…def"
    assert shown("abcd", 4, tail=True) == "abcd"
    assert shown(" the  ", spaces=True) == "␣the␣␣"
    assert shown("   ", spaces=True) == "␣␣␣"


def test_a_run_without_token_texts_shows_ids(tmp_path: Path, results: Results) -> None:
    run = write_run(tmp_path, prompts=4, checkpoints={"one": 0.3})
    start = measure_start(run, K, run.contexts())
    positions = example_positions(run, token_table(run, K), start)
    labels = drawn("figure1", replace(results, positions=positions)).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [f"⟨{t}⟩" for t in positions["token_id"][:6]]


def test_of_more_than_six_settings_the_first_checkpoint_of_each_run_is_shown(
    six: Results,
) -> None:
    tables = {
        name: pd.concat([rows, rows.assign(checkpoint=rows["checkpoint"] + "-again")])
        for name, rows in six.tables.items()
        if name in ("table09", "table01", "q3_kinds")
    }
    for frame in PLANS["figure3"].data(replace(six, tables=tables)).values():
        ours = frame[frame["source"] == "run"]
        assert set(ours["checkpoint"]) == {"full"}
        assert ours["run"].nunique() == 3


@pytest.mark.parametrize(
    ("table", "name", "left"),
    [
        ("q3_kinds", "figure3", "AC"),
        ("table09", "figure3", "BC"),
        ("table01", "figure3", "AB"),
        ("table06", "figure4", "ABD"),
        ("table08", "figure4", "CD"),
        ("bins", "figure5", "AB"),
        ("table06", "figure5", "BC"),
        ("table01", "figure5", "AC"),
    ],
)
def test_a_panel_without_numbers_is_left_out(
    results: Results, table: str, name: str, left: str
) -> None:
    tables = {key: frame for key, frame in results.tables.items() if key != table}
    figure = drawn(name, replace(results, tables=tables))
    found = [a.get_title(loc="left")[0] for a in figure.axes if a.get_title(loc="left")]
    assert "".join(sorted(found)) == left


@pytest.mark.parametrize("name", PLANS)
def test_empty_frames_make_no_figure(name: str) -> None:
    assert PLANS[name].draw({}) is None


@pytest.mark.parametrize("name", PLANS)
def test_every_plate_says_what_it_shows_and_how_to_read_it(name: str) -> None:
    plate = PLANS[name]
    assert plate.name == name
    assert plate.title.startswith(f"Figure {name[-1]}: ")
    assert all(f"{letter}: " in plate.caption or letter in "BC" for letter in PANELS[name])
    assert plate.reading.endswith(".")


@pytest.mark.parametrize("name", ["figure1", "figure3"])
def test_pdf_embeds_its_fonts(results: Results, name: str) -> None:
    figure, buffer = drawn(name, results), io.BytesIO()
    with figure_style(), mpl.rc_context({"pdf.compression": 0}):
        figure.savefig(buffer, format="pdf")
    fonts = buffer.getvalue().count(b"/FontFile2")
    assert fonts >= 2
    assert buffer.getvalue().count(b"/Subtype /Type3") == 0
    assert buffer.getvalue().count(b"/Type /FontDescriptor") == fonts


def test_figures_are_small_wide_and_on_white_with_a_clear_svg(
    results: Results, tmp_path: Path
) -> None:
    figure = drawn("figure3", results)
    with figure_style():
        svg = write_figure(figure, tmp_path, "figure3", "paper")
    assert figure.get_figwidth() == 7.2
    with Image.open(tmp_path / "figure3.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    assert (tmp_path / "figure3.png").stat().st_size < 80_000
    assert (tmp_path / "figure3.pdf").stat().st_size < 50_000
    assert INK in svg
    assert 'fill: #ffffff"' not in svg


def test_drawing_leaves_the_callers_matplotlib_alone(results: Results) -> None:
    before = dict(mpl.rcParams)
    drawn("figure2", results)
    assert dict(mpl.rcParams) == before


def test_our_style_is_one_that_others_can_use() -> None:
    import matplotlib.style

    with matplotlib.style.context(style_file()):
        assert (mpl.rcParams["pdf.fonttype"], mpl.rcParams["font.size"]) == (42, 8)
        assert mpl.rcParams["figure.figsize"] == [3.5, 2.6]
