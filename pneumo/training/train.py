"""Build and train the network of one trial: everything that decides the numbers of its training.

This module imports TensorFlow; import it in a worker only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumo.cnn.batches import Examples, steps_per_epoch
from pneumo.cnn.build import build, network_parameters, prediction_network
from pneumo.cnn.checkpoint import (
    BestEpoch,
    Checkpoint,
    CheckpointError,
    CheckpointWriter,
    TrainingCost,
    load_checkpoint,
)
from pneumo.cnn.device import picture_memory
from pneumo.cnn.fit import EpochOutcome, FitResult, fit, is_finished
from pneumo.cnn.optimizer import compile_model
from pneumo.compute.place import Channel
from pneumo.evidence.metrics import epoch_metrics, validation_metrics
from pneumo.evidence.stress import judge
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.names import Metrics, Tags
from pneumo.spec.objective import OBJECTIVES, PLAIN_OBJECTIVES, STRESS_OBJECTIVES, epoch_metric, epoch_objective
from pneumo.spec.stress import SUITE
from pneumo.training.attention import explain_validation
from pneumo.training.stress import StressTest
from pneumo.training.task import TrainingResult, TrialTask, one_line_error


class TrainingLog(Protocol):
    """Where a training logs its epochs, see `pneumo.tracking.trial_log.TrialLog`."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        ...

    def epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log the metrics of one epoch, counted from 1."""
        ...


def build_network(task: TrialTask, values: Hyperparameters) -> Any:
    """Return the untrained network, a `keras.Model`, for the hyperparameters with the precision resolved."""
    return build(values, seed=task.seed)


def train(task: TrialTask, values: Hyperparameters, model: Any, channel: Channel, log: TrainingLog) -> TrainingResult:
    """Train a network, from the trial's checkpoint if there is one, and report each epoch to the driver.

    Args:
        task: The trial.
        values: The candidate's hyperparameters with the precision resolved.
        model: The network that `build_network` returned. Afterwards it has the weights of the best epoch.
        channel: The connection to the driver, which may stop the training after each epoch.
        log: The log of the trial's run.

    Returns:
        The result of the training.

    Raises:
        DivergedError: The loss or a probability is not finite.
        ConnectionError, EOFError: The driver is gone.
    """
    data, pixels = task.data, task.data.pixels(values.image_size)
    training = Examples(pixels, data.training, data.labels[data.training].astype("int64"))
    validation = Examples(pixels, data.validation, data.labels[data.validation].astype("int64"))
    compile_model(model, values, steps_per_epoch(training, values) * _full_epochs(task, values))
    recipe = _recipe(task, values)
    checkpoint = _load_progress(task, model, recipe, log)
    names = [data.names[row] for row in data.validation]
    stress_test = StressTest(model, values, len(training), validation, names, task.passes)
    epochs = _EpochReports(task, validation.labels, stress_test, channel, log, checkpoint)
    if epochs.pruned:  # the driver prunes again at the last epoch of the checkpoint
        values = values.model_copy(update={"epochs": len(epochs.history)})

    with CheckpointWriter(Path(task.checkpoint_path)) if task.checkpoint_path else nullcontext() as writer:

        def save_progress(best: BestEpoch, cost: TrainingCost) -> None:
            is_last = epochs.pruned or is_finished(values, best, len(epochs.history))
            # A later trial continues from the last epoch, so that one is written however long it takes.
            if writer and (writer.is_due or (is_last and task.candidate.can_continue)):
                writer.save(model, Checkpoint(best, epochs.history, cost), recipe)

        result = fit(
            model,
            values,
            training,
            validation,
            seed=task.seed,
            after_epoch=epochs.report,
            after_step=channel.progress,
            checkpoint=checkpoint,
            save_progress=save_progress,
            picture_memory=picture_memory(),
        )
    metrics = _final_metrics(model, epochs.history[result.best_epoch - 1], validation, result)
    # The driver of a replay ends the training after the recorded number of epochs, also if it was not pruned.
    is_complete = task.is_replay or not epochs.pruned
    stress = stress_test.at_the_end(result.probabilities) if task.stress and is_complete else None
    if stress:
        metrics |= judge(stress).metrics()
    heat_maps = None
    if is_complete:
        network, threshold = prediction_network(model, values), metrics[Metrics.THRESHOLD]
        heat_maps = explain_validation(network, validation, result.probabilities, threshold)
        if not np.isnan(heat_maps.inside):  # a small network may have no heat in any picture
            metrics[Metrics.VAL_ATTENTION_INSIDE] = heat_maps.inside
    return TrainingResult(epochs.history, metrics, result.probabilities, epochs.pruned, stress, heat_maps)


class _EpochReports:
    """Reports each epoch to the run and to the driver.

    The epochs that the checkpoint has of this trial are reported to the driver again at the start, so that the driver judges
    the trial, and draws its curve, as if it had not been interrupted.

    Attributes:
        history: The metrics of each epoch, from the first.
        pruned: Whether the driver has stopped the training.
    """

    def __init__(
        self,
        task: TrialTask,
        labels: NDArray[np.int64],
        stress_test: StressTest,
        channel: Channel,
        log: TrainingLog,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._objective = epoch_objective(task.objectives)
        self._sign = 1.0 if OBJECTIVES[self._objective] == "maximize" else -1.0
        self._metric = epoch_metric(self._objective)
        self._labels, self._stress_test, self._channel, self._log = labels, stress_test, channel, log
        self.history = [dict(epoch) for epoch in checkpoint.history] if checkpoint else []
        self.pruned = False
        own_epochs = self.history[len(self.history) - checkpoint.cost.epochs :] if checkpoint else []
        for epoch in own_epochs:
            self._ask_driver(int(epoch["epoch"]), _without_number(epoch))

    def report(
        self, epoch: int, training_metrics: Mapping[str, float], probabilities: NDArray[np.float32]
    ) -> EpochOutcome:
        """Compute, log and report the metrics of an epoch that was just trained."""
        metrics = {**training_metrics, **epoch_metrics(self._labels, probabilities)}
        if self._objective in STRESS_OBJECTIVES:
            metrics[self._metric] = self._stress_test.after_an_epoch(self._objective, probabilities)
        self.history.append({"epoch": epoch, **metrics})
        self._log.epoch(metrics, epoch)
        self._ask_driver(epoch, metrics)
        return EpochOutcome(self._sign * metrics[self._metric], not self.pruned)

    def _ask_driver(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.pruned = not self._channel.report(epoch, metrics[self._metric], metrics)


def _full_epochs(task: TrialTask, values: Hyperparameters) -> int:
    """Return the number of epochs of the whole training, of which a rung trains a part."""
    return task.candidate.full_epochs or values.epochs


def _recipe(task: TrialTask, values: Hyperparameters) -> dict[str, object]:
    """Return everything that the epochs and the choice of the best one depend on, except the number of epochs."""
    best_by = epoch_objective(task.objectives)
    return {
        **values.model_dump(exclude={"epochs"}),
        "full_epochs": _full_epochs(task, values) if values.rate_depends_on_epochs else None,
        "seed": task.seed,
        "best_by": f"{best_by} of {SUITE}" if best_by in STRESS_OBJECTIVES else best_by,
        "training": task.data.digest("training"),
        "validation": task.data.digest("validation"),
    }


def _load_progress(task: TrialTask, model: Any, recipe: Mapping[str, object], log: TrainingLog) -> Checkpoint | None:
    """Load the checkpoint to start from into the model, and log its epochs and where it came from.

    The trial's own checkpoint, which a killed process left, is preferred to that of the trial that it continues. A
    checkpoint that is refused is logged as `pneumo.restarted`.

    Returns:
        The progress, or None if the training starts at the first epoch.
    """
    own = task.checkpoint_path if task.checkpoint_path and Path(task.checkpoint_path).exists() else None
    checkpoint, errors = None, []
    for path in filter(None, (own, task.continue_from)):
        try:
            checkpoint = load_checkpoint(Path(path), model, recipe, task.candidate.epochs)
        except CheckpointError as error:
            errors.append(one_line_error(error))
            continue
        if path == own:
            log.tag({Tags.CONTINUED: f"after epoch {len(checkpoint.history)}"})
        else:
            # Another trial trained these epochs. If nothing is left to train, its speed of prediction is the only one.
            checkpoint = replace(checkpoint, cost=TrainingCost(predict_ms=checkpoint.cost.predict_ms))
        break
    if errors:
        log.tag({Tags.RESTARTED: "; ".join(errors)})
    for epoch in checkpoint.history if checkpoint else []:
        log.epoch(_without_number(epoch), int(epoch["epoch"]))
    return checkpoint


def _without_number(epoch: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an epoch of the history."""
    return {name: value for name, value in epoch.items() if name != "epoch"}


def _final_metrics(model: Any, best: Mapping[str, float], validation: Examples, result: FitResult) -> dict[str, float]:
    """Return the metrics that are known at the end. `best` is the best epoch of the history."""
    metrics = {
        Metrics.BEST_EPOCH: result.best_epoch,
        **{f"best_{name}": best[name] for name in PLAIN_OBJECTIVES},
        **validation_metrics(validation.labels, result.probabilities),
        Metrics.PARAMETERS: network_parameters(model),
        Metrics.PREDICT_MS: result.cost.predict_ms,
        Metrics.EPOCHS_TRAINED: result.cost.epochs,
        Metrics.TRAIN_SECONDS: result.cost.seconds,
        Metrics.IMAGES_PER_SECOND: result.images_per_second,
    }
    return {name: float(value) for name, value in metrics.items()}
