"""The report as people open it: from the disk, without a network, in a real browser, and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.program import called
from tests.support.study_records import experiment, made_trials, write_trials

pytestmark = pytest.mark.slow

WIDTHS = (400, 1280, 1600)

OVERLAPS = """() => {
  // Blocks that follow each other may not overlap; a small text over its own chart is no block.
  const blocks = [...document.querySelectorAll(
    "h1, h2, h3, nav, main p, main ul, .wide, .chart, figure, .tile, pre, details")]
    .filter((e) => e.offsetParent !== null && !e.parentElement.closest(".wide, .chart, ul, .tile, details"));
  const boxes = blocks.map((e) => [e, e.getBoundingClientRect()]);
  const found = [];
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    if (a.contains(b) || b.contains(a)) return;
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (wide > 1 && high > 1) found.push([a, b].map((e) => `${e.tagName} ${e.textContent.slice(0, 30)}`).join(" / "));
  }));
  return found;
}"""
"""What lies over each other on a page."""

SPILLS = """() => [...document.querySelectorAll("main *")]
  .filter((e) => !e.closest(".wide") && !e.closest("svg") && e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.tagName + " " + e.className)"""
"""What is wider than the page."""


@pytest.fixture(scope="module")
def folder(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the reports of a recorded study of 40 trials, and of two studies."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trials = made_trials(40)
        best = max((t for t in trials if t.result.state == "complete"), key=lambda t: t.result.value or 0).number
        write_trials(folder, experiment(trials=40), trials, plotted={0, best})
        write_trials(folder, experiment("other", trials=12), made_trials(12, 1))
    for arguments in (("article",), ("article", "other")):
        done = called("report", *arguments, folder=folder)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return folder


@pytest.fixture
def faults() -> list[str]:
    return []


def opened(browser: Browser, file: Path, width: int, scheme: str, faults: list[str]) -> Page:
    """Open a page from the disk without a network, and wait until every figure is drawn."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        offline=True,
    )
    tab = context.new_page()
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("requestfailed", lambda request: faults.append(request.url))
    tab.goto(file.as_uri())
    tab.wait_for_function("[...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('.main-svg'))")
    return tab


@pytest.mark.parametrize("name", ["article", "article-other"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_opens_from_the_disk_and_nothing_overlaps(
    browser: Browser, folder: Path, faults: list[str], name: str, width: int, scheme: str
) -> None:
    tab = opened(browser, folder / f"{name}-report.html", width, scheme, faults)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate(SPILLS) == []
    assert tab.evaluate(OVERLAPS) == []
    ink, page = (_brightness(tab, name) for name in ("color", "backgroundColor"))
    assert (ink > page) == (scheme == "dark")
    text = tab.locator(".chart text").first.evaluate("text => getComputedStyle(text).fill")
    assert abs(_grey(text) - ink) < 30  # the texts of the figures have the page's colour
    images = tab.locator("main img")
    assert images.count() == (9 if name == "article" else 0)
    for image in images.all():
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    assert faults == []


def test_a_click_sorts_the_trials(browser: Browser, folder: Path, faults: list[str]) -> None:
    tab = opened(browser, folder / "article-report.html", 1280, "light", faults)
    column = "#trials tbody tr td:nth-child({})"
    heads = tab.locator("#trials th").all_inner_texts()
    where = [head.split()[0] for head in heads].index("layers") + 1
    tab.locator("#trials th button").nth(where - 1).click()
    cells = [int(text) for text in tab.locator(column.format(where)).all_inner_texts()]
    assert cells == sorted(cells)
    tab.locator("#trials th button").nth(where - 1).click()
    assert [int(text) for text in tab.locator(column.format(where)).all_inner_texts()] == sorted(cells, reverse=True)
    # Trials without a value come last in either order.
    tab.locator("#trials th button").nth(2).click()
    values = tab.locator(column.format(3)).all_inner_texts()
    assert values[0] != ""
    assert faults == []


def test_a_report_prints_in_dark_ink_within_the_paper(browser: Browser, folder: Path, faults: list[str]) -> None:
    tab = opened(browser, folder / "article-report.html", 1280, "dark", faults)
    paper = tab.pdf(path=folder / "article.pdf", prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 40
    # As on paper: the width of A4 without its margins, and the colours of print.
    tab.set_viewport_size({"width": 703, "height": 1000})
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.wait_for_function("[...document.querySelectorAll('.chart .main-svg')].every((svg) => svg.clientWidth <= 703)")
    assert _brightness(tab, "color") < _brightness(tab, "backgroundColor")
    assert tab.evaluate(SPILLS) == []
    assert tab.evaluate(OVERLAPS) == []
    assert tab.evaluate("[...document.querySelectorAll('details')].every((details) => details.open)")
    assert faults == []


def _brightness(tab: Page, name: str) -> float:
    return _grey(tab.evaluate(f"getComputedStyle(document.body).{name}"))


def _grey(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3
