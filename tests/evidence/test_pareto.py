"""Tests of pneumo.evidence.pareto and of pareto_csv: the front in the plot, the table and the file."""

from __future__ import annotations

import csv
import io

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import create_trial
from pneumo.evidence.pareto import axis_settings, format_cell, front_table, pareto_figure

from pneumo.evidence.tables import pareto_csv
from pneumo.spec.candidate import Candidate
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial, TrialResult

TWO = ("val_auc", "parameters")
ROWS = [(0.9, 50_000.0), (0.85, 60_000.0), (0.8, 20_000.0), (0.95, 3_937_409.0)]


def _study(objectives: tuple[str, ...], rows: list[tuple[float, ...]]) -> optuna.Study:
    study = optuna.create_study(directions=[OBJECTIVES[objective] for objective in objectives])
    filters: dict[str, BaseDistribution] = {"filters": CategoricalDistribution([16, 32])}
    study.add_trials([create_trial(values=row, params={"filters": 16}, distributions=filters) for row in rows])
    return study


def _trials() -> list[Trial]:
    return [
        Trial(
            Candidate(number, {"optimizer": "sgd", "momentum": 0.5} if number == 2 else {"optimizer": "adam"}),
            TrialResult(number, f"run-{number}", "complete", auc, {"parameters": parameters}),
        )
        for number, (auc, parameters) in enumerate(ROWS)
    ]


def test_the_front_has_numbers_and_its_own_colour_and_every_point_says_what_it_is() -> None:
    figure = pareto_figure(_study(TWO, [*ROWS]), TWO)
    assert not isinstance(figure, str)
    others, front = figure.data
    assert (others.name, list(others.x), others.mode) == ("dominated", [0.85], "markers")
    assert (front.name, list(front.x), list(front.text)) == ("on the front", [0.9, 0.8, 0.95], ["0", "2", "3"])
    assert others.marker.color != front.marker.color
    assert others.hovertext == ("trial 1<br>val_auc: 0.85<br>parameters: 60,000<br>filters: 16",)
    assert figure.layout.xaxis.title.text == "val_auc (more is better)"
    assert figure.layout.yaxis.title.text == "parameters (less is better)"
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("linear", "log")


def test_three_objectives_have_three_axes() -> None:
    objectives = (*TWO, "predict_ms")
    figure = pareto_figure(_study(objectives, [(*row, 1.5) for row in ROWS]), objectives)
    assert not isinstance(figure, str)
    assert figure.layout.scene.zaxis.title.text == "predict_ms (less is better)"
    assert figure.layout.scene.yaxis.type == "log"
    assert list(figure.data[1].z) == [1.5] * 3


def test_what_cannot_be_drawn_says_why() -> None:
    four = (*TWO, "predict_ms", "model_bytes")
    assert pareto_figure(_study(TWO, []), TWO) == "No trial is complete yet."
    assert "not 4; the table has all" in str(pareto_figure(_study(four, [(1, 2, 3, 4)]), four))


def test_the_table_lists_the_front_with_the_hyperparameters_it_has() -> None:
    table = front_table(_trials(), TWO, ["layers", "optimizer", "momentum"])
    assert table.count("<tr>") == 4
    assert "<th>trial</th><th>val_auc</th><th>parameters</th><th>optimizer</th><th>momentum</th>" in table
    assert "<td>2</td><td>0.8</td><td>20,000</td><td>sgd</td><td>0.5</td>" in table
    assert "<td>3</td><td>0.95</td><td>3,937,409</td><td>adam</td><td></td>" in table
    assert front_table([], TWO, ["layers"]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.9877"),
        (3937409.0, "3,937,409"),
        (12345.6, "12,346"),
        (3, "3"),
        (0.0001234567, "0.0001235"),
        (True, "True"),
        ("sgd", "sgd"),
        (None, ""),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert format_cell(value) == text


def test_an_axis_is_logarithmic_where_values_are_far_apart_and_above_zero() -> None:
    assert (
        axis_settings([0.0, 1e6])["type"]
        == axis_settings([-1, 5])["type"]
        == axis_settings([10, 299])["type"]
        == "linear"
    )
    assert axis_settings([2e4, 9e5]) == {
        "type": "log",
        "tickvals": [1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6],
        "tickformat": "~s",
    }
    assert axis_settings([1.0, 1e6])["tickvals"] == [10.0**power for power in range(7)]


def test_csv_has_the_front_with_every_active_hyperparameter() -> None:
    rows = list(csv.DictReader(io.StringIO(pareto_csv(_trials(), TWO))))
    assert list(rows[0]) == ["trial", "val_auc", "parameters", "run_id", "optimizer", "momentum"]
    assert [row["trial"] for row in rows] == ["0", "2", "3"]
    assert list(rows[1].values()) == ["2", "0.8", "20000.0", "run-2", "sgd", "0.5"]
    assert rows[2]["momentum"] == ""
    assert pareto_csv([], TWO) == "trial,val_auc,parameters,run_id\n"
