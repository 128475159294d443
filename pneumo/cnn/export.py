"""Export networks for other runtimes: as ONNX, or as TFLite for LiteRT."""

from __future__ import annotations

import importlib.util
import math
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pneumo.cnn.load import logit_network, without_flip_average
from pneumo.spec.errors import RequestError

ExportFormat = Literal["onnx", "tflite"]

MAX_DIFFERENCE = 1e-4
"""Largest accepted difference between a probability of the exported file and one of the network."""

LOGIT_EPSILON = 1e-7
"""Distance from 0 and 1 to which probabilities are clipped before they are scaled, as the registered model does."""

MAX_LOGIT = math.log((1 - LOGIT_EPSILON) / LOGIT_EPSILON)
"""Logits are clipped to plus and minus this before scaling, so that probabilities of 0 and 1 count as 1e-7 away from them."""

_BATCH = 32  # pictures that are compared at a time
_PACKAGES = {"onnx": ("tf2onnx", "onnxruntime"), "tflite": ("ai_edge_litert",)}

Pictures = Mapping[str, npt.NDArray[np.float32]]
"""Pictures, float32 (n, side, side, channels), by the name of the input that takes them."""

Runtime = Callable[[Pictures], npt.NDArray[np.float32]]
"""A function from pictures to probabilities, float32 (n, 1)."""


@dataclass(frozen=True, eq=False)
class Part:
    """A network of the exported file, and its share of the probability. The shares add up to 1."""

    network: keras.Model
    weight: float = 1.0

    @property
    def side(self) -> int:
        """Side of the network's input in pixels."""
        return int(self.network.input_shape[1])

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return int(self.network.input_shape[-1])


