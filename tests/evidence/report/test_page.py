"""Tests of pneumo.evidence.report.page: each study has a report, even an empty one, and it needs no network."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pneumo.evidence.report.failures import causes_of
from pneumo.evidence.report.hyperparameters import common_rows, parallel_figure, slice_figure
from pneumo.evidence.report.importance import compute_importances
from pneumo.evidence.report.page import SECTIONS, studies_report, study_report
from pneumo.evidence.report.settings import changed_settings
from pneumo.evidence.tables import predictions_csv
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial
from pneumo.spec.run import RecordedRun
from pneumo.spec.study_record import StudyRecord
from tests.support.study_records import experiment, made_record, made_trial, made_trials, png

MEGABYTE = 1_000_000

TWO = ("val_auc", "parameters")


def _body(page: str) -> str:
    """Return the page without its scripts, apart from the figures, and without its style."""
    page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    return re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def _sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page)


def _figures(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]


def _with_files(record: StudyRecord) -> StudyRecord:
    """Return the record with the artifacts of the best trial and of the baseline."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    names, patients = [f"{n}.png" for n in range(300)], [f"p{n // 2}" for n in range(300)]
    files = {}
    for number, noise in ((0, 0.9), (record.best.number if record.best else 0, 0.4)):
        probabilities = 1 / (1 + np.exp(-(labels - 0.5) / noise - rng.normal(size=300)))
        files[number] = {
            "predictions.csv": predictions_csv(names, patients, labels, probabilities).encode(),
            "stress.csv": b"change,kind,auc,accuracy,sensitivity,specificity\nplain,,0.98,0.93,0.94,0.92\n",
            **{f"plots/{name}.png": png(640, 480) for name in ("roc", "mistakes", "confusion_matrix", "attention")},
        }
    return replace(record, files=files)


@pytest.mark.slow
def test_two_hundred_trials_have_every_section_below_five_megabytes_and_nothing_from_a_network() -> None:
    record = _with_files(
        made_record(made_trials(200), run=RecordedRun("f" * 32, "FINISHED", metrics={"proposals_repeat": 3}))
    )
    page = study_report(record)
    assert len(page.encode()) < 5 * MEGABYTE
    assert page.count("plotly.js (basic - minified)") == 1
    assert _sections(page) == [section.name for section in SECTIONS if section.name != "front"]
    body = _body(page)
    assert set(re.findall(r"""\bsrc=["'](.{0,11})""", body)) == {"data:image/"}
    assert not re.search(r"<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", body)
    assert record.best
    assert "95 % interval by patient +0." in body
    assert "difference in AUC, plain pictures" in body
    assert body.count("<figure") == 4
    assert len(re.findall(r'<tr class="(complete|pruned|failed) ', body)) == 200
    assert f'href="http://mlflow.example/#/experiments/1/runs/{record.best.result.run_id}"' in body
    assert body.index("shortcut-frame") < body.index("<strong>outlier")
    assert "3 proposals were not trained" in body
    assert "explain" in body
    assert "Caution" not in body  # there are more than 30 complete trials


def test_few_trials_come_with_a_caution_and_no_link_without_a_server() -> None:
    page = _body(study_report(made_record(made_trials(30), page=None)))
    assert "Caution" in page
    assert "http://" not in page
    assert "no trial was trained again" in page


def test_what_matters_is_found_with_its_spread() -> None:
    record = made_record(made_trials(70))
    found = compute_importances(record.trials, "val_auc", record.objectives, record.experiment.space.searched)
    assert not isinstance(found, str)
    assert found.each[0].name == "layers"
    assert all(each.low <= each.mean <= each.high for each in found.each)
    assert found.explained > 0.3
    assert {row["name"]: row["verdict"] for row in common_rows(record)}["layers"].startswith(("all 10", "8 of", "9 of"))


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        ([], "No trial has ended yet."),
        ([made_trial(0, None, state="failed", error="<b>&")], "&lt;b&gt;&amp;"),
        ([made_trial(0, float("nan")), made_trial(1, float("inf"))], "No trial is complete"),
        ([made_trial(3)], "Importances need at least 10 complete trials; there are 1."),
        ([made_trial(n, 0.9, {"layers": n % 3 + 1, "filters": 16 + n}) for n in range(12)], "have the same val_auc"),
        ([made_trial(n, n / 20, {"layers": 1 + n % 4}) for n in range(12)], "at least two hyperparameters"),
        (
            [made_trial(0, 0.9, {"weight_decay": 0.0}), made_trial(1, 0.8, {"weight_decay": 1e-3})],
            "weight_decay of trial 0 is 0",
        ),
        ([made_trial(n, 0.9, {"optimizer": "</script><img src=x>"}) for n in range(3)], "&lt;/script&gt;&lt;img"),
    ],
    ids=["empty", "failed", "not finite", "one", "constant", "one name", "zero", "markup"],
)
@pytest.mark.parametrize("objectives", [("val_auc",), (*TWO, "predict_ms")], ids=len)
def test_nothing_makes_a_report_raise_and_what_is_missing_says_why(
    trials: list[Trial], sentence: str, objectives: tuple[str, ...]
) -> None:
    record = made_record(trials, experiment(objective=list(objectives)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = _body(study_report(record))
    assert sentence in page or len(objectives) > 1
    assert "<img" not in page
    assert ("front" in _sections(page)) == (len(objectives) > 1 and bool(trials))
    _figures(page)  # JSON that a browser reads


def test_slices_have_values_in_order_and_one_vertical_axis() -> None:
    values = [(0.95, 24, 0.004), (0.96, 16, 0.003), (0.7, 8, 0.0)]  # the last filters and weight decay are not searched
    trials = [
        made_trial(number, value, {"filters": filters, "weight_decay": decay})
        for number, (value, filters, decay) in enumerate(values)
    ]
    space = {"filters": [24, 16], "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True}}
    record = made_record(trials, Experiment.model_validate({"name": "article", "hyperparameters": space}))
    slices = {d.name: slice_figure(d, record) for d in record.experiment.space.searched}
    filters, decay = slices["filters"], slices["weight_decay"]
    assert isinstance(filters, dict)
    assert isinstance(decay, dict)
    assert filters["layout"]["xaxis"]["categoryarray"] == ["8", "16", "24"]
    assert (decay["layout"]["xaxis"]["type"], decay["layout"]["xaxis"]["ticktext"]) == ("log", ["0.003", "0.004"])
    low, high = filters["layout"]["yaxis"]["range"]
    assert low < 0.7
    assert high > 0.96
    assert decay["layout"]["yaxis"]["range"] == [low, high]


def test_the_worst_trials_are_drawn_in_a_colour_that_can_be_seen() -> None:
    figure = parallel_figure(made_record(made_trials(40)))
    assert not isinstance(figure, str)
    for trace in figure["data"]:
        red, green, blue = (int(trace["line"]["color"][k : k + 2], 16) for k in (1, 3, 5))
        assert max(red, green, blue) <= 180
        assert trace["opacity"] >= 0.5


def test_failures_that_differ_in_numbers_have_one_cause() -> None:
    errors = ["ran out of memory after 3 epochs", "loss is nan", "ran out of memory after 12 epochs", None]
    trials = [made_trial(n, None, state="failed", error=error) for n, error in enumerate(errors)]
    causes = causes_of([*trials, made_trial(9)])
    assert [(cause, [t.number for t in of_cause]) for cause, of_cause in causes] == [
        ("ran out of memory after 3 epochs", [0, 2]),
        ("loss is nan", [1]),
        ("no reason is recorded", [3]),
    ]


def test_settings_that_differ_from_their_default_are_listed() -> None:
    rows = {key: (value, default) for key, value, default in changed_settings(experiment(trials=200, seed=7))}
    assert rows["search.seed"] == ("7", "0")
    assert rows["hyperparameters.filters"] == ("[16, 32, 64]", "32")
    assert "search.engine" not in rows


def test_several_studies_stand_side_by_side() -> None:
    records = [made_record(made_trials(20)), made_record(made_trials(30, 1), experiment("other", trials=30))]
    page = _body(studies_report(records))
    assert _sections(page) == ["overview", "courses", "spaces"]
    assert [len(figure["data"]) for figure in _figures(page)] == [2, 2, 2]
    assert "<th>article</th><th>other</th>" in re.sub(r">\s+<", "><", page)
    assert "30 trials" in page
