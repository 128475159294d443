"""Measure which share of a study's time is not spent in training, on real pictures.

    python benchmarks/overhead.py --data chest-xray-pneumonia.zip

Runs a study of 6 trials of 5 epochs at 64 pixels, from a folder without cache and database.

Prints the output of the search with the resident memory of the driver and its workers after each trial, where the time
went, and (wall time - time of training) / time of training. The time of training is the trials' metric
`train_seconds`: training, and predicting the validation pictures, without computing metrics, writing for MLflow and waiting
for the engine's decision.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from mlflow import MlflowClient

from pneumo.engines.engine_table import read_finished_trials

EXPERIMENT = {
    "name": "overhead",
    "hyperparameters": {
        "layers": {"low": 1, "high": 3},
        "filters": [16, 32],
        "learning_rate": {"low": 3e-4, "high": 3e-3, "log": True},
        "epochs": 5,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the archive: a zip or a folder")
    parser.add_argument("--trials", type=int, default=6, help="number of trials")
    parser.add_argument("--warm", action="store_true", help="use the cache of decoded pictures of this user")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
        removed = ("MLFLOW_TRACKING_URI", "PNEUMO_STORAGE")
        environment = {name: value for name, value in os.environ.items() if name not in removed}
        if not options.warm:
            environment["PNEUMO_CACHE"] = str(folder / "cache")
        command = [sys.executable, "-m", "pneumo.search", "experiment.yaml", "--data", str(options.data.resolve())]
        command += ["--trials", str(options.trials)]
        start = time.time()
        program = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        watch(program)
        end = time.time()
        if program.returncode:
            sys.exit(program.returncode)
        print_shares(folder, start, end)


def watch(program: subprocess.Popen[str]) -> None:
    """Print the output of the search, and the memory after each trial."""
    assert program.stdout is not None
    process = psutil.Process(program.pid)
    for line in program.stdout:
        memory = ""
        if re.match(r"\s*\d+/\d+\s", line):
            sizes = [child.memory_info().rss for child in process.children(recursive=True)]
            workers = ", ".join(f"{size / 1e6:,.0f}" for size in sizes if size > 1e8)
            memory = f"   [MB: driver {process.memory_info().rss / 1e6:,.0f}; workers {workers}]"
        print(line.rstrip() + memory, flush=True)
    program.wait()


def print_shares(folder: Path, start: float, end: float) -> None:
    """Print where the time between `start` and `end` (Unix seconds) went.

    The starts of the trials are those of their MLflow runs, and the ends those in the study: a run is closed later, when its
    plots are drawn while the next trial trains.
    """
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("overhead")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    trials = [run for run in runs if run.data.tags["pneumo.role"] == "trial"]
    ends = [trial.result.ended for trial in read_finished_trials("overhead", f"sqlite:///{folder}/mlruns/studies.db")]
    fit = sum(run.data.metrics["train_seconds"] for run in trials)
    within = sum(ends) - sum(run.info.start_time for run in trials) / 1000
    before = trials[0].info.start_time / 1000 - start
    after = end - max(ends)
    wall = end - start
    rows = {
        "wall time": wall,
        "training": fit,
        "before the first trial (imports, decoding, databases)": before,
        "within trials, outside training (waiting for the worker's imports, metrics, model, MLflow)": within - fit,
        "between trials (the engine's proposals and results)": wall - before - after - within,
        "after the last trial (its plots, the report, closing)": after,
    }
    for name, seconds in rows.items():
        print(f"{seconds:8.1f} s  {name}")
    print(f"share: ({wall:.1f} - {fit:.1f}) / {fit:.1f} = {(wall - fit) / fit:.1%}")


if __name__ == "__main__":
    main()
