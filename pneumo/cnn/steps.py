"""The steps of a training, several of them in one call of TensorFlow.

A call for each step spends about a tenth of the time outside the step, for networks of 64 pixels (docs/performance.md).
"""

from __future__ import annotations

import time
from typing import Any

import keras
import tensorflow as tf

from pneumo.cnn.batches import Load

LONGEST_CALL = 0.2
"""Approximate longest duration of a call, in seconds. Progress, Ctrl-C and time limits are handled between calls."""


class Steps:
    """Trains a compiled model on one batch after another.

    The weights do not depend on how many steps are in a call.

    Args:
        model: The compiled model.
        batches: The batches of all epochs, as Keras takes them; or what `load` makes them of.
        load: Makes a batch of an element of `batches`, on the device of the model.
        longest_call: Seconds that a call may take; 0 for a call for each step.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: tf.data.Dataset,
        load: Load | None = None,
        longest_call: float = LONGEST_CALL,
    ) -> None:
        self._longest_call = longest_call
        self._calls, self._most = 0, 1
        _build_metrics(model, (batches.map(load) if load else batches).element_spec)
        iterator = iter(batches)

        def run(count: tf.Tensor) -> Any:
            def train(step: tf.Tensor) -> tuple[tf.Tensor]:
                element = iterator.get_next()
                model.train_step(load(*element) if load else element)
                return (step + 1,)

            tf.while_loop(lambda step: step < count, train, (tf.constant(0),), parallel_iterations=1)
            return model.get_metrics_result()

        self._run = tf.function(run, input_signature=[tf.TensorSpec((), tf.int32)], autograph=False)

    def train(self, remaining: int) -> tuple[int, dict[str, float]]:
        """Train at least one step and at most `remaining`. Return how many, and the metrics of the epoch so far."""
        count = min(self._most, remaining)
        start = time.perf_counter()
        metrics = {name: float(value) for name, value in self._run(tf.constant(count)).items()}
        self._calls += 1
        if self._calls > 1:  # the first one traces the step
            each = (time.perf_counter() - start) / count
            self._most = max(1, int(self._longest_call / each))
        return count, metrics


def _build_metrics(model: keras.Model, batch: tuple[tf.TensorSpec, ...]) -> None:
    """Create the variables of the model's metrics, because the loop of a traced step cannot create any."""
    x, y, *weights = (tf.zeros([1 if side is None else side for side in spec.shape], spec.dtype) for spec in batch)
    weight = weights[0] if weights else None
    model.compute_loss(x, y, y, weight, training=False)
    model.compute_metrics(x, y, y, weight)
    model.reset_metrics()
