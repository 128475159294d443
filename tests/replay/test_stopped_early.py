"""Replay of a trial that stopped early: as many epochs as are recorded, and a speed of 0 is no error."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from pneumo.compute.place import Ended, Report, Task
from pneumo.console.trainings import TrainingProgress
from pneumo.replay.compare import MetricPair
from pneumo.replay.report import describe_trial
from pneumo.replay.retrain import train_again
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.run import RecordedRun
from pneumo.tracking.recorded import RecordedTraining

RUN = RecordedRun(
    "id", "FINISHED", {"seed": "3"}, tags={"pneumo.study": "s", "pneumo.trial": "5", "pneumo.role": "trial"}
)
RECORDED = RecordedTraining(
    RecordedRun(RUN.run_id, RUN.status, RUN.parameters, tags={**RUN.tags, "pneumo.state": "complete"}),
    "sqlite://",
    ({"val_auc": 0.9}, {"val_auc": 0.8}),
    {},
    "",
    "",
)
CANDIDATE = Candidate(5, {"epochs": 4, "early_stopping": 1})


class Worker:
    """Records its task, and reports the recorded epochs."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.answers: list[bool] = []

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def next_event(self, _: float) -> Any:
        epoch = len(self.answers) + 1
        return Report(5, epoch, 0.5, {"val_auc": 0.5}) if epoch <= 2 else Ended(5, "trained")

    def answer(self, _: int, go_on: bool) -> None:
        self.answers.append(go_on)


def test_as_many_epochs_are_trained_as_are_recorded_though_the_values_may_differ_here() -> None:
    worker, experiment = Worker(), build_experiment({"name": "s"}, "s")
    progress = TrainingProgress(Console(), experiment.search.objectives[0])
    trained: object = train_again(worker, RECORDED, experiment, CANDIDATE, SimpleNamespace(), progress)  # type: ignore[arg-type]
    assert trained == "trained"
    assert worker.answers == [True, False]
    values = worker.tasks[0].payload.candidate.values
    assert (values.epochs, values.early_stopping) == (4, 0)


def test_the_first_line_says_that_the_trial_stopped_early() -> None:
    assert describe_trial(RECORDED, CANDIDATE).endswith("; epochs 1 to 2 of 4, then stopped early")


def test_the_ratio_to_the_speed_of_a_trial_that_trained_nothing_is_not_a_number() -> None:
    assert math.isnan(MetricPair("images_per_second", 0.0, 12.0).ratio)
    assert MetricPair("images_per_second", 6.0, 12.0).ratio == 2.0
