"""Tests of pneumo.evidence.overlay: the heat map over a picture, and the caption below it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumo.evidence.overlay import mean_heat, overlay_heat, render_explanation, restore_aspect_ratio

GREY = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (90, 1))


def sheet(**changes: Any) -> np.ndarray[Any, Any]:
    usual = {"name": "a.png", "probability": 0.75, "label": "PNEUMONIA", "threshold": 0.5}
    png = render_explanation(
        GREY,
        np.eye(8, dtype=np.float32),
        **(usual | {"classes": ("NORMAL", "PNEUMONIA")} | changes),  # type: ignore[arg-type]
    )
    return np.asarray(Image.open(io.BytesIO(png)))


def test_no_heat_leaves_the_picture_as_it_is() -> None:
    mixed = overlay_heat(GREY, np.zeros((8, 8), np.float32))
    assert mixed.dtype == np.uint8
    np.testing.assert_array_equal(mixed, np.repeat(GREY[..., None], 3, axis=-1))


def test_heat_is_stretched_over_the_picture_and_colours_it() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[:, 4:] = 1
    mixed = overlay_heat(GREY, heat).astype(int)
    colour = np.ptp(mixed, axis=-1)
    assert mixed.shape == (90, 60, 3)
    assert colour[:, :24].max() == 0
    assert colour[:, 36:].min() > 50
    assert mixed[0, 40:].sum(axis=-1).tolist() == sorted(mixed[0, 40:].sum(axis=-1))  # the picture still shows


def test_a_square_gets_its_proportions_back() -> None:
    square = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    assert restore_aspect_ratio(square, 1300, 650).shape == (32, 64)
    assert restore_aspect_ratio(square, 10, 20).shape == (64, 32)
    assert restore_aspect_ratio(square, 9000, 1).shape == (1, 64)
    np.testing.assert_array_equal(restore_aspect_ratio(square, 7, 7), square)


def test_the_text_stands_below_the_picture() -> None:
    plain, noted = sheet(), sheet(note="Not a medical device")
    assert plain.shape[2] == 3
    assert noted.shape[0] > plain.shape[0] > len(GREY)
    lines = plain[len(GREY) :]
    assert (lines[:3] == 255).all()
    assert lines.min() < 100
    assert (sheet(probability=0.25) != plain).any()
    assert (sheet(name="b.png") != plain).any()


@pytest.mark.parametrize("name", ["x" * 500, "a\nb\x1b[31m.png", "лёгкие.png", "\udcff.png", ""])
def test_any_name_fits(name: str) -> None:
    pixels = sheet(name=name)
    assert pixels.shape == sheet().shape
    assert (pixels[len(GREY) :, -4:] == 255).all()  # the border is free of text


def test_the_mean_of_heat_maps_of_different_sides_has_the_largest_side() -> None:
    small, large = np.full((2, 2), 0.5, np.float32), np.eye(4, dtype=np.float32)
    mean = mean_heat([small, large], [0.25, 0.75])
    np.testing.assert_allclose(mean, 0.125 + 0.75 * large)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean_heat([large], [1.0]), large)
