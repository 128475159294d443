"""Set the optimizer, the loss and the training metrics of a network."""

from __future__ import annotations

from typing import Any

import keras

from pneumo.spec.hyperparameters import Hyperparameters


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
