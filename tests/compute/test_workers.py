"""How many workers a study gets, and what it says if these are fewer than were asked for."""

from __future__ import annotations

from typing import Any

import pytest

from pneumo.compute import workers
from pneumo.compute.devices import Devices
from pneumo.compute.footprint import largest_trial_memory, trial_memory
from pneumo.compute.gpus import Gpu
from pneumo.compute.workers import DRIVER_MEMORY, count_trainings, plan_workers, resolve_workers
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.hyperparameters import TUTORIAL, Hyperparameters
from pneumo.spec.network import count_parameters

GB = 10**9
CPU = Devices((), 64)


def gpus(number: int, share: float = 1.0) -> Devices:
    return Devices(tuple(Gpu(str(n), "NVIDIA H100", 80 * GB) for n in range(number)), 64, share)


def study(
    asked: int | str, trials: int = 30, *, hyperparameters: dict[str, Any] | None = None, **search: Any
) -> Experiment:
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
    plan, left = plan_workers(experiment, CPU), count_trainings(experiment, finished)
    assert plan.workers(left) == expected
    assert plan.explain(left) == (reason and f"Workers: {expected} of {asked}: {reason}")


@pytest.mark.parametrize(
    ("asked", "devices", "expected", "reason"),
    [
        (4, gpus(2), 2, "Workers: 2 of 4: 2 GPUs have room for 2; a smaller --gpu-share puts more on each"),
        (4, gpus(1), 1, "Workers: 1 of 4: 1 GPU has room for 1; a smaller --gpu-share puts more on each"),
        (4, gpus(2, 0.5), 4, None),
        (1, gpus(4), 1, None),
        (2, Devices((), 2), 2, None),
        (
            2,
            Devices((), 1),
            2,
            "Workers: 2 share one core, which is no faster than fewer; --workers auto takes as many as pay",
        ),
    ],
)
def test_workers_are_bounded_by_gpus_and_more_than_cores_are_said(
    monkeypatch: pytest.MonkeyPatch, asked: int, devices: Devices, expected: int, reason: str | None
) -> None:
    with_memory(monkeypatch, 64 * GB, 64 * GB)
    plan = plan_workers(study(asked), devices)
    assert (plan.workers(30), plan.explain(30)) == (expected, reason)


def test_a_plan_says_on_what_trials_train_and_why_there_are_fewer_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 64 * GB, 64 * GB)
    unusable = Devices((), 2, fault="install the GPU libraries with `make gpu`")
    assert plan_workers(study(3), unusable).describe(2).splitlines() == [
        "Training on: CPU, 2 cores, 2 trials at a time (no usable GPU: install the GPU libraries with `make gpu`)",
        "Warning: this machine has a GPU, and no trial uses it",
        "Workers: 2 of 3: 2 trainings are left",
    ]
    assert plan_workers(study(2), gpus(2)).describe(9) == "Training on: 2 x NVIDIA H100"


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (Devices((), 1), 1),
        (Devices((), 2), 1),
        (Devices((), 9), 4),
        (Devices((), 256), 64),
        (gpus(4), 4),
        (gpus(2, 0.5), 4),
    ],
)
def test_auto_is_a_worker_for_each_share_of_a_gpu_or_for_every_two_cores(devices: Devices, expected: int) -> None:
    experiment = study("auto")
    assert resolve_workers(experiment, devices).search.workers == expected
    assert "workers: auto" in experiment.to_yaml()
    assert resolve_workers(study(3), devices) == study(3)


def test_confirmations_count_as_trainings() -> None:
    experiment = study(50, 4, confirm={"top": 3, "seeds": 2})
    assert [count_trainings(experiment, finished) for finished in (0, 4)] == [6, 6]
    assert count_trainings(study(50, 9, confirm={"top": 3, "seeds": 2}), 1) == 8


def test_shares_of_the_cores_do_not_depend_on_what_is_free_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = set()
    for free in (1 * GB, 7 * GB, 16 * GB):
        with_memory(monkeypatch, free, 16 * GB)
        shares.add(plan_workers(study(50), CPU).shares)
    assert shares == {(16 * GB - DRIVER_MEMORY) // trial_memory(TUTORIAL)}
    assert plan_workers(study(50, 2), CPU).shares == 2


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
