"""The noise of scoring stands beside every gain, and no claim is made below it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from run_on_disk import write_noise, write_run

from diagnostics.report import write as writing
from diagnostics.report.chapters import record
from diagnostics.report.contexts.analysis import ReportSettings, Results, analyse
from diagnostics.report.contexts.captions import VIEWS
from diagnostics.report.contexts.chapter import contexts_chapter
from diagnostics.report.contexts.scoring import notes, scored_in
from diagnostics.report.drawing import plates_of
from diagnostics.report.figures import PLANS, figure_style, panel_noise
from diagnostics.report.page import render_page
from diagnostics.report.tables.views import Shown, cell, noise_note
from diagnostics.scoring.run import Run
from diagnostics.statistics.analyses.budgets import signals_of
from diagnostics.statistics.inference.bootstrap import draw_counts
from diagnostics.statistics.selection.selectors import select

SETTINGS = ReportSettings(top_k=8, draws=100, seed=3)  # the K that the runs store
TWO_KS = replace(SETTINGS, top_k=4)  # 4 and 8
SAME = 1e-12  # float64 sums in another order
PROMPTS = 8
# The tables that show gains, and their numbers that have an interval.
GAINS = {
    "checkpoints": ["gain"],
    "table01": ["gap", "matched_gap"],
    "table06": ["gap"],
    "table08": ["gain"],
    "table09": ["beta_l", "beta_i", "gap"],
    "quadrants": ["gain"],
    "q3_kinds": ["gain"],
}
RELATIVE = {"quadrants": [""], "q3_kinds": [""]}  # these have no relative gain


def numbers() -> list[tuple[str, str, str]]:
    """(table, number, suffix) of every gain in a report."""
    return [
        (table, name, suffix)
        for table, names in GAINS.items()
        for name in names
        for suffix in RELATIVE.get(table, ["", "_rel"])
    ]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    return lambda **options: write_run(
        tmp_path_factory.mktemp("run"), **({"prompts": PROMPTS} | options)
    )


@pytest.fixture(scope="module")
def quiet(write: Callable[..., Run]) -> Results:
    """Small noise; the checkpoint `batch` is the second scoring of theta_0 itself."""
    run = write(checkpoints={"one": 0.3, "batch": 0.0})
    return analyse([run], TWO_KS)


@pytest.fixture(scope="module")
def rough(write: Callable[..., Run]) -> Results:
    """Noise as large as what training did."""
    return analyse([write(noise={"batch": 1.5})], TWO_KS)


@pytest.fixture(scope="module")
def bare(write: Callable[..., Run]) -> Results:
    """A run without a noise floor."""
    return analyse([write(noise={})], TWO_KS)


@pytest.mark.parametrize(("table", "name", "suffix"), numbers())
def test_noise_of_a_number_is_what_an_unchanged_checkpoint_shows_there(
    quiet: Results, table: str, name: str, suffix: str
) -> None:
    frame = quiet.tables[table]
    noise = frame[f"{name}_noise{suffix}"].to_numpy()
    ends = frame[[f"{name}_low{suffix}", f"{name}_high{suffix}"]].abs().max(axis=1).to_numpy()
    unchanged = (frame["checkpoint"] == "batch").to_numpy()
    assert np.isfinite(noise).mean() > 0.5
    np.testing.assert_allclose(noise[unchanged], ends[unchanged], rtol=SAME)
    np.testing.assert_allclose(np.sort(noise[~unchanged]), np.sort(noise[unchanged]), rtol=SAME)


@pytest.mark.slow
def test_noise_of_the_mean_gain_agrees_with_resampled_prompts(write: Callable[..., Run]) -> None:
    run = write(noise={"batch": 1e-3})
    gain = run.student().kl - run.noise().kl
    prompt = run.teacher().context // 2
    counts = draw_counts(PROMPTS, SETTINGS.draws, SETTINGS.seed)
    means = [np.repeat(gain, draw[prompt].astype(int)).mean() for draw in counts]
    low, high = np.quantile(means, [0.025, 0.975])
    row = analyse([run], SETTINGS).tables["checkpoints"].iloc[0]
    assert row["gain_noise"] == pytest.approx(max(abs(low), abs(high)), rel=1e-9)
    assert row["noise_mean"] == pytest.approx(gain.mean(), rel=1e-9)
    assert row["noise_q99"] == pytest.approx(np.quantile(np.abs(gain), 0.99), rel=SAME)
    moved = np.abs(run.student().kl - run.student("one").kl)
    assert row["within_noise_share"] == (moved <= row["noise_q99"]).mean()


def test_noise_of_a_budget_is_of_the_sampled_positions_that_it_keeps(
    write: Callable[..., Run],
) -> None:
    """Every second context was scored twice; prompts 0 and 1 have none of theirs in the sample."""
    run = write(noise={"batch": 1e-3})
    gain, context = run.student().kl - run.noise().kl, run.teacher().context
    sample = (context % 2 == 1) & (context > 3)
    write_noise(run, "batch", np.flatnonzero(sample))
    results = analyse([run], SETTINGS)
    frame = results.tokens[: len(gain)]
    kept = select("kl", 0.1, signals_of(frame), 0).mask & sample
    counts = draw_counts(PROMPTS - 2, SETTINGS.draws, SETTINGS.seed)
    prompt = context[kept] // 2 - 2
    means = [np.repeat(gain[kept], draw[prompt].astype(int)).mean() for draw in counts]
    low, high = np.quantile(means, [0.025, 0.975])
    row = results.tables["table08"].query("selector == 'kl' and budget == 0.1").iloc[0]
    assert row["gain_noise"] == pytest.approx(max(abs(low), abs(high)), rel=1e-9)
    assert results.tables["noise"]["n_positions"][0] == sample.sum()


def test_noise_stands_after_all_other_columns_of_the_csv(quiet: Results) -> None:
    for table in GAINS:
        columns = list(quiet.tables[table].columns)
        first = next(i for i, c in enumerate(columns) if "_noise" in c)
        assert all("_noise" in c for c in columns[first:]), table


def test_no_answer_about_an_unchanged_checkpoint_is_clear(quiet: Results) -> None:
    answers = [a for a in quiet.answers if a.checkpoint == "batch"]
    assert len(answers) == 8
    assert {a.verdict() for a in answers} == {"unclear"}
    assert all(a.in_noise() for a in answers if a.value.low == a.value.low)


def test_small_noise_leaves_clear_answers_clear(quiet: Results, bare: Results) -> None:
    answers = [[a for a in r.answers if a.checkpoint == "one"] for r in (quiet, bare)]
    assert "yes" in {a.verdict() for a in answers[0]}
    for measured, unmeasured in zip(*answers, strict=True):
        assert measured.value == unmeasured.value
        assert measured.verdict() == unmeasured.verdict()
        assert math.isnan(unmeasured.noise)
        assert 0 < measured.noise < 1e-3


def test_an_answer_that_only_noise_blocks_says_so(rough: Results, bare: Results) -> None:
    clear = [a for a in bare.answers if a.verdict() != "unclear"]
    assert clear
    for answer in clear:
        key = ("run", "checkpoint", "question", "outcome")
        same = next(
            a for a in rough.answers if all(getattr(a, k) == getattr(answer, k) for k in key)
        )
        nearest = min(abs(answer.value.low), abs(answer.value.high))
        assert same.verdict() == (answer.verdict() if nearest > same.noise else "unclear")
        assert same.in_noise() == (nearest <= same.noise)
    assert any(a.in_noise() for a in rough.answers)
    assert "not above the noise of scoring, ±" in page(rough)


def test_results_json_has_the_noise_of_every_answer_and_kind(rough: Results) -> None:
    stored = json.loads(json.dumps(record([contexts_chapter(rough)]), allow_nan=False))
    for entry, answer in zip(stored["answers"], rough.answers, strict=True):
        assert (entry["verdict"], entry["in_noise"]) == (answer.verdict(), answer.in_noise())
        assert entry["noise"] == (None if math.isnan(answer.noise) else answer.noise)
    (floor,) = stored["runs"][0]["noise"]
    row = rough.tables["noise"].iloc[0]
    assert (floor["kind"], floor["counts"]) == ("batch", True)
    assert [floor[q] for q in ("q50", "q90", "q99", "max")] == row[
        ["q50", "q90", "q99", "max"]
    ].to_list()
    assert floor["mean"]["estimate"] == row["mean"]
    assert stored["tables"]["table01"][0]["gap_noise"] == rough.tables["table01"]["gap_noise"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "kind", "counts"), [("float32", "bfloat16", False), ("bfloat16", "float32", True)]
)
def test_noise_of_another_dtype_counts_where_that_is_finer(
    write: Callable[..., Run], dtype: str, kind: str, counts: bool
) -> None:
    settings = {"top_k": 8, "dtype": dtype, "kernel": "torch"}
    small, large = (
        analyse([write(noise=n, settings=settings)], SETTINGS)
        for n in ({"batch": 1e-6}, {"batch": 1e-6, kind: 1e-3})
    )
    before, after = (r.tables["checkpoints"]["gain_noise"][0] for r in (small, large))
    assert bool(after > 10 * before) is counts
    assert bool(after == before) is not counts
    positions = [r.tables["checkpoints"]["noise_q99"][0] for r in (small, large)]
    assert bool(positions[0] == positions[1]) is not counts
    assert list(large.tables["noise"]["counts"]) == ["yes", "yes" if counts else "no"]
    sentence = notes(large.runs[0])[1].text
    assert sentence.startswith(
        f"Noise of scoring: theta_0 scored a second time in {kind}: "
        if counts
        else f"Cost of {kind}: "
    )
    assert (
        sentence.endswith(f"This run was scored in {dtype}, so it is not in its gains.")
        is not counts
    )


def test_a_sample_without_q3_leaves_only_its_noise_unmeasured(write: Callable[..., Run]) -> None:
    run = write()
    frame = analyse([run], SETTINGS).tokens
    one = frame[frame["checkpoint"] == "one"].reset_index(drop=True)
    write_noise(run, "batch", np.flatnonzero(one["quadrant"] != 3))
    results = analyse([run], SETTINGS)
    assert results.tables["table01"]["gap_noise"].isna().all()
    assert results.tables["table06"]["gap_noise"].isna().all()
    by_scope = results.tables["table09"].groupby("scope")["gap_noise"]
    assert (by_scope.get_group("q3").isna().all(), by_scope.get_group("all").notna().all()) == (
        True,
        True,
    )
    assert results.tables["checkpoints"]["gain_noise"].notna().all()
    note = noise_note(results.tables["table01"], VIEWS["table01"].columns, results.tables["noise"])
    assert "gap not measured (too few positions)" in note
    assert math.isnan(noise_in("figure3", results)["B"])
    assert "noise not measured" in page(results)


def page(results: Results) -> str:
    chapter = contexts_chapter(results, plates_of(results))
    return render_page([chapter], dict.fromkeys(PLANS, "<svg></svg>"))


def drawn(name: str, results: Results) -> list[Axes]:
    with figure_style():
        figure = PLANS[name].draw(PLANS[name].data(results))
    assert figure is not None
    return list(figure.axes)


def noise_in(name: str, results: Results) -> dict[str, float]:
    return panel_noise(PLANS[name].data(results))


def test_a_run_without_a_floor_says_so_wherever_a_gain_is_shown(bare: Results) -> None:
    said = "not measured (the run has no noise floor)"
    assert f"Noise of scoring: {said}." in [note.text for note in notes(bare.runs[0])]
    assert list(bare.tables["noise"]["kind"]) == ["not measured"]
    for name, table in bare.tables.items():
        note = noise_note(table, VIEWS[name].columns, bare.tables["noise"])
        assert note == (f"Noise of scoring {said}." if name in GAINS else ""), name
    captions = 2 * (len(PLANS) - 1)  # each is a drawing's label too; figure 1 has no such panel
    assert page(bare).count(said) == 1 + len(GAINS) + captions
    assert bands(drawn("figure3", bare)) == []


@pytest.mark.usefixtures("undrawn")
def test_every_table_with_gains_has_its_noise_in_every_twin(
    write: Callable[..., Run], tmp_path: Path
) -> None:
    writing.write_report([write()], tmp_path, SETTINGS)
    html = (tmp_path / "report.html").read_text()
    for name in (path.stem for path in (tmp_path / "tables").glob("*.csv")):
        twins = [(tmp_path / "tables" / f"{name}.{end}").read_text() for end in ("md", "tex")]
        section = re.search(f'<section id="{name}".*?</section>', html, re.DOTALL)
        assert section
        for text in (*twins, section.group()):
            assert ("Noise of scoring (batch): an unchanged checkpoint" in text) == (name in GAINS)


def test_note_gives_the_largest_noise_over_a_tables_rows(quiet: Results) -> None:
    frame = quiet.tables["table01"].assign(gap_noise=0.0, matched_gap_noise=0.25)
    frame.loc[1, "gap_noise"] = 0.5
    frame["gap_noise_rel"] = 2.0
    assert noise_note(frame, VIEWS["table01"].columns, quiet.tables["noise"]).startswith(
        "Noise of scoring (batch): an unchanged checkpoint comes at most this far from 0: "
        "gap ±0.500, matched gap ±0.250, gap of relative gain ±2.000."
    )


def test_notes_of_two_runs_name_each(quiet: Results, bare: Results) -> None:
    frame, noise = (
        pd.concat([quiet.tables[t], bare.tables[t].assign(run="other")])
        for t in ("quadrants", "noise")
    )
    note = noise_note(frame, VIEWS["quadrants"].columns, noise)
    assert re.match(
        r"Noise of scoring in small \(batch\): an .* gain ±\S+\. Noise of .* in other", note
    )


@pytest.mark.parametrize(
    ("low", "high", "noise", "text"),
    [
        (0.2, 0.4, 0.1, "0.300 [0.200, 0.400]"),
        (0.2, 0.4, 0.2, "0.300 [0.200, 0.400] †"),
        (-0.4, -0.2, 0.3, "−0.300 [−0.400, −0.200] †"),
        (-0.1, 0.7, 0.3, "0.300 [−0.100, 0.700]"),
        (0.2, 0.4, math.nan, "0.300 [0.200, 0.400]"),
        (math.nan, math.nan, 0.1, "0.300 (no interval)"),
    ],
)
def test_a_cell_not_above_the_noise_has_a_dagger(
    low: float, high: float, noise: float, text: str
) -> None:
    middle = -0.3 if high < 0 else 0.3
    row = {"gap": middle, "gap_low": low, "gap_high": high, "gap_noise": noise}
    assert cell(row, Shown("gap", "gap", "interval")) == text


def test_the_dagger_is_explained_where_it_stands_and_nowhere_else(rough: Results) -> None:
    for name in GAINS:
        frame, columns = rough.tables[name], VIEWS[name].columns
        marked = any(
            cell(row, c).endswith("†")
            for row in frame.to_dict("records")
            for c in columns
            if c.kind == "interval"
        )
        note = noise_note(frame, columns, rough.tables["noise"])
        assert note.endswith("† Not above the noise of scoring.") == marked, name


def bands(axes: Any) -> list[tuple[float, float, float, float]]:
    """(x0, y0, x1, y1) of each noise band, in axes or data units as drawn."""
    found = [p for axis in axes for p in axis.patches if p.get_label() == "_noise"]
    return [tuple(p.get_path().get_extents(p.get_patch_transform()).extents) for p in found]


def test_figure_3_has_bands_of_the_noise_that_its_tables_give(rough: Results) -> None:
    noise = noise_in("figure3", rough)
    betas = rough.tables["table09"].query("scope == 'all'")
    assert noise["A"] == betas[["beta_l_noise", "beta_i_noise"]].to_numpy().max()
    assert noise["B"] == rough.tables["q3_kinds"]["gain_noise"].max()
    assert noise["C"] == rough.tables["table01"]["gap_noise"].max()
    bands_of = {axis.get_title(loc="left")[0]: bands([axis]) for axis in drawn("figure3", rough)}
    (a,), (b,), (c,) = (bands_of[letter] for letter in "ABC")
    assert (a[1], a[3]) == (-noise["A"], noise["A"])
    assert (b[1], b[3]) == (-noise["B"], noise["B"])
    assert (c[0], c[2]) == (-noise["C"], noise["C"])


def test_figure_2_noise_is_what_an_unchanged_checkpoint_draws(quiet: Results) -> None:
    """The checkpoint `batch` drawn in the place of the first one has ends at the band's edge."""
    tokens = quiet.tokens[quiet.tokens["checkpoint"] == "batch"].reset_index(drop=True)
    alone = tokens.assign(checkpoint=["batch"] * len(tokens))
    curves = drawn("figure2", replace(quiet, tokens=alone))[0]
    shades = [c.get_paths()[0].vertices[:, 1] for c in curves.collections]
    assert max(np.nanmax(np.abs(s)) for s in shades) == pytest.approx(
        noise_in("figure2", quiet)["A"], rel=SAME
    )


