"""What a person sees of a study of twenty trials through `python -m pneumo.ui`: MLflow's own pages in a real browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import Run
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import LONGEST, compared, drawn, is_loaded, name, table_row, trial_links
from tests.support.program import command, runs
from tests.support.recorded_study import record_study

pytestmark = pytest.mark.slow

STUDY, TRIALS = "recorded", 20


@dataclass(frozen=True)
class Pages:
    """The address that the command printed, its start, and the runs of the trials, best first."""

    printed: str
    server: str
    best_first: list[Run]

    def run_page(self, run: Run, part: str = "") -> str:
        return f"{self.server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{part}"


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Record a study, show it, and stop the pages with Ctrl-C at the end, which must leave nothing behind."""
    folder: Path = tmp_path_factory.mktemp("recorded")
    record_study(folder, STUDY, TRIALS)
    trials = [run for run in runs(folder, STUDY)[1] if run.info.status != "KILLED"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shown = subprocess.Popen(
        command(STUDY, "--no-open", "--port", port, verb="ui"),
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert shown.stdout is not None
    try:
        printed = shown.stdout.readline().strip()
        assert printed.startswith(f"http://127.0.0.1:{port}/#/experiments/")
        yield Pages(printed, printed.split("/#")[0], sorted(trials, key=lambda run: -run.data.metrics["best_val_auc"]))
    finally:
        os.killpg(shown.pid, signal.SIGINT)
        try:
            status = shown.wait(LONGEST)
        finally:
            shown.stdout.close()
    assert status == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(shown.pid, 0)


def test_the_printed_address_shows_the_trials_best_first_as_charts(tab: Page, pages: Pages) -> None:
    assert len(pages.best_first) == TRIALS
    tab.goto(pages.printed)
    expect(tab.get_by_text("20 matching runs")).to_be_visible()  # the one that was interrupted is left out
    expect(trial_links(tab).first).to_be_visible()
    shown = trial_links(tab).all_text_contents()
    assert shown == [name(run) for run in pages.best_first[: len(shown)]]
    assert len(shown) >= 10
    cards = tab.get_by_test_id("experiment-view-compare-runs-card")
    expect(cards.nth(0)).to_contain_text("val_auc")
    expect(cards.nth(0).locator(".scatterlayer .trace").first).to_be_visible()
    expect(cards.nth(1)).to_contain_text("Parallel Coordinates")
    expect(cards.nth(1).locator("canvas").first).to_be_visible()
    for of_language_models in ("Judges", "Prompts", "AI Gateway"):
        expect(tab.get_by_text(of_language_models, exact=True)).to_have_count(0)
    expect(tab.get_by_placeholder("Ask a question")).to_have_count(0)  # the assistant is closed


def test_a_click_on_the_study_in_the_list_of_experiments_leads_to_its_runs(tab: Page, pages: Pages) -> None:
    tab.goto(f"{pages.server}/#/experiments")
    tab.get_by_test_id("experiment-list-item-link").filter(has_text=STUDY).click()
    expect(tab.locator(".ag-row").first).to_be_visible()
    expect(tab.get_by_text("Judges", exact=True)).to_have_count(0)


def test_five_trials_are_compared_and_the_objective_is_seen_first(tab: Page, pages: Pages) -> None:
    five = pages.best_first[:5]
    tab.goto(pages.printed.replace("CHART", "TABLE"))
    for run in five:
        table_row(tab, name(run)).get_by_role("checkbox").check()
    tab.get_by_role("button", name="Compare", exact=True).click()
    expect(tab.get_by_role("heading", name="Comparing 5 Runs from 1 Experiment")).to_be_visible()
    expect(tab.get_by_text("system/cpu_utilization_percentage")).to_have_count(0)
    plot = tab.locator(".js-plotly-plot").first
    expect(plot.locator(".parcoords .axis-title").last).to_have_text("val_auc")
    expect(compared(tab, "Run Name:")).to_have_count(5)
    for parameter in ("layers", "learning_rate"):
        expect(compared(tab, parameter)).to_have_count(5)


def test_the_studys_page_begins_with_the_result(tab: Page, pages: Pages) -> None:
    best = pages.best_first[0]
    parent = best.data.tags["mlflow.parentRunId"]
    tab.goto(f"{pages.server}/#/experiments/{best.info.experiment_id}/runs/{parent}")
    expect(tab.get_by_text(f"Trial {int(name(best)[-4:])} reaches val_auc")).to_be_visible()
    expect(tab.get_by_text("95 % interval by patient")).to_be_visible()
    tab.get_by_text("Show more").click()
    with tab.context.expect_page() as opened:  # MLflow opens links of a description in a new tab
        tab.get_by_role("link", name=f"trial {int(name(best)[-4:])}", exact=True).click()
    expect(opened.value.get_by_role("heading", name=name(best))).to_be_visible()
    expect(opened.value.get_by_text("The best trial of study recorded.")).to_be_visible()


def test_the_images_of_a_trial_are_shown(tab: Page, pages: Pages) -> None:
    (first,) = [run for run in pages.best_first if name(run) == "trial-0000"]
    tab.goto(pages.run_page(first, "/artifacts"))
    tab.get_by_text("plots", exact=True).click()
    for plot in ("learning_curves.png", "confusion_matrix.png", "mistakes.png"):
        tab.get_by_text(plot, exact=True).click()
        assert is_loaded(tab.get_by_role("img", name=f"plots/{plot}"))


def test_a_model_has_its_name_metrics_and_registered_version(tab: Page, pages: Pages) -> None:
    best = pages.best_first[0]
    tab.goto(pages.run_page(best))
    tab.get_by_role("link", name=f"recorded-trial-{int(name(best)[-4:])}", exact=True).last.click()
    expect(tab.get_by_text("best_val_auc", exact=True).first).to_be_visible()
    expect(tab.get_by_text("learning_rate", exact=True).first).to_be_visible()
    tab.goto(f"{pages.server}/#/models/recorded/versions/1")
    expect(tab.get_by_text("Version 1").first).to_be_visible()
    expect(tab.get_by_text("Made-up figures.")).to_be_visible()


def test_the_learning_curves_are_those_of_the_runs(tab: Page, pages: Pages) -> None:
    tab.goto(pages.printed)
    card = tab.get_by_test_id("experiment-view-compare-runs-card").nth(0)
    expect(card.locator(".scatterlayer .trace").first).to_be_visible()
    shown = drawn(card.locator(".js-plotly-plot"), 10)  # MLflow draws the first ten runs of the list
    assert set(shown) == {name(run) for run in pages.best_first[:10]}
