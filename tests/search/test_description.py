"""The descriptions at the head of MLflow's pages: the result first, and at which threshold each figure is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pneumo.search.description import describe_study, describe_trial
from pneumo.spec.candidate import Candidate
from pneumo.spec.comparison import Comparison
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import Trial, TrialResult

EXPERIMENT = build_experiment({"name": "s", "hyperparameters": {"layers": [1, 2, 3]}}, "test")
DATA: Any = SimpleNamespace(description="pictures", training=[0] * 90, validation=[0] * 10, kind="folder")

AT_THRESHOLD = {"threshold": 0.25, "val_accuracy_at_threshold": 0.875, "val_sensitivity": 1.0, "val_specificity": 0.75}


def trial(number: int, value: float, **metrics: float) -> Trial:
    candidate = Candidate(number, {"layers": number + 1}, frozenset({"layers"}))
    return Trial(candidate, TrialResult(number, f"run-{number}", "complete", value, metrics))


def test_the_description_of_a_study_begins_with_the_result() -> None:
    trials = [trial(0, 0.8), trial(1, 0.9, best_val_accuracy=0.5, **AT_THRESHOLD), trial(2, 0.7)]
    interval = Comparison(
        "val_auc", 0.1, 0.01, 0.2, "by patient", pictures=10, is_same_pictures=True, is_stressed=False
    )
    text = describe_study(EXPERIMENT, DATA, (), trials, run_page=lambda run: f"#/{run}", comparison=interval)
    result, table, *_ = text.split("\n\n")
    assert "Trial 1 reaches val_auc 0.9000, 0.1000 above the tutorial's network" in result
    assert "95 % interval by patient" in result
    assert [line.split("|")[1].replace("&nbsp;", "").strip() for line in table.splitlines()[2:]] == [
        "[trial 1](#/run-1)",
        "[trial 0](#/run-0)",
        "[trial 2](#/run-2)",
    ]
    assert "-m pneumo.promote s" in text


def test_a_study_without_a_complete_trial_says_so() -> None:
    assert describe_study(EXPERIMENT, DATA, (), ()).startswith("No trial is complete yet")


def test_the_description_of_a_trial_says_at_which_threshold_its_figures_are() -> None:
    text = describe_trial(trial(1, 0.9, best_val_accuracy=0.5, **AT_THRESHOLD), EXPERIMENT)
    assert "at threshold 0.250" in text
    assert "accuracy 0.8750, sensitivity" in text
    assert "At 0.5, where `val_accuracy` is: accuracy 0.5000." in text


def test_a_trial_of_an_earlier_version_is_described_without_what_it_lacks() -> None:
    text = describe_trial(trial(1, 0.9, best_val_accuracy=0.5, threshold=0.25, val_sensitivity=1.0), EXPERIMENT)
    assert "at threshold 0.250" in text
    assert "sensitivity" in text
    assert "None" not in text
