"""Measure what deterministic operations cost: train the same network with and without them, on real pictures.

    python benchmarks/determinism.py --data chest-xray-pneumonia.zip

Trains the tutorial's network in pairs of new processes, with and without `tf.config.experimental.enable_op_determinism()`;
the order alternates from pair to pair. `--set` changes a hyperparameter, as `--set layers=3`.

Prints for each pair, and as the median of all pairs, the ratio of the seconds of training and predicting, and the ratio of
the processor seconds of all cores (less disturbed by other programs); then whether all weights are equal to the last bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from hashlib import sha256
from typing import Any

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the archive: a zip or a folder")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of trainings")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mode", choices=("with", "without"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    values = {"epochs": 2} | {name: yaml.safe_load(value) for name, _, value in (s.partition("=") for s in options.set)}
    if options.mode:
        print(json.dumps(train(options.data, values, options.mode == "with")))
        return
    ratios: dict[str, list[float]] = {"seconds": [], "processor seconds": []}
    weights = set()
    for pair in range(options.pairs):
        measured = {}
        for mode in ("without", "with") if pair % 2 == 0 else ("with", "without"):
            command = [sys.executable, *sys.argv, "--mode", mode]
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
            *seconds, digest = json.loads(result.stdout)
            measured[mode] = dict(zip(ratios, seconds, strict=True))
            weights.add(digest)
        for name, pair_ratios in ratios.items():
            without, with_ = measured["without"][name], measured["with"][name]
            pair_ratios.append(with_ / without)
            print(f"{name}: without {without:.2f}, with {with_:.2f}, ratio {with_ / without:.3f}", flush=True)
    for name, pair_ratios in ratios.items():
        low, high = min(pair_ratios), max(pair_ratios)
        print(f"{name}: median ratio {statistics.median(pair_ratios):.3f} ({low:.3f} to {high:.3f})")
    print("all weights are equal to the last bit" if len(weights) == 1 else f"{len(weights)} different sets of weights")


def train(path: str, hyperparameters: dict[str, Any], deterministic: bool) -> tuple[float, float, str]:
    """Return the seconds of training and predicting, the processor seconds, and a digest of the weights."""
    from pneumo.cnn.device import warm_up

    warm_up(deterministic=deterministic)
    from pneumo.cnn.batches import Examples
    from pneumo.cnn.build import build
    from pneumo.cnn.fit import EpochOutcome, fit
    from pneumo.data.prepare import prepare
    from pneumo.data.sources import source_at
    from pneumo.spec.hyperparameters import Hyperparameters

    values = Hyperparameters(**hyperparameters)
    data = prepare(source_at(path), [values.image_size], 0.12, 0)
    pixels, labels = data.pixels(values.image_size), data.labels.astype("int64")
    parts = (Examples(pixels, rows, labels[rows]) for rows in (data.training, data.validation))
    model = build(values, seed=0)
    start = time.process_time()
    fitted = fit(model, values, *parts, seed=0, after_epoch=lambda *_: EpochOutcome(0.0, True))
    processor = time.process_time() - start
    return (
        fitted.cost.seconds,
        processor,
        sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest(),
    )


if __name__ == "__main__":
    main()
