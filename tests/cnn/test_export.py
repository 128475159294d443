"""Tests of pneumo.cnn.export: the file gives the probabilities of the network, or it is not written."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from pneumo.cnn.build import build, prediction_network
from pneumo.cnn.export import MAX_DIFFERENCE, Part, export, input_shapes
from pneumo.cnn.load import load_network, logit_network
from pneumo.evidence.scaling import scale_probabilities
from pneumo.spec.errors import RequestError
from pneumo.spec.hyperparameters import Hyperparameters
from tests.support.networks import brightness_network, network

FORMATS = ["onnx", "tflite"]
KINDS: list[dict[str, Any]] = [
    {"activation": "gelu"},
    {"layers": 3, "image_size": 64, "channels": 1, "activation": "leaky_relu", "dropout": 0.3},
    {"layers": 2, "head": "average", "pooling": "average", "batch_norm": True, "activation": "silu"},
    {"layers": 9, "image_size": 512, "kernel_size": 1, "activation": "selu"},
    {"normalization": "standardize", "activation": "elu", "kernel_size": 4},
    {"normalization": "standardize", "activation": "tanh", "channels": 1},
]


def noise(model: keras.Model, n: int = 100) -> npt.NDArray[np.uint8]:
    side = model.input_shape[1]
    return np.random.default_rng(0).integers(0, 256, (n, side, side), np.uint8)


def export_one(model: keras.Model, temperature: float, kind: str, path: Path, pictures: npt.NDArray[np.uint8]) -> float:
    return export([Part(model)], temperature, kind, path, {model.input_shape[1]: pictures})


def greys(side: int, n: int = 100) -> npt.NDArray[np.uint8]:
    """Return pictures of one grey level each, from black to white."""
    levels = np.linspace(0, 255, n).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None], (n, side, side))


def raw(model: keras.Model, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.repeat(pictures[..., None].astype(np.float32), model.input_shape[-1], axis=-1)


def predict_file(path: Path, kind: str, pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probabilities of an exported file, from its runtime's public interface."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()] == [
            ("pictures", "tensor(float)", list(pictures.shape[1:]))
        ]
        return np.asarray(session.run(None, {"pictures": pictures})[0])
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    return np.asarray(runner(pictures=pictures)["output_0"])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("values", KINDS, ids=str)
def test_every_network_says_the_same_in_another_runtime(kind: str, values: dict[str, Any], tmp_path: Path) -> None:
    model, path = network(**values), tmp_path / "network"
    pictures = noise(model, 33)
    assert export_one(model, 1.0, kind, path, pictures) < 1e-5
    expected = keras.ops.convert_to_numpy(model(raw(model, pictures), training=False))
    for count in (1, 7):  # pictures in one call
        probabilities = predict_file(path, kind, raw(model, pictures[:count]))
        assert probabilities.shape == (count, 1)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["network"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("temperature", [1.0, 1.8])
def test_a_flip_average_is_exported(kind: str, temperature: float, tmp_path: Path) -> None:
    values = Hyperparameters(image_size=32, filters=2, dense_units=4, flip_average=True, residual=True, padding="same")
    model, path = prediction_network(build(values, seed=0), values), tmp_path / "network"
    pictures = noise(model, 33)
    assert export_one(model, temperature, kind, path, pictures) < 1e-5
    expected = scale_probabilities(keras.ops.convert_to_numpy(model(raw(model, pictures))), temperature)
    np.testing.assert_allclose(predict_file(path, kind, raw(model, pictures)), expected, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 1.8])
def test_an_ensemble_of_two_sizes_is_one_file(temperature: float, tmp_path: Path) -> None:
    parts = [Part(network(), 0.5), Part(network(image_size=24, channels=1), 0.2), Part(network(channels=1), 0.3)]
    pictures = {side: np.random.default_rng(side).integers(0, 256, (33, side, side), np.uint8) for side in (24, 32)}
    path = tmp_path / "ensemble.onnx"
    assert export(parts, temperature, "onnx", path, pictures) < 1e-5
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = {node.name: tuple(node.shape[1:]) for node in session.get_inputs()}
    assert shapes == input_shapes(parts) == {"pictures_24": (24, 24, 1), "pictures_32": (32, 32, 3)}
    inputs = {
        name: np.repeat(pictures[side][..., None], n, -1).astype(np.float32) for name, (side, _, n) in shapes.items()
    }
    expected = np.zeros((33, 1))
    for part in parts:
        expected += part.weight * keras.ops.convert_to_numpy(part.network(raw(part.network, pictures[part.side])))
    np.testing.assert_allclose(session.run(None, inputs)[0], scale_probabilities(expected, temperature), atol=1e-5)


def test_networks_of_several_sizes_are_no_tflite(tmp_path: Path) -> None:
    parts = [Part(network(), 0.5), Part(network(image_size=24), 0.5)]
    pictures = {side: np.zeros((2, side, side), np.uint8) for side in (24, 32)}
    with pytest.raises(RequestError, match=r"--export tflite: .* several sizes; use --export onnx"):
        export(parts, 1.0, "tflite", tmp_path / "ensemble", pictures)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("temperature", [0.4, 1.8])
def test_the_temperature_is_part_of_the_file(kind: str, temperature: float, tmp_path: Path) -> None:
    model, path = brightness_network(steepness=12.0), tmp_path / "network"
    pictures = greys(32)
    assert export_one(model, temperature, kind, path, pictures) < 1e-5
    original = keras.ops.convert_to_numpy(model(raw(model, pictures), training=False))
    probabilities = predict_file(path, kind, raw(model, pictures))
    np.testing.assert_allclose(probabilities, scale_probabilities(original, temperature), atol=1e-5)
    assert np.abs(probabilities - original).max() > 0.05


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_a_network_that_is_sure_is_exported_as_well(kind: str, temperature: float, tmp_path: Path) -> None:
    # Logits from -100 to 100: the probabilities of the network itself are 0 and 1, or too close to 1 for float32.
    model, path = brightness_network(steepness=200.0), tmp_path / "network"
    pictures = greys(32)
    assert export_one(model, temperature, kind, path, pictures) < MAX_DIFFERENCE
    ends = predict_file(path, kind, raw(model, pictures))[[0, -1]]
    expected = scale_probabilities(np.array([[0.0], [1.0]]), temperature)
    np.testing.assert_allclose(ends, expected, atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_says_something_else_is_not_written(kind: str, there: bool, tmp_path: Path) -> None:
    model, path = network(precision="bfloat16"), tmp_path / "network"
    last = model.get_layer("pneumonia")
    last.kernel.assign(last.kernel * 100)
    if there:
        path.write_bytes(b"earlier")
    with pytest.raises(RequestError, match=r"differ by up to .* computes in bfloat16.*precision: float32"):
        export_one(model, 1.0, kind, path, noise(model))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([b"earlier"] if there else [])


@pytest.mark.parametrize("kind", FORMATS)
def test_half_precision_that_hardly_matters_is_exported(kind: str, tmp_path: Path) -> None:
    model = brightness_network(steepness=0.01, precision="bfloat16")
    assert 0 < export_one(model, 1.0, kind, tmp_path / "network", noise(model)) < MAX_DIFFERENCE


@pytest.mark.parametrize(
    ("kind", "package"), [("onnx", "tf2onnx"), ("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")]
)
def test_a_missing_package_is_named(kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    model = network()
    with pytest.raises(RequestError, match=rf"package {package}; pip install 'pneumo\[export\]'"):
        export_one(model, 1.0, kind, tmp_path / "network", noise(model))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_or_is_no_format_is_refused(tmp_path: Path) -> None:
    model = network()
    for kind, path, message in (
        ("onnx", tmp_path, "must be a file"),
        ("onnx", tmp_path / "nowhere" / "network.onnx", "must be a file in an existing folder"),
        ("onnx", tmp_path / ("long" * 100), "cannot be written"),
        ("keras", tmp_path / "network", "must be onnx or tflite"),
    ):
        with pytest.raises(RequestError, match=message):
            export_one(model, 1.0, kind, path, noise(model, 2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_network_no_converter_knows_is_refused(kind: str, tmp_path: Path) -> None:
    inputs = keras.Input((16, 16, 1))
    x = keras.ops.reshape(keras.ops.det(inputs[..., 0]), (-1, 1))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="pneumonia")(x))
    with pytest.raises(RequestError, match="cannot be converted"):
        export_one(model, 1.0, kind, tmp_path / "network", noise(model, 2))
    assert list(tmp_path.iterdir()) == []


def test_logits_are_those_of_the_probabilities() -> None:
    model = network(batch_norm=True, dropout=0.5, layers=2)
    pictures = raw(model, noise(model, 5))
    probability = keras.ops.convert_to_numpy(model(pictures, training=False)).astype(np.float64)
    logit = keras.ops.convert_to_numpy(logit_network(model, float32=True)(pictures, training=False))
    np.testing.assert_allclose(logit, np.log(probability / (1 - probability)), atol=1e-5)


def test_a_kept_network_is_loaded_and_a_broken_one_is_not(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "model.keras"
    model.save(path)
    pictures = raw(model, noise(model, 3))
    same = keras.ops.convert_to_numpy(load_network(path)(pictures) == model(pictures))
    assert same.all()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RequestError, match="cannot be loaded as a network"):
        load_network(path)
