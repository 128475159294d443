"""Tests of the effects of the augmentation besides the affine ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from scipy import ndimage

from pneumo.cnn.augment import augment_pictures, mix_pictures
from pneumo.cnn.batches import Examples, training_batches
from pneumo.spec.hyperparameters import Hyperparameters

Floats = npt.NDArray[np.float32]
OFF: dict[str, Any] = {"shear": 0.0, "zoom": 0.0, "horizontal_flip": False}
PICTURES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1)).astype(np.uint8)
EFFECTS: dict[str, Any] = {
    "crop": 0.4,
    "frame_exchange": 0.5,
    "gamma": 0.5,
    "blur": 1.0,
    "noise": 0.1,
    "erase": 0.5,
}


def augmented(pictures: npt.NDArray[Any] = PICTURES, seed: tuple[int, int] = (1, 2), **values: Any) -> Floats:
    return np.asarray(augment_pictures(pictures, tf.constant(seed, tf.int64), Hyperparameters(**(OFF | values))))


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_is_random_reproducible_and_within_range(name: str) -> None:
    values = {name: EFFECTS[name]}
    once, again, other = augmented(**values), augmented(**values), augmented(seed=(1, 3), **values)
    assert once.shape == PICTURES.shape
    assert once.dtype == np.float32
    assert once.min() >= 0
    assert once.max() <= 255
    assert (once == again).all()
    assert (once != other).any()
    assert (once != PICTURES).any()


@pytest.mark.parametrize("name", ["crop", "frame_exchange", "gamma", "blur"])
def test_an_effect_does_not_change_the_random_numbers_of_the_others(name: str) -> None:
    """A constant picture shows the noise alone, because none of these effects changes it."""
    constant = np.full((6, 16, 16, 1), 255 if name == "gamma" else 128, np.uint8)
    alone, together = augmented(constant, noise=0.1), augmented(constant, noise=0.1, **{name: EFFECTS[name]})
    np.testing.assert_allclose(alone, together, atol=1e-3)


def test_a_crop_shows_a_part_of_the_picture() -> None:
    ramp = np.tile(np.arange(16, dtype=np.uint8) * 16, (200, 16, 1))[..., None]
    shown = augmented(ramp, crop=0.5)[:, 0, :, 0] / 16
    sides = (shown[:, -1] - shown[:, 0]) / 15
    assert 0.5 <= sides.min() < 0.52
    assert 0.98 < sides.max() <= 1.0
    assert shown.min() >= 0
    assert shown.max() <= 15
    np.testing.assert_allclose(np.diff(shown, axis=1), np.repeat(sides[:, None], 15, axis=1), atol=1e-4)
    assert shown[:, 0].std() > 0.5  # at different places


def test_a_mirrored_crop_is_the_mirror_image_of_the_crop() -> None:
    both = augmented(crop=0.3, horizontal_flip=True)
    plain = augmented(crop=0.3)
    mirrored = [not np.allclose(a, b) for a, b in zip(both, plain, strict=True)]
    assert 8 < sum(mirrored) < 32


def test_a_frame_comes_from_another_picture_and_the_middle_stays() -> None:
    grey = np.repeat(np.arange(40, dtype=np.uint8), 256).reshape(40, 16, 16, 1)
    result = augmented(grey, frame_exchange=1.0)[..., 0]
    own = np.arange(40)
    assert (result[:, 4:12, 4:12] == own[:, None, None]).all()
    assert (result[:, 0, 0] != own).all()
    for number, picture in enumerate(result):
        widths = {int((picture[8] != number).sum()), int((picture[:, 8] != number).sum())}
        assert len(widths) == 1
        assert widths.pop() in (2, 4, 6, 8)
        assert len(np.unique(picture)) == 2


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_frames_are_exchanged_with_the_probability(probability: float) -> None:
    pictures = np.repeat(np.arange(200, dtype=np.uint8), 256).reshape(200, 16, 16, 1)
    changed = (augmented(pictures, frame_exchange=probability)[:, 0, 0, 0] != np.arange(200)).mean()
    assert changed == pytest.approx(probability, abs=0.1)


def test_a_single_picture_keeps_its_frame() -> None:
    np.testing.assert_array_equal(augmented(PICTURES[:1], frame_exchange=1.0), PICTURES[:1])


def test_gamma_is_a_power_between_its_bounds() -> None:
    result = augmented(np.full((300, 16, 16, 1), 100, np.uint8), gamma=0.5)[:, 0, 0, 0]
    powers = np.log(result / 255) / np.log(100 / 255)
    assert 1 / 1.5 <= powers.min() < 0.7
    assert 1.45 < powers.max() <= 1.5 + 1e-5
    assert abs(np.mean(np.log(powers))) < 0.05


def test_blur_is_a_mixture_with_scipys_filter() -> None:
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    for picture, result in zip(PICTURES[..., 0].astype(float), augmented(blur=1.0)[..., 0], strict=True):
        difference = ndimage.convolve(picture, kernel, mode="nearest") - picture
        share = float((difference * (result - picture)).sum() / (difference**2).sum())
        assert 0 <= share <= 1
        np.testing.assert_allclose(result, picture + share * difference, atol=1e-2)


def test_noise_has_a_deviation_up_to_its_strength() -> None:
    grey = np.full((200, 32, 32, 1), 128, np.uint8)
    deviations = (augmented(grey, noise=0.1) - 128).std(axis=(1, 2, 3)) / 255
    assert deviations.max() == pytest.approx(0.1, rel=0.1)
    assert deviations.mean() == pytest.approx(0.05, rel=0.2)


def test_one_rectangle_of_half_of_the_pictures_is_erased() -> None:
    black = np.zeros((400, 20, 20, 1), np.uint8)
    result = augmented(black, erase=0.5)[..., 0]
    erased = result > 0
    sizes = []
    for mask, picture in zip(erased, result, strict=True):
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert (mask == (rows[:, None] & columns[None])).all()
        assert len(np.unique(picture[mask])) <= 1
        sizes += [rows.sum(), columns.sum()]
    assert max(sizes) == 10
    assert 0.3 < erased.any(axis=(1, 2)).mean() < 0.5  # some rectangles are empty


def test_batches_of_all_effects_have_the_shapes_that_a_network_takes() -> None:
    examples = Examples(PICTURES[..., 0], np.arange(40), np.arange(40) % 2)
    values = Hyperparameters(**EFFECTS, mixup=0.3, class_weight="balanced", image_size=16, epochs=1)
    batches = training_batches(examples, values, seed=0)
    assert [tuple(spec.shape) for spec in batches.element_spec] == [(None, 16, 16, 3), (None, 1), (None, 1)]
    once, again = ([np.asarray(pictures) for pictures, *_ in batches] for _ in range(2))
    assert [len(batch) for batch in once] == [32, 8]
    assert all((a == b).all() for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_pictures_labels_and_weights_are_mixed_with_the_same_share(alpha: float) -> None:
    count = 300
    own = np.eye(count, dtype=np.float32)  # each picture has a pixel of its own
    labels = np.random.default_rng(0).integers(0, 2, (count, 1)).astype(np.float32)
    mixed = mix_pictures(
        tf.constant(own[:, :, None, None]), tf.constant(labels), tf.constant(1 + labels), tf.constant((1, 2)), alpha
    )
    pictures, mixed_labels, weights = map(np.asarray, mixed)
    shares = pictures[:, :, 0, 0]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert ((shares > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(mixed_labels, shares @ labels, atol=1e-5)
    np.testing.assert_allclose(weights, 1 + mixed_labels, atol=1e-5)
    assert np.diag(shares).mean() == pytest.approx(0.5, abs=0.06)
    assert np.diag(shares).var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)  # of Beta(alpha, alpha)