def export(
    parts: Sequence[Part], temperature: float, kind: str, path: Path, pictures: Mapping[int, npt.NDArray[np.uint8]]
) -> float:
    """Export networks with their temperature and return how far the file's probabilities are from the networks'.

    The file takes raw pictures, float32 (n, side, side, channels), values 0 to 255, any n, and returns calibrated
    probabilities of pneumonia, float32 (n, 1); the temperature (Guo et al. 2017, ICML, arXiv:1706.04599) is part of it. It
    computes in float32 whatever the networks' precision. Its inputs are those of `input_shapes`. Before it is written to
    `path`, its own runtime predicts `pictures`, and the probabilities are compared.

    Args:
        parts: The networks, which `prediction_network` made; several are an ensemble.
        temperature: The logit is divided by it.
        kind: `onnx` or `tflite`.
        path: The file to write. It is left as it was if the export fails.
        pictures: The pictures to compare on, uint8 (n, side, side), by side, for each side of the networks' inputs.

    Returns:
        The largest absolute difference in probability.

    Raises:
        RequestError: The difference is above `MAX_DIFFERENCE`, a package is missing, the networks cannot be converted, or
            `path` cannot be written.
    """
    if kind not in get_args(ExportFormat):
        raise RequestError(f"--export {kind}: must be {' or '.join(get_args(ExportFormat))}")
    for package in _PACKAGES[kind]:
        if importlib.util.find_spec(package) is None:
            raise RequestError(f"--export {kind} needs the package {package}; pip install 'pneumo[export]'")
    if kind == "tflite" and len(input_shapes(parts)) > 1:
        raise RequestError("--export tflite: the networks take pictures of several sizes; use --export onnx")
    _check_writable(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"network.{kind}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _convert(_calibrated_network(parts, temperature), kind, file)
                difference = _max_difference(parts, temperature, _load_runtime(kind, file), pictures)
        # Converters raise exceptions of many types, and some unsupported operations only fail in the runtime.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise RequestError(f"--export {kind}: the network cannot be converted: {reason}") from error
        if not difference <= MAX_DIFFERENCE:  # also refuses NaN
            raise RequestError(_describe_difference(parts, kind, path, difference))
        _write_atomically(file.read_bytes(), path)
    return difference


def input_shapes(parts: Sequence[Part]) -> dict[str, tuple[int, int, int]]:
    """Return the shape of a picture, (side, side, channels), by the name of the exported file's input.

    There is one input for each size of pictures: `pictures`, or `pictures_64` and so on if there are several sizes. The grey
    picture is repeated in each channel.
    """
    channels: dict[int, int] = {}
    for part in parts:
        channels[part.side] = max(part.channels, channels.get(part.side, 0))
    return {_input_name(parts, side): (side, side, channels[side]) for side in sorted(channels)}


def _input_name(parts: Sequence[Part], side: int) -> str:
    return "pictures" if len({part.side for part in parts}) == 1 else f"pictures_{side}"


def _calibrated_network(parts: Sequence[Part], temperature: float) -> keras.Model:
    """Return a network in float32 whose output is the calibrated probability."""
    inputs = {name: keras.Input(shape, name=name, dtype="float32") for name, shape in input_shapes(parts).items()}
    passes = [
        (weight, logits(inputs[_input_name(parts, part.side)]))
        for part in parts
        for weight, logits in _passes(part, float32=True)
    ]
    if len(passes) == 1:
        logit = passes[0][1]
        if temperature != 1:
            logit = keras.ops.clip(logit, -MAX_LOGIT, MAX_LOGIT)
    else:
        probability = sum(weight * keras.ops.sigmoid(logit) for weight, logit in passes)
        if temperature == 1:
            return keras.Model(list(inputs.values()), probability, name="pneumo")
        clipped = keras.ops.clip(probability, LOGIT_EPSILON, 1 - LOGIT_EPSILON)
        logit = keras.ops.log(clipped) - keras.ops.log(1 - clipped)
    output = keras.ops.sigmoid(logit / temperature if temperature != 1 else logit)
    return keras.Model(list(inputs.values()), output, name="pneumo")


def _passes(part: Part, *, float32: bool) -> Iterator[tuple[float, Callable[[Any], Any]]]:
    """Yield the passes of a network for one prediction: the weight of each, and its function from pictures to logits."""
    network, is_flip_average = without_flip_average(part.network)
    own, channels = logit_network(network, float32=float32), part.channels
    logits = keras.Model(own.input, own.output)  # Keras gives it a name of its own, which an ensemble needs
    if not is_flip_average:
        yield part.weight, lambda pictures: logits(pictures[..., :channels])
    else:
        yield part.weight / 2, lambda pictures: logits(pictures[..., :channels])
        yield part.weight / 2, lambda pictures: logits(keras.ops.flip(pictures[..., :channels], axis=2))


def _convert(network: keras.Model, kind: str, file: Path) -> None:
    if kind == "onnx":
        # Keras takes the signature from the model only if the model has been called.
        signature = [keras.InputSpec(shape=each.shape, dtype="float32", name=each.name) for each in network.inputs]
        # With one input, Keras calls the network with the picture itself.
        network.export(
            file, format="onnx", verbose=False, input_signature=signature if len(signature) == 1 else [signature]
        )
    else:
        # Only operations that every LiteRT has; Keras would fall back on TensorFlow's own operations for a missing one.
        built_in = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        network.export(file, format="litert", verbose=False, target_spec=built_in)


def _load_runtime(kind: str, file: Path) -> Runtime:
    """Return the prediction function of an exported file in its own runtime."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return lambda pictures: np.asarray(session.run(None, dict(pictures))[0])

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]

    def predict(inputs: Pictures) -> npt.NDArray[np.float32]:
        (pictures,) = inputs.values()
        interpreter.resize_tensor_input(input_index, pictures.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(input_index, pictures)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output_index))

    return predict


def _max_difference(
    parts: Sequence[Part], temperature: float, runtime: Runtime, pictures: Mapping[int, npt.NDArray[np.uint8]]
) -> float:
    """Return the largest absolute difference between the networks' calibrated probabilities and the runtime's."""
    passes = [(part.side, weight, logits) for part in parts for weight, logits in _passes(part, float32=False)]
    shapes, maximum = input_shapes(parts), 0.0
    for start in range(0, len(next(iter(pictures.values()))), _BATCH):
        raw = {
            name: np.repeat(pictures[side][start : start + _BATCH, ..., None].astype(np.float32), channels, axis=-1)
            for name, (side, _, channels) in shapes.items()
        }
        expected: Any = 0.0
        for side, weight, logits in passes:
            logit = keras.ops.convert_to_numpy(logits(raw[_input_name(parts, side)])).astype(np.float64)
            if len(passes) == 1 and temperature != 1:
                logit = np.clip(logit, -MAX_LOGIT, MAX_LOGIT) / temperature
            expected = expected + weight * (1 + np.tanh(logit / 2)) / 2
        if len(passes) > 1 and temperature != 1:
            clipped = np.clip(expected, LOGIT_EPSILON, 1 - LOGIT_EPSILON)
            expected = (1 + np.tanh((np.log(clipped) - np.log1p(-clipped)) / temperature / 2)) / 2
        maximum = max(maximum, float(np.abs(runtime(raw) - expected).max()))
    return maximum


def _describe_difference(parts: Sequence[Part], kind: str, path: Path, difference: float) -> str:
    """Return the error of a file whose probabilities differ too much."""
    message = f"{path}: not written: in {kind} the probabilities differ by up to {difference:.1g}, more than {MAX_DIFFERENCE:g}"
    layers = [layer for part in parts for layer in without_flip_average(part.network)[0].layers]
    if precisions := {layer.compute_dtype for layer in layers} - {"float32"}:
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
