"""What deterministic operations cost: the same training with and without them, on real pictures.

    python benchmarks/determinism.py --data chest-xray-pneumonia.zip

Trains the tutorial's network in pairs of new processes, the first of a pair in turn without and with
`tf.config.experimental.enable_op_determinism()`, and prints the seconds of training and predicting, those of the processor
(all cores; steadier where other programs run), the ratios of each pair, and whether all weights are equal to the last bit.
`--set` changes a hyperparameter, as `--set layers=3`.
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
    parser.add_argument("--data", required=True, help="the archive, a zip or a folder")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--one", choices=("with", "without"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    values = {"epochs": 2} | {name: yaml.safe_load(value) for name, _, value in (s.partition("=") for s in options.set)}
    if options.one:
        print(json.dumps(train(options.data, values, options.one == "with")))
        return
    ratios: dict[str, list[float]] = {"seconds": [], "processor seconds": []}
    weights = set()
    for pair in range(options.pairs):
        spent = {}
        for way in ("without", "with") if pair % 2 == 0 else ("with", "without"):
            command = [sys.executable, *sys.argv, "--one", way]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
            *seconds, digest = json.loads(done.stdout)
            spent[way] = dict(zip(ratios, seconds, strict=True))
            weights.add(digest)
        for name, found in ratios.items():
            without, with_ = spent["without"][name], spent["with"][name]
            found.append(with_ / without)
            print(f"{name}: without {without:.2f}, with {with_:.2f}, {found[-1]:.3f} times", flush=True)
    for name, found in ratios.items():
        print(f"{name}: median {statistics.median(found):.3f} times ({min(found):.3f} to {max(found):.3f})")
    print("all weights are equal to the last bit" if len(weights) == 1 else f"{len(weights)} different sets of weights")


def train(path: str, hyperparameters: dict[str, Any], deterministic: bool) -> tuple[float, float, str]:
    """Seconds of training and predicting, the processor's, and a digest of the weights."""
    from pneumo.cnn.device import warm_up

    warm_up(deterministic=deterministic)
    from pneumo.cnn.build import build
    from pneumo.cnn.fit import EpochOutcome, Examples, fit
    from pneumo.data.prepare import prepare
    from pneumo.data.sources import source_at
    from pneumo.spec.hyperparameters import Hyperparameters

    values = Hyperparameters(**hyperparameters)
    data = prepare(source_at(path), [values.image_size], 0.12, 0)
    pixels, labels = data.pixels(values.image_size), data.labels.astype("int64")
    parts = (Examples(pixels, rows, labels[rows]) for rows in (data.training, data.validation))
    model = build(values, seed=0)
    begin = time.process_time()
    fitted = fit(model, values, *parts, seed=0, after_epoch=lambda *_: EpochOutcome(0.0, True))
    processor = time.process_time() - begin
    return fitted.cost.seconds, processor, sha256(b"".join(one.tobytes() for one in model.get_weights())).hexdigest()


if __name__ == "__main__":
    main()
