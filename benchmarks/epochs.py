"""Measure how many epochs Hyperband saves on real pictures, compared with training each network to its end.

    python benchmarks/epochs.py --data data/chest-xray-pneumonia.zip

For each seed, searches the space of experiments/hyperband.yaml, without the tutorial's network, in three ways: Keras
Tuner's Hyperband, whose rungs continue from the weights and the optimizer's state of the rung below; Optuna's random search
with its Hyperband pruner, which ends poor trials at the rungs; Optuna's random search without pruner.

Prints for each seed and way the number of trials and epochs, the best value, and the epochs until the target: the lowest of
the three best values. At the end it prints the ratio of those epochs to those without pruner, as the median over the seeds.
Without pruner the trials are independent of each other, so the mean over all orders of the trials is taken; a good trial
that happened to come first then has no influence.
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

OPTUNA_SETTINGS = ["search.algorithm_settings={}", "search.trials=20"]
"""Settings of both ways with Optuna: 20 networks. One round of Hyperband's brackets has 17."""

Trials = list[tuple[int, float]]
"""The trials in the order in which they ended: number of epochs, and value (0 for a pruned trial)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the archive: a zip or a folder")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        studies = {way: run_study(options.data.resolve(), way, seed) for way in WAYS}
        target = min(max(value for _, value in trials) for trials in studies.values())
        print(f"seed {seed}: target val_auc {target:.4f}")
        needed = {way: epochs_until(target, trials, independent="no pruner" in way) for way, trials in studies.items()}
        for way, trials in studies.items():
            epochs, best = sum(epochs for epochs, _ in trials), max(value for _, value in trials)
            text = (
                f"{len(trials):3} trials {epochs:4} epochs, best {best:.4f}; {needed[way]:5.1f} epochs until the target"
            )
            print(f"  {way:26} {text}", flush=True)
            ratios[way].append(needed[way] / needed["random, no pruner"])
    for way, seed_ratios in ratios.items():
        ratios_text, median = ", ".join(f"{ratio:.2f}" for ratio in seed_ratios), statistics.median(seed_ratios)
        print(f"{way:26} epochs until the target, relative to no pruner: median {median:.2f} ({ratios_text})")


def epochs_until(target: float, trials: Trials, independent: bool) -> float:
    """Return the number of epochs trained until a trial reaches the target.

    For independent trials the mean over all orders is returned.
    """
    if independent:
        # In a random order of n trials, the first of k is at position (n + 1) / (k + 1) on average.
        reached = sum(value >= target for _, value in trials)
        return statistics.mean(epochs for epochs, _ in trials) * (len(trials) + 1) / (reached + 1)
    trained = 0
    for epochs, value in trials:
        trained += epochs
        if value >= target:
            break
    return trained


def run_study(data: Path, way: str, seed: int) -> Trials:
    """Run one study in a temporary folder and return its trials."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"search.seed={seed}", "search.baseline=false", *WAYS[way], *(OPTUNA_SETTINGS if WAYS[way] else [])]
        command = [sys.executable, "-m", "pneumo.search", str(EXPERIMENT), "--data", str(data)]
        command += [part for setting in settings for part in ("--set", setting)]
        removed = ("MLFLOW_TRACKING_URI", "PNEUMO_STORAGE")
        environment = {name: value for name, value in os.environ.items() if name not in removed}
        subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.get_experiment_by_name("hyperband")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'trial'", max_results=1000)
        trials: Trials = []
        for run in sorted(runs, key=lambda run: run.info.end_time):
            complete = run.data.tags["pneumo.state"] == "complete"
            epochs = int(run.data.metrics.get("epochs_trained", 0))
            trials.append((epochs, run.data.metrics["best_val_auc"] if complete else 0.0))
        return trials


if __name__ == "__main__":
    main()
