"""How fast the token viewer opens, beside the page that people write by hand: a span a token.

Run: `python benchmarks/viewer.py RUN`, with a run folder; needs Chromium and the extra `dev`. The
span page holds what a tooltip can: each token coloured by gain, its numbers and the teacher's top
five as `title`. Both are opened offline in turn, `ROUNDS` times; scrolling is 300 pixels a frame.
"""

from __future__ import annotations

import argparse
import html
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

from diagnostics.report.viewer.data import measure, show, text_of
from diagnostics.report.viewer.page import ViewerSettings, write_viewer
from diagnostics.scoring.run import Run, open_run

ROUNDS, FRAMES = 5, 200
ARGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SCROLL = """frames => new Promise(done => {
    const waits = []; let last = performance.now();
    const step = now => {
        waits.push(now - last); last = now; window.scrollBy(0, 300);
        if (waits.length < frames) requestAnimationFrame(step);
        else done(waits.sort((a, b) => a - b));
    };
    requestAnimationFrame(step);
})"""


def main() -> None:
    """Prints size, seconds to the first token and milliseconds a frame of both pages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="a run folder")
    run = open_run(parser.parse_args().run)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        pages = {"viewer": Path(folder) / "viewer.html", "spans": Path(folder) / "spans.html"}
        write_viewer(run, pages["viewer"], ViewerSettings())
        pages["spans"].write_text(spans(run), encoding="utf-8")
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=ARGS)
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pages}
        for _ in range(ROUNDS):
            for name, path in pages.items():
                found[name].append(opened(browser, path))
        for name, path in pages.items():
            first, frame, late = (median(column) for column in zip(*found[name], strict=True))
            print(
                f"{name:6} {path.stat().st_size / 1e6:5.1f} MB, first token after {first:.2f} s, "
                f"a frame of scrolling {frame:.0f} ms (95 %: {late:.0f} ms)"
            )


def opened(browser: Browser, path: Path) -> tuple[float, float, float]:
    """(seconds to the first token, median and 95 % milliseconds a frame)."""
    context = browser.new_context(offline=True, viewport={"width": 1024, "height": 900})
    page = context.new_page()
    started = time.monotonic()
    page.goto(path.as_uri())
    page.wait_for_selector(".tv-token")
    first = time.monotonic() - started
    waits = page.evaluate(SCROLL, FRAMES)
    context.close()
    return first, waits[len(waits) // 2], waits[len(waits) * 95 // 100]


def spans(run: Run) -> str:
    """The page by hand: a span a token of every context."""
    measured = measure(run, 16)
    shown = show(measured, range(measured.contexts))
    texts = run.token_texts()
    lines, before = [], -1
    for row, context in enumerate(measured.context):
        if context != before:
            lines.append(f"<h2>Context {context}</h2>")
            before = context
        numbers = ", ".join(f"{k} {v[row]:.4g}" for k, v in measured.measures.items())
        pairs = zip(shown.top_ids[0, :, row], shown.top_prob[0, :, row], strict=True)
        tops = ", ".join(f"{text_of(texts, int(i))} {p:.3f}" for i, p in pairs)
        gain = measured.gain[0, row]
        tint = f"rgba({'0,114,178' if gain > 0 else '213,94,0'},{min(1.0, abs(gain)):.2f})"
        title = html.escape(f"gain {gain:.4g}, {numbers}; {tops}")
        text = html.escape(text_of(texts, int(measured.token_id[row])))
        lines.append(
            f'<span class="tv-token" style="background:{tint}" title="{title}">{text}</span>'
        )
    style = "<style>body { white-space: pre-wrap }</style>"
    return f"<!doctype html><meta charset='utf-8'>{style}{''.join(lines)}"


if __name__ == "__main__":
    main()
