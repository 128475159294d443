"""The Grad-CAM heat maps of a trained network: the share of attention, and the pictures that are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from pneumo.cnn.batches import Examples
from pneumo.evidence.attention import attention_inside
from pneumo.evidence.metrics import most_confident
from pneumo.training import attention
from pneumo.training.attention import EACH, PICTURES, explain_validation
from tests.support.networks import brightness_network


def examples() -> Examples:
    """Return pictures, each with one bright spot: in the middle if its number is even, else in the frame."""
    pixels = np.zeros((100, 32, 32), np.uint8)
    pixels[::2, 14:18, 14:18] = 255
    pixels[1::2, 1:4, 10:20] = 255
    return Examples(pixels, np.arange(100), np.arange(100) % 2)


def test_the_share_is_the_mean_over_a_fixed_sample_of_both_classes() -> None:
    pictures, probabilities = examples(), np.linspace(0, 1, 100, dtype=np.float32)
    maps = explain_validation(brightness_network(), pictures, probabilities, 0.5)
    assert maps.inside == pytest.approx(0.5, abs=0.02)  # half of the sample is of each class
    again = explain_validation(brightness_network(), pictures, probabilities[::-1].copy(), 0.5)
    assert again.inside == maps.inside
    assert len(pictures) > PICTURES
    expected = [most_confident(pictures.labels, probabilities, 0.5, right=r, most=EACH) for r in (True, False)]
    assert maps.positions.tolist() == np.concatenate(expected).tolist()
    assert len(maps.heat) == 2 * EACH
    for position, heat in zip(maps.positions, maps.heat, strict=True):
        assert attention_inside(heat) == pytest.approx(1 - position % 2, abs=0.05)


def test_a_network_that_cannot_be_explained_has_the_reason_in_place_of_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refuse(network: Any) -> Iterator[None]:
        raise ValueError("the network must have convolutions with a pooling after each")
        yield

    monkeypatch.setattr(attention, "grad_cams", refuse)
    maps = explain_validation(brightness_network(), examples(), np.linspace(0, 1, 100, dtype=np.float32), 0.5)
    assert maps.missing == "the network must have convolutions with a pooling after each"
    assert (len(maps.positions), len(maps.heat)) == (0, 0)
    assert np.isnan(maps.inside)
