"""What MLflow knows of a study that may be running. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient

from pneumo.spec.names import Metrics, Tags
from pneumo.spec.run import RecordedRun
from pneumo.tracking.find import find_experiment
from pneumo.tracking.runs import recorded_run, runs_of
from pneumo.tracking.store import Store


@dataclass(frozen=True)
class LiveTraining:
    """A run of a trial or a confirmation that is RUNNING.

    Attributes:
        run: The run.
        epoch: The last epoch that was recorded; 0 if none was.
        seconds_per_epoch: Mean seconds of an epoch; None if no epoch was recorded.
        last_epoch_ended: When the last epoch was recorded, in seconds since 1970; None if none was.
    """

    run: RecordedRun
    epoch: int
    seconds_per_epoch: float | None
    last_epoch_ended: float | None


@dataclass(frozen=True)
class LiveStudy:
    """A study as MLflow knows it now.

    Attributes:
        run: The study's run.
        trials: The runs of its trials, by their start.
        confirmations: The runs of its confirmations.
        running: Those of both that are RUNNING.
    """

    run: RecordedRun
    trials: tuple[RecordedRun, ...]
    confirmations: tuple[RecordedRun, ...]
    running: tuple[LiveTraining, ...]


def read_live(store: Store, name: str) -> LiveStudy | None:
    """Return what MLflow knows of a study now; None if it has no such study.

    Raises:
        RequestError: The MLflow experiment of this name was deleted.
    """
    client = store.client
    if (experiment := find_experiment(store, name)) is None:
        return None
    by_role: dict[str, list[RecordedRun]] = {"study": [], "trial": [], "confirm": []}
    for run in map(recorded_run, runs_of(client, experiment.experiment_id)):
        if run.role in by_role:
            by_role[run.role].append(run)
    if not by_role["study"]:
        return None
    study = by_role["study"][0]
    trials, confirmations = (
        tuple(run for run in by_role[role] if run.tags.get(Tags.PARENT) == study.run_id)
        for role in ("trial", "confirm")
    )
    running = tuple(_live_training(client, run) for run in (*trials, *confirmations) if run.status == "RUNNING")
    return LiveStudy(study, trials, confirmations, running)


def _live_training(client: MlflowClient, run: RecordedRun) -> LiveTraining:
    points = sorted(client.get_metric_history(run.run_id, Metrics.VAL_LOSS), key=lambda point: point.step)
    if not points:
        return LiveTraining(run, 0, None, None)
    first, last = points[0], points[-1]
    if last.step > first.step:
        seconds = (last.timestamp - first.timestamp) / 1000 / (last.step - first.step)
    else:
        seconds = (last.timestamp - run.started) / 1000
    return LiveTraining(run, last.step, max(0.0, seconds), last.timestamp / 1000)
