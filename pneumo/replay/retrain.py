"""Train a recorded trial again in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pneumo.spec.cores import THREADS_VARIABLE
from pneumo.spec.errors import RequestError, TrialError
from pneumo.spec.names import Params, Tags
from pneumo.spec.stress import SUITE

if TYPE_CHECKING:
    from rich.console import Console

    from pneumo.compute.place import Place
    from pneumo.console.trainings import TrainingProgress
    from pneumo.data.pictures import Source
    from pneumo.data.prepare import Prepared
    from pneumo.spec.candidate import Candidate
    from pneumo.spec.experiment import Experiment
    from pneumo.tracking.recorded import RecordedTraining
    from pneumo.training.task import TrainingResult

POLL_SECONDS = 0.2
"""Seconds to wait for an event of the worker before asking again."""


@contextmanager
def open_worker(recorded: RecordedTraining) -> Iterator[Place]:
    """Start a worker with the recorded number of threads; it is ended with the context.

    Raises `RequestError` if no worker can run.
    """
    from pneumo.compute.local import LocalProcesses
    from pneumo.compute.place import PlaceError
    from pneumo.training import trial

    # The worker inherits the variable, so it must be set before the worker starts.
    if (threads := recorded.run.tags.get(Tags.THREADS, "")).isdigit():
        os.environ[THREADS_VARIABLE] = threads
    place = LocalProcesses(trial.replay_trial, trial.warm_up_deterministic)
    try:
        yield place
    except PlaceError as error:
        raise RequestError(str(error)) from error
    finally:
        place.close()


def prepare_pictures(experiment: Experiment, source: Source, console: Console) -> Prepared:
    """Decode the pictures and split them as the study did."""
    from pneumo.console.display import progress_bar
    from pneumo.data.prepare import prepare

    with progress_bar("decoding pictures", console) as progress:
        return prepare(
            source,
            experiment.image_sizes,
            experiment.data.validation,
            experiment.search.seed,
            progress=progress,
            say=lambda line: print(line, file=sys.stderr),
        )


def ask_device(place: Place, candidate: Candidate, progress: TrainingProgress) -> str:
    """Return the name of the device that the worker trains on. Raises `RequestError` if it cannot train."""
    device = _run_task(place, candidate.number, None, 0, progress)
    if isinstance(device, TrialError):
        raise RequestError(f"no training can be run here: {device}")
    return str(device)


def train_again(
    place: Place,
    recorded: RecordedTraining,
    experiment: Experiment,
    candidate: Candidate,
    data: Prepared,
    progress: TrainingProgress,
) -> TrainingResult | TrialError:
    """Train the candidate for the recorded number of epochs, and record nothing. Return its error if it fails.

    A trial that was pruned, or that stopped early, is trained up to the epoch where it ended. A trial that continued
    another one is trained from its first epoch.
    """
    from pneumo.training.task import TrialTask

    # On another device the values may differ, and the training would stop early at another epoch.
    every_epoch = replace(candidate, hyperparameters={**candidate.hyperparameters, "early_stopping": 0})
    task = TrialTask(
        study=recorded.run.study,
        candidate=every_epoch,
        run_id=recorded.run.run_id,
        outbox=None,
        objectives=experiment.search.objectives,
        seed=int(recorded.run.parameters[Params.SEED]),
        data=data,
        # A run of an earlier version was not judged on the stress suite, or on another suite.
        stress=recorded.run.tags.get(Tags.STRESS) == SUITE,
        passes=experiment.prediction_passes,
    )
    with progress:
        progress.start(candidate.number, candidate)
        trained: TrainingResult | TrialError = _run_task(place, candidate.number, task, len(recorded.epochs), progress)
    return trained


def _run_task(place: Place, number: int, payload: Any, last_epoch: int, progress: TrainingProgress) -> Any:
    """Return the worker's result for a payload, or a `TrialError` if the worker died."""
    from pneumo.compute.place import Died, Ended, Progress, Report, Task

    place.submit(Task(number, payload))
    while True:
        match place.next_event(POLL_SECONDS):
            case Progress() as step:
                progress.step(step.number, step.epoch, step.step, step.steps)
            case Report() as report:
                progress.epoch(report.number, report.metrics)
                place.answer(number, report.epoch < last_epoch)
            case Ended(result=result):
                return result
            case Died(reason=reason):
                return TrialError(reason)