@pytest.mark.parametrize(
    ("panel", "table", "number"), [("4D", "buckets", "gain"), ("5C", "bins", "residual")]
)
def test_noise_over_buckets_is_what_an_unchanged_checkpoint_shows_there(
    write: Callable[..., Run], panel: str, table: str, number: str
) -> None:
    run = write(checkpoints={"batch": 0.0}, noise={"batch": 1e-3})
    results = analyse([run], SETTINGS)
    rows = results.tables[table]
    rows = rows if table == "bins" else rows[rows["signal"] != "learnable"]
    ends = rows[[f"{number}_low", f"{number}_high"]].abs().to_numpy().max()
    assert noise_in(f"figure{panel[0]}", results)[panel[1]] == pytest.approx(ends, rel=1e-9)


def test_figure_2_noise_is_the_larger_of_both_scores(quiet: Results) -> None:
    names = {"learnable": "incompatible", "incompatible": "learnable"}
    swapped = replace(quiet, unchanged=[frame.rename(columns=names) for frame in quiet.unchanged])
    assert noise_in("figure2", swapped) == noise_in("figure2", quiet)


def test_facts_say_dtype_and_kernel(quiet: Results) -> None:
    assert scored_in(quiet.runs[0]) == "float32, torch"
    assert "<div><dt>scored in</dt><dd>float32, torch</dd></div>" in page(quiet)


