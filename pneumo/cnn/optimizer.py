"""Set the optimizer, the loss and the training metrics of a network; its learning rate and its averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from pneumo.cnn.fused import FusedAdam, FusedRMSprop, FusedSGD
from pneumo.spec.hyperparameters import PLATEAU_FACTOR, Hyperparameters

_PLATEAU = "plateau_factor"
"""Name of the optimizer's variable that the schedule `plateau` multiplies the learning rate by."""


def compile_model(model: keras.Model, values: Hyperparameters, steps: int) -> None:
    """Set the optimizer, the loss and the training metrics (`loss`, `accuracy`, `auc`) of a network.

    Args:
        model: A network that `build` returned for `values`.
        values: Hyperparameters.
        steps: Number of batches in the whole training, over which the learning rate's schedule and its warmup run.
    """
    model.compile(
        optimizer=_optimizer(values, steps),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=values.label_smoothing),
        metrics=[_Accuracy(name="accuracy"), _Auc(name="auc")]
        if values.mixup
        else [keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
        jit_compile=False,  # compiling with XLA takes longer than it saves in a short trial, and on a CPU it is never faster
    )
    # Otherwise the first step creates the optimizer's variables and TensorFlow traces the step twice, which costs 0.3 s and
    # 4 MB that are never freed.
    model.optimizer.build(model.trainable_variables)


class _LargerShare:
    """Judges mixed pictures by the label of the larger share. Keras counts every label above 0 as 1."""

    def update_state(self, labels: Any, probabilities: Any, sample_weight: Any = None) -> Any:
        return super().update_state(keras.ops.cast(labels > 0.5, "float32"), probabilities, sample_weight)  # type: ignore[misc]


class _Accuracy(_LargerShare, keras.metrics.BinaryAccuracy):  # type: ignore[misc]
    pass


class _Auc(_LargerShare, keras.metrics.AUC):  # type: ignore[misc]
    pass


def reduce_rate(model: keras.Model) -> None:
    """Multiply the learning rate of a network with the schedule `plateau` by `PLATEAU_FACTOR`."""
    factor = next(variable for variable in model.optimizer.variables if variable.name == _PLATEAU)
    factor.assign(factor * PLATEAU_FACTOR)


def averages_weights(model: keras.Model) -> bool:
    """Return whether the optimizer of a compiled network averages the weights."""
    return bool(_unscaled(model.optimizer).use_ema)


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give a network the averaged weights within the context, if its optimizer averages them; afterwards its own, unchanged.

    Batch normalization's statistics are not averaged: they are moving averages already.
    """
    if not averages_weights(model):
        yield
        return
    # Keras' SwapEMAWeights swaps two variables by adding and subtracting them, which rounds.
    own = [variable.numpy() for variable in model.trainable_variables]
    averages = _unscaled(model.optimizer)._model_variables_moving_average
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, array in zip(model.trainable_variables, own, strict=True):
            variable.assign(array)


def _unscaled(optimizer: keras.Optimizer) -> Any:
    """Return the optimizer without the loss scaling around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _optimizer(values: Hyperparameters, steps: int) -> keras.Optimizer:
    rate = _learning_rate(values, steps)
    # Keras' weight_decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101) in every optimizer, so Adam with it is
    # AdamW. None skips the pass over the weights.
    settings: dict[str, Any] = {"weight_decay": values.weight_decay or None}
    if values.ema:
        settings |= {"use_ema": True, "ema_momentum": values.ema}
    optimizer: keras.Optimizer
    match values.optimizer:
        case "adam" | "adamw":
            optimizer = FusedAdam(rate, **settings)
        case "sgd":
            optimizer = FusedSGD(rate, momentum=values.momentum, **settings)
        case "rmsprop":
            optimizer = FusedRMSprop(rate, momentum=values.momentum, **settings)
    if values.schedule == "plateau":
        # A variable of the optimizer, so that a checkpoint has it.
        rate.plateau = optimizer.add_variable(shape=(), initializer="ones", dtype="float32", name=_PLATEAU)
    if values.precision == "float16":
        # Keras adds loss scaling by itself only if the model has the policy, not if its layers have it.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _learning_rate(values: Hyperparameters, steps: int) -> Any:
    """Return the learning rate for Keras: a number, which is cheaper, or a schedule."""
    rate: Any = values.learning_rate
    if values.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(values.learning_rate, decay_steps=steps)
    if values.schedule in ("plateau", "triangular") or values.warmup:
        rate = _Schedule(rate, steps, triangular=values.schedule == "triangular", warmup=values.warmup)
    return rate


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # keras has no types
    """Multiplies a learning rate by the factors of warmup, triangle and plateau.

    Args:
        rate: A number, or another schedule.
        steps: Number of steps of the whole training.
        triangular: Whether the rate rises to the middle of the training and falls again.
        warmup: The share of `steps` in which the rate rises.

    Attributes:
        plateau: The variable that `reduce_rate` changes; None if there is none.
    """

    def __init__(self, rate: Any, steps: int, *, triangular: bool, warmup: float) -> None:
        self._rate, self._steps, self._triangular = rate, steps, triangular
        self._warmup_steps = math.ceil(warmup * steps)
        self.plateau: keras.Variable | None = None

    def __call__(self, step: Any) -> Any:
        rate = self._rate(step) if callable(self._rate) else keras.ops.convert_to_tensor(self._rate, "float32")
        done = keras.ops.cast(step, "float32")
        if self._triangular:
            # At the middle of each step, so that no step has the rate 0.
            rate = rate * (1 - keras.ops.abs((2 * done + 1) / self._steps - 1))
        if self._warmup_steps:
            rate = rate * keras.ops.minimum(1.0, (done + 1) / self._warmup_steps)
        if self.plateau is not None:
            rate = rate * self.plateau
        return rate
