"""Measure the resident memory of driver and workers over one search, and the time that replacing a worker takes.

    python benchmarks/memory.py

Runs a study of 100 trials, each 2 epochs of a small network on generated phantoms, and reads the resident memory of the
driver and its worker after each trial.

Prints the growth in MB per trial: of the driver, of each worker from its second trial to its last, and from one worker to
the next. Then it prints the seconds from the end of a trial to the first step of the next one, for the same worker and for
a new worker.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import yaml
from mlflow import MlflowClient

from pneumo.compute.local import TRIALS_PER_WORKER

EXPERIMENT = {
    "name": "memory",
    "data": {"source": "phantom", "phantom": {"patients": 60, "size": 64}},
    "hyperparameters": {
        "layers": {"low": 1, "high": 3},
        "filters": [8, 16, 32],
        "learning_rate": {"low": 3e-4, "high": 3e-3, "log": True},
        "epochs": 2,
    },
    "search": {"baseline": False},
}

MIN_WORKER_BYTES = 200e6
"""Smallest resident memory of a worker, bytes. Python's helper processes have less."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="number of trials")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
        removed = ("MLFLOW_TRACKING_URI", "PNEUMO_STORAGE")
        environment = {name: value for name, value in os.environ.items() if name not in removed}
        command = [sys.executable, "-m", "pneumo.search", "experiment.yaml", "--trials", str(options.trials)]
        program = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        driver, workers = measure(program)
        if program.returncode:
            sys.exit(program.returncode)
        print_growth(driver, workers)
        print_replacements(folder)


def measure(program: subprocess.Popen[str]) -> tuple[list[float], list[list[float]]]:
    """Print the program's output, and return the memory of the driver and of each worker after each trial, MB."""
    assert program.stdout is not None
    process, driver = psutil.Process(program.pid), []
    workers: dict[int, list[float]] = {}
    for line in program.stdout:
        print(line.rstrip(), flush=True)
        if not re.match(r"\s*\d+/\d+\s", line):
            continue
        driver.append(process.memory_info().rss / 1e6)
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker ends after its last trial
            # The oldest worker, since the next one starts during the last trial of a worker.
            sizes = [(child, child.memory_info().rss) for child in process.children()]
            oldest = min((c for c, size in sizes if size > MIN_WORKER_BYTES), key=psutil.Process.create_time)
            workers.setdefault(oldest.pid, []).append(oldest.memory_info().rss / 1e6)
    program.wait()
    return driver, list(workers.values())


def print_growth(driver: list[float], workers: list[list[float]]) -> None:
    """Print the growth of the memory per trial."""
    # The first trials include what is loaded once, as the rest of TensorFlow.
    later = driver[len(driver) // 10 :]
    print(f"driver: {driver[0]:,.0f} MB after the first trial, {driver[-1]:,.0f} after {len(driver)}; ", end="")
    print(f"growth {slope(driver):+.3f} MB per trial, without the first tenth {slope(later):+.3f}")
    slopes = [slope(sizes[1:]) for sizes in workers if len(sizes) > 2]
    print(
        f"{len(workers)} workers: growth from the second trial on {statistics.mean(slopes):+.2f} MB per trial, ", end=""
    )
    print("by worker " + ", ".join(f"{value:+.2f}" for value in slopes))
    ends = [(sizes[0], sizes[-1]) for sizes in workers]
    print(
        "  MB after the first and the last trial: " + ", ".join(f"{first:,.0f} to {last:,.0f}" for first, last in ends)
    )
    means = [statistics.mean(sizes) for sizes in workers if len(sizes) >= TRIALS_PER_WORKER - 1]
    print(f"  from one worker to the next: growth of the means {slope(means) / TRIALS_PER_WORKER:+.3f} MB per trial")


def slope(values: list[float]) -> float:
    """Return the slope of the regression line through equidistant values."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def print_replacements(folder: Path) -> None:
    """Print the seconds between trials, from the MLflow runs.

    The metrics of the first epoch are logged `epoch_seconds` after its first step starts.
    """
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("memory")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'trial'", max_results=50_000)
    trials = sorted(runs, key=lambda run: int(run.data.tags["pneumo.trial"]))
    same: list[float] = []
    new: list[float] = []
    for number, (before, run) in enumerate(pairwise(trials), start=1):
        first = client.get_metric_history(run.info.run_id, "epoch_seconds")[0]
        seconds = first.timestamp / 1000 - first.value - before.info.end_time / 1000
        (same if number % TRIALS_PER_WORKER else new).append(seconds)
    for name, gaps in (("the same worker", same), ("a new worker", new)):
        if gaps:
            print(f"from a trial's end to the next one's first step, {name}: ", end="")
            print(f"median {statistics.median(gaps):.2f} s of {len(gaps)}, longest {max(gaps):.2f} s")


if __name__ == "__main__":
    main()
