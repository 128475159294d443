"""Grad-CAM heat maps of a network (Selvaraju et al. 2017, ICCV, arXiv:1610.02391)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pneumo.cnn.device import free_variables
from pneumo.cnn.load import logit_network, without_flip_average

GradCam = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""A function from one grey picture, uint8 (side, side), to its heat map, float32 (side, side), 0 to 1."""

GradCams = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""The same for several pictures at once, uint8 (n, side, side), to float32 (n, side, side)."""


def grad_cam(network: keras.Model) -> GradCam:
    """Return a function that computes the Grad-CAM heat map of a picture for the class PNEUMONIA.

    The positive class is always the one explained, even if the network predicts the other, so that the maps of several
    pictures can be compared. The map is the positive part of the sum of the last convolution's channels (after the
    activation, before the pooling), each weighted by the mean gradient of the logit with respect to it. The logit is used
    because the probability of a confident network has no gradient. The map is scaled to a maximum of 1; it is 0 everywhere
    if no region raises the logit. It compares regions within one picture, not pictures with each other.

    Each cell of the map is placed at the centre of its receptive field. Convolutions without padding leave the border out,
    so a map that is simply stretched over the picture would be off by up to a sixth of its side. Between cells the map is
    interpolated linearly; beyond the outermost cells it is constant. A deep network has few cells; a map of one cell says
    nothing about the region.

    If the network's probability is the mean over a picture and its mirror image, the map is the sum of both maps, of which the
    second is mirrored back.

    The map is computed in float32 whatever the network's precision, since gradients in float16 underflow.

    Args:
        network: A network that `prediction_network` made.

    Returns:
        The function. It raises `ValueError` if the picture has another size than the network takes.

    Raises:
        ValueError: `build` did not make the network.
    """
    network, is_flip_average = without_flip_average(network)
    explain = _grad_cams(logit_network(network, float32=True), is_flip_average)
    return lambda pixels: explain(pixels[None])[0]


@contextmanager
def grad_cams(network: keras.Model) -> Iterator[GradCams]:
    """Yield the function that `grad_cam` returns, for several pictures at once, and free its memory on leaving.

    Several at once are much faster, because the weights of a flattened head are read once for all of them.

    Raises:
        ValueError: As `grad_cam` does.
    """
    network, is_flip_average = without_flip_average(network)
    copy = logit_network(network, float32=True)
    try:
        yield _grad_cams(copy, is_flip_average)
    finally:
        free_variables(copy.variables)


def _grad_cams(plain: keras.Model, is_flip_average: bool) -> GradCams:
    """Return the function of `grad_cams`.

    Args:
        plain: The network that gives the logit, in float32.
        is_flip_average: Whether the map is the sum of those of the picture and of its mirror image.
    """
    pooling = _find_last_pooling(plain)
    if pooling is None:
        raise ValueError("the network must have convolutions with a pooling after each")
    features, head = keras.Model(plain.input, pooling.input), keras.Model(pooling.input, plain.output)
    side, channels = plain.input_shape[1], plain.input_shape[-1]
    rows, columns = _upsampling_matrices(plain, pooling, side)

    @tf.function(input_signature=[tf.TensorSpec((None, side, side), tf.uint8)])  # type: ignore[untyped-decorator]
    def cell_values(pixels: tf.Tensor) -> tf.Tensor:
        pictures = tf.repeat(tf.cast(pixels, tf.float32)[..., None], channels, axis=-1)
        maps = features(pictures, training=False)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits = head(maps, training=False)
        # The logit of a picture depends on its own map only, so this is the gradient of each.
        weights = tf.reduce_mean(tape.gradient(logits, maps), axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))

    def explain(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if pixels.shape[1:] != (side, side):
            raise ValueError(f"the picture has {pixels.shape[1:]} pixels, the network takes {(side, side)}")
        heat = rows @ cell_values(pixels).numpy() @ columns.T
        if is_flip_average:
            heat += (rows @ cell_values(pixels[..., ::-1]).numpy() @ columns.T)[..., ::-1]
        maxima = heat.max(axis=(1, 2), keepdims=True)
        heat_maps: npt.NDArray[np.float32] = (heat / np.where(maxima > 0, maxima, 1)).astype(np.float32)
        return heat_maps

    return explain


@dataclass(frozen=True)
class _CellGrid:
    """The positions of a map's cells along one axis, in pixels of the picture.

    Attributes:
        first: Centre of the first cell.
        step: Distance between the centres of two neighbouring cells.
    """

    first: float
    step: float

    def after_window(self, size: int, stride: int, padding: str) -> _CellGrid:
        """Return the grid of the feature map that a convolution or a pooling makes of this one."""
        # Padding adds (size - 1) // 2 pixels in front.
        before = (size - 1) // 2 if padding == "same" else 0
        return _CellGrid(self.first + ((size - 1) / 2 - before) * self.step, self.step * stride)


def _find_last_pooling(network: keras.Model) -> keras.Layer | None:
    kinds = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
    return next((layer for layer in reversed(network.layers) if isinstance(layer, kinds)), None)


def _upsampling_matrices(
    network: keras.Model, pooling: keras.Layer, side: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the matrices that interpolate a map of the last convolution to the picture's pixels.

    Args:
        network: The network.
        pooling: The pooling after its last convolution.
        side: Side of the picture in pixels.

    Returns:
        float64 matrices of shapes (side, rows of the map) and (side, columns of the map).
    """
    layers = network.layers[: network.layers.index(pooling)]
    matrices = []
    for axis in (0, 1):
        grid = _CellGrid(0.0, 1.0)
        for layer in layers:
            if layer.name.startswith("convolution_"):  # a projection is beside them
                grid = grid.after_window(layer.kernel_size[axis], layer.strides[axis], layer.padding)
            elif isinstance(layer, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)):
                grid = grid.after_window(layer.pool_size[axis], layer.strides[axis], layer.padding)
        count = pooling.input.shape[1 + axis]
        positions = (np.arange(side) - grid.first) / grid.step  # of the pixels, in cells
        matrices.append(np.stack([np.interp(positions, np.arange(count), cell) for cell in np.eye(count)], axis=1))
    return matrices[0], matrices[1]
