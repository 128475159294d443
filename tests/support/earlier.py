"""The version before hyperparameters were added: what it recorded must still be taken up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# fmt: off
NAMES = (
    "layers", "filters", "filter_growth", "kernel_size", "pooling", "batch_norm", "activation", "head",
    "dense_units", "dropout", "image_size", "channels", "normalization", "shear", "zoom", "horizontal_flip",
    "rotation", "translation", "brightness", "contrast", "optimizer", "momentum", "learning_rate", "schedule",
    "weight_decay", "label_smoothing", "class_weight", "batch_size", "epochs", "precision",
)
# fmt: on
"""The hyperparameters of version 0.1.0."""


@contextmanager
def earlier_version() -> Iterator[None]:
    """Let experiments and candidates within the context have the hyperparameters of the earlier version only."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("space", "space_reader"):
            patch.setattr(f"pneumo.spec.{module}.NAMES", NAMES)
        yield
