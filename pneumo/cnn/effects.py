"""Random effects of the augmentation, besides the geometric ones: frames, gamma, blur, noise, erased parts, mixtures.

The functions take float32 pictures (n, side, side, 1), values 0 to 255, and a seed of their own, shape (2,). Equal arguments
give equal pictures.
"""

from __future__ import annotations

import tensorflow as tf

WIDEST_FRAME = 0.25
"""Largest width of an exchanged frame, as a share of the side."""

ERASE_PROBABILITY = 0.5
"""Probability that a part of a picture is erased, as in the experiments of Zhong et al."""


def exchange_frames(pictures: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Replace the outer frame of some pictures by that of another picture of the batch.

    The width of the frame is uniform up to `WIDEST_FRAME` of the side, at least one pixel. A batch of one is unchanged.
    """
    count, side = tf.shape(pictures)[0], tf.shape(pictures)[1]
    draws = tf.random.stateless_uniform((2, count), seed)
    widest = tf.cast(side, tf.float32) * WIDEST_FRAME
    width = tf.math.ceil(draws[0] * widest)
    width = tf.where(draws[1] < probability, tf.maximum(width, 1.0), 0.0)[:, None]
    position = tf.range(tf.cast(side, tf.float32))[None]
    inner = (position >= width) & (position < tf.cast(side, tf.float32) - width)
    keeps = (inner[:, :, None] & inner[:, None, :])[..., None]
    return tf.where(keeps, pictures, tf.roll(pictures, _distance(count, seed), axis=0))


def change_gamma(pictures: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Raise grey levels, as shares of 255, to a power between 1 / (1 + `strength`) and 1 + `strength`, log-uniform."""
    draws = tf.random.stateless_uniform((tf.shape(pictures)[0], 1, 1, 1), seed, minval=-1.0, maxval=1.0)
    return 255 * (pictures / 255) ** ((1 + strength) ** draws)


def blur_pictures(pictures: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Mix pictures with their blur, whose share is uniform up to `strength`.

    The blur is the binomial 5 x 5 filter, of which the standard deviation is one pixel. Edges are repeated.
    """
    share = tf.random.stateless_uniform((tf.shape(pictures)[0], 1, 1, 1), seed, maxval=strength)
    weights = tf.constant([1, 4, 6, 4, 1], tf.float32) / 16
    blurred = pictures
    for shape in ((5, 1, 1, 1), (1, 5, 1, 1)):
        blurred = tf.nn.conv2d(_repeat_edges(blurred, axis=1 + shape.index(5)), tf.reshape(weights, shape), 1, "VALID")
    return pictures + share * (blurred - pictures)


def add_noise(pictures: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Add normal noise, whose standard deviation is uniform up to `strength` * 255 for each picture."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    deviation = tf.random.stateless_uniform((tf.shape(pictures)[0], 1, 1, 1), seeds[0], maxval=255 * strength)
    noise = tf.random.stateless_normal(tf.shape(pictures), seeds[1])
    return tf.clip_by_value(pictures + deviation * noise, 0.0, 255.0)


def erase_parts(pictures: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Fill a rectangle of some pictures with one random grey level.

    Height and width are uniform up to `strength` of the side, and the rectangle lies anywhere within the picture.

    Source: Z. Zhong et al., Random erasing data augmentation, 2017 (arXiv:1708.04896).
    """
    count, side = tf.shape(pictures)[0], tf.cast(tf.shape(pictures)[1], tf.float32)
    draws = tf.random.stateless_uniform((6, count), seed)
    position = tf.range(side)[None]

    def covered(size: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        length = tf.round(size * strength * side)
        first = tf.floor(place * (side - length + 1))
        return (position >= first[:, None]) & (position < (first + length)[:, None])

    rows, columns = covered(draws[0], draws[1]), covered(draws[2], draws[3])
    erased = rows[:, :, None] & columns[:, None, :] & (draws[4] < ERASE_PROBABILITY)[:, None, None]
    return tf.where(erased[..., None], 255 * draws[5][:, None, None, None], pictures)


def mix_shares(count: tf.Tensor, seed: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return how the pictures of a batch are mixed with each other.

    Source: H. Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018 (arXiv:1710.09412).

    Args:
        count: Number of pictures.
        seed: The seed.
        alpha: Both parameters of the Beta distribution of the shares.

    Returns:
        The share of each picture's own pixels and label, float32 (n,), and the position of its partner, int32 (n,).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma((2, count), seeds[0], alpha=tf.constant(alpha, tf.float32))
    total = gammas[0] + gammas[1]
    # For a small alpha both can be too small for float32.
    shares = tf.where(total > 0, gammas[0] / tf.maximum(total, 1e-30), 1.0)
    return shares, tf.roll(tf.range(count), _distance(count, seeds[1]), axis=0)


def _repeat_edges(pictures: tf.Tensor, axis: int) -> tf.Tensor:
    """Repeat both edges twice along an axis."""
    last = tf.shape(pictures)[axis] - 1
    first, final = tf.gather(pictures, [0, 0], axis=axis), tf.gather(pictures, [last, last], axis=axis)
    return tf.concat([first, pictures, final], axis=axis)


def _distance(count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a random distance from 1 to n - 1, by which a batch is rolled so that each picture meets another one."""
    return tf.random.stateless_uniform((), seed, minval=1, maxval=tf.maximum(count, 2), dtype=tf.int32)
