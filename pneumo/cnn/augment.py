"""Pictures as they look in training: one random projective transform each, then brightness and contrast.

The transform is the one that Keras' ImageDataGenerator composes (rotation, shift, shear, zoom, then the mirror), so the
tutorial's `shear_range=0.2, zoom_range=0.2, horizontal_flip=True` means the same here. Keras 3's own layers do not do
that: `RandomShear` counts in shares of the side, not degrees, and every layer samples the picture again.
"""

from __future__ import annotations

import math

import tensorflow as tf

from pneumo.spec.hyperparameters import Hyperparameters


def augmented(pictures: tf.Tensor, seed: tf.Tensor, values: Hyperparameters) -> tf.Tensor:
    """Grey pictures, each changed by chance; the same pictures and seed give the same result on every run.

    `pictures`: shape (n, side, side, 1), values 0 to 255 of any dtype. `seed`: two integers. Returns float32 of the same
    shape and range; exactly the pictures where `values` asks for no augmentation.
    """
    pictures = tf.cast(pictures, tf.float32)
    # One row for each effect, whether it is on or not: switching one on leaves the others' luck as it was.
    draws = tf.random.stateless_uniform((9, tf.shape(pictures)[0]), seed, minval=-1.0, maxval=1.0)
    if _moves(values):
        side = tf.cast(tf.shape(pictures)[1], tf.float32)
        matrices = transforms(
            side,
            rotation=draws[0] * values.rotation,
            shift_x=draws[1] * values.translation * side,
            shift_y=draws[2] * values.translation * side,
            shear=draws[3] * values.shear,
            zoom_x=1 + draws[4] * values.zoom,
            zoom_y=1 + draws[5] * values.zoom,
            mirrored=draws[6] < 0 if values.horizontal_flip else tf.zeros_like(draws[6], tf.bool),
        )
        pictures = transformed(pictures, matrices)
    if values.brightness or values.contrast:
        mean = tf.reduce_mean(pictures, axis=(1, 2, 3), keepdims=True)
        factor = (1 + draws[7] * values.contrast)[:, None, None, None]
        shift = (draws[8] * values.brightness * 255)[:, None, None, None]
        pictures = tf.clip_by_value((pictures - mean) * factor + mean + shift, 0.0, 255.0)
    return pictures


def transforms(
    side: tf.Tensor,
    *,
    rotation: tf.Tensor,
    shift_x: tf.Tensor,
    shift_y: tf.Tensor,
    shear: tf.Tensor,
    zoom_x: tf.Tensor,
    zoom_y: tf.Tensor,
    mirrored: tf.Tensor,
) -> tf.Tensor:
    """From each pixel of the result, the point of a square picture that it shows: matrices for `transformed`, (n, 8).

    Each argument but `side` (pixels) has shape (n,): `rotation` and `shear` in degrees, the shifts in pixels, a zoom of
    0.5 shows the middle half of the axis twice as large. The matrices are those of `apply_affine_transform` and
    `flip_axis` in keras/src/legacy/preprocessing/image.py, multiplied out.
    """
    turn = rotation * (math.pi / 180)
    lean = turn + shear * (math.pi / 180)
    zoom_x = tf.where(mirrored, -zoom_x, zoom_x)
    a0, a1 = tf.cos(turn) * zoom_x, -tf.sin(lean) * zoom_y
    b0, b1 = tf.sin(turn) * zoom_x, tf.cos(lean) * zoom_y
    centre = (side - 1) / 2
    a2 = centre * (1 - a0 - a1) + tf.cos(turn) * shift_x - tf.sin(turn) * shift_y
    b2 = centre * (1 - b0 - b1) + tf.sin(turn) * shift_x + tf.cos(turn) * shift_y
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


def transformed(pictures: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Float32 pictures (n, side, side, c) under matrices (n, 8): bilinear, the edge's pixels repeated beyond it."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=matrices,
        output_shape=tf.shape(pictures)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def _moves(values: Hyperparameters) -> bool:
    return bool(values.rotation or values.translation or values.shear or values.zoom or values.horizontal_flip)
