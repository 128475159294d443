"""Tests of the batches that a device keeps in its memory: they are those of the host, and a GPU can make them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from pneumo.cnn.batches import Examples, resident_batches, training_batches
from pneumo.cnn.build import build
from pneumo.cnn.fit import EpochOutcome, fit
from pneumo.spec.hyperparameters import Hyperparameters

RANDOM = np.random.default_rng(0)
SIDE = 17  # 289 bytes a picture: words of eight bytes do not fit
EXAMPLES = Examples(
    RANDOM.integers(0, 256, (40, SIDE, SIDE), dtype=np.uint8), np.arange(2, 39), RANDOM.integers(0, 2, 37)
)
VALUES: dict[str, Any] = {"image_size": SIDE, "batch_size": 8, "epochs": 2, "filters": 4, "dense_units": 4}
EFFECTS: dict[str, Any] = {
    "crop": 0.3,
    "frame_exchange": 0.5,
    "brightness": 0.1,
    "contrast": 0.1,
    "gamma": 0.2,
    "blur": 0.5,
}
EFFECTS |= {"noise": 0.1, "erase": 0.3, "rotation": 5.0, "translation": 0.1}


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 0.0),
        ({"class_weight": "balanced", "mixup": 0.3, "channels": 1}, 0.0),
        (EFFECTS, 1e-3),  # TensorFlow rounds some arithmetic of a graph in another way than that of a pipeline
    ],
)
def test_the_batches_are_those_of_the_host(changes: dict[str, Any], tolerance: float) -> None:
    values = Hyperparameters(**VALUES | changes)
    positions, load = resident_batches(EXAMPLES, values, seed=1, first_epoch=1)
    graph = tf.function(load, autograph=False)
    expected = list(training_batches(EXAMPLES, values, seed=1, first_epoch=1))
    for ours, theirs in zip((graph(*element) for element in positions), expected, strict=True):
        for part, other in zip(ours, theirs, strict=True):
            assert part.dtype == other.dtype
            np.testing.assert_allclose(part, other, atol=tolerance, rtol=0)


def test_a_training_gives_the_same_weights() -> None:
    assert all(np.array_equal(*pair) for pair in zip(trained(0), trained(37 * SIDE**2), strict=True))


def test_pictures_that_do_not_fit_stay_with_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the pictures were copied to the device")

    monkeypatch.setattr("pneumo.cnn.fit.resident_batches", refuse)
    trained(37 * SIDE**2 - 1)
    with pytest.raises(AssertionError, match="were copied"):
        trained(37 * SIDE**2)


def test_every_operation_on_pictures_has_a_gpu_kernel() -> None:
    """An operation without one would move each batch to the host and back. It is known without a GPU."""
    values = Hyperparameters(**VALUES | EFFECTS | {"mixup": 0.3, "class_weight": "balanced"})
    positions, load = resident_batches(EXAMPLES, values, seed=0)
    graph = tf.function(load, autograph=False).get_concrete_function(*positions.element_spec).graph
    operations = [operation for operation in graph.get_operations() if operation.type != "Placeholder"]
    names = {operation.type for operation in operations}
    assert {"GatherV2", "Bitcast", "ImageProjectiveTransformV3", "Conv2D"} <= names
    on_host = [operation for operation in operations if not has_gpu_kernel(operation)]
    for operation in on_host:
        for tensor in (*operation.inputs, *operation.outputs):
            assert tensor.dtype == tf.int32, operation  # a shape or an index, which TensorFlow keeps on the host
            assert len(tensor.shape) <= 1, operation


def has_gpu_kernel(operation: tf.Operation) -> bool:
    """Return whether TensorFlow has a kernel for the operation with its types on a GPU, or on any device."""
    for kernel in kernels.get_registered_kernels_for_op(operation.type).kernel:
        allowed = {constraint.name: constraint.allowed_values.list.type for constraint in kernel.constraint}
        if kernel.device_type in ("GPU", "DEFAULT") and all(
            operation.get_attr(name).as_datatype_enum in types for name, types in allowed.items()
        ):
            return True
    return False


SECOND_DEVICE = f"""
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.debugging.set_log_device_placement(True)
from pneumo.cnn.batches import Examples
from pneumo.cnn.build import build
from pneumo.cnn.fit import EpochOutcome, fit
from pneumo.spec.hyperparameters import Hyperparameters
values = Hyperparameters(**{VALUES!r})
examples = Examples(np.zeros((40, {SIDE}, {SIDE}), np.uint8), np.arange(40), np.arange(40) % 2)
with tf.device("CPU:1"):
    model = build(values, seed=0)
    fit(model, values, examples, examples, seed=0, after_epoch=lambda *_: EpochOutcome(0, True), picture_memory=10**6)
"""


@pytest.mark.slow
def test_the_device_of_the_network_keeps_and_augments_the_pictures() -> None:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    command = [sys.executable, "-c", SECOND_DEVICE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    for name in ("GatherV2", "Bitcast", "ImageProjectiveTransformV3", "Conv2D"):
        placed = [line for line in done.stderr.splitlines() if f"({name}): " in line and "while" in line]
        assert placed, name
        assert all(line.endswith("device:CPU:1") for line in placed), placed


def trained(picture_memory: int) -> list[Any]:
    """Return the weights after a training in which the device may keep so many bytes of pictures."""
    values = Hyperparameters(**VALUES)
    model = build(values, seed=0)
    fit(
        model,
        values,
        EXAMPLES,
        EXAMPLES,
        seed=3,
        after_epoch=lambda *_: EpochOutcome(0.0, True),
        picture_memory=picture_memory,
    )
    return list(model.get_weights())
