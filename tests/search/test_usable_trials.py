"""Tests of what a study learns from an earlier one, and of what it shows of the stress suite."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from rich.console import Console

from pneumo.search.preflight import usable_trials
from pneumo.search.results import show_results
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import Trial, TrialResult


def study(objective: str | list[str]) -> Experiment:
    document = {"name": "study", "hyperparameters": {"layers": [1, 2]}, "search": {"objective": objective}}
    return build_experiment(document, "file.yaml")


def trial(number: int, value: float, metrics: Mapping[str, float]) -> Trial:
    values = study("val_auc").space.baseline() | {"layers": 1 + number % 2}
    result = TrialResult(number, f"run{number}", "complete", value, {"best_val_auc": value, **metrics}, (0.1, value))
    return Trial(Candidate(number, values, frozenset({"layers"})), result)


JUDGED = [trial(0, 0.9, {"val_stress_auc": 0.6}), trial(1, 0.8, {"val_stress_auc": 0.7})]
UNJUDGED = [trial(2, 0.95, {})]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("val_auc", [0.9, 0.8, 0.95]), ("val_stress_auc", [0.6, 0.7]), (["val_stress_auc", "val_auc"], [0.6, 0.7])],
    ids=str,
)
def test_an_earlier_studys_trials_have_the_values_of_this_studys_objective(
    objective: str | list[str], expected: list[float]
) -> None:
    usable = usable_trials([*JUDGED, *UNJUDGED], study(objective))
    assert [trial.result.value for trial in usable] == expected
    assert [trial.result.history for trial in usable] == [
        (0.1, value) if objective == "val_auc" else () for value in expected
    ]


@pytest.mark.parametrize("objective", ["val_auc", "val_stress_auc"])
def test_the_table_at_the_end_shows_the_stress_suite_and_leaves_gaps(objective: str) -> None:
    trials = usable_trials([*JUDGED, *UNJUDGED], study("val_auc"))
    if objective == "val_stress_auc":
        trials = usable_trials(trials, study(objective))
    console = Console(record=True, width=160)
    show_results(console, study(objective), trials)
    shown = console.export_text()
    header = next(line for line in shown.splitlines() if "layers" in line and "trial" in line)
    assert header.count("val_stress_auc") == 1
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    best = rows[0].split("│")
    if objective == "val_auc":
        assert [cell.strip() for cell in best[1:4]] == ["2", "0.9500", "-"]
        assert "stress suite" not in shown
    else:
        assert [cell.strip() for cell in best[1:3]] == ["1", "0.7000"]
        assert "Under the changes of the stress suite, trial 1 reaches val_stress_auc 0.7000." in shown
