"""What `mlflow ui` in the project's folder shows of a study: MLflow's own pages in a real browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from mlflow.entities import Run
from playwright.sync_api import Browser, Locator, Page, expect
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from pneumo.tracking.views import STUDY_VIEW, study_page_address
from tests.support.browser import LONGEST, compared, drawn, is_loaded, name, table_row, trial_links
from tests.support.program import client, runs, search, write

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class StudyPages:
    """A study of four trials, the address of its `mlflow ui`, and the page that the search named."""

    folder: Path
    address: str
    page: str
    parent: Run
    trials: list[Run]

    def run_page(self, run: Run, part: str = "") -> str:
        return f"{self.address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{part}"

    @property
    def table(self) -> str:
        """The table of the study and its trials."""
        return self.address + study_page_address(self.parent.info.experiment_id, STUDY_VIEW, charts=False)

    def curves(self, trials: list[Run]) -> dict[str, dict[int, float]]:
        """Return each trial's `val_auc` by epoch, as MLflow stores it."""
        store = client(self.folder)
        history = {name(run): store.get_metric_history(run.info.run_id, "val_auc") for run in trials}
        return {trial: {metric.step: metric.value for metric in metrics} for trial, metrics in history.items()}


@pytest.fixture(scope="module")
def study(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyPages]:
    """Search and start `mlflow ui`. It needs the browser, so that nothing is trained without one."""
    folder = tmp_path_factory.mktemp("browser")
    space = {"layers": [1, 2], "learning_rate": {"low": 0.0005, "high": 0.01, "log": True}, "epochs": 2}
    done = search(write(folder, hyperparameters=space, search={"trials": 4}), folder=folder)
    assert done.returncode == 0, done.stderr
    named = re.search(r"mlflow ui and open http://127\.0\.0\.1:5000(/#/\S+)", done.stdout)
    assert named, done.stdout
    parent, trials = runs(folder, "small")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "ui.log").open("wb") as log:
        command = [str(Path(sys.executable).with_name("mlflow")), "ui", "--port", str(port)]
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        yield StudyPages(folder, up(f"http://127.0.0.1:{port}", folder / "ui.log"), named[1], parent, trials)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with suppress(ProcessLookupError):  # workers that did not end with it
            os.killpg(server.pid, signal.SIGKILL)


