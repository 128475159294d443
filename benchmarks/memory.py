"""Resident memory over the trials of one search, and what replacing a worker costs.

    python benchmarks/memory.py

Runs the real program, a study of 100 trials of 2 epochs of small networks on generated phantoms, and reads the resident
memory of the driver and of its worker after each trial. Prints how it grows, in MB a trial: the driver's, a worker's from
its second trial to its last, and the workers' from one to the next. And the seconds from the end of a trial to the first
step of the next one, where the same worker takes it and where a new one does.
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

SMALLEST_WORKER = 200e6
"""Bytes. Python's own helper processes are smaller."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
        mine = ("MLFLOW_TRACKING_URI", "PNEUMO_STORAGE")
        environment = {name: value for name, value in os.environ.items() if name not in mine}
        command = [sys.executable, "-m", "pneumo.search", "experiment.yaml", "--trials", str(options.trials)]
        program = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        driver, workers = watch(program)
        if program.returncode:
            sys.exit(program.returncode)
        say_memory(driver, workers)
        say_replacements(folder)


def watch(program: subprocess.Popen[str]) -> tuple[list[float], list[list[float]]]:
    """MB after each trial: of the driver, and of each worker after its own trials."""
    assert program.stdout is not None
    process, driver = psutil.Process(program.pid), []
    workers: dict[int, list[float]] = {}
    for line in program.stdout:
        print(line.rstrip(), flush=True)
        if not re.match(r"\s*\d+/\d+\s", line):
            continue
        driver.append(process.memory_info().rss / 1e6)
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker's last trial: it ends
            # The oldest: beside a worker's last trial the next one starts.
            sizes = [(child, child.memory_info().rss) for child in process.children()]
            oldest = min((c for c, size in sizes if size > SMALLEST_WORKER), key=psutil.Process.create_time)
            workers.setdefault(oldest.pid, []).append(oldest.memory_info().rss / 1e6)
    program.wait()
    return driver, list(workers.values())


def say_memory(driver: list[float], workers: list[list[float]]) -> None:
    # The first trials bring what is loaded once: the study's plots at its end, the rest of TensorFlow.
    later = driver[len(driver) // 10 :]
    print(f"driver: {driver[0]:,.0f} MB after the first trial, {driver[-1]:,.0f} after {len(driver)}; ", end="")
    print(f"slope {slope(driver):+.3f} MB a trial, without the first tenth {slope(later):+.3f}")
    own = [slope(sizes[1:]) for sizes in workers if len(sizes) > 2]
    print(
        f"workers, {len(workers)}: slope from the second trial on {statistics.mean(own):+.2f} MB a trial, each ", end=""
    )
    print(", ".join(f"{one:+.2f}" for one in own))
    ends = [(sizes[0], sizes[-1]) for sizes in workers]
    print("  MB after the first and the last trial: " + ", ".join(f"{a:,.0f} to {b:,.0f}" for a, b in ends))
    whole = [statistics.mean(sizes) for sizes in workers if len(sizes) >= TRIALS_PER_WORKER - 1]
    print(f"  from one worker to the next: slope of their means {slope(whole) / TRIALS_PER_WORKER:+.3f} MB a trial")


def slope(values: list[float]) -> float:
    """Of a straight line through the values, a step apart."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def say_replacements(folder: Path) -> None:
    """From the records in MLflow: the first epoch's metrics are logged `epoch_seconds` after its first step began."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("memory")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'trial'", max_results=50_000)
    trials = sorted(found, key=lambda run: int(run.data.tags["pneumo.trial"]))
    same: list[float] = []
    new: list[float] = []
    for number, (before, run) in enumerate(pairwise(trials), start=1):
        first = client.get_metric_history(run.info.run_id, "epoch_seconds")[0]
        seconds = first.timestamp / 1000 - first.value - before.info.end_time / 1000
        (same if number % TRIALS_PER_WORKER else new).append(seconds)
    for what, gaps in (("the same worker", same), ("a new worker", new)):
        if gaps:
            print(f"from a trial's end to the next one's first step, {what}: ", end="")
            print(f"median {statistics.median(gaps):.2f} s of {len(gaps)}, longest {max(gaps):.2f} s")


if __name__ == "__main__":
    main()
