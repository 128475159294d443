"""Change pictures as the stress suite says (`pneumo.spec.stress`).

All arithmetic is NumPy's, element by element, so equal pictures and seeds give equal bytes in every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.spec.stress import CHANGES, FRAME

Pictures = NDArray[np.uint8]

_NOISE = 12.0
_BLOCK = 32
"""Pictures changed at a time. All at once would need up to 17 times the memory of the pictures."""


def stressed(
    pictures: Pictures, labels: NDArray[np.int64], seed: int, only: Collection[str] | None = None
) -> Iterator[tuple[str, Pictures]]:
    """Yield the pictures under each change of the suite, in its order.

    Geometric changes are about the middle of the picture. They interpolate bilinearly between pixel centres and repeat the
    edges. Grey levels are rounded to the nearest and clipped to 0 and 255.

    Args:
        pictures: Shape (n, side, side).
        labels: Shape (n,), 0 or 1. In the frame exchange, a picture keeps its frame if there is none of the other class.
        seed: Seed of the noise and of the partners in the frame exchange. They also depend on the position in `pictures`.
        only: Names of the changes to yield; None yields all. The bytes of a change do not depend on the others.

    Yields:
        The change's name and the changed pictures, uint8 (n, side, side).

    Raises:
        ValueError: `only` has a name that is not in the suite.
    """
    if unknown := set(only or ()) - {change.name for change in CHANGES}:
        raise ValueError(f"there is no change {', '.join(sorted(unknown))} in the stress suite")
    for change in CHANGES:
        if only is not None and change.name not in only:
            continue
        if change.name == "frame":
            yield change.name, _exchange_frames(pictures, labels, seed)
        elif change.name == "noise":
            yield change.name, _add_noise(pictures, seed)
        else:
            yield change.name, _in_blocks(_TRANSFORMS[change.name], pictures)


def _in_blocks(transform: Callable[[Pictures], Pictures], pictures: Pictures) -> Pictures:
    """Return the transform of each picture, on its own."""
    changed = np.empty_like(pictures)
    for start in range(0, len(pictures), _BLOCK):
        block = slice(start, start + _BLOCK)
        changed[block] = transform(pictures[block])
    return changed


def _scaled(scale_x: float, scale_y: float) -> Callable[[Pictures], Pictures]:
    """Return a transform that shows `scale_x` of the width and `scale_y` of the height on the full side."""
    return lambda pictures: _resample(pictures, scale_x, 0.0, 0.0, scale_y)


def _shifted(share: float) -> Callable[[Pictures], Pictures]:
    """Return a transform that moves a picture right and down by a share of its side."""

    def shift(pictures: Pictures) -> Pictures:
        distance = share * pictures.shape[1]
        return _resample(pictures, 1.0, 0.0, 0.0, 1.0, -distance)

    return shift


def _rotated(degrees: float) -> Callable[[Pictures], Pictures]:
    """Return a transform that rotates a picture counterclockwise."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return lambda pictures: _resample(pictures, cosine, -sine, sine, cosine)


def _resample(pictures: Pictures, xx: float, xy: float, yx: float, yy: float, offset: float = 0.0) -> Pictures:
    """Return pictures whose pixel (x, y) is the value at (xx x + xy y + offset, yx x + yy y + offset), from the middle."""
    count, side, _ = pictures.shape
    middle = (side - 1) / 2
    y, x = np.mgrid[:side, :side].reshape(2, -1) - middle
    from_x = np.clip(xx * x + xy * y + offset + middle, 0, side - 1)
    from_y = np.clip(yx * x + yy * y + offset + middle, 0, side - 1)
    left, top = np.floor(from_x).astype(np.intp), np.floor(from_y).astype(np.intp)
    right, bottom = np.minimum(left + 1, side - 1), np.minimum(top + 1, side - 1)
    share_x, share_y = (from_x - left).astype(np.float32), (from_y - top).astype(np.float32)
    flat = pictures.reshape(count, side * side)
    corners = (
        (top, left, (1 - share_x) * (1 - share_y)),
        (top, right, share_x * (1 - share_y)),
        (bottom, left, (1 - share_x) * share_y),
        (bottom, right, share_x * share_y),
    )
    values = np.zeros(flat.shape, np.float32)
    for row, column, weight in corners:
        values += np.take(flat, row * side + column, axis=1) * weight
    return _rounded(values).reshape(pictures.shape)


def _mapped(curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[Pictures], Pictures]:
    """Return a transform that replaces each grey level by the curve's value of it."""
    table = _rounded(curve(np.arange(256, dtype=np.float64)))
    return lambda pictures: table[pictures]


def _contrasted(factor: float) -> Callable[[Pictures], Pictures]:
    """Return a transform that multiplies the distance of each pixel from its picture's mean."""

    def contrast(pictures: Pictures) -> Pictures:
        means = pictures.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        return _rounded((pictures - means) * factor + means)

    return contrast


def _blur(pictures: Pictures) -> Pictures:
    """Apply the binomial filter (1 2 1) along both axes, twice. The sums are whole numbers, so only the end is rounded."""
    values = pictures.astype(np.int32)
    for axis in (1, 2, 1, 2):
        width = [(1, 1) if k == axis else (0, 0) for k in range(3)]
        padded = np.pad(values, width, mode="edge")
        side = values.shape[axis]
        values = (
            padded.take(range(side), axis)
            + 2 * padded.take(range(1, side + 1), axis)
            + padded.take(range(2, side + 2), axis)
        )
    return _rounded(values / 256)


def _add_noise(pictures: Pictures, seed: int) -> Pictures:
    rng = np.random.default_rng((seed, 0))  # one stream, so the size of the blocks does not matter
    return _in_blocks(
        lambda block: _rounded(block + np.float32(_NOISE) * rng.standard_normal(block.shape, np.float32)), pictures
    )


def _exchange_frames(pictures: Pictures, labels: NDArray[np.int64], seed: int) -> Pictures:
    """Replace the outer 15 % on each side by that of a picture of the other class, drawn by the seed."""
    partners = np.arange(len(pictures))
    draws = np.random.default_rng((seed, 1)).random(len(pictures))
    for label in (0, 1):
        others = np.flatnonzero(labels != label)
        if len(others):
            own = labels == label
            partners[own] = others[(draws[own] * len(others)).astype(np.intp)]
    side = pictures.shape[1]
    width = round(FRAME * side)
    changed = pictures[partners]
    inside = slice(width, side - width)
    changed[:, inside, inside] = pictures[:, inside, inside]
    return changed


def _rounded(values: NDArray[Any]) -> Pictures:
    grey: Pictures = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return grey


_TRANSFORMS: dict[str, Callable[[Pictures], Pictures]] = {
    "crop_90": _scaled(0.9, 0.9),
    "crop_80": _scaled(0.8, 0.8),
    "wide": _scaled(1.15, 1.15),
    "narrow_x": _scaled(1 / 0.85, 1.0),
    "narrow_y": _scaled(1.0, 1 / 0.85),
    "shift": _shifted(0.08),
    "rotate": _rotated(8),
    "brighter": _mapped(lambda grey: grey + 0.15 * 255),
    "darker": _mapped(lambda grey: grey - 0.15 * 255),
    "contrast_high": _contrasted(1.4),
    "contrast_low": _contrasted(0.6),
    "gamma_high": _mapped(lambda grey: 255 * (grey / 255) ** 1.5),
    "gamma_low": _mapped(lambda grey: 255 * (grey / 255) ** 0.67),
    "blur": _blur,
}
"""The changes that need no labels and no random numbers, by name."""
