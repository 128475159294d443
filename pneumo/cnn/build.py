"""Build and compile the convolutional network of a set of hyperparameters: the tutorial's network and its variations."""

from __future__ import annotations

import keras
import numpy as np

from pneumo.spec.errors import TrialError
from pneumo.spec.hyperparameters import Hyperparameters, layer_filters, unbuildable


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


def compile_model(model: keras.Model, values: Hyperparameters, steps: int) -> None:
    """Set the optimizer, the loss and the training metrics (`loss`, `accuracy`, `auc`) of a network.

    Args:
        model: A network that `build` returned for `values`.
        values: Hyperparameters.
        steps: Number of batches in the whole training, after which the cosine schedule reaches zero.
    """
    model.compile(
        optimizer=_optimizer(values, steps),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=values.label_smoothing),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
        jit_compile=False,  # compiling with XLA takes longer than it saves in a short trial, and on a CPU it is never faster
    )
    # Otherwise the first step creates the optimizer's variables and TensorFlow traces the step twice, which costs 0.3 s and
    # 4 MB that are never freed.
    model.optimizer.build(model.trainable_variables)


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


def _optimizer(values: Hyperparameters, steps: int) -> keras.Optimizer:
    rate: float | keras.optimizers.schedules.LearningRateSchedule = values.learning_rate
    if values.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(values.learning_rate, decay_steps=steps)
    # Keras' weight_decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101) in every optimizer. None skips the
    # pass over the weights; AdamW does not accept None.
    decay = values.weight_decay or None
    optimizer: keras.Optimizer
    match values.optimizer:
        case "adam":
            optimizer = keras.optimizers.Adam(rate, weight_decay=decay)
        case "adamw":
            optimizer = keras.optimizers.AdamW(rate, weight_decay=values.weight_decay)
        case "sgd":
            optimizer = keras.optimizers.SGD(rate, momentum=values.momentum, weight_decay=decay)
        case "rmsprop":
            optimizer = keras.optimizers.RMSprop(rate, momentum=values.momentum, weight_decay=decay)
    if values.precision == "float16":
        # Keras adds loss scaling by itself only if the model has the policy, not if its layers have it.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
