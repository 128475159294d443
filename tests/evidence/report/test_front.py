"""Tests of pneumo.evidence.report.front and of pareto_csv: the front in the plots, the table and the file."""

from __future__ import annotations

import csv
import io

from pneumo.evidence.report.front import front_figures, front_rows
from pneumo.evidence.tables import pareto_csv
from pneumo.spec.candidate import Candidate
from pneumo.spec.result import Trial, TrialResult

TWO = ("val_auc", "parameters")
ROWS = [(0.9, 50_000.0), (0.85, 60_000.0), (0.8, 20_000.0), (0.95, 3_937_409.0)]


def _trials() -> list[Trial]:
    return [
        Trial(
            Candidate(number, {"optimizer": "sgd", "momentum": 0.5} if number == 2 else {"optimizer": "adam"}),
            TrialResult(number, f"run-{number}", "complete", auc, {"parameters": parameters}),
        )
        for number, (auc, parameters) in enumerate(ROWS)
    ]


def test_the_front_has_numbers_and_its_own_colour_and_every_point_says_what_it_is() -> None:
    (figure,) = front_figures(_trials(), TWO)
    assert not isinstance(figure, str)
    others, front = figure["data"]
    assert (others["name"], others["x"], others["mode"]) == ("dominated", [0.85], "markers")
    assert (front["name"], front["x"], front["text"]) == ("on the front", [0.9, 0.8, 0.95], ["0", "2", "3"])
    assert others["marker"]["color"] != front["marker"]["color"]
    assert others["hovertext"] == ["trial 1<br>val_auc 0.8500<br>parameters 60,000"]
    layout = figure["layout"]
    assert layout["xaxis"]["title"]["text"] == "val_auc (more is better)"
    assert layout["yaxis"]["title"]["text"] == "parameters (less is better)"
    assert (layout["xaxis"]["type"], layout["yaxis"]["type"]) == ("linear", "log")


def test_three_objectives_have_a_plot_for_each_pair() -> None:
    trials = [
        Trial(
            t.candidate, TrialResult(t.number, "", "complete", t.result.value, {**t.result.metrics, "predict_ms": 1.5})
        )
        for t in _trials()
    ]
    figures = front_figures(trials, (*TWO, "predict_ms"))
    titles = [f["layout"]["yaxis"]["title"]["text"].split()[0] for f in figures if not isinstance(f, str)]
    assert titles == ["parameters", "predict_ms", "predict_ms"]
    assert front_figures([], TWO) == ["No trial is complete yet."]


def test_the_table_lists_the_front_with_the_hyperparameters_it_has() -> None:
    head, rows = front_rows(_trials(), TWO, ["layers", "optimizer", "momentum"])
    assert head == ["trial", "val_auc", "parameters", "optimizer", "momentum"]
    assert rows[1:] == [["2", "0.8000", "20,000", "sgd", "0.5000"], ["3", "0.9500", "3,937,409", "adam", ""]]
    assert front_rows([], TWO, ["layers"])[1] == []


def test_csv_has_the_front_with_every_active_hyperparameter() -> None:
    rows = list(csv.DictReader(io.StringIO(pareto_csv(_trials(), TWO))))
    assert list(rows[0]) == ["trial", "val_auc", "parameters", "run_id", "optimizer", "momentum"]
    assert [row["trial"] for row in rows] == ["0", "2", "3"]
    assert list(rows[1].values()) == ["2", "0.8", "20000.0", "run-2", "sgd", "0.5"]
    assert rows[2]["momentum"] == ""
    assert pareto_csv([], TWO) == "trial,val_auc,parameters,run_id\n"
