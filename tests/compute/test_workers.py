"""How many workers a study gets, and what it says if these are fewer than were asked for."""

from __future__ import annotations

from typing import Any

import pytest

from pneumo.compute import workers
from pneumo.compute.footprint import largest_trial_memory, trial_memory
from pneumo.compute.workers import DRIVER_MEMORY, count_trainings, plan_workers
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.hyperparameters import TUTORIAL, Hyperparameters
from pneumo.spec.network import count_parameters

GB = 10**9


def study(asked: int, trials: int = 30, *, hyperparameters: dict[str, Any] | None = None, **search: Any) -> Experiment:
    document = {"name": "s", "search": {"workers": asked, "trials": trials} | search}
    return build_experiment(document | {"hyperparameters": hyperparameters or {"layers": [1, 2]}}, "test")


def with_memory(monkeypatch: pytest.MonkeyPatch, free: float, total: float) -> None:
    monkeypatch.setattr(workers, "available_memory", lambda: int(free))
    monkeypatch.setattr(workers, "total_memory", lambda: int(total))


@pytest.mark.parametrize(
    ("asked", "finished", "free", "expected", "reason"),
    [
        (50, 29, 64 * GB, 1, "one training is left"),
        (50, 27, 64 * GB, 3, "3 trainings are left"),
        (50, 0, 64 * GB, 30, "30 trainings are left"),
        (50, 0, 7 * GB, 8, "memory allows 8 (7.0 GB free, up to 813 MB each)"),
        (50, 29, 7 * GB, 1, "one training is left"),
        (50, 0, 0.1 * GB, 1, "memory allows 1 (100 MB free, up to 813 MB each)"),
        (8, 0, 7 * GB, 8, None),
        (2, 0, 64 * GB, 2, None),
        (1, 0, 0, 1, None),
        (50, 30, 64 * GB, 0, None),  # nothing is left to train
    ],
)
def test_workers_are_bounded_by_request_trials_and_memory(
    monkeypatch: pytest.MonkeyPatch, asked: int, finished: int, free: float, expected: int, reason: str | None
) -> None:
    with_memory(monkeypatch, free, 64 * GB)
    experiment = study(asked)
    plan, left = plan_workers(experiment), count_trainings(experiment, finished)
    assert plan.workers(left) == expected
    assert plan.describe(left) == (reason and f"Workers: {expected} of {asked}: {reason}")


def test_confirmations_count_as_trainings() -> None:
    experiment = study(50, 4, confirm={"top": 3, "seeds": 2})
    assert [count_trainings(experiment, finished) for finished in (0, 4)] == [6, 6]
    assert count_trainings(study(50, 9, confirm={"top": 3, "seeds": 2}), 1) == 8


def test_shares_of_the_cores_do_not_depend_on_what_is_free_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = set()
    for free in (1 * GB, 7 * GB, 16 * GB):
        with_memory(monkeypatch, free, 16 * GB)
        shares.add(plan_workers(study(50)).shares)
    assert shares == {(16 * GB - DRIVER_MEMORY) // trial_memory(TUTORIAL)}
    assert plan_workers(study(50, 2)).shares == 2


def test_no_trial_of_a_study_needs_more_than_its_largest() -> None:
    block: dict[str, Any] = {
        "layers": {"low": 1, "high": 5},
        "kernel_size": [3, 5],
        "filters": [4, 64],
        "image_size": [32, 96],
        "batch_norm": [False, True],
        "dense_units": [8, 512],
        "batch_size": [8, 64],
    }
    experiment = study(2, hyperparameters=block, baseline=False)
    networks = [Hyperparameters(**values) for values in experiment.space.grid()]  # type: ignore[arg-type]
    assert largest_trial_memory(experiment) == max(trial_memory(v) for v in networks if count_parameters(v))


def test_the_baseline_may_be_the_largest_trial() -> None:
    small = {"filters": [2, 4], "dense_units": 8, "image_size": 32, "batch_size": 4}
    assert largest_trial_memory(study(2, hyperparameters=small)) > largest_trial_memory(
        study(2, hyperparameters=small, baseline=False)
    )
