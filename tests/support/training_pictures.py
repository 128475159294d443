"""A small training: parameters, pictures that are easy to tell apart, and how to compare what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pneumo.cnn.batches import Examples

TINY: dict[str, Any] = {"image_size": 16, "filters": 2, "dense_units": 4, "batch_size": 8, "epochs": 3}
"""Hyperparameters of a network that trains in a second."""

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 60)
PIXELS = (RNG.integers(0, 120, (60, 16, 16)) + 100 * LABELS[:, None, None]).astype(np.uint8)
"""60 pictures of 16 x 16 pixels; those of class 1 are brighter."""


def examples(rows: npt.NDArray[np.int64]) -> Examples:
    """Return the pictures of these rows with their labels."""
    return Examples(PIXELS, rows, LABELS[rows])


TRAINING, VALIDATION = examples(np.arange(10, 60)), examples(np.arange(10))


def equal(first: list[Any], second: list[Any]) -> bool:
    """Check that two lists of arrays are equal to the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
