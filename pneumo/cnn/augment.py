"""Random augmentation of training pictures: one projective transform, then brightness and contrast.

The transform is the one that Keras' `ImageDataGenerator` composes (rotation, shift, shear, zoom, then the mirror), so the
tutorial's `shear_range=0.2, zoom_range=0.2, horizontal_flip=True` has the same meaning here. The layers of Keras 3 differ:
`RandomShear` takes shares of the side instead of degrees, and each layer interpolates the picture again.
"""

from __future__ import annotations

import math

import tensorflow as tf

from pneumo.spec.hyperparameters import Hyperparameters


def augment_pictures(pictures: tf.Tensor, seed: tf.Tensor, values: Hyperparameters) -> tf.Tensor:
    """Return randomly augmented copies of grey pictures.

    Args:
        pictures: Shape (n, side, side, 1), any dtype, values 0 to 255.
        seed: Shape (2,), integers. The same pictures and seed give the same result in every process.
        values: Hyperparameters. Those that are 0 or False switch their effect off; if all effects are off, the pictures
            are returned with their values unchanged.

    Returns:
        float32 of the same shape, values 0 to 255.
    """
    pictures = tf.cast(pictures, tf.float32)
    # One row for each effect, whether it is on or off, so that switching one on does not change the others' random numbers.
    draws = tf.random.stateless_uniform((9, tf.shape(pictures)[0]), seed, minval=-1.0, maxval=1.0)
    if _has_geometric_effect(values):
        side = tf.cast(tf.shape(pictures)[1], tf.float32)
        matrices = transform_matrices(
            side,
            rotation=draws[0] * values.rotation,
            shift_x=draws[1] * values.translation * side,
            shift_y=draws[2] * values.translation * side,
            shear=draws[3] * values.shear,
            zoom_x=1 + draws[4] * values.zoom,
            zoom_y=1 + draws[5] * values.zoom,
            mirrored=draws[6] < 0 if values.horizontal_flip else tf.zeros_like(draws[6], tf.bool),
        )
        pictures = apply_transforms(pictures, matrices)
    if values.brightness or values.contrast:
        mean = tf.reduce_mean(pictures, axis=(1, 2, 3), keepdims=True)
        factor = (1 + draws[7] * values.contrast)[:, None, None, None]
        shift = (draws[8] * values.brightness * 255)[:, None, None, None]
        pictures = tf.clip_by_value((pictures - mean) * factor + mean + shift, 0.0, 255.0)
    return pictures


def transform_matrices(
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
    """Return the projective transforms of n square pictures.

    A transform maps each pixel of the result to the point of the picture whose value it takes. The matrices are those of
    `apply_affine_transform` and `flip_axis` in keras/src/legacy/preprocessing/image.py, multiplied out.

    Args:
        side: Side of the pictures in pixels.
        rotation: Degrees, shape (n,).
        shift_x: Pixels, shape (n,).
        shift_y: Pixels, shape (n,).
        shear: Degrees, shape (n,).
        zoom_x: Shape (n,); 0.5 enlarges the middle half of the axis to its full length.
        zoom_y: As `zoom_x`.
        mirrored: bool, shape (n,); True mirrors left and right.

    Returns:
        float32, shape (n, 8), for `apply_transforms`.
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


def apply_transforms(pictures: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Transform float32 pictures (n, side, side, c) by matrices (n, 8).

    Values are interpolated bilinearly; points outside the picture take the value of the nearest edge pixel.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=matrices,
        output_shape=tf.shape(pictures)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def _has_geometric_effect(values: Hyperparameters) -> bool:
    return bool(values.rotation or values.translation or values.shear or values.zoom or values.horizontal_flip)
