"""Train a network, reproducibly from its seed, and restore the weights of its best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from pneumo.cnn.batches import Examples, resident_batches, steps_per_epoch, training_batches
from pneumo.cnn.build import prediction_network
from pneumo.cnn.checkpoint import BestEpoch, Checkpoint, TrainingCost
from pneumo.cnn.optimizer import averaged_weights, compile_model, reduce_rate
from pneumo.cnn.predictor import PREDICTION_BATCH, make_predictor
from pneumo.cnn.steps import LONGEST_CALL, Steps
from pneumo.spec.errors import TrialError
from pneumo.spec.hyperparameters import PLATEAU_EPOCHS, Hyperparameters


class EpochOutcome(NamedTuple):
    """The caller's answer after an epoch.

    Attributes:
        score: How good the epoch is; larger is better.
        continue_training: Whether to train another epoch.
    """

    score: float
    continue_training: bool


AfterEpoch = Callable[[int, dict[str, float], npt.NDArray[np.float32]], EpochOutcome]
"""Called after each epoch with its number (from 1), its training metrics `loss`, `accuracy`, `auc` and `epoch_seconds`
(training and predicting), and the probabilities of the validation pictures, float32 (n,). Meanwhile the model has the weights
that predicted them: with `ema` the averaged weights."""

AfterStep = Callable[[int, int, int], None]
"""Called after one or more steps with the epoch (from 1), the last of these steps (from 1) and the steps of an epoch."""

SaveProgress = Callable[[BestEpoch, TrainingCost], None]
"""Called after `AfterEpoch` with the best epoch so far and the cost so far, while the model has the weights that the training
goes on with. Also called once if a checkpoint leaves nothing to train."""


class DivergedError(TrialError):
    """The loss or a probability is not finite; the message names the epoch, in one line."""


@dataclass(frozen=True, eq=False)
class FitResult:
    """The result of a training whose model has the weights of the best epoch.

    Attributes:
        best_epoch: Number of the best epoch, from 1.
        probabilities: float32 (n,), of the validation pictures at the best epoch.
        cost: The cost of all epochs, including those before the checkpoint that the training resumed from.
        images: Training pictures that `cost.epochs` epochs processed, counted once for each epoch.
    """

    best_epoch: int
    probabilities: npt.NDArray[np.float32]
    cost: TrainingCost
    images: int

    @property
    def images_per_second(self) -> float:
        """The speed of the training; 0 if a training that had stopped early was continued, so that nothing was trained."""
        return self.images / self.cost.seconds if self.images else 0.0


def fit(
    model: keras.Model,
    values: Hyperparameters,
    training: Examples,
    validation: Examples,
    *,
    seed: int,
    after_epoch: AfterEpoch,
    after_step: AfterStep | None = None,
    checkpoint: Checkpoint | None = None,
    save_progress: SaveProgress | None = None,
    longest_call: float = LONGEST_CALL,
    picture_memory: int = 0,
) -> FitResult:
    """Train a network up to epoch `values.epochs`, or until `values.early_stopping` or `after_epoch` ends the training.

    A training that resumes from a checkpoint gives the same weights and metrics as one that was never interrupted. If the
    checkpoint already has all epochs, or its training had stopped early, nothing is trained.

    Args:
        model: A network that `build` made for `values`. If it is not compiled, it is compiled for `values.epochs` epochs.
        values: Hyperparameters.
        training: The training pictures.
        validation: The validation pictures, which are predicted after each epoch.
        seed: Decides the order of the pictures and their augmentation.
        after_epoch: Judges each epoch.
        after_step: Called after one or more steps.
        checkpoint: The progress to resume from, which `load_checkpoint` returned when it set the model's variables.
        save_progress: Called after each epoch, to save a checkpoint.
        longest_call: Seconds after which `after_step` is called, about; 0 to call it after each step.
        picture_memory: Bytes of the device's memory that the training pictures may take. If they fit, they are kept there and
            augmented by the device; otherwise the host reads and augments each batch.

    Returns:
        The result. The model has the weights of the best epoch.

    Raises:
        ValueError: The side of the pictures is not `values.image_size`, a set of pictures is empty, or the checkpoint has
            more than `values.epochs` epochs.
        DivergedError: The loss or a probability is not finite.
        Exception: Whatever the caller's functions raise ends the training.
    """
    for name, examples in (("training", training), ("validation", validation)):
        if not len(examples):
            raise ValueError(f"there are no {name} pictures")
        if examples.pixels.shape[1:] != (values.image_size, values.image_size):
            raise ValueError(
                f"the {name} pictures have {examples.pixels.shape[1:]} pixels, not image_size={values.image_size}"
            )
    first_epoch = len(checkpoint.history) if checkpoint else 0
    if first_epoch > values.epochs:
        raise ValueError(f"the checkpoint has {first_epoch} epochs, more than the {values.epochs} to train")
    if checkpoint and is_finished(values, checkpoint.best, first_epoch):
        if save_progress:
            save_progress(checkpoint.best, checkpoint.cost)
        return _restore_best(model, checkpoint.best, checkpoint.cost, len(training))
    steps = steps_per_epoch(training, values)
    if not model.compiled:
        compile_model(model, values, steps * values.epochs)
    predict = make_predictor(prediction_network(model, values))
    epochs = _Epochs(
        model, values, lambda: predict(validation), steps, after_epoch, after_step, checkpoint, save_progress
    )
    # The first call traces the function and picks its kernels; within an epoch that would double `predict_ms`.
    first_batch = slice(PREDICTION_BATCH)
    predict(Examples(validation.pixels, validation.rows[first_batch], validation.labels[first_batch]))
    # One iterator for all epochs, so that an epoch's first batches are ready when it begins.
    if len(training) * values.image_size**2 <= picture_memory:
        positions, load = resident_batches(training, values, seed=seed, first_epoch=first_epoch)
        runner = Steps(model, positions, load, longest_call)
    else:
        batches = training_batches(training, values, seed=seed, first_epoch=first_epoch)
        runner = Steps(model, batches, longest_call=longest_call)
    for _ in range(first_epoch, values.epochs):
        if not epochs.train(runner):
            break
    assert epochs.best is not None  # at least one epoch is trained
    return _restore_best(model, epochs.best, epochs.cost(), len(training))


def is_finished(values: Hyperparameters, best: BestEpoch, trained: int) -> bool:
    """Return whether a training has ended, with all its epochs or by early stopping.

    Args:
        values: Hyperparameters.
        best: The best of the epochs so far.
        trained: Number of epochs so far.
    """
    stops_early = values.early_stopping > 0 and trained - best.epoch >= values.early_stopping
    return trained >= values.epochs or stops_early


def _restore_best(model: keras.Model, best: BestEpoch, cost: TrainingCost, pictures: int) -> FitResult:
    """Set the weights of the best epoch and return the result of the training."""
    model.set_weights(best.weights)
    return FitResult(best.epoch, best.probabilities, cost, cost.epochs * pictures)


class _Epochs:
    """Trains an epoch, predicts, asks the caller, keeps the best weights, and ends a training that diverged.

    Attributes:
        best: The best epoch so far; None before the first.
        last_epoch: Number of the last trained epoch, from 1; 0 before the first.
    """

    def __init__(
        self,
        model: keras.Model,
        values: Hyperparameters,
        predict: Callable[[], npt.NDArray[np.float32]],
        steps: int,
        after_epoch: AfterEpoch,
        after_step: AfterStep | None,
        checkpoint: Checkpoint | None,
        save_progress: SaveProgress | None,
    ) -> None:
        self.best = checkpoint.best if checkpoint else None
        self.last_epoch = len(checkpoint.history) if checkpoint else 0
        self._cost_before = checkpoint.cost if checkpoint else TrainingCost()
        self._epochs_here = 0  # trained by this process
        self._caller_seconds = 0.0  # in the caller's functions
        self._predict_ms = self._cost_before.predict_ms
        self._start = time.perf_counter()
        self._model, self._values, self._predict = model, values, predict
        self._steps = steps
        self._after_epoch = after_epoch
        self._after_step = after_step
        self._save_progress = save_progress

    def cost(self) -> TrainingCost:
        """Return the cost of the trial so far."""
        before, seconds = self._cost_before, time.perf_counter() - self._start - self._caller_seconds
        return TrainingCost(before.epochs + self._epochs_here, before.seconds + seconds, self._predict_ms)

    def train(self, runner: Steps) -> bool:
        """Train and judge an epoch. Return whether another one is to be trained."""
        epoch_start = time.perf_counter() - self._caller_seconds
        self._model.reset_metrics()
        step, metrics = 0, dict[str, float]()
        while step < self._steps:
            count, metrics = runner.train(self._steps - step)
            step += count
            # `loss` is the mean over the epoch so far, so once it is not finite it stays so.
            if not math.isfinite(metrics["loss"]):
                raise DivergedError(
                    f"the loss is {metrics['loss']} in epoch {self.last_epoch + 1}, step {step}; try a lower learning_rate"
                )
            if self._after_step:
                start = time.perf_counter()
                self._after_step(self.last_epoch + 1, step, self._steps)
                self._caller_seconds += time.perf_counter() - start
        self.last_epoch += 1
        self._epochs_here += 1
        return self._judge(metrics, epoch_start)

    def _judge(self, metrics: dict[str, float], epoch_start: float) -> bool:
        with averaged_weights(self._model):
            probabilities = self._timed_prediction()
            start = time.perf_counter()
            metrics["epoch_seconds"] = start - self._caller_seconds - epoch_start
            score, continue_training = self._after_epoch(self.last_epoch, metrics, probabilities)
            self._caller_seconds += time.perf_counter() - start
            if self.best is None or math.isnan(self.best.score) or score > self.best.score:
                self.best = BestEpoch(self.last_epoch, score, probabilities, self._model.get_weights())
        epochs_without_better = self.last_epoch - self.best.epoch
        if self._values.schedule == "plateau" and epochs_without_better and epochs_without_better % PLATEAU_EPOCHS == 0:
            reduce_rate(self._model)
        if self._save_progress:
            cost, start = self.cost(), time.perf_counter()
            self._save_progress(self.best, cost)
            self._caller_seconds += time.perf_counter() - start
        return continue_training and not is_finished(self._values, self.best, self.last_epoch)

    def _timed_prediction(self) -> npt.NDArray[np.float32]:
        """Return the probabilities of the validation pictures, and keep the shortest prediction time."""
        start = time.perf_counter()
        probabilities = self._predict()
        seconds = time.perf_counter() - start
        self._predict_ms = min(self._predict_ms, 1000 * seconds / len(probabilities))
        if not np.isfinite(probabilities).all():
            raise DivergedError(
                f"the network gives no finite probabilities after epoch {self.last_epoch}; try a lower learning_rate"
            )
        return probabilities
