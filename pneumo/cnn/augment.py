"""Random augmentation of training pictures: one projective transform, then other frames, grey levels, noise and the like.

The transform is the one that Keras' `ImageDataGenerator` composes (rotation, shift, shear, zoom, then the mirror), so the
tutorial's `shear_range=0.2, zoom_range=0.2, horizontal_flip=True` has the same meaning here. The layers of Keras 3 differ:
`RandomShear` takes shares of the side instead of degrees, and each layer interpolates the picture again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from pneumo.cnn import effects
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
        if values.crop:
            matrices = _cropped(matrices, side, _own_seed(seed, "crop"), values.crop)
        pictures = apply_transforms(pictures, matrices)
    if values.frame_exchange:
        pictures = effects.exchange_frames(pictures, _own_seed(seed, "frame_exchange"), values.frame_exchange)
    if values.brightness or values.contrast:
        mean = tf.reduce_mean(pictures, axis=(1, 2, 3), keepdims=True)
        factor = (1 + draws[7] * values.contrast)[:, None, None, None]
        shift = (draws[8] * values.brightness * 255)[:, None, None, None]
        pictures = tf.clip_by_value((pictures - mean) * factor + mean + shift, 0.0, 255.0)
    for name, effect in _LAST_EFFECTS.items():
        if strength := getattr(values, name):
            pictures = effect(pictures, _own_seed(seed, name), strength)
    return pictures


def mix_pictures(
    pictures: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return each picture of a batch mixed with another one, with the mixed labels and weights.

    Args:
        pictures: float32 (n, side, side, channels).
        labels: float32 (n, 1), from 0 to 1.
        weights: float32 (n, 1), the pictures' weights in the loss.
        seed: As in `augment_pictures`.
        alpha: Both parameters of the Beta distribution of the shares.
    """
    shares, partners = effects.mix_shares(tf.shape(pictures)[0], _own_seed(seed, "mixup"), alpha)

    def mixed(values: tf.Tensor) -> tf.Tensor:
        share = tf.reshape(shares, [-1] + [1] * (len(values.shape) - 1))
        return share * values + (1 - share) * tf.gather(values, partners)

    return mixed(pictures), mixed(labels), mixed(weights)


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


_LAST_EFFECTS: dict[str, Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]] = {
    "gamma": effects.change_gamma,
    "blur": effects.blur_pictures,
    "noise": effects.add_noise,
    "erase": effects.erase_parts,
}
"""The effects after brightness and contrast, in their order, by the hyperparameter that is their strength."""

_SEEDS = ("crop", "frame_exchange", *_LAST_EFFECTS, "mixup")


def _own_seed(seed: tf.Tensor, name: str) -> tf.Tensor:
    """Return the seed of one effect, so that switching one on does not change the others' random numbers."""
    return tf.random.experimental.stateless_fold_in(seed, 1 + _SEEDS.index(name))


def _cropped(matrices: tf.Tensor, side: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Return transforms that show a random square part of what the given ones show, enlarged to the full side.

    The part's side is uniform between 1 - `strength` and 1 of the whole.
    """
    draws = tf.random.stateless_uniform((3, tf.shape(matrices)[0]), seed)
    scale = 1 - draws[0] * strength
    first_x, first_y = ((1 - scale) * (side - 1) * draw for draw in (draws[1], draws[2]))
    a0, a1, a2, b0, b1, b2, *rest = tf.unstack(matrices, axis=1)
    # The pixel (x, y) of the result is the pixel (scale x + first_x, scale y + first_y) of what the given transform shows.
    a2, b2 = a0 * first_x + a1 * first_y + a2, b0 * first_x + b1 * first_y + b2
    return tf.stack([a0 * scale, a1 * scale, a2, b0 * scale, b1 * scale, b2, *rest], axis=1)


def _has_geometric_effect(values: Hyperparameters) -> bool:
    strengths = (values.rotation, values.translation, values.shear, values.zoom, values.crop)
    return any(strengths) or values.horizontal_flip
