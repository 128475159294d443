"""The network of a hyperparameter set: the tutorial's CNN, and what varies it."""

from __future__ import annotations

import keras
import numpy as np

from pneumo.spec.errors import TrialError
from pneumo.spec.hyperparameters import Hyperparameters, unbuildable


class UnbuildableError(TrialError):
    """No network has these hyperparameters; the message is the reason, in one line."""


def build(values: Hyperparameters, *, seed: int) -> keras.Model:
    """The network, not yet compiled.

    Takes raw pictures, values 0 to 255 of any dtype, shape (n, image_size, image_size, channels); gives the probability
    of pneumonia, float32, shape (n, 1). It holds standard Keras layers only, so a saved one loads without this package.

    Every initializer and the dropout get a seed of their own, derived from `seed`: the same call gives the same weights,
    whatever else the process has drawn.

    Raises `UnbuildableError` where the pooling leaves nothing, `ValueError` where `precision` is still `auto`
    (`pneumo.cnn.device.resolved` settles that).
    """
    if reason := unbuildable(values):
        raise UnbuildableError(reason)
    policy = _policy(values)
    seeds = iter(np.random.SeedSequence(seed).generate_state(values.layers + 3).tolist())

    def initializer() -> keras.Initializer:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    inputs = keras.Input((values.image_size, values.image_size, values.channels), name="pictures", dtype="float32")
    # In float32 under every precision: 8-bit steps must not be rounded before the first convolution sees them.
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="rescale")(inputs)
    if values.normalization == "standardize":
        x = keras.layers.LayerNormalization(
            axis=(1, 2, 3), center=False, scale=False, epsilon=1e-6, dtype="float32", name="standardize"
        )(x)

    pooling = keras.layers.MaxPooling2D if values.pooling == "max" else keras.layers.AveragePooling2D
    for k in range(values.layers):
        filters = max(1, round(values.filters * values.filter_growth**k))
        x = keras.layers.Conv2D(
            filters,
            values.kernel_size,
            use_bias=not values.batch_norm,  # batch normalization has its own
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
    """Give the network its optimizer, loss and training metrics (`loss`, `accuracy`, `auc`).

    `steps`, of the whole training, are what the cosine schedule counts by: it ends at zero after as many.
    """
    model.compile(
        optimizer=_optimizer(values, steps),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=values.label_smoothing),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
        jit_compile=False,  # XLA's compilation costs more than a short trial gains, and on a CPU it is slower throughout
    )
    # Else the first step makes the optimizer's variables, for which TensorFlow traces the step twice: 0.3 s, and 4 MB that
    # nothing gives back.
    model.optimizer.build(model.trainable_variables)


def network_parameters(model: keras.Model) -> int:
    """The number of parameters as Keras counts them, trainable or not."""
    return int(model.count_params())


def _policy(values: Hyperparameters) -> keras.DTypePolicy:
    """The precision of one model's layers. A global policy would outlive the trial."""
    match values.precision:
        case "float32":
            return keras.DTypePolicy("float32")
        case "bfloat16" | "float16":
            return keras.DTypePolicy(f"mixed_{values.precision}")
        case "auto":
            raise ValueError("precision auto depends on the device: resolve it before building")


def _optimizer(values: Hyperparameters, steps: int) -> keras.Optimizer:
    rate: float | keras.optimizers.schedules.LearningRateSchedule = values.learning_rate
    if values.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(values.learning_rate, decay_steps=steps)
    # Keras' weight_decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101) in every optimizer; None leaves its
    # pass over the weights out, which AdamW alone does not allow.
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
        # Keras adds loss scaling by itself only where the policy is the model's own, not its layers'.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
