"""A network as a file for other runtimes: ONNX, and TFLite for LiteRT."""

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

from pneumo.cnn.load import logits
from pneumo.spec.errors import RequestError

Kind = Literal["onnx", "tflite"]

MOST_DIFFERENCE = 1e-4
"""Between a probability of the exported file and of the network."""

SUREST = math.log((1 - 1e-7) / 1e-7)
"""A logit is held below this, and above its opposite, before it is scaled: probabilities of 0 and 1 count as 1e-7 away."""

_AT_ONCE = 32
_NEEDS = {"onnx": ("tf2onnx", "onnxruntime"), "tflite": ("ai_edge_litert",)}

Runtime = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""From pictures, float32 (n, side, side, channels), to probabilities, float32 (n, 1)."""


def export(network: keras.Model, temperature: float, kind: str, path: Path, pictures: npt.NDArray[np.uint8]) -> float:
    """Write a network that `build` made to `path`, as `onnx` or `tflite`, and say how far the file is from the network.

    The file takes raw pictures, float32 (n, side, side, channels), values 0 to 255, any n, and gives calibrated
    probabilities of pneumonia, float32 (n, 1): the temperature (Guo et al. 2017, ICML, arXiv:1706.04599) is part of it. It
    computes in float32 whatever the network's precision.

    It is tried before it is written: its own runtime predicts on `pictures`, uint8 (n, side, side), and the largest
    difference to what the network itself gives, in probability, is returned. Raises `RequestError`, and leaves `path` as it
    was, where it is above `MOST_DIFFERENCE`, where a package is missing, where the network cannot be converted, and where
    `path` cannot be written.
    """
    if kind not in get_args(Kind):
        raise RequestError(f"--export {kind}: wants {' or '.join(get_args(Kind))}")
    for package in _NEEDS[kind]:
        if importlib.util.find_spec(package) is None:
            raise RequestError(f"--export {kind} needs the package {package}; pip install 'pneumo[export]'")
    _check_place(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"network.{kind}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _convert(calibrated(network, temperature), kind, file)
                difference = _difference(network, temperature, _runtime(kind, file), pictures)
        # What a converter does not know it raises anything for, or leaves to the runtime to find.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise RequestError(f"--export {kind}: the network cannot be converted: {reason}") from error
        if not difference <= MOST_DIFFERENCE:  # a NaN is no agreement
            raise RequestError(_too_far(network, kind, path, difference))
        _place(file.read_bytes(), path)
    return difference


def calibrated(network: keras.Model, temperature: float) -> keras.Model:
    """The same network in float32, its probability sigmoid(logit / temperature)."""
    plain = logits(network, float32=True)
    logit = plain.output
    if temperature != 1:
        logit = keras.ops.clip(logit, -SUREST, SUREST) / temperature
    return keras.Model(plain.input, keras.ops.sigmoid(logit), name=network.name)


def _convert(network: keras.Model, kind: str, file: Path) -> None:
    if kind == "onnx":
        # Keras would take it from the model, if that had been called before.
        taken = [keras.InputSpec(shape=network.input_shape, dtype="float32", name="pictures")]
        network.export(file, format="onnx", verbose=False, input_signature=taken)
    else:
        # Only what every LiteRT knows: Keras would take TensorFlow's own operations too, where one is missing.
        built_in = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        network.export(file, format="litert", verbose=False, target_spec=built_in)


def _runtime(kind: str, file: Path) -> Runtime:
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pictures: np.asarray(session.run(None, {name: pictures})[0])

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def predict(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        interpreter.resize_tensor_input(taken, pictures.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(taken, pictures)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(given))

    return predict


def _difference(network: keras.Model, temperature: float, exported: Runtime, pictures: npt.NDArray[np.uint8]) -> float:
    own, channels, most = logits(network, float32=False), network.input_shape[-1], 0.0
    for start in range(0, len(pictures), _AT_ONCE):
        raw = np.repeat(pictures[start : start + _AT_ONCE, ..., None].astype(np.float32), channels, axis=-1)
        logit = keras.ops.convert_to_numpy(own(raw, training=False)).astype(np.float64)
        if temperature != 1:
            logit = np.clip(logit, -SUREST, SUREST) / temperature
        most = max(most, float(np.abs(exported(raw) - (1 + np.tanh(logit / 2)) / 2).max()))
    return most


def _too_far(network: keras.Model, kind: str, path: Path, difference: float) -> str:
    told = f"{path}: not written: in {kind} the probabilities differ by up to {difference:.1g}, not {MOST_DIFFERENCE:g}"
    if precisions := {layer.compute_dtype for layer in network.layers} - {"float32"}:
        told += (
            f", since the network computes in {precisions.pop()}; one trained with precision: float32 can be exported"
        )
    return told


def _check_place(path: Path) -> None:
    try:
        if not path.is_dir() and path.parent.is_dir():
            return
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror}") from None
    raise RequestError(f"{path}: wants a file in a folder that is there")


def _place(content: bytes, path: Path) -> None:
    """Writes a file whole or not at all."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from None
