"""How many epochs Hyperband saves on real pictures, against training every network to its end.

    python benchmarks/epochs.py --data data/chest-xray-pneumonia.zip

Runs the space of experiments/hyperband.yaml with each of three ways to spend epochs, for each seed: Keras Tuner's Hyperband,
whose rungs go on from the weights and the optimizer's state of the rung below; Optuna's random search with its Hyperband
pruner, which ends poor trials at the rungs; Optuna's random search with every trial to its end. The tutorial's network
is left out. Prints the epochs trained in all, the best value, and the epochs trained until the value that all three reach
in the end, the lowest of their best ones. Where every trial is trained to its end, trials do not depend on each other: of
those epochs the mean over all orders of the trials is taken, so that a good one that happened to come first does not count.
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

Trials = list[tuple[int, float]]
"""In the order of their ends: the epochs that each was trained, and its value, 0 where it was pruned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the archive, a zip or a folder")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        studies = {way: run(options.data.resolve(), way, seed) for way in WAYS}
        target = min(max(value for _, value in trials) for trials in studies.values())
        print(f"seed {seed}: all reach val_auc {target:.4f}")
        needed = {way: until(target, trials, independent="no pruner" in way) for way, trials in studies.items()}
        for way, trials in studies.items():
            epochs, best = sum(epochs for epochs, _ in trials), max(value for _, value in trials)
            said = f"{len(trials):3} trials {epochs:4} epochs, best {best:.4f}; {needed[way]:5.1f} epochs until then"
            print(f"  {way:26} {said}", flush=True)
            ratios[way].append(needed[way] / needed["random, no pruner"])
    for way, found in ratios.items():
        each = ", ".join(f"{ratio:.2f}" for ratio in found)
        print(f"{way:26} epochs until then, against no pruner: median {statistics.median(found):.2f} ({each})")


def until(target: float, trials: Trials, independent: bool) -> float:
    """The epochs trained until a trial reached the target."""
    if independent:
        # Of n trials in a random order the first of k is at place (n + 1) / (k + 1) in the mean.
        reached = sum(value >= target for _, value in trials)
        return statistics.mean(epochs for epochs, _ in trials) * (len(trials) + 1) / (reached + 1)
    trained = 0
    for epochs, value in trials:
        trained += epochs
        if value >= target:
            break
    return trained


def run(data: Path, way: str, seed: int) -> Trials:
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
        trials: Trials = []
        for one in sorted(runs, key=lambda one: one.info.end_time):
            complete = one.data.tags["pneumo.state"] == "complete"
            epochs = int(one.data.metrics.get("epochs_trained", 0))
            trials.append((epochs, one.data.metrics["best_val_auc"] if complete else 0.0))
        return trials


if __name__ == "__main__":
    main()
