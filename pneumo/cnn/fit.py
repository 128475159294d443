"""Training: batches that depend on seed, epoch and step alone, and the weights of the best epoch at the end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pneumo.cnn.augment import augmented
from pneumo.cnn.build import compile_model
from pneumo.cnn.checkpoint import Best, Checkpoint, Spent
from pneumo.spec.errors import TrialError
from pneumo.spec.hyperparameters import Hyperparameters

PREDICTED_AT_ONCE = 32
"""Pictures in one call of the network: on a CPU a third quicker than 256, whose feature maps leave the cache."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Some rows of an array of grey pictures.

    `pixels`: uint8 (all, side, side), may be a memory map. `rows`: int64 (n,), which of them. `labels`: int64 (n,), 0 or
    1, one for each of `rows`.
    """

    pixels: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


class EpochOutcome(NamedTuple):
    """What the caller makes of an epoch: how good it is (more is better), and whether to train on."""

    score: float
    go_on: bool


AfterEpoch = Callable[[int, dict[str, float], npt.NDArray[np.float32]], EpochOutcome]
"""Called with the epoch (from 1), the training's `loss`, `accuracy`, `auc` and `epoch_seconds` (training and
predicting), and the probabilities of the validation pictures, (n,)."""

AfterStep = Callable[[int, int, int], None]
"""Called with the epoch (from 1), the step (from 1) and the number of steps in an epoch."""


class DivergedError(TrialError):
    """The loss is no longer a finite number; the message says where, in one line."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training came to. The model holds the weights of `best_epoch`.

    `probabilities`: float32 (n,), of the validation pictures at the best epoch. `spent` counts on from the checkpoint's;
    its pictures are predicted `PREDICTED_AT_ONCE` at once. `images`: training pictures seen in `spent.epochs`, each
    epoch's counted again.
    """

    best_epoch: int
    probabilities: npt.NDArray[np.float32]
    spent: Spent
    images: int

    @property
    def images_per_second(self) -> float:
        return self.images / self.spent.seconds


def fit(
    model: keras.Model,
    values: Hyperparameters,
    training: Examples,
    validation: Examples,
    *,
    seed: int,
    after_epoch: AfterEpoch,
    after_step: AfterStep | None = None,
    earlier: Checkpoint | None = None,
    keep: Callable[[Best, Spent], None] | None = None,
) -> Fitted:
    """Train a model that `build` made for `values`, up to epoch `values.epochs` or until `after_epoch` says stop.

    A model that is not compiled is compiled for that many epochs. With `earlier`, from which `checkpoint.load` has filled
    the model, training goes on after its last epoch, to what an unbroken training comes to; where that was the last of
    all, nothing is trained. `keep` is called after each epoch, after `after_epoch`, with the best epoch so far and what
    was spent, while the model is as the epoch left it, for `checkpoint.save`.

    Pictures whose side is not `values.image_size`, an empty set of them, or more epochs trained than wanted raise
    `ValueError`. A loss
    that is no finite number raises `DivergedError` at the step where it shows. What `after_epoch`, `after_step` and `keep`
    raise ends the training and comes through.
    """
    for name, pictures in (("training", training), ("validation", validation)):
        if not len(pictures):
            raise ValueError(f"no {name} pictures")
        if pictures.pixels.shape[1:] != (values.image_size, values.image_size):
            raise ValueError(
                f"{name} pictures of {pictures.pixels.shape[1:]} pixels, not image_size={values.image_size}"
            )
    first_epoch = len(earlier.history) if earlier else 0
    if first_epoch > values.epochs:
        raise ValueError(f"{first_epoch} epochs are trained, more than the {values.epochs} wanted")
    if earlier and first_epoch == values.epochs:
        return _fitted(model, earlier.best, earlier.spent, len(training))
    steps = steps_per_epoch(training, values)
    if not model.compiled:
        compile_model(model, values, steps * values.epochs)
    predict = predictor(model)
    dataset = batches(training, values, seed=seed, first_epoch=first_epoch)
    epochs = _Epochs(lambda: predict(validation), steps, after_epoch, after_step, earlier, keep)
    # The first call traces the function and picks its kernels, which would double a single epoch's `predict_ms`.
    few = slice(PREDICTED_AT_ONCE)
    predict(Examples(validation.pixels, validation.rows[few], validation.labels[few]))
    model.fit(
        dataset,
        initial_epoch=first_epoch,
        epochs=values.epochs,
        steps_per_epoch=steps,  # one iterator for all epochs: the next epoch's first batches are ready when it begins
        shuffle=False,  # `batches` has shuffled
        verbose=0,
        callbacks=[epochs],
    )
    assert epochs.best is not None  # at least one epoch is trained
    return _fitted(model, epochs.best, epochs.spent(), len(training))


def _fitted(model: keras.Model, best: Best, spent: Spent, pictures: int) -> Fitted:
    model.set_weights(best.weights)
    return Fitted(best.epoch, best.probabilities, spent, spent.epochs * pictures)


def steps_per_epoch(training: Examples, values: Hyperparameters) -> int:
    """The number of batches in an epoch, the smaller last one included."""
    return -(-len(training) // values.batch_size)


def batches(training: Examples, values: Hyperparameters, *, seed: int, first_epoch: int = 0) -> tf.data.Dataset:
    """The training batches of all epochs from `first_epoch` (from 0) on, one after another, the smaller last one included.

    Each is (pictures float32 (b, side, side, channels), labels float32 (b, 1)), with weights float32 (b, 1) as a third
    where the classes are balanced. What is in a batch, and how it is augmented, depends on `seed`, the epoch and the
    step alone.
    """
    labels = training.labels.astype(np.float32)
    weights = np.ones(2, np.float32)
    if values.class_weight == "balanced":
        counts = np.bincount(training.labels, minlength=2)
        weights = (len(training) / (2 * np.maximum(counts, 1))).astype(np.float32)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(training), dtype=tf.int64), seed=(seed, number))
        positions = tf.data.Dataset.from_tensor_slices(order).batch(values.batch_size)
        return positions.enumerate().map(lambda step, chosen: (number, step, chosen))

    def read(chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return training.pixels[training.rows[chosen]]

    def batch(number: tf.Tensor, step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = tf.ensure_shape(tf.numpy_function(read, [chosen], tf.uint8), (None, *training.pixels.shape[1:]))
        seeds_of_batch = tf.random.experimental.stateless_fold_in(tf.stack([tf.constant(seed, tf.int64), number]), step)
        pictures = augmented(pixels[..., None], seeds_of_batch, values)
        pictures = tf.repeat(pictures, values.channels, axis=-1)
        label = tf.gather(labels, chosen)[:, None]
        if values.class_weight == "none":
            return pictures, label
        return pictures, label, tf.gather(weights, tf.cast(label, tf.int32))

    options = tf.data.Options()
    # There is nothing to tune, and on a busy machine the end of `model.fit` has waited for the tuner's thread, 40 s once.
    options.autotune.enabled = False
    return (
        tf.data.Dataset.range(first_epoch, values.epochs)
        .flat_map(epoch)
        .map(batch, num_parallel_calls=max(1, (os.cpu_count() or 1) // 2), deterministic=True)
        .prefetch(2)
        .with_options(options)
    )


def predictor(model: keras.Model) -> Callable[[Examples], npt.NDArray[np.float32]]:
    """A function from pictures to the model's probabilities, float32 (n,), in the order of their rows.

    It is traced once and follows the model's weights. `model.predict` sets up a data pipeline on every call.
    """
    channels = model.input_shape[-1]

    def forward(pixels: tf.Tensor) -> tf.Tensor:
        pictures = tf.repeat(tf.cast(pixels, tf.float32)[..., None], channels, axis=-1)
        return model(pictures, training=False)[:, 0]

    probabilities = tf.function(forward, input_signature=[tf.TensorSpec((None, *model.input_shape[1:3]), tf.uint8)])

    def predict(pictures: Examples) -> npt.NDArray[np.float32]:
        parts = [
            probabilities(pictures.pixels[pictures.rows[start : start + PREDICTED_AT_ONCE]]).numpy()
            for start in range(0, len(pictures), PREDICTED_AT_ONCE)
        ]
        return np.concatenate(parts)

    return predict


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Predicts after each epoch, asks the caller, keeps the best weights, and ends a training that diverged."""

    def __init__(
        self,
        predict: Callable[[], npt.NDArray[np.float32]],
        steps: int,
        after_epoch: AfterEpoch,
        after_step: AfterStep | None,
        earlier: Checkpoint | None,
        keep: Callable[[Best, Spent], None] | None,
    ) -> None:
        super().__init__()
        self.best = earlier.best if earlier else None
        self.done = len(earlier.history) if earlier else 0
        """The last epoch trained, from 1."""
        self._before = earlier.spent if earlier else Spent()
        self._trained_here = 0
        self._elsewhere = 0.0  # seconds in the caller's functions
        self._predict_ms = self._before.predict_ms
        self._start = time.perf_counter()
        self._predict = predict
        self._steps = steps
        self._after_epoch = after_epoch
        self._after_step = after_step
        self._keep = keep
        self._begin = 0.0

    def spent(self) -> Spent:
        """What the trial has cost so far."""
        seconds = time.perf_counter() - self._start - self._elsewhere
        return Spent(self._before.epochs + self._trained_here, self._before.seconds + seconds, self._predict_ms)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin = time.perf_counter() - self._elsewhere

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # The mean over the epoch so far: once it is no number it stays none.
        if not math.isfinite(logs["loss"]):
            raise DivergedError(
                f"the loss is {logs['loss']} in epoch {self.done + 1}, step {batch + 1}; a lower learning_rate might do"
            )
        if self._after_step:
            start = time.perf_counter()
            self._after_step(self.done + 1, batch + 1, self._steps)
            self._elsewhere += time.perf_counter() - start

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.done += 1
        self._trained_here += 1
        start = time.perf_counter()
        probabilities = self._predict()
        took = time.perf_counter() - start
        self._predict_ms = min(self._predict_ms, 1000 * took / len(probabilities))
        if not np.isfinite(probabilities).all():
            raise DivergedError(
                f"the network gives no finite probabilities after epoch {self.done}; a lower learning_rate might do"
            )
        metrics = {name: float(logs[name]) for name in ("loss", "accuracy", "auc")}
        start = time.perf_counter()
        metrics["epoch_seconds"] = start - self._elsewhere - self._begin
        score, go_on = self._after_epoch(self.done, metrics, probabilities)
        self._elsewhere += time.perf_counter() - start
        if self.best is None or math.isnan(self.best.score) or score > self.best.score:
            self.best = Best(self.done, score, probabilities, self.model.get_weights())
        if self._keep:
            spent, start = self.spent(), time.perf_counter()
            self._keep(self.best, spent)
            self._elsewhere += time.perf_counter() - start
        if not go_on:
            self.model.stop_training = True
