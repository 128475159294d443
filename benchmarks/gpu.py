"""Measure the images a second that a device trains, by network, way of the batches, precision and XLA. Five minutes on a GPU.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --trials 4        four trainings at the same time, each with a quarter of the device

Trains the tutorial's network and one of four layers on random pictures. `host` reads and augments each batch in threads of the
CPU; `device` keeps the pictures in the device's memory and augments them there, as a search does on a GPU. `xla` compiles the
step, which a search does not; its column `traced` says what the first call took. Each figure is the median of the epochs after
the first, with their range.

`peak` is the share of the speed of a product of two square matrices in the same precision, the most that the device does. The
operations of a training step are three times the multiplications and additions of its convolutions and dense layers.

Without a GPU it measures the CPU.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import time
from typing import Any

NETWORKS: dict[str, dict[str, Any]] = {"tutorial": {}, "four layers": {"layers": 4, "filters": 64}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4096)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each training, the first not counted")
    parser.add_argument(
        "--precision", action="append", help="may be repeated; default: float32 and the device's fastest"
    )
    parser.add_argument("--no-xla", action="store_true", help="leave out the compiled steps")
    parser.add_argument("--trials", type=int, default=1, help="number of trainings at the same time, in processes")
    options = parser.parse_args()
    if options.trials == 1:
        measure(options, None)
        return
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(options.trials)
    others = [context.Process(target=measure, args=(options, barrier, number)) for number in range(options.trials)]
    for process in others:
        process.start()
    for process in others:
        process.join()


def measure(options: argparse.Namespace, barrier: Any, number: int = 0) -> None:
    """Print a table. With a barrier, all processes start each row together, and only the first prints."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pneumo.cnn.device import find_device

    device = find_device()
    precisions = options.precision or sorted({"float32", device.fastest_precision}, reverse=True)
    peaks = {precision: matrix_speed(precision) for precision in precisions}
    if number == 0:
        print(
            f"{device.name}; a product of matrices: " + ", ".join(f"{p} {peaks[p] / 1e12:.1f} TFLOP/s" for p in peaks)
        )
        print(
            f"{'network':<12} {'precision':<9} {'batches':<7} {'xla':<4} {'images/s of one training':<30} traced   peak"
        )
    for name, network in NETWORKS.items():
        for precision in precisions:
            for resident in (False, True):
                for xla in (False,) if options.no_xla else (False, True):
                    if barrier:
                        barrier.wait()
                    first, speeds, operations = train(options, network | {"precision": precision}, resident, xla)
                    speed = statistics.median(speeds)
                    figures = f"{speed:,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})"
                    share = speed * operations * options.trials / peaks[precision]
                    if number == 0:
                        way, compiled = "device" if resident else "host", "yes" if xla else "no"
                        print(
                            f"{name:<12} {precision:<9} {way:<7} {compiled:<4} {figures:<30} {first:5.1f} s {share:6.1%}",
                            flush=True,
                        )


def train(
    options: argparse.Namespace, changes: dict[str, Any], resident: bool, xla: bool
) -> tuple[float, list[float], float]:
    """Return the seconds of the first call, the images a second of each epoch, and the operations for a picture."""
    import keras
    import numpy as np
    import tensorflow as tf

    from pneumo.cnn.batches import Examples, resident_batches, steps_per_epoch, training_batches
    from pneumo.cnn.build import build
    from pneumo.cnn.device import release_memory
    from pneumo.cnn.optimizer import compile_model
    from pneumo.cnn.steps import Steps
    from pneumo.spec.hyperparameters import Hyperparameters

    values = Hyperparameters(**{"image_size": options.size, "epochs": options.epochs} | changes)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (options.pictures, options.size, options.size), dtype=np.uint8)
    examples = Examples(pixels, np.arange(options.pictures), random.integers(0, 2, options.pictures))
    model, steps = build(values, seed=0), steps_per_epoch(examples, values)
    compile_model(model, values, steps * values.epochs)
    if xla:
        model.train_step = tf.function(model.train_step, jit_compile=True)
    if resident:
        runner = Steps(model, *resident_batches(examples, values, seed=0))
    else:
        runner = Steps(model, training_batches(examples, values, seed=0))
    speeds, first = list[float](), 0.0
    for epoch in range(options.epochs):
        start, trained = time.perf_counter(), 0
        while trained < steps:
            trained += runner.train(steps - trained)[0]
            first = first or time.perf_counter() - start
        if epoch:
            speeds.append(options.pictures / (time.perf_counter() - start))
    operations = 3 * 2 * sum(multiplications(layer) for layer in model.layers)
    release_memory(model)
    keras.backend.clear_session()
    return first, speeds, operations


def multiplications(layer: Any) -> int:
    """Return the multiplications of a convolution or a dense layer for one picture."""
    if not hasattr(layer, "kernel"):
        return 0
    places = math.prod(layer.output.shape[1:-1])  # 1 for a dense layer
    return int(places * math.prod(layer.kernel.shape))


def matrix_speed(precision: str) -> float:
    """Return the operations a second of a product of two square matrices."""
    import tensorflow as tf

    side, repetitions = (8192, 20) if tf.config.list_physical_devices("GPU") else (2048, 5)
    matrix = tf.cast(tf.random.normal((side, side)), precision)

    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.linalg.matmul(matrix, matrix), tf.float32)))
    best = math.inf
    for _ in range(repetitions):
        start = time.perf_counter()
        float(product())
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


if __name__ == "__main__":
    main()
