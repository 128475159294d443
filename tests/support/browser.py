"""MLflow's pages in a real browser, for modules with `pytest_plugins = ["tests.support.browser"]`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

LONGEST = 60
"""Seconds to wait for a page. An idle machine needs one or two."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the system's Chromium, or the one that Playwright downloaded."""
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(
                executable_path=installed,
                chromium_sandbox=os.geteuid() != 0,  # Chromium refuses a sandbox to root
                args=["--disable-gpu", "--disable-sync"],
            )
        except Error:
            if installed or os.environ.get("CI"):
                raise
            pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)}, and Playwright has downloaded none")
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """Yield an empty page of a new browser profile. Its last state is saved as `page.png`."""
    expect.set_options(timeout=LONGEST * 1000)
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        context.set_default_timeout(LONGEST * 1000)
        opened = context.new_page()
        yield opened
        opened.screenshot(path=tmp_path / "page.png")


def name(run: Run) -> str:
    return str(run.data.tags["mlflow.runName"])


def trial_links(tab: Page) -> Locator:
    return tab.get_by_role("link", name=re.compile(r"^trial-\d{4}$"))


def table_row(tab: Page, run: str) -> Locator:
    """Return the part of a run's row that has its name, in the experiment's table (an ag-Grid)."""
    return tab.locator(".ag-row").filter(has=tab.get_by_role("link", name=run, exact=True))


def compared(tab: Page, what: str) -> Locator:
    """Return a line of the compare page, with a cell for each run."""
    header = tab.get_by_role("rowheader", name=what, exact=True)
    return tab.get_by_role("row").filter(has=header).get_by_role("cell")


def drawn(plot: Locator, count: int) -> dict[str, dict[int, float]]:
    """Return the lines of a Plotly chart by name. MLflow draws each twice, smoothed and not; here both must be equal."""
    expect(plot.locator(".scatterlayer .trace")).to_have_count(2 * count)
    traces: list[dict[str, Any]] = plot.evaluate(
        "plot => plot.data.map(trace => ({name: trace.name, x: Array.from(trace.x), y: Array.from(trace.y)}))"
    )
    lines = [(trace["name"], dict(zip(trace["x"], trace["y"], strict=True))) for trace in traces]
    assert all(line == dict(lines)[trial] for trial, line in lines)
    return dict(lines)


def is_loaded(picture: Locator) -> bool:
    """Return whether a picture on a page is there and wider than 500 pixels."""
    expect(picture).to_be_visible()
    width = picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)")
    return bool(width > 500)
