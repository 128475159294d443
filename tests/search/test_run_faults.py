"""How many epochs a complete training must have recorded, if it may stop early, and which plots."""

from __future__ import annotations

import pytest

from pneumo.search.run_faults import MODEL_FILES, TRAINING_FILES, confirmation_faults
from pneumo.spec.names import Metrics, Tags
from pneumo.spec.run import RecordedRun
from pneumo.tracking.inventory import ModelEntry, RunContents


def faults(trained: int, best: int, parameters: dict[str, str]) -> list[str]:
    run = RecordedRun("id", "FINISHED", {"epochs": "8", **parameters}, {Metrics.BEST_EPOCH: float(best)})
    steps = {"val_auc": tuple(range(1, trained + 1))}
    return list(confirmation_faults(RunContents(run, steps, TRAINING_FILES, (ModelEntry("m", "READY", MODEL_FILES),))))


@pytest.mark.parametrize(
    ("trained", "best", "parameters"),
    [
        (8, 3, {}),  # of an earlier version
        (8, 3, {"early_stopping": "0"}),
        (5, 3, {"early_stopping": "2"}),
        (8, 7, {"early_stopping": "2"}),
        (8, 8, {"early_stopping": "2"}),
    ],
)
def test_a_training_that_stopped_early_is_whole(trained: int, best: int, parameters: dict[str, str]) -> None:
    assert faults(trained, best, parameters) == []


@pytest.mark.parametrize(
    ("trained", "best", "parameters", "expected"),
    [
        (5, 3, {}, 8),
        (5, 3, {"early_stopping": "0"}, 8),
        (4, 3, {"early_stopping": "2"}, 5),
        (6, 3, {"early_stopping": "2"}, 5),
        (7, 6, {"early_stopping": "2"}, 8),
    ],
)
def test_epochs_that_are_missing_or_too_many_are_a_fault(
    trained: int, best: int, parameters: dict[str, str], expected: int
) -> None:
    assert faults(trained, best, parameters) == [f"has {trained} epochs, and was trained for {expected}"]


def test_the_plots_that_a_run_names_must_be_there_and_no_others() -> None:
    def faults_with(plots: str | None) -> list[str]:
        tags = {} if plots is None else {Tags.PLOTS: plots}
        run = RecordedRun("id", "FINISHED", {"epochs": "1"}, {Metrics.BEST_EPOCH: 1.0}, tags)
        models = (ModelEntry("m", "READY", MODEL_FILES),)
        return list(confirmation_faults(RunContents(run, {"val_auc": (1,)}, TRAINING_FILES, models)))

    assert faults_with(None) == faults_with("calibration, roc") == []  # of an earlier version
    assert faults_with("causes, gradcam, roc") == ["lacks causes.csv, plots/causes.png, plots/gradcam.png"]
