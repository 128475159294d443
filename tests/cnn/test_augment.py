"""Tests of pneumo.cnn.augment against Keras' ImageDataGenerator and against transforms computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing.image import apply_affine_transform, flip_axis

from pneumo.cnn.augment import apply_transforms, augment_pictures, transform_matrices
from pneumo.spec.hyperparameters import TUTORIAL, Hyperparameters

OFF: dict[str, Any] = {"shear": 0.0, "zoom": 0.0, "horizontal_flip": False}
PICTURES = np.random.default_rng(0).integers(0, 256, (12, 9, 9, 1)).astype(np.uint8)
Floats = npt.NDArray[np.float32]


def transformed(pictures: npt.NDArray[Any], **change: Any) -> Floats:
    """Return the pictures after one transform, the same for all."""
    identity = {"rotation": 0, "shift_x": 0, "shift_y": 0, "shear": 0, "zoom_x": 1, "zoom_y": 1}
    n, side = pictures.shape[:2]
    arguments = {name: tf.fill([n], float(value)) for name, value in (identity | change).items() if name != "mirrored"}
    matrices = transform_matrices(
        tf.constant(float(side)), mirrored=tf.fill([n], change.get("mirrored", False)), **arguments
    )
    return np.asarray(apply_transforms(tf.cast(pictures, tf.float32), matrices))


def augmented(*, seed: tuple[int, int] = (1, 2), pictures: npt.NDArray[Any] = PICTURES, **values: Any) -> Floats:
    return np.asarray(augment_pictures(pictures, tf.constant(seed, tf.int64), Hyperparameters(**(OFF | values))))


def test_without_augmentation_pictures_stay_exactly_as_they_are() -> None:
    np.testing.assert_array_equal(augmented(), PICTURES.astype(np.float32))
    np.testing.assert_array_equal(transformed(PICTURES), PICTURES.astype(np.float32))


@pytest.mark.parametrize("trial", range(6))
def test_it_is_the_transform_of_image_data_generator(trial: int) -> None:
    rng = np.random.default_rng(trial)
    picture = rng.uniform(0, 255, (16, 16, 1)).astype(np.float32)
    theta, shear, (zx, zy) = rng.uniform(-40, 40), rng.uniform(-20, 20), rng.uniform(0.7, 1.3, 2)
    (tx, ty), mirrored = rng.uniform(-3, 3, 2), bool(trial % 2)
    expected = apply_affine_transform(
        picture.copy(), theta, tx, ty, shear, zx, zy, row_axis=0, col_axis=1, channel_axis=2, fill_mode="nearest"
    )
    expected = flip_axis(expected, 1) if mirrored else expected
    got = transformed(
        picture[None],
        rotation=theta,
        shift_x=tx,
        shift_y=ty,
        shear=shear,
        zoom_x=zx,
        zoom_y=zy,
        mirrored=mirrored,
    )[0]
    np.testing.assert_allclose(got, np.asarray(expected), atol=0.02)


def test_small_transforms_worked_by_hand() -> None:
    picture = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(transformed(picture, mirrored=True)[0, ..., 0], [[2, 1, 0], [5, 4, 3], [8, 7, 6]])
    np.testing.assert_array_equal(transformed(picture, shift_x=1)[0, ..., 0], [[1, 2, 2], [4, 5, 5], [7, 8, 8]])
    # Zoomed to half the width: the outer columns show points half a pixel from the centre; the rows stay.
    np.testing.assert_allclose(
        transformed(picture, zoom_x=0.5)[0, ..., 0], [[0.5, 1.0, 1.5], [3.5, 4.0, 4.5], [6.5, 7.0, 7.5]]
    )
    np.testing.assert_allclose(
        transformed(picture, zoom_y=0.5)[0, ..., 0], [[1.5, 2.5, 3.5], [3.0, 4.0, 5.0], [4.5, 5.5, 6.5]]
    )
    np.testing.assert_allclose(
        transformed(picture, rotation=90)[0, ..., 0], [[2, 5, 8], [1, 4, 7], [0, 3, 6]], atol=1e-4
    )
    # Sheared by 30 degrees, the row below the centre shows points half a pixel further left and cos(30 degrees) rows lower.
    low = 4 + 3 * np.cos(np.pi / 6)
    assert transformed(picture, shear=30)[0, 2, 1:, 0].tolist() == pytest.approx([low - 0.5, low + 0.5], abs=1e-4)


def test_the_flip_mirrors_about_half_of_the_pictures_and_nothing_else() -> None:
    many = np.repeat(PICTURES[:1], 400, axis=0)
    got, plain = augmented(pictures=many, horizontal_flip=True), PICTURES[0].astype(np.float32)
    same = (got == plain).all(axis=(1, 2, 3))
    mirrored = (got == plain[:, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(
    "values",
    [{"shear": 20.0}, {"zoom": 0.2}, {"rotation": 15.0}, {"translation": 0.1}, {"brightness": 0.2}, {"contrast": 0.2}],
    ids=lambda values: next(iter(values)),
)
def test_each_effect_changes_each_picture_by_its_own_amount(values: dict[str, Any]) -> None:
    same = np.repeat(PICTURES[:1], 6, axis=0)
    got = augmented(pictures=same, **values)
    assert len({picture.tobytes() for picture in (*got, same[0].astype(np.float32))}) == 7
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() <= 255


def test_brightness_adds_and_contrast_stretches_about_the_mean() -> None:
    middle = np.random.default_rng(0).integers(110, 140, (50, 9, 9, 1)).astype(np.float32)
    shift = augmented(pictures=middle, brightness=0.1) - middle
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-3)
    assert 20 < np.abs(shift).max() <= 25.5
    stretched = augmented(pictures=middle, contrast=0.3)
    np.testing.assert_allclose(stretched.mean(axis=(1, 2, 3)), middle.mean(axis=(1, 2, 3)), rtol=1e-5)
    factors = stretched.std(axis=(1, 2, 3)) / middle.std(axis=(1, 2, 3))
    assert 0.7 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.3001


def test_zoom_treats_each_axis_by_itself_within_its_bounds() -> None:
    ramp = np.tile(np.arange(65, dtype=np.float32), (200, 65, 1))[..., None]
    across = augmented(pictures=ramp, zoom=0.2)
    down = augmented(pictures=ramp.swapaxes(1, 2), zoom=0.2)
    slopes = np.stack([across[:, 32, 33, 0] - across[:, 32, 32, 0], down[:, 33, 32, 0] - down[:, 32, 32, 0]])
    assert (slopes.min(axis=1) >= 0.8).all()
    assert (slopes.min(axis=1) < 0.82).all()
    assert (slopes.max(axis=1) > 1.18).all()
    assert (slopes.max(axis=1) <= 1.2001).all()
    assert abs(np.corrcoef(slopes)[0, 1]) < 0.3


def test_shear_of_the_tutorial_is_in_degrees() -> None:
    ramp = np.tile(np.arange(65, dtype=np.float32), (200, 65, 1))[..., None]
    got = augmented(pictures=ramp, shear=TUTORIAL.shear)
    # 0.2 degrees shift the top row, 32 pixels from the centre, by at most 0.11 pixels.
    assert 0.09 < np.abs(got - ramp)[:, 0, 32].max() <= 32 * np.sin(np.deg2rad(0.2)) + 1e-4


def test_the_seed_alone_decides() -> None:
    values: dict[str, Any] = {"shear": 5.0, "zoom": 0.2, "horizontal_flip": True, "brightness": 0.1, "contrast": 0.1}
    np.testing.assert_array_equal(augmented(seed=(3, 4), **values), augmented(seed=(3, 4), **values))
    assert not np.array_equal(augmented(seed=(3, 4), **values), augmented(seed=(3, 5), **values))
