"""The functions that a worker process enters: run a trial, or replay one.

A trial builds its network (`build_network`), trains it (`train`) and logs the result (`record_training`). The worker imports
TensorFlow and MLflow while the driver reads the pictures (`warm_up`), so this module imports none of them.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pneumo.compute import disk
from pneumo.compute.place import Channel
from pneumo.spec.errors import LESS_MEMORY, FullDiskError, TrialError
from pneumo.spec.masking import mask_passwords
from pneumo.spec.names import Artifacts, Metrics, Tags
from pneumo.spec.objective import epoch_metric, epoch_objective, objective_metric
from pneumo.spec.result import State, TrialResult
from pneumo.training import provenance
from pneumo.training.task import TrainingResult, TrialTask, one_line_error

if TYPE_CHECKING:
    from pneumo.tracking.trial_log import TrialLog


def warm_up() -> None:
    """Import what a training needs. A thread then imports what only the end of a trial needs."""
    from pneumo.cnn import device

    device.warm_up()
    from pneumo.tracking import trial_log  # noqa: F401
    from pneumo.training import train  # noqa: F401

    threading.Thread(target=_warm_up_recording, daemon=True).start()


def _warm_up_recording() -> None:
    """Import the part of MLflow that saves a network."""
    from pneumo.tracking import trial_log

    trial_log.import_model_flavor()


@contextmanager
def run_trial(task: TrialTask, channel: Channel) -> Iterator[TrialResult | FullDiskError]:
    """Run one trial and log it in its MLflow run; on leaving the context, free the memory of its network.

    If memory ran out, the worker is replaced after this trial.

    Args:
        task: The trial. Its outbox must not be None.
        channel: The connection to the driver.

    Yields:
        The result, also of a trial that failed; or `FullDiskError`, after which the trial is run again.

    Raises:
        ConnectionError, EOFError: The driver is gone.
    """
    from pneumo.cnn.device import find_device, release_memory, resolve_precision
    from pneumo.tracking.trial_log import TrialLog
    from pneumo.training.train import build_network, train

    assert task.outbox is not None
    log = TrialLog(task.outbox, task.run_id, first=epoch_metric(epoch_objective(task.objectives)))
    device = find_device()
    values = resolve_precision(task.candidate.values, device)
    model = None
    result: TrialResult | FullDiskError
    try:
        log.tag({Tags.DEVICE: device.name, Tags.PRECISION: values.precision, **provenance.tags()})
        with log.system_metrics():
            model = build_network(task, values)
            training = train(task, values, model, channel, log)
            # Not earlier: the thread of `warm_up` may still be importing the same libraries.
            from pneumo.training.record import record_training

            metrics = record_training(task, values, model, training, log)
        result = _trial_result(task, training, metrics)
    except (ConnectionError, EOFError):
        raise  # the driver is gone
    except Exception as error:
        result = _failure(task, channel, log, error)
    yield result
    if model is not None:
        release_memory(model)


def _trial_result(task: TrialTask, training: TrainingResult, metrics: Mapping[str, float]) -> TrialResult:
    """Return the result of a trial that was trained to its end or pruned."""
    state: State = "pruned" if training.pruned else "complete"
    objective = task.objectives[0]
    value = metrics.get(objective_metric(objective))
    if value is None:  # a pruned trial is judged on the stress suite after its epochs only
        value = training.history[int(metrics[Metrics.BEST_EPOCH]) - 1].get(epoch_metric(objective))
    return TrialResult(task.candidate.number, task.run_id, state, value, metrics)


def _failure(task: TrialTask, channel: Channel, log: TrialLog, error: Exception) -> TrialResult | FullDiskError:
    """Return the result of a trial that an error ended, and log its stack trace."""
    from pneumo.cnn.device import exhausted_memory, find_device

    if disk.is_full_disk(error):
        return FullDiskError(disk.describe_full_disk(error))
    stack_trace, message = "".join(traceback.format_exception(error)), one_line_error(error)
    if memory := exhausted_memory(error, find_device()):
        channel.retire()
        message = f"out of memory on the {memory}; {LESS_MEMORY}"
        # Free what the frames of the training hold; logging needs memory too.
        traceback.clear_frames(error.__traceback__)
    try:
        log.artifacts({Artifacts.ERROR: mask_passwords(stack_trace)})
    except Exception as log_error:
        if not disk.is_full_disk(log_error):
            raise
        return FullDiskError(disk.describe_full_disk(log_error))
    return TrialResult(task.candidate.number, task.run_id, "failed", error=mask_passwords(message))


def warm_up_deterministic() -> None:
    """Import what a replay needs, and make TensorFlow's operations deterministic."""
    from pneumo.cnn import device

    device.warm_up(deterministic=True)


@contextmanager
def replay_trial(task: TrialTask | None, channel: Channel) -> Iterator[TrainingResult | TrialError | str]:
    """Train the candidate of a recorded trial again, and log nothing.

    The memory is not freed: the process ends after one training.

    Args:
        task: The trial; None to ask for the device only.
        channel: The connection to the driver.

    Yields:
        The result of the training, or its error in one line; without a task the name of the device.

    Raises:
        ConnectionError, EOFError: The driver is gone.
    """
    from pneumo.cnn.device import find_device, resolve_precision
    from pneumo.training.train import build_network, train

    device = find_device()
    if task is None:
        yield device.name
        return
    values = resolve_precision(task.candidate.values, device)
    result: TrainingResult | TrialError
    try:
        result = train(task, values, build_network(task, values), channel, _NullLog())
    except (ConnectionError, EOFError):
        raise  # the driver is gone
    except Exception as error:
        result = TrialError(one_line_error(error))
    yield result


class _NullLog:
    """A `TrainingLog` that logs nothing."""

    def tag(self, tags: Mapping[str, str]) -> None:
        pass

    def epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        pass
