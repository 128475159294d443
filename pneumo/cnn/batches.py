"""The pictures that a network is trained on, in augmented batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pneumo.cnn.augment import augment_pictures, mix_pictures
from pneumo.spec.cores import usable_cores
from pneumo.spec.hyperparameters import Hyperparameters


@dataclass(frozen=True, eq=False)
class Examples:
    """Grey pictures with labels: some rows of an array of pictures.

    Attributes:
        pixels: uint8 (all pictures, side, side), may be a memory map.
        rows: int64 (n,), the rows of `pixels` that belong to this set.
        labels: int64 (n,), 0 or 1, one for each of `rows`.
    """

    pixels: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def steps_per_epoch(training: Examples, values: Hyperparameters) -> int:
    """Return the number of batches in an epoch, including the smaller last one."""
    return -(-len(training) // values.batch_size)


Load = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]]
"""Takes the epoch and the step of a batch, int64 scalars, and the positions of its pictures, int64 (b,). Returns the batch as
described in `training_batches`."""


def training_batches(
    training: Examples, values: Hyperparameters, *, seed: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """Return the training batches of all epochs, one epoch after another. Threads of the host augment the pictures.

    The content of a batch and its augmentation depend on `seed`, the epoch and the step only.

    Args:
        training: The training pictures.
        values: Hyperparameters.
        seed: Seed of the order and the augmentation.
        first_epoch: The epoch to start with, from 0.

    Returns:
        A dataset of tuples: pictures float32 (b, side, side, channels), labels float32 (b, 1), from 0 to 1 if pictures are
        mixed, and, if the classes are balanced, weights float32 (b, 1). The last batch of an epoch may be smaller.
    """

    def read_pixels(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return training.pixels[training.rows[positions]]

    load = _loader(training, values, seed, lambda positions: tf.numpy_function(read_pixels, [positions], tf.uint8))
    return (
        _positions(training, values, seed, first_epoch)
        .map(load, num_parallel_calls=max(1, usable_cores() // 2), deterministic=True)
        .prefetch(2)
    )


def resident_batches(
    training: Examples, values: Hyperparameters, *, seed: int, first_epoch: int = 0
) -> tuple[tf.data.Dataset, Load]:
    """Return the batches of `training_batches` for a device that keeps the pictures in its memory.

    The pictures are copied to the device once, as uint8. Each step then takes only positions from the host, and gathers and
    augments its pictures on the device.

    Returns:
        A dataset with the arguments of `Load` for each step of all epochs, and the function that makes a batch of them.
    """
    shape = training.pixels.shape[1:]
    size = math.prod(shape)
    # TensorFlow has a GPU kernel that gathers 64-bit integers, but none for 8-bit integers.
    rows = np.pad(training.pixels[training.rows].reshape(len(training), size), ((0, 0), (0, -size % 8)))
    words = tf.constant(rows.view(np.int64))
    padded_size = rows.shape[1]

    def read_pixels(positions: tf.Tensor) -> tf.Tensor:
        pixels = tf.reshape(tf.bitcast(tf.gather(words, positions), tf.uint8), (-1, padded_size))
        return tf.reshape(pixels[:, :size], (-1, *shape))

    load = _loader(training, values, seed, read_pixels)
    return _positions(training, values, seed, first_epoch).prefetch(8), load


def _positions(training: Examples, values: Hyperparameters, seed: int, first_epoch: int) -> tf.data.Dataset:
    """Return the epoch, the step and the positions in `training.rows` of each batch of all epochs."""

    def shuffle_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(training), dtype=tf.int64), seed=(seed, epoch))
        batches = tf.data.Dataset.from_tensor_slices(order).batch(values.batch_size)
        return batches.enumerate().map(lambda step, positions: (epoch, step, positions))

    options = tf.data.Options()
    # There is nothing to tune, and on a busy machine the end of a training has waited up to 40 s for the tuner's thread.
    options.autotune.enabled = False
    return tf.data.Dataset.range(first_epoch, values.epochs).flat_map(shuffle_epoch).with_options(options)


def _loader(
    training: Examples, values: Hyperparameters, seed: int, read_pixels: Callable[[tf.Tensor], tf.Tensor]
) -> Load:
    """Return a function that reads the pictures at the positions of a batch and augments them."""
    labels = training.labels.astype(np.float32)
    weights = np.ones(2, np.float32)
    if values.class_weight == "balanced":
        counts = np.bincount(training.labels, minlength=2)
        weights = (len(training) / (2 * np.maximum(counts, 1))).astype(np.float32)

    def load(epoch: tf.Tensor, step: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = tf.ensure_shape(read_pixels(positions), (None, *training.pixels.shape[1:]))
        batch_seed = tf.random.experimental.stateless_fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), step)
        pictures = augment_pictures(pixels[..., None], batch_seed, values)
        pictures = tf.ensure_shape(pictures, (None, *training.pixels.shape[1:], 1))
        pictures = tf.repeat(pictures, values.channels, axis=-1)
        label = tf.gather(labels, positions)[:, None]
        weight = tf.gather(weights, tf.cast(label, tf.int32))
        if values.mixup:
            pictures, label, weight = mix_pictures(pictures, label, weight, batch_seed, values.mixup)
        return (pictures, label) if values.class_weight == "none" else (pictures, label, weight)

    return load
