"""Keras' optimizers with TensorFlow's fused kernels, each of which updates a weight in one pass over memory.

Keras writes an update as separate operations, and each of them passes over the weight, its gradient or its moments: about ten
passes for Adam. Networks with a large dense layer spend a good part of a step there. The kernels compute the same update; the
last bits differ, because they round in another order.

The variables are those of Keras' classes, so a checkpoint of either is one of the other. Only `update_step` differs, and only
a training uses it: a saved network has no optimizer.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]  # keras has no types
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), and with `weight_decay` AdamW, without AMSGrad."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a weight (a `tf.Variable`) and its moments."""
        index, step = self._get_variable_index(variable), tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


class FusedSGD(keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent, with momentum or without, and not Nesterov's."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a weight (a `tf.Variable`) and its momentum."""
        gradient, rate = tf.cast(gradient, variable.dtype), tf.cast(learning_rate, variable.dtype)
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
        )


class FusedRMSprop(keras.optimizers.RMSprop):  # type: ignore[misc]
    """RMSprop, not centered. TensorFlow's kernel needs variables of the momentum; without momentum, Keras' update is used."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a weight (a `tf.Variable`) and its moving averages."""
        if not self.momentum:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._momentums[index].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            rho=tf.cast(self.rho, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )
