"""The changes of the stress suite, against Pillow's and SciPy's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import ndimage

from pneumo.cnn.stress import stressed
from pneumo.spec.stress import CHANGES

Picture = NDArray[np.uint8]
SIDE = 40
NAMES = [change.name for change in CHANGES]
GEOMETRY = [change.name for change in CHANGES if change.kind == "geometry"]


def smooth_pictures(count: int = 4, side: int = SIDE) -> Picture:
    """Return pictures without fine detail, on which two ways of interpolating agree."""
    noise = np.random.default_rng(0).normal(size=(count, side, side))
    waves = ndimage.gaussian_filter(noise, (0, 3, 3), mode="nearest")
    return np.asarray(127 + 110 * waves / np.abs(waves).max(), np.uint8)


def changed(name: str, pictures: Picture, labels: NDArray[np.int64] | None = None, seed: int = 0) -> Picture:
    labels = np.arange(len(pictures)) % 2 if labels is None else labels
    [(_, result)] = stressed(pictures, labels, seed, only=[name])
    return result


def box_resized(share: float) -> Callable[[Picture], Picture]:
    """Return Pillow's bilinear enlargement of the middle of a picture. `Image.transform` counts from pixel edges."""
    first = SIDE * (1 - share) / 2
    extent = (first, first, SIDE - first, SIDE - first)
    return lambda picture: np.asarray(
        Image.fromarray(picture).transform((SIDE, SIDE), Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)
    )


def affine(matrix: list[list[float]], offset: tuple[float, float] = (0, 0)) -> Callable[[Picture], Picture]:
    """Return SciPy's affine transform about the middle, rows first, edges repeated."""
    middle = np.full(2, (SIDE - 1) / 2)
    whole = middle - np.array(matrix) @ middle + np.array(offset)
    return lambda picture: ndimage.affine_transform(
        picture.astype(float), np.array(matrix), whole, order=1, mode="nearest"
    )


def gamma(exponent: float) -> Callable[[Picture], Picture]:
    return lambda picture: np.asarray(
        Image.fromarray(picture).point([round(255 * (k / 255) ** exponent) for k in range(256)])
    )


def contrast(factor: float) -> Callable[[Picture], Picture]:
    """Return Pillow's contrast, whose mean is rounded to a whole number."""
    return lambda picture: np.asarray(ImageEnhance.Contrast(Image.fromarray(picture)).enhance(factor))


SINE, COSINE = math.sin(math.radians(8)), math.cos(math.radians(8))
INDEPENDENT: dict[str, Callable[[Picture], Picture]] = {
    "crop_90": box_resized(0.9),
    "crop_80": box_resized(0.8),
    "wide": affine([[1.15, 0], [0, 1.15]]),
    "narrow_x": affine([[1, 0], [0, 1 / 0.85]]),
    "narrow_y": affine([[1 / 0.85, 0], [0, 1]]),
    "shift": lambda picture: ndimage.shift(picture.astype(float), 0.08 * SIDE, order=1, mode="nearest"),
    "rotate": affine([[COSINE, SINE], [-SINE, COSINE]]),
    "brighter": lambda picture: np.clip(picture + 0.15 * 255, 0, 255),
    "darker": lambda picture: np.clip(picture - 0.15 * 255, 0, 255),
    "contrast_high": contrast(1.4),
    "contrast_low": contrast(0.6),
    "gamma_high": gamma(1.5),
    "gamma_low": gamma(0.67),
    "blur": lambda picture: ndimage.convolve(
        picture.astype(float), np.outer(*[np.convolve([1, 2, 1], [1, 2, 1])] * 2) / 256, mode="nearest"
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_each_change_is_that_of_an_independent_library(name: str) -> None:
    pictures = smooth_pictures()
    inside = (
        slice(1, -1) if name in ("blur", "crop_90", "crop_80") else slice(None)
    )  # the libraries treat the edge otherwise
    for picture, result in zip(pictures, changed(name, pictures), strict=True):
        difference = np.abs(result.astype(float) - INDEPENDENT[name](picture).astype(float))[inside, inside]
        assert difference.max() <= 1.0


def test_every_change_is_compared_or_random() -> None:
    assert set(NAMES) - set(INDEPENDENT) == {"noise", "frame"}


def test_the_rotation_is_counterclockwise() -> None:
    pictures = smooth_pictures()
    rotated = Image.fromarray(pictures[0]).rotate(8, Image.Resampling.BILINEAR)
    middle = slice(10, 30)  # Pillow fills the corners with black
    difference = changed("rotate", pictures)[0].astype(float) - np.asarray(rotated, float)
    assert np.abs(difference[middle, middle]).max() <= 1.5


def test_noise_has_the_strength_that_is_stated() -> None:
    grey = np.full((8, 64, 64), 128, np.uint8)
    noise = changed("noise", grey).astype(float) - 128
    assert noise.std() == pytest.approx(12, rel=0.02)
    assert abs(noise.mean()) < 0.2


def test_the_frame_is_that_of_a_picture_of_the_other_class() -> None:
    pictures = np.repeat(np.arange(10, 60, dtype=np.uint8), SIDE * SIDE).reshape(50, SIDE, SIDE)
    labels = np.random.default_rng(1).integers(0, 2, 50)
    result = changed("frame", pictures, labels)
    width = round(0.15 * SIDE)
    assert (result[:, width:-width, width:-width] == pictures[:, width:-width, width:-width]).all()
    partners = result[:, 0, 0].astype(int) - 10
    assert (labels[partners] != labels).all()
    assert len(set(partners.tolist())) > 10
    frame = np.ones((SIDE, SIDE), bool)
    frame[width:-width, width:-width] = False
    assert (result[:, frame] == pictures[partners][:, frame]).all()


def test_without_another_class_a_picture_keeps_its_frame() -> None:
    pictures = smooth_pictures()
    assert (changed("frame", pictures, np.ones(4, np.int64)) == pictures).all()


def test_an_unknown_change_is_named() -> None:
    with pytest.raises(ValueError, match="no change crop_70 in the stress suite"):
        list(stressed(smooth_pictures(), np.zeros(4, np.int64), 0, only=["crop_70"]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(16, 40), st.integers(0, 2**31 - 1), st.data())
def test_shape_range_and_seed(count: int, side: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
    labels = rng.integers(0, 2, count)
    before, labels_before = pictures.copy(), labels.copy()
    suite = dict(stressed(pictures, labels, seed))
    assert list(suite) == NAMES
    assert all(result.shape == pictures.shape and result.dtype == np.uint8 for result in suite.values())
    assert (pictures == before).all()
    assert (labels == labels_before).all()
    again = dict(stressed(pictures, labels, seed))
    assert all((suite[name] == again[name]).all() for name in NAMES)
    only = data.draw(st.sets(st.sampled_from(NAMES), min_size=1))
    some = dict(stressed(pictures, labels, seed, only))
    assert list(some) == [name for name in NAMES if name in only]
    assert all((suite[name] == result).all() for name, result in some.items())
    other = dict(stressed(pictures, labels, seed + 1))
    assert all((suite[name] == other[name]).all() for name in NAMES if name not in ("noise", "frame"))
    assert (suite["noise"] != other["noise"]).any()


@pytest.mark.parametrize("name", [*GEOMETRY, "blur", "contrast_high", "contrast_low"])
@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_a_constant_picture_stays_constant(name: str, grey: int) -> None:
    constant = np.full((2, 17, 17), grey, np.uint8)
    assert (changed(name, constant) == grey).all()
