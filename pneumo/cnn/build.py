"""Build the convolutional network of a set of hyperparameters: the tutorial's network and its variations."""

from __future__ import annotations

import keras
import numpy as np

from pneumo.spec.errors import TrialError
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.network import layer_filters, unbuildable


class UnbuildableError(TrialError):
    """No network with these hyperparameters exists; the message is the reason, in one line."""


def build(values: Hyperparameters, *, seed: int) -> keras.Model:
    """Return the network of a set of hyperparameters, not yet compiled.

    The network takes raw pictures, shape (n, image_size, image_size, channels), any dtype, values 0 to 255, and returns the
    probability of pneumonia, float32, shape (n, 1). It consists of standard Keras layers only, so a saved network loads
    without this package.

    Args:
        values: Hyperparameters. `precision` must not be `auto` (see `pneumo.cnn.device.resolve_precision`).
        seed: Each initializer and the dropout layer get a seed of their own derived from it, so equal arguments give
            equal weights, whatever random numbers the process has drawn before.

    Raises:
        UnbuildableError: The pooling leaves no pixels.
        ValueError: `precision` is `auto`.
    """
    if reason := unbuildable(values):
        raise UnbuildableError(reason)
    policy = _policy(values)
    seeds = iter(np.random.SeedSequence(seed).generate_state(values.layers + 3).tolist())

    def initializer() -> keras.Initializer:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    inputs = keras.Input((values.image_size, values.image_size, values.channels), name="pictures", dtype="float32")
    # In float32 under every precision: half precision would round the 256 grey levels before the first convolution.
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="rescale")(inputs)
    if values.normalization == "standardize":
        x = keras.layers.LayerNormalization(
            axis=(1, 2, 3), center=False, scale=False, epsilon=1e-6, dtype="float32", name="standardize"
        )(x)

    pooling = keras.layers.MaxPooling2D if values.pooling == "max" else keras.layers.AveragePooling2D
    for k, filters in enumerate(layer_filters(values)):
        x = keras.layers.Conv2D(
            filters,
            values.kernel_size,
            use_bias=not values.batch_norm,  # batch normalization adds its own bias
            kernel_initializer=initializer(),
            dtype=policy,
            name=f"convolution_{k + 1}",
        )(x)
        if values.batch_norm:
            x = keras.layers.BatchNormalization(dtype=policy, name=f"batch_norm_{k + 1}")(x)
        x = keras.layers.Activation(values.activation, dtype=policy, name=f"activation_{k + 1}")(x)
        x = pooling(2, dtype=policy, name=f"pooling_{k + 1}")(x)

    if values.head == "flatten":
        x = keras.layers.Flatten(dtype=policy, name="flatten")(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(dtype=policy, name="average")(x)
    x = keras.layers.Dense(
        values.dense_units, values.activation, kernel_initializer=initializer(), dtype=policy, name="dense"
    )(x)
    if values.dropout:
        x = keras.layers.Dropout(values.dropout, seed=next(seeds), dtype=policy, name="dropout")(x)
    outputs = keras.layers.Dense(1, "sigmoid", kernel_initializer=initializer(), dtype="float32", name="pneumonia")(x)
    return keras.Model(inputs, outputs, name="pneumo")


def without_optimizer(model: keras.Model) -> keras.Model:
    """Return the same network, with shared weights, without optimizer and metrics.

    Saved, it takes a third of the space of a network with Adam.
    """
    return keras.Model(model.input, model.output, name=model.name)


def network_parameters(model: keras.Model) -> int:
    """Return the number of parameters as Keras counts them, trainable or not."""
    return int(model.count_params())


def _policy(values: Hyperparameters) -> keras.DTypePolicy:
    """Return the precision of the layers of one network. A global policy would stay in force after the trial."""
    match values.precision:
        case "float32":
            return keras.DTypePolicy("float32")
        case "bfloat16" | "float16":
            return keras.DTypePolicy(f"mixed_{values.precision}")
        case "auto":
            raise ValueError("precision is auto; call resolve_precision before building the network")