def up(address: str, log: Path) -> str:
    """Return the address as soon as it answers."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(120, backoff_factor=0.1, backoff_max=1)))
        try:
            session.get(f"{address}/health", timeout=LONGEST).raise_for_status()
        except requests.RequestException:
            pytest.fail(f"mlflow ui did not come up:\n{log.read_text()[-2000:]}")
    return address


def test_a_view_shows_the_study_and_its_trials(tab: Page, study: StudyPages) -> None:
    visit(tab, study.table)
    expect(tab.locator(".ag-header-cell").get_by_text("best_val_auc", exact=True)).to_be_visible()
    expect(table_row(tab, "small")).to_be_visible()
    expect(trial_links(tab)).to_have_count(0)
    expand(tab)
    expect(trial_links(tab)).to_have_text(["trial-0003", "trial-0002", "trial-0001", "trial-0000"])
    for run in study.trials:
        row = table_row(tab, name(run)).get_attribute("row-index")
        expect(cell(tab, row, "metrics", "best_val_auc")).to_have_text(str(run.data.metrics["best_val_auc"]))
        expect(cell(tab, row, "params", "layers")).to_have_text(run.data.params["layers"])
        expect(cell(tab, row, "params", "learning_rate")).to_have_text(run.data.params["learning_rate"])


def test_three_trials_compare_by_hyperparameters_and_learning_curves(tab: Page, study: StudyPages) -> None:
    three = [study.trials[number] for number in (0, 1, 3)]
    visit(tab, study.table)
    expand(tab)
    for run in three:
        table_row(tab, name(run)).get_by_role("checkbox").check()
    tab.get_by_role("button", name="Compare", exact=True).click()

    expect(tab.get_by_role("heading", name="Comparing 3 Runs from 1 Experiment")).to_be_visible()
    expect(compared(tab, "Run Name:")).to_have_text([name(run) for run in three])
    for parameter in ("layers", "learning_rate", "optimizer"):
        expect(compared(tab, parameter)).to_have_text([run.data.params[parameter] for run in three])

    scroll_to_metric(tab, "val_auc")
    tab.get_by_role("link", name="val_auc", exact=True).click()
    tab.wait_for_url("**/metric?**")
    for run in three:
        expect(tab.get_by_text(f"{name(run)} (val_auc)")).to_be_visible()
    assert drawn(tab.locator(".js-plotly-plot"), 3) == study.curves(three)


def test_the_page_that_the_search_names_begins_with_the_learning_curves(tab: Page, study: StudyPages) -> None:
    visit(tab, study.address + study.page)
    best_first = sorted(study.trials, key=lambda run: -run.data.metrics["best_val_auc"])
    expect(trial_links(tab)).to_have_text([name(run) for run in best_first])
    cards = tab.get_by_test_id("experiment-view-compare-runs-card")
    expect(cards.nth(0)).to_contain_text("val_auc")
    expect(cards.nth(1)).to_contain_text("Parallel Coordinates")
    assert drawn(cards.nth(0).locator(".js-plotly-plot"), 4) == study.curves(study.trials)


def test_a_trials_page_shows_its_plots_and_its_model(tab: Page, study: StudyPages) -> None:
    trial = study.trials[1]
    visit(tab, study.run_page(trial))
    expect(tab.get_by_text("Logged models (1)")).to_be_visible()
    expect(tab.get_by_role("link", name="small-trial-1", exact=True).last).to_be_visible()
    tab.get_by_role("tab", name="Artifacts").click()
    tab.get_by_text("plots", exact=True).click()
    tab.get_by_text("learning_curves.png", exact=True).click()
    picture = tab.get_by_role("img", name="plots/learning_curves.png")
    assert is_loaded(picture)


def test_the_studys_own_plots_draw_inside_mlflow(tab: Page, study: StudyPages) -> None:
    """MLflow shows HTML in a frame that can reach neither the page around it nor another file."""
    visit(tab, study.run_page(study.parent, "/artifacts"))
    tab.get_by_text("report.html", exact=True).click()
    frame = tab.frame_locator("iframe[sandbox=allow-scripts]")
    expect(frame.get_by_role("heading", name="Study small (phantoms)")).to_be_visible()
    for heading in ("Best val_auc so far", "Learning curves", "When each trial ran"):
        section = frame.locator("section").filter(has_text=heading)
        expect(section.locator(".js-plotly-plot .main-svg").first).to_be_visible()


def visit(tab: Page, address: str) -> None:
    """Open a page of MLflow, and close the assistant that opens on a first visit."""
    tab.goto(address)
    tab.get_by_role("button", name="Close", exact=True).click()


def cell(tab: Page, row: int | str | None, kind: str, column: str) -> Locator:
    """Return a metric or parameter of a row, given the row's index, in the part that scrolls sideways."""
    return tab.locator(f'.ag-row[row-index="{row}"] .ag-cell[col-id="{kind}.`{column}`"]')


def expand(tab: Page) -> None:
    """Unfold the trials of the study: MLflow folds them, and a view cannot change that."""
    table_row(tab, "small").get_by_role("button").first.click()
    expect(trial_links(tab)).to_have_count(4)


def scroll_to_metric(tab: Page, metric: str) -> None:
    """Scroll the compare page's metrics until the name of one is in sight, since the page has few other lines.

    The steps are small, since the names, which link to the charts, follow the values one step behind.
    """
    tab.get_by_role("grid").last.evaluate(
        """async (values, metric) => {
            const bottom = values.getBoundingClientRect().bottom;
            const isInSight = link => link.textContent.trim() === metric && link.getBoundingClientRect().bottom < bottom - 40;
            for (let top = 0; top < values.scrollHeight; top += 20) {
                values.scrollTop = top;
                await new Promise(requestAnimationFrame);
                if ([...document.querySelectorAll("a")].some(isInSight)) return;
            }
        }""",
        metric,
    )
