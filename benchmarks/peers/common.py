"""What the peers have in common: the pictures, the network of the race, and the record of its epochs.

The pictures are read as Keras' guide "Image classification from scratch" reads them: `image_dataset_from_directory`, random
transforms in `map`, `prefetch`; and `cache`, as TensorFlow's tutorial "Load and preprocess images" adds it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

EPOCHS = 10
"""Largest number of epochs of a trial."""


def arguments() -> argparse.Namespace:
    """Return what `benchmarks/race.py` gives a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", required=True, type=Path, help="folder with train/CLASS and val/CLASS")
    parser.add_argument("--events", required=True, type=Path, help="file that takes one line of JSON for each epoch")
    parser.add_argument("--seed", required=True, type=int)
    return parser.parse_args()


def datasets(pictures: Path, size: int) -> tuple[Any, Any]:
    """Return the training and the validation pictures in batches of 32, in the memory after the first epoch."""
    options: dict[str, Any] = {"label_mode": "binary", "image_size": (size, size), "batch_size": 32}
    training = keras.utils.image_dataset_from_directory(pictures / "train", **options)
    validation = keras.utils.image_dataset_from_directory(pictures / "val", shuffle=False, **options)
    mirror = keras.layers.RandomFlip("horizontal")

    def augment(images: Any, labels: Any) -> tuple[Any, Any]:
        return mirror(images), labels

    training = training.cache().shuffle(200).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return training.prefetch(tf.data.AUTOTUNE), validation.cache().prefetch(tf.data.AUTOTUNE)


def build(layers: int, filters: int, size: int, dropout: float, rate: float) -> Any:
    """Return a compiled network of the race: the tutorial's, with other layers, filters, sizes and rates."""
    model = keras.Sequential([keras.Input((size, size, 3)), keras.layers.Rescaling(1 / 255)])
    for _ in range(layers):
        model.add(keras.layers.Conv2D(filters, 3, activation="relu"))
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(128, activation="relu"))
    model.add(keras.layers.Dropout(dropout))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    # With Keras' default of 200 thresholds, AUCs near 1 differ from the exact ones in the third decimal.
    auc = keras.metrics.AUC(num_thresholds=2000, name="auc")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy", auc])
    return model


class Record(keras.callbacks.Callback):  # type: ignore[misc]
    """Add a line to the events after each epoch: the time in Unix seconds, the trial and the validation AUC."""

    def __init__(self, events: Path, trial: str) -> None:
        super().__init__()
        self.events = events
        self.trial = trial

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        event = {"time": time.time(), "trial": self.trial, "auc": float(logs["val_auc"])}
        with self.events.open("a") as file:
            file.write(json.dumps(event) + "\n")
