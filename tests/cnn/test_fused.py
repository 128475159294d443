"""The fused optimizers make the steps of Keras' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from pneumo.cnn.fused import FusedAdam, FusedRMSprop, FusedSGD

STEPS = 100
SHAPES = ((300, 20), (20,), (3, 3, 3, 8))
SCHEDULE = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=STEPS)

PAIRS: dict[str, tuple[Callable[..., keras.Optimizer], Callable[..., keras.Optimizer], dict[str, Any]]] = {
    "adam": (FusedAdam, keras.optimizers.Adam, {}),
    "adamw": (FusedAdam, keras.optimizers.AdamW, {"weight_decay": 0.1}),
    "adam with averages": (FusedAdam, keras.optimizers.Adam, {"use_ema": True, "ema_momentum": 0.9}),
    "adam with a schedule": (FusedAdam, keras.optimizers.Adam, {"learning_rate": SCHEDULE}),
    "sgd": (FusedSGD, keras.optimizers.SGD, {}),
    "sgd with momentum": (FusedSGD, keras.optimizers.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "rmsprop": (FusedRMSprop, keras.optimizers.RMSprop, {}),
    "rmsprop with momentum": (FusedRMSprop, keras.optimizers.RMSprop, {"momentum": 0.9}),
}


def train(optimizer: keras.Optimizer, *, is_scaled: bool) -> list[npt.NDArray[Any]]:
    """Return the weights and the optimizer's variables after `STEPS` steps with random gradients."""
    random = np.random.default_rng(0)
    weights = [keras.Variable(random.normal(size=shape).astype("float32")) for shape in SHAPES]
    applied = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0) if is_scaled else optimizer
    applied.build(weights)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def step(gradients: list[Any]) -> None:
        applied.apply(gradients, weights)

    for _ in range(STEPS):
        step([tf.constant(random.normal(size=shape), "float32") * (4.0 if is_scaled else 1.0) for shape in SHAPES])
    return [variable.numpy() for variable in (*weights, *optimizer.variables)]


@pytest.mark.parametrize("is_scaled", [False, True], ids=["", "scaled loss"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_hundred_steps_are_those_of_keras(name: str, is_scaled: bool) -> None:
    fused, of_keras, settings = PAIRS[name]
    settings = {"learning_rate": 0.01} | settings
    ours = train(fused(**settings), is_scaled=is_scaled)
    theirs = train(of_keras(**settings), is_scaled=is_scaled)
    assert len(ours) == len(theirs)  # a checkpoint of either is one of the other
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    again = train(fused(**settings), is_scaled=is_scaled)
    for one, other in zip(ours, again, strict=True):
        np.testing.assert_array_equal(one, other)
