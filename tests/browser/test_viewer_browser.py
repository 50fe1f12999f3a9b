"""The viewer in a real Chromium: the token table's numbers, by mouse, keyboard and link."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Opened, OpenPage, assert_quiet
from playwright.sync_api import Locator, Page, expect
from run_on_disk import HOSTILE, VOCABULARY, write_run

from diagnostics.files import read_parquet, write_parquet
from diagnostics.report.assets import asset, policy
from diagnostics.report.viewer.page import (
    SCRIPT,
    ViewerSettings,
    viewer_section,
    write_viewer,
    write_viewers,
)
from diagnostics.scoring.run import START, TEACHER, Run, part_file
from diagnostics.statistics.analyses.budgets import selections
from diagnostics.statistics.tables.tokens import token_table

pytestmark = pytest.mark.slow

K = 4
SETTINGS = ViewerSettings(top_k=K)
WORDS = ("<end>", *(f" w{i}" for i in range(1, 30)), "\n", "\t", " ", ".", *"abcdef")
ELEMENTS = (
    "p div noscript label span select option input article h2 strong bdi details summary b i",
    "dl dt dd sup sub ol li a button script code",
)
WIDTHS = (380, 1024, 1600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run"), prompts=12, length=40, texts=WORDS)


@pytest.fixture(scope="module")
def frame(run: Run) -> pd.DataFrame:
    """The token table of the first checkpoint, by (context, position)."""
    table = token_table(run, K, ["one"])
    index = table["context_id"].astype(str).str[1:].astype(int)
    return (
        table.assign(index=index)
        .set_index(["index", "position"], drop=False)
        .rename_axis([None, None])
    )


@pytest.fixture(scope="module")
def view(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_viewer(run, tmp_path_factory.mktemp("view") / "view.html", SETTINGS)[0]


@pytest.fixture(scope="module")
def section(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with styles of its own and two viewers in it."""
    folder = tmp_path_factory.mktemp("section")
    inside = "".join(
        f"<h2>Viewer {n}</h2>{viewer_section(run, SETTINGS, contexts=6, number=n)}" for n in (1, 2)
    )
    page = folder / "page.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Page</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy((SCRIPT,))}">'
        f'<style>{asset("page.css")}</style></head><body><div class="page"><main><h1>Page</h1>'
        f"{inside}</main></div><script>{asset(SCRIPT)}</script></body></html>",
        encoding="utf-8",
    )
    return page


def ready(one: Opened) -> Page:
    one.page.wait_for_selector(".tv-token")
    return one.page


def numbers(page: Page) -> dict[str, float]:
    """What the panel says, by symbol."""
    pairs = page.locator("#tv .tv-numbers > div")
    terms = pairs.locator("dt").all_inner_texts()
    values = pairs.locator("dd").all_inner_texts()
    return {t: read(v) for t, v in zip(terms, values, strict=True) if t != "quadrant"}


def read(text: str) -> float:
    return float(text.replace("−", "-"))


def table_numbers(row: Any) -> dict[str, float]:
    columns = {
        "G": "gain",
        "DL": "learnable",
        "DI": "incompatible",
        "C": "compatibility",
        "KL0": "kl_0",
        "KLτ": "kl",
        "H": "entropy",
    }
    return {term: float(row[column]) for term, column in columns.items()}


def order(page: Page) -> list[int]:
    ids = page.locator(".tv-context:not([hidden])").evaluate_all("all => all.map(one => one.id)")
    return [int(name.removeprefix("tv-c")) for name in ids]


def counted(page: Page) -> tuple[int, int]:
    """Positions and contexts that the filters leave."""
    shown = page.locator("#tv .tv-count strong").all_inner_texts()
    positions, contexts = (int(text.replace(",", "")) for text in shown)
    return positions, contexts


def place(element: Locator) -> tuple[int, int]:
    """(context, position) of a token."""
    name = re.fullmatch(r"tv-c(\d+)-p(\d+)", element.get_attribute("id") or "")
    assert name
    return int(name[1]), int(name[2])


