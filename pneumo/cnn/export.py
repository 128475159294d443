"""Export a network for other runtimes: as ONNX, or as TFLite for LiteRT."""

from __future__ import annotations

import importlib.util
import math
import secrets
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pneumo.cnn.load import logit_network
from pneumo.spec.errors import RequestError

ExportFormat = Literal["onnx", "tflite"]

MAX_DIFFERENCE = 1e-4
"""Largest accepted difference between a probability of the exported file and one of the network."""

MAX_LOGIT = math.log((1 - 1e-7) / 1e-7)
"""Logits are clipped to plus and minus this before scaling, so that probabilities of 0 and 1 count as 1e-7 away from them."""

_BATCH = 32  # pictures that are compared at a time
_PACKAGES = {"onnx": ("tf2onnx", "onnxruntime"), "tflite": ("ai_edge_litert",)}

Runtime = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""A function from pictures, float32 (n, side, side, channels), to probabilities, float32 (n, 1)."""


def export(network: keras.Model, temperature: float, kind: str, path: Path, pictures: npt.NDArray[np.uint8]) -> float:
    """Export a network with its temperature and return how far the file's probabilities are from the network's.

    The file takes raw pictures, float32 (n, side, side, channels), values 0 to 255, any n, and returns calibrated
    probabilities of pneumonia, float32 (n, 1); the temperature (Guo et al. 2017, ICML, arXiv:1706.04599) is part of it. It
    computes in float32 whatever the network's precision. Before it is written to `path`, its own runtime predicts
    `pictures`, and the probabilities are compared.

    Args:
        network: A network that `build` made.
        temperature: The logit is divided by it.
        kind: `onnx` or `tflite`.
        path: The file to write. It is left as it was if the export fails.
        pictures: The pictures to compare on, uint8 (n, side, side).

    Returns:
        The largest absolute difference in probability.

    Raises:
        RequestError: The difference is above `MAX_DIFFERENCE`, a package is missing, the network cannot be converted, or
            `path` cannot be written.
    """
    if kind not in get_args(ExportFormat):
        raise RequestError(f"--export {kind}: must be {' or '.join(get_args(ExportFormat))}")
    for package in _PACKAGES[kind]:
        if importlib.util.find_spec(package) is None:
            raise RequestError(f"--export {kind} needs the package {package}; pip install 'pneumo[export]'")
    _check_writable(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"network.{kind}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _convert(_calibrated_network(network, temperature), kind, file)
                difference = _max_difference(network, temperature, _load_runtime(kind, file), pictures)
        # Converters raise exceptions of many types, and some unsupported operations only fail in the runtime.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise RequestError(f"--export {kind}: the network cannot be converted: {reason}") from error
        if not difference <= MAX_DIFFERENCE:  # also refuses NaN
            raise RequestError(_describe_difference(network, kind, path, difference))
        _write_atomically(file.read_bytes(), path)
    return difference


def _calibrated_network(network: keras.Model, temperature: float) -> keras.Model:
    """Return the network in float32 with the probability sigmoid(logit / temperature)."""
    plain = logit_network(network, float32=True)
    logit = plain.output
    if temperature != 1:
        logit = keras.ops.clip(logit, -MAX_LOGIT, MAX_LOGIT) / temperature
    return keras.Model(plain.input, keras.ops.sigmoid(logit), name=network.name)


def _convert(network: keras.Model, kind: str, file: Path) -> None:
    if kind == "onnx":
        # Keras takes the signature from the model only if the model has been called.
        signature = [keras.InputSpec(shape=network.input_shape, dtype="float32", name="pictures")]
        network.export(file, format="onnx", verbose=False, input_signature=signature)
    else:
        # Only operations that every LiteRT has; Keras would fall back on TensorFlow's own operations for a missing one.
        built_in = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        network.export(file, format="litert", verbose=False, target_spec=built_in)


def _load_runtime(kind: str, file: Path) -> Runtime:
    """Return the prediction function of an exported file in its own runtime."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pictures: np.asarray(session.run(None, {name: pictures})[0])

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]

    def predict(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        interpreter.resize_tensor_input(input_index, pictures.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(input_index, pictures)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output_index))

    return predict


def _max_difference(
    network: keras.Model, temperature: float, runtime: Runtime, pictures: npt.NDArray[np.uint8]
) -> float:
    """Return the largest absolute difference between the network's calibrated probabilities and the runtime's."""
    original, channels, maximum = logit_network(network, float32=False), network.input_shape[-1], 0.0
    for start in range(0, len(pictures), _BATCH):
        raw = np.repeat(pictures[start : start + _BATCH, ..., None].astype(np.float32), channels, axis=-1)
        logit = keras.ops.convert_to_numpy(original(raw, training=False)).astype(np.float64)
        if temperature != 1:
            logit = np.clip(logit, -MAX_LOGIT, MAX_LOGIT) / temperature
        maximum = max(maximum, float(np.abs(runtime(raw) - (1 + np.tanh(logit / 2)) / 2).max()))
    return maximum


def _describe_difference(network: keras.Model, kind: str, path: Path, difference: float) -> str:
    """Return the error of a file whose probabilities differ too much."""
    message = f"{path}: not written: in {kind} the probabilities differ by up to {difference:.1g}, more than {MAX_DIFFERENCE:g}"
    if precisions := {layer.compute_dtype for layer in network.layers} - {"float32"}:
        message += (
            f", because the network computes in {precisions.pop()}; train one with precision: float32 to export it"
        )
    return message


def _check_writable(path: Path) -> None:
    """Raise `RequestError` if `path` is a folder or its folder does not exist."""
    try:
        if not path.is_dir() and path.parent.is_dir():
            return
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror}") from None
    raise RequestError(f"{path}: must be a file in an existing folder")


def _write_atomically(content: bytes, path: Path) -> None:
    """Write the complete file or none."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from None
