"""Tests of pneumo.cnn.explain: the heat map marks the pixels that decide, in each kind of network."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from pneumo.cnn.build import prediction_network
from pneumo.cnn.explain import grad_cam, grad_cams
from pneumo.spec.hyperparameters import Hyperparameters
from tests.support.networks import SMALL, brightness_network, network

KINDS: list[dict[str, Any]] = [
    {},
    {"layers": 4, "image_size": 64, "channels": 1},
    {"layers": 9, "image_size": 512, "kernel_size": 1},
    {"layers": 2, "head": "average", "pooling": "average", "dropout": 0.4},
    {"layers": 2, "batch_norm": True, "normalization": "standardize", "activation": "gelu"},
    {"layers": 2, "precision": "bfloat16", "activation": "tanh"},
    {"layers": 2, "precision": "float16", "head": "average"},
]


def spot(side: int, row: int, column: int, radius: int = 3) -> npt.NDArray[np.uint8]:
    """Return a black picture with one bright square."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[row - radius : row + radius + 1, column - radius : column + radius + 1] = 255
    return pixels


def centre_of_mass(heat: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the row and the column of the centre of mass."""
    rows, columns = np.indices(heat.shape)
    return float((rows * heat).sum() / heat.sum()), float((columns * heat).sum() / heat.sum())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_network_gives_a_map_of_the_pictures_size(kind: dict[str, Any]) -> None:
    model = network(**kind)
    side = model.input_shape[1]
    before = [weight.copy() for weight in model.get_weights()]
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    heat = grad_cam(model)(pixels)
    assert heat.shape == (side, side)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() in (0, 1)
    for weight_before, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight_before, weight)


@pytest.mark.parametrize("head", ["flatten", "average"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_heat_is_the_planted_evidence(head: str, channels: int) -> None:
    model = brightness_network(head=head, channels=channels)
    pixels = spot(32, 9, 21)
    heat = grad_cam(model)(pixels)
    # The only convolution copies the middle pixel of its 3 x 3 window, so inside the border the map is the picture itself.
    np.testing.assert_allclose(heat[1:-1, 1:-1], (pixels / 255)[1:-1, 1:-1], atol=1e-6)


@pytest.mark.parametrize("layers", [2, 3, 4])
@pytest.mark.parametrize(("row", "column"), [(34, 60), (48, 34), (60, 41)])
def test_a_deep_networks_heat_lies_where_the_evidence_is(layers: int, row: int, column: int) -> None:
    model = brightness_network(layers=layers, image_size=96, head="average", pooling="average")
    centre = centre_of_mass(grad_cam(model)(spot(96, row, column)))
    cell = 2 ** (layers - 1)  # pixels
    # A map of four layers that is stretched over the picture would be off by 5 and 8 pixels for the first spot.
    assert centre == pytest.approx((row, column), abs=cell / 2)


def test_the_outermost_cells_reach_to_the_border() -> None:
    model = brightness_network(layers=4, image_size=96, head="average", pooling="average")
    heat = grad_cam(model)(spot(96, 14, 80))
    assert heat[:14, 82:].min() == pytest.approx(1)
    assert not heat[40:, :60].any()


def test_what_speaks_against_pneumonia_is_no_heat() -> None:
    heat = grad_cam(brightness_network(steepness=-20.0))(spot(32, 9, 21))
    assert not heat.any()


def test_a_sure_network_has_heat_as_an_unsure_one_has() -> None:
    pixels = np.maximum(spot(32, 9, 21), 100)
    unsure, sure = brightness_network(steepness=1.0), brightness_network(steepness=1e4)
    picture = np.repeat(pixels[None, ..., None], 3, axis=-1)
    assert float(sure(picture)[0, 0]) in (0, 1)  # the gradient of this probability is 0
    np.testing.assert_allclose(grad_cam(sure)(pixels), grad_cam(unsure)(pixels), atol=1e-6)


def test_half_precision_has_heat_where_gradients_are_tiny() -> None:
    model = brightness_network(steepness=1e-4, precision="float16", image_size=64)
    heat = grad_cam(model)(spot(64, 20, 40))
    assert heat[20, 40] == 1
    assert heat[50, 10] == 0


def test_several_pictures_at_once_have_the_maps_of_each_and_no_memory_stays() -> None:
    model = prediction_network(network(layers=2), Hyperparameters(**(SMALL | {"layers": 2, "flip_average": True})))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    explain = grad_cam(model)
    with grad_cams(model) as explain_all:
        maps = explain_all(pictures)
    np.testing.assert_allclose(maps, [explain(picture) for picture in pictures], atol=1e-5)
    with pytest.raises(Exception, match=r"."):  # its weights are freed
        explain_all(pictures)
    assert np.isfinite(explain(pictures[0])).all()


def test_a_picture_of_another_size_and_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="takes \\(32, 32\\)"):
        grad_cam(network())(np.zeros((31, 32), np.uint8))
    inputs = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(inputs)
    with pytest.raises(ValueError, match="pooling"):
        grad_cam(keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(flat)))
    with pytest.raises(ValueError, match="sigmoid"):
        grad_cam(keras.Model(inputs, keras.layers.Dense(2, "softmax")(flat)))
