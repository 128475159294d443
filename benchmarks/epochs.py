"""How many epochs Hyperband saves on real pictures, against training every network to its end.

    python benchmarks/epochs.py --data data/chest-xray-pneumonia.zip

Runs the space of experiments/hyperband.yaml with each of three ways to spend epochs, for each seed: Keras Tuner's Hyperband,
whose rungs go on from the weights and the optimizer's state of the rung below; Optuna's random search with its Hyperband
pruner, which ends poor trials at the rungs; Optuna's random search with every trial to its end. The tutorial's network
is left out. Prints the epochs trained in all, the best value, and the epochs trained until the value that all three reach
in the end, the lowest of their best ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient

EXPERIMENT = Path(__file__).resolve().parent.parent / "experiments" / "hyperband.yaml"

WAYS: dict[str, list[str]] = {
    "keras-tuner hyperband": [],
    "random, pruner hyperband": ["search.engine=optuna", "search.algorithm=random", "search.pruner=hyperband"],
    "random, no pruner": ["search.engine=optuna", "search.algorithm=random"],
}

OPTUNA = ["search.algorithm_settings={}", "search.trials=20"]
"""Twenty networks; Hyperband's one round of brackets has seventeen."""

Curve = list[tuple[int, float]]
"""After each trial, in the order of their ends: the epochs trained so far and the best value so far."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the archive, a zip or a folder")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        curves = {way: curve(options.data.resolve(), way, seed) for way in WAYS}
        target = min(points[-1][1] for points in curves.values())
        print(f"seed {seed}: all reach val_auc {target:.4f}")
        needed = {way: next(epochs for epochs, best in points if best >= target) for way, points in curves.items()}
        for way, points in curves.items():
            epochs, best = points[-1]
            print(
                f"  {way:26} {len(points):3} trials {epochs:4} epochs, best {best:.4f}; {needed[way]:4} epochs until then"
            )
            ratios[way].append(needed[way] / needed["random, no pruner"])
    for way, found in ratios.items():
        print(f"{way:26} epochs until the same value, against no pruner: median {statistics.median(found):.2f}", end="")
        print(f" ({', '.join(f'{ratio:.2f}' for ratio in found)})")


def curve(data: Path, way: str, seed: int) -> Curve:
    """Runs one study in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"search.seed={seed}", "search.baseline=false", *WAYS[way], *(OPTUNA if WAYS[way] else [])]
        command = [sys.executable, "-m", "pneumo.search", str(EXPERIMENT), "--data", str(data)]
        command += [part for setting in settings for part in ("--set", setting)]
        mine = ("MLFLOW_TRACKING_URI", "PNEUMO_STORAGE")
        environment = {name: value for name, value in os.environ.items() if name not in mine}
        subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.get_experiment_by_name("hyperband")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'trial'", max_results=1000)
        points: Curve = []
        trained, best = 0, 0.0
        for run in sorted(runs, key=lambda run: run.info.end_time):
            trained += int(run.data.metrics.get("epochs_trained", 0))
            if run.data.tags["pneumo.state"] == "complete":
                best = max(best, run.data.metrics["best_val_auc"])
            points.append((trained, best))
        return points


if __name__ == "__main__":
    main()