def stamped(kind: str | None) -> dict[str, Any]:
    return {"model": "m", "fingerprint": "0" * 64, "quantization": kind}


def test_quantised_models_are_warned_of_by_name_and_kind(bare: Results) -> None:
    models = {"teacher": stamped("gguf Q8_0"), "student": stamped(None)}
    trained = {"a": stamped(None), "b": stamped("gguf Q4_0")}
    (warning,) = [n for n in notes({**bare.runs[0], **models, "checkpoints": trained}) if n.warning]
    assert warning.text == (
        "Quantised: teacher (gguf Q8_0), b (gguf Q4_0). Every KL and gain here is of the "
        "quantised weights, not of the model that they were made from."
    )


def test_models_that_are_not_quantised_give_no_warning(bare: Results) -> None:
    assert [note.warning for note in notes(bare.runs[0])] == [False]


def vocabulary(**sizes: int) -> Mapping[str, int]:
    return {"shared": 40, "teacher": 40, "student": 40} | sizes


@pytest.mark.slow
def test_dropped_mass_is_given_for_each_side_where_vocabularies_differ(
    write: Callable[..., Run],
) -> None:
    run = write(
        vocabulary=vocabulary(teacher=1064),
        dropped={"teacher": [0.002, 0.001, 0.004], "two": [5e-4]},
        noise={},
    )
    # float32 holds 0.001 as 0.001000000047, a little more than 1e-3: 3 of 480 positions
    count = 2 * PROMPTS * 30
    (stored,) = analyse([run], SETTINGS).runs
    assert stored["dropped"]["teacher"] == pytest.approx(
        {"mean": 0.007 / count, "max": 0.004, "n_large": 3, "n_positions": count}, rel=1e-6
    )
    assert stored["dropped"]["theta_0"] == {"mean": 0, "max": 0, "n_large": 0, "n_positions": count}
    note = notes(stored)[-1]
    assert note.warning
    assert note.text == (
        "Vocabularies differ: teacher 1,064 ids, student 40. The 40 shared ones were used, and "
        "each distribution renormalised on them. Probability mass dropped by that: teacher mean "
        "1.46e−05, largest 0.00400, more than 0.001 at 3 of 480 positions; theta_0 none; two (the "
        "most of the checkpoints) mean 1.04e−06, largest 0.000500, more than 0.001 at 0 of 480 "
        "positions."
    )


def test_small_dropped_mass_is_no_warning(write: Callable[..., Run]) -> None:
    run = write(vocabulary=vocabulary(student=41), dropped={"theta_0": [1e-4]}, noise={})
    note = notes(analyse([run], SETTINGS).runs[0])[-1]
    assert note.text.startswith("Vocabularies differ: teacher 40 ids, student 41.")
    assert not note.warning


def test_equal_vocabularies_are_not_spoken_of(bare: Results) -> None:
    assert not [n for n in notes(bare.runs[0]) if "ocabular" in n.text]


def test_steps_of_checkpoints_are_in_results_json(write: Callable[..., Run]) -> None:
    stamps = {"one": stamped(None) | {"step": 30}, "two": stamped(None)}
    results = analyse([write(checkpoints=dict.fromkeys(stamps, 0.2))], SETTINGS)
    assert results.runs[0]["steps"] == {"one": None, "two": None}
