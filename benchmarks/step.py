"""Compare the time of a training step between Keras' optimizers and the fused ones, in paired runs.

    python benchmarks/step.py

Trains the tutorial's network and one of four layers on random pictures. Epochs alternate between Keras' own class and
pneumo's, with the same batches. Prints the milliseconds of a step, median and range over the pairs, and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pneumo.cnn.batches import Examples, steps_per_epoch, training_batches
from pneumo.cnn.build import build
from pneumo.cnn.fused import FusedAdam, FusedRMSprop, FusedSGD
from pneumo.cnn.optimizer import compile_model
from pneumo.spec.hyperparameters import Hyperparameters

NETWORKS: dict[str, dict[str, Any]] = {
    "tutorial": {},
    "four layers": {"layers": 4, "filters": 32},
}
OPTIMIZERS: dict[str, tuple[dict[str, Any], type, type]] = {
    "adam": ({}, keras.optimizers.Adam, FusedAdam),
    "sgd with momentum": ({"optimizer": "sgd", "momentum": 0.9}, keras.optimizers.SGD, FusedSGD),
    "rmsprop with momentum": ({"optimizer": "rmsprop", "momentum": 0.9}, keras.optimizers.RMSprop, FusedRMSprop),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=2048)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    print(f"{'network':<12} {'optimizer':<22} {'weights':>9}  {'Keras, ms a step':<24} {'fused, ms a step':<24} ratio")
    for network, settings in NETWORKS.items():
        for name, (chosen, theirs, ours) in OPTIMIZERS.items():
            values = Hyperparameters(
                **{"image_size": options.size, "epochs": 1000, "precision": options.precision} | settings | chosen
            )
            epochs = [epoch_timer(values, options.pictures, kind) for kind in (theirs, ours)]
            for run, _ in epochs:
                run()  # the first epoch traces the step
            pairs = [(epochs[0][0](), epochs[1][0]()) for _ in range(options.pairs)]
            columns = [describe([pair[column] for pair in pairs]) for column in (0, 1)]
            ratio = describe([ours / theirs for theirs, ours in pairs], digits=2)
            print(f"{network:<12} {name:<22} {epochs[0][1]:>9,}  {columns[0]:<24} {columns[1]:<24} {ratio}", flush=True)


def epoch_timer(values: Hyperparameters, pictures: int, kind: type) -> tuple[Callable[[], float], int]:
    """Return a function that trains an epoch and returns the milliseconds of a step, and the number of weights."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (pictures, values.image_size, values.image_size), dtype=np.uint8)
    labels = random.integers(0, 2, pictures)
    examples = Examples(pixels, np.arange(pictures), labels)
    model, steps = build(values, seed=0), steps_per_epoch(examples, values)
    compile_model(model, values, steps * values.epochs)
    if not issubclass(kind, type(model.optimizer)):
        model.optimizer.__class__ = kind  # Keras' update in place of the fused one, on the same variables
    batches = iter(training_batches(examples, values, seed=0, first_epoch=0))
    model.make_train_function()
    step = model.train_function

    def run() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            logs = step(batches)
        float(logs["loss"])
        return 1000 * (time.perf_counter() - start) / steps

    return run, model.count_params()


def describe(values: list[float], digits: int = 1) -> str:
    """Return median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
