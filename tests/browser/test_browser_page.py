"""The page in a real Chromium: quiet, sortable, by keyboard, at every size and on paper."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Opened, OpenPage, assert_quiet
from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.slow

WIDTHS = (380, 1024, 1600)


def columns(table: Locator, heading: str) -> list[str]:
    """The texts of a column, from top to bottom."""
    place = [plain(t) for t in table.locator("thead th").all_inner_texts()].index(heading)
    return table.locator(f"tbody tr > :nth-child({place + 1})").all_inner_texts()


def plain(text: str) -> str:
    return re.sub(r"\s*[↕↑↓]?\s*$", "", text).strip()


def signed(text: str) -> float:
    return float(text.split(" ")[0].replace("−", "-").replace(",", ""))


def stored(report: Path) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = json.loads(
        (report.parent / "results.json").read_text()
    )["tables"]
    return tables


def colour(page: Page, selector: str, what: str) -> str:
    found: str = page.locator(selector).first.evaluate(
        "(element, what) => getComputedStyle(element)[what]", what
    )
    return found


def lightness(rgb: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", rgb)[:3])) / 3


def assert_headings_go_down_one_by_one(page: Page) -> None:
    levels = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all(
        "all => all.map(one => Number(one.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_offline_quietly_and_never_scrolls_sideways(
    open_page: OpenPage, report: Path, width: int, dark: bool
) -> None:
    one = open_page(report, width=width, dark=dark)
    assert_quiet(one)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert one.page.evaluate(wide) <= 0


@pytest.mark.parametrize("width", WIDTHS)
def test_long_and_hostile_names_are_text_and_fit(
    open_page: OpenPage, wordy: Path, width: int
) -> None:
    one = open_page(wordy, width=width)
    assert_quiet(one)
    assert one.page.title() == "Which teacher signals did the student learn?"
    assert one.page.locator("script:not([type])").count() == 2  # the page's and the viewer's
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert one.page.evaluate(wide) <= 0


def test_a_script_that_slipped_into_the_page_does_not_run(
    open_page: OpenPage, report: Path, tmp_path: Path
) -> None:
    source = report.read_text(encoding="utf-8")
    slipped = (
        "<script>document.title = 'taken'</script><img src='x.png' onerror='document.title=1'>"
    )
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(source.replace("</main>", f"{slipped}</main>"), encoding="utf-8")
    one = open_page(spoiled)
    assert one.page.title() == "Which teacher signals did the student learn?"
    assert len(one.said) == 3  # the script, the image and its handler
    assert all("Content Security Policy" in said for said in one.said)
    assert one.page.locator(".theme").count() == 1  # its own script runs


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_click_on_a_heading_sorts_by_value_up_down_and_back(
    open_page: OpenPage, report: Path, by: str
) -> None:
    page = open_page(report).page
    table = page.locator("#table06 table").first
    head = table.locator("thead th", has_text="gap").first
    first = columns(table, "gap")
    values = [signed(text) for text in first]
    assert values != sorted(values)

    def press() -> None:
        if by == "mouse":
            head.locator("button").click()
        else:
            head.locator("button").focus()
            page.keyboard.press("Enter")

    orders = []
    for sort in ("ascending", "descending", None):
        press()
        assert head.get_attribute("aria-sort") == sort
        orders.append([signed(text) for text in columns(table, "gap")])
    assert orders[0] == sorted(values)
    assert orders[1] == sorted(values, reverse=True)
    assert columns(table, "gap") == first


def test_values_sort_beyond_the_digits_that_are_shown(open_page: OpenPage, report: Path) -> None:
    page = open_page(report).page
    cells = page.locator("#table09 table").first.locator("tbody td[data-v]")
    rows = stored(report)["table09"]
    known = {repr(value) for row in rows for value in row.values() if isinstance(value, float)}
    exact = {v.split(" ")[0] for v in cells.evaluate_all("cells => cells.map(c => c.dataset.v)")}
    assert {v for v in exact if "." in v} <= known
    assert len(exact) > 4


def test_dashes_come_last_in_both_orders(open_page: OpenPage, report: Path) -> None:
    page = open_page(report).page
    page.evaluate(
        "() => { const row = document.querySelector('#table06 tbody tr').cells;"
        " row[row.length - 1].textContent = '–'; delete row[row.length - 1].dataset.v; }"
    )
    table = page.locator("#table06 table").first
    button = table.locator("thead th").last.locator("button")
    for _ in range(2):
        button.click()
        last = table.locator("tbody tr").last.locator(":scope > *").last
        assert last.inner_text() == "–"


@pytest.mark.parametrize("clipboard", [True, False])
def test_copy_puts_the_table_as_shown_on_the_clipboard(
    open_page: OpenPage, report: Path, clipboard: bool
) -> None:
    page = open_page(report, permissions=["clipboard-read", "clipboard-write"]).page
    if not clipboard:  # as in browsers that give files none
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    box = page.locator("#table06 .table").first
    box.get_by_role("button", name="Copy").click()
    assert box.get_by_text("Copied").count() == 1
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<textarea id=here></textarea>')")
    page.locator("#here").focus()
    page.keyboard.press("Control+V")
    pasted = page.locator("#here").input_value()
    lines = list(csv.reader(io.StringIO(pasted), delimiter="\t"))
    rows = box.locator("tbody tr")
    assert lines[0] == [plain(t) for t in box.locator("thead th").all_inner_texts()]
    assert len(lines) == 1 + rows.count()
    shown = rows.first.locator(":scope > *").all_inner_texts()
    assert lines[1] == [text.replace("−", "-") for text in shown]


def test_csv_saves_every_number_in_full(open_page: OpenPage, report: Path, tmp_path: Path) -> None:
    page = open_page(report).page
    with page.expect_download() as download:
        page.locator("#checkpoints .table").first.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "checkpoints.csv"
    download.value.save_as(tmp_path / "saved.csv")
    saved = list(csv.DictReader(io.StringIO((tmp_path / "saved.csv").read_text(encoding="utf-8"))))
    rows = stored(report)["checkpoints"]
    assert [row["checkpoint"] for row in saved] == [row["checkpoint"] for row in rows]
    for one, truth in zip(saved, rows, strict=True):
        ends = [float(one[f"gain{end}"]) for end in ("", " low", " high")]
        assert ends == [truth["gain"], truth["gain_low"], truth["gain_high"]]


def test_the_system_and_the_button_choose_light_or_dark(open_page: OpenPage, report: Path) -> None:
    one = open_page(report, dark=True)
    page = one.page
    button = page.locator(".theme")
    seen = {}
    for theme in ("auto", "light", "dark"):
        assert button.inner_text() == f"Theme: {theme}"
        seen[theme] = [
            lightness(colour(page, "body", "backgroundColor")),
            lightness(colour(page, "body", "color")),
            lightness(colour(page, ".answer", "backgroundColor")),
        ]
        button.click()
    assert seen["auto"] == seen["dark"]
    assert seen["dark"][0] < 60 < 200 < seen["dark"][1]
    assert seen["light"][1] < 60 < 200 < seen["light"][0]
    assert seen["dark"][2] < 60 < 200 < seen["light"][2]
    button.click()
    page.reload()
    assert button.inner_text() == "Theme: light"
    assert colour(page, "body", "backgroundColor") == "rgb(251, 250, 248)"


def test_ink_of_figures_follows_the_theme(open_page: OpenPage, report: Path) -> None:
    inks = {}
    for dark in (False, True):
        page = open_page(report, dark=dark).page
        inks[dark] = lightness(colour(page, ".drawing svg text", "fill"))
    assert inks[False] < 60 < 200 < inks[True]


def test_tab_reaches_the_skip_link_contents_theme_and_controls_in_order(
    open_page: OpenPage, report: Path
) -> None:
    page = open_page(report, width=1600, height=900).page
    seen: list[str] = []
    for _ in range(400):
        page.keyboard.press("Tab")
        where = page.evaluate(
            "() => { const e = document.activeElement;"
            " return e === document.body ? '' : `${e.tagName}.${e.className || e.textContent}`; }"
        )
        if not where or (seen and where == seen[0]):
            break
        seen.append(where)
    assert seen[0] == "A.skip"
    links = page.locator(".contents a").count()
    assert sum(where.startswith("A.") for where in seen[1 : 1 + links]) == links
    assert seen[1 + links] == "BUTTON.theme"
    rest = seen[2 + links :]
    copying = rest.index("BUTTON.Copy Checkpoints: what training did")
    assert rest[copying : copying + 4] == [
        rest[copying],
        rest[copying + 1],
        "BUTTON.run",
        "BUTTON.checkpoint",
    ]
    visible = page.locator("main button:visible").count()
    assert sum(where.startswith("BUTTON.") for where in rest) == visible
    assert any(where == "DIV.wide" for where in rest)
    assert any(where.startswith("SUMMARY.") for where in rest)


def test_what_scrolls_can_be_scrolled_by_keyboard_and_says_so(
    open_page: OpenPage, report: Path
) -> None:
    page = open_page(report, width=380).page
    box = page.locator("#table08 .table").first
    wide = box.locator(".wide")
    assert box.get_by_text("Scroll sideways for more").is_visible()
    wide.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert wide.evaluate("box => box.scrollLeft") > 20
    assert wide.locator("th[scope=row]").first.bounding_box()["x"] >= 0  # type: ignore[index]


def test_contents_follow_what_is_read(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, width=1600).page
    page.locator(".contents a", has_text="Table 5").click()
    page.locator(".contents a[aria-current]", has_text="Table 5").wait_for()
    assert page.locator(".contents a[aria-current]").count() == 1


def test_contents_fold_on_a_phone_and_close_when_followed(
    open_page: OpenPage, report: Path
) -> None:
    page = open_page(report, width=380).page
    contents = page.locator(".contents")
    assert contents.get_attribute("open") is None
    contents.locator("summary").click()
    contents.locator("a", has_text="Table 5").click()
    assert contents.get_attribute("open") is None
    top = page.locator("#table05").bounding_box()
    assert top is not None
    assert 0 < top["y"] < 200


def test_bars_show_estimate_and_interval_against_zero(open_page: OpenPage, report: Path) -> None:
    page = open_page(report).page
    answer = json.loads((report.parent / "results.json").read_text())["answers"][0]
    bar = page.locator("svg.interval").first
    low, high = (bar.locator(".range").get_attribute(end) for end in ("x1", "x2"))
    middle = bar.locator("circle").get_attribute("cx")
    ends = [float(str(x).rstrip("%")) - 50 for x in (low, middle, high)]
    value = answer["value"]
    truth = [value["low"], value["estimate"], value["high"]]
    scale = 46 / max(*map(abs, truth), abs(answer["noise"] or 0))
    assert ends == pytest.approx([v * scale for v in truth], abs=0.01)


def test_answers_stand_above_everything_else(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, height=800).page
    box = page.locator(".reply .word").first.bounding_box()
    assert box is not None
    assert box["y"] < 400


@pytest.mark.parametrize("width", WIDTHS)
def test_several_chapters_are_one_page_with_headings_in_order(
    open_page: OpenPage, several: Path, width: int
) -> None:
    one = open_page(several, width=width)
    assert_quiet(one)
    assert_headings_go_down_one_by_one(one.page)
    ids = one.page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    links = one.page.locator(".contents a").evaluate_all("all => all.map(one => one.hash.slice(1))")
    assert set(links) <= set(ids)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert one.page.evaluate(wide) <= 0
    if width == WIDTHS[-1]:
        results = Axe().run(one.page)
        assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize(("width", "dark"), [(380, True), (1600, False)])
def test_no_axe_violation(open_page: OpenPage, report: Path, width: int, dark: bool) -> None:
    page = open_page(report, width=width, dark=dark).page
    page.evaluate("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_headings_go_down_one_level_at_a_time(open_page: OpenPage, report: Path) -> None:
    assert_headings_go_down_one_by_one(open_page(report).page)


def test_on_paper_controls_are_gone_and_ink_is_black(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, dark=True).page
    page.emulate_media(media="print")
    for gone in (".tools", ".theme", ".side", "details.all"):
        assert page.locator(f"{gone}:visible").count() == 0
    assert colour(page, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert colour(page, ".drawing svg text", "fill") == "rgb(0, 0, 0)"


@pytest.mark.parametrize(("width", "which"), [(688, ":not(.vast)"), (1016, ".vast")])  # A4, px
def test_on_paper_every_table_is_whole(
    open_page: OpenPage, report: Path, width: int, which: str
) -> None:
    page = open_page(report, width=width).page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    wider = page.locator(f".table{which} .wide:visible").evaluate_all(
        "all => all.map(one => one.querySelector('table').offsetWidth - one.offsetWidth)"
    )
    assert wider
    assert max(wider) <= 1


def test_the_pdf_says_what_the_page_says_on_few_pages(
    open_page: OpenPage, report: Path, tmp_path: Path
) -> None:
    page = open_page(report).page
    pdf = tmp_path / "page.pdf"
    page.pdf(path=pdf, prefer_css_page_size=True)
    reader = ["pdftotext", "-layout", str(pdf), "-"]
    printed = subprocess.run(reader, check=True, capture_output=True, text=True).stdout
    assert 4 <= printed.count("\f") <= 30
    words = " ".join(printed.split())
    for answer in page.locator(".reply .value").all_inner_texts():
        assert answer.replace("\u00a0", " ") in words.replace("\u00a0", " ")
    for heading in page.locator("#checkpoints thead th").all_inner_texts():
        assert all(word in words for word in plain(heading).split())
    assert "The paper’s own figures" in words
    assert "Theme:" not in words
    assert "Copy" not in words


def test_a_header_stands_on_every_page_that_its_table_goes_on_to(
    open_page: OpenPage, report: Path, tmp_path: Path
) -> None:
    page = open_page(report).page
    page.evaluate(
        "() => { const body = document.querySelector('#table06 tbody');"
        " for (let i = 0; i < 4; i++) body.append(...[...body.rows].map(r => r.cloneNode(true))); }"
    )
    pdf = tmp_path / "page.pdf"
    page.pdf(path=pdf, prefer_css_page_size=True)
    reader = ["pdftotext", "-layout", str(pdf), "-"]
    sheets = subprocess.run(reader, check=True, capture_output=True, text=True).stdout.split("\f")
    proxies = [sheet for sheet in sheets if sheet.count("jaccard") > 4]
    assert len(proxies) > 1
    assert all(re.search(r"run +checkpoint +K +proxy", sheet) for sheet in proxies)


def test_a_copy_of_the_file_alone_works(open_page: OpenPage, report: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.html"
    shutil.copy(report, alone)
    one: Opened = open_page(alone)
    one.page.locator("#table06 thead button").first.click()
    assert_quiet(one)
    assert one.page.locator(".drawing svg").count() == one.page.locator("figure").count()


def test_without_scripts_everything_is_there_to_read(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, java_script_enabled=False).page
    assert page.locator(".contents a").first.is_visible()
    assert page.locator("button").count() == 0
    assert page.locator("#table06 table tbody tr").first.is_visible()