def lightness(rgb: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", rgb)[:3])) / 3


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {n['html'][:200]}" for v in found for n in v["nodes"][:3]]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_opens_offline_quietly_without_violations_or_scrolling_sideways(
    open_page: OpenPage, view: Path, width: int, dark: bool
) -> None:
    one = open_page(view, width=width, dark=dark)
    page = ready(one)
    page.locator(".tv-token").nth(3).click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert_quiet(one)


@pytest.mark.parametrize("scale", range(1, 6))
def test_every_measure_has_readable_colours(open_page: OpenPage, view: Path, scale: int) -> None:
    page = ready(open_page(view))
    page.select_option("#tv-scale", str(scale))
    page.select_option("#tv-quadrant", "3")
    assert violations(page) == []


def test_three_hundred_contexts_load_soon(
    open_page: OpenPage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", prompts=150, length=192, texts=WORDS)
    (path,) = write_viewer(run, tmp_path / "view.html", SETTINGS)
    start = time.perf_counter()
    one = open_page(path)
    page = ready(one)
    took = time.perf_counter() - start
    size = path.stat().st_size / 1e6
    with capsys.disabled():
        print(f"\n300 contexts x 192 tokens: {size:.1f} MB, {took:.2f} s to the first token")
    assert took < 10
    assert counted(page) == (57_600, 300)
    assert page.locator(".tv-token").count() < 30 * 192  # the rest is built when it comes near
    assert_quiet(one)


def test_far_context_is_built_when_it_comes_near(open_page: OpenPage, view: Path) -> None:
    page = ready(open_page(view, height=400))
    last = page.locator(".tv-context").last
    assert last.locator(".tv-token").count() == 0
    last.scroll_into_view_if_needed()
    expect(last.locator(".tv-token")).to_have_count(40)


def test_hover_gives_the_numbers_of_the_token_table(
    open_page: OpenPage, view: Path, frame: pd.DataFrame
) -> None:
    page = ready(open_page(view))
    for nth in (0, 7, 23):
        token = page.locator(".tv-token").nth(nth)
        token.hover()
        expected = table_numbers(frame.loc[place(token)])
        assert numbers(page) == pytest.approx(expected, rel=6e-4, abs=1e-9)
        quadrant = page.locator("dt:text-is('quadrant') + dd").inner_text()
        assert quadrant == f"Q{frame.loc[place(token)]['quadrant']}"


def test_another_checkpoint_has_its_own_gain(open_page: OpenPage, view: Path, run: Run) -> None:
    page = ready(open_page(view))
    page.select_option("#tv-checkpoint", "1")
    token = page.locator(".tv-token").nth(5)
    token.click()
    context, position = place(token)
    table = token_table(run, K, ["two"])
    row = table[(table["context_id"] == f"c{context:03d}") & (table["position"] == position)]
    expected = table_numbers(row.iloc[0])
    assert numbers(page) == pytest.approx(expected, rel=6e-4, abs=1e-9)
    assert page.locator(".tv-model2 > p").inner_text() == "two (after)"


def test_focus_shows_the_most_probable_tokens_as_bars(
    open_page: OpenPage, view: Path, run: Run
) -> None:
    page = ready(open_page(view))
    token = page.locator(".tv-token").nth(11)
    token.focus()
    context, position = place(token)
    row = 40 * context + position
    for place_, scores in enumerate((run.teacher(), run.student(START), run.student("one"))):
        items = page.locator(f".tv-model{place_} li")
        prob = np.exp(scores.top_logprob[row, :5])
        shown = [
            one.strip(" %><") for one in items.locator(":scope > span:last-child").all_inner_texts()
        ]
        assert [float(one) / 100 for one in shown] == pytest.approx(prob.tolist(), abs=1.1e-4)
        texts = [
            bdi.replace("·", "")
            for bdi in items.locator("bdi").evaluate_all("all => all.map(one => one.textContent)")
        ]
        assert texts == [WORDS[i] for i in scores.top_ids[row, :5]]
        widths = items.locator(".tv-track i").evaluate_all(
            "all => all.map(one => parseFloat(one.style.width))"
        )
        assert [w / 100 for w in widths] == pytest.approx(prob.tolist(), abs=1e-4)


def test_selection_is_announced(open_page: OpenPage, view: Path, frame: pd.DataFrame) -> None:
    page = ready(open_page(view))
    token = page.locator(".tv-token").nth(2)
    token.focus()
    context, position = place(token)
    said = page.locator("[data-tv='live']").inner_text()
    assert said.startswith(f"Position {position} of context {context}: ")
    assert f"quadrant {frame.loc[(context, position)]['quadrant']}. " in said


def test_arrows_walk_and_each_context_is_one_tab_stop(open_page: OpenPage, view: Path) -> None:
    page = ready(open_page(view))
    first = page.locator(".tv-text").first
    assert first.locator("[tabindex='0']").count() == 1
    page.locator(".tv-token").first.focus()
    context, start = place(page.locator(":focus"))

    def press(key: str) -> tuple[int, int]:
        page.keyboard.press(key)
        return place(page.locator(":focus"))

    assert press("ArrowRight") == (context, start + 1)
    assert press("ArrowRight") == (context, start + 2)
    assert press("ArrowLeft") == (context, start + 1)
    assert press("End") == (context, 39)
    assert press("ArrowRight") == (context, 39)
    assert press("Home") == (context, 0)
    assert first.locator("[tabindex='0']").count() == 1
    below = press("ArrowDown")
    assert below[0] == context
    assert below[1] > 0
    assert press("ArrowUp") == (context, 0)
    other = press("PageDown")
    assert other[0] == order(page)[1]
    assert press("PageUp")[0] == context
    assert page.locator("[aria-selected='true']").count() == 1


def test_escape_closes_and_takes_the_link_away(open_page: OpenPage, view: Path) -> None:
    one = open_page(view)
    page = ready(one)
    page.locator(".tv-token").nth(4).click()
    assert "#tv-c" in page.url
    page.keyboard.press("Escape")
    assert page.url == one.address
    assert page.locator("[aria-selected='true']").count() == 0
    assert page.locator(".tv-numbers").count() == 0


@pytest.mark.parametrize("quadrant", [1, 2, 3, 4])
def test_filter_by_quadrant_leaves_the_tables_positions(
    open_page: OpenPage, view: Path, frame: pd.DataFrame, quadrant: int
) -> None:
    page = ready(open_page(view))
    page.select_option("#tv-quadrant", str(quadrant))
    left = frame[frame["quadrant"] == quadrant]
    assert counted(page) == (len(left), left["index"].nunique())
    context = order(page)[0]
    shown = page.locator(f"#tv-c{context} .tv-token:not(.tv-off)")
    assert [place(one)[1] for one in shown.all()] == left.loc[context]["position"].tolist()


@pytest.mark.parametrize(("selector", "budget"), [("teachability", 0.05), ("random", 0.1)])
def test_filter_by_selector_leaves_what_it_keeps_or_drops(
    open_page: OpenPage, view: Path, frame: pd.DataFrame, selector: Any, budget: float
) -> None:
    page = ready(open_page(view))
    page.select_option("#tv-selector", selector)
    page.select_option("#tv-budget", f"kept {budget}")
    found = selections(frame, [selector], [budget], vocabulary=VOCABULARY)[selector, budget]
    assert counted(page)[0] == found.mask.sum()
    context = order(page)[0]
    shown = page.locator(f"#tv-c{context} .tv-token:not(.tv-off)")
    kept = frame[found.mask].loc[context]["position"]
    assert [place(one)[1] for one in shown.all()] == kept.tolist()
    page.select_option("#tv-budget", f"dropped {budget}")
    assert counted(page)[0] == (~found.mask).sum()
    page.select_option("#tv-quadrant", "3")
    assert counted(page)[0] == (~found.mask & (frame["quadrant"] == 3)).sum()


def test_contexts_are_sorted_as_the_tables_mean_gains(
    open_page: OpenPage, view: Path, frame: pd.DataFrame
) -> None:
    page = ready(open_page(view))
    means = frame.groupby("index")["gain"].mean()
    assert order(page) == means.sort_values(ascending=False).index.tolist()
    page.select_option("#tv-sort", "up")
    assert order(page) == means.sort_values().index.tolist()
    page.select_option("#tv-sort", "bank")
    assert order(page) == list(range(24))
    page.locator("#tv-c0 .tv-token").first.wait_for()
    title = page.locator("#tv-c0 .tv-title").inner_text()
    shown = re.search(r"mean gain (\S+) nats", title)
    assert shown
    assert read(shown[1]) == pytest.approx(means[0], rel=6e-3)


def test_link_leads_to_its_position(open_page: OpenPage, view: Path, frame: pd.DataFrame) -> None:
    one = open_page(view, height=500)
    page = ready(one)
    page.goto("about:blank")
    page.goto(f"{one.address}#tv-c17-p31")
    token = page.locator("#tv-c17-p31")
    expect(token).to_have_attribute("aria-selected", "true")
    expect(token).to_be_in_viewport()
    expect(token).to_be_focused()
    expected = table_numbers(frame.loc[(17, 31)])
    assert numbers(page) == pytest.approx(expected, rel=6e-4, abs=1e-9)
    page.evaluate("location.hash = '#tv-c3-p2'")
    expect(page.locator("#tv-c3-p2")).to_be_in_viewport()


def test_link_to_a_filtered_position_takes_the_filters_away(
    open_page: OpenPage, view: Path, frame: pd.DataFrame
) -> None:
    page = ready(open_page(view))
    page.select_option("#tv-quadrant", "3")
    other = frame[frame["quadrant"] == 1].iloc[0]
    page.evaluate(f"location.hash = '#tv-c{other['index']}-p{other['position']}'")
    expect(page.locator("[aria-selected='true']")).to_be_in_viewport()
    assert counted(page) == (len(frame), 24)


def test_link_to_another_file_says_where_it_is(
    open_page: OpenPage, run: Run, tmp_path: Path
) -> None:
    settings = ViewerSettings(top_k=K, contexts=10)
    paths = write_viewers(run, tmp_path / "view.html", settings)
    one = open_page(paths[0])
    page = ready(one)
    page.evaluate("location.hash = '#tv-c21-p5'")
    page.get_by_role("link", name="Open the file that has it").click()
    expect(page.locator("#tv-c21-p5")).to_have_attribute("aria-selected", "true")
    assert page.url == f"{paths[2].as_uri()}#tv-c21-p5"


def test_spaces_breaks_and_special_tokens_are_seen_until_switched_off(
    open_page: OpenPage, view: Path
) -> None:
    page = ready(open_page(view))
    sign = "one => getComputedStyle(one, '::before').content"
    space, line = page.locator(".tv-text .tv-sp").first, page.locator(".tv-text .tv-nl").first
    assert [space.evaluate(sign), line.evaluate(sign)] == ['"·"', '"↵"']
    assert line.evaluate("one => one.textContent") == "\n"  # a real break
    special = page.locator(".tv-text .tv-special").first
    assert special.is_visible()
    page.uncheck("#tv-signs")
    assert [space.evaluate(sign), line.evaluate(sign)] == ["none", "none"]
    assert not special.is_visible()


@pytest.mark.parametrize("by", ["system", "page"])
def test_dark_is_dark_and_the_page_may_choose(open_page: OpenPage, view: Path, by: str) -> None:
    page = ready(open_page(view, dark=by == "system"))
    if by == "page":
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
    ground = "one => getComputedStyle(one).backgroundColor"
    assert lightness(page.locator("body").evaluate(ground)) < 60
    assert lightness(page.locator(".tv-context").first.evaluate(ground)) < 60
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert lightness(page.locator("body").evaluate(ground)) > 200


def test_legend_has_the_colours_that_tokens_have(open_page: OpenPage, view: Path) -> None:
    page = ready(open_page(view))
    bar = page.locator(".tv-bar i")
    ground = "all => all.map(one => getComputedStyle(one).backgroundColor)"
    shown = bar.evaluate_all(ground)
    assert len(shown) == 21
    assert set(page.locator(".tv-token").evaluate_all(ground)) <= set(shown)
    ticks = page.locator(".tv-ticks span").all_inner_texts()
    assert ticks[2] == "0"
    assert read(ticks[0].strip("≤ ")) == -read(ticks[4].strip("≥ "))


def test_positions_without_loss_leave_a_mark(open_page: OpenPage, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", prompts=2, length=12, texts=WORDS)
    file = part_file(run.folder, TEACHER, 0)
    table = read_parquet(file)
    position = np.asarray(table["position"])
    later = pa.array((position + (position >= 7)).astype(np.int32))  # nothing at 7
    place_ = table.column_names.index("position")
    write_parquet(file, table.set_column(place_, "position", later))
    (path,) = write_viewer(run, tmp_path / "view.html", SETTINGS)
    page = ready(open_page(path))
    assert page.locator(".tv-context").first.locator(".tv-gap").count() == 1
    name = page.locator(".tv-gap + .tv-token").first.get_attribute("id")
    assert name is not None
    assert name.endswith("-p8")
    page.locator(".tv-gap + .tv-token").first.focus()
    page.keyboard.press("ArrowLeft")
    assert place(page.locator(":focus"))[1] == 6


def test_section_stands_in_a_page_and_two_do_not_meet(open_page: OpenPage, section: Path) -> None:
    one = open_page(section)
    page = ready(one)
    expect(page.locator("#tv2 .tv-token").first).to_be_attached()
    page.select_option("#tv-quadrant", "2")
    expect(page.locator("#tv2 .tv-off")).to_have_count(0)
    token = page.locator("#tv2 .tv-token").nth(6)
    token.click()
    assert re.search(r"#tv2-c\d+-p\d+$", page.url)
    assert page.locator("#tv2 .tv-numbers").count() == 1
    assert page.locator("#tv .tv-numbers").count() == 0
    assert violations(page) == []
    assert_quiet(one)


def test_hostile_text_is_text(open_page: OpenPage, tmp_path: Path) -> None:
    """Nothing runs, no element is added, hidden letters are named, long tokens cut."""
    run = write_run(tmp_path / "run", prompts=6, length=30, texts=HOSTILE)
    (path,) = write_viewer(run, tmp_path / "view.html", SETTINGS)
    one = open_page(path, width=380)
    page = one.page
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    ready(one)
    for context in page.locator(".tv-context").all():
        context.scroll_into_view_if_needed()
        context.locator("summary").click()
    for nth in range(30):
        page.locator(".tv-token").nth(nth).hover()
    assert page.evaluate("window.__hacked") is None
    assert dialogs == []
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("script").count() == 2
    tags = page.locator(".tv-root *").evaluate_all("all => [...new Set(all.map(e => e.localName))]")
    assert set(tags) <= set(" ".join(ELEMENTS).split())
    shown = page.locator(".tv-list").evaluate("one => one.textContent")
    for letter in "\u202e\u2066\u200b\ufeff\u2028\x00\x07\x1b":
        assert letter not in shown
    for said in ("U+202E", "U+200B", "NUL", "ESC", "100,000 letters", "</script>", "&lt;b&gt;"):
        assert said in shown
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert violations(page) == []
    assert_quiet(one)


def test_without_decompression_the_page_says_what_it_needs(open_page: OpenPage, view: Path) -> None:
    one = open_page(view)
    page = one.page
    page.add_init_script("delete window.DecompressionStream")
    page.reload()
    expect(page.locator(".tv-failed")).to_contain_text("needs a newer browser")


def test_damaged_data_are_said(open_page: OpenPage, view: Path, tmp_path: Path) -> None:
    text = view.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r'("bytes":"[^"]{200})[^"]{400}', r"\1", text), encoding="utf-8")
    page = open_page(broken).page
    expect(page.locator(".tv-failed")).to_contain_text("cannot be read")
