"""Tests of the rule that limits the cost of the stress suite, and of the names of its objectives."""

from __future__ import annotations

import pytest

from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.names import Metrics
from pneumo.spec.objective import (
    EPOCH_OBJECTIVES,
    OBJECTIVES,
    STRESS_OBJECTIVES,
    epoch_metric,
    epoch_objective,
    objective_metric,
)
from pneumo.spec.stress import CHANGES, GEOMETRIC_CHANGES, SHARE_AFTER_AN_EPOCH, SHARE_AT_THE_END, most_pictures

ALL = tuple(change.name for change in CHANGES)


@pytest.mark.parametrize(
    ("training", "changes", "passes", "share", "expected"),
    [
        (4800, ALL, 1, SHARE_AT_THE_END, 500),
        (4800, ALL, 2, SHARE_AT_THE_END, 250),
        (4800, ALL, 1, SHARE_AFTER_AN_EPOCH, 200),
        (2100, GEOMETRIC_CHANGES, 1, SHARE_AFTER_AN_EPOCH, 200),
        (5, ALL, 1, SHARE_AFTER_AN_EPOCH, 0),
    ],
)
def test_the_number_of_pictures_follows_from_counts(
    training: int, changes: tuple[str, ...], passes: int, share: float, expected: int
) -> None:
    assert most_pictures(training, changes, passes, share) == expected


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("share", [SHARE_AT_THE_END, SHARE_AFTER_AN_EPOCH])
@pytest.mark.parametrize("changes", [ALL, GEOMETRIC_CHANGES], ids=len)
def test_judging_costs_at_most_its_share_of_an_epoch(passes: int, share: float, changes: tuple[str, ...]) -> None:
    # To change and predict a picture takes up to 0.3 of the time in which a step trains it (docs/performance.md).
    for training in range(0, 10_000, 37):
        pictures = most_pictures(training, changes, passes, share)
        assert pictures * len(changes) * passes * 0.3 <= share * training + 1e-9


def test_at_most_half_an_epoch_at_the_end_and_a_fifth_after_each() -> None:
    assert (SHARE_AT_THE_END, SHARE_AFTER_AN_EPOCH) == (0.5, 0.2)


@pytest.mark.parametrize("objective", STRESS_OBJECTIVES)
def test_the_values_after_the_epochs_have_names_of_their_own(objective: str) -> None:
    assert (OBJECTIVES[objective], objective in EPOCH_OBJECTIVES) == ("maximize", True)
    assert objective_metric(objective) == objective
    assert epoch_metric(objective) == f"epoch_{objective}"
    assert {epoch_metric(name) for name in EPOCH_OBJECTIVES} <= set(Metrics.OF_EPOCH)
    assert objective not in Metrics.OF_EPOCH
    assert epoch_objective(["parameters", objective, "val_auc"]) == objective
    assert epoch_objective(["val_loss", objective]) == "val_loss"


@pytest.mark.parametrize(
    ("block", "passes"),
    [({}, 1), ({"flip_average": False}, 1), ({"flip_average": True}, 2), ({"flip_average": [False, True]}, 2)],
    ids=str,
)
def test_all_trials_are_judged_as_if_they_predicted_as_the_dearest_of_the_study(
    block: dict[str, object], passes: int
) -> None:
    assert build_experiment({"name": "study", "hyperparameters": block}, "file.yaml").prediction_passes == passes
