"""Where a network sees pneumonia: Grad-CAM (Selvaraju et al. 2017, ICCV, arXiv:1610.02391)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pneumo.cnn.load import logits

GradCam = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""From one grey picture, uint8 (side, side), to its heat map, float32 (side, side), 0 to 1."""


def grad_cam(network: keras.Model) -> GradCam:
    """A function from a picture to where a network that `build` made sees what speaks for pneumonia.

    It is always the positive class that is explained, also where it is not the one predicted, so that the maps of several
    pictures mean the same. Channels of the last convolution, activated and not yet pooled, are added up, each weighted by
    the mean gradient of the logit with respect to it; the sum's positive part is the map. The logit, since the probability
    of a sure network has no gradient. The map is scaled to a maximum of 1, and is all 0 where nothing speaks for
    pneumonia: it compares places of one picture, not pictures.

    A cell of the map lies where the middle of its receptive field is. Convolutions without padding leave the
    border out, so a map that is merely stretched over the picture shows the place wrong by up to a sixth of its side.
    Between cells it is linear, beyond the outermost it stays as it is there. A deep network has few cells: with one, the
    map says nothing of the place.

    Computed in float32 whatever the network's precision, since gradients of float16 vanish. A network that `build`
    did not make raises `ValueError`; so does, when called, a picture of another size.
    """
    plain = logits(network, float32=True)
    pooling = _last_pooling(plain)
    if pooling is None:
        raise ValueError("no network with convolutions and a pooling after each")
    features, head = keras.Model(plain.input, pooling.input), keras.Model(pooling.input, plain.output)
    side, channels = plain.input_shape[1], plain.input_shape[-1]
    rows, columns = _enlarging(plain, pooling, side)

    @tf.function(input_signature=[tf.TensorSpec((side, side), tf.uint8)])  # type: ignore[untyped-decorator]
    def coarse(pixels: tf.Tensor) -> tf.Tensor:
        picture = tf.repeat(tf.cast(pixels, tf.float32)[None, ..., None], channels, axis=-1)
        maps = features(picture, training=False)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logit = head(maps, training=False)
        weights = tf.reduce_mean(tape.gradient(logit, maps), axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))[0]

    def explain(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if pixels.shape != (side, side):
            raise ValueError(f"a picture of {pixels.shape} pixels, where the network takes {(side, side)}")
        heat = rows @ coarse(pixels).numpy() @ columns.T
        most = heat.max()
        scaled: npt.NDArray[np.float32] = (heat / most if most > 0 else heat).astype(np.float32)
        return scaled

    return explain


@dataclass(frozen=True)
class _Cells:
    """The cells of a map along one axis, in pixels of the picture: the first's middle, and from one to the next."""

    first: float
    step: float


def _last_pooling(network: keras.Model) -> keras.Layer | None:
    kinds = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
    return next((layer for layer in reversed(network.layers) if isinstance(layer, kinds)), None)


def _enlarging(
    network: keras.Model, pooling: keras.Layer, side: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Two matrices, (side, rows) and (side, columns): from a map of the last convolution to the picture's pixels."""
    before = network.layers[: network.layers.index(pooling)]
    both = []
    for axis in (0, 1):
        cells = _Cells(0.0, 1.0)
        for layer in before:
            if isinstance(layer, keras.layers.Conv2D):
                cells = _through(cells, layer.kernel_size[axis], layer.strides[axis])
            elif isinstance(layer, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)):
                cells = _through(cells, layer.pool_size[axis], layer.strides[axis])
        count = pooling.input.shape[1 + axis]
        where = (np.arange(side) - cells.first) / cells.step
        both.append(np.stack([np.interp(where, np.arange(count), cell) for cell in np.eye(count)], axis=1))
    return both[0], both[1]


def _through(cells: _Cells, window: int, stride: int) -> _Cells:
    """After a window that slides without padding."""
    return _Cells(cells.first + (window - 1) / 2 * cells.step, cells.step * stride)
