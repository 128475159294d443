"""Build the convolutional network of a set of hyperparameters: the tutorial's network and its variations."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from pneumo.spec.errors import TrialError
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.network import is_separable, layer_filters, unbuildable

_MOST_SEEDS = 12 * (3 * 2 + 2) + 2 * 4 + 1
"""Number of seeds of the largest network: its blocks, its hidden dense layers, its output."""


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
    seeds = iter(np.random.SeedSequence(seed).generate_state(_MOST_SEEDS).tolist())

    def initializer() -> keras.Initializer:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    def convolution(x: Any, filters: int, name: str, *, is_first: bool) -> Any:
        settings = {"use_bias": not values.batch_norm, "padding": values.padding, "dtype": policy, "name": name}
        if is_separable(values, is_first=is_first):
            layer = keras.layers.SeparableConv2D(
                filters,
                values.kernel_size,
                depthwise_initializer=initializer(),
                pointwise_initializer=initializer(),
                **settings,
            )
        else:
            layer = keras.layers.Conv2D(filters, values.kernel_size, kernel_initializer=initializer(), **settings)
        return layer(x)

    def skip(x: Any, like: Any, name: str) -> Any:
        """Return the input of a block with the shape of its last convolution."""
        lost = x.shape[1] - like.shape[1]
        if lost:
            x = keras.layers.Cropping2D(((lost // 2, lost - lost // 2),) * 2, dtype=policy, name=f"crop_{name}")(x)
        if x.shape[-1] != like.shape[-1]:
            x = keras.layers.Conv2D(
                like.shape[-1],
                1,
                use_bias=False,
                kernel_initializer=initializer(),
                dtype=policy,
                name=f"project_{name}",
            )(x)
        return x

    inputs = keras.Input((values.image_size, values.image_size, values.channels), name="pictures", dtype="float32")
    # In float32 under every precision: half precision would round the 256 grey levels before the first convolution.
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="rescale")(inputs)
    if values.normalization == "standardize":
        x = keras.layers.LayerNormalization(
            axis=(1, 2, 3), center=False, scale=False, epsilon=1e-6, dtype="float32", name="standardize"
        )(x)

    pooling = keras.layers.MaxPooling2D if values.pooling == "max" else keras.layers.AveragePooling2D
    for k, filters in enumerate(layer_filters(values)):
        block_input = x
        for j in range(values.convolutions):
            name = f"{k + 1}_{j + 1}" if j else f"{k + 1}"
            x = convolution(x, filters, f"convolution_{name}", is_first=k == j == 0)
            if values.batch_norm:  # adds its own bias
                x = keras.layers.BatchNormalization(dtype=policy, name=f"batch_norm_{name}")(x)
            if values.residual and j == values.convolutions - 1:
                x = keras.layers.Add(dtype=policy, name=f"add_{k + 1}")([x, skip(block_input, x, f"{k + 1}")])
            x = keras.layers.Activation(values.activation, dtype=policy, name=f"activation_{name}")(x)
        x = pooling(2, dtype=policy, name=f"pooling_{k + 1}")(x)
        if values.block_dropout:
            x = keras.layers.SpatialDropout2D(
                values.block_dropout, seed=next(seeds), dtype=policy, name=f"block_dropout_{k + 1}"
            )(x)

    if values.head == "flatten":
        x = keras.layers.Flatten(dtype=policy, name="flatten")(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(dtype=policy, name="average")(x)
    for k in range(values.dense_layers):
        name = f"_{k + 1}" if k else ""
        x = keras.layers.Dense(
            values.dense_units, values.activation, kernel_initializer=initializer(), dtype=policy, name=f"dense{name}"
        )(x)
        if values.dropout:
            x = keras.layers.Dropout(values.dropout, seed=next(seeds), dtype=policy, name=f"dropout{name}")(x)
    outputs = keras.layers.Dense(1, "sigmoid", kernel_initializer=initializer(), dtype="float32", name="pneumonia")(x)
    return keras.Model(inputs, outputs, name="pneumo")


def prediction_network(model: keras.Model, values: Hyperparameters) -> keras.Model:
    """Return the network that predicts, with shared weights, without optimizer and metrics.

    It is the network itself, or, with `flip_average`, the mean of the network for a picture and for its mirror image. Saved, it
    takes a third of the space of a network with Adam.

    Args:
        model: A network that `build` returned for `values`.
        values: Hyperparameters.
    """
    plain = keras.Model(model.input, model.output, name=model.name)
    if not values.flip_average:
        return plain
    pictures = keras.Input(plain.input_shape[1:], name="pictures", dtype="float32")
    mirrored = keras.ops.flip(pictures, axis=2)
    mean = keras.layers.Average(dtype="float32", name="flip_average")([plain(pictures), plain(mirrored)])
    return keras.Model(pictures, mean, name=f"{model.name}_flip_average")


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
