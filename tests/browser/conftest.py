"""A real Chromium without a network, pages opened in it, and reports to open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from run_on_disk import write_run

from diagnostics.report.chapters import read_record
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.write import write_chapters, write_report

SETTINGS = ReportSettings(top_k=4, draws=60, seed=3)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COMMITTED = Path(__file__).parents[2] / "reports" / "interventions"
LONG = "a-checkpoint-of-a-name-that-goes-on-and-on-" * 3


@dataclass
class Opened:
    """An open page. Fields: `page`; `said` console errors and uncaught ones; `asked` addresses."""

    page: Page
    address: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class OpenPage(Protocol):
    """Opens a file in a window of its own."""

    def __call__(self, path: Path, **options: Any) -> Opened: ...


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None or shutil.which("pdftotext") is None:
        pytest.fail("no Chromium or no pdftotext: `apt-get install chromium poppler-utils`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    contexts = []

    def opened(
        path: Path, *, width: int = 1024, height: int = 800, dark: bool = False, **options: Any
    ) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            offline=True,
            reduced_motion="reduce",
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        one = Opened(page, path.as_uri())
        page.on("console", lambda m: one.said.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: one.said.append(str(error)))
        page.on("request", lambda request: one.asked.append(request.url))
        page.goto(one.address)
        return one

    yield opened
    for context in contexts:
        context.close()


def assert_quiet(one: Opened) -> None:
    """No error on the console, and nothing asked for but the page itself."""
    assert one.said == []
    assert [a for a in one.asked if not a.startswith(("blob:", "data:"))] == [one.address]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small run with two checkpoints."""
    run = write_run(tmp_path_factory.mktemp("run"), checkpoints={"one": 0.3, "two": 0.1})
    return write_report([run], tmp_path_factory.mktemp("report"), SETTINGS)


@pytest.fixture(scope="session")
def several(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two chapters: the small run's and the committed interventions'."""
    chapters = [*read_record(report.parent), *read_record(COMMITTED)]
    return write_chapters(chapters, tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="session")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of long and hostile names."""
    name = "<script>document.title='taken'</script>\u202e" + LONG
    run = write_run(
        tmp_path_factory.mktemp("run"), name=name, prompts=8, checkpoints={LONG: 0.3, "b": 0.1}
    )
    return write_report([run], tmp_path_factory.mktemp("report"), SETTINGS)
